//! What a consumer wants of one topic.

use serde::{Deserialize, Serialize};

use super::lenient::{integer, integers, list, or_default};
use crate::limits::TAGS_MAX;

/// The expression for everything.
pub const SUB_ALL: &str = "*";
/// The expression type of tags.
pub const TAG: &str = "TAG";

/// One subscription. `tagsSet` and `codeSet` are what the client computed of `subString`; a server
/// computes its own, see [`crate::subscription`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionData {
    /// Obsolete.
    pub class_filter_mode: bool,
    /// Hashes of the tags.
    #[serde(deserialize_with = "integers::<_, TAGS_MAX>")]
    pub code_set: Vec<i32>,
    /// `TAG` or `SQL92`.
    pub expression_type: Option<String>,
    /// The expression.
    #[serde(deserialize_with = "or_default")]
    pub sub_string: String,
    /// Its version: the time of the last change, ms.
    #[serde(deserialize_with = "integer")]
    pub sub_version: i64,
    /// The tags.
    #[serde(deserialize_with = "list::<_, _, TAGS_MAX>")]
    pub tags_set: Vec<String>,
    /// The topic.
    pub topic: String,
}

impl Default for SubscriptionData {
    fn default() -> Self {
        Self {
            class_filter_mode: false,
            code_set: Vec::new(),
            expression_type: Some(TAG.to_owned()),
            sub_string: String::new(),
            sub_version: 0,
            tags_set: Vec::new(),
            topic: String::new(),
        }
    }
}

impl SubscriptionData {
    /// Whether the expression is one of tags; old clients leave the type out.
    pub fn is_tag(&self) -> bool {
        self.expression_type.as_deref().is_none_or(|kind| kind.is_empty() || kind == TAG)
    }
}
