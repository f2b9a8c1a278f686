//! A key with an impossible value, before the file's name is known.

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadValue {
    pub(super) key: String,
    pub(super) message: String,
}

pub(super) fn bad(key: impl Into<String>, message: impl Into<String>) -> BadValue {
    BadValue { key: key.into(), message: message.into() }
}
