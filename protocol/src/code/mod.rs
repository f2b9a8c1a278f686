//! Numbers with names: request codes, response codes, client languages.
//!
//! Each is an exhaustive enum made from one table, so that a router's `match` does not compile
//! until a new code has a place, and an unsupported request can be named in its answer.

mod language;
mod request;
mod response;

pub use language::LanguageCode;
pub use request::RequestCode;
pub use response::ResponseCode;

/// Makes an enum of wire codes from a table `Variant = number, "NAME"`.
macro_rules! codes {
    ($(#[$outer:meta])* $kind:ident { $($variant:ident = $number:literal, $name:literal;)+ }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum $kind {
            $(#[doc = concat!($name, " = ", stringify!($number))] $variant = $number,)+
        }

        impl $kind {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The code with this number, if it is one we know.
            pub const fn from_code(code: i32) -> Option<Self> {
                match code {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The number on the wire.
            pub const fn code(self) -> i32 {
                self as i32
            }

            /// RocketMQ's name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The code with this name, if it is one we know.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(out, "{}", self.name())
            }
        }

        impl From<$kind> for i32 {
            fn from(code: $kind) -> i32 {
                code.code()
            }
        }
    };
}
pub(crate) use codes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_code_comes_back_from_its_number_and_its_name() {
        for code in RequestCode::ALL {
            assert_eq!(RequestCode::from_code(code.code()), Some(*code));
            assert_eq!(RequestCode::from_name(code.name()), Some(*code));
        }
    }

    #[test]
    fn every_response_code_comes_back_from_its_number() {
        for code in ResponseCode::ALL {
            assert_eq!(ResponseCode::from_code(code.code()), Some(*code));
        }
    }

    #[test]
    fn codes_nobody_defined_are_unknown() {
        assert_eq!(RequestCode::from_code(-7), None);
        assert_eq!(ResponseCode::from_code(999), None);
    }
}
