//! What the log must be: its content after every request, and how far it was acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;

use folio_engine::{Record, StampBase};
use parking_lot::Mutex;

/// One entry, with what the log needs to go on behind it.
pub(crate) struct Entry {
    pub(crate) record: Record,
    pub(crate) base: StampBase,
}

/// The log after some request.
#[derive(Clone, Default)]
pub(crate) struct State {
    /// Entries by index; purged ones stay here.
    pub(crate) entries: BTreeMap<u64, Arc<Entry>>,
    /// The last purged index.
    pub(crate) purged: u64,
    /// The last vote, 0 before the first.
    pub(crate) vote: u64,
}

impl State {
    pub(crate) fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(index, _)| *index)
    }
}

/// Which request a completion was for, and how it ended.
type Completed = (usize, Result<(), String>);

/// The states in order of the requests, and the completions so far.
pub(crate) struct Model {
    pub(crate) states: Vec<State>,
    completions: Arc<Mutex<Vec<Completed>>>,
}

impl Model {
    pub(crate) fn new() -> Model {
        Model { states: vec![State::default()], completions: Arc::default() }
    }

    pub(crate) fn now(&self) -> &State {
        &self.states[self.last()]
    }

    pub(crate) fn last(&self) -> usize {
        self.states.len() - 1
    }

    /// Notes a request: `change` says what it does to the state.
    pub(crate) fn request(&mut self, change: impl FnOnce(&mut State)) {
        let mut state = self.now().clone();
        change(&mut state);
        self.states.push(state);
    }

    /// A completion for everything requested so far.
    pub(crate) fn completion(&self) -> folio_engine::Completion {
        let (completions, at) = (self.completions.clone(), self.last());
        Box::new(move |outcome| completions.lock().push((at, outcome.map_err(|error| error.to_string()))))
    }

    /// The last request known to be durable. Checks that completions came in order, and none with `Ok` after a failure
    /// (log.I1, log.I3).
    pub(crate) fn acknowledged(&self) -> usize {
        let completions = self.completions.lock();
        assert!(completions.is_sorted_by_key(|(at, _)| *at), "log.I1: {completions:?}");
        let good = completions.iter().take_while(|(_, outcome)| outcome.is_ok()).count();
        let lie = completions[good..].iter().find(|(_, outcome)| outcome.is_ok());
        assert!(lie.is_none(), "log.I3: {completions:?}");
        completions[..good].last().map_or(0, |(at, _)| *at)
    }

    /// Where recovery starts to verify: the base of the last purge that was asked for. It is durable, since only durable
    /// entries are purged.
    pub(crate) fn base(&self) -> StampBase {
        let now = self.now();
        now.entries.get(&now.purged).map(|entry| entry.base.clone()).unwrap_or_default()
    }
}
