//! A broken invariant, as the checkers tell of it.

/// Its name and what was seen.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) seen: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.seen)
    }
}

pub(crate) type Checked = Result<(), Violation>;

pub(crate) fn violation(invariant: &'static str, seen: impl Into<String>) -> Violation {
    Violation { invariant, seen: seen.into() }
}
