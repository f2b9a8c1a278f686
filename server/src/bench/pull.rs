//! `folio bench pull`: reads every queue of a topic, from its first message to its last and on.
//!
//! Each queue has one pull under way at a time, as a consumer's would; queues are spread over the connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::flags::pull_sys_flag;
use folio_protocol::frame::Frame;
use folio_protocol::header::{Header, PullMessageHeader, PullMessageResponseHeader};
use folio_protocol::message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::report::{Counts, Report};
use super::route::{self, Route};
use super::{Bench, Clock, watch};

/// Messages asked for at once: the most a RocketMQ server gives.
const BATCH: i32 = 160;
/// How long the server may hold a pull at the tail; short, so that the run ends on time.
const SUSPEND_MS: i64 = 500;
const READ_BYTES: usize = 1 << 20;
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn run(bench: Bench) -> Result<Report> {
    let Some(route) = route::find(&bench.namesrv, &bench.topic).await? else {
        bail!("topic {} does not exist at {}", bench.topic, bench.namesrv);
    };
    if route.read_queues == 0 {
        bail!("topic {} has no queue to read", bench.topic);
    }
    let durability = route::durability(&route.leader).await;
    let (clock, done) = (bench.clock(), Arc::new(AtomicU64::new(0)));
    let connections = bench.connections.min(route.read_queues as usize);
    let mut tasks = Vec::new();
    for number in 0..connections {
        let queues = (0..route.read_queues).filter(|queue| *queue as usize % connections == number);
        let puller = Puller {
            bench: bench.clone(),
            clock,
            done: done.clone(),
            counts: Counts::new(),
            next: queues.map(|queue| (queue, 0)).collect(),
            started: HashMap::new(),
        };
        tasks.push(tokio::spawn(puller.run(route.clone())));
    }
    watch(clock, done).await;
    let mut all = Counts::new();
    for task in tasks {
        all.add(&task.await?);
    }
    // What was there may be read long before the time is up; waiting at the tail is no reading.
    let duration = all.busy_since(clock.start).min(bench.duration);
    let bench = Bench { duration, connections, outstanding: route.read_queues as usize, ..bench };
    Ok(Report::new("pull", &bench, &all, durability))
}

struct Puller {
    bench: Bench,
    clock: Clock,
    done: Arc<AtomicU64>,
    counts: Counts,
    /// The offset to pull next, by queue.
    next: HashMap<u32, i64>,
    /// When the pull under way was sent, by queue, which is also its number on the wire.
    started: HashMap<u32, Instant>,
}

impl Puller {
    async fn run(mut self, mut route: Route) -> Counts {
        while !self.clock.is_over() {
            if self.over_one_connection(&route).await.is_err() {
                self.counts.broken(self.started.len() as u64);
                tokio::time::sleep(RECONNECT_PAUSE).await;
                if let Ok(Some(new)) = route::find(&self.bench.namesrv, &self.bench.topic).await {
                    route = new;
                }
            }
            self.started.clear();
        }
        self.counts
    }

    async fn over_one_connection(&mut self, route: &Route) -> Result<()> {
        let mut socket = TcpStream::connect(&route.leader).await?;
        socket.set_nodelay(true)?;
        let (mut out, mut input) = (BytesMut::new(), BytesMut::new());
        for (queue, offset) in self.next.clone() {
            self.ask(queue, offset, &mut out)?;
        }
        while !self.clock.is_over() {
            socket.write_all_buf(&mut out).await?;
            input.reserve(READ_BYTES);
            if socket.read_buf(&mut input).await? == 0 {
                bail!("{} closed the connection", route.leader);
            }
            while let Some(answer) = Frame::decode(&mut input)? {
                self.take(&answer, &mut out)?;
            }
        }
        Ok(())
    }

    fn ask(&mut self, queue: u32, offset: i64, out: &mut BytesMut) -> Result<()> {
        let header = PullMessageHeader {
            consumer_group: "folio_bench".into(),
            topic: self.bench.topic.as_str().into(),
            queue_id: queue as i32,
            queue_offset: offset,
            max_msg_nums: BATCH,
            sys_flag: pull_sys_flag::SUSPEND | pull_sys_flag::SUBSCRIPTION,
            commit_offset: 0,
            suspend_timeout_millis: SUSPEND_MS,
            subscription: Some("*".to_owned()),
            sub_version: 0,
            expression_type: Some("TAG".to_owned()),
            max_msg_bytes: Some(i32::MAX),
            request_source: None,
            proxy_forward_client_id: None,
        };
        let mut request = Frame::request(RequestCode::PullMessage, &header, Bytes::new());
        request.opaque = queue as i32;
        request.encode(out)?;
        self.started.insert(queue, Instant::now());
        Ok(())
    }

    fn take(&mut self, answer: &Frame, out: &mut BytesMut) -> Result<()> {
        let (queue, now) = (answer.opaque as u32, Instant::now());
        let Some(started) = self.started.remove(&queue) else { return Ok(()) };
        let ends =
            [ResponseCode::PullNotFound, ResponseCode::PullOffsetMoved, ResponseCode::PullRetryImmediately];
        if answer.code == ResponseCode::Success.code() {
            let messages = count(&answer.body)?;
            self.done.fetch_add(messages, Ordering::Relaxed);
            if self.clock.measures(now) {
                self.counts.ack(messages, answer.body.len() as u64, now.duration_since(started), now);
            }
        } else if ends.iter().all(|end| end.code() != answer.code) {
            self.counts.error(answer.code);
            bail!("a pull was refused: {}", answer.remark.clone().unwrap_or_default());
        }
        let header = PullMessageResponseHeader::from_ext(&answer.ext).context("the answer to a pull")?;
        self.next.insert(queue, header.next_begin_offset);
        self.ask(queue, header.next_begin_offset, out)
    }
}

/// Messages in a pull's body.
fn count(mut body: &[u8]) -> Result<u64> {
    let mut messages = 0;
    while !body.is_empty() {
        let route = message::peek(body)?;
        body = &body[route.total_size..];
        messages += 1;
    }
    Ok(messages)
}
