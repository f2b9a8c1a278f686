//! Why a connection ended, in words an operator understands.

use std::io;
use std::time::Duration;

/// The one reason a connection was closed for.
#[derive(Debug, thiserror::Error)]
pub enum CloseReason {
    /// The peer closed it between two frames.
    #[error("closed by the peer")]
    PeerClosed,
    /// The peer closed it inside a frame.
    #[error("the peer closed it in the middle of a frame ({0} bytes of it had come)")]
    PeerClosedInFrame(usize),
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The bytes are no remoting frames.
    #[error("not a remoting frame: {0}")]
    BadFrame(String),
    /// The peer began a TLS handshake.
    #[error("the client speaks TLS and this port is plaintext: turn TLS off in the client")]
    Tls,
    /// A frame began and never ended.
    #[error("a frame began and was not complete after {0:?}")]
    PartialFrame(Duration),
    /// Nothing came for long.
    #[error("idle for {0:?}")]
    Idle(Duration),
    /// The peer does not read what it asked for.
    #[error("the client does not read: {queued} bytes wait for it, at most {max} may")]
    NotReading {
        /// Bytes waiting.
        queued: usize,
        /// The limit they went over.
        max: usize,
    },
    /// This node stops.
    #[error("this node is stopping")]
    Stopping,
}

impl CloseReason {
    /// Whether this is everyday life, not worth a line in the log of an operator.
    pub fn is_ordinary(&self) -> bool {
        match self {
            Self::PeerClosed | Self::Stopping | Self::Idle(_) => true,
            Self::Io(error) => {
                matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
            }
            _ => false,
        }
    }
}
