use folio_engine::disk::RealDisk;
use folio_engine::record::{Draft, EntryId};
use folio_protocol::parked::TimerKey;
use folio_state::{
    AckPopped, BatchId, CarryTimers, CommitOffsets, ConsumerGroup, CreateGroup, CreateTopic, DeleteGroup,
    DeleteTopic, EndTransaction, Ending, ExpireLocks, FireTimers, Half, LockQueues, NextOffsets,
    NoteSentBack, OffsetCommit, PopMessages, PopQueue, PutGroup, QueueRef, RaiseFloor, RecallTimer,
    ResumeTransaction, RevivePopped, UnlockQueues,
};
use proptest::prelude::*;

use super::*;

/// A record: a command, or a message.
#[derive(Debug, Clone)]
enum Step {
    Command(Command),
    Message(String, u32),
    Half(String, u64),
}

/// Where queues stand.
#[derive(Clone, Default)]
struct Ends(BTreeMap<(String, u32), u64>);

impl NextOffsets for Ends {
    fn next_offsets(&self, topic: &str) -> Vec<(u32, u64)> {
        let of = self.0.iter().filter(|((name, _), _)| name == topic);
        of.map(|((_, queue), next)| (*queue, *next)).collect()
    }
}

impl Ends {
    fn counters(&self) -> QueueCounters {
        let mut counters = QueueCounters::new();
        self.0.iter().for_each(|((topic, queue), next)| counters.set(topic, *queue, *next));
        counters
    }

    fn apply(&mut self, state: &mut State, step: &Step) {
        match step {
            Step::Command(command) => drop(state.apply_with(command.clone(), self)),
            Step::Half(group, position) => drop(state.store_halves(vec![half(group, *position)])),
            Step::Message(..) => self.apply_again(state, step),
        }
    }

    fn apply_again(&mut self, state: &mut State, step: &Step) {
        match step {
            Step::Command(command) => drop(state.apply_again(command.clone(), self)),
            Step::Half(..) => {}
            Step::Message(topic, queue) => *self.0.entry((topic.clone(), *queue)).or_default() += 1,
        }
    }
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b"]).prop_map(str::to_owned)
}

fn key() -> impl Strategy<Value = TimerKey> {
    (0..9u64, 0..90u64).prop_map(|(due_ms, position)| TimerKey { due_ms, position })
}

fn command() -> impl Strategy<Value = Command> {
    let commit = (name(), name(), 0..2u32, 0..9u64).prop_map(|(group, topic, queue, offset)| OffsetCommit {
        group,
        topic,
        queue,
        offset,
    });
    prop_oneof![
        (name(), 1..6u32).prop_map(|(name, queues)| Command::from(PutTopic(Topic::new(name, queues)))),
        (name(), 1..6u32).prop_map(|(name, queues)| Command::from(CreateTopic(Topic::new(name, queues)))),
        name().prop_map(|name| Command::from(DeleteTopic { name })),
        name().prop_map(|name| Command::from(PutGroup(ConsumerGroup::new(name)))),
        (name(), 1..4u32).prop_map(|(name, retry_queues)| {
            Command::from(CreateGroup(ConsumerGroup { retry_queues, ..ConsumerGroup::new(name) }))
        }),
        (name(), any::<bool>())
            .prop_map(|(name, clean_offsets)| Command::from(DeleteGroup { name, clean_offsets })),
        prop::collection::vec(commit, 0..4).prop_map(|it| CommitOffsets(it).into()),
        (name(), name(), 0..2u32, 1..99u64).prop_map(|(group, client, queue, now_ms)| {
            let queues = vec![QueueRef { topic: "a".into(), queue }];
            Command::from(LockQueues { group, client, queues, now_ms, ttl_ms: 20 })
        }),
        (name(), name(), 0..2u32).prop_map(|(group, client, queue)| {
            let queues = vec![QueueRef { topic: "a".into(), queue }];
            Command::from(UnlockQueues { group, client, queues })
        }),
        (name(), 0..2u32, 1..99u64).prop_map(|(group, queue, now_ms)| {
            let queues = BTreeSet::from([QueueRef { topic: "a".into(), queue }]);
            Command::from(ExpireLocks { now_ms, locks: [(group, queues)].into() })
        }),
        (name(), name(), 0..2u32, 0..9u64).prop_map(|(group, topic, queue, offset)| {
            let queue = QueueRef { topic, queue };
            Command::from(NoteSentBack { group, queue, offset, position: 10 * offset })
        }),
        (0..90u64).prop_map(|floor| Command::from(RaiseFloor { floor })),
        (key(), key()).prop_map(|(from, to)| Command::from(FireTimers { from, to })),
        (0..90u64, 0..90u64).prop_map(|(from, to)| Command::from(CarryTimers { from, to })),
        key().prop_map(|key| Command::from(RecallTimer { key })),
        (name(), 1..9u64, 0..3usize).prop_map(|(group, id, at)| {
            let ending = [Ending::Committed, Ending::RolledBack, Ending::GivenUp][at];
            Command::from(EndTransaction { group, id, ending })
        }),
        (name(), 1..9u64)
            .prop_map(|(group, id)| ResumeTransaction { group, id, queue_offset: 1, at_ms: 5 }.into()),
        popping(),
        popping(),
    ]
}

/// Pops meet commits of offsets, and each other.
fn popping() -> impl Strategy<Value = Command> {
    let queue = name().prop_map(|group| PopQueue { group, topic: "a".into(), queue: 0 });
    let rest = (prop::option::of(0..5u64), 0..9u64, prop::option::of(name()), 0..4u8);
    (queue, 0..5u64, rest).prop_map(|(queue, start, (from, offset, attempt, kind))| {
        let id = BatchId { start, popped_ms: 1 };
        match kind {
            0 => AckPopped { queue, id, offset }.into(),
            1 => RevivePopped { queue, id, offset }.into(),
            _ => PopMessages {
                queue,
                from,
                next: offset,
                id,
                diffs: vec![0, 1],
                position: 9,
                visible_ms: 9,
                retry_v2: false,
                attempt,
            }
            .into(),
        }
    })
}

fn half(group: &str, position: u64) -> Half {
    let group = group.to_owned();
    Half { copy_of: None, group, position, bytes: 9, queue_offset: 8, stored_ms: 7, immunity_s: 6 }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        command().prop_map(Step::Command),
        (name(), 0..6u32).prop_map(|(topic, queue)| Step::Message(topic, queue)),
        (name(), 1..9u64).prop_map(|(group, position)| Step::Half(group, position)),
    ];
    prop::collection::vec(step, 0..16)
}

/// What the records between lead to, from the state that they led to.
fn led_again(before: &[Step], between: &[Step]) -> (State, State) {
    let (mut state, mut ends) = (State::default(), Ends::default());
    before.iter().for_each(|step| ends.apply(&mut state, step));
    let boundary = ends.clone();
    let mut offsets = Vec::new();
    for step in between {
        if let Step::Message(topic, queue) = step {
            offsets.push(ends.0.get(&(topic.clone(), *queue)).copied().unwrap_or(0));
        }
        ends.apply(&mut state, step);
    }
    let later = state.clone();
    let (mut scan, mut offsets) = (Scan::new(ends.counters()), offsets.into_iter());
    for step in between {
        match step {
            Step::Command(command) => scan.take_command(command.clone()),
            Step::Message(topic, queue) => scan.take_message(topic, *queue, offsets.next().unwrap()),
            Step::Half(..) => {}
        }
    }
    scan.go_back(&mut state);
    let mut ends = boundary;
    between.iter().for_each(|step| ends.apply_again(&mut state, step));
    (state, later)
}

/// Its minimum was left out of the state that was made again, and the record that takes the queue away found none.
#[test]
fn snapshots_i3_a_queue_that_a_topic_lost_is_lost_again() {
    let put = |queues| Step::Command(Command::from(PutTopic(Topic::new("a", queues))));
    let create = Step::Command(Command::from(CreateTopic(Topic::new("a", 8))));
    let message = || Step::Message("a".into(), 7);
    for (before, between) in [
        (vec![put(8), message()], vec![message(), put(4)]),
        (vec![], vec![create, message(), put(4)]),
        (vec![put(8), message(), put(4), message()], vec![message(), put(4)]),
    ] {
        let (again, later) = led_again(&before, &between);
        assert_eq!(again, later, "{between:?}");
    }
}

/// A client that had been refused a lock was given it on the replica that started from the state made again.
#[test]
fn snapshots_i3_a_refused_lock_was_given_when_it_was_applied_once_more() {
    let queues = || vec![QueueRef { topic: "a".into(), queue: 0 }];
    let take = |client: &str, now_ms| {
        let (group, client, queues) = ("g".into(), client.into(), queues());
        Step::Command(Command::from(LockQueues { group, client, queues, now_ms, ttl_ms: 60_000 }))
    };
    let (group, client) = ("g".into(), "b".into());
    let give_back = Step::Command(Command::from(UnlockQueues { group, client, queues: queues() }));
    let (again, later) = led_again(&[take("b", 1)], &[take("a", 2), give_back]);
    assert_eq!(again, later);
}

/// A note that was forgotten between, because the group went back, was there again.
#[test]
fn snapshots_i3_what_was_forgotten_is_not_noted_again() {
    let queue = || QueueRef { topic: "a".into(), queue: 0 };
    let note = |offset| {
        let (group, queue) = ("g".into(), queue());
        Step::Command(NoteSentBack { group, queue, offset, position: offset }.into())
    };
    let commit = |offset| {
        let (group, topic) = ("g".into(), "a".into());
        Step::Command(CommitOffsets(vec![OffsetCommit { group, topic, queue: 0, offset }]).into())
    };
    for (before, between) in [
        (vec![commit(9)], vec![note(3), commit(2), commit(7)]),
        (vec![note(3), commit(2)], vec![commit(5), note(4), commit(9)]),
    ] {
        let (again, later) = led_again(&before, &between);
        assert_eq!(again, later, "{between:?}");
    }
}

fn open(dir: &std::path::Path) -> CommitLog {
    let (config, base) = (folio_engine::LogConfig::default(), StampBase::default());
    CommitLog::open(std::sync::Arc::new(RealDisk), dir, config, base).unwrap()
}

fn id(index: u64) -> EntryId {
    EntryId { term: 1, index }
}

#[test]
fn a_transition_counts_as_its_commands_and_then_its_messages() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let put = Command::from(PutTopic(Topic::new("orders", 3))).encode();
    let mut draft = Draft::transition(&[put], 0).unwrap();
    for queue in [0, 2, 2] {
        let message = crate::storage_suite::message("orders", queue);
        message.encode(draft.payload_mut()).unwrap();
        draft.messages += 1;
    }
    let record = log.append(id(0), draft).unwrap();
    let mut scan = Scan::new(log.counters());
    scan.take(&record, &SkipEntry::default()).unwrap();
    assert_eq!((scan.counters.get("orders", 0), scan.counters.get("orders", 2)), (0, 0));
    assert_eq!((scan.ends["orders"][&2], scan.first_puts["orders"].topic.write_queues), (2, 3));
    assert!(scan.first_puts["orders"].ends.is_empty(), "the queues are as of the record before");
    log.close();
}

/// Its effect was missing in the state that was made again.
#[test]
fn skip_entry_i1_a_command_of_a_newer_build_was_taken_for_a_skipped_one() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let put = Command::from(PutTopic(Topic::new("orders", 3))).encode();
    let mut newer = put.clone();
    newer[4..6].copy_from_slice(&0x6eff_u16.to_le_bytes());
    let broken = &put[..put.len() - 1];
    let mut scan = Scan::new(log.counters());
    let none = SkipEntry::default();
    let mut take = |index, draft| scan.take(&log.append(id(index), draft).unwrap(), &none);
    let command = |payload: &[u8]| Draft::with_payload(RecordKind::Command, payload);
    let transition = |commands: &[&[u8]]| {
        let commands: Vec<_> = commands.iter().map(|command| command.to_vec()).collect();
        Draft::transition(&commands, 0).unwrap()
    };
    for (index, draft) in [command(&newer), transition(&[&put, &newer])].into_iter().enumerate() {
        let refused = format!("{:#}", take(index as u64, draft).unwrap_err());
        assert!(refused.starts_with(&format!("entry 1.{index}: ")), "{refused}");
        assert!(refused.contains("28415"), "{refused}");
    }
    take(2, command(broken)).unwrap();
    take(3, transition(&[&put, broken])).unwrap();
    assert!(scan.first_puts.is_empty(), "skipped ones count as none");
    log.close();
}

/// No replica had applied it, and the state that was made again had the topic.
#[test]
fn skip_entry_i2_a_state_made_again_had_a_command_beyond_the_limits_that_was_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    std::fs::write(dir.path().join("skip-entry"), "1.1\n1.2\n1.3\n").unwrap();
    let (named, unnamed) = (SkipEntry::read(&RealDisk, dir.path()).unwrap(), SkipEntry::default());
    let large = Command::from(PutTopic(Topic::new("t".repeat(999), 3))).encode();
    let put = Command::from(PutTopic(Topic::new("orders", 3))).encode();
    let records = [
        Draft::with_payload(RecordKind::Command, &large),
        Draft::transition(&[put.clone(), large.clone()], 0).unwrap(),
        Draft::with_payload(RecordKind::Command, &put),
    ]
    .into_iter()
    .zip(1..)
    .map(|(draft, index)| log.append(id(index), draft).unwrap());
    let puts = |records: &[Record], skip_entry: &SkipEntry| -> Vec<usize> {
        let mut scan = Scan::new(log.counters());
        records.iter().for_each(|record| scan.take(record, skip_entry).unwrap());
        scan.first_puts.keys().map(String::len).collect()
    };
    let records: Vec<Record> = records.collect();
    assert!(puts(&records[..2], &named).is_empty(), "of a transition all or none");
    assert_eq!(puts(&records, &named), [6], "a command that can be applied is never skipped");
    assert_eq!(puts(&records[..1], &unnamed), [999], "an earlier build has applied it");
    log.close();
}

proptest! {
    /// `snapshots.I3`
    #[test]
    fn records_applied_to_the_state_they_led_to_lead_there_again(before in steps(), between in steps()) {
        let (again, later) = led_again(&before, &between);
        prop_assert_eq!(again, later);
    }
}
