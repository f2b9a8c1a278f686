//! What a checker found, and whether it fails the run.

/// Examples a finding carries; the count says how many there are.
const EXAMPLES_MAX: usize = 10;

/// What one checker found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The property's name.
    pub name: &'static str,
    /// How often it was broken.
    pub count: u64,
    /// Whether a count above zero fails the run.
    pub fatal: bool,
    /// The first few, in words.
    pub examples: Vec<String>,
}

impl Finding {
    /// A property nothing may break.
    #[must_use]
    pub fn fatal(name: &'static str) -> Self {
        Self { name, fatal: true, ..Self::default() }
    }

    /// Something counted, not judged.
    #[must_use]
    pub fn counted(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    /// Adds one breach.
    pub fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }

    /// Whether it fails the run.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.fatal && self.count > 0
    }
}
