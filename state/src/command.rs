//! Commands: what a node may ask of the replicated state.
//!
//! A command is the payload of one log record of kind `Command`, or one of those of a record of kind `Transition`, and is
//! applied on every replica in the same order:
//!
//! | part | size | meaning |
//! |---|---|---|
//! | magic | 2 | `FQ` |
//! | version | 2, little-endian | 2: as below; 1 is [`crate::format1`] |
//! | kind | 2, little-endian | which command: its number in [`crate::registry`] |
//! | version | 2, little-endian | of the body's encoding |
//! | length | 4, little-endian | bytes of the body |
//! | body | length | the command's fields |
//!
//! A node that meets a kind or a version that it does not know stops there, with an error that names it: to leave a command
//! out would make its state another one than its peers'.

use crate::codec::{CodecError, envelope};
use crate::format1;
use crate::operation::FORMAT;

pub use crate::registry::Command;

/// Bytes between the envelope and the body.
const HEADER_BYTES: usize = 8;

/// A command's number, the version of its body, and its body.
struct Encoded<'a> {
    kind: u16,
    version: u16,
    body: &'a [u8],
}

impl<'a> Encoded<'a> {
    fn parse(payload: &'a [u8]) -> Result<Encoded<'a>, CodecError> {
        let rest = payload.strip_prefix(&envelope(FORMAT)).ok_or(CodecError::Envelope)?;
        let broken = || CodecError::Body("the command does not end where its record does".into());
        let (header, body) = rest.split_first_chunk::<HEADER_BYTES>().ok_or_else(broken)?;
        let [k0, k1, v0, v1, length @ ..] = *header;
        if body.len() != u32::from_le_bytes(length) as usize {
            return Err(broken());
        }
        Ok(Encoded { kind: u16::from_le_bytes([k0, k1]), version: u16::from_le_bytes([v0, v1]), body })
    }
}

impl Command {
    /// The command in a record's payload.
    pub fn decode(payload: &[u8]) -> Result<Command, CodecError> {
        match Encoded::parse(payload) {
            Ok(Encoded { kind, version, body }) => Command::decode_kind(kind, version, body),
            Err(CodecError::Envelope) => format1::decode_command(payload),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use folio_protocol::parked::TimerKey;

    use super::*;
    use crate::*;

    #[test]
    fn golden_bytes_of_commands() {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        let record = |kind: u16, body: &[u8]| {
            [b"FQ\x02\0", &kind.to_le_bytes()[..], &[1, 0], &(body.len() as u32).to_le_bytes()[..], body]
                .concat()
        };
        let topic = [
            text("t"),
            8_u32.to_le_bytes().to_vec(),
            8_u32.to_le_bytes().to_vec(),
            6_u32.to_le_bytes().to_vec(),
            vec![0],
            0_u32.to_le_bytes().to_vec(),
            text("SINGLE_TAG"),
            0_u64.to_le_bytes().to_vec(),
        ]
        .concat();
        let group = [
            text("g"),
            vec![1, 1, 1, 0],
            1_u32.to_le_bytes().to_vec(),
            16_u32.to_le_bytes().to_vec(),
            15_u32.to_le_bytes().to_vec(),
            0_u32.to_le_bytes().to_vec(),
            vec![1],
            0_u64.to_le_bytes().to_vec(),
        ]
        .concat();
        let queue = [text("t"), 3_u32.to_le_bytes().to_vec()].concat();
        let one = || 1_u64.to_le_bytes().to_vec();
        let commit = [one(), text("g"), queue.clone(), 5_u64.to_le_bytes().to_vec()].concat();
        let unlock = [text("g"), text("c"), one(), queue.clone()].concat();
        let lock = [&unlock[..], &7_u64.to_le_bytes(), &9_u64.to_le_bytes()].concat();
        let note =
            [text("g"), queue.clone(), 5_u64.to_le_bytes().to_vec(), 6_u64.to_le_bytes().to_vec()].concat();
        let of = QueueRef { topic: "t".into(), queue: 3 };
        let expired = [7_u64.to_le_bytes().to_vec(), one(), text("g"), one(), queue].concat();
        let queues = || vec![QueueRef { topic: "t".into(), queue: 3 }];
        let name = || "t".to_owned();
        let (group_name, client) = (|| "g".to_owned(), || "c".to_owned());
        let offset = OffsetCommit { group: group_name(), topic: name(), queue: 3, offset: 5 };
        let key = |due_ms, position| TimerKey { due_ms, position };
        let numbers =
            |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
        let popping = [text("g"), text("t"), 3_u32.to_le_bytes().to_vec()].concat();
        let pop_queue = || PopQueue { group: group_name(), topic: name(), queue: 3 };
        let id = BatchId { start: 5, popped_ms: 6 };
        let locks = [(group_name(), queues().into_iter().collect())].into();
        let golden: Vec<(Vec<u8>, Command)> = vec![
            (record(1, &topic), CreateTopic(Topic::new("t", 8)).into()),
            (record(2, &topic), PutTopic(Topic::new("t", 8)).into()),
            (record(3, &text("t")), DeleteTopic { name: name() }.into()),
            (record(16, &group), CreateGroup(ConsumerGroup::new("g")).into()),
            (record(17, &group), PutGroup(ConsumerGroup::new("g")).into()),
            (
                record(18, &[text("g"), vec![1]].concat()),
                DeleteGroup { name: group_name(), clean_offsets: true }.into(),
            ),
            (record(32, &commit), CommitOffsets(vec![offset]).into()),
            (
                record(48, &lock),
                LockQueues { group: group_name(), client: client(), queues: queues(), now_ms: 7, ttl_ms: 9 }
                    .into(),
            ),
            (
                record(49, &unlock),
                UnlockQueues { group: group_name(), client: client(), queues: queues() }.into(),
            ),
            (record(50, &expired), ExpireLocks { now_ms: 7, locks }.into()),
            (record(64, &[1, 0]), RaiseLevel { level: 1 }.into()),
            (
                record(80, &note),
                NoteSentBack { group: group_name(), queue: of, offset: 5, position: 6 }.into(),
            ),
            (record(81, &7_u64.to_le_bytes()), RaiseFloor { floor: 7 }.into()),
            (record(96, &numbers(&[1, 2, 3, 4])), FireTimers { from: key(1, 2), to: key(3, 4) }.into()),
            (record(97, &numbers(&[5, 6])), CarryTimers { from: 5, to: 6 }.into()),
            (record(98, &numbers(&[7, 8])), RecallTimer { key: key(7, 8) }.into()),
            (
                record(112, &[text("g"), numbers(&[5]), 1_u32.to_le_bytes().to_vec()].concat()),
                EndTransaction { group: group_name(), id: 5, ending: Ending::RolledBack }.into(),
            ),
            (
                record(
                    113,
                    &[text("g"), numbers(&[1, 5]), 2_u32.to_le_bytes().to_vec(), numbers(&[7])].concat(),
                ),
                NoteChecks { group: group_name(), checks: vec![(5, 2)], at_ms: 7 }.into(),
            ),
            (record(114, &numbers(&[9])), CarryTransactions { upto: 9 }.into()),
            (
                record(115, &[text("g"), numbers(&[5, 6, 7])].concat()),
                ResumeTransaction { group: group_name(), id: 5, queue_offset: 6, at_ms: 7 }.into(),
            ),
            (
                record(
                    128,
                    &[
                        &popping[..],
                        &[1],
                        &numbers(&[4, 9, 5, 6, 1]),
                        &[2, 0, 0, 0],
                        &numbers(&[7, 8]),
                        &[1, 0],
                    ]
                    .concat(),
                ),
                PopMessages {
                    queue: pop_queue(),
                    from: Some(4),
                    next: 9,
                    id,
                    diffs: vec![2],
                    position: 7,
                    visible_ms: 8,
                    retry_v2: true,
                    attempt: None,
                }
                .into(),
            ),
            (
                record(129, &[&popping[..], &numbers(&[5, 6, 6, 7, 8]), &text("a"), &[1]].concat()),
                PopAgain {
                    queue: pop_queue(),
                    id,
                    seen_ms: 6,
                    popped_ms: 7,
                    visible_ms: 8,
                    attempt: "a".into(),
                    counts: true,
                }
                .into(),
            ),
            (
                record(130, &[&popping[..], &numbers(&[5, 6, 7])].concat()),
                AckPopped { queue: pop_queue(), id, offset: 7 }.into(),
            ),
            (
                record(131, &[&popping[..], &numbers(&[5, 6, 7, 8, 9])].concat()),
                ChangePopped { queue: pop_queue(), id, offset: 7, popped_ms: 8, visible_ms: 9 }.into(),
            ),
            (
                record(132, &[&popping[..], &numbers(&[5, 6, 7])].concat()),
                RevivePopped { queue: pop_queue(), id, offset: 7 }.into(),
            ),
            (record(133, &numbers(&[9])), CarryPopped { upto: 9 }.into()),
            (
                record(134, &[text("g"), text("t"), vec![1], 2_u32.to_le_bytes().to_vec()].concat()),
                SetRequestMode {
                    group: group_name(),
                    topic: name(),
                    mode: RequestMode { pops: true, share: 2 },
                }
                .into(),
            ),
        ];
        for (bytes, command) in &golden {
            assert_eq!(&command.encode(), bytes, "{command:?}");
            assert_eq!(Command::decode(bytes).as_ref(), Ok(command));
            for cut in 0..bytes.len() {
                assert!(Command::decode(&bytes[..cut]).is_err(), "{command:?} cut at {cut}");
            }
        }
        let written: Vec<u16> = golden.iter().map(|(_, command)| command.kind()).collect();
        // From there on they are not proposed, or of builds for tests.
        let is_proposed = |kind: &u16| *kind < 0x6f00;
        let all: Vec<u16> = Command::KINDS.iter().copied().filter(is_proposed).collect();
        assert_eq!(written, all, "golden bytes for every command");
    }

    #[test]
    fn a_command_of_a_newer_build_is_named() {
        let unknown = b"FQ\x02\0\xff\x7f\x01\0\0\0\0\0";
        assert_eq!(
            Command::decode(unknown).unwrap_err(),
            CodecError::Newer { what: "command", number: 0x7fff, version: 1 }
        );
        let mut newer = Command::from(DeleteTopic { name: "t".into() }).encode();
        newer[6] = 2;
        let text = Command::decode(&newer).unwrap_err().to_string();
        assert!(text.starts_with("command 3 in version 2 is not known to this build"), "{text}");
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64), format in 1..3u8) {
            let _ = Command::decode(&[&envelope(format)[..], &bytes].concat());
        }
    }
}
