//! How peers reach each other: TCP, or what a simulation puts in its place.
//!
//! A socket is a pair of byte streams; what is said on them is the transport's business.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use openraft::base::BoxFuture;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A connection to a peer.
pub struct Socket {
    /// Bytes from the peer.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// Bytes to the peer.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// Who the peer is, for logs.
    pub peer: String,
}

/// Where peers' connections arrive.
pub trait Listener: Send + 'static {
    /// The next connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Socket>>;
}

/// The network of one node.
pub trait Net: Send + Sync + 'static {
    /// Listens for peers.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;

    /// Connects to a peer at `host:port`. Has no time limit of its own.
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Socket>>;
}

/// How long what was sent to a peer may stay unacknowledged, and how long a connection lives on which a peer without power
/// acknowledges nothing. Without it, the kernel tries for a quarter of an hour, and an idle connection for ever.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);
/// Pause before a silent peer is asked whether it is still there, and between two such questions.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// TCP, each write sent at once; a peer that acknowledges nothing any more ends the connection.
pub struct Tcp;

impl Net for Tcp {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener: Box<dyn Listener> = Box::new(TcpListener::bind(address).await?);
            Ok(listener)
        })
    }

    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Socket>> {
        Box::pin(async move { socket(TcpStream::connect(address).await?, address.to_owned()) })
    }
}

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Socket>> {
        Box::pin(async move {
            let (stream, from) = TcpListener::accept(self).await?;
            socket(stream, from.to_string())
        })
    }
}

fn socket(stream: TcpStream, peer: String) -> io::Result<Socket> {
    stream.set_nodelay(true)?;
    sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MAX.as_millis() as u32)?;
    sockopt::set_tcp_keepidle(&stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(&stream, KEEPALIVE)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    let (reader, writer) = stream.into_split();
    Ok(Socket { reader: Box::new(reader), writer: Box::new(writer), peer })
}
