//! Whether somebody listens at a port, asked without listening there.
//!
//! A process that any thread starts holds a copy of every socket of this one until its program begins. A copy that
//! listens keeps the port taken for whoever wants it next; one that is only bound does not.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// Whether a listener could be started at `address`, an IPv4 address with its port. It says nothing of what others do
/// right after.
#[must_use]
pub fn is_free(address: &str) -> bool {
    address.parse().is_ok_and(|address| bind(address).is_ok())
}

fn bind(address: SocketAddr) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    // As every listener does: connections of the one before may still be closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_port_with_a_listener_is_not_free() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!is_free(&listener.local_addr().unwrap().to_string()));
    }

    #[test]
    fn a_port_just_found_free_was_taken_while_another_thread_started_a_process() {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    Command::new("true").status().unwrap();
                }
            });
            let until = Instant::now() + Duration::from_secs(1);
            // Each port once: a listener leaves copies behind, too. No other test uses them.
            let free = (61_000..61_800).map(|port| format!("127.0.0.1:{port}")).filter(|port| is_free(port));
            let taken =
                free.take_while(|_| Instant::now() < until).find(|port| TcpListener::bind(port).is_err());
            done.store(true, Ordering::Relaxed);
            assert_eq!(taken, None);
        });
    }
}
