//! How peers reach each other: TCP, or what a simulation puts in its place.
//!
//! A socket is a pair of byte streams; what is said on them is the transport's business.

use std::io;
use std::net::SocketAddr;

use openraft::base::BoxFuture;
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

/// TCP, each write sent at once.
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
    let (reader, writer) = stream.into_split();
    Ok(Socket { reader: Box::new(reader), writer: Box::new(writer), peer })
}
