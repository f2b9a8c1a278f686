//! Decides when a node may take its leader for dead, and says why nodes stand for election and leaders go.
//!
//! openraft has a timer of its own: it stands for election when it has heard nothing for its lease and a random timeout. That
//! timer cannot tell a leader that is silent from a node that was not running, so it is only the shortest time there is: a
//! candidacy needs the suspicion of this detector, too. The detector counts the leader's silence while this node runs, and
//! adapts to how regularly the leader was heard ([`silence`]).
//!
//! Two signs need no silence: the leader hands over, or its process is gone ([`super::closed_connections`]).
//!
//! A node asks before it stands (pre-vote), and who is asked judges by its own detector. A vote itself is openraft's: by then
//! the candidate has a new term, and to refuse it would only cost another election.
//!
//! Nothing depends on the detector being right: terms and logs decide elections.

mod silence;

use std::time::Duration;

use openraft::{RaftMetrics, ServerState};
use parking_lot::Mutex;
use tokio::time::Instant;

pub(super) use self::silence::LOOK_INTERVAL;
use self::silence::{Limits, Silence};
use super::eligibility::{Eligibility, Reason};
use crate::config::Timing;
use crate::hand_over::HandOver;
use crate::types::{TypeConfig, Vote};

/// A stall of this node that the log tells of.
const STALL_TOLD: Duration = Duration::from_millis(200);
/// A hand-over that was begun longer ago is over.
const HAND_OVER_MAX: Duration = Duration::from_secs(5);

/// Why a node takes its leader for gone, however lately it was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Its connections ended, and its machine refuses another one.
    ClosedConnection,
    /// It hands over.
    HandOver(HandOver),
}

/// Why this node does not give up its leader when another node asks: too little silence.
#[derive(Debug, thiserror::Error)]
#[error("{heard} {} ms ago, less than {} ms", .silence.as_millis(), .needed.as_millis())]
pub(crate) struct NotSilent {
    /// Who was heard.
    heard: &'static str,
    silence: Duration,
    needed: Duration,
}

/// A moment as openraft's metrics have it.
type Answered = openraft::alias::InstantOf<TypeConfig>;
/// A leader: its term and its id.
type Leader = (u64, u64);

struct State {
    silence: Silence,
    /// The leader that was heard last.
    leader: Option<Leader>,
    /// Whether openraft knows a leader: none between a vote and the first word of who won.
    is_led: bool,
    leads: bool,
    /// When a quorum last answered this leader.
    quorum: Option<Answered>,
    quorum_lost: bool,
    gone: Option<Gone>,
    suspects: bool,
    handing_over: Option<(HandOver, Instant)>,
    told: Option<Told>,
}

/// The candidacy that the log told of last.
struct Told {
    /// Whether it was a question only.
    asks: bool,
    term: u64,
    why: String,
}

impl State {
    /// Time passes.
    fn look(&mut self, now: Instant) {
        if let Some(stalled) = self.silence.look(now).filter(|stalled| *stalled >= STALL_TOLD) {
            tracing::info!(stalled_ms = stalled.as_millis() as u64, "this node did not run for a while");
        }
    }

    /// Why this node stands for election now.
    fn why(&self) -> String {
        match (self.gone, self.leader) {
            (Some(Gone::ClosedConnection), _) => "the leader's process closed its connections".to_owned(),
            (Some(Gone::HandOver(why)), _) => format!("the leader hands over, since {why}"),
            (None, None) => "it has heard no leader since it started".to_owned(),
            (None, Some(_)) if !self.is_led => "the last election left no leader".to_owned(),
            (None, Some((_, leader))) => {
                let (silence, threshold) = (self.silence.counted(), self.silence.threshold());
                format!(
                    "its leader, node {leader}, has been silent for {} ms, more than {} ms",
                    silence.as_millis(),
                    threshold.as_millis()
                )
            }
        }
    }
}

/// One node's detector.
pub(crate) struct FailureDetector {
    timing: Timing,
    /// More than the threshold, where that is not the quick one: so that two nodes do not stand in the same moment.
    apart: Duration,
    state: Mutex<State>,
}

/// What the status says of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) silence: Duration,
    pub(crate) threshold: Duration,
}

impl FailureDetector {
    pub(crate) fn new(node_id: u64, timing: Timing) -> FailureDetector {
        let silence = Silence::new(Limits::of(&timing), Instant::now());
        let (leader, quorum, gone, handing_over, told) = Default::default();
        let state = State {
            silence,
            leader,
            is_led: false,
            leads: false,
            quorum,
            quorum_lost: false,
            gone,
            suspects: true,
            handing_over,
            told,
        };
        FailureDetector { apart: timing.heartbeat * (node_id % 4) as u32, timing, state: Mutex::new(state) }
    }

    /// The leader of `vote` was heard, and this node has not voted for a later one.
    pub(crate) fn heard(&self, eligibility: &Eligibility, vote: &Vote) {
        let mut state = self.state.lock();
        let (now, leader) = (Instant::now(), (vote.leader_id.term, vote.leader_id.voted_for));
        state.look(now);
        if state.leader == Some(leader) {
            state.silence.heard(now);
        } else {
            state.silence.begin();
            state.leader = Some(leader);
        }
        (state.gone, state.is_led) = (None, true);
        self.judge(&mut state, eligibility);
    }

    /// The leader is gone, whatever was heard of it.
    pub(crate) fn gone(&self, eligibility: &Eligibility, why: Gone) {
        let mut state = self.state.lock();
        state.gone = Some(why);
        self.judge(&mut state, eligibility);
    }

    /// Called every [`LOOK_INTERVAL`] with what openraft says.
    pub(super) fn look(&self, eligibility: &Eligibility, metrics: &RaftMetrics<TypeConfig>) {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.look(now);
        state.is_led = metrics.current_leader.is_some();
        state.leads = metrics.state == ServerState::Leader;
        if state.leads {
            state.gone = None;
            self.look_at_quorum(&mut state, metrics, now);
        } else {
            (state.quorum, state.quorum_lost) = (None, false);
        }
        self.judge(&mut state, eligibility);
    }

    /// A leader hears no leader, but answers.
    fn look_at_quorum(&self, state: &mut State, metrics: &RaftMetrics<TypeConfig>, now: Instant) {
        let answered: Option<Answered> = metrics.last_quorum_acked.as_ref().map(|at| **at);
        let leader = Some((metrics.current_term, metrics.id));
        let alone = metrics.membership_config.membership().voter_ids().count() < 2;
        if state.leader != leader {
            state.leader = leader;
            state.silence.begin();
        } else if answered > state.quorum || alone {
            state.silence.answered(now);
        }
        state.quorum = answered;
        let silence = state.silence.counted();
        let lost = silence > self.timing.election_max;
        if lost && !state.quorum_lost {
            tracing::warn!(
                silence_ms = silence.as_millis() as u64,
                "no majority answers this leader: it takes no sends until one does"
            );
        } else if state.quorum_lost && !lost {
            tracing::info!("a majority answers this leader again");
        }
        state.quorum_lost = lost;
    }

    /// Opens or closes the way to a candidacy.
    fn judge(&self, state: &mut State, eligibility: &Eligibility) {
        let apart = if state.silence.is_jittery() { self.apart } else { Duration::ZERO };
        // Before the first leader was heard there is none to be protected.
        let has_leader = state.is_led && state.leader.is_some() && state.gone.is_none();
        let suspects = !has_leader || state.silence.exceeds(state.silence.threshold() + apart);
        if suspects != state.suspects {
            state.suspects = suspects;
            eligibility.set(Reason::LeaderNotSilent, !suspects);
        }
    }

    /// Whether this node still takes its leader for dead, now that it is about to ask others.
    pub(crate) fn suspects(&self, eligibility: &Eligibility) -> bool {
        let mut state = self.state.lock();
        state.look(Instant::now());
        self.judge(&mut state, eligibility);
        state.suspects
    }

    /// Whether this node would give up its leader if another one asked: the reason if not.
    pub(crate) fn would_grant(&self) -> Result<(), NotSilent> {
        let mut state = self.state.lock();
        state.look(Instant::now());
        let (silence, needed) = (state.silence.counted(), state.silence.grants_at());
        let has_leader = state.is_led && state.leader.is_some() && state.gone.is_none();
        if !has_leader || state.silence.exceeds(needed) {
            return Ok(());
        }
        let heard =
            if state.leads { "a majority answered this leader" } else { "this node heard its leader" };
        Err(NotSilent { heard, silence, needed })
    }

    /// Tells that this node stands for election, or asks whether it should, and why.
    pub(crate) fn stands(&self, asks: bool, term: u64) {
        let mut state = self.state.lock();
        let asked = state.told.take_if(|told| told.term == term);
        if asked.as_ref().is_some_and(|told| told.asks == asks) {
            state.told = asked;
            return;
        }
        let what = if asks { "asks whether to stand for election" } else { "stands for election" };
        // By the time it stands it has given up its leader.
        let why = asked.map_or_else(|| state.why(), |told| told.why);
        let silence_ms = state.silence.counted().as_millis() as u64;
        let threshold_ms = state.silence.threshold().as_millis() as u64;
        tracing::info!(term, silence_ms, threshold_ms, "this node {what}: {why}");
        state.told = Some(Told { asks, term, why });
    }

    /// This leader begins to hand over.
    pub(super) fn hands_over(&self, why: HandOver) {
        self.state.lock().handing_over = Some((why, Instant::now()));
    }

    /// Why this leader hands over, if it does.
    pub(crate) fn handing_over(&self) -> Option<HandOver> {
        let since = self.state.lock().handing_over;
        since.filter(|(_, since)| since.elapsed() < HAND_OVER_MAX).map(|(why, _)| why)
    }

    /// Tells that this node leads no more, and why; `newer` is the later term's candidate or leader.
    pub(super) fn leads_no_more(&self, newer: Option<Leader>, why: &str) {
        match (self.handing_over(), newer) {
            (Some(why), Some((term, to))) => {
                tracing::info!(term, to, "leadership handed over to node {to}: {why}");
            }
            (None, Some((term, from))) => tracing::warn!(
                term,
                from,
                "leadership lost: node {from} stood for election in term {term}, and this node had not handed over"
            ),
            (_, None) => tracing::warn!("leadership given up: {why}"),
        }
        self.state.lock().handing_over = None;
    }

    /// The last silence and the threshold.
    pub(crate) fn figures(&self) -> Figures {
        let state = self.state.lock();
        Figures { silence: state.silence.counted(), threshold: state.silence.threshold() }
    }
}
