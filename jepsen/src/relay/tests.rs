use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{Flow, Link, Links};
use crate::ports;

/// Long enough that nothing which is on its way still is.
const SILENCE: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(10);

/// One link 1 -> 2 with a connection over it: its two ends.
struct Pair {
    links: Links,
    listen: String,
    listener: TcpListener,
    dialer: TcpStream,
    dialed: TcpStream,
}

/// A port nothing listens on, below those the system gives to outgoing connections.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 18_000 + (std::process::id() % 100) as u16 * 10;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 1_000;
        if ports::is_free(&format!("127.0.0.1:{port}")) {
            return port;
        }
    }
}

async fn pair() -> Pair {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let listen = format!("127.0.0.1:{}", free_port());
    let links = Links::start(&[Link { from: 1, to: 2, listen: listen.clone(), target }]).unwrap();
    let dialer = TcpStream::connect(&listen).await.unwrap();
    let (dialed, _) = listener.accept().await.unwrap();
    let mut pair = Pair { links, listen, listener, dialer, dialed };
    pair.passes_both_ways().await;
    pair
}

impl Pair {
    async fn passes_both_ways(&mut self) {
        self.dialer.write_all(b"ping").await.unwrap();
        assert_eq!(read(&mut self.dialed, 4).await.unwrap(), b"ping");
        self.dialed.write_all(b"pong").await.unwrap();
        assert_eq!(read(&mut self.dialer, 4).await.unwrap(), b"pong");
    }
}

/// Reads so many bytes; `None` when nothing comes for a while.
async fn read(socket: &mut TcpStream, count: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; count];
    match timeout(PATIENCE, socket.read_exact(&mut bytes)).await {
        Ok(done) => done.ok().map(|_| bytes),
        Err(_) => None,
    }
}

async fn is_silent(socket: &mut TcpStream) -> bool {
    timeout(SILENCE, socket.read_u8()).await.is_err()
}

async fn is_reset(socket: &mut TcpStream) -> bool {
    let ended = timeout(PATIENCE, socket.read_u8()).await.expect("it ends");
    ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn a_cut_of_one_direction_swallows_that_one_without_a_word_and_lets_the_other_pass() {
    let mut pair = pair().await;
    pair.links.set(1, 2, Flow::Swallow);
    pair.dialer.write_all(b"lost").await.unwrap();
    assert!(is_silent(&mut pair.dialed).await, "the cut direction passed a byte or an end");
    pair.dialed.write_all(b"back").await.unwrap();
    assert_eq!(read(&mut pair.dialer, 4).await.unwrap(), b"back");
    assert!(is_silent(&mut pair.dialer).await, "the sender heard of it");
    pair.links.heal();
    assert!(is_reset(&mut pair.dialed).await, "a stream with a hole must not go on");
}

#[tokio::test]
async fn the_ports_of_relays_are_free_once_they_are_dropped() {
    let pair = pair().await;
    pair.links.set(1, 2, Flow::Swallow);
    let next = TcpStream::connect(&pair.listen).await.unwrap();
    drop(pair.links);
    // A process that another test starts just then has copies of the relay's sockets, until its program begins.
    let started = Instant::now();
    while !ports::is_free(&pair.listen) {
        assert!(started.elapsed() < PATIENCE, "{} is still taken", pair.listen);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(next);
}

#[tokio::test]
async fn the_answers_direction_can_be_cut_alone() {
    let mut pair = pair().await;
    pair.links.set(2, 1, Flow::Swallow);
    pair.dialer.write_all(b"ask!").await.unwrap();
    assert_eq!(read(&mut pair.dialed, 4).await.unwrap(), b"ask!");
    pair.dialed.write_all(b"lost").await.unwrap();
    assert!(is_silent(&mut pair.dialer).await);
}

#[tokio::test]
async fn what_was_sent_into_a_held_link_arrives_when_it_is_whole() {
    let mut pair = pair().await;
    pair.links.set_both(1, 2, Flow::Hold);
    pair.dialer.write_all(b"old").await.unwrap();
    assert!(is_silent(&mut pair.dialed).await);
    pair.links.heal();
    assert_eq!(read(&mut pair.dialed, 3).await.unwrap(), b"old");
    pair.passes_both_ways().await;
}

#[tokio::test]
async fn a_cut_hides_that_a_process_died() {
    let mut pair = pair().await;
    pair.links.set_both(1, 2, Flow::Hold);
    drop(pair.dialer);
    assert!(is_silent(&mut pair.dialed).await, "an end came through a cut link");
    pair.links.heal();
    assert_eq!(pair.dialed.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_refused_link_resets_what_is_there_and_what_comes() {
    let mut pair = pair().await;
    pair.links.set(1, 2, Flow::Refuse);
    assert!(is_reset(&mut pair.dialer).await && is_reset(&mut pair.dialed).await);
    // The reset may be quicker than the news that the connection was made.
    if let Ok(mut next) = TcpStream::connect(&pair.listen).await {
        assert!(is_reset(&mut next).await);
    }
    pair.links.heal();
    pair.dialer = TcpStream::connect(&pair.listen).await.unwrap();
    (pair.dialed, _) = pair.listener.accept().await.unwrap();
    pair.passes_both_ways().await;
}

#[tokio::test]
async fn a_new_connection_into_a_cut_is_silent_and_never_reaches_the_other_node() {
    let pair = pair().await;
    pair.links.set(1, 2, Flow::Swallow);
    let mut next = TcpStream::connect(&pair.listen).await.unwrap();
    next.write_all(b"hello").await.unwrap();
    assert!(is_silent(&mut next).await);
    assert!(timeout(SILENCE, pair.listener.accept()).await.is_err());
}

#[tokio::test]
async fn a_slow_link_is_late_and_keeps_the_order() {
    let mut pair = pair().await;
    let least = Duration::from_millis(60);
    pair.links.set(1, 2, Flow::Slow { least, jitter: Duration::from_millis(40) });
    let started = Instant::now();
    for number in 0..20_u8 {
        pair.dialer.write_all(&[number]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    pair.links.set(1, 2, Flow::Pass);
    let read = read(&mut pair.dialed, 20).await.unwrap();
    assert_eq!(read, (0..20).collect::<Vec<u8>>());
    assert!(started.elapsed() >= least, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_lossy_link_stalls_and_breaks_connections() {
    let mut pair = pair().await;
    pair.links.set(1, 2, Flow::Lossy { stalls: 1000, resets: 0 });
    let started = Instant::now();
    pair.dialer.write_all(b"late").await.unwrap();
    assert_eq!(read(&mut pair.dialed, 4).await.unwrap(), b"late");
    assert!(started.elapsed() >= Duration::from_millis(200));
    pair.links.set(1, 2, Flow::Lossy { stalls: 0, resets: 1000 });
    pair.dialer.write_all(b"gone").await.unwrap();
    assert!(is_reset(&mut pair.dialed).await);
}
