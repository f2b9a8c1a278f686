//! The language a client says it is written in.

use super::codes;

codes! {
    /// A client's language. Unknown ones are read as [`LanguageCode::Other`].
    LanguageCode {
        Java = 0, "JAVA";
        Cpp = 1, "CPP";
        Dotnet = 2, "DOTNET";
        Python = 3, "PYTHON";
        Delphi = 4, "DELPHI";
        Erlang = 5, "ERLANG";
        Ruby = 6, "RUBY";
        Other = 7, "OTHER";
        Http = 8, "HTTP";
        Go = 9, "GO";
        Php = 10, "PHP";
        Oms = 11, "OMS";
        Rust = 12, "RUST";
        NodeJs = 13, "NODE_JS";
    }
}

impl LanguageCode {
    /// The byte of the binary header.
    pub const fn byte(self) -> u8 {
        self as i32 as u8
    }

    /// The language of a byte in the binary header.
    pub const fn from_byte(byte: u8) -> Self {
        match Self::from_code(byte as i32) {
            Some(language) => language,
            None => Self::Other,
        }
    }
}
