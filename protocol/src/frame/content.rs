//! What a frame holds, and what is made of it; not its bytes.

use bytes::Bytes;

use crate::code::{LanguageCode, RequestCode, ResponseCode};
use crate::ext::ExtFields;
use crate::fields::Fields;
use crate::header::Header;

/// The wire version we claim: RocketMQ 5.3.3.
pub const VERSION: i32 = 479;
/// Flag bit of a response.
pub const FLAG_RESPONSE: i32 = 1;
/// Flag bit of a request nobody waits for.
pub const FLAG_ONEWAY: i32 = 2;

/// How a header is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Serialization {
    /// Type 0: JSON. The only one every client reads.
    #[default]
    Json,
    /// Type 1: RocketMQ's binary header.
    Rocketmq,
}

impl Serialization {
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Json => 0,
            Self::Rocketmq => 1,
        }
    }
}

/// One request or response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// A [`RequestCode`] or a [`ResponseCode`].
    pub code: i32,
    /// The sender's language.
    pub language: LanguageCode,
    /// The sender's version.
    pub version: i32,
    /// Pairs a response with its request; per connection.
    pub opaque: i32,
    /// [`FLAG_RESPONSE`], [`FLAG_ONEWAY`].
    pub flag: i32,
    /// A text for people, mostly an error.
    pub remark: Option<String>,
    /// The typed header's fields.
    pub ext: ExtFields,
    /// The body.
    pub body: Bytes,
    /// How the header is, or shall be, written.
    pub serialization: Serialization,
}

impl Default for Frame {
    fn default() -> Self {
        Self {
            code: 0,
            language: LanguageCode::Java,
            version: VERSION,
            opaque: 0,
            flag: 0,
            remark: None,
            ext: ExtFields::new(),
            body: Bytes::new(),
            serialization: Serialization::Json,
        }
    }
}

impl Frame {
    /// A JSON request with a typed header; the caller sets `opaque`.
    pub fn request(code: RequestCode, header: &impl Header, body: Bytes) -> Self {
        let mut frame = Self { code: code.code(), body, ..Self::default() };
        header.to_ext(&mut frame.ext);
        frame
    }

    /// A response to this request, in its serialization.
    pub fn response_to(&self, code: ResponseCode) -> Self {
        Self::response(self.opaque, self.serialization, code)
    }

    /// A response to the request `opaque`.
    pub fn response(opaque: i32, serialization: Serialization, code: ResponseCode) -> Self {
        Self { code: code.code(), opaque, flag: FLAG_RESPONSE, serialization, ..Self::default() }
    }

    /// This frame with a typed header's fields added.
    #[must_use]
    pub fn with_header(mut self, header: &impl Fields) -> Self {
        header.write(&mut self.ext);
        self
    }

    /// This frame with a remark.
    #[must_use]
    pub fn with_remark(mut self, remark: impl Into<String>) -> Self {
        self.remark = Some(remark.into());
        self
    }

    /// This frame with a body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// This frame as a oneway request.
    #[must_use]
    pub fn oneway(mut self) -> Self {
        self.flag |= FLAG_ONEWAY;
        self
    }

    /// This frame without its body, in memory of its own: it may be kept for long (frame.I4).
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.body = Bytes::new();
        self.ext.detach();
        self
    }

    /// Whether this is a response.
    pub const fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// Whether nobody waits for a response to this.
    pub const fn is_oneway(&self) -> bool {
        self.flag & FLAG_ONEWAY != 0
    }

    /// Bytes of memory that its header keeps.
    pub fn header_bytes(&self) -> usize {
        self.ext.bytes() + self.remark.as_ref().map_or(0, String::len)
    }

    /// The request's code, if it is one we know.
    pub const fn request_code(&self) -> Option<RequestCode> {
        RequestCode::from_code(self.code)
    }
}
