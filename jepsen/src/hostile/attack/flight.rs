//! Requests in flight without bound on one connection.

use super::Attack;
use crate::client::request;
use crate::hostile::ask::{self, GET_MAX_OFFSET, GET_ROUTE, NODE_STATUS, QUERY_CONSUMER_OFFSET};
use crate::hostile::good;
use crate::hostile::lane::Flood;
use crate::hostile::site::Site;
use crate::hostile::tally::Floor;
use crate::nemesis::Doing;

/// Unanswered requests of one connection.
const IN_FLIGHT: usize = 60_000;

pub(super) fn all() -> Vec<Box<dyn Attack>> {
    vec![Box::new(Queries), Box::new(Lookups)]
}

struct Queries;

impl Attack for Queries {
    fn name(&self) -> &'static str {
        "queries-in-flight"
    }

    fn about(&self) -> &'static str {
        "60,000 questions for offsets that each need a proof of leadership, at once on one connection"
    }

    fn floor(&self) -> Floor {
        Floor { opened: 1, frames: 1000, bytes: 0, heard: 100 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            let topic = site.topic().to_owned();
            let make = move |_, n: u64| {
                let queue = (n % u64::from(good::QUEUES)).to_string();
                let fields = [("consumerGroup", good::GROUP), ("topic", &topic), ("queueId", &queue)];
                let code = if n.is_multiple_of(2) { QUERY_CONSUMER_OFFSET } else { GET_MAX_OFFSET };
                ask::bytes(request(code, fields), n)
            };
            Flood::new(1, IN_FLIGHT).run(site, &[site.leader().to_owned()], make).await;
            Ok(())
        })
    }
}

struct Lookups;

impl Attack for Lookups {
    fn name(&self) -> &'static str {
        "lookups-in-flight"
    }

    fn about(&self) -> &'static str {
        "routes, consumer lists and node states in thousands at once, at every node"
    }

    fn floor(&self) -> Floor {
        Floor { opened: 3, frames: 1000, bytes: 0, heard: 100 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            let topic = site.topic().to_owned();
            let make = move |_, n: u64| match n % 3 {
                0 => ask::bytes(request(GET_ROUTE, [("topic", &*topic)]), n),
                1 => ask::bytes(request(ask::GET_CONSUMER_LIST, [("consumerGroup", good::GROUP)]), n),
                _ => ask::bytes(request(NODE_STATUS, []), n),
            };
            let targets: Vec<String> = site.nodes().iter().map(|node| node.broker.clone()).collect();
            Flood::new(3, IN_FLIGHT / 3).run(site, &targets, make).await;
            Ok(())
        })
    }
}
