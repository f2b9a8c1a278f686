//! Long polls: pulls that found nothing and wait for the next message of their queue.
//!
//! A poll is parked under its queue with the offset it wants and its tag filter. It leaves the table
//! exactly once: woken by an arrival it asked for, at its deadline, taken back by whoever parked it, or
//! dropped with its connection. What happens to it then is the caller's business; nothing is answered here.
//!
//! Invariants
//! - `polls.I1` No lost wake-up: whoever parks looks at the queue once more *after* parking, and arrivals
//!   are reported *after* readers can see them, so one of the two sees the other.
//! - `polls.I2` Bounded: at most `limit` polls. Who finds the table full gets the poll back and answers
//!   "nothing found" at once.
//! - `polls.I3` The four indexes name the same polls; all change under one lock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use folio_engine::queues::Arrival;
use folio_protocol::subscription::TagFilter;
use parking_lot::Mutex;

/// What a parked pull waits for, and what to go on with then.
pub struct Poll<P> {
    /// The topic.
    pub topic: Arc<str>,
    /// The queue's number.
    pub queue: u32,
    /// The first offset that would answer it.
    pub offset: u64,
    /// Which messages it asks for.
    pub filter: TagFilter,
    /// When it is answered at the latest.
    pub deadline: Instant,
    /// The connection it goes away with.
    pub connection: u64,
    /// Whatever the caller needs to answer it.
    pub payload: P,
}

/// Names a parked poll; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// All parked polls of a node.
pub struct PollTable<P> {
    limit: usize,
    state: Mutex<State<P>>,
}

struct State<P> {
    next: u64,
    polls: HashMap<Ticket, Poll<P>>,
    queues: HashMap<Arc<str>, BTreeMap<u32, BTreeSet<Ticket>>>,
    deadlines: BTreeSet<(Instant, Ticket)>,
    connections: BTreeSet<(u64, Ticket)>,
}

impl<P> PollTable<P> {
    /// An empty table that holds at most `limit` polls.
    pub fn new(limit: usize) -> PollTable<P> {
        let state = State {
            next: 0,
            polls: HashMap::new(),
            queues: HashMap::new(),
            deadlines: BTreeSet::new(),
            connections: BTreeSet::new(),
        };
        PollTable { limit, state: Mutex::new(state) }
    }

    /// Parks a poll; gives it back if the table is full. Look at the queue once more afterwards (`polls.I1`).
    pub fn park(&self, poll: Poll<P>) -> Result<Ticket, Poll<P>> {
        let mut state = self.state.lock();
        if state.polls.len() >= self.limit {
            return Err(poll);
        }
        Ok(state.insert(poll))
    }

    /// Takes a poll back; `None` if it has left the table already.
    pub fn take(&self, ticket: Ticket) -> Option<Poll<P>> {
        self.state.lock().remove(ticket)
    }

    /// Takes out the polls that one of these arrivals answers.
    pub fn wake(&self, arrivals: &[Arrival]) -> Vec<Poll<P>> {
        let mut state = self.state.lock();
        if state.polls.is_empty() {
            return Vec::new();
        }
        let mut woken: Vec<Ticket> = Vec::new();
        for arrival in arrivals {
            let Some(tickets) =
                state.queues.get(&arrival.topic).and_then(|queues| queues.get(&arrival.queue))
            else {
                continue;
            };
            woken.extend(tickets.iter().filter(|ticket| state.answers(arrival, **ticket)));
        }
        // A poll may be named by several arrivals; only its first removal yields it.
        woken.into_iter().filter_map(|ticket| state.remove(ticket)).collect()
    }

    /// Takes out the polls whose deadline has passed at `now`.
    pub fn expire(&self, now: Instant) -> Vec<Poll<P>> {
        let mut state = self.state.lock();
        let mut expired = Vec::new();
        while let Some((deadline, ticket)) = state.deadlines.first().copied()
            && deadline <= now
        {
            expired.extend(state.remove(ticket));
        }
        expired
    }

    /// Takes out the polls of a connection that has closed.
    pub fn close(&self, connection: u64) -> Vec<Poll<P>> {
        let mut state = self.state.lock();
        let range = (connection, Ticket(0))..=(connection, Ticket(u64::MAX));
        let tickets: Vec<Ticket> = state.connections.range(range).map(|(_, ticket)| *ticket).collect();
        tickets.into_iter().filter_map(|ticket| state.remove(ticket)).collect()
    }

    /// Takes out every poll: at shutdown, or when the node's role changed and answers may differ.
    pub fn drain(&self) -> Vec<Poll<P>> {
        let mut state = self.state.lock();
        let tickets: Vec<Ticket> = state.polls.keys().copied().collect();
        tickets.into_iter().filter_map(|ticket| state.remove(ticket)).collect()
    }

    /// How many polls are parked.
    pub fn len(&self) -> usize {
        self.state.lock().polls.len()
    }

    /// Whether none is parked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<P> State<P> {
    fn insert(&mut self, poll: Poll<P>) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.queues.entry(poll.topic.clone()).or_default().entry(poll.queue).or_default().insert(ticket);
        self.deadlines.insert((poll.deadline, ticket));
        self.connections.insert((poll.connection, ticket));
        self.polls.insert(ticket, poll);
        ticket
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Poll<P>> {
        let poll = self.polls.remove(&ticket)?;
        self.deadlines.remove(&(poll.deadline, ticket));
        self.connections.remove(&(poll.connection, ticket));
        if let Some(queues) = self.queues.get_mut(&poll.topic) {
            if let Some(tickets) = queues.get_mut(&poll.queue) {
                tickets.remove(&ticket);
                if tickets.is_empty() {
                    queues.remove(&poll.queue);
                }
            }
            if queues.is_empty() {
                self.queues.remove(&poll.topic);
            }
        }
        Some(poll)
    }

    fn answers(&self, arrival: &Arrival, ticket: Ticket) -> bool {
        self.polls
            .get(&ticket)
            .is_some_and(|poll| arrival.offset >= poll.offset && poll.filter.matches(arrival.tags_code))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use folio_protocol::java::tags_code;

    use super::*;

    fn poll(
        queue: u32,
        offset: u64,
        connection: u64,
        now: Instant,
        payload: &'static str,
    ) -> Poll<&'static str> {
        Poll {
            topic: "orders".into(),
            queue,
            offset,
            filter: TagFilter::All,
            deadline: now + Duration::from_secs(15),
            connection,
            payload,
        }
    }

    fn arrival(queue: u32, offset: u64, tags_code: i64) -> Arrival {
        Arrival { topic: "orders".into(), queue, offset, tags_code }
    }

    fn payloads(mut polls: Vec<Poll<&'static str>>) -> Vec<&'static str> {
        polls.sort_by_key(|poll| poll.payload);
        polls.into_iter().map(|poll| poll.payload).collect()
    }

    #[test]
    fn an_arrival_wakes_the_polls_of_its_queue_once() {
        let (table, now) = (PollTable::new(10), Instant::now());
        table.park(poll(0, 7, 1, now, "a")).ok().expect("room");
        table.park(poll(0, 7, 2, now, "b")).ok().expect("room");
        table.park(poll(1, 7, 2, now, "other queue")).ok().expect("room");
        assert_eq!(payloads(table.wake(&[arrival(0, 7, 0), arrival(0, 8, 0)])), ["a", "b"]);
        assert!(table.wake(&[arrival(0, 9, 0)]).is_empty());
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn an_arrival_below_the_offset_or_with_another_tag_wakes_nobody() {
        let (table, now) = (PollTable::new(10), Instant::now());
        table.park(poll(0, 7, 1, now, "later")).ok().expect("room");
        let tagged =
            Poll { filter: TagFilter::parse("TagA").expect("a tag"), ..poll(0, 3, 1, now, "tagged") };
        table.park(tagged).ok().expect("room");
        assert!(table.wake(&[arrival(0, 6, tags_code("TagB"))]).is_empty());
        assert_eq!(payloads(table.wake(&[arrival(0, 6, tags_code("TagA"))])), ["tagged"]);
    }

    #[test]
    fn polls_expire_in_the_order_of_their_deadlines() {
        let (table, now) = (PollTable::new(10), Instant::now());
        table
            .park(Poll { deadline: now + Duration::from_secs(2), ..poll(0, 0, 1, now, "late") })
            .ok()
            .expect("room");
        table
            .park(Poll { deadline: now + Duration::from_secs(1), ..poll(0, 0, 1, now, "soon") })
            .ok()
            .expect("room");
        assert!(table.expire(now).is_empty());
        assert_eq!(payloads(table.expire(now + Duration::from_secs(1))), ["soon"]);
        assert_eq!(payloads(table.expire(now + Duration::from_secs(9))), ["late"]);
        assert!(table.is_empty());
    }

    #[test]
    fn a_full_table_gives_the_poll_back() {
        let (table, now) = (PollTable::new(1), Instant::now());
        let ticket = table.park(poll(0, 0, 1, now, "first")).ok().expect("room");
        let refused = table.park(poll(0, 0, 1, now, "second"));
        assert_eq!(refused.err().map(|poll| poll.payload), Some("second"));
        assert_eq!(table.take(ticket).map(|poll| poll.payload), Some("first"));
        assert!(table.take(ticket).is_none(), "a poll leaves once");
        assert!(table.park(poll(0, 0, 1, now, "second")).is_ok());
    }

    #[test]
    fn a_closed_connection_takes_its_polls_along() {
        let (table, now) = (PollTable::new(10), Instant::now());
        table.park(poll(0, 0, 1, now, "gone")).ok().expect("room");
        table.park(poll(1, 0, 1, now, "gone too")).ok().expect("room");
        table.park(poll(0, 0, 2, now, "stays")).ok().expect("room");
        assert_eq!(payloads(table.close(1)), ["gone", "gone too"]);
        assert_eq!(payloads(table.drain()), ["stays"]);
        let state = table.state.lock();
        assert!(state.queues.is_empty() && state.deadlines.is_empty() && state.connections.is_empty());
    }
}
