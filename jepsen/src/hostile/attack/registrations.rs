//! What clients leave behind: registrations, subscriptions, offsets, topics.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;

use super::Attack;
use crate::hostile::ask;
use crate::hostile::lane::Flood;
use crate::hostile::site::Site;
use crate::hostile::tally::Floor;
use crate::nemesis::Doing;

/// Bytes of a name that no limit allows.
const GIANT_NAME_BYTES: usize = 100_000;
static GIANT_NAME: LazyLock<String> = LazyLock::new(|| "g".repeat(GIANT_NAME_BYTES));

pub(super) fn all() -> Vec<Box<dyn Attack>> {
    vec![
        Box::new(Stream {
            name: "subscription-flood",
            about: "a new connection, client id and group with every few heartbeats",
            flood: Flood { each: 4, sources: true, ..Flood::new(8, 1) },
            make: |lane, n, _| {
                let subscriptions: Vec<_> = (0..8)
                    .map(|topic| ask::subscription(&format!("topic-{lane}-{n}-{topic}"), "a||b"))
                    .collect();
                let consumer = ask::consumer(&format!("flood-{lane}-{n}"), &subscriptions);
                ask::bytes(ask::heartbeat(&format!("client-{lane}-{n}"), &[], &[consumer]), n)
            },
        }),
        Box::new(Stream {
            name: "same-group-flood",
            about: "thousands of members of one group: each that comes is told to all the others",
            flood: Flood { each: 1000, ..Flood::new(4, 4) },
            make: |lane, n, topic| {
                let consumer = ask::consumer("one-group", &[ask::subscription(topic, "*")]);
                ask::bytes(ask::heartbeat(&format!("member-{lane}-{n}"), &[], &[consumer]), n)
            },
        }),
        Box::new(Stream {
            name: "unregister-flood",
            about: "clients that leave groups they never were in, and that others are in",
            flood: Flood::new(8, 8),
            make: |lane, n, _| {
                let (group, client) = (format!("left-{}", n % 1000), format!("nobody-{lane}-{n}"));
                let group = if n.is_multiple_of(100) { &*GIANT_NAME } else { &group };
                ask::bytes(ask::unregister(&client, group), n)
            },
        }),
        Box::new(Stream {
            name: "offset-commits",
            about: "offsets beyond every end, for missing groups and topics, with giant names and numbers",
            flood: Flood::new(8, 16),
            make: |lane, n, topic| {
                const NUMBERS: [&str; 6] =
                    ["9223372036854775807", "-1", "0", "99999999999999999999", "x", ""];
                let (group, missing) = (format!("missing-{lane}-{n}"), format!("missing-topic-{n}"));
                let offset = NUMBERS[(n / 4) as usize % NUMBERS.len()];
                let frame = match n % 4 {
                    0 => ask::commit(&group, topic, "0", offset),
                    1 => ask::commit(ask::GROUP, &missing, "1", offset),
                    2 => ask::commit(ask::GROUP, topic, "2147483647", offset),
                    _ if n.is_multiple_of(64) => ask::commit(&GIANT_NAME, topic, "0", "1"),
                    _ => ask::commit(ask::GROUP, topic, "-1", offset),
                };
                ask::bytes(frame, n)
            },
        }),
        Box::new(Stream {
            name: "topic-flood",
            about: "a new topic with each request, with as many queues as there may be, and more",
            flood: Flood { pause: Duration::from_millis(5), ..Flood::new(4, 4) },
            make: |lane, n, _| {
                let topic = format!("flood-{lane}-{n}");
                let queues = ["1", "128", "2147483647", "-1", "0"][n as usize % 5];
                ask::bytes(ask::create_topic(&topic, queues), n)
            },
        }),
        Box::new(Stream {
            name: "automatic-topics",
            about: "sends to topics that are not there, so that each makes one",
            flood: Flood { pause: Duration::from_millis(5), ..Flood::new(4, 4) },
            make: |lane, n, _| {
                ask::bytes(ask::send(&format!("auto-{lane}-{n}"), 0, Bytes::from_static(b"x")), n)
            },
        }),
    ]
}

/// Small requests, each another one, at the leader.
struct Stream {
    name: &'static str,
    about: &'static str,
    flood: Flood,
    make: fn(u64, u64, &str) -> Bytes,
}

impl Attack for Stream {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn floor(&self) -> Floor {
        Floor { opened: self.flood.lanes.into(), frames: 50, bytes: 0, heard: 20 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            let (make, topic) = (self.make, site.topic().to_owned());
            let targets = [site.leader().to_owned()];
            self.flood.run(site, &targets, move |lane, n| make(lane, n, &topic)).await;
            Ok(())
        })
    }
}
