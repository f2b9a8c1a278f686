//! What a link does with the bytes that go one way.

use std::time::Duration;

/// The state of one direction between two nodes.
///
/// A relay moves a stream of bytes, not packets, so it cannot drop a segment for TCP to send again.
/// What loss looks like from above TCP, it can do: stalls of about a retransmission timeout, and
/// connections that break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// At once.
    #[default]
    Pass,
    /// Late: each piece by `least` plus up to `jitter`, in order.
    Slow {
        /// Every piece is at least so late.
        least: Duration,
        /// And up to so much later.
        jitter: Duration,
    },
    /// Stands for a lossy link: some pieces wait, some break the connection.
    Lossy {
        /// Of 1000 pieces so many wait for about 200 ms.
        stalls: u32,
        /// Of 1000 pieces so many break the connection.
        resets: u32,
    },
    /// Nothing passes, nobody is told, and nothing is forgotten: when the link is whole again, what
    /// was sent arrives, however old it is. This is what TCP does over a cut that is shorter than
    /// its patience.
    Hold,
    /// Nothing passes and nobody is told; bytes are taken and thrown away. When the link is whole
    /// again such a connection is reset, for a stream never has a hole.
    Swallow,
    /// Connections are reset, new ones too.
    Refuse,
}

impl Flow {
    /// Whether bytes get through in the end.
    #[must_use]
    pub fn passes(self) -> bool {
        matches!(self, Self::Pass | Self::Slow { .. } | Self::Lossy { .. })
    }
}
