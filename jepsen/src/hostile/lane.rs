//! Connections of attackers: raw bytes out, answers counted and dropped.
//!
//! Nothing here keeps what it reads, so that an attacker needs little memory whatever it is sent.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use folio_protocol::frame::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{timeout, timeout_at};

use super::site::{Site, source};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before a connection is made again that was closed or could not be made.
const AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How long the end of a connection is waited for that has no more to say.
const LINGER: Duration = Duration::from_millis(50);
/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Bytes of a half frame that are written at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Connects, from a given source where there is one; counted.
///
/// # Errors
/// When nobody accepts in time.
pub(crate) async fn dial(site: &Site, address: &str, from: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let made = timeout(CONNECT_TIMEOUT, connect(address, from)).await;
    match made.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => {
            site.tally().open();
            Ok(stream)
        }
        Err(error) => {
            site.tally().cannot_open();
            Err(error)
        }
    }
}

async fn connect(address: &str, from: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let socket = TcpSocket::new_v4()?;
    if let Some(from) = from {
        // Otherwise each source would use up a port of the whole machine.
        socket.set_reuseaddr(true)?;
        socket.bind((from, 0).into())?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Writes bytes that count as one frame.
///
/// # Errors
/// When the connection is gone, or the node does not read before the attack's time is up.
pub(crate) async fn push(site: &Site, to: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) -> io::Result<()> {
    let written = timeout_at(site.until(), to.write_all(bytes)).await;
    written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    site.tally().frame(bytes.len());
    Ok(())
}

/// Connects, writes a frame that begins with `head` and has `rest` bytes after it, all but the last byte, and waits for the
/// end of the attack with the connection open.
pub(crate) async fn half_frame(site: &Site, address: &str, number: u32, head: &[u8], rest: usize) {
    let Ok(mut stream) = dial(site, address, Some(source(number))).await else { return };
    if push(site, &mut stream, head).await.is_err() {
        return;
    }
    let zeros = [0; CHUNK_BYTES];
    let mut left = rest - 1;
    while left > 0 {
        let part = left.min(CHUNK_BYTES);
        if push(site, &mut stream, &zeros[..part]).await.is_err() {
            site.tally().close();
            return;
        }
        left -= part;
    }
    site.tally().note("half frames written");
    site.to_the_end().await;
}

/// One connection with so many unanswered requests at most.
pub(crate) struct Lane {
    site: Site,
    to: OwnedWriteHalf,
    room: Arc<Semaphore>,
    reader: JoinHandle<()>,
}

impl Lane {
    /// Connects.
    ///
    /// # Errors
    /// When nobody accepts in time.
    pub(crate) async fn open(
        site: &Site,
        address: &str,
        from: Option<Ipv4Addr>,
        window: usize,
    ) -> io::Result<Self> {
        let (from, to) = dial(site, address, from).await?.into_split();
        let room = Arc::new(Semaphore::new(window));
        let reader = tokio::spawn(count_answers(site.clone(), from, Arc::clone(&room)));
        Ok(Self { site: site.clone(), to, room, reader })
    }

    /// Writes a request once there is room for it in the window.
    ///
    /// # Errors
    /// When the connection is closed, or the attack's time is up.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let room = timeout_at(self.site.until(), self.room.acquire()).await;
        let room = room.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        room.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?.forget();
        push(&self.site, &mut self.to, bytes).await
    }

    /// Waits a little for the node to close the connection: an end that nobody waits for is not counted.
    async fn linger(&mut self) {
        let _ = timeout(LINGER, &mut self.reader).await;
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn count_answers(site: Site, mut from: OwnedReadHalf, room: Arc<Semaphore>) {
    let mut bytes = BytesMut::with_capacity(READ_BYTES);
    loop {
        while let Ok(Some(frame)) = Frame::decode(&mut bytes) {
            if frame.is_response() {
                site.tally().answer(frame.code);
                room.add_permits(1);
            }
        }
        if !matches!(from.read_buf(&mut bytes).await, Ok(count) if count > 0) {
            break;
        }
    }
    site.tally().close();
    room.close();
}

/// Many connections that send as fast as they may until the time is up.
#[derive(Debug, Clone)]
pub(crate) struct Flood {
    /// Connections at once, shared out among the targets.
    pub(crate) lanes: u32,
    /// Unanswered requests of each.
    pub(crate) window: usize,
    /// Requests after which a connection is given up for a new one.
    pub(crate) each: u64,
    /// Pause between two requests of one connection.
    pub(crate) pause: Duration,
    /// Whether each connection comes from an address of its own.
    pub(crate) sources: bool,
}

impl Flood {
    /// So many connections that are kept, with so many unanswered requests each.
    #[must_use]
    pub(crate) fn new(lanes: u32, window: usize) -> Self {
        Self { lanes, window, each: u64::MAX, pause: Duration::ZERO, sources: false }
    }

    /// Floods these addresses; request `n` of connection `k` is `make(k, n)`, and `n` goes on over connections.
    pub(crate) async fn run<F>(&self, site: &Site, targets: &[String], make: F)
    where
        F: Fn(u64, u64) -> Bytes + Send + Sync + 'static,
    {
        let make = Arc::new(make);
        let mut lanes = JoinSet::new();
        for number in 0..self.lanes {
            let Some(target) = targets.get(number as usize % targets.len().max(1)) else { return };
            let (site, target, flood, make) = (site.clone(), target.clone(), self.clone(), Arc::clone(&make));
            lanes.spawn(async move { flood.lane(&site, &target, number, &*make).await });
        }
        finish(site, lanes).await;
    }

    async fn lane(&self, site: &Site, target: &str, number: u32, make: &(impl Fn(u64, u64) -> Bytes + Sync)) {
        let mut next = 0;
        while !site.is_over() {
            let from = self.sources.then(|| source(number.wrapping_add((next as u32).wrapping_mul(257))));
            if let Ok(mut lane) = Lane::open(site, target, from, self.window).await {
                for _ in 0..self.each {
                    let request = make(u64::from(number), next);
                    next += 1;
                    if lane.write(&request).await.is_err() {
                        break;
                    }
                    if !self.pause.is_zero() {
                        site.pause(self.pause).await;
                    }
                }
                lane.linger().await;
            }
            site.pause(AGAIN_AFTER).await;
        }
    }
}

/// Lets these tasks work until the time is up, then ends them.
pub(crate) async fn finish(site: &Site, mut tasks: JoinSet<()>) {
    let all = async { while tasks.join_next().await.is_some() {} };
    drop(timeout_at(site.until(), all).await);
    tasks.shutdown().await;
}

/// Does the same on so many tasks until the time is up, with a pause after each round.
pub(crate) async fn repeat<F, R>(site: &Site, tasks: u32, round: F)
where
    F: Fn(Site, u32, u64) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let mut all = JoinSet::new();
    for number in 0..tasks {
        let (site, round) = (site.clone(), round.clone());
        all.spawn(async move {
            let mut count = 0;
            while !site.is_over() {
                round(site.clone(), number, count).await;
                count += 1;
                site.pause(AGAIN_AFTER).await;
            }
        });
    }
    finish(site, all).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn site(address: &str, length: Duration) -> Site {
        let mut addresses = crate::addresses::Addresses::of(20_000, 1);
        addresses.broker = address.to_owned();
        Site::new(vec![addresses], 0, "t", length, 1)
    }

    fn answer(opaque: i32) -> BytesMut {
        let mut bytes = BytesMut::new();
        let frame = Frame { code: 29, opaque, flag: 1, ..Frame::default() };
        frame.encode(&mut bytes).expect("a small frame");
        bytes
    }

    #[tokio::test]
    async fn a_lane_stops_at_its_window_and_goes_on_with_each_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let site = site(&address, Duration::from_secs(20));
        let mut lane = Lane::open(&site, &address, None, 2).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        lane.write(b"one").await.unwrap();
        lane.write(b"two").await.unwrap();
        let third = timeout(Duration::from_millis(50), lane.write(b"three")).await;
        assert!(third.is_err(), "a third request without an answer");
        server.write_all(&answer(1)).await.unwrap();
        lane.write(b"three").await.unwrap();
        let done = site.tally().done();
        assert_eq!((done.opened, done.frames, done.bytes), (1, 3, 11));
        assert_eq!(done.answers.get(&29), Some(&1));
    }

    #[tokio::test]
    async fn a_closed_connection_is_counted_and_its_lane_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let site = site(&address, Duration::from_secs(20));
        let mut lane = Lane::open(&site, &address, Some(source(7)), 1).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip(), source(7));
        drop(server);
        timeout(Duration::from_secs(10), &mut lane.reader).await.expect("the end is seen").unwrap();
        assert!(lane.write(b"x").await.is_err());
        assert_eq!(site.tally().done().closed, 1);
    }

    #[tokio::test]
    async fn connections_that_the_node_closes_count_as_heard() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let site = site(&address, Duration::from_secs(20));
        let closing = tokio::spawn(async move {
            loop {
                drop(listener.accept().await.unwrap());
            }
        });
        let flood = Flood { each: 2, ..Flood::new(1, 2) };
        let targets = [address];
        tokio::select! {
            () = flood.run(&site, &targets, |_, _| Bytes::from_static(b"x")) => {}
            () = async { while site.tally().done().closed < 3 { site.pause(AGAIN_AFTER).await; } } => {}
        }
        assert!(site.tally().done().heard() >= 3, "{:?}", site.tally().done());
        closing.abort();
    }

    #[tokio::test]
    async fn a_flood_ends_in_time_though_nobody_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let site = site(&address, Duration::from_secs(5));
        let flood = Flood::new(3, 1);
        let targets = [address];
        let run = flood.run(&site, &targets, |_, _| Bytes::from_static(b"x"));
        timeout(Duration::from_secs(60), run).await.expect("a flood ends");
        assert_eq!(site.tally().done().frames, 3);
    }
}
