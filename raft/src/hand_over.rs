//! Why leadership is given to another node.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a leader hands over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandOver {
    /// Somebody asked for it.
    Asked,
    /// The node stops.
    Stopping,
    /// Its disk is slower than a majority of the others.
    DiskSlow,
    /// Its disk is full.
    DiskFull,
}

impl fmt::Display for HandOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandOver::Asked => "it was asked to",
            HandOver::Stopping => "it stops",
            HandOver::DiskSlow => "its disk is far behind the others'",
            HandOver::DiskFull => "its disk is full",
        })
    }
}
