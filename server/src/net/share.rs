//! What the bytes of a node are held for.

/// Units of all requests together, see `in_flight.rs`: 4,096 queries, which two processors answer within some 50 ms. One
/// connection gets an eighth: 8,192 sends.
const REQUEST_UNITS_MAX: usize = 65_536;
/// Parts of the sum that shares are counted in.
pub(super) const SIXTEENTHS: usize = 16;

/// What bytes are held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Read buffers.
    Buffers,
    /// Requests that are served.
    Requests,
    /// The same requests, counted in units instead of bytes.
    RequestUnits,
    /// Answers that have not left.
    Answers,
}

impl Share {
    pub(super) const COUNT: usize = 4;
    /// All of them.
    pub const ALL: [Share; Share::COUNT] =
        [Share::Buffers, Share::Requests, Share::RequestUnits, Share::Answers];

    /// How much of the sum it has.
    pub(super) const fn max(self, sum: usize) -> usize {
        let sixteenths = match self {
            Share::Buffers => 2,
            Share::Requests => 3,
            Share::Answers => 3,
            Share::RequestUnits => return REQUEST_UNITS_MAX,
        };
        sum / SIXTEENTHS * sixteenths
    }

    /// As the status of a node calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Share::Buffers => "buffer_bytes",
            Share::Requests => "request_bytes",
            Share::RequestUnits => "request_units",
            Share::Answers => "answer_bytes",
        }
    }
}
