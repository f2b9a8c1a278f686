//! A broker in memory, as small as the workload needs, with a flaw to choose.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;
use folio_jepsen::client::request;
use folio_protocol::frame::{FLAG_ONEWAY, FLAG_RESPONSE, Frame};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The promise this broker breaks, at every [`EVERY`]th send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// None.
    None,
    /// Acknowledges without storing.
    ForgetsAcknowledged,
    /// Stores two copies.
    StoresTwice,
    /// Acknowledges another offset than it stored at.
    TellsWrongOffset,
    /// Says SYSTEM_BUSY and stores.
    StoresRefused,
    /// Stores a body with one byte changed.
    ChangesByte,
    /// Leaves an offset out.
    SkipsOffset,
    /// Stores and closes the connection without an answer: a crash, no flaw at all.
    ClosesConnections,
    /// The same, where clients send again.
    ForgetsKeys,
    /// Tells a reader to go on one message too far.
    LeadsOnTooFar,
    /// Tells a reader to go on one message too early.
    LeadsBack,
    /// Answers a send under a key it knows with the first one's place, always.
    AnswersByKey,
    /// Serves a deleted topic's messages again, always.
    KeepsDeleted,
}

const EVERY: u64 = 50;
const SYSTEM_BUSY: i32 = 2;
const PULL_NOT_FOUND: i32 = 19;

/// The group of the reader that looks at the end what is stored: no pull of its is led astray, or a flaw of
/// the pulls would look like one of the log.
pub(crate) const LAST_READER: &str = "checker";

/// A running broker, which is its own NameServer.
pub(crate) struct Broker {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    sends: u64,
    pulls: u64,
    position: u64,
    queues: HashMap<(String, u32), Queue>,
    answers: HashMap<String, Frame>,
}

#[derive(Default)]
struct Queue {
    min: u64,
    next: u64,
    messages: Vec<(u64, Vec<u8>)>,
}

impl Broker {
    /// Listens on a free port.
    pub(crate) async fn start(flaw: Flaw) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let (own, shared) = (address.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared), flaw, own.clone()));
            }
        });
        Self { address, state }
    }

    /// Whether the flaw had its turns, whichever kind of request it is in.
    pub(crate) fn has_shown_itself(&self) -> bool {
        let state = self.state.lock();
        state.sends.min(state.pulls) >= 2 * EVERY
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>, flaw: Flaw, own: String) {
    let mut bytes = BytesMut::new();
    while stream.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
        let mut out = BytesMut::new();
        while let Some(frame) = Frame::decode(&mut bytes).unwrap() {
            let Some(mut answer) = state.lock().answer(&frame, flaw, &own) else { return };
            if frame.flag & FLAG_ONEWAY != 0 {
                continue;
            }
            answer.opaque = frame.opaque;
            answer.flag = FLAG_RESPONSE;
            answer.encode(&mut out).unwrap();
        }
        stream.write_all(&out).await.unwrap();
    }
}

impl State {
    fn answer(&mut self, frame: &Frame, flaw: Flaw, own: &str) -> Option<Frame> {
        match frame.code {
            105 => {
                let body = serde_json::json!({"brokerDatas": [{"brokerAddrs": {"0": own}}]});
                Some(request(0, []).with_body(body.to_string().into_bytes()))
            }
            310 => self.send(frame, flaw),
            215 => {
                self.delete(frame.ext.get("topic").unwrap(), 0, flaw);
                Some(request(0, []))
            }
            17 => {
                let queues = frame.ext.get("readQueueNums").unwrap().parse().unwrap();
                self.delete(frame.ext.get("topic").unwrap(), queues, flaw);
                Some(request(0, []))
            }
            11 => Some(self.pull(frame, flaw)),
            _ => Some(request(0, [])),
        }
    }

    /// Deletes a topic's queues from one on.
    fn delete(&mut self, topic: &str, from: u32, flaw: Flaw) {
        let queues = self.queues.iter_mut().filter(|((name, queue), _)| name == topic && *queue >= from);
        for (_, queue) in queues.filter(|_| flaw != Flaw::KeepsDeleted) {
            queue.min = queue.next;
            queue.messages.clear();
        }
    }

    fn send(&mut self, frame: &Frame, flaw: Flaw) -> Option<Frame> {
        let key = frame.ext.get("i").unwrap().to_owned();
        if let Some(answer) = self.answers.get(&key).filter(|_| flaw == Flaw::AnswersByKey) {
            return Some(answer.clone());
        }
        let answer = self.store(frame, flaw);
        self.answers.extend(answer.clone().map(|answer| (key, answer)));
        answer
    }

    fn store(&mut self, frame: &Frame, flaw: Flaw) -> Option<Frame> {
        self.sends += 1;
        let flaw = if self.sends.is_multiple_of(EVERY) { flaw } else { Flaw::None };
        let topic = frame.ext.get("b").unwrap().to_owned();
        let queue: u32 = frame.ext.get("e").unwrap().parse().unwrap();
        let mut body = frame.body.to_vec();
        if flaw == Flaw::ChangesByte {
            *body.last_mut().unwrap() ^= 1;
        }
        let copies = match flaw {
            Flaw::ForgetsAcknowledged => 0,
            Flaw::StoresTwice => 2,
            _ => 1,
        };
        let state = self.queues.entry((topic.clone(), queue)).or_default();
        if flaw == Flaw::SkipsOffset {
            state.next += 1;
        }
        let (offset, position) = (state.next, self.position);
        for _ in 0..copies {
            let message = encode(&topic, queue, state.next, self.position, &body);
            self.position += message.len() as u64;
            state.messages.push((state.next, message));
            state.next += 1;
        }
        match flaw {
            Flaw::ClosesConnections | Flaw::ForgetsKeys => None,
            Flaw::StoresRefused => Some(request(SYSTEM_BUSY, [])),
            _ => {
                let told = if flaw == Flaw::TellsWrongOffset { offset.saturating_sub(1) } else { offset };
                let (told, id) = (told.to_string(), format!("7F00000100002A9F{position:016X}"));
                Some(request(0, [("queueOffset", told.as_str()), ("msgId", id.as_str())]))
            }
        }
    }

    fn pull(&mut self, frame: &Frame, flaw: Flaw) -> Frame {
        let live = frame.ext.get("consumerGroup").unwrap() != LAST_READER;
        self.pulls += u64::from(live);
        let flaw = if live && self.pulls.is_multiple_of(EVERY) { flaw } else { Flaw::None };
        let number = |key| frame.ext.get(key).unwrap().parse::<u64>().unwrap();
        let place = (frame.ext.get("topic").unwrap().to_owned(), number("queueId") as u32);
        let from = number("queueOffset");
        let empty = Queue::default();
        let queue = self.queues.get(&place).unwrap_or(&empty);
        let found: Vec<_> = queue.messages.iter().filter(|(offset, _)| *offset >= from).take(32).collect();
        let next = found.last().map_or(from.max(queue.min), |(offset, _)| offset + 1);
        let next = match flaw {
            Flaw::LeadsOnTooFar => next + 1,
            Flaw::LeadsBack => next.saturating_sub(1),
            _ => next,
        };
        let next = next.to_string();
        let (min, max) = (queue.min.to_string(), queue.next.to_string());
        let code = if found.is_empty() { PULL_NOT_FOUND } else { 0 };
        let body: Vec<u8> = found.iter().flat_map(|(_, message)| message.iter().copied()).collect();
        request(
            code,
            [("nextBeginOffset", next.as_str()), ("minOffset", min.as_str()), ("maxOffset", max.as_str())],
        )
        .with_body(body)
    }
}

fn encode(topic: &str, queue: u32, offset: u64, position: u64, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 4];
    frame.extend(0xDAA3_20A7_u32.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(queue.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(offset.to_be_bytes());
    frame.extend(position.to_be_bytes());
    frame.extend([0; 4 + 8 + 8 + 8 + 8 + 4 + 8]);
    frame.extend((body.len() as u32).to_be_bytes());
    frame.extend(body);
    frame.push(topic.len() as u8);
    frame.extend(topic.as_bytes());
    frame.extend([0, 0]);
    let total = frame.len() as u32;
    frame[..4].copy_from_slice(&total.to_be_bytes());
    frame
}
