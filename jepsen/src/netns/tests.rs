use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::*;

/// `None`, and the reason printed, where there are none.
fn namespaces(nodes: u64) -> Option<Arc<Namespaces>> {
    match Namespaces::create(nodes) {
        Ok(made) => Some(made),
        Err(why) => {
            eprintln!("skipped: network namespaces: {why:#}");
            None
        }
    }
}

fn in_place<T: Send>(made: &Namespaces, place: u64, work: impl FnOnce() -> T + Send) -> T {
    inside(&made.nodes[place as usize - 1], || Ok(work())).unwrap()
}

/// On however busy a machine.
fn connect(to: &str) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(20))
}

fn cannot_connect(to: &str) -> bool {
    TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_millis(400)).is_err()
}

#[test]
fn one_direction_is_cut_silently_and_the_stream_goes_on_when_it_is_whole() {
    let Some(made) = namespaces(2) else { return };
    let at = format!("{}:7000", made.address(2));
    let listener = in_place(&made, 2, || TcpListener::bind(&at).unwrap());
    let mut one = in_place(&made, 1, || connect(&at).unwrap());
    let (mut two, from) = listener.accept().unwrap();
    assert_eq!(from.ip().to_string(), made.address(1), "nobody's address is translated");
    made.set(1, 2, Flow::Swallow).unwrap();
    one.write_all(b"lost for now").unwrap();
    two.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut bytes = [0; 64];
    let silent = two.read(&mut bytes).unwrap_err().kind();
    assert_eq!(silent, std::io::ErrorKind::WouldBlock, "neither bytes nor a reset");
    assert!(in_place(&made, 1, || cannot_connect(&at)), "a new connection in the cut direction");
    assert!(inside(&made.hub, || Ok(connect(&at).is_ok())).unwrap(), "clients reach both nodes");
    made.heal().unwrap();
    two.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(two.read(&mut bytes).unwrap(), 12, "TCP sends again");
}

#[test]
fn a_refusing_link_tells_the_sender_at_once() {
    let Some(made) = namespaces(2) else { return };
    let at = format!("{}:7000", made.address(2));
    let _listener = in_place(&made, 2, || TcpListener::bind(&at).unwrap());
    made.set(1, 2, Flow::Refuse).unwrap();
    let started = Instant::now();
    let error = in_place(&made, 1, || {
        TcpStream::connect_timeout(&at.parse().unwrap(), Duration::from_secs(20)).unwrap_err()
    });
    assert!(started.elapsed() < Duration::from_secs(10), "{error}");
    made.set(1, 2, Flow::Pass).unwrap();
    assert!(in_place(&made, 1, || connect(&at)).is_ok());
}

#[test]
fn a_link_that_loses_all_packets_of_one_node_passes_those_of_others() {
    let Some(made) = namespaces(3) else { return };
    if let Err(why) = made.loses() {
        eprintln!("skipped: loss: {why}");
        return;
    }
    let at = format!("{}:7000", made.address(2));
    let _listener = in_place(&made, 2, || TcpListener::bind(&at).unwrap());
    made.set(1, 2, Flow::Lossy { stalls: 1000, resets: 0 }).unwrap();
    assert!(in_place(&made, 1, || cannot_connect(&at)), "all packets are lost");
    assert!(in_place(&made, 3, || connect(&at)).is_ok(), "another node's are not");
    made.heal().unwrap();
    assert!(in_place(&made, 1, || connect(&at)).is_ok());
}

#[test]
fn a_late_link_is_late() {
    let Some(made) = namespaces(2) else { return };
    if let Err(why) = made.delays() {
        eprintln!("skipped: delay: {why}");
        return;
    }
    let at = format!("{}:7000", made.address(2));
    let _listener = in_place(&made, 2, || TcpListener::bind(&at).unwrap());
    made.set(1, 2, Flow::Slow { least: Duration::from_millis(100), jitter: Duration::from_millis(10) })
        .unwrap();
    let started = Instant::now();
    in_place(&made, 1, || connect(&at).unwrap());
    assert!(started.elapsed() >= Duration::from_millis(90));
    made.heal().unwrap();
}

#[test]
fn nothing_is_left_and_what_a_dead_harness_left_is_removed() {
    let Some(made) = namespaces(1) else { return };
    let names = made.layout.names();
    drop(made);
    for name in names {
        assert!(!std::fs::exists(format!("{NAMES}/{name}")).unwrap(), "{name}");
    }
    let mut harness = Command::new("sleep").arg("600").spawn().unwrap();
    let left = Layout::new(harness.id(), 0, 1);
    run_all(&left.build()).unwrap();
    let hub = File::open(format!("{NAMES}/{}", left.hub())).unwrap();
    let mut orphan = inside(&hub, || Ok(Command::new("sleep").arg("600").spawn()?)).unwrap();
    sweep().unwrap();
    assert!(std::fs::exists(format!("{NAMES}/{}", left.hub())).unwrap(), "of a harness that runs");
    harness.kill().unwrap();
    harness.wait().unwrap();
    sweep().unwrap();
    assert!(!orphan.wait().unwrap().success(), "killed");
    let started = Instant::now();
    while left.names().iter().any(|name| std::fs::exists(format!("{NAMES}/{name}")).unwrap()) {
        // Another test may be at it.
        assert!(started.elapsed() < Duration::from_secs(10), "left: {:?}", left.names());
        std::thread::sleep(Duration::from_millis(10));
    }
}
