//! The load of PULLs: every queue has one pull in flight, the queues are spread over the connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use folio_protocol::code::RequestCode;
use folio_protocol::frame::{Frame, Serialization};
use folio_protocol::header::{GetMaxOffsetHeader, GetMinOffsetHeader, Header, OffsetResponseHeader};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::clock::now_us;
use super::lateness::arrivals::Arrivals;
use super::options::Begin;
use super::queue_reader::{Outcome, Question, QueueReader};
use super::shared::{LOST, Shared, TIMEOUT};
use super::target::Target;
use super::wire::Wire;
use crate::client::Client;

const PATIENCE: Duration = Duration::from_secs(3);
/// Longer than a server holds a pull that waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// After an error, so that a refusing server is not flooded.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
const TICK: Duration = Duration::from_millis(50);

/// What is read, and how.
pub(super) struct Reading<'a> {
    pub(super) topic: &'a str,
    pub(super) group: &'a str,
    /// Messages asked for with each pull.
    pub(super) batch: usize,
    pub(super) from: Begin,
    /// Whether more messages are waited for at the end.
    pub(super) follow: bool,
    /// Over all brokers.
    pub(super) connections: usize,
    pub(super) serialization: Serialization,
}

/// Messages that are looked at, beside being counted.
pub(super) type Watch = Option<Arc<Mutex<Arrivals>>>;

/// One connection and its queues, all of one broker.
pub(super) struct Puller {
    broker: String,
    question: Question,
    queues: Vec<QueueReader>,
}

/// Asks where each queue begins or ends, and spreads the queues over the connections.
pub(super) async fn queues(targets: &[Target], reading: &Reading<'_>) -> Result<Vec<Puller>> {
    let question = Question {
        topic: reading.topic.into(),
        group: reading.group.into(),
        batch: reading.batch.try_into()?,
        follow: reading.follow,
        serialization: reading.serialization,
    };
    let each = reading.connections.div_ceil(targets.len());
    let mut pullers = Vec::new();
    for target in targets {
        let mut client = Client::connect(&target.address).await?;
        let mut shares: Vec<Vec<QueueReader>> = (0..each).map(|_| Vec::new()).collect();
        for queue in 0..target.queues {
            let offset = begin(&mut client, &question, queue, reading.from).await?;
            shares[queue as usize % each].push(QueueReader::new(queue, offset));
        }
        let filled = shares.into_iter().filter(|queues| !queues.is_empty());
        let (broker, question) = (&target.broker, &question);
        pullers.extend(filled.map(|queues| Puller {
            broker: broker.clone(),
            question: question.clone(),
            queues,
        }));
    }
    Ok(pullers)
}

async fn begin(client: &mut Client, question: &Question, queue: u32, from: Begin) -> Result<i64> {
    let (topic, queue_id) = (question.topic.clone(), queue.cast_signed());
    let frame = match from {
        Begin::Min => {
            Frame::request(RequestCode::GetMinOffset, &GetMinOffsetHeader { topic, queue_id }, Bytes::new())
        }
        Begin::End => {
            let header = GetMaxOffsetHeader { topic, queue_id, committed: true };
            Frame::request(RequestCode::GetMaxOffset, &header, Bytes::new())
        }
    };
    let answer = client.ask(frame, PATIENCE).await?;
    Ok(OffsetResponseHeader::from_ext(&answer.ext)?.offset)
}

impl Puller {
    /// How many queues it reads.
    pub(super) fn queues(&self) -> usize {
        self.queues.len()
    }

    /// Pulls until the time is up or all queues are read: how many pulls have no answer then.
    pub(super) async fn run(mut self, shared: Arc<Shared>, watch: Watch) -> usize {
        while Instant::now() < shared.end() {
            let targets = shared.targets();
            if let Some(target) = targets.iter().find(|target| target.broker == self.broker) {
                match self.session(&shared, target, &watch).await {
                    Ok(true) => break,
                    Ok(false) => self.fail(&shared, LOST, None),
                    Err(error) => self.fail(&shared, LOST, Some(format!("{error:#}"))),
                }
            }
            shared.refresh();
            sleep(RECONNECT_PAUSE).await;
        }
        self.in_flight()
    }

    fn in_flight(&self) -> usize {
        self.queues.iter().filter(|queue| queue.asked.is_some()).count()
    }

    /// What was in flight is asked again on the next connection.
    fn fail(&mut self, shared: &Shared, name: &str, remark: Option<String>) {
        let mut tally = shared.tally.lock();
        tally.failed(Instant::now(), name, self.in_flight());
        if let Some(remark) = remark {
            tally.note(name, remark);
        }
        for queue in &mut self.queues {
            queue.asked = None;
        }
    }

    /// Whether it is over; otherwise the leader moved.
    async fn session(&mut self, shared: &Shared, target: &Target, watch: &Watch) -> Result<bool> {
        let mut wire = Wire::connect(&target.address).await?;
        loop {
            let now = Instant::now();
            if now >= shared.end() || self.queues.iter().all(|queue| queue.done) {
                return Ok(true);
            }
            if !shared.targets().contains(target) {
                return Ok(false);
            }
            self.ask(&mut wire, now)?;
            wire.write()?;
            wire.wait(shared.end().min(now + TICK)).await?;
            wire.read()?;
            self.take_answers(shared, &mut wire, watch)?;
            let silent = |queue: &QueueReader| queue.asked.is_some_and(|asked| now >= asked + ANSWER_TIMEOUT);
            if self.queues.iter().any(silent) {
                self.fail(
                    shared,
                    TIMEOUT,
                    Some(format!("{} did not answer a pull within {ANSWER_TIMEOUT:?}", target.address)),
                );
                return Ok(false);
            }
        }
    }

    fn ask(&mut self, wire: &mut Wire, now: Instant) -> Result<()> {
        for (opaque, queue) in (0..).zip(&mut self.queues) {
            if queue.is_ready(now) {
                queue.request(&self.question, opaque).encode(&mut wire.outbox)?;
                (queue.asked, queue.pause_until) = (Some(now), None);
            }
        }
        Ok(())
    }

    fn take_answers(&mut self, shared: &Shared, wire: &mut Wire, watch: &Watch) -> Result<()> {
        let now = Instant::now();
        let mut tally = shared.tally.lock();
        while let Some(answer) = Frame::decode(&mut wire.inbox)? {
            let queue = usize::try_from(answer.opaque).ok().and_then(|index| self.queues.get_mut(index));
            let Some((queue, asked)) = queue.and_then(|queue| queue.asked.map(|asked| (queue, asked))) else {
                continue;
            };
            match queue.answered(&answer, self.question.follow) {
                Outcome::Found { messages, bytes } => {
                    tally.acked(now, asked, messages, bytes);
                    if let Some(arrivals) = watch {
                        arrivals.lock().take(&answer.body, now_us());
                    }
                }
                Outcome::Nothing => {}
                Outcome::Refused => {
                    tally.refused(now, answer.code, || answer.remark);
                    queue.pause_until = Some(now + REFUSED_PAUSE);
                    shared.refresh();
                }
            }
        }
        Ok(())
    }
}
