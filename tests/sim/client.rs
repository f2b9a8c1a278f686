//! The clients of a run: they send messages and commands to whoever says it leads, and sometimes to whoever does not.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use folio_engine::disk::sim::SeededChoice;
use folio_protocol::message::NewMessage;
use folio_protocol::properties::{self, UNIQUE_KEY};
use folio_raft::group::Group;
use folio_raft::proposal::{self, Proposal, ProposeError, Receipt, Repeat};
use folio_raft::status::{Role, Status};
use folio_state::{
    Command, CommitOffsets, CreateTopic, DeleteGroup, DeleteTopic, OffsetCommit, PutTopic, Topic,
};
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::connections::{Attempt, Connections, Standing};
use crate::node::Node;

pub(crate) const TOPICS: [&str; 3] = ["a", "orders", "a-longer-name"];
pub(crate) const QUEUES: u32 = 3;

/// Proposals that may be sent again.
const REMEMBERED: usize = 20;
/// A client that gives a send up closes its connection, of ten times so often.
const CLOSES: u64 = 7;

/// Why something is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    New,
    /// Its client does not know what became of it: stored once.
    Retry,
    /// Its application wants it once more: this is such a copy, stored each time.
    Again(u64),
}

/// What was sent in one millisecond.
pub(crate) struct Sent {
    pub(crate) messages: Vec<u64>,
    pub(crate) why: Why,
}

impl Sent {
    fn nothing() -> Sent {
        Sent { messages: Vec::new(), why: Why::New }
    }
}

/// A proposal's messages and its answer.
pub(crate) struct Answer {
    pub(crate) messages: Vec<u64>,
    /// Which copy of them, 0 for the first.
    pub(crate) copy: u64,
    attempt: Option<Attempt>,
    /// The sends before it of the same messages.
    before: Vec<Attempt>,
    pub(crate) result: Result<Receipt, ProposeError>,
    /// The connection of one of those had gone: no node may be able to tell that its client knew.
    pub(crate) before_is_gone: bool,
}

/// What a client may send again.
#[derive(Clone)]
struct Object {
    numbers: Vec<u64>,
    messages: Vec<NewMessage>,
    attempts: Vec<Attempt>,
    /// Copies after the first.
    copies: u64,
}

/// All clients together.
pub(crate) struct Clients {
    random: SeededChoice,
    clock: Clock,
    connections: Connections,
    next: u64,
    answers: Arc<Mutex<Vec<Answer>>>,
    /// What RocketMQ's clients send again when they do not know what became of it, and applications when they please.
    lately: VecDeque<Object>,
    /// Whether they do: where nothing old is dropped, all of it is recognised.
    repeats: bool,
    /// Chance of a proposal in a millisecond, percent.
    pub(crate) rate: u64,
}

impl Clients {
    pub(crate) fn new(seed: u64, repeats: bool, clock: &Clock, connections: &Connections) -> Clients {
        let (answers, lately) = Default::default();
        let (clock, connections) = (clock.clone(), connections.clone());
        let random = SeededChoice::new(seed);
        Clients { random, clock, connections, next: 1, answers, lately, repeats, rate: 30 }
    }

    /// What was answered since the last call.
    pub(crate) fn answers(&self) -> Vec<Answer> {
        let mut answers = std::mem::take(&mut *self.answers.lock());
        for answer in &mut answers {
            let standing = match &answer.result {
                Ok(_) => Standing::Stored(self.clock.now()),
                Err(ProposeError::Unknown(_) | ProposeError::Stopped(_)) => Standing::Unknown,
                Err(_) => Standing::Refused,
            };
            answer.attempt.into_iter().for_each(|attempt| self.connections.told(attempt, standing));
            let gone = |before: Attempt| self.connections.leads_to(before.client).is_none();
            answer.before_is_gone = answer.before.iter().copied().any(gone);
        }
        answers
    }

    /// Sends something, or not. Returns the messages that were sent.
    pub(crate) fn step(&mut self, nodes: &BTreeMap<u64, Node>, seen: &BTreeMap<u64, Status>) -> Sent {
        if self.random.below(100) >= self.rate {
            return Sent::nothing();
        }
        let anyone = self.random.below(10) == 0;
        let able = seen.values().filter(|status| anyone || status.role == Role::Leader);
        let able: Vec<u64> = able.map(|status| status.node_id).collect();
        if able.is_empty() {
            return Sent::nothing();
        }
        let node = &nodes[&able[self.random.below(able.len() as u64) as usize]];
        if self.random.below(40) == 0 {
            self.command(node);
            return Sent::nothing();
        }
        let Some(group) = node.group() else { return Sent::nothing() };
        if self.repeats && self.random.below(10) == 0 && !self.lately.is_empty() {
            return self.repeat(node, &group);
        }
        self.send_new(node, &group)
    }

    fn send_new(&mut self, node: &Node, group: &Group) -> Sent {
        let (numbers, messages, once) = self.new_messages();
        let mut object = Object { numbers, messages, attempts: Vec::new(), copies: 0 };
        if once {
            let client = self.connections.open(node.id);
            self.send(node, group, &mut object, client);
        } else {
            let messages = object.messages.clone();
            self.propose(group, messages, Repeat::Store, &object, None);
        }
        let messages = object.numbers.clone();
        if once {
            self.lately.push_back(object);
            while self.lately.len() > REMEMBERED {
                self.lately.pop_front();
            }
        }
        Sent { messages, why: Why::New }
    }

    /// Sends something once more: on purpose if its client knows that it is stored, to find out if not.
    fn repeat(&mut self, node: &Node, group: &Group) -> Sent {
        let at = self.random.below(self.lately.len() as u64) as usize;
        let mut object = self.lately[at].clone();
        let Some(last) = object.attempts.last().copied() else { return Sent::nothing() };
        let why = if self.connections.is_settled(last, self.clock.now()) {
            object.copies += 1;
            Why::Again(object.copies)
        } else if object.copies == 0 {
            if self.random.below(10) < CLOSES || !self.connections.is_given_up(last, self.clock.now()) {
                self.connections.close(last.client);
            }
            Why::Retry
        } else {
            // No node can tell a copy's retry from another copy once the connection is gone.
            return Sent::nothing();
        };
        let stays = self.connections.leads_to(last.client) == Some(node.id) && self.random.below(2) == 0;
        let client = if stays { last.client } else { self.connections.open(node.id) };
        self.send(node, group, &mut object, client);
        let messages = object.numbers.clone();
        self.lately[at] = object;
        Sent { messages, why }
    }

    fn send(&mut self, node: &Node, group: &Group, object: &mut Object, client: SocketAddr) {
        let now = self.clock.now();
        let Some((attempt, doubts)) = self.connections.send(client, now) else { return };
        for message in &mut object.messages {
            message.born_host = client;
            message.born_timestamp = now as i64;
        }
        let arrived = node.now();
        let Attempt { number, .. } = attempt;
        // Older than any message: no port is used twice here.
        let connected = arrived.checked_sub(Duration::from_secs(3600)).unwrap_or(arrived);
        let repeat = Repeat::Send(proposal::Attempt { number, arrived, connected, doubts, here: true });
        self.propose(group, object.messages.clone(), repeat, object, Some(attempt));
        object.attempts.push(attempt);
    }

    fn propose(
        &self,
        group: &Group,
        messages: Vec<NewMessage>,
        repeat: Repeat,
        object: &Object,
        attempt: Option<Attempt>,
    ) {
        let (numbers, copy, before) = (object.numbers.clone(), object.copies, object.attempts.clone());
        let answer =
            move |result| Answer { messages: numbers, copy, attempt, before, result, before_is_gone: false };
        let answers = self.answers.clone();
        let reply = Box::new(move |result| answers.lock().push(answer(result)));
        if let Err((proposal, error)) = group.propose(Proposal { messages, repeat, reply }) {
            (proposal.reply)(Err(error));
        }
    }

    fn new_messages(&mut self) -> (Vec<u64>, Vec<NewMessage>, bool) {
        let count = 1 + self.random.below(3);
        let numbers: Vec<u64> = (self.next..self.next + count).collect();
        self.next += count;
        let once = self.random.below(2) == 0;
        let mut messages: Vec<NewMessage> =
            numbers.iter().map(|number| self.message(*number, once)).collect();
        if once {
            // A batch of RocketMQ goes to one queue, and is recognised there.
            let (topic, queue_id) = (messages[0].topic.clone(), messages[0].queue_id);
            for message in &mut messages {
                (message.topic, message.queue_id) = (topic.clone(), queue_id);
            }
        }
        (numbers, messages, once)
    }

    fn command(&mut self, node: &Node) {
        let Some(group) = node.group() else { return };
        let topic = TOPICS[self.random.below(3) as usize];
        let command = match self.random.below(5) {
            0 => Command::from(CreateTopic(Topic::new(topic, QUEUES))),
            1 => Command::from(DeleteTopic { name: topic.into() }),
            2 => {
                let (read_queues, write_queues) = (self.queues(), self.queues());
                Command::from(PutTopic(Topic { read_queues, write_queues, ..Topic::new(topic, QUEUES) }))
            }
            3 => Command::from(DeleteGroup { name: "g".into(), clean_offsets: self.random.below(2) == 0 }),
            _ => Command::from(CommitOffsets(vec![OffsetCommit {
                group: "g".into(),
                topic: topic.into(),
                queue: self.random.below(3) as u32,
                offset: self.random.below(1000),
            }])),
        };
        node.spawn(async move { drop(group.execute(command).await) });
    }

    fn queues(&mut self) -> u32 {
        1 + self.random.below(u64::from(QUEUES)) as u32
    }

    fn message(&mut self, number: u64, once: bool) -> NewMessage {
        let host: SocketAddr = ([10, 0, 0, 99], 1).into();
        let padding = match self.random.below(20) {
            0 => self.random.below(6000),
            _ => self.random.below(300),
        };
        let mut body = number.to_le_bytes().to_vec();
        body.resize(body.len() + padding as usize, number as u8);
        let mut keys = BytesMut::new();
        if once {
            properties::append(&mut keys, UNIQUE_KEY, &number.to_string());
        }
        NewMessage {
            topic: TOPICS[self.random.below(3) as usize].into(),
            queue_id: self.random.below(u64::from(QUEUES)) as u32,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: host,
            store_timestamp: 0,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: body.into(),
            properties: keys.freeze(),
        }
    }
}
