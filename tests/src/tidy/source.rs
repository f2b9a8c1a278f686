//! Rules about the text of source files.

use super::{FILE_LINES_MAX, SourceFile};

/// Words confined to one file: (what, pieces of code that show it, files where it may stand).
const CONFINED: &[(&str, &[&str], &[&str])] = &[
    (
        "unsafe code",
        &["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern", "unsafe("],
        &["jepsen/clock/src/lib.rs", "tests/sim/entropy.rs"],
    ),
    ("bincode", &["bincode::", "use bincode", "extern crate bincode"], &["state/src/codec.rs"]),
];

/// This folder holds the forbidden words as its tables and test texts.
const OWN_FOLDER: &str = "tests/src/tidy/";

/// Complaints about Rust files longer than [`FILE_LINES_MAX`] lines.
#[must_use]
pub fn sizes(files: &[SourceFile]) -> Vec<String> {
    rust(files)
        .filter(|file| file.text.lines().count() > FILE_LINES_MAX)
        .map(|file| {
            format!(
                "{}: {} lines, at most {FILE_LINES_MAX}; split it by noun, one main type a file",
                file.path,
                file.text.lines().count()
            )
        })
        .collect()
}

/// Complaints about Rust files that do not begin with a `//!` header. A module's `tests.rs` needs
/// none: what it is, its parent says.
#[must_use]
pub fn headers(files: &[SourceFile]) -> Vec<String> {
    rust(files)
        .filter(|file| !file.path.ends_with("/tests.rs"))
        .filter(|file| {
            let first =
                file.text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("#!["));
            !first.is_some_and(|line| line.starts_with("//!"))
        })
        .map(|file| {
            format!(
                "{}: no `//!` header; say in a line or two what it is, what it is not, and its invariants",
                file.path
            )
        })
        .collect()
}

/// Complaints about a `matches!(...)` that stands as a statement: its value is thrown away, so a
/// test that ends with it passes whatever happened.
#[must_use]
pub fn bare_matches(files: &[SourceFile]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in rust(files).filter(|file| !file.path.starts_with(OWN_FOLDER)) {
        let mut before = "{";
        for (number, line) in code_lines(&file.text) {
            let starts = before.ends_with([';', '{', '}', ']']);
            if starts && line.starts_with("matches!(") && ends_statement(&file.text, number) {
                complaints.push(format!(
                    "{}:{number}: a bare `matches!` asserts nothing; write assert!(matches!(..)) or a `let .. else`",
                    file.path
                ));
            }
            before = line;
        }
    }
    complaints
}

/// Complaints about absolute paths of one machine in any tracked text file.
#[must_use]
pub fn machine_paths(files: &[SourceFile]) -> Vec<String> {
    let marks = ["/root/", "/home/", "/Users/", "/mnt/"];
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| !file.path.starts_with(OWN_FOLDER)) {
        for (number, line) in file.text.lines().enumerate() {
            for mark in marks {
                let at_start = line.match_indices(mark).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    !before.is_some_and(|c| c.is_alphanumeric() || "._-/}".contains(c))
                });
                if at_start {
                    complaints.push(format!(
                        "{}:{}: `{mark}` is a path of one machine; use a path from the repository's root, \
                         a temporary directory or an environment variable",
                        file.path,
                        number + 1
                    ));
                }
            }
        }
    }
    complaints
}

/// Complaints about code that is confined to one file and stands in another.
#[must_use]
pub fn confined(files: &[SourceFile]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in rust(files).filter(|file| !file.path.starts_with(OWN_FOLDER)) {
        for (what, pieces, allowed) in CONFINED {
            if allowed.contains(&file.path.as_str()) {
                continue;
            }
            for (number, line) in code_lines(&file.text) {
                if pieces.iter().any(|piece| line.contains(piece)) {
                    complaints.push(format!(
                        "{}:{number}: {what} belongs to {} only; call what that module offers, or widen it",
                        file.path,
                        allowed.join(", ")
                    ));
                }
            }
        }
    }
    complaints
}

fn rust(files: &[SourceFile]) -> impl Iterator<Item = &SourceFile> {
    files.iter().filter(|file| file.path.ends_with(".rs"))
}

/// Trimmed lines with their numbers, without blank lines and line comments.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default().trim()))
        .filter(|(_, line)| !line.is_empty())
}

/// Whether the macro call that starts on this line (from 1) is closed by `);`.
fn ends_statement(text: &str, number: usize) -> bool {
    let mut depth = 0_usize;
    let rest = text.lines().skip(number - 1);
    for (at, letter) in rest.flat_map(|line| line.chars()).enumerate() {
        match letter {
            '(' => depth += 1,
            ')' if depth == 1 => {
                let after = text.lines().skip(number - 1).flat_map(str::chars).nth(at + 1);
                return after == Some(';');
            }
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Vec<SourceFile> {
        vec![SourceFile { path: path.to_owned(), text: text.to_owned() }]
    }

    #[test]
    fn a_file_of_501_lines_is_too_long_and_500_is_not() {
        assert_eq!(sizes(&file("a.rs", &"x\n".repeat(500))).len(), 0);
        assert_eq!(sizes(&file("a.rs", &"x\n".repeat(501))).len(), 1);
        assert_eq!(sizes(&file("a.md", &"x\n".repeat(501))).len(), 0);
    }

    #[test]
    fn a_file_needs_a_header_before_its_first_item() {
        assert_eq!(headers(&file("a.rs", "\n//! What.\nuse x;\n")).len(), 0);
        assert_eq!(headers(&file("a.rs", "#![cfg(x)]\n//! What.\n")).len(), 0);
        assert_eq!(headers(&file("a.rs", "// not a header\n")).len(), 1);
        assert_eq!(headers(&file("a.rs", "")).len(), 1);
        assert_eq!(headers(&file("src/a/tests.rs", "use super::*;\n")).len(), 0);
    }

    #[test]
    fn a_matches_whose_value_is_dropped_is_found_over_several_lines_too() {
        let bad = "fn t() {\n    let a = f();\n    matches!(a, Some(1));\n}\n";
        let long = "fn t() {\n    matches!(\n        a,\n        Some((1, _))\n    );\n}\n";
        assert_eq!(bare_matches(&file("a.rs", bad)).len(), 1);
        assert_eq!(bare_matches(&file("a.rs", long)).len(), 1);
    }

    #[test]
    fn a_matches_that_is_used_is_left_alone() {
        for good in [
            "fn t() {\n    assert!(\n        matches!(a, Some(1)),\n    );\n}\n",
            "fn t() -> bool {\n    matches!(a, Some(1))\n}\n",
            "fn t() {\n    let x =\n        matches!(a, Some(1));\n}\n",
            "fn t() -> bool {\n    f();\n    matches!(a, 1) && b\n}\n",
        ] {
            assert_eq!(bare_matches(&file("a.rs", good)).len(), 0, "{good}");
        }
    }

    #[test]
    fn a_path_of_one_machine_is_found_in_any_text_file() {
        assert_eq!(machine_paths(&file("README.md", "see /home/x")).len(), 1);
        assert_eq!(machine_paths(&file("a.rs", "\"/root/a\"")).len(), 1);
        assert_eq!(machine_paths(&file("a.rs", "target/home/x {d}/home/")).len(), 0);
    }

    #[test]
    fn confined_code_is_found_elsewhere_but_not_in_comments() {
        assert_eq!(confined(&file("engine/src/log.rs", "unsafe { f() }")).len(), 1);
        assert_eq!(confined(&file("jepsen/clock/src/lib.rs", "unsafe { f() }")).len(), 0);
        assert_eq!(confined(&file("raft/src/vote.rs", "use bincode::Options;")).len(), 1);
        assert_eq!(confined(&file("state/src/codec.rs", "use bincode::Options;")).len(), 0);
        assert_eq!(confined(&file("a.rs", "//! No unsafe { } here\n")).len(), 0);
    }
}
