//! TAG expressions: `a || b`, or `*` for everything.
//!
//! A server filters by hash alone, as the consume queue holds only hashes; the client compares
//! the tags themselves. SQL92 is not here: it needs an evaluator.
//!
//! - `subscription.I1`: an expression is at most [`EXPRESSION_BYTES_MAX`] long and has at most [`EXPRESSION_TAGS_MAX`]
//!   distinct tags. Each tag is kept once, however often it is named. RocketMQ's brokers have neither limit.

use std::collections::HashSet;

use crate::java;
use crate::limits::{EXPRESSION_BYTES_MAX, EXPRESSION_TAGS_MAX};

/// A parsed TAG expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagFilter {
    /// Everything.
    All,
    /// Messages with one of these tags.
    Tags(TagSet),
}

/// Tags with their hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagSet {
    codes: Vec<i64>,
    tags: Vec<String>,
}

/// Why an expression is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TagFilterError {
    /// Separators alone, as RocketMQ refuses them.
    #[error("the TAG expression names no tag; expected `*` or tags joined by `||`")]
    NoTag,
    /// It is too long (`subscription.I1`).
    #[error("bytes of a TAG expression: {bytes}, the limit is {EXPRESSION_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It names too many tags (`subscription.I1`).
    #[error("a TAG expression names more tags than the limit of {EXPRESSION_TAGS_MAX}")]
    TooManyTags,
}

impl TagFilter {
    /// Reads an expression. Empty or `*` is everything; blanks around a tag do not count.
    pub fn parse(expression: &str) -> Result<Self, TagFilterError> {
        let expression = expression.trim();
        if expression.is_empty() || expression == "*" {
            return Ok(Self::All);
        }
        if expression.len() > EXPRESSION_BYTES_MAX {
            return Err(TagFilterError::TooLong { bytes: expression.len() });
        }
        let mut known = HashSet::new();
        let tags = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty());
        let tags = tags.filter(|tag| known.insert(*tag)).take(EXPRESSION_TAGS_MAX + 1);
        let tags: Vec<String> = tags.map(str::to_owned).collect();
        match tags.len() {
            0 => return Err(TagFilterError::NoTag),
            1..=EXPRESSION_TAGS_MAX => {}
            _ => return Err(TagFilterError::TooManyTags),
        }
        let mut codes: Vec<i64> = tags.iter().map(|tag| java::tags_code(tag)).collect();
        codes.sort_unstable();
        codes.dedup();
        Ok(Self::Tags(TagSet { codes, tags }))
    }

    /// Whether a message with this code in the consume queue may be wanted.
    pub fn matches(&self, tags_code: i64) -> bool {
        match self {
            Self::All => true,
            Self::Tags(set) => set.codes.binary_search(&tags_code).is_ok(),
        }
    }

    /// Whether a message with this tag is wanted, told apart from those that share its hash.
    pub fn matches_tag(&self, tag: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Tags(set) => tag.is_some_and(|tag| set.tags.iter().any(|wanted| wanted == tag)),
        }
    }

    /// The tags; none for everything.
    pub fn tags(&self) -> &[String] {
        match self {
            Self::All => &[],
            Self::Tags(set) => &set.tags,
        }
    }

    /// Bytes of memory that it keeps.
    pub fn bytes(&self) -> usize {
        let tag = |tag: &String| tag.len() + size_of::<String>();
        self.tags().iter().map(tag).sum::<usize>() + size_of_val(self.codes())
    }

    /// Their hashes, sorted; none for everything.
    pub fn codes(&self) -> &[i64] {
        match self {
            Self::All => &[],
            Self::Tags(set) => &set.codes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_and_star_are_everything() {
        for expression in ["", " ", "*", " * "] {
            assert_eq!(TagFilter::parse(expression), Ok(TagFilter::All));
        }
        assert!(TagFilter::All.matches(0) && TagFilter::All.matches_tag(None));
    }

    #[test]
    fn tags_are_trimmed_and_matched_by_hash() {
        let filter = TagFilter::parse(" TagA || TagB||").expect("two tags");
        assert_eq!(filter.tags(), ["TagA", "TagB"]);
        assert!(filter.matches(java::tags_code("TagA")) && filter.matches(java::tags_code("TagB")));
        assert!(!filter.matches(java::tags_code("TagC")) && !filter.matches(0));
    }

    #[test]
    fn tags_that_share_a_hash_are_told_apart_by_name() {
        let filter = TagFilter::parse("Aa").expect("one tag");
        assert!(filter.matches(java::tags_code("BB")));
        assert!(filter.matches_tag(Some("Aa")) && !filter.matches_tag(Some("BB")));
        assert!(!filter.matches_tag(None));
    }

    #[test]
    fn separators_alone_are_refused() {
        assert_eq!(TagFilter::parse("||"), Err(TagFilterError::NoTag));
    }

    /// 350,000 tags, all the same, each with memory of its own: 40 such pulls that were held had 1.7 GB.
    #[test]
    fn subscription_i1_an_expression_of_one_mebibyte_kept_forty_times_as_much() {
        let long = "a||".repeat(350_000);
        assert_eq!(TagFilter::parse(&long), Err(TagFilterError::TooLong { bytes: long.len() }));
        let repeated = TagFilter::parse(&"a||".repeat(5_000)).expect("short enough");
        assert_eq!(repeated.tags(), ["a"]);
        let tags = |count: usize| (0..count).map(|tag| tag.to_string()).collect::<Vec<_>>().join(" || ");
        let most = TagFilter::parse(&tags(EXPRESSION_TAGS_MAX)).expect("as many as may be");
        assert!(most.bytes() < 4 * EXPRESSION_BYTES_MAX, "{}", most.bytes());
        assert_eq!(TagFilter::parse(&tags(EXPRESSION_TAGS_MAX + 1)), Err(TagFilterError::TooManyTags));
    }
}
