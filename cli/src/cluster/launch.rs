//! What `folio cluster` was told.

use std::path::PathBuf;

use folio_server::config::ByteSize;

/// What `folio cluster` was told.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// How many nodes.
    pub nodes: Option<u64>,
    /// Where everything is.
    pub data: PathBuf,
    /// First port.
    pub base_port: Option<u16>,
    /// Size of a log segment.
    pub segment_size: Option<ByteSize>,
    /// Start dead nodes again.
    pub restart: bool,
    /// The nodes' log level.
    pub log: Option<String>,
}
