//! The proposals of one term, each of which begins where the one before ends.
//!
//! A link that the log did not take is not in the chain. So what is in the log of one chain is whole up to some link, and a chain all of
//! whose links are applied may be followed by another one in the same term.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use folio_engine::planted;
use folio_protocol::message::NewMessage;
use folio_protocol::parked::TimerKey;
use folio_state::{CarryTimers, Command, FireTimers, RecallTimer, State};
use openraft::raft::ClientWriteResult;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::sleep;

use crate::driver::answered;
use crate::driver::in_flight::Reply;
use crate::driver::term_fence::{SettledTerm, TermFence};
use crate::driver::transition::{Move, Part, Transition};
use crate::proposal::ProposeError;
use crate::types::{Applied, Body, Callback, TypeConfig};

/// Records under way at once.
pub(super) const RECORDS_IN_FLIGHT: usize = 3;

/// How often is seen whether the log has taken a link.
const TAKEN_POLL: Duration = Duration::from_micros(200);

/// What became of a link: it is applied here, or it will not be seen to be.
type Outcome = Result<(), ProposeError>;

/// A record that the leader's log has taken, and who waits for it.
struct Link {
    outcome: Outgoing,
    reply: Option<Reply>,
    /// What was recalled by it.
    recalled: Option<TimerKey>,
}

/// The outcome of a link that is awaited, or is known already.
enum Outgoing {
    Awaited(oneshot::Receiver<Outcome>),
    Known(Outcome),
}

/// See the module. What it says of the state is with all links under way.
pub(super) struct Chain {
    fence: TermFence,
    pub(super) term: SettledTerm,
    pub(super) watermark: TimerKey,
    pub(super) carried: u64,
    /// Recalled by links under way.
    recalled: BTreeSet<TimerKey>,
    /// In the log, and not known to be applied.
    links: VecDeque<Link>,
    /// Whether it is not known what became of a link that the log took.
    is_doubtful: bool,
}

impl Chain {
    /// A chain that begins with the applied state of a term that is settled. All links of an earlier chain of the term are applied.
    pub(super) fn begin(fence: TermFence, term: SettledTerm, state: &State) -> Chain {
        let timers = state.timers();
        Chain {
            fence,
            term,
            watermark: if planted::is("fires-again") { TimerKey::default() } else { timers.watermark() },
            carried: timers.carried(),
            recalled: BTreeSet::new(),
            links: VecDeque::new(),
            is_doubtful: false,
        }
    }

    /// Whether a message is pending, `state` being the applied one.
    pub(super) fn is_pending(&self, key: TimerKey, state: &State) -> bool {
        key > self.watermark
            && key.position >= self.carried
            && !self.recalled.contains(&key)
            && !state.timers().is_recalled(key)
    }

    pub(super) fn is_full(&self) -> bool {
        self.links.len() >= RECORDS_IN_FLIGHT
    }

    pub(super) fn is_idle(&self) -> bool {
        self.links.is_empty()
    }

    /// Delivers what is pending up to a key: these messages.
    pub(super) async fn fire(&mut self, to: TimerKey, link: Draft) -> Outcome {
        let command = FireTimers { from: self.watermark, to };
        self.watermark = to;
        self.propose(command.into(), link, None, None).await
    }

    /// Parks what is pending before a position again: these messages.
    pub(super) async fn carry(&mut self, to: u64, mut link: Draft) -> Outcome {
        if planted::is("carry-drops") {
            link.messages.clear();
        }
        let command = CarryTimers { from: self.carried, to };
        self.carried = to;
        self.propose(command.into(), link, None, None).await
    }

    /// Recalls a pending message.
    pub(super) async fn recall(&mut self, key: TimerKey, now_ms: i64, reply: Reply) -> Outcome {
        self.recalled.insert(key);
        let reply = if planted::is("recalled-too-soon") { answered(reply) } else { reply };
        let draft = Draft { messages: Vec::new(), now_ms, record_bytes_max: usize::MAX };
        self.propose(RecallTimer { key }.into(), draft, Some(reply), Some(key)).await
    }

    async fn propose(
        &mut self,
        command: Command,
        Draft { messages, now_ms, record_bytes_max }: Draft,
        reply: Option<Reply>,
        recalled: Option<TimerKey>,
    ) -> Outcome {
        let part = match Part::new(Move { commands: vec![command], messages }, record_bytes_max) {
            Ok(part) => part,
            Err(error) => {
                reply.into_iter().for_each(|reply| reply(Err(error.clone())));
                return Err(error);
            }
        };
        let mut transition = Transition::default();
        transition.add(part);
        let draft = transition.draft(now_ms);
        if !self.fence.has_place(draft.len() as u64) {
            reply.into_iter().for_each(|reply| reply(Err(ProposeError::DiskFull)));
            return Err(ProposeError::DiskFull);
        }
        let body = Body::new(draft);
        let (taken, (tell, mut outcome)) = (body.taken.clone(), oneshot::channel());
        let responder = Callback::new(move |result: ClientWriteResult<TypeConfig>| {
            let outcome = match result {
                Ok(response) => match response.data {
                    Applied::Transition(_) => Ok(()),
                    other => panic!("group.I3: a transition was applied as {other}"),
                },
                Err(error) => Err(ProposeError::Unknown(error.to_string())),
            };
            let _ = tell.send(outcome);
        });
        let sent = self.fence.propose(self.term, body, responder).await;
        // openraft may refuse one proposal and take the next: a link is proposed once the one before is in the log.
        let outcome = loop {
            if taken.load(Ordering::Acquire) {
                break Outgoing::Awaited(outcome);
            }
            match outcome.try_recv() {
                Err(TryRecvError::Empty) if sent.is_ok() => sleep(TAKEN_POLL).await,
                _ if taken.load(Ordering::Acquire) => break Outgoing::Known(Err(gone())),
                _ => {
                    let error = ProposeError::NotLeader { leader: None };
                    reply.into_iter().for_each(|reply| reply(Err(error.clone())));
                    return Err(error);
                }
            }
        };
        self.links.push_back(Link { outcome, reply, recalled });
        Ok(())
    }

    /// Waits until the first link is applied; fails when that will not be seen, and the chain is over.
    pub(super) async fn applied(&mut self) -> Outcome {
        let Some(first) = self.links.front_mut() else { return std::future::pending().await };
        let outcome = match &mut first.outcome {
            Outgoing::Awaited(outcome) => outcome.await.unwrap_or_else(|_| Err(gone())),
            Outgoing::Known(outcome) => outcome.clone(),
        };
        match &outcome {
            Ok(()) => {
                if let Some(Link { reply, recalled, .. }) = self.links.pop_front() {
                    self.recalled.retain(|key| Some(*key) != recalled);
                    reply.into_iter().for_each(|reply| reply(Ok(())));
                }
            }
            Err(error) => {
                self.is_doubtful = true;
                self.end(error);
            }
        }
        outcome
    }

    /// Waits until it is known what became of all links: whether they are applied. Nothing is added any more.
    pub(super) async fn ends_well(&mut self) -> bool {
        while !self.links.is_empty() && self.applied().await.is_ok() {}
        !self.is_doubtful
    }

    /// Answers who waits for links that will not be seen to be applied.
    fn end(&mut self, error: &ProposeError) {
        let replies = self.links.drain(..).filter_map(|link| link.reply);
        replies.for_each(|reply| reply(Err(error.clone())));
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.end(&ProposeError::Unknown("the leader of the group changed".into()));
    }
}

fn gone() -> ProposeError {
    ProposeError::Unknown("the group stopped".into())
}

/// The messages of a link.
pub(super) struct Draft {
    pub(super) messages: Vec<NewMessage>,
    pub(super) now_ms: i64,
    pub(super) record_bytes_max: usize,
}
