//! Heartbeats that take more than they hold: many groups, names that are none, bodies of 14 MiB.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::Attack;
use crate::hostile::ask::{self, HEART_BEAT};
use crate::hostile::lane::Flood;
use crate::hostile::site::Site;
use crate::hostile::tally::Floor;
use crate::nemesis::Doing;

/// Groups of one heartbeat.
const GROUPS: u32 = 30_000;
/// Bytes of the largest body.
const GIANT_BYTES: usize = 14 << 20;

pub(super) fn all() -> Vec<Box<dyn Attack>> {
    vec![
        Box::new(Heartbeats {
            name: "heartbeat-groups",
            about: "one heartbeat after the other with 30,000 consumer groups",
            make: || ask::heartbeat("many-groups", &[], &groups("group")),
        }),
        Box::new(Heartbeats {
            name: "heartbeat-producers",
            about: "one heartbeat after the other with 30,000 producer groups",
            make: || {
                let producer = |number| json!({ "groupName": format!("producer-{number}") });
                ask::heartbeat("many-producers", &(0..GROUPS).map(producer).collect::<Vec<Value>>(), &[])
            },
        }),
        Box::new(Heartbeats {
            name: "heartbeat-illegal",
            about: "one heartbeat after the other with 30,000 groups whose names are illegal",
            make: || ask::heartbeat("illegal", &[], &groups("no!such/name \u{1F98A}")),
        }),
        Box::new(Heartbeats {
            name: "heartbeat-giant",
            about: "heartbeats of 14 MiB: more than a node may tell the others at once",
            make: || {
                let expression = "a||".repeat(GIANT_BYTES / 16 / 3);
                let subscription = ask::subscription("giant", &expression);
                let one = |number: u32| {
                    ask::consumer(&format!("giant-{number}"), std::slice::from_ref(&subscription))
                };
                ask::heartbeat("giant", &[], &(0..16).map(one).collect::<Vec<Value>>())
            },
        }),
        Box::new(EmptyObjects),
    ]
}

fn groups(name: &str) -> Vec<Value> {
    (0..GROUPS).map(|number| ask::consumer(&format!("{name}-{number}"), &[])).collect()
}

/// The same heartbeat again and again, at every node.
struct Heartbeats {
    name: &'static str,
    about: &'static str,
    make: fn() -> folio_protocol::frame::Frame,
}

impl Attack for Heartbeats {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn floor(&self) -> Floor {
        Floor { opened: 3, frames: 3, bytes: 1 << 20, heard: 1 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            let heartbeat = ask::bytes((self.make)(), 1);
            anyhow::ensure!(!heartbeat.is_empty(), "the heartbeat fits no frame");
            let targets: Vec<String> = site.nodes().iter().map(|node| node.broker.clone()).collect();
            let flood = Flood { pause: Duration::from_millis(100), ..Flood::new(3, 2) };
            flood.run(site, &targets, move |_, _| heartbeat.clone()).await;
            Ok(())
        })
    }
}

/// Lists whose items are three bytes on the wire and hundreds in memory.
struct EmptyObjects;

impl Attack for EmptyObjects {
    fn name(&self) -> &'static str {
        "empty-objects"
    }

    fn about(&self) -> &'static str {
        "bodies that are lists of millions of {}: each is far larger decoded than on the wire"
    }

    fn floor(&self) -> Floor {
        Floor { opened: 3, frames: 6, bytes: 10 << 20, heard: 1 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            let list = "{},".repeat(4 << 20);
            let list = list.trim_end_matches(',');
            let one = |code: i32, field: &str| {
                let mut frame = crate::client::request(code, []);
                frame.body = Bytes::from(format!("{{\"clientID\":\"objects\",\"{field}\":[{list}]}}"));
                ask::bytes(frame, 1)
            };
            let bodies = [
                one(HEART_BEAT, "consumerDataSet"),
                one(HEART_BEAT, "producerDataSet"),
                one(ask::LOCK_BATCH_MQ, "mqSet"),
                one(ask::UNLOCK_BATCH_MQ, "mqSet"),
            ];
            let targets: Vec<String> = site.nodes().iter().map(|node| node.broker.clone()).collect();
            let flood = Flood { pause: Duration::from_millis(100), ..Flood::new(6, 1) };
            flood
                .run(site, &targets, move |lane, n| bodies[(lane + n) as usize % bodies.len()].clone())
                .await;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_heartbeat_fits_a_frame_and_is_as_large_as_its_floor_says() {
        let makes = [groups("group"), groups("no!such/name \u{1F98A}")];
        for groups in makes {
            let bytes = ask::bytes(ask::heartbeat("c", &[], &groups), 1);
            assert!(bytes.len() > 1 << 20, "{}", bytes.len());
        }
    }
}
