//! What a driver has proposed and of which it does not know yet what became of it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

use super::term_fence::SettledTerm;
use crate::proposal::ProposeError;

/// Moves under way of one driver.
pub(super) const MOVES_MAX: usize = 8192;
/// Requests that may wait for the outcome of one move.
const WAITERS_MAX: usize = 64;

/// The answer to whoever wants a move: it is made, or was made before.
pub type Reply = Box<dyn FnOnce(Result<(), ProposeError>) + Send>;

/// One move under way.
struct UnderWay {
    since: Instant,
    waiters: Vec<Reply>,
    /// What whoever asks now is told: this node will not learn in this term what became of it.
    unknown: Option<ProposeError>,
}

/// A move under way, shared by the view and by what will tell the outcome.
#[derive(Clone)]
pub(super) struct Ticket(Arc<Mutex<UnderWay>>);

impl Ticket {
    fn new(reply: Reply) -> Ticket {
        let under_way = UnderWay { since: Instant::now(), waiters: vec![reply], unknown: None };
        Ticket(Arc::new(Mutex::new(under_way)))
    }

    fn is(&self, other: &Ticket) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn take_waiters(&self) -> Vec<Reply> {
        std::mem::take(&mut self.0.lock().waiters)
    }
}

/// What became of a proposal.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// It is applied here.
    Applied,
    /// It did not enter the log, and never will.
    Not(ProposeError),
    /// The log took it; what became of it this node cannot tell in this term.
    Unknown(ProposeError),
}

impl Outcome {
    fn answer(&self) -> Result<(), ProposeError> {
        match self {
            Outcome::Applied => Ok(()),
            Outcome::Not(error) | Outcome::Unknown(error) => Err(error.clone()),
        }
    }
}

/// The view of one driver: moves by their keys (`driver.I2`).
pub(super) struct InFlight<K> {
    term: Option<SettledTerm>,
    moves: HashMap<K, Ticket>,
}

impl<K> Default for InFlight<K> {
    fn default() -> InFlight<K> {
        InFlight { term: None, moves: HashMap::new() }
    }
}

impl<K: Eq + Hash + Clone> InFlight<K> {
    /// What is under way of another term is in the applied state, or in no log, once a later one has settled.
    pub(super) fn begin_term(&mut self, term: SettledTerm) {
        if self.term != Some(term) {
            self.moves.clear();
            self.term = Some(term);
        }
    }

    /// Lets a request wait for the outcome of the move with this key; gives it back if none is under way.
    pub(super) fn join(&mut self, key: &K, reply: Reply) -> Result<(), Reply> {
        let Some(ticket) = self.moves.get(key) else { return Err(reply) };
        let mut under_way = ticket.0.lock();
        let refused = match &under_way.unknown {
            Some(unknown) => unknown.clone(),
            None if under_way.waiters.len() >= WAITERS_MAX => ProposeError::Busy,
            None => {
                under_way.waiters.push(reply);
                return Ok(());
            }
        };
        drop(under_way);
        reply(Err(refused));
        Ok(())
    }

    /// Whether as many moves are under way as may be.
    pub(super) fn is_full(&self) -> bool {
        self.moves.len() >= MOVES_MAX
    }

    /// A move is about to be proposed.
    pub(super) fn begin(&mut self, key: K, reply: Reply) -> Ticket {
        let ticket = Ticket::new(reply);
        self.moves.insert(key, ticket.clone());
        ticket
    }

    /// The outcome of a move: returns who waits for it. One of which nothing is known stays, until the term is over.
    fn end(&mut self, key: &K, ticket: &Ticket, outcome: &Outcome) -> Vec<Reply> {
        if let Outcome::Unknown(error) = outcome {
            ticket.0.lock().unknown = Some(error.clone());
        } else if self.moves.get(key).is_some_and(|known| known.is(ticket)) {
            self.moves.remove(key);
        }
        ticket.take_waiters()
    }

    /// Who has waited for so long; the moves stay under way.
    pub(super) fn take_overdue(&self, patience: Duration) -> Vec<Reply> {
        let late = self.moves.values().filter(|ticket| ticket.0.lock().since.elapsed() >= patience);
        late.flat_map(Ticket::take_waiters).collect()
    }
}

/// Tells the outcome of moves, once their effect is visible here, to all who wait.
pub(super) fn end_all<K: Eq + Hash + Clone>(
    in_flight: &Mutex<InFlight<K>>,
    moves: &[(K, Ticket)],
    outcome: &Outcome,
) {
    for (key, ticket) in moves {
        let waiters = in_flight.lock().end(key, ticket, outcome);
        waiters.into_iter().for_each(|reply| reply(outcome.answer()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answer = (u32, Result<(), ProposeError>);

    /// Answers in the order in which they are given.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<Answer>>>);

    impl Told {
        fn reply(&self, who: u32) -> Reply {
            let told = self.0.clone();
            Box::new(move |answer| told.lock().push((who, answer)))
        }

        fn take(&self) -> Vec<Answer> {
            std::mem::take(&mut *self.0.lock())
        }
    }

    fn view(term: u64) -> Mutex<InFlight<u8>> {
        let mut view = InFlight::default();
        view.begin_term(SettledTerm::of_test(term));
        Mutex::new(view)
    }

    fn unknown() -> ProposeError {
        ProposeError::Unknown("?".into())
    }

    #[tokio::test]
    async fn driver_i2_a_second_request_waits_and_shares_the_outcome() {
        let (view, told) = (view(1), Told::default());
        assert!(view.lock().join(&7, told.reply(0)).is_err());
        let ticket = view.lock().begin(7, told.reply(1));
        assert!(view.lock().join(&7, told.reply(2)).is_ok());
        assert_eq!(told.take(), []);
        end_all(&view, &[(7, ticket)], &Outcome::Applied);
        assert_eq!(told.take(), [(1, Ok(())), (2, Ok(()))]);
        assert!(view.lock().join(&7, told.reply(3)).is_err(), "it is in the applied state now");
    }

    #[tokio::test]
    async fn driver_i2_what_may_be_in_a_log_stays_until_the_term_is_over() {
        let (view, told) = (view(1), Told::default());
        let taken = view.lock().begin(7, told.reply(1));
        let refused = view.lock().begin(8, told.reply(2));
        end_all(&view, &[(7, taken)], &Outcome::Unknown(unknown()));
        end_all(&view, &[(8, refused)], &Outcome::Not(ProposeError::Busy));
        assert_eq!(told.take(), [(1, Err(unknown())), (2, Err(ProposeError::Busy))]);
        assert!(view.lock().join(&7, told.reply(3)).is_ok() && view.lock().join(&8, told.reply(4)).is_err());
        assert_eq!(told.take(), [(3, Err(unknown()))]);
        view.lock().begin_term(SettledTerm::of_test(1));
        assert!(view.lock().join(&7, told.reply(5)).is_ok());
        view.lock().begin_term(SettledTerm::of_test(2));
        assert!(view.lock().join(&7, told.reply(6)).is_err());
    }

    /// The responder of an earlier term comes late.
    #[tokio::test]
    async fn driver_i2_an_outcome_of_an_earlier_term_ends_no_later_move() {
        let (view, told) = (view(1), Told::default());
        let early = view.lock().begin(7, told.reply(1));
        view.lock().begin_term(SettledTerm::of_test(2));
        let late = view.lock().begin(7, told.reply(2));
        end_all(&view, &[(7, early)], &Outcome::Not(unknown()));
        assert_eq!(told.take(), [(1, Err(unknown()))]);
        assert!(view.lock().join(&7, told.reply(3)).is_ok());
        end_all(&view, &[(7, late)], &Outcome::Applied);
        assert_eq!(told.take(), [(2, Ok(())), (3, Ok(()))]);
    }

    #[tokio::test]
    async fn driver_i3_who_waits_for_one_move_is_bounded() {
        let (view, told) = (view(1), Told::default());
        let ticket = view.lock().begin(7, told.reply(0));
        for who in 1..=WAITERS_MAX as u32 {
            assert!(view.lock().join(&7, told.reply(who)).is_ok());
        }
        assert_eq!(told.take(), [(WAITERS_MAX as u32, Err(ProposeError::Busy))]);
        view.lock().take_overdue(Duration::ZERO).into_iter().for_each(|reply| reply(Err(unknown())));
        assert_eq!(told.take().len(), WAITERS_MAX);
        end_all(&view, &[(7, ticket)], &Outcome::Applied);
        assert_eq!(told.take(), []);
    }
}
