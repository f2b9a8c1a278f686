//! Why a connection ended, in words an operator understands.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use folio_protocol::frame::FrameError;
use folio_raft::log_rate_limiter::LogRateLimiter;

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
    BadFrame(FrameError),
    /// The peer began a TLS handshake.
    #[error("the client speaks TLS and this port is plaintext: turn TLS off in the client")]
    Tls,
    /// A frame began and never ended.
    #[error("a frame began and was not complete after {0:?} (limits.frame_seconds)")]
    PartialFrame(Duration),
    /// A frame began and the node has no memory for it.
    #[error("a frame of {0} bytes began and no memory was left for it (limits.memory)")]
    NoMemory(usize),
    /// A frame came slowly while others waited for its memory.
    #[error("a frame of {0} bytes comes slowly, and others wait for its memory (limits.memory)")]
    SlowFrame(usize),
    /// Nothing came for long.
    #[error("idle for {0:?} (limits.idle_seconds)")]
    Idle(Duration),
    /// The peer does not read what it asked for.
    #[error("the client does not read: {queued} bytes wait for it, at most {max} may (limits.client_queue)")]
    NotReading {
        /// Bytes waiting.
        queued: usize,
        /// The limit they went over.
        max: usize,
    },
    /// The peer reads nothing at all.
    #[error(
        "the client does not read: {queued} bytes wait for it, and it took none for {after:?} (limits.write_seconds)"
    )]
    Stuck {
        /// Bytes waiting.
        queued: usize,
        /// The limit.
        after: Duration,
    },
    /// Too much waits for all clients together, and what waits for this one has waited for the longest, or is the most.
    #[error(
        "the client does not read: {queued} bytes wait for it, longer or more than for any other, and no memory is left (limits.memory)"
    )]
    Unread {
        /// Bytes waiting.
        queued: usize,
    },
    /// It came when there were too many, and was told so.
    #[error("refused: there are too many connections")]
    Refused,
    /// This node stops.
    #[error("this node is stopping")]
    Stopping,
}

/// Kinds of lines about connections.
const KINDS: usize = 18;

impl CloseReason {
    /// Whether this is everyday life, not worth a line in the log of an operator.
    pub fn is_ordinary(&self) -> bool {
        match self {
            Self::PeerClosed | Self::Stopping | Self::Refused | Self::Idle(_) => true,
            Self::Io(error) => {
                matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
            }
            _ => false,
        }
    }

    /// Whether the client did not read what it asked for.
    pub(super) fn is_not_reading(&self) -> bool {
        matches!(self, Self::NotReading { .. } | Self::Stuck { .. } | Self::Unread { .. })
    }

    /// Says it in the log, a reason of each kind once a second at most (net.I1).
    pub(super) fn tell(&self, remote: SocketAddr) {
        static LINES: [LogRateLimiter; KINDS] = [const { LogRateLimiter::new() }; KINDS];
        if self.is_ordinary() {
            tracing::debug!(%remote, "connection ended: {self}");
        } else if let Some(left_out) = LINES[self.kind()].admit() {
            match left_out {
                0 => tracing::warn!(%remote, "connection closed: {self}"),
                left_out => {
                    tracing::warn!(%remote, left_out, "connection closed: {self}; others before it for the like");
                }
            }
        }
    }

    fn kind(&self) -> usize {
        match self {
            Self::PeerClosed => 0,
            Self::PeerClosedInFrame(_) => 1,
            Self::Io(_) => 2,
            Self::Tls => 3,
            Self::PartialFrame(_) => 4,
            Self::NoMemory(_) => 5,
            Self::SlowFrame(_) => 6,
            Self::Idle(_) | Self::Refused | Self::Stopping => 7,
            Self::NotReading { .. } => 8,
            Self::Stuck { .. } => 9,
            Self::Unread { .. } => 10,
            Self::BadFrame(FrameError::TooShort(_)) => 11,
            Self::BadFrame(FrameError::TooLarge { .. }) => 12,
            Self::BadFrame(FrameError::HeaderLength { .. } | FrameError::HeaderTooLarge(_)) => 13,
            Self::BadFrame(FrameError::Serialization(_)) => 14,
            Self::BadFrame(FrameError::Utf8) => 15,
            Self::BadFrame(FrameError::Json { .. }) => 16,
            Self::BadFrame(FrameError::Binary(_)) => 17,
        }
    }
}
