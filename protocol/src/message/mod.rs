//! Stored messages, in RocketMQ's store encoding; what the commit log holds and a PULL answers.
//!
//! | field | bytes | at (IPv4) | note |
//! |---|---|---|---|
//! | TOTALSIZE | 4 | 0 | the whole message |
//! | MAGIC | 4 | 4 | [`MAGIC_V1`], or [`MAGIC_V2`] for a topic past 127 bytes |
//! | BODYCRC | 4 | 8 | CRC-32 (zlib) of the body, top bit cleared |
//! | QUEUEID | 4 | 12 | |
//! | FLAG | 4 | 16 | the user's |
//! | QUEUEOFFSET | 8 | 20 | stamped at append |
//! | PHYSICALOFFSET | 8 | 28 | stamped at append |
//! | SYSFLAG | 4 | 36 | see [`crate::flags::sys_flag`] |
//! | BORNTIMESTAMP | 8 | 40 | ms |
//! | BORNHOST | 8 or 20 | 48 | address (4 or 16), port (4); long if SYSFLAG has 0x10 |
//! | STORETIMESTAMP | 8 | 56 | ms |
//! | STOREHOST | 8 or 20 | 64 | long if SYSFLAG has 0x20 |
//! | RECONSUMETIMES | 4 | 72 | |
//! | PREPAREDTRANSACTIONOFFSET | 8 | 76 | |
//! | BODY | 4 + n | 84 | |
//! | TOPIC | 1 + n | 88 + body | V2: 2 + n |
//! | PROPERTIES | 2 + n | | length is a signed short |
//!
//! Everything is big-endian. Messages stand back to back.
//!
//! Invariants: a parsed message's fields lie within its TOTALSIZE and fill it exactly
//! (message.I1); parsing neither copies nor allocates (message.I2); stamping changes
//! QUEUEOFFSET and PHYSICALOFFSET and nothing else (message.I3).

mod encode;
mod layout;
mod view;

pub use encode::NewMessage;
pub(crate) use layout::prepared_transaction_offset_at;
pub use layout::{
    BODY_CRC_AT, BORN_TIMESTAMP_AT, FLAG_AT, MAGIC_AT, MAGIC_BLANK, MAGIC_V1, MAGIC_V2, MESSAGE_BYTES_MIN,
    MessageError, PHYSICAL_OFFSET_AT, QUEUE_ID_AT, QUEUE_OFFSET_AT, Route, SYS_FLAG_AT, TOTAL_SIZE_AT, peek,
    stamp, stored_body_crc,
};
pub use view::{MessageView, Messages};

/// The checksum of a body as messages carry it: CRC-32 with the top bit cleared, because Java
/// keeps it in a signed int.
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7FFF_FFFF
}

#[cfg(test)]
mod tests;
