//! TAG expressions: `a || b`, or `*` for everything.
//!
//! A server filters by hash alone, as the consume queue holds only hashes; the client compares
//! the tags themselves. SQL92 is not here: it needs an evaluator.

use crate::java;

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

/// An expression of separators alone, as RocketMQ refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the TAG expression names no tag; expected `*` or tags joined by `||`")]
pub struct TagFilterError;

impl TagFilter {
    /// Reads an expression. Empty or `*` is everything; blanks around a tag do not count.
    pub fn parse(expression: &str) -> Result<Self, TagFilterError> {
        let expression = expression.trim();
        if expression.is_empty() || expression == "*" {
            return Ok(Self::All);
        }
        let tags = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty());
        let tags: Vec<String> = tags.map(str::to_owned).collect();
        if tags.is_empty() {
            return Err(TagFilterError);
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
        assert_eq!(TagFilter::parse("||"), Err(TagFilterError));
    }
}
