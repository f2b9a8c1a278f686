//! Routes: code 105.

use super::header;
use crate::Name;

header! {
    /// 105.
    GetRouteHeader {
        /// Whose route.
        "topic" => topic: Name;
        /// Whether the client reads standard JSON only; we write no other.
        "acceptStandardJsonOnly" => accept_standard_json_only: Option<bool>;
    }
}
