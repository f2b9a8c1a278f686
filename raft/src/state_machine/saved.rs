//! What a checkpoint or snapshot holds besides the counters, opaque to the engine.
//!
//! The sections of the replicated state, and these (`folio_state::framing` has the frame around each):
//!
//! | tag | section | where |
//! |---|---|---|
//! | 0x8001 | members, with the entry that made them so | always |
//! | 0x8002 | the entry after which what depends on order (locks and what was sent back) is as it is here | where that is a later one than the rest's (`snapshots.I3`) |
//! | 0x8003 | the first record that the window of repeats needs | a node's checkpoint |
//! | 0x8004 | the first entry of each term, ascending | a node's checkpoint |
//!
//! [`format1`] reads what builds before these sections wrote.

mod format1;
mod parts;

use bytes::Bytes;
use folio_engine::record::EntryId;
use folio_state::framing::{self, Framed, Writer};
use serde::{Deserialize, Serialize};

pub(crate) use parts::SavedState;
use parts::terms;

use crate::codec::{self, CodecError, WireLogId, WireMembership};
use crate::dedup::Start;
use crate::types::{StoredMembership, log_id};

/// The encoding of the sections here.
const VERSION: u16 = 1;
const MEMBERSHIP: u16 = 0x8001;
const ORDERED_AS_OF: u16 = 0x8002;
const RETRY_WINDOW: u16 = 0x8003;
const TERMS: u16 = 0x8004;

/// The members, and the entry that made them so.
#[derive(Debug, Serialize, Deserialize)]
struct WireMembers {
    log_id: Option<WireLogId>,
    membership: WireMembership,
}

/// Where the window of repeats begins; the position is of one node alone.
#[derive(Debug, Serialize, Deserialize)]
struct WireWindow {
    from: u64,
    position: Option<u64>,
}

impl SavedState {
    pub(crate) fn decode(bytes: &[u8]) -> Result<SavedState, CodecError> {
        if bytes.is_empty() {
            return Ok(SavedState::default());
        }
        let sections = match framing::sections(bytes) {
            Err(CodecError::Envelope) => return format1::decode(bytes),
            sections => sections?,
        };
        let mut saved = SavedState::default();
        sections.iter().try_for_each(|section| saved.take(section))?;
        // A section that is left out would be a loss that nobody sees.
        let tags: Vec<u16> = sections.iter().map(|section| section.tag).collect();
        let missing = saved.state.missing(&tags).or((!tags.contains(&MEMBERSHIP)).then_some(MEMBERSHIP));
        match missing {
            Some(tag) => Err(CodecError::Body(format!("section {tag} is missing"))),
            None => Ok(saved),
        }
    }

    fn take(&mut self, section: &Framed<'_>) -> Result<(), CodecError> {
        let is_known = matches!(section.tag, MEMBERSHIP | ORDERED_AS_OF | RETRY_WINDOW | TERMS);
        if !is_known {
            return self.state.decode_section(section);
        }
        if section.version != VERSION {
            return Err(section.unknown());
        }
        match section.tag {
            MEMBERSHIP => {
                let WireMembers { log_id, membership } = codec::decode_body(section.body)?;
                self.membership =
                    StoredMembership::new(log_id.map(WireLogId::log_id), membership.membership()?);
            }
            ORDERED_AS_OF => self.ordered_as_of = Some(codec::decode_body(section.body)?),
            RETRY_WINDOW => {
                let WireWindow { from, position } = codec::decode_body(section.body)?;
                self.dedup_from = Some(Start { index: from, position });
            }
            _ => self.terms = terms(codec::decode_body(section.body)?),
        }
        Ok(())
    }

    /// Fails if it is larger than any checkpoint may be.
    pub(crate) fn encode(&self) -> Result<Bytes, CodecError> {
        let SavedState { membership, state, dedup_from, terms, ordered_as_of } = self;
        let mut writer = Writer::default();
        state.encode(&mut writer)?;
        let members = WireMembers {
            log_id: membership.log_id().as_ref().map(WireLogId::from),
            membership: membership.membership().into(),
        };
        writer.section(MEMBERSHIP, VERSION, |out| codec::encode_body(&members, out))?;
        if let Some(ordered_as_of) = ordered_as_of {
            writer.section(ORDERED_AS_OF, VERSION, |out| codec::encode_body(ordered_as_of, out))?;
        }
        if let Some(Start { index, position }) = dedup_from {
            let window = WireWindow { from: *index, position: position.filter(|_| terms.is_some()) };
            writer.section(RETRY_WINDOW, VERSION, |out| codec::encode_body(&window, out))?;
        }
        if let Some(terms) = terms {
            let first = |first: &EntryId| WireLogId::from(&log_id(*first));
            let firsts: Vec<WireLogId> = terms.firsts().iter().map(first).collect();
            writer.section(TERMS, VERSION, |out| codec::encode_body(&firsts, out))?;
        }
        Ok(writer.finish().into())
    }

    /// The bytes for a snapshot of any node: without what is of one node alone.
    pub(crate) fn encode_for_any(&self) -> Result<Bytes, CodecError> {
        let (membership, state) = (self.membership.clone(), self.state.clone());
        SavedState { membership, state, dedup_from: None, terms: None, ordered_as_of: self.ordered_as_of }
            .encode()
    }
}

#[cfg(test)]
mod tests {
    use folio_state::{CreateTopic, DeleteTopic, NextOffsets, State, Topic};

    use super::*;
    use crate::terms::Terms;

    struct OneQueue;

    impl NextOffsets for OneQueue {
        fn next_offsets(&self, _: &str) -> Vec<(u32, u64)> {
            vec![(0, 3)]
        }
    }

    #[test]
    fn a_checkpoint_gives_back_what_it_was_made_of() {
        let mut state = State::default();
        state.apply(CreateTopic(Topic::new("orders", 4)));
        state.apply_with(DeleteTopic { name: "t".into() }, &OneQueue);
        let from = Some(Start { index: 7, position: Some(9) });
        let terms = Terms::after(Some(EntryId { term: 3, index: 5 }));
        let made =
            |terms| SavedState { state: state.clone(), dedup_from: from, terms, ..SavedState::default() };
        let here = made(Some(terms.clone())).encode().unwrap();
        let saved = SavedState::decode(&here).unwrap();
        assert_eq!((&saved.state, saved.dedup_from, saved.terms), (&state, from, Some(terms)));
        // A snapshot, for any node.
        let snapshot = made(None).encode().unwrap();
        let saved = SavedState::decode(&snapshot).unwrap();
        let from = Some(Start { index: 7, position: None });
        assert_eq!((&saved.state, saved.dedup_from, saved.terms), (&state, from, None));
        assert_eq!(saved.state.min_offsets().get("t", 0), 3);
        assert_eq!(saved.ordered_as_of, None);
        // One that was made again.
        let again = SavedState { ordered_as_of: Some(12), ..made(None) }.encode().unwrap();
        let saved = SavedState::decode(&again).unwrap();
        assert_eq!((&saved.state, saved.ordered_as_of), (&state, Some(12)));
    }

    /// Of an empty group, as a node's checkpoint.
    #[test]
    fn golden_bytes_of_a_saved_state() {
        let terms = Terms::after(Some(EntryId { term: 3, index: 5 }));
        let from = Some(Start { index: 7, position: Some(9) });
        let saved = SavedState {
            dedup_from: from,
            terms: Some(terms),
            ordered_as_of: Some(12),
            ..SavedState::default()
        };
        let section = |tag: u16, body: &[u8]| {
            [&tag.to_le_bytes()[..], &[1, 0], &(body.len() as u64).to_le_bytes(), body].concat()
        };
        let number = |number: u64| number.to_le_bytes().to_vec();
        let window = [number(7), vec![1], number(9)].concat();
        let golden = [
            b"FQ\x04\0".to_vec(),
            section(1, &number(0)),
            section(2, &number(0)),
            section(3, &number(0)),
            section(4, &[number(0), number(0)].concat()),
            section(5, &number(0)),
            section(6, &[1, 0]),
            section(0x8001, &[vec![0], number(0), number(0)].concat()),
            section(0x8002, &number(12)),
            section(0x8003, &window),
            section(0x8004, &[number(1), number(3), number(5)].concat()),
        ]
        .concat();
        assert_eq!(saved.encode().unwrap(), golden);
    }

    #[test]
    fn a_state_without_one_of_its_sections_is_refused() {
        let whole = SavedState::default().encode().unwrap();
        let sections = framing::sections(&whole).unwrap();
        for left_out in 0..sections.len() {
            let mut writer = Writer::default();
            for (_, section) in sections.iter().enumerate().filter(|(at, _)| *at != left_out) {
                writer
                    .section(section.tag, section.version, |out| {
                        out.extend(section.body);
                        Ok(())
                    })
                    .unwrap();
            }
            let error = SavedState::decode(&writer.finish()).err().unwrap();
            assert_eq!(error, CodecError::Body(format!("section {} is missing", sections[left_out].tag)));
        }
    }

    #[test]
    fn a_section_that_a_newer_build_wrote_is_named() {
        let mut writer = Writer::default();
        writer.section(0x8005, 1, |_| Ok(())).unwrap();
        let text = SavedState::decode(&writer.finish()).err().map(|error| error.to_string()).unwrap();
        assert!(text.starts_with("section 32773 in version 1 is not known to this build"), "{text}");
    }
}
