//! House rules, each a function from file texts to complaints.
//!
//! A rule never prints and never panics: it returns one sentence per breach, which names the
//! file (and line) and says how to mend it. Each rule has a unit test with a text that breaks it,
//! because a rule that cannot fail guards nothing.

mod arrows;
mod circles;
mod imports;
mod modules;
mod planted;
mod source;
mod tree;
mod wire;

pub use arrows::arrows;
pub use circles::circles;
pub use planted::planted;
pub use source::{bare_matches, confined, headers, machine_paths, sizes};
pub use tree::{SourceFile, TreeError, read_tree};
pub use wire::wire;

/// The longest a Rust file may be. House style aims at 250 lines and calls 500 a smell.
pub const FILE_LINES_MAX: usize = 500;

/// Complaints when the lock file does not hold exactly one `bincode`.
///
/// It is unmaintained and pinned; a second version would mean that a dependency brought its own.
#[must_use]
pub fn one_bincode(lock: &str) -> Vec<String> {
    let found = lock.lines().filter(|line| line.trim() == "name = \"bincode\"").count();
    if found == 1 {
        return Vec::new();
    }
    vec![format!(
        "Cargo.lock: {found} packages named bincode, expected exactly one (see [workspace.dependencies]); \
         `cargo tree -i bincode` shows who asks for it"
    )]
}

#[cfg(test)]
mod tests {
    use super::one_bincode;

    #[test]
    fn two_versions_of_bincode_are_a_breach() {
        let package = "[[package]]\nname = \"bincode\"\nversion = \"1.3.3\"\n";
        assert_eq!(one_bincode(package), Vec::<String>::new());
        assert_eq!(one_bincode(&package.repeat(2)).len(), 1);
        assert_eq!(one_bincode("").len(), 1);
    }
}
