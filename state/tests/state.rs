//! The state as a whole: what a command is said to add is what it adds, and what is written is read.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use folio_protocol::parked::TimerKey;
use folio_state::framing::{self, Writer};
use folio_state::*;
use proptest::prelude::*;

/// Two queues of each topic had messages.
struct Ends;

impl NextOffsets for Ends {
    fn next_offsets(&self, _topic: &str) -> Vec<(u32, u64)> {
        vec![(0, 5), (2, 9)]
    }
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "bb", "ccc"]).prop_map(str::to_owned)
}

fn queues() -> impl Strategy<Value = Vec<QueueRef>> {
    let queue = (name(), 0..3u32).prop_map(|(topic, queue)| QueueRef { topic, queue });
    prop::collection::btree_set(queue, 0..4).prop_map(|queues| queues.into_iter().collect())
}

fn key() -> impl Strategy<Value = TimerKey> {
    (0..9u64, 0..90u64).prop_map(|(due_ms, position)| TimerKey { due_ms, position })
}

/// What POP does; batches begin at few places, so that commands meet.
fn popping() -> impl Strategy<Value = Command> {
    let queue = (name(), name(), 0..2u32).prop_map(|(group, topic, queue)| PopQueue { group, topic, queue });
    let id = (0..4u64, 0..3u64).prop_map(|(start, popped_ms)| BatchId { start, popped_ms });
    let rest = (prop::option::of(0..6u64), 0..9u64, 0..5u32, prop::option::of(name()), 0..6u8);
    (queue, id, rest).prop_map(|(queue, id, (from, offset, count, attempt, kind))| match kind {
        0 => AckPopped { queue, id, offset }.into(),
        1 => ChangePopped { queue, id, offset, popped_ms: 3, visible_ms: offset }.into(),
        2 => RevivePopped { queue, id, offset }.into(),
        3 => {
            let attempt = attempt.unwrap_or_default();
            PopAgain {
                queue,
                id,
                seen_ms: offset,
                popped_ms: 4,
                visible_ms: offset,
                attempt,
                counts: count > 0,
            }
            .into()
        }
        4 if count == 0 => {
            let mode = RequestMode { pops: true, share: 1 };
            SetRequestMode { group: queue.group, topic: queue.topic, mode }.into()
        }
        _ => PopMessages {
            queue,
            from,
            next: offset,
            id,
            diffs: (0..count).collect(),
            position: 9,
            visible_ms: offset,
            retry_v2: false,
            attempt,
        }
        .into(),
    })
}

/// Offsets one at a time: twice the same new one in a command counts twice.
fn command() -> impl Strategy<Value = Command> {
    let commit = (name(), name(), 0..3u32, 0..9u64).prop_map(|(group, topic, queue, offset)| OffsetCommit {
        group,
        topic,
        queue,
        offset,
    });
    prop_oneof![
        (name(), name()).prop_map(|(name, filter_type)| {
            let queues = filter_type.len() as u32;
            PutTopic(Topic { filter_type, ..Topic::new(name, queues) }).into()
        }),
        name().prop_map(|name| CreateTopic(Topic::new(name, 1)).into()),
        name().prop_map(|name| DeleteTopic { name }.into()),
        (name(), name()).prop_map(|(name, value)| {
            let attributes = [("key".to_owned(), value)].into();
            PutGroup(ConsumerGroup { attributes, ..ConsumerGroup::new(name) }).into()
        }),
        name().prop_map(|name| CreateGroup(ConsumerGroup::new(name)).into()),
        (name(), any::<bool>()).prop_map(|(name, clean_offsets)| DeleteGroup { name, clean_offsets }.into()),
        commit.prop_map(|commit| CommitOffsets(vec![commit]).into()),
        // Of one client: what another one holds may be refused.
        (name(), queues(), any::<u64>()).prop_map(|(group, queues, now_ms)| {
            LockQueues { group, client: "c".into(), queues, now_ms, ttl_ms: 9 }.into()
        }),
        (name(), queues())
            .prop_map(|(group, queues)| UnlockQueues { group, client: "c".into(), queues }.into()),
        (name(), name(), 0..3u32, 0..9u64).prop_map(|(group, topic, queue, offset)| {
            let queue = QueueRef { topic, queue };
            NoteSentBack { group, queue, offset, position: 100 * offset }.into()
        }),
        (0..900u64).prop_map(|floor| RaiseFloor { floor }.into()),
        (key(), key()).prop_map(|(from, to)| FireTimers { from, to }.into()),
        (0..90u64, 0..90u64).prop_map(|(from, to)| CarryTimers { from, to }.into()),
        key().prop_map(|key| RecallTimer { key }.into()),
        (name(), 1..9u64, 0..3u8).prop_map(|(group, id, ending)| {
            let endings = [Ending::Committed, Ending::RolledBack, Ending::GivenUp];
            Command::from(EndTransaction { group, id, ending: endings[usize::from(ending)] })
        }),
        (name(), 1..9u64, 0..9u32).prop_map(|(group, id, times)| {
            Command::from(NoteChecks { group, checks: vec![(id, times)], at_ms: 5 })
        }),
        (0..90u64).prop_map(|upto| Command::from(CarryTransactions { upto })),
        (name(), 1..9u64).prop_map(|(group, id)| Command::from(ResumeTransaction {
            group,
            id,
            queue_offset: 1,
            at_ms: 5
        })),
        popping(),
        popping(),
        popping(),
        (name(), queues(), any::<u64>()).prop_map(|(group, queues, now_ms)| {
            ExpireLocks { now_ms, locks: [(group, queues.into_iter().collect())].into() }.into()
        }),
    ]
}

fn half((group, position): (&str, u64)) -> Half {
    Half {
        copy_of: None,
        group: group.to_owned(),
        position,
        bytes: 9,
        queue_offset: 8,
        stored_ms: 7,
        immunity_s: 6,
    }
}

fn encoded(state: &State) -> Vec<u8> {
    let mut writer = Writer::default();
    state.encode(&mut writer).unwrap();
    writer.finish()
}

fn decoded(bytes: &[u8]) -> State {
    let mut state = State::default();
    for section in framing::sections(bytes).unwrap() {
        state.decode_section(&section).unwrap();
    }
    state
}

proptest! {
    #[test]
    fn the_growth_that_is_told_is_the_growth_that_comes(commands in prop::collection::vec(command(), 0..40)) {
        let mut state = State::default();
        let mut bytes = state.encoded_bytes() as i64;
        let raise = Command::from(RaiseLevel { level: FEATURE_LEVEL });
        let opened = Command::from(RaiseFloor { floor: 0 });
        for command in [raise, opened].into_iter().chain(commands) {
            if state.transactions().count() == 0 && state.level() == FEATURE_LEVEL {
                bytes += state.store_halves(["a", "bb", "a"].into_iter().zip(1..).map(half).collect());
            }
            let carried: Vec<CarriedMessage> = state.popped().batches().filter_map(|(queue, id, batch)| {
                let at = Carried { position: 90, bytes: 9 };
                let offset = batch.in_flight(id).next().filter(|offset| offset % 2 == 0)?;
                Some(CarriedMessage { queue: queue.clone(), id, offset, at })
            }).collect();
            bytes += state.store_carried(&carried);
            bytes += state.growth(&command, &Ends);
            state.apply_with(command.clone(), &Ends);
            prop_assert_eq!(state.encoded_bytes() as i64, bytes, "{:?}", command);
        }
        let written = encoded(&state);
        prop_assert_eq!((written.len() - framing::EMPTY_BYTES) as u64, state.encoded_bytes());
        prop_assert_eq!(decoded(&written), state);
    }

    #[test]
    fn a_command_that_is_written_is_read(command in command()) {
        prop_assert_eq!(Command::decode(&command.encode()), Ok(command));
    }
}

/// One of each: its bytes stay readable.
#[test]
fn golden_bytes_of_a_state() {
    let mut state = State::default();
    let queue = || QueueRef { topic: "t".into(), queue: 3 };
    state.apply(PutTopic(Topic::new("t", 8)));
    state.apply(PutGroup(ConsumerGroup::new("g")));
    state.apply(CommitOffsets(vec![OffsetCommit {
        group: "g".into(),
        topic: "t".into(),
        queue: 3,
        offset: 5,
    }]));
    let (group, client) = ("g".into(), "c".into());
    state.apply(LockQueues { group, client, queues: vec![queue()], now_ms: 7, ttl_ms: 9 });
    state.apply_with(DeleteTopic { name: "u".into() }, &Ends);
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let one = 1_u64.to_le_bytes();
    let queue = 3_u32.to_le_bytes();
    let topic = [
        &one[..],
        &text("t"),
        &text("t"),
        &[8, 0, 0, 0, 8, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0],
        &text("SINGLE_TAG"),
        &[0; 8],
    ];
    let group = [
        &one[..],
        &text("g"),
        &text("g"),
        &[1, 1, 1, 0, 1, 0, 0, 0, 16, 0, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0; 8],
    ];
    let offset = [&one[..], &text("g"), &one, &text("t"), &one, &queue, &[5, 0, 0, 0, 0, 0, 0, 0]];
    let lock = [
        &one[..],
        &text("g"),
        &one,
        &text("t"),
        &queue,
        &text("c"),
        &[16, 0, 0, 0, 0, 0, 0, 0],
        &[7, 0, 0, 0, 0, 0, 0, 0],
    ];
    let minimums = [
        &one[..],
        &text("u"),
        &[2, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0],
        &[2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0],
    ];
    let mut golden = b"FQ\x04\0".to_vec();
    let features = vec![1, 0];
    let bodies =
        [topic.concat(), group.concat(), offset.concat(), lock.concat(), minimums.concat(), features];
    for (tag, body) in (1_u16..).zip(bodies) {
        golden.extend(tag.to_le_bytes());
        golden.extend([1, 0]);
        golden.extend((body.len() as u64).to_le_bytes());
        golden.extend(body);
    }
    assert_eq!(encoded(&state), golden);
    assert_eq!(decoded(&golden), state);
}

/// What the second level adds to that.
#[test]
fn golden_bytes_of_what_was_sent_back() {
    let mut state = State::default();
    state.apply(RaiseLevel { level: 2 });
    let queue = QueueRef { topic: "t".into(), queue: 3 };
    state.apply(NoteSentBack { group: "g".into(), queue, offset: 5, position: 6 });
    state.apply(RaiseFloor { floor: 4 });
    let number = |number: u64| number.to_le_bytes().to_vec();
    let text = |text: &str| [number(text.len() as u64), text.as_bytes().to_vec()].concat();
    let queue = [text("t"), 3_u32.to_le_bytes().to_vec()].concat();
    let notes = [number(1), queue, number(1), number(5), number(6), number(0)].concat();
    let body = [number(1), text("g"), notes, number(1), number(1), number(1), number(4)].concat();
    let bytes = encoded(&state);
    let sections = framing::sections(&bytes).unwrap();
    let section = sections.iter().find(|section| section.tag == 7).unwrap();
    assert_eq!((section.version, section.body), (1, &body[..]));
    assert_eq!(decoded(&bytes), state);
}

/// What the third level adds.
#[test]
fn golden_bytes_of_timers() {
    let mut state = State::default();
    let key = |due_ms, position| TimerKey { due_ms, position };
    state.apply(RaiseLevel { level: 3 });
    state.apply(FireTimers { from: key(0, 0), to: key(10, 20) });
    state.apply(CarryTimers { from: 0, to: 5 });
    state.apply(RecallTimer { key: key(30, 40) });
    let body: Vec<u8> =
        [10_u64, 20, 5, 1, 30, 40].into_iter().flat_map(|number| number.to_le_bytes()).collect();
    let bytes = encoded(&state);
    let sections = framing::sections(&bytes).unwrap();
    let section = sections.iter().find(|section| section.tag == 8).unwrap();
    assert_eq!((section.version, section.body), (1, &body[..]));
    assert_eq!(decoded(&bytes), state);
}

/// What the fourth level adds.
#[test]
fn golden_bytes_of_transactions() {
    let mut state = State::default();
    state.apply(RaiseLevel { level: 4 });
    state.store_halves(vec![half(("g", 20)), half(("g", 30)), half(("g", 40)), half(("g", 50))]);
    for (id, ending) in [(30, Ending::Committed), (40, Ending::RolledBack), (50, Ending::GivenUp)] {
        state.apply(EndTransaction { group: "g".into(), id, ending });
    }
    state.apply(NoteChecks { group: "g".into(), checks: vec![(20, 3)], at_ms: 11 });
    let number = |number: u64| number.to_le_bytes().to_vec();
    let short = |number: u32| number.to_le_bytes().to_vec();
    let open =
        [number(20), number(20), short(9), number(8), number(7), short(6), short(3), number(11)].concat();
    let groups = [number(1), number(1), b"g".to_vec(), number(1), open, number(1)].concat();
    let ended = [number(2), number(30), number(0), vec![1], number(40), number(1), vec![0]].concat();
    let order = [number(2), number(0), number(30), number(1), number(40), number(2)].concat();
    let given_up = [1, 50, 0, 1, 0, 50, 1].map(number).concat();
    let body = [groups, ended, order, given_up].concat();
    let bytes = encoded(&state);
    let sections = framing::sections(&bytes).unwrap();
    let section = sections.iter().find(|section| section.tag == 9).unwrap();
    assert_eq!((section.version, section.body), (1, &body[..]));
    assert_eq!(decoded(&bytes), state);
}

/// What the fifth level adds.
#[test]
fn golden_bytes_of_popped_messages() {
    let mut state = State::default();
    state.apply(RaiseLevel { level: 5 });
    let queue = || PopQueue { group: "g".into(), topic: "t".into(), queue: 3 };
    let id = BatchId { start: 5, popped_ms: 100 };
    let pop = PopMessages {
        queue: queue(),
        from: None,
        next: 9,
        id,
        diffs: vec![0, 2],
        position: 70,
        visible_ms: 160,
        retry_v2: true,
        attempt: None,
    };
    state.apply(pop.clone());
    state.apply(AckPopped { queue: queue(), id, offset: 5 });
    let at = Carried { position: 900, bytes: 40 };
    state.store_carried(&[CarriedMessage { queue: queue(), id, offset: 7, at }]);
    let ordered = PopQueue { queue: 4, ..queue() };
    state.apply(PopMessages { queue: ordered, attempt: Some("a".into()), retry_v2: false, ..pop });
    let mode = RequestMode { pops: true, share: 2 };
    state.apply(SetRequestMode { group: "g".into(), topic: "t".into(), mode });
    let number = |number: u64| number.to_le_bytes().to_vec();
    let short = |number: u32| number.to_le_bytes().to_vec();
    let text = |text: &str| [number(text.len() as u64), text.as_bytes().to_vec()].concat();
    let diffs = || [number(2), short(0), short(2)].concat();
    let key = |queue| [text("g"), text("t"), short(queue)].concat();
    let first = [
        [
            key(3),
            vec![1],
            number(9),
            number(1),
            number(0),
            number(0),
            vec![0],
            number(1),
            number(5),
            number(100),
        ]
        .concat(),
        [number(160), number(160), number(u64::MAX), vec![1], diffs(), short(1), short(0), vec![0]].concat(),
        [number(1), number(7), number(900), short(40)].concat(),
    ];
    let second = [
        [key(4), vec![1], number(5), number(2), number(0), number(0)].concat(),
        [vec![1], number(5), number(100), number(1), number(5), number(100)].concat(),
        [number(160), number(160), number(70), vec![0], diffs(), short(0), short(0), vec![1]].concat(),
        [text("a"), short(0), number(9), number(0)].concat(),
    ];
    let modes = [number(1), text("g"), number(1), text("t"), vec![1], short(2)].concat();
    let body = [number(2), first.concat(), second.concat(), number(2), number(0), modes].concat();
    let bytes = encoded(&state);
    let sections = framing::sections(&bytes).unwrap();
    let section = sections.iter().find(|section| section.tag == 10).unwrap();
    assert_eq!((section.version, section.body), (1, &body[..]));
    assert_eq!(decoded(&bytes), state);
}

#[test]
fn a_section_of_a_newer_build_is_named() {
    let mut writer = Writer::default();
    writer.section(0x7000, 1, |_| Ok(())).unwrap();
    let bytes = writer.finish();
    let unknown = State::default().decode_section(&framing::sections(&bytes).unwrap()[0]).unwrap_err();
    assert!(
        unknown.to_string().starts_with("section 28672 in version 1 is not known to this build"),
        "{unknown}"
    );
    let mut newer = encoded(&State::default());
    newer[6] = 9;
    let newer = State::default().decode_section(&framing::sections(&newer).unwrap()[0]).unwrap_err();
    assert!(newer.to_string().starts_with("section 1 in version 9 is not known"), "{newer}");
}
