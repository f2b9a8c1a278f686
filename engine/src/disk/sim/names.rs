//! The names on a simulated disk, and changes of names that are not durable yet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Node {
    Directory,
    /// A file, by its number.
    File(u64),
}

/// One change of names. A rename is one change even across directories: journals keep it whole.
#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Put { path: PathBuf, node: Node },
    Drop { path: PathBuf },
    Move { from: PathBuf, to: PathBuf },
}

impl NameChange {
    /// The directories whose content changes.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Path> {
        let (one, two) = match self {
            NameChange::Put { path, .. } | NameChange::Drop { path } => (path, None),
            NameChange::Move { from, to } => (from, Some(to)),
        };
        [Some(one), two].into_iter().flatten().filter_map(|path| path.parent())
    }
}

/// A tree of names. The root, and the empty path, are always there.
#[derive(Clone, Default)]
pub(super) struct Names {
    entries: BTreeMap<PathBuf, Node>,
}

impl Names {
    pub(super) fn get(&self, path: &Path) -> Option<Node> {
        if path.parent().is_none() { Some(Node::Directory) } else { self.entries.get(path).copied() }
    }

    pub(super) fn is_directory(&self, path: &Path) -> bool {
        self.get(path) == Some(Node::Directory)
    }

    /// The names directly inside a directory, sorted.
    pub(super) fn children(&self, directory: &Path) -> Vec<PathBuf> {
        let below = self.entries.range(directory.to_path_buf()..).map(|(path, _)| path);
        let below = below.take_while(|path| path.starts_with(directory));
        below.filter(|path| path.parent() == Some(directory)).cloned().collect()
    }

    /// Everything below a path, and the path itself; a directory comes before what is in it.
    pub(super) fn tree(&self, path: &Path) -> Vec<(PathBuf, Node)> {
        let below = self.entries.range(path.to_path_buf()..).take_while(|(at, _)| at.starts_with(path));
        below.map(|(at, node)| (at.clone(), *node)).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PathBuf, Node)> {
        self.entries.iter().map(|(path, node)| (path, *node))
    }

    pub(super) fn apply(&mut self, change: &NameChange) {
        match change {
            NameChange::Put { path, node } => {
                self.entries.insert(path.clone(), *node);
            }
            NameChange::Drop { path } => {
                self.take(path);
            }
            NameChange::Move { from, to } => {
                let moved = self.take(from);
                // Nothing to move: the name was never durable, and what is at `to` stays.
                if moved.is_empty() {
                    return;
                }
                self.take(to);
                for (path, node) in moved {
                    let path = match path.strip_prefix(from) {
                        Ok(rest) if rest.as_os_str().is_empty() => to.clone(),
                        Ok(rest) => to.join(rest),
                        Err(_) => continue,
                    };
                    self.entries.insert(path, node);
                }
            }
        }
    }

    /// Drops names whose directory does not exist: synced into a directory that was not durable itself.
    pub(super) fn drop_orphans(&mut self) {
        // Directories sort before what is in them, so one pass sees parents first.
        let mut kept = Names::default();
        for (path, node) in std::mem::take(&mut self.entries) {
            if path.parent().is_some_and(|parent| kept.is_directory(parent)) {
                kept.entries.insert(path, node);
            }
        }
        *self = kept;
    }

    fn take(&mut self, path: &Path) -> Vec<(PathBuf, Node)> {
        let tree = self.tree(path);
        for (at, _) in &tree {
            self.entries.remove(at);
        }
        tree
    }
}
