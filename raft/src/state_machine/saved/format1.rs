//! Saved states as builds before the sections wrote them: by position, in envelopes of version 1 to 3. Read, never written.
//!
//! Of the forms in version 1 one is shorter than the next, and none has room for what another one ends with.

use folio_state::State;
use folio_state::format1::{StateV1, StateV2};
use serde::Deserialize;

use super::parts::{SavedState, terms};
use crate::codec::{self, CodecError, WireLogId, WireMembership};
use crate::dedup::Start;
use crate::types::StoredMembership;

/// Of the envelope around [`WireState`].
const STATE_VERSION: u8 = 2;
/// Of the envelope around [`WireStateOfLaterLocks`].
const LATER_LOCKS_VERSION: u8 = 3;

#[derive(Debug, Deserialize)]
struct WireState {
    replicated: WireReplicated<StateV2>,
    dedup_from: Option<u64>,
    dedup_position: Option<u64>,
    terms: Option<Vec<WireLogId>>,
}

#[derive(Debug, Deserialize)]
struct WireStateOfLaterLocks {
    state: WireState,
    ordered_as_of: u64,
}

#[derive(Debug, Deserialize)]
struct WireReplicated<S> {
    membership_log_id: Option<WireLogId>,
    membership: WireMembership,
    state: S,
}

/// What followed the first form, [`WireReplicated`].
#[derive(Debug, Deserialize)]
struct WireWithWindowV1 {
    state: WireReplicated<StateV1>,
    dedup_from: Option<u64>,
}

/// What followed that in a node's checkpoint.
#[derive(Debug, Deserialize)]
struct WireOfNodeV1 {
    state: WireWithWindowV1,
    dedup_position: Option<u64>,
    terms: Vec<WireLogId>,
}

pub(super) fn decode(bytes: &[u8]) -> Result<SavedState, CodecError> {
    match codec::decode_as(LATER_LOCKS_VERSION, bytes) {
        Ok(WireStateOfLaterLocks { state, ordered_as_of }) => {
            return Ok(SavedState { ordered_as_of: Some(ordered_as_of), ..of_v2(state)? });
        }
        Err(CodecError::Envelope) => {}
        Err(error) => return Err(error),
    }
    match codec::decode_as(STATE_VERSION, bytes) {
        Ok(state) => return of_v2(state),
        Err(CodecError::Envelope) => {}
        Err(error) => return Err(error),
    }
    if let Ok(WireOfNodeV1 { state, dedup_position, terms: firsts }) = codec::decode(bytes) {
        let dedup_from = state.dedup_from.map(|index| Start { index, position: dedup_position });
        return Ok(SavedState { dedup_from, terms: terms(firsts), ..of_replicated(state.state)? });
    }
    match codec::decode(bytes) {
        Ok(WireWithWindowV1 { state, dedup_from }) => {
            let dedup_from = dedup_from.map(|index| Start { index, position: None });
            Ok(SavedState { dedup_from, ..of_replicated(state)? })
        }
        Err(error) => of_replicated(codec::decode::<WireReplicated<StateV1>>(bytes).map_err(|_| error)?),
    }
}

fn of_v2(wire: WireState) -> Result<SavedState, CodecError> {
    let WireState { replicated, dedup_from, dedup_position, terms: firsts } = wire;
    let dedup_from = dedup_from.map(|index| Start { index, position: dedup_position });
    Ok(SavedState { dedup_from, terms: firsts.and_then(terms), ..of_replicated(replicated)? })
}

fn of_replicated<S: Into<State>>(wire: WireReplicated<S>) -> Result<SavedState, CodecError> {
    let WireReplicated { membership_log_id, membership, state } = wire;
    let membership =
        StoredMembership::new(membership_log_id.map(WireLogId::log_id), membership.membership()?);
    Ok(SavedState { membership, state: state.into(), ..SavedState::default() })
}

#[cfg(test)]
mod tests {
    use folio_engine::record::EntryId;

    use super::*;
    use crate::terms::Terms;

    /// No membership, one topic.
    fn first_form() -> Vec<u8> {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        [
            vec![0; 1 + 2 * 8],
            1_u64.to_le_bytes().to_vec(),
            text("orders"),
            text("orders"),
            [4_u32, 4, 6].map(u32::to_le_bytes).concat(),
            vec![0, 0, 0, 0, 0],
            text("SINGLE_TAG"),
            vec![0; 4 * 8],
        ]
        .concat()
    }

    fn some(number: u64) -> Vec<u8> {
        [&[1][..], &number.to_le_bytes()].concat()
    }

    #[test]
    fn every_form_of_an_earlier_build_is_read_and_one_without_a_window_asks_for_none() {
        let terms = [1_u64, 3, 5].map(u64::to_le_bytes).concat();
        let known = Some(Terms::after(Some(EntryId { term: 3, index: 5 })));
        let starts = |position| Some(Start { index: 7, position });
        let window = [first_form(), some(7)].concat();
        let of_node = [window.clone(), some(9), terms.clone()].concat();
        // A lease clock that never ran, and no deletion.
        let second = [first_form(), vec![0; 2 * 8]].concat();
        let snapshot = [&second[..], &[0, 0, 0]].concat();
        let checkpoint = [&second[..], &some(7), &some(9), &[1], &terms].concat();
        let again = [&snapshot[..], &12_u64.to_le_bytes()].concat();
        for (version, form, dedup_from, terms, ordered_as_of) in [
            (1, first_form(), None, None, None),
            (1, window, starts(None), None, None),
            (1, of_node, starts(Some(9)), known.clone(), None),
            (2, snapshot, None, None, None),
            (2, checkpoint, starts(Some(9)), known, None),
            (3, again, None, None, Some(12)),
        ] {
            let bytes = [&[b'F', b'Q', version, 0], &form[..]].concat();
            let saved = SavedState::decode(&bytes).unwrap();
            assert_eq!(saved.state.topic("orders").map(|topic| topic.read_queues), Some(4));
            assert_eq!(
                (saved.dedup_from, saved.terms, saved.ordered_as_of),
                (dedup_from, terms, ordered_as_of)
            );
            assert!(SavedState::decode(&bytes[..bytes.len() - 1]).is_err());
        }
    }
}
