//! Kinds of messages that a send load makes, and what each one adds to a SEND.
//!
//! | kind | sysFlag | properties |
//! |---|---|---|
//! | plain | 0 | none |
//! | delayed | 0 | `TIMER_DELAY_MS` |
//! | transaction | prepared | `TRAN_MSG`, `PGROUP`; the message counts once its END_TRANSACTION is answered |

use clap::ValueEnum;
use folio_protocol::flags::sys_flag;
use folio_protocol::properties::{NAME_END, PRODUCER_GROUP, TIMER_DELAY_MS, TRANSACTION_PREPARED, VALUE_END};

/// What messages are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Messages that are visible at once.
    #[default]
    Plain,
    /// Messages that become visible after --delay-ms.
    Delayed,
    /// Half messages, each committed by an END_TRANSACTION.
    Transaction,
}

impl Kind {
    /// The name, as in `--kind`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::Delayed => "delayed",
            Kind::Transaction => "transaction",
        }
    }

    /// What a SEND of this kind adds.
    pub(super) fn extras(self, delay_ms: u64, producer_group: &str) -> Extras {
        match self {
            Kind::Plain => Extras::default(),
            Kind::Delayed => Extras { properties: pair(TIMER_DELAY_MS, &delay_ms.to_string()), sys_flag: 0 },
            Kind::Transaction => Extras {
                properties: pair(TRANSACTION_PREPARED, "true") + &pair(PRODUCER_GROUP, producer_group),
                sys_flag: sys_flag::TRANSACTION_PREPARED,
            },
        }
    }
}

/// What a SEND has besides the parts of a plain one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extras {
    /// More properties, encoded.
    pub(super) properties: String,
    pub(super) sys_flag: i32,
}

/// One encoded property.
pub(super) fn pair(name: &str, value: &str) -> String {
    format!("{name}{}{value}{}", char::from(NAME_END), char::from(VALUE_END))
}

#[cfg(test)]
mod tests {
    use folio_protocol::properties;

    use super::*;

    #[test]
    fn each_kind_says_of_its_messages_what_a_server_looks_for() {
        let of = |kind: Kind| kind.extras(250, "p");
        assert_eq!(of(Kind::Plain), Extras::default());
        let delayed = of(Kind::Delayed);
        assert_eq!(properties::get(delayed.properties.as_bytes(), TIMER_DELAY_MS), Some("250"));
        assert_eq!(delayed.sys_flag, 0);
        let half = of(Kind::Transaction);
        let said = [TRANSACTION_PREPARED, PRODUCER_GROUP]
            .map(|name| properties::get(half.properties.as_bytes(), name));
        assert_eq!((said, half.sys_flag), ([Some("true"), Some("p")], 4));
    }

    #[test]
    fn names_are_those_of_the_option() {
        for kind in Kind::value_variants() {
            assert_eq!(kind.to_possible_value().unwrap().get_name(), kind.name());
        }
    }
}
