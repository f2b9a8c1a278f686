//! The task of one driver: takes requests, decides on them in one settled term, and proposes what they come to, many in a record.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use folio_engine::planted;
use folio_protocol::message::NewMessage;
use folio_state::Command;
use folio_state::sections::features::TRANSITIONS;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

use super::in_flight::{InFlight, Outcome, Ticket, end_all};
use super::record::{Decided, Filled, Record};
use super::requests::{Requests, WAITING_MAX, Waiting, WaitingBytes, stopped};
use super::term_fence::{SettledTerm, TermFence};
use super::transition::{Part, Transition, unstorable};
use super::{Decision, Driver, Move, answered};
use crate::group::tasks;
use crate::host::Host;
use crate::proposal::{Proposal, ProposeError, Repeat};
use crate::proposer::Proposer;
use crate::proposer::overdue::{ANSWER_WITHIN, DISK_FULL, LOOK_INTERVAL};
use crate::shared::Shared;
use crate::types::{Body, Callback};

/// Records of one driver on their way at once; meanwhile requests gather for the next.
const RECORDS_IN_FLIGHT: usize = 2;

/// What a runner works with.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) host: Host,
    pub(crate) shared: Arc<Shared>,
    pub(crate) fence: TermFence,
    pub(crate) proposer: Proposer,
}

/// Starts the task of a driver.
pub(crate) fn start<D: Driver>(driver: D, parts: Parts) -> Requests<D> {
    let (queue, waiting) = mpsc::channel(WAITING_MAX);
    let (driver, bytes) = (Arc::new(driver), Arc::default());
    let shared = parts.shared.clone();
    let runner = Runner {
        driver: driver.clone(),
        record_bytes_max: shared.log.record_bytes_max(),
        parts,
        in_flight: Arc::default(),
        slots: Arc::new(Semaphore::new(RECORDS_IN_FLIGHT)),
        bytes: Arc::clone(&bytes),
    };
    tasks::spawn(&shared, D::NAME, runner.run(waiting));
    Requests { driver, queue, bytes }
}

/// See the module.
struct Runner<D: Driver> {
    driver: Arc<D>,
    parts: Parts,
    in_flight: Arc<Mutex<InFlight<D::Key>>>,
    slots: Arc<Semaphore>,
    record_bytes_max: usize,
    bytes: Arc<AtomicUsize>,
}

/// What is to be done next: requests in their order, and what they came to where that did not fit the record before.
struct Backlog<D: Driver> {
    queue: mpsc::Receiver<Waiting<D::Request>>,
    due: VecDeque<Waiting<D::Request>>,
    decided: Option<Decided<D::Key>>,
}

impl<D: Driver> Backlog<D> {
    fn next(&mut self) -> Option<Waiting<D::Request>> {
        self.due.pop_front().or_else(|| self.queue.try_recv().ok())
    }

    fn has_some(&self) -> bool {
        self.decided.is_some() || !self.due.is_empty()
    }
}

impl<D: Driver> Runner<D> {
    async fn run(self, queue: mpsc::Receiver<Waiting<D::Request>>) {
        let mut backlog = Backlog::<D> { queue, due: VecDeque::new(), decided: None };
        tokio::select! {
            () = self.work(&mut backlog) => {}
            () = self.answer_overdue() => {}
        }
        backlog.queue.close();
        self.refuse_all(&mut backlog, &stopped());
    }

    /// Part of this task, so that a panic is the group's end (`tasks.I1`).
    async fn answer_overdue(&self) {
        let mut stopping = self.parts.shared.stopping.subscribe();
        loop {
            tokio::select! {
                () = sleep(LOOK_INTERVAL) => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
            if !self.parts.shared.has_room(1) {
                let overdue = self.in_flight.lock().take_overdue(ANSWER_WITHIN);
                overdue.into_iter().for_each(|reply| reply(Err(ProposeError::Unknown(DISK_FULL.into()))));
            }
        }
    }

    /// Returns when the group stops.
    async fn work(&self, backlog: &mut Backlog<D>) {
        let mut looks_at = Instant::now() + D::LOOK_INTERVAL;
        loop {
            // Also where requests come without a pause.
            if Instant::now() >= looks_at {
                self.look(backlog);
                looks_at = Instant::now() + D::LOOK_INTERVAL;
            }
            if !backlog.has_some() {
                tokio::select! {
                    request = backlog.queue.recv() => match request {
                        Some(request) => backlog.due.push_back(request),
                        None => return,
                    },
                    () = sleep_until(looks_at) => {}
                }
                continue;
            }
            let (term, slot) = match self.ready().await {
                Ok(ready) => ready,
                Err(error) => {
                    self.refuse_all(backlog, &error);
                    continue;
                }
            };
            let filled = self.fill(term, backlog);
            if !filled.moves.is_empty() && self.propose(term, filled, slot).await.is_err() {
                return;
            }
        }
    }

    /// What is due without being asked for.
    fn look(&self, backlog: &mut Backlog<D>) {
        if self.parts.fence.leads() && self.parts.shared.level.get() >= TRANSITIONS {
            for request in self.driver.due() {
                // It is bounded by what is due, and looked for again only when this is done.
                let _bytes = WaitingBytes::none(&self.bytes);
                backlog.due.push_back(Waiting { request, reply: Box::new(drop), _bytes });
            }
        }
    }

    /// A settled term, and a place for a record (`driver.I1`).
    async fn ready(&self) -> Result<(SettledTerm, OwnedSemaphorePermit), ProposeError> {
        let slot = loop {
            tokio::select! {
                slot = self.slots.clone().acquire_owned() => break slot.map_err(|_| stopped())?,
                () = sleep(LOOK_INTERVAL) => {
                    if !self.has_room_for(1) {
                        return Err(ProposeError::DiskFull);
                    }
                }
            }
        };
        let fence = &self.parts.fence;
        let term = fence.settled_with(|| self.has_room_for(1), || self.driver.is_ready()).await?;
        Ok((term, slot))
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        let (shared, bytes) = (&self.parts.shared, bytes as u64);
        if D::MAKES_ROOM { shared.has_place(bytes) } else { shared.has_room(bytes) }
    }

    /// Answers whatever waits: it was not proposed.
    fn refuse_all(&self, backlog: &mut Backlog<D>, error: &ProposeError) {
        if let Some(Decided { key, ticket, .. }) = backlog.decided.take() {
            end_all(&self.in_flight, &[(key, ticket)], &Outcome::Not(error.clone()));
        }
        while let Some(waiting) = backlog.next() {
            (waiting.reply)(Err(error.clone()));
        }
    }

    /// Decides on what waits, until the record is full.
    fn fill(&self, term: SettledTerm, backlog: &mut Backlog<D>) -> Filled<D::Key> {
        self.in_flight.lock().begin_term(term);
        let mut filled = Filled { transition: Transition::default(), moves: Vec::new() };
        if let Some(decided) = backlog.decided.take() {
            if decided.term == term {
                filled.add(decided);
            } else {
                let moves = [(decided.key, decided.ticket)];
                end_all(&self.in_flight, &moves, &Outcome::Not(ProposeError::NotLeader { leader: None }));
            }
        }
        while !filled.transition.is_full(self.record_bytes_max) {
            let Some(waiting) = backlog.next() else { break };
            let Some(decided) = self.decide(term, waiting) else { continue };
            if !filled.transition.takes(&decided.part, self.record_bytes_max) {
                backlog.decided = Some(decided);
                break;
            }
            filled.add(decided);
        }
        filled
    }

    /// Answers a request, or says what it comes to; that is under way then. First the view, then the state (`driver.I2`).
    fn decide(&self, term: SettledTerm, waiting: Waiting<D::Request>) -> Option<Decided<D::Key>> {
        let Waiting { request, reply, .. } = waiting;
        let key = self.driver.key(&request);
        let mut in_flight = self.in_flight.lock();
        let joined = if planted::is("moves-again") { Err(reply) } else { in_flight.join(&key, reply) };
        let Err(reply) = joined else { return None };
        let decision = if in_flight.is_full() {
            Decision::Refused(ProposeError::Busy)
        } else {
            self.driver.decide(request, &self.parts.shared.state.read())
        };
        let outcome = match decision {
            Decision::Done => Ok(()),
            Decision::Refused(error) => Err(error),
            Decision::Move(wish) => match self.part(wish) {
                Ok(part) => {
                    let reply = if planted::is("ended-too-soon") { answered(reply) } else { reply };
                    let ticket = in_flight.begin(key.clone(), reply);
                    return Some(Decided { term, part, key, ticket });
                }
                Err(error) => Err(error),
            },
            Decision::Store(messages) => match unstorable(&messages) {
                Some(why) => Err(ProposeError::Refused(why)),
                None => {
                    let ticket = in_flight.begin(key.clone(), reply);
                    drop(in_flight);
                    self.store(term, messages, (key, ticket));
                    return None;
                }
            },
        };
        drop(in_flight);
        reply(outcome);
        None
    }

    /// Refuses a move that may not be proposed (`features.I1`, `bounds.I1`, `state.I1`).
    fn part(&self, wish: Move) -> Result<Part, ProposeError> {
        let level = self.parts.shared.level.get();
        let needs = wish.commands.iter().map(Command::since).fold(TRANSITIONS, u16::max);
        if needs > level {
            return Err(ProposeError::Level { needs, level });
        }
        wish.commands.iter().try_for_each(|command| self.parts.shared.check_growth(command))?;
        Part::new(wish, self.record_bytes_max)
    }

    /// Messages alone, below the level of transitions. In this term or not at all: the next one forgets what is under way, and may
    /// have the level by which a repeat is a move of its own.
    fn store(&self, term: SettledTerm, messages: Vec<NewMessage>, a_move: (D::Key, Ticket)) {
        let in_flight = self.in_flight.clone();
        let reply = Box::new(move |stored: Result<_, ProposeError>| {
            let outcome = match stored {
                Ok(_) => Outcome::Applied,
                Err(error @ (ProposeError::Unknown(_) | ProposeError::Stopped(_))) => Outcome::Unknown(error),
                Err(error) => Outcome::Not(error),
            };
            end_all(&in_flight, &[a_move], &outcome);
        });
        let proposal = Proposal { messages, repeat: Repeat::Same, reply };
        if let Err((proposal, error)) = self.parts.proposer.propose_in(term, proposal) {
            (proposal.reply)(Err(error));
        }
    }

    /// Fails when openraft's core has stopped; who waits was answered then.
    async fn propose(
        &self,
        term: SettledTerm,
        filled: Filled<D::Key>,
        slot: OwnedSemaphorePermit,
    ) -> Result<(), ()> {
        let draft = filled.transition.draft(self.parts.host.now_ms());
        if !self.has_room_for(draft.len()) {
            end_all(&self.in_flight, &filled.moves, &Outcome::Not(ProposeError::DiskFull));
            return Ok(());
        }
        let body = Body::new(draft);
        let record = Record {
            moves: filled.moves,
            taken: body.taken.clone(),
            in_flight: self.in_flight.clone(),
            _slot: slot,
        };
        let responder = Callback::new(move |result| record.complete(result));
        self.parts.fence.propose(term, body, responder).await.map_err(drop)
    }
}
