//! A closed loop of messages: a fixed number outstanding over a few connections, one thread each, only
//! acknowledged messages counted. The systems differ in a `Peer`; the loop, the clock and the figures
//! are the same for all.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;

use crate::peer::Peer;
use crate::{amqp, etcd, floor, nats};

/// Latencies are kept from 1 µs to 2 minutes, to three digits.
const LATENCY_US_MAX: u64 = 120_000_000;
const READ_BYTES: usize = 256 << 10;
/// How soon the end is noticed while nothing arrives.
const TICK: Duration = Duration::from_millis(100);
const OUTSTANDING_MAX: usize = 1 << 20;
const BODY_BYTES_MAX: usize = 1 << 20;

/// A latency histogram in µs.
pub(super) fn latencies() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?)
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum System {
    Floor,
    Nats,
    Rabbitmq,
    Etcd,
}

/// `peers load`.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    #[arg(value_enum)]
    system: System,
    /// Connections go to these in turn.
    #[arg(long, value_delimiter = ',', required = true)]
    addresses: Vec<String>,
    /// Messages outstanding, over all connections.
    #[arg(long, default_value_t = 64)]
    outstanding: usize,
    /// Connections at most.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How long to run before.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
}

impl Options {
    fn check(&self) -> Result<()> {
        let (outstanding, connections) = (self.outstanding, self.connections);
        ensure!(
            (1..=OUTSTANDING_MAX).contains(&outstanding),
            "--outstanding {outstanding}: expected 1 to {OUTSTANDING_MAX}"
        );
        ensure!((1..=1024).contains(&connections), "--connections {connections}: expected 1 to 1024");
        ensure!(
            (1..=BODY_BYTES_MAX).contains(&self.size),
            "--size {}: expected 1 to {BODY_BYTES_MAX}",
            self.size
        );
        let times = [self.seconds, self.warmup];
        ensure!(times.iter().all(|time| (0.0..1e6).contains(time)), "expected times in seconds: {times:?}");
        Ok(())
    }

    fn peer(&self, number: usize) -> Box<dyn Peer> {
        match self.system {
            System::Floor => Box::new(floor::client::Client),
            System::Nats => Box::new(nats::Nats::new(number)),
            System::Rabbitmq => Box::new(amqp::Amqp::default()),
            System::Etcd => Box::new(etcd::Etcd::new(number)),
        }
    }

    /// Where to send, after what must be there is made.
    fn prepare(&self) -> Result<Vec<String>> {
        match self.system {
            System::Nats => nats::make_stream(&self.addresses),
            System::Floor | System::Rabbitmq | System::Etcd => Ok(self.addresses.clone()),
        }
    }
}

pub(super) fn run(options: &Options) -> Result<()> {
    options.check()?;
    let addresses = options.prepare()?;
    let connections = options.connections.min(options.outstanding);
    let mut sockets = Vec::new();
    for number in 0..connections {
        let address = &addresses[number % addresses.len()];
        let mut socket = TcpStream::connect(address).map_err(|error| anyhow!("{address}: {error}"))?;
        socket.set_nodelay(true)?;
        let mut peer = options.peer(number);
        peer.open(&mut socket)?;
        socket.set_read_timeout(Some(TICK))?;
        sockets.push((socket, peer));
    }
    let from = Instant::now() + Duration::from_secs_f64(options.warmup);
    let to = from + Duration::from_secs_f64(options.seconds);
    let mut threads = Vec::new();
    for (number, (socket, peer)) in sockets.into_iter().enumerate() {
        let share =
            options.outstanding / connections + usize::from(number < options.outstanding % connections);
        let sender = Sender { socket, peer, body: body(options.size), from, to, histogram: latencies()? };
        threads.push(thread::spawn(move || sender.run(share)));
    }
    let mut all = latencies()?;
    for thread in threads {
        all.add(thread.join().map_err(|_| anyhow!("a sending thread ended early"))??)?;
    }
    tell(options, &all)
}

fn tell(options: &Options, all: &Histogram<u64>) -> Result<()> {
    let rate = all.len() as f64 / options.seconds;
    let at = |quantile| all.value_at_quantile(quantile) as f64 / 1e3;
    let report = serde_json::json!({
        "acked": all.len(),
        "msgs_per_s": rate,
        "mb_per_s": rate * options.size as f64 / 1e6,
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "p999_ms": at(0.999),
        "max_ms": all.max() as f64 / 1e3,
        "seconds": options.seconds,
    });
    println!("{report}");
    if all.is_empty() { bail!("nothing was acknowledged") } else { Ok(()) }
}

fn body(size: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(size).collect()
}

struct Sender {
    socket: TcpStream,
    peer: Box<dyn Peer>,
    body: Vec<u8>,
    from: Instant,
    to: Instant,
    histogram: Histogram<u64>,
}

impl Sender {
    fn run(mut self, share: usize) -> Result<Histogram<u64>> {
        let mut sent = vec![Instant::now(); share];
        let mut free: Vec<u32> = (0..share as u32).collect();
        let (mut out, mut input) = (Vec::new(), Vec::with_capacity(READ_BYTES));
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let now = Instant::now();
            if now >= self.to {
                return Ok(self.histogram);
            }
            for slot in free.drain(..) {
                sent[slot as usize] = now;
                self.peer.put(slot, &self.body, &mut out);
            }
            self.socket.write_all(&out)?;
            out.clear();
            match self.socket.read(&mut buffer) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(read) => input.extend_from_slice(&buffer[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(error) => return Err(error.into()),
            }
            let taken = self.peer.take(&input, &mut out, &mut free)?;
            input.drain(..taken);
            self.count(&free, &sent)?;
        }
    }

    fn count(&mut self, acked: &[u32], sent: &[Instant]) -> Result<()> {
        let now = Instant::now();
        for slot in acked {
            let Some(sent) = sent.get(*slot as usize) else {
                bail!("an answer to message {slot}, never sent")
            };
            if now >= self.from && now < self.to {
                self.histogram.saturating_record((now.duration_since(*sent).as_micros() as u64).max(1));
            }
        }
        Ok(())
    }
}
