//! Administration: only whether it is answered or refused. Nothing here may change the membership.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::Attack;
use crate::client::request;
use crate::hostile::ask::{self, REMOVE_NODE};
use crate::hostile::lane::Flood;
use crate::hostile::site::Site;
use crate::hostile::tally::Floor;
use crate::nemesis::Doing;

/// Codes of requests that only look, or that this server does not serve.
const LOOKS: [i32; 12] = [21, 26, 28, 43, 45, 106, 201, 203, 206, 208, 319, 90_001];
/// A node that is no member: to remove it changes nothing.
const NO_MEMBER: u64 = 9_000_000;

pub(super) fn all() -> Vec<Box<dyn Attack>> {
    vec![Box::new(Admin)]
}

struct Admin;

impl Attack for Admin {
    fn name(&self) -> &'static str {
        "admin-requests"
    }

    fn about(&self) -> &'static str {
        "administrative requests from many addresses, and the removal of a node that is no member"
    }

    fn floor(&self) -> Floor {
        Floor { opened: 4, frames: 50, bytes: 0, heard: 20 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            let make = |_, n: u64| -> Bytes {
                let frame = match n % 16 {
                    // Neither name nor number of a member.
                    12 => ask::with_json(REMOVE_NODE, &json!({ "id": NO_MEMBER })),
                    13 => ask::with_json(REMOVE_NODE, &json!({ "id": "x" })),
                    14 => request(REMOVE_NODE, []),
                    15 => request(25, [("brokerName", "x")]),
                    look => request(LOOKS[look as usize], []),
                };
                ask::bytes(frame, n)
            };
            let targets: Vec<String> = site.nodes().iter().map(|node| node.broker.clone()).collect();
            let pause = Duration::from_millis(2);
            let flood = Flood { sources: true, each: 200, pause, ..Flood::new(4, 8) };
            flood.run(site, &targets, make).await;
            Ok(())
        })
    }
}
