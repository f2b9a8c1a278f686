//! Long polls: pulls that found nothing and wait for the next message of their queue.
//!
//! A poll is parked under its queue with the offset it wants and its tag filter. It leaves the table
//! exactly once: woken by an arrival it asked for, at its deadline, taken back by whoever parked it, or
//! dropped with its connection. What happens to it then is the caller's business; nothing is answered here.
//!
//! An arrival touches only the polls that it answers ([`index`]), and not on the thread that applies: that one
//! notes it ([`arrivals`]), and a task of the clients' threads wakes.
//!
//! A table that is full takes each poll nevertheless. Another one gives way ([`shares`]): it leaves after
//! [`LEAVES_AFTER`] at the latest, and is woken until then. So a client whose poll gives way does not ask again at once,
//! and one that comes late does not wait for others to be gone. Those that leave are bounded, too: the first of them then
//! leaves at once.
//!
//! Invariants
//! - `polls.I1` No lost wake-up. Whoever parks looks at the queue once more *after* parking; arrivals are noted *after*
//!   readers can see them, and looked for in the table after they were noted. A message that this look does not see became
//!   visible after the poll was parked; so it is noted after that (the table was not empty then), and the poll is in
//!   the index when the note is looked at, unless it has left. The note names the poll's queue and tag with the message's
//!   offset or a further one, or where it overflowed, all tags of the queue, or all queues.
//! - `polls.I2` Bounded: polls that stay weigh at most the limit together, and those of one connection a quarter of it;
//!   those that leave, an eighth. A poll weighs one, and one more for each KiB of its own.
//! - `polls.I3` The indexes name the same polls; all change under one lock.
//! - `polls.I4` A poll gives way only while no connection's polls weigh more than those of its own: a connection that
//!   holds at most an equal part of the limit, and a quarter of it, keeps all it has, whatever others do.

mod arrivals;
mod index;
mod shares;
mod ticket;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use folio_engine::queues::Arrival;
use folio_protocol::subscription::TagFilter;
use parking_lot::Mutex;

pub(crate) use self::arrivals::{Arrivals, News};
use self::index::Index;
use self::shares::Shares;
pub(crate) use self::ticket::Ticket;

/// A poll that gives way leaves after this time. A client that asks again each time does so once a second.
const LEAVES_AFTER: Duration = Duration::from_secs(1);
/// Bytes of its own for which a poll weighs one more.
const BYTES_PER_WEIGHT: usize = 1_024;
/// The polls of one connection weigh at most the limit divided by this.
const CONNECTION_PART: usize = 4;
/// The polls that leave weigh at most the limit divided by this.
const LEAVING_PART: usize = 8;

/// A pull that waits, as whoever takes it out of the table goes on with it.
pub trait Held: Send {
    /// Answers it as things are now.
    fn release(self: Box<Self>);
    /// Its connection is gone: nobody reads the answer.
    fn gone(self: Box<Self>);
}

impl PollTable<Box<dyn Held>> {
    /// Answers every pull that is held: the node stops.
    pub fn release_all(&self) {
        self.drain().into_iter().for_each(|poll| poll.payload.release());
    }

    /// Forgets the pulls of a connection that has closed.
    pub fn closed(&self, connection: u64) {
        self.close(connection).into_iter().for_each(|poll| poll.payload.gone());
    }
}

/// What a parked pull waits for, and what to go on with then.
pub(crate) struct Poll<P> {
    /// The topic.
    pub topic: Arc<str>,
    /// The queue's number.
    pub queue: u32,
    /// The first offset that would answer it.
    pub offset: u64,
    /// Which messages it asks for.
    pub filter: Arc<TagFilter>,
    /// When it is answered at the latest.
    pub deadline: Instant,
    /// The connection it goes away with.
    pub connection: u64,
    /// What it keeps beyond a fixed part: its filter and its request.
    pub bytes: usize,
    /// Whatever the caller needs to answer it.
    pub payload: P,
}

/// All parked polls of a node.
pub struct PollTable<P> {
    limits: Limits,
    arrivals: Arc<Arrivals>,
    /// How many polls are parked; changes under the lock of the state.
    parked: AtomicUsize,
    state: Mutex<State<P>>,
}

/// `polls.I2`, in weights.
struct Limits {
    staying: usize,
    of_connection: usize,
    leaving: usize,
}

struct State<P> {
    next: Ticket,
    polls: HashMap<Ticket, Parked<P>>,
    index: Index,
    deadlines: BTreeSet<(Instant, Ticket)>,
    connections: BTreeSet<(u64, Ticket)>,
    /// Of the polls that stay.
    shares: Shares,
    /// Those that leave, by their deadline.
    leaving: BTreeSet<(Instant, Ticket)>,
    leaving_weight: usize,
    /// Polls that arrivals have touched.
    touched: u64,
}

struct Parked<P> {
    poll: Poll<P>,
    weight: usize,
}

impl<P> PollTable<P> {
    /// An empty table, in which polls of at most this weight stay.
    pub(crate) fn new(limit: usize) -> PollTable<P> {
        PollTable::with_arrivals(limit, Arrivals::default())
    }

    fn with_arrivals(limit: usize, arrivals: Arrivals) -> PollTable<P> {
        let part = |divisor: usize| (limit / divisor).max(1);
        let limits =
            Limits { staying: limit, of_connection: part(CONNECTION_PART), leaving: part(LEAVING_PART) };
        let state = State {
            next: Ticket::FIRST,
            polls: HashMap::new(),
            index: Index::default(),
            deadlines: BTreeSet::new(),
            connections: BTreeSet::new(),
            shares: Shares::default(),
            leaving: BTreeSet::new(),
            leaving_weight: 0,
            touched: 0,
        };
        let (arrivals, parked) = (Arc::new(arrivals), AtomicUsize::new(0));
        PollTable { limits, arrivals, parked, state: Mutex::new(state) }
    }

    /// The weight that polls which stay may have together.
    pub fn limit(&self) -> usize {
        self.limits.staying
    }

    /// Parks a poll. Look at the queue once more afterwards (`polls.I1`), and answer the polls that left for it.
    pub(crate) fn park(&self, poll: Poll<P>, now: Instant) -> (Ticket, Vec<Poll<P>>) {
        let Limits { staying, of_connection, leaving } = self.limits;
        let mut state = self.state.lock();
        let ticket = state.insert(poll);
        while let Some(gives_way) = state.shares.gives_way(staying, of_connection) {
            state.let_leave(gives_way, now + LEAVES_AFTER);
        }
        let mut left = Vec::new();
        while state.leaving_weight > leaving
            && let Some((_, first)) = state.leaving.first().copied()
        {
            left.extend(state.remove(first));
        }
        self.parked.store(state.polls.len(), Ordering::Release);
        (ticket, left)
    }

    /// Takes a poll back; `None` if it has left the table already.
    pub(crate) fn take(&self, ticket: Ticket) -> Option<Poll<P>> {
        self.take_all(&[ticket]).pop()
    }

    /// The same for several.
    pub(crate) fn take_all(&self, tickets: &[Ticket]) -> Vec<Poll<P>> {
        let mut state = self.state.lock();
        let taken = tickets.iter().filter_map(|ticket| state.remove(*ticket)).collect();
        self.parked.store(state.polls.len(), Ordering::Release);
        taken
    }

    /// Hears of messages that readers can see. Called on the thread that applies records: waits for nobody.
    pub(crate) fn note(&self, arrivals: &[Arrival]) {
        if self.parked.load(Ordering::Acquire) > 0 {
            self.arrivals.note(arrivals);
        }
    }

    /// Where arrivals are noted.
    pub(crate) fn arrivals(&self) -> Arc<Arrivals> {
        self.arrivals.clone()
    }

    /// The polls that arrivals have answered, to be taken out. One may be named several times.
    pub(crate) fn answered_by(&self, news: &News) -> Vec<Ticket> {
        let mut state = self.state.lock();
        let tickets = state.index.answered_by(news);
        state.touched += tickets.len() as u64;
        tickets
    }

    /// The polls whose deadline has passed at `now`, to be taken out.
    pub(crate) fn expired(&self, now: Instant) -> Vec<Ticket> {
        let state = self.state.lock();
        state.deadlines.range(..=(now, Ticket::LAST)).map(|(_, ticket)| *ticket).collect()
    }

    /// Takes out the polls of a connection that has closed.
    pub(crate) fn close(&self, connection: u64) -> Vec<Poll<P>> {
        let tickets: Vec<Ticket> = {
            let state = self.state.lock();
            let range = (connection, Ticket::FIRST)..=(connection, Ticket::LAST);
            state.connections.range(range).map(|(_, ticket)| *ticket).collect()
        };
        self.take_all(&tickets)
    }

    /// Takes out every poll: at shutdown, or when the node's role changed and answers may differ.
    pub(crate) fn drain(&self) -> Vec<Poll<P>> {
        let tickets: Vec<Ticket> = self.state.lock().polls.keys().copied().collect();
        self.take_all(&tickets)
    }

    /// How many polls are parked.
    pub fn len(&self) -> usize {
        self.state.lock().polls.len()
    }

    /// Whether none is parked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many connections have polls.
    pub fn of_connections(&self) -> usize {
        let state = self.state.lock();
        let connections: BTreeSet<u64> =
            state.connections.iter().map(|(connection, _)| *connection).collect();
        connections.len()
    }

    /// How many polls arrivals have touched so far.
    pub fn touched(&self) -> u64 {
        self.state.lock().touched
    }
}

impl<P> State<P> {
    fn insert(&mut self, poll: Poll<P>) -> Ticket {
        let ticket = self.next;
        self.next = ticket.next();
        let weight = 1 + poll.bytes / BYTES_PER_WEIGHT;
        self.index.insert((&poll.topic, poll.queue), &poll.filter, (poll.offset, ticket));
        self.deadlines.insert((poll.deadline, ticket));
        self.connections.insert((poll.connection, ticket));
        self.shares.add(poll.connection, ticket, weight);
        self.polls.insert(ticket, Parked { poll, weight });
        ticket
    }

    /// The poll gives way: from now on it leaves.
    fn let_leave(&mut self, ticket: Ticket, latest: Instant) {
        let Some(Parked { poll, weight }) = self.polls.get_mut(&ticket) else { return };
        self.shares.remove(poll.connection, ticket);
        self.deadlines.remove(&(poll.deadline, ticket));
        poll.deadline = poll.deadline.min(latest);
        self.deadlines.insert((poll.deadline, ticket));
        self.leaving.insert((poll.deadline, ticket));
        self.leaving_weight += *weight;
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Poll<P>> {
        let Parked { poll, weight } = self.polls.remove(&ticket)?;
        self.index.remove((&poll.topic, poll.queue), &poll.filter, (poll.offset, ticket));
        self.deadlines.remove(&(poll.deadline, ticket));
        self.connections.remove(&(poll.connection, ticket));
        if self.leaving.remove(&(poll.deadline, ticket)) {
            self.leaving_weight -= weight;
        } else {
            self.shares.remove(poll.connection, ticket);
        }
        Some(poll)
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.polls.is_empty()
            && self.index.is_empty()
            && self.deadlines.is_empty()
            && self.connections.is_empty()
            && self.shares.is_empty()
            && self.leaving.is_empty()
            && self.leaving_weight == 0
    }
}

#[cfg(test)]
mod tests;
