//! `folio bench send`: one task a connection, a window of requests outstanding on each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::report::{Counts, Report};
use super::request::{Template, next_answer};
use super::route::{self, Route};
use super::{Bench, Clock, watch};

/// Room made before each read.
const READ_BYTES: usize = 256 << 10;
/// Pause before a broken connection is made again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How long answers are awaited after the end.
const DRAIN: Duration = Duration::from_secs(5);

pub(super) async fn run(bench: Bench) -> Result<Report> {
    let route = route::find_or_create(&bench.namesrv, &bench.topic).await?;
    let durability = route::durability(&route.leader).await;
    let (clock, done) = (bench.clock(), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for number in 0..bench.connections {
        let window = bench.outstanding / bench.connections
            + usize::from(number < bench.outstanding % bench.connections);
        let sender = Sender {
            template: Template::new(&bench.topic, &route.broker, bench.size, number),
            bench: bench.clone(),
            clock,
            done: done.clone(),
            counts: Counts::new(),
            started: vec![Instant::now(); window],
            free: (0..window as u32).collect(),
            next_queue: number as u32,
        };
        tasks.push(tokio::spawn(sender.run(route.clone())));
    }
    watch(clock, done).await;
    let mut all = Counts::new();
    for task in tasks {
        all.add(&task.await?);
    }
    Ok(Report::new("send", &bench, &all, durability))
}

struct Sender {
    template: Template,
    bench: Bench,
    clock: Clock,
    done: Arc<AtomicU64>,
    counts: Counts,
    /// When the request in each slot was sent; a slot's number is its request's number on the wire.
    started: Vec<Instant>,
    free: Vec<u32>,
    next_queue: u32,
}

impl Sender {
    async fn run(mut self, mut route: Route) -> Counts {
        while !self.clock.is_over() {
            // Whatever broke it, the requests under way have an unknown outcome and the route may be old.
            if self.over_one_connection(&route).await.is_err() {
                self.counts.broken((self.started.len() - self.free.len()) as u64);
                tokio::time::sleep(RECONNECT_PAUSE).await;
                if let Ok(Some(new)) = route::find(&self.bench.namesrv, &self.bench.topic).await {
                    route = new;
                }
            }
            self.free = (0..self.started.len() as u32).collect();
        }
        self.counts
    }

    async fn over_one_connection(&mut self, route: &Route) -> std::io::Result<()> {
        let mut socket = TcpStream::connect(&route.leader).await?;
        socket.set_nodelay(true)?;
        let (mut out, mut input) = (BytesMut::new(), BytesMut::new());
        loop {
            let now = Instant::now();
            if now < self.clock.end {
                self.fill(route, now, &mut out);
                socket.write_all_buf(&mut out).await?;
            } else if self.free.len() == self.started.len() || now > self.clock.end + DRAIN {
                return Ok(());
            }
            input.reserve(READ_BYTES);
            let read = tokio::time::timeout(DRAIN, socket.read_buf(&mut input)).await;
            if read.map_err(|_| std::io::ErrorKind::TimedOut)?? == 0 {
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            self.take(&mut input)?;
        }
    }

    fn fill(&mut self, route: &Route, now: Instant, out: &mut BytesMut) {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        while let Some(slot) = self.free.pop() {
            self.started[slot as usize] = now;
            self.next_queue = (self.next_queue + 1) % route.write_queues.max(1);
            self.template.encode(slot, self.next_queue, now_ms, out);
        }
    }

    fn take(&mut self, input: &mut BytesMut) -> std::io::Result<()> {
        let now = Instant::now();
        let mut acked = 0;
        while let Some(answer) = next_answer(input).map_err(std::io::Error::other)? {
            let Some(started) = self.started.get(answer.opaque as usize).copied() else { continue };
            self.free.push(answer.opaque);
            if answer.code == 0 {
                acked += 1;
                if self.clock.measures(now) {
                    self.counts.ack(1, self.bench.size as u64, now.duration_since(started), now);
                }
            } else if self.clock.measures(now) {
                self.counts.error(answer.code);
            }
        }
        self.done.fetch_add(acked, Ordering::Relaxed);
        Ok(())
    }
}
