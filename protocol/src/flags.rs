//! The bit sets of the wire: a message's system flag, a pull's, and a topic's permissions.

/// Bits of a stored message's SYSFLAG.
pub mod sys_flag {
    /// The body is compressed; see [`COMPRESSION_MASK`].
    pub const COMPRESSED: i32 = 0x1;
    /// The producer asked for several tags.
    pub const MULTI_TAGS: i32 = 0x2;
    /// The two transaction bits.
    pub const TRANSACTION_MASK: i32 = 0xC;
    /// Not part of a transaction.
    pub const TRANSACTION_NONE: i32 = 0x0;
    /// A half message.
    pub const TRANSACTION_PREPARED: i32 = 0x4;
    /// A committed message of a transaction.
    pub const TRANSACTION_COMMIT: i32 = 0x8;
    /// A rolled back one.
    pub const TRANSACTION_ROLLBACK: i32 = 0xC;
    /// BORNHOST takes 20 bytes, not 8.
    pub const BORN_HOST_V6: i32 = 0x10;
    /// STOREHOST takes 20 bytes, not 8.
    pub const STORE_HOST_V6: i32 = 0x20;
    /// Clients must unwrap the body before use.
    pub const NEED_UNWRAP: i32 = 0x40;
    /// The body holds a batch stored as one message.
    pub const INNER_BATCH: i32 = 0x80;
    /// The three bits that name the compression: 0 means zlib, as old clients write it.
    pub const COMPRESSION_MASK: i32 = 0x700;
    /// LZ4 frames.
    pub const COMPRESSION_LZ4: i32 = 0x100;
    /// Zstandard frames.
    pub const COMPRESSION_ZSTD: i32 = 0x200;
    /// zlib streams.
    pub const COMPRESSION_ZLIB: i32 = 0x300;

    /// The transaction bits of `flag`.
    pub const fn transaction(flag: i32) -> i32 {
        flag & TRANSACTION_MASK
    }

    /// `flag` with its transaction bits replaced.
    pub const fn with_transaction(flag: i32, transaction: i32) -> i32 {
        (flag & !TRANSACTION_MASK) | (transaction & TRANSACTION_MASK)
    }
}

/// Bits of a PULL request's `sysFlag`.
pub mod pull_sys_flag {
    /// `commitOffset` is valid and shall be stored.
    pub const COMMIT_OFFSET: i32 = 0x1;
    /// The server may hold the request until a message arrives.
    pub const SUSPEND: i32 = 0x2;
    /// `subscription` is valid; otherwise the heartbeat's subscription counts.
    pub const SUBSCRIPTION: i32 = 0x4;
    /// Obsolete class filter.
    pub const CLASS_FILTER: i32 = 0x8;
    /// Sent by a lite pull consumer.
    pub const LITE_PULL: i32 = 0x10;
}

/// A topic's or broker's permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PermissionBits(pub u32);

impl PermissionBits {
    /// New topics may copy these permissions from their template.
    pub const INHERIT: Self = Self(1);
    /// Producers may send.
    pub const WRITE: Self = Self(2);
    /// Consumers may pull.
    pub const READ: Self = Self(4);
    /// Reserved by RocketMQ.
    pub const PRIORITY: Self = Self(8);
    /// What an ordinary topic has.
    pub const READ_WRITE: Self = Self(6);

    /// Whether consumers may pull.
    pub const fn is_readable(self) -> bool {
        self.contains(Self::READ)
    }

    /// Whether producers may send.
    pub const fn is_writable(self) -> bool {
        self.contains(Self::WRITE)
    }

    /// Whether new topics may copy these permissions.
    pub const fn is_inherited(self) -> bool {
        self.contains(Self::INHERIT)
    }

    /// Whether every bit of `other` is set here.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These permissions and `other`'s.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These permissions but for `other`'s.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether RocketMQ accepts the value for a topic (`PermName.isValid`: below `PRIORITY`).
    pub const fn is_valid(self) -> bool {
        self.0 < Self::PRIORITY.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_bits_are_replaced_and_leave_the_others() {
        let flag = sys_flag::COMPRESSED | sys_flag::TRANSACTION_PREPARED | sys_flag::BORN_HOST_V6;
        let committed = sys_flag::with_transaction(flag, sys_flag::TRANSACTION_COMMIT);
        assert_eq!(committed, 0x1 | 0x8 | 0x10);
        assert_eq!(sys_flag::transaction(committed), sys_flag::TRANSACTION_COMMIT);
    }

    #[test]
    fn an_ordinary_topic_reads_and_writes() {
        assert!(PermissionBits::READ_WRITE.is_readable() && PermissionBits::READ_WRITE.is_writable());
        assert!(!PermissionBits::READ_WRITE.is_inherited());
        assert!(!PermissionBits::READ_WRITE.without(PermissionBits::WRITE).is_writable());
        assert!(!PermissionBits(8).is_valid());
    }
}
