//! Typed headers: what a request or response says in its ext fields.
//!
//! One file per family. A field's type says whether it must be there: `Option` may be absent,
//! a plain type must be present, `= default` stands in for an absent one.

mod admin;
mod client;
mod offset;
mod pop;
mod pull;
mod query;
mod route;
mod send;
mod send_answer;
mod topic;
mod transaction;

pub use admin::{
    BrokerNameHeader, CloneGroupOffsetHeader, ClusterHeader, ConsumeDirectlyHeader,
    GetBrokerConsumeStatsHeader, GetConsumeStatsHeader, GetConsumerConnectionsHeader,
    GetConsumerRunningInfoHeader, GetProducerConnectionsHeader, GroupHeader, GroupTopicHeader, KvHeader,
    KvResponseHeader, NamespaceHeader, PutKvHeader, RecallMessageHeader, RecallMessageResponseHeader,
    ResetOffsetHeader, TopicHeader, ViewBrokerStatsHeader,
};
pub use client::{
    ConsumerSendBackHeader, GetConsumerListHeader, HeartbeatResponseHeader, NotifyConsumerIdsChangedHeader,
    UnregisterClientHeader,
};
pub use offset::{
    GetEarliestStoreTimeHeader, GetMaxOffsetHeader, GetMinOffsetHeader, OffsetResponseHeader,
    QueryConsumerOffsetHeader, SearchOffsetHeader, TimestampResponseHeader, UpdateConsumerOffsetHeader,
};
pub use pop::{
    AckMessageHeader, ChangeInvisibleTimeHeader, ChangeInvisibleTimeResponseHeader, NotificationHeader,
    NotificationResponseHeader, PeekMessageHeader, PollingInfoHeader, PollingInfoResponseHeader,
    PopMessageHeader, PopMessageResponseHeader,
};
pub use pull::{PullMessageHeader, PullMessageResponseHeader};
pub use query::{QueryMessageHeader, QueryMessageResponseHeader, ViewMessageHeader};
pub use route::GetRouteHeader;
pub use send::{
    DEFAULT_REGION, PushReplyHeader, SendMessageHeader, SendMessageResponseHeader, SendMessageV1, SendRequest,
};
pub use send_answer::SendAnswer;
pub use topic::{
    CreateTopicHeader, DeleteGroupHeader, DeleteTopicHeader, GetGroupConfigHeader, GetTopicConfigHeader,
};
pub use transaction::{CheckTransactionStateHeader, EndTransactionHeader, ResumeCheckHalfMessageHeader};

pub use crate::ext::HeaderError;
use crate::ext::{ExtFields, FieldValue};
use crate::fields::{FieldWriter, Fields};

/// A typed header.
pub trait Header: Fields + Sized {
    /// Reads it from ext fields; other fields are ignored.
    fn from_ext(ext: &ExtFields) -> Result<Self, HeaderError>;
    /// Adds its fields.
    fn to_ext(&self, ext: &mut ExtFields) {
        self.write(ext);
    }
}

/// A header without fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoHeader;

impl Header for NoHeader {
    fn from_ext(_ext: &ExtFields) -> Result<Self, HeaderError> {
        Ok(Self)
    }
}

impl Fields for NoHeader {
    fn write(&self, _out: &mut impl FieldWriter) {}
}

/// How one field of a header is read and written; its type decides.
pub(crate) trait HeaderField: Sized {
    fn read(ext: &ExtFields, key: &'static str) -> Result<Self, HeaderError>;
    fn write(&self, key: &'static str, out: &mut impl FieldWriter);
}

impl<T: FieldValue> HeaderField for T {
    fn read(ext: &ExtFields, key: &'static str) -> Result<Self, HeaderError> {
        ext.required(key)
    }
    fn write(&self, key: &'static str, out: &mut impl FieldWriter) {
        self.put(key, out);
    }
}

impl<T: FieldValue> HeaderField for Option<T> {
    fn read(ext: &ExtFields, key: &'static str) -> Result<Self, HeaderError> {
        ext.optional(key)
    }
    fn write(&self, key: &'static str, out: &mut impl FieldWriter) {
        if let Some(value) = self {
            value.put(key, out);
        }
    }
}

/// Makes a header struct and its [`Header`] from a table `"wireName" => field: Type [= default]`.
macro_rules! header {
    ($(#[$outer:meta])* $kind:ident {
        $($(#[$inner:meta])* $key:literal => $field:ident : $type:ty $(= $default:expr)?;)+
    }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $kind {
            $($(#[$inner])* #[doc = concat!("On the wire: `", $key, "`.")] pub $field: $type,)+
        }

        impl crate::header::Header for $kind {
            fn from_ext(ext: &crate::ext::ExtFields) -> Result<Self, crate::header::HeaderError> {
                Ok(Self { $($field: crate::header::header!(@read ext, $key, $type $(, $default)?),)+ })
            }
        }

        impl crate::fields::Fields for $kind {
            fn write(&self, out: &mut impl crate::fields::FieldWriter) {
                $(crate::header::HeaderField::write(&self.$field, $key, out);)+
            }
        }
    };
    (@read $ext:ident, $key:literal, $type:ty) => {
        <$type as crate::header::HeaderField>::read($ext, $key)?
    };
    (@read $ext:ident, $key:literal, $type:ty, $default:expr) => {
        $ext.optional::<$type>($key)?.unwrap_or($default)
    };
}
pub(crate) use header;

#[cfg(test)]
mod tests;
