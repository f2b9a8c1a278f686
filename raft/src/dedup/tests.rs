//! The window against a plain list, and what counts as the same message.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use folio_engine::disk::RealDisk;
use folio_engine::log::{LogConfig, StampBase};
use folio_engine::record::{Draft, EntryId};
use proptest::prelude::*;

use super::*;

fn message(key: &str, body: &str) -> NewMessage {
    NewMessage {
        topic: "orders".into(),
        queue_id: 1,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: ([10, 0, 0, 7], 4_000).into(),
        store_timestamp: 1_000,
        store_host: ([10, 0, 0, 1], 10_911).into(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: Bytes::copy_from_slice(body.as_bytes()),
        properties: properties(&[("UNIQ_KEY", key), ("TAGS", "a")]),
    }
}

fn properties(pairs: &[(&str, &str)]) -> Bytes {
    let mut out = BytesMut::new();
    pairs.iter().for_each(|(name, value)| properties::append(&mut out, name, value));
    out.freeze()
}

struct Rig {
    _dir: tempfile::TempDir,
    log: CommitLog,
    dedup: Dedup,
}

impl Rig {
    fn new(config: &DedupConfig) -> Rig {
        let dir = tempfile::TempDir::new().unwrap();
        let disk = std::sync::Arc::new(RealDisk);
        let log = LogConfig { segment_bytes: 1 << 20, cache_bytes: 1 << 20, sync: false };
        let log = CommitLog::open(disk, dir.path(), log, StampBase::default()).unwrap();
        Rig { _dir: dir, log, dedup: Dedup::new(config, None) }
    }

    /// Puts messages into the log as one record, and applies it.
    fn store(&self, messages: &[NewMessage]) {
        let index = self.log.state().last.map_or(1, |id| id.index + 1);
        let mut draft = Draft::new(RecordKind::Messages, 1024);
        for message in messages {
            message.encode(draft.payload_mut()).unwrap();
            draft.messages += 1;
        }
        let record = self.log.append(EntryId { term: 1, index }, draft).unwrap();
        self.dedup.apply(&record);
    }

    fn prints(&self, messages: &[NewMessage]) -> Vec<u64> {
        let print = |message: &NewMessage| {
            let crc = folio_protocol::message::body_crc(&message.body);
            self.dedup.print(
                &message.topic,
                &message.properties,
                message.reconsume_times,
                message.body.len(),
                crc,
            )
        };
        messages.iter().filter_map(print).collect()
    }

    fn stored(&self, messages: &[NewMessage]) -> Option<Stored> {
        self.dedup.stored(&self.log, messages, &self.prints(messages))
    }

    fn find(&self, messages: &[NewMessage]) -> Option<Receipt> {
        self.stored(messages).map(|stored| stored.receipt)
    }

    fn offsets(&self, messages: &[NewMessage]) -> Option<Vec<u64>> {
        self.find(messages).map(|receipt| receipt.queue_offsets.into_vec())
    }
}

#[test]
fn a_repeat_gets_the_firsts_place_whatever_a_second_attempt_changes() {
    let rig = Rig::new(&DedupConfig::default());
    rig.store(&[message("A", "one"), message("B", "two")]);
    let mut again = message("B", "two");
    again.queue_id = 3;
    again.born_timestamp = 99;
    again.born_host.set_port(5_000);
    again.store_host = ([10, 0, 0, 2], 10_911).into();
    again.properties = properties(&[("traceparent", "x"), ("TAGS", "a"), ("UNIQ_KEY", "B")]);
    let receipt = rig.find(&[again]).unwrap();
    assert_eq!((receipt.queue_id, &receipt.queue_offsets[..]), (1, &[1][..]));
    assert_eq!(receipt.store_host, Some(([10, 0, 0, 1], 10_911).into()));
}

#[test]
fn dedup_i3_another_message_under_the_same_key_is_no_repeat() {
    let rig = Rig::new(&DedupConfig::default());
    rig.store(&[message("A", "one")]);
    let changed = |change: &dyn Fn(&mut NewMessage)| {
        let mut message = message("A", "one");
        change(&mut message);
        message
    };
    let others = [
        changed(&|message| message.body = Bytes::from_static(b"two")),
        changed(&|message| message.topic = "others".into()),
        changed(&|message| message.flag = 7),
        changed(&|message| message.reconsume_times = 1),
        changed(&|message| message.born_host = ([10, 0, 0, 8], 4_000).into()),
        changed(&|message| message.properties = properties(&[("UNIQ_KEY", "A"), ("TAGS", "b")])),
        changed(&|message| {
            message.properties = properties(&[("UNIQ_KEY", "A"), ("TAGS", "a"), ("KEYS", "k")])
        }),
        changed(&|message| message.properties = properties(&[("UNIQ_KEY", "B"), ("TAGS", "a")])),
        changed(&|message| {
            message.properties = properties(&[("UNIQ_KEY", "A"), ("TAGS", "a"), ("seq", "2")])
        }),
    ];
    let own = rig.prints(&[message("A", "one")]);
    for other in others {
        // As if the fingerprints collided: the stored message decides.
        let found = rig.dedup.stored(&rig.log, std::slice::from_ref(&other), &own);
        assert!(found.is_none(), "{other:?}");
        assert_eq!(rig.find(&[other]), None);
    }
    assert_eq!(rig.offsets(&[message("A", "one")]), Some(vec![0]));
}

#[test]
fn a_batch_is_a_repeat_as_a_whole_or_not_at_all() {
    let rig = Rig::new(&DedupConfig::default());
    let batch = [message("A", "one"), message("B", "two"), message("C", "three")];
    rig.store(&batch);
    assert_eq!(rig.offsets(&batch), Some(vec![0, 1, 2]));
    assert_eq!(rig.offsets(&batch[1..]), Some(vec![1, 2]));
    let mixed = [message("A", "one"), message("D", "four")];
    assert_eq!(rig.find(&mixed), None);
    let turned = [message("B", "two"), message("A", "one")];
    assert_eq!(rig.find(&turned), None, "their offsets would not be consecutive");
}

#[test]
fn redelivered_messages_and_those_without_a_key_are_never_repeats() {
    let rig = Rig::new(&DedupConfig::default());
    let of = |topic: &str| NewMessage { topic: topic.into(), ..message("A", "one") };
    for topic in ["%RETRY%g", "%DLQ%g"] {
        rig.store(&[of(topic)]);
        assert!(rig.prints(&[of(topic)]).is_empty(), "{topic}");
    }
    let keyless = NewMessage { properties: Bytes::new(), ..message("A", "one") };
    assert!(rig.prints(&[keyless]).is_empty());
}

#[test]
fn a_message_sent_back_is_known_by_its_group_its_first_id_and_its_count() {
    let rig = Rig::new(&DedupConfig::default());
    let back = |topic: &str, origin: &str, reconsume_times: i32| NewMessage {
        topic: topic.into(),
        reconsume_times,
        properties: properties(&[("UNIQ_KEY", "A"), ("ORIGIN_MESSAGE_ID", origin)]),
        ..message("A", "one")
    };
    rig.store(&[back("%RETRY%g", "ID", 1)]);
    let mut again = back("%RETRY%g", "ID", 1);
    again.queue_id = 0;
    assert_eq!(rig.offsets(&[again]), Some(vec![0]));
    for other in [back("%RETRY%h", "ID", 1), back("%RETRY%g", "ID2", 1), back("%RETRY%g", "ID", 2)] {
        assert_eq!(rig.find(&[other]), None);
    }
}

#[test]
fn a_second_one_under_the_same_key_shows_that_the_application_sends_again() {
    let rig = Rig::new(&DedupConfig::default());
    let one = [message("A", "one")];
    rig.store(&one);
    assert!(!rig.stored(&one).unwrap().many);
    rig.store(&one);
    let second = rig.stored(&one).unwrap();
    assert!(second.many);
    assert_eq!(second.receipt.queue_offsets[..], [1], "the last one");
    assert_eq!(second.earlier.client, one[0].born_host);
}

#[tokio::test(start_paused = true)]
async fn dedup_i4_what_is_remembered_expires_though_nothing_is_stored_since() {
    let config = DedupConfig { age: Duration::from_secs(60), ..DedupConfig::default() };
    let mut rig = Rig::new(&config);
    let one = [message("A", "one")];
    rig.store(&one);
    tokio::time::advance(Duration::from_secs(59)).await;
    assert!(rig.find(&one).is_some());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(rig.find(&one).is_none());
    // Read again after a restart, it is as old as the wall clock says.
    for (later_ms, known) in [(59_000, true), (60_000, false)] {
        rig.dedup = Dedup::new(&config, Some(Start { index: 1, position: None }));
        rig.dedup.rebuild(&rig.log, 1, Instant::now(), one[0].store_timestamp + later_ms);
        assert_eq!(rig.find(&one).is_some(), known, "{later_ms}");
    }
}

/// Rebuilds the window at the time at which its messages were stored.
fn rebuild(rig: &Rig, upto: u64) {
    rig.dedup.rebuild(&rig.log, upto, Instant::now(), message("", "").store_timestamp);
}

/// A window of twenty keys in front of a log of 33 messages, and which of them it knows.
fn rig_of_33() -> (Rig, DedupConfig, impl Fn(&Rig) -> Vec<bool>) {
    let config = DedupConfig { keys: 20, age: Duration::from_secs(60), bytes: 1 << 20 };
    let rig = Rig::new(&config);
    let all: Vec<NewMessage> = (0..33).map(|number| message(&format!("K{number}"), "x")).collect();
    all.iter().for_each(|message| rig.store(std::slice::from_ref(message)));
    let found = move |rig: &Rig| {
        all.iter().map(|message| rig.find(std::slice::from_ref(message)).is_some()).collect()
    };
    (rig, config, found)
}

#[test]
fn a_rebuilt_window_knows_what_the_old_one_knew() {
    let (mut rig, config, found) = rig_of_33();
    let (before, from) = (found(&rig), rig.dedup.oldest().unwrap());
    let of_window = from;
    assert_eq!(before.iter().filter(|found| **found).count(), 13, "one generation and what is in the next");
    let upto = rig.log.state().last.unwrap().index;
    for from in [from, Start { position: None, ..from }] {
        rig.dedup = Dedup::new(&config, Some(from));
        assert!(!rig.dedup.is_complete());
        rebuild(&rig, upto);
        assert!(rig.dedup.is_complete());
        assert_eq!((found(&rig), rig.dedup.oldest()), (before.clone(), Some(of_window)));
    }
    // What the log lacks is left out, and nothing else.
    rig.dedup = Dedup::new(&config, Some(Start { index: 0, position: Some(3) }));
    rebuild(&rig, upto + 10);
    assert!(found(&rig)[32]);
}

/// Whether the rebuild or the applying comes first makes no difference to what is known in the end.
#[test]
fn dedup_i2_what_is_applied_while_the_window_is_rebuilt_comes_after_what_is_read() {
    let (mut rig, config, found) = rig_of_33();
    let (before, oldest) = (found(&rig), rig.dedup.oldest().unwrap());
    let records = rig.log.read(1, 34, usize::MAX).unwrap();
    for applied_before in [0, 5, 20, 32] {
        let from = Start { index: 1, position: None };
        rig.dedup = Dedup::new(&config, Some(from));
        let (older, later) = records.split_at(applied_before);
        later.iter().for_each(|record| rig.dedup.apply(record));
        assert_eq!(rig.dedup.oldest(), Some(from), "a checkpoint now: all is needed again");
        assert!(!rig.dedup.is_complete());
        rebuild(&rig, older.last().map_or(0, |record| record.header.index));
        assert_eq!((found(&rig), rig.dedup.oldest()), (before.clone(), Some(oldest)), "{applied_before}");
    }
}

#[test]
fn a_snapshot_that_takes_the_logs_place_ends_the_rebuild() {
    let mut rig = Rig::new(&DedupConfig::default());
    rig.store(&[message("A", "one")]);
    rig.dedup = Dedup::new(&DedupConfig::default(), Some(Start { index: 1, position: None }));
    rig.dedup.reset();
    assert!(rig.dedup.is_complete());
    rebuild(&rig, 1);
    assert_eq!(rig.find(&[message("A", "one")]), None);
    rig.store(&[message("B", "two")]);
    assert!(rig.find(&[message("B", "two")]).is_some());
}

/// One record of the model: store time, messages, and how far the log goes on.
fn records() -> impl Strategy<Value = Vec<(u64, Vec<u64>, u64)>> {
    let record = (0_u64..40, prop::collection::vec(0_u64..30, 0..6), 6_u64..200);
    prop::collection::vec(record, 1..80)
}

proptest! {
    /// The model is the list of everything ever added.
    #[test]
    fn dedup_i4_the_window_holds_half_of_its_bounds_at_least_and_its_bounds_at_most(
        records in records(),
        keys in 2_usize..24,
        bytes in 400_u64..2_000,
        age in 120_u64..900,
    ) {
        let config = DedupConfig { keys, age: Duration::from_millis(age), bytes };
        let mut window = window::Window::new(&config);
        let started = Instant::now();
        // Fingerprint, position, time; in the order of the log.
        let mut all: Vec<(u64, u64, u64)> = Vec::new();
        let (mut position, mut now) = (0, 0);
        for (index, (later, prints, length)) in records.into_iter().enumerate() {
            now += later;
            let end = position + length;
            let place = Place { index: index as u64, position, end };
            let at = started + Duration::from_millis(now);
            let placed: Vec<(u64, u64)> =
                prints.iter().zip(position..).map(|(print, at)| (*print, at)).collect();
            window.add(place, at, &placed);
            all.extend(placed.iter().map(|(print, at)| (*print, *at, now)));
            position = end;
            prop_assert!(window.len() <= keys.max(2));
            for print in 0..30 {
                let last = all.iter().rposition(|(other, ..)| *other == print);
                match (window.find(print, at), last) {
                    (Some(found), Some(last)) => {
                        let (_, stored_at, then) = all[last];
                        prop_assert_eq!(found.position, stored_at, "the last one stored under it");
                        prop_assert!(position - found.position <= bytes + 2 * length);
                        prop_assert!(now - then < age);
                        let then = started + Duration::from_millis(then);
                        prop_assert!(found.applied.0 <= then && then <= found.applied.1);
                        let before = all[..last].iter().any(|(other, ..)| *other == print);
                        prop_assert!(before || !found.many);
                    }
                    (Some(_), None) => prop_assert!(false, "never stored"),
                    (None, Some(last)) => {
                        // Forgotten: then one of the bounds, or half of it, lies in between; times are kept by steps.
                        let (_, at, then) = all[last];
                        let newer = all.len() - 1 - last;
                        prop_assert!(
                            newer >= keys / 2 || position - at + 6 >= bytes / 2 || now - then + 100 >= age,
                            "{newer} newer, {} bytes, {} ms", position - at, now - then
                        );
                    }
                    (None, None) => {}
                }
            }
        }
    }
}
