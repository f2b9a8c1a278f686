//! The connections of the clients, as the nodes that they lead to know them: who was answered, when, and on a connection
//! that lives. A server keeps this account in production; here it answers [`Hooks::knows`](folio_raft::group::Hooks).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use folio_raft::proposal::{Knows, PROMPT, Question};
use parking_lot::Mutex;

/// One send: which one of its connection's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) client: SocketAddr,
    pub(crate) number: u64,
}

/// How a send stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Waiting,
    /// Answered that it is stored, at that time.
    Stored(u64),
    /// Answered that it is not.
    Refused,
    /// Answered that nobody knows.
    Unknown,
}

struct Connection {
    node: u64,
    closed: bool,
    /// When each send came, and how it stands.
    sends: Vec<(u64, Standing)>,
}

/// All connections of a run; a clone is the same.
#[derive(Clone, Default)]
pub(crate) struct Connections(Arc<Mutex<BTreeMap<SocketAddr, Connection>>>);

impl Connections {
    /// A new connection to a node.
    pub(crate) fn open(&self, node: u64) -> SocketAddr {
        let mut all = self.0.lock();
        let client = SocketAddr::from(([10, 0, 0, 99], all.len() as u16 + 1));
        all.insert(client, Connection { node, closed: false, sends: Vec::new() });
        client
    }

    /// A send by an open connection, and whether an earlier one of it may have been given up.
    pub(crate) fn send(&self, client: SocketAddr, now: u64) -> Option<(Attempt, bool)> {
        let mut all = self.0.lock();
        let connection = all.get_mut(&client)?;
        let doubts = connection.sends.iter().any(|(sent, standing)| in_doubt(*sent, *standing, now));
        connection.sends.push((now, Standing::Waiting));
        Some((Attempt { client, number: connection.sends.len() as u64 - 1 }, doubts))
    }

    pub(crate) fn told(&self, attempt: Attempt, standing: Standing) {
        let mut all = self.0.lock();
        let Some(connection) = all.get_mut(&attempt.client) else { return };
        let (before, from) = connection.sends.split_at_mut(attempt.number as usize);
        let Some((sent, told)) = from.first_mut() else { return };
        *told = standing;
        if matches!(standing, Standing::Stored(answered) if !in_doubt(*sent, standing, answered)) {
            // Its client knows now that the message is stored, by whichever attempt.
            before
                .iter_mut()
                .filter(|(_, told)| *told != Standing::Waiting)
                .for_each(|(_, told)| *told = Standing::Refused);
        }
    }

    pub(crate) fn close(&self, client: SocketAddr) {
        self.0.lock().entry(client).and_modify(|connection| connection.closed = true);
    }

    /// The node's process ended, and with it all connections to it.
    pub(crate) fn died(&self, node: u64) {
        self.0.lock().values_mut().filter(|connection| connection.node == node).for_each(|c| c.closed = true);
    }

    /// The node that an open connection leads to.
    pub(crate) fn leads_to(&self, client: SocketAddr) -> Option<u64> {
        let all = self.0.lock();
        all.get(&client).filter(|connection| !connection.closed).map(|connection| connection.node)
    }

    /// Whether the client of a send certainly has its answer, or has not given it up.
    pub(crate) fn is_settled(&self, attempt: Attempt, now: u64) -> bool {
        let all = self.0.lock();
        let Some(connection) = all.get(&attempt.client).filter(|connection| !connection.closed) else {
            return false;
        };
        let (sent, standing) = connection.sends[attempt.number as usize];
        matches!(standing, Standing::Stored(_)) && !in_doubt(sent, standing, now)
    }

    /// Whether a client may give a send up: it heard that nobody knows, or it waits, or waited, for long.
    pub(crate) fn is_given_up(&self, attempt: Attempt, now: u64) -> bool {
        let all = self.0.lock();
        let send =
            all.get(&attempt.client).and_then(|connection| connection.sends.get(attempt.number as usize));
        send.is_some_and(|(sent, standing)| in_doubt(*sent, *standing, now) || *standing == Standing::Refused)
    }

    /// What a client knows of an earlier send; called by a node.
    pub(crate) fn knows(&self, question: &Question, now: u64) -> Knows {
        let all = self.0.lock();
        let is_gone = |client: &SocketAddr| all.get(client).is_none_or(|connection| connection.closed);
        if question.repeat.as_ref().is_some_and(is_gone) {
            return Knows::Doubtful;
        }
        if is_gone(&question.client) {
            return Knows::Gone;
        }
        let repeated = now.saturating_sub(question.repeated.elapsed().as_millis() as u64);
        let sends = &all[&question.client].sends;
        let asked = match question.number {
            Some(number) => &sends[number as usize..=number as usize],
            // Each of them may have stored the message: a connection sends one object only.
            None => &sends[..],
        };
        let doubtful = asked.iter().any(|(sent, standing)| in_doubt(*sent, *standing, repeated));
        if doubtful { Knows::Doubtful } else { Knows::Settled }
    }
}

/// Whether a client may have given up a send by then.
fn in_doubt(sent: u64, standing: Standing, at: u64) -> bool {
    let given_up = |by: u64| by.saturating_sub(sent) >= PROMPT.as_millis() as u64;
    match standing {
        Standing::Waiting => given_up(at),
        Standing::Stored(answered) => given_up(answered) && given_up(at),
        Standing::Refused => false,
        Standing::Unknown => true,
    }
}
