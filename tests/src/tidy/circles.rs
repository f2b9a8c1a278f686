//! No circle of files: inside a crate, imports lead in one direction.
//!
//! Files in a circle can be read, tested and moved only all together. What counts as an import of file B by file A:
//!
//! * a name of B in A, in a `use` line or in a path, in code and in macros; the names that A gets through `use x::*`, too;
//! * the file is the one that *defines* the name. A re-export (`pub use` in a `mod.rs`) only passes a name on: who takes
//!   `Unit` from `queues/mod.rs` imports `queues/unit.rs`, and the re-export itself imports nothing unless its file uses the name;
//! * a parent that uses names of its child imports the child, and a child that uses names of its parent the parent.
//!   `mod child;` alone is no import: it says where the file is;
//! * what `#[cfg(test)]` marks does not count: a test may look at everything.
//!
//! A method that is called on a value is not seen: only the type's name is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::SourceFile;
use super::modules::Modules;

/// Circles from before the rule: a folder, and how many files below it are in circles. The list only becomes shorter, and
/// its numbers smaller; a number that is too high is a complaint, too.
const EXCEPTED: &[(&str, usize)] = &[];

/// For each file the files that it imports, each with the names.
type Imports = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Complaints about files of a crate that import each other in a circle.
///
/// Each `lib.rs` and each `main.rs` is a crate for Rust, with the modules that it declares.
#[must_use]
pub fn circles(files: &[SourceFile]) -> Vec<String> {
    circles_but(files, EXCEPTED)
}

fn circles_but(files: &[SourceFile], excepted: &[(&str, usize)]) -> Vec<String> {
    let by_path = files.iter().map(|file| (file.path.as_str(), file)).collect();
    let mut complaints = Vec::new();
    let mut left: BTreeMap<&str, Vec<Circle>> = BTreeMap::new();
    for root in files.iter().filter(|file| file.path.ends_with("/lib.rs") || file.path.ends_with("/main.rs"))
    {
        let modules = match Modules::read(&root.path, &by_path) {
            Ok(modules) => modules,
            Err(complaint) => {
                complaints.push(complaint);
                continue;
            }
        };
        let imports = by_file(&modules);
        for files in components(&imports) {
            let exception =
                excepted.iter().find(|(folder, _)| files.iter().all(|file| is_below(file, folder)));
            match exception {
                Some((folder, _)) => left.entry(folder).or_default().push(Circle::of(&imports, &files)),
                None => complaints.push(Circle::of(&imports, &files).complaint()),
            }
        }
    }
    for (folder, allowed) in excepted {
        let circles = left.remove(folder).unwrap_or_default();
        let found: usize = circles.iter().map(|circle| circle.files).sum();
        if found == *allowed {
            continue;
        }
        let remedy = match found {
            0 => "take the folder out of the list",
            _ if found < *allowed => "lower the number",
            _ => "mend what was added: the list only becomes shorter",
        };
        let each: Vec<_> = circles.iter().map(Circle::to_string).collect();
        complaints.push(format!(
            "{folder}: {found} files in circles, {allowed} in the list of tests/src/tidy/circles.rs; {remedy}. The circles: {}",
            each.join("; ")
        ));
    }
    complaints
}

fn is_below(file: &str, folder: &str) -> bool {
    file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn by_file(modules: &Modules) -> Imports {
    let mut imports = Imports::new();
    for (from, to, name) in modules.imports() {
        let names = imports.entry(from.to_owned()).or_default().entry(to.to_owned()).or_default();
        names.insert(name);
    }
    imports
}

/// A circle, for people.
struct Circle {
    files: usize,
    /// The first file of the shortest way round.
    first: String,
    /// The shortest way round, with the names that are imported.
    steps: String,
}

impl Circle {
    fn of(imports: &Imports, files: &[String]) -> Self {
        let shortest = shortest(imports, files);
        let onward = shortest.iter().cycle().skip(1);
        let step = |(from, to): (&String, &String)| {
            let names: Vec<_> = imports[from][to].iter().map(String::as_str).collect();
            format!("{from} -> {to} ({})", names.join(", "))
        };
        let steps: Vec<_> = shortest.iter().zip(onward).map(step).collect();
        Self { files: files.len(), first: shortest[0].clone(), steps: steps.join(", ") }
    }

    fn complaint(&self) -> String {
        format!(
            "{}: {self}. Move what both sides use into a file below both (types down), or the code that needs both into a \
             file above (behaviour up); tests/src/tidy/circles.rs says what counts",
            self.first
        )
    }
}

impl std::fmt::Display for Circle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} files import each other in a circle; the shortest: {}", self.files, self.steps)
    }
}

/// Sets of two or more files each of which can be reached from each other one (strongly connected components).
fn components(imports: &Imports) -> Vec<Vec<String>> {
    let reached: BTreeMap<_, _> = imports.keys().map(|file| (file, distances(imports, file))).collect();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (&file, ahead) in &reached {
        let back = |other: &&String| reached.get(other).is_some_and(|reached| reached.contains_key(file));
        if ahead.contains_key(file) && !seen.contains(file) {
            let circle: Vec<String> = ahead.keys().filter(back).cloned().collect();
            seen.extend(circle.iter().cloned());
            found.push(circle);
        }
    }
    found
}

/// Every file that can be reached from one, with the file before it on a shortest way; the first one too, if a way leads back.
fn distances(imports: &Imports, first: &str) -> BTreeMap<String, String> {
    let mut before = BTreeMap::new();
    let mut waiting = VecDeque::from([first.to_owned()]);
    while let Some(file) = waiting.pop_front() {
        for next in imports.get(&file).into_iter().flat_map(BTreeMap::keys) {
            if !before.contains_key(next) {
                before.insert(next.clone(), file.clone());
                waiting.push_back(next.clone());
            }
        }
    }
    before
}

/// The files of a shortest circle, in the order of their imports.
fn shortest(imports: &Imports, circle: &[String]) -> Vec<String> {
    let ways = circle.iter().map(|first| {
        let before = distances(imports, first);
        let mut way = vec![first.clone()];
        while let Some(file) = way.last().and_then(|last| before.get(last)).filter(|file| *file != first) {
            way.push(file.clone());
        }
        way.reverse();
        way.rotate_right(1);
        way
    });
    ways.min_by_key(Vec::len).unwrap_or_default()
}

#[cfg(test)]
mod tests;
