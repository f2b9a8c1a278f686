//! Frames of the Raft port as an attacker writes them who has read about them: none of the product's code is used.
//!
//! | part | bytes |
//! |---|---|
//! | length | 4, little-endian: bytes that follow |
//! | kind | 1 |
//! | id | 8, little-endian |
//! | body | rest: `FQ`, version 1 in 2 bytes, then fields; integers little-endian, strings and options with their length or a byte before them |

use bytes::{BufMut, Bytes, BytesMut};

/// Kinds of frames.
pub(super) const HELLO: u8 = 1;
pub(super) const APPEND: u8 = 2;
pub(super) const VOTE: u8 = 3;
pub(super) const PRE_VOTE: u8 = 4;
pub(super) const TRANSFER: u8 = 5;
pub(super) const SNAPSHOT: u8 = 6;
pub(super) const CALL: u8 = 7;
pub(super) const SUMMARY: u8 = 8;
pub(super) const RECORD: u8 = 9;
pub(super) const ALL_EMPTY: u8 = 11;
pub(super) const SNAPSHOT_PART: u8 = 12;
pub(super) const FENCE: u8 = 13;
pub(super) const STORED_SNAPSHOT: u8 = 14;
pub(super) const CHALLENGE: u8 = 15;
pub(super) const CREDENTIALS: u8 = 16;
pub(super) const ANSWER: u8 = 100;
pub(super) const FAILURE: u8 = 101;

/// Bytes of a record's header in the log.
pub(super) const RECORD_HEADER_BYTES: usize = 64;
const MAGIC: &[u8; 4] = b"FQ\x01\x00";
/// Kind and id.
const HEAD_BYTES: usize = 9;

/// An entry's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryId {
    pub(super) term: u64,
    pub(super) index: u64,
}

/// Who is said to have which term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vote {
    pub(super) term: u64,
    pub(super) node: u64,
    /// Whether it claims to be elected.
    pub(super) elected: bool,
}

/// Bytes of a number of one connection, and of a proof.
pub(super) const PROOF_BYTES: usize = 32;

/// What shows that a peer has the cluster's secret.
pub(super) type Proof = [u8; PROOF_BYTES];

/// The first thing a peer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) from: u64,
    pub(super) to: u64,
    /// For requests; else for a stream of appends.
    pub(super) requests: bool,
    /// Whether it says that it has the cluster's secret.
    pub(super) has_secret: bool,
}

/// What it says of itself, behind its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) cluster: String,
    pub(super) group: String,
    pub(super) segment_bytes: u64,
    pub(super) group_id: Option<[u64; 2]>,
}

/// A whole frame.
pub(super) fn frame(kind: u8, id: u64, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + HEAD_BYTES + body.len());
    out.put_u32_le((HEAD_BYTES + body.len()) as u32);
    out.put_u8(kind);
    out.put_u64_le(id);
    out.put_slice(body);
    out.freeze()
}

/// Kind and body of a frame without its length.
pub(super) fn parse(frame: &[u8]) -> Option<(u8, &[u8])> {
    Some((*frame.first()?, frame.get(HEAD_BYTES..)?))
}

pub(super) fn hello(hello: &Hello) -> Bytes {
    let mut out = BytesMut::from(&MAGIC[..]);
    out.put_u64_le(hello.from);
    out.put_u64_le(hello.to);
    out.put_u32_le(u32::from(hello.requests));
    out.put_slice(&[0x5a; PROOF_BYTES]);
    out.put_u8(u8::from(hello.has_secret));
    frame(HELLO, 0, &out)
}

/// The listener's number and its proof.
pub(super) fn challenge(body: &[u8]) -> Option<(Proof, Proof)> {
    let body = body.strip_prefix(MAGIC)?;
    let (nonce, rest) = body.split_first_chunk()?;
    Some((*nonce, *rest.first_chunk()?))
}

pub(super) fn credentials(proof: &Proof, told: &Credentials) -> Bytes {
    let mut out = BytesMut::from(&proof[..]);
    out.put_slice(MAGIC);
    put_text(&mut out, &told.cluster);
    put_text(&mut out, &told.group);
    out.put_u64_le(told.segment_bytes);
    match told.group_id {
        None => out.put_u8(0),
        Some([high, low]) => {
            out.put_u8(1);
            out.put_u64_le(high);
            out.put_u64_le(low);
        }
    }
    put_text(&mut out, "127.0.0.1:1");
    // The feature levels that it supports, as a later build would, and uses, and nothing more.
    out.put_u16_le(u16::MAX);
    out.put_u16_le(1);
    put_text(&mut out, "");
    frame(CREDENTIALS, 0, &out)
}

/// Asks for a vote. As for a `transfer` of leadership it is given though the leader lives.
pub(super) fn vote(kind: u8, id: u64, vote: Vote, last: Option<EntryId>, transfer: bool) -> Bytes {
    let mut out = BytesMut::from(&MAGIC[..]);
    put_vote(&mut out, vote);
    put_entry(&mut out, last);
    out.put_u8(u8::from(transfer));
    frame(kind, id, &out)
}

/// An append of these records; `acknowledged` is what the receiver is said to have acknowledged before.
pub(super) fn append(
    id: u64,
    leader: Vote,
    prev: Option<EntryId>,
    acknowledged: Option<EntryId>,
    records: &[u8],
) -> Bytes {
    let mut head = BytesMut::from(&MAGIC[..]);
    put_vote(&mut head, leader);
    put_entry(&mut head, prev);
    put_entry(&mut head, prev);
    put_entry(&mut head, acknowledged);
    let mut out = BytesMut::new();
    out.put_u32_le(head.len() as u32);
    out.put_slice(&head);
    out.put_slice(records);
    frame(APPEND, id, &out)
}

/// Asks for the record of this entry at this place in the log.
pub(super) fn record_request(id: u64, index: u64, position: u64) -> Bytes {
    let mut out = BytesMut::from(&MAGIC[..]);
    out.put_u64_le(index);
    out.put_u64_le(position);
    frame(RECORD, id, &out)
}

/// A command record with this payload, in its place behind the record whose header's crc is `before`.
pub(super) fn command(entry: EntryId, position: u64, before: u32, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(RECORD_HEADER_BYTES + payload.len());
    out.put_slice(b"FoLR");
    out.put_slice(&[1, 3, 0, 0]);
    out.put_u32_le((RECORD_HEADER_BYTES + payload.len()) as u32);
    out.put_u32_le(0);
    out.put_u64_le(entry.term);
    out.put_u64_le(entry.index);
    out.put_u64_le(position);
    out.put_u32_le(crc32c::crc32c(payload));
    out.put_u32_le(before);
    out.put_bytes(0, 12);
    let crc = crc32c::crc32c(&out);
    out.put_u32_le(crc);
    out.put_slice(payload);
    out.freeze()
}

/// The crc of a record's header, which the next record repeats.
pub(super) fn header_crc(record: &[u8]) -> Option<u32> {
    let bytes = record.get(RECORD_HEADER_BYTES - 4..RECORD_HEADER_BYTES)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// A group's id as a refusal may tell it: 32 hex digits behind the word `id`.
pub(super) fn told_group_id(refusal: &str) -> Option<[u64; 2]> {
    let digits = refusal.split(|letter: char| !letter.is_ascii_hexdigit()).find(|word| word.len() == 32)?;
    let part = |from: usize| u64::from_str_radix(digits.get(from..from + 16)?, 16).ok();
    Some([part(0)?, part(16)?])
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u64_le(text.len() as u64);
    out.put_slice(text.as_bytes());
}

fn put_vote(out: &mut BytesMut, vote: Vote) {
    out.put_u64_le(vote.term);
    out.put_u64_le(vote.node);
    out.put_u8(u8::from(vote.elected));
}

fn put_entry(out: &mut BytesMut, entry: Option<EntryId>) {
    match entry {
        None => out.put_u8(0),
        Some(EntryId { term, index }) => {
            out.put_u8(1);
            out.put_u64_le(term);
            out.put_u64_le(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOTER: Vote = Vote { term: 7, node: 3, elected: true };

    /// As the golden bytes of a stored vote are.
    #[test]
    fn golden_bytes_of_a_vote() {
        let bytes = vote(VOTE, 5, VOTER, Some(EntryId { term: 6, index: 9 }), false);
        let body =
            b"FQ\x01\x00\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01\x01\x06\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0";
        assert_eq!(bytes[..4], ((9 + body.len()) as u32).to_le_bytes());
        assert_eq!(bytes[4..13], [3, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parse(&bytes[4..]), Some((VOTE, &body[..])));
    }

    #[test]
    fn golden_bytes_of_a_hello() {
        let bytes = hello(&Hello { from: 2, to: 1, requests: true, has_secret: true });
        let (kind, body) = parse(&bytes[4..]).expect("a frame");
        assert_eq!(kind, HELLO);
        let expected = [
            &b"FQ\x01\x00"[..],
            &[2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0],
            &[0x5a; 32],
            &[1],
        ];
        assert_eq!(body, expected.concat());
    }

    #[test]
    fn golden_bytes_of_credentials() {
        let told = Credentials {
            cluster: "c".to_owned(),
            group: "gr".to_owned(),
            segment_bytes: 16 << 20,
            group_id: Some([1, 2]),
        };
        let bytes = credentials(&[3; 32], &told);
        let (kind, body) = parse(&bytes[4..]).expect("a frame");
        assert_eq!(kind, CREDENTIALS);
        let expected = [
            &[3; 32],
            &b"FQ\x01\x00"[..],
            &[1, 0, 0, 0, 0, 0, 0, 0, b'c'],
            &[2, 0, 0, 0, 0, 0, 0, 0, b'g', b'r'],
            &(16u64 << 20).to_le_bytes(),
            &[1, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            &[11, 0, 0, 0, 0, 0, 0, 0],
            b"127.0.0.1:1",
            &[255, 255, 1, 0],
            &[0; 8],
        ];
        assert_eq!(body, expected.concat());
    }

    #[test]
    fn a_challenge_has_a_number_and_a_proof() {
        let body = [&b"FQ\x01\x00"[..], &[7; 32], &[9; 32]].concat();
        assert_eq!(challenge(&body), Some(([7; 32], [9; 32])));
        assert_eq!(challenge(&body[..50]), None);
    }

    #[test]
    fn an_append_has_its_head_and_its_records() {
        let prev = EntryId { term: 1, index: 2 };
        let bytes = append(1, VOTER, Some(prev), None, b"records");
        let (_, body) = parse(&bytes[4..]).expect("a frame");
        let head = u32::from_le_bytes(body[..4].try_into().unwrap()) as usize;
        assert_eq!(head, 4 + 17 + 17 + 17 + 1);
        assert_eq!(&body[4 + head..], b"records");
    }

    #[test]
    fn a_record_carries_the_crc_of_the_one_before_and_of_itself() {
        let record = command(EntryId { term: 3, index: 4 }, 4096, 0xabcd, b"garbage");
        assert_eq!(record.len(), RECORD_HEADER_BYTES + 7);
        assert_eq!(record[44..48], 0xabcdu32.to_le_bytes());
        assert_eq!(header_crc(&record), Some(crc32c::crc32c(&record[..60])));
        assert_eq!(header_crc(b"short"), None);
    }

    #[test]
    fn a_refusal_may_tell_the_groups_id() {
        let refusal =
            "this node belongs to the group with id 0000000000000001000000000000000f, the peer to another";
        assert_eq!(told_group_id(refusal), Some([1, 15]));
        assert_eq!(told_group_id("refused"), None);
    }
}
