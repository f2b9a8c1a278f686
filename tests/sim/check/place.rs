//! Where a message is in the consume queues and in the log.

/// Where a message lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) topic: String,
    pub(crate) queue: u32,
    pub(crate) offset: u64,
    pub(crate) position: u64,
}
