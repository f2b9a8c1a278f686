//! What is added to every message that is stored.

use bytes::BytesMut;
use folio_protocol::properties::{self as names, append};

/// What the server adds to every message it stores.
#[derive(Debug, Clone)]
pub(crate) struct Stamp {
    /// As properties.
    pub(crate) encoded: Box<[u8]>,
}

impl Stamp {
    /// The additions of a broker of this cluster and region.
    pub(crate) fn new(cluster: &str, region: &str, trace_on: bool) -> Stamp {
        let mut encoded = BytesMut::new();
        append(&mut encoded, names::MSG_REGION, region);
        append(&mut encoded, names::TRACE_ON, if trace_on { "true" } else { "false" });
        append(&mut encoded, names::CLUSTER, cluster);
        Stamp { encoded: encoded.to_vec().into() }
    }
}
