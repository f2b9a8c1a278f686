//! The modules of one crate, and to which file a path in one of them leads.

use std::collections::BTreeMap;

use super::SourceFile;
use super::imports::{self, Binding, Path, Scope};

/// A crate's modules, its root first.
#[derive(Debug, Default)]
pub(super) struct Modules {
    all: Vec<Module>,
}

#[derive(Debug)]
struct Module {
    /// Path of its file in the repository.
    file: String,
    parent: usize,
    children: BTreeMap<String, usize>,
    scope: Scope,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Module(usize),
    /// An item, by the module that defines it.
    Item(usize, String),
    /// Of another crate, or the language's.
    Elsewhere,
}

/// More names than a chain of re-exports has; a chain that leads back to its begin ends here.
const STEPS_MAX: usize = 64;

impl Modules {
    /// Reads the modules below a crate's root, such as `engine/src/lib.rs`. Modules that only tests have are left out.
    ///
    /// # Errors
    /// A complaint about a file that cannot be read as Rust.
    pub(super) fn read(root: &str, files: &BTreeMap<&str, &SourceFile>) -> Result<Self, String> {
        let mut modules = Self::default();
        modules.add_file(root, 0, files)?;
        Ok(modules)
    }

    fn add_file(
        &mut self,
        path: &str,
        parent: usize,
        files: &BTreeMap<&str, &SourceFile>,
    ) -> Result<usize, String> {
        let text = files.get(path).map_or("", |file| file.text.as_str());
        let scope = imports::read(text).map_err(|error| format!("{path}: not Rust: {error}"))?;
        self.add(scope, path, &folder(path, parent == self.all.len()), parent, files)
    }

    fn add(
        &mut self,
        mut scope: Scope,
        file: &str,
        folder: &str,
        parent: usize,
        files: &BTreeMap<&str, &SourceFile>,
    ) -> Result<usize, String> {
        let children = std::mem::take(&mut scope.children);
        let id = self.all.len();
        self.all.push(Module { file: file.to_owned(), parent, children: BTreeMap::new(), scope });
        for (name, inline) in children {
            let child = if let Some(inline) = inline {
                self.add(inline, file, &format!("{folder}/{name}"), id, files)?
            } else {
                let paths = [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")];
                let Some(path) = paths.iter().find(|path| files.contains_key(path.as_str())) else {
                    return Err(format!("{file}: declares the module {name}, whose file is not there"));
                };
                self.add_file(path, id, files)?
            };
            self.all[id].children.insert(name, child);
        }
        Ok(id)
    }

    /// Every import between two files: (importing file, imported file, name).
    #[must_use]
    pub(super) fn imports(&self) -> Vec<(&str, &str, String)> {
        let mut found = Vec::new();
        for (id, module) in self.all.iter().enumerate() {
            let scope = &module.scope;
            // A re-export counts where its name is used, in this file or in others.
            let uses = scope.bindings.iter().filter(|binding| !binding.exported).map(|binding| &binding.path);
            for path in uses.chain(&scope.paths) {
                if let Target::Item(to, name) = self.resolve(id, path, 0)
                    && self.all[to].file != module.file
                {
                    found.push((module.file.as_str(), self.all[to].file.as_str(), name));
                }
            }
        }
        found
    }

    fn resolve(&self, from: usize, path: &[String], steps: usize) -> Target {
        let Some((first, mut rest)) = path.split_first() else { return Target::Module(from) };
        let mut target = match first.as_str() {
            "crate" => Target::Module(0),
            "self" => Target::Module(from),
            "super" => Target::Module(self.all[from].parent),
            name => self.find(from, name, rest.is_empty(), steps).unwrap_or(Target::Elsewhere),
        };
        while let (Target::Module(at), Some((name, behind))) = (&target, rest.split_first()) {
            let at = *at;
            target = match name.as_str() {
                "super" => Target::Module(self.all[at].parent),
                "self" => Target::Module(at),
                // A name that a macro made, or an item that is not looked for.
                name => self
                    .find(at, name, behind.is_empty(), steps)
                    .unwrap_or_else(|| Target::Item(at, name.to_owned())),
            };
            rest = behind;
        }
        target
    }

    /// What a name means in a module, if anything there says so.
    fn find(&self, module: usize, name: &str, is_last: bool, steps: usize) -> Option<Target> {
        if steps > STEPS_MAX {
            return None;
        }
        let Module { children, scope, .. } = &self.all[module];
        let item = || scope.defined.contains(name).then(|| Target::Item(module, name.to_owned()));
        let child = || children.get(name).map(|child| Target::Module(*child));
        // A module and an item may share a name.
        let own = if is_last { item().or_else(child) } else { child().or_else(item) };
        own.or_else(|| self.bound(module, name, steps))
            .or_else(|| self.in_globs(module, name, is_last, steps))
    }

    fn bound(&self, module: usize, name: &str, steps: usize) -> Option<Target> {
        let bindings = &self.all[module].scope.bindings;
        let named = bindings.iter().filter(|binding| binding.name == name);
        let targets: Vec<_> = named.map(|binding| self.resolve_binding(module, binding, steps)).collect();
        // One of several may be of another crate: a function beside the module of its name.
        let ours = targets.iter().find(|target| **target != Target::Elsewhere);
        ours.or(targets.first()).cloned()
    }

    fn resolve_binding(&self, module: usize, binding: &Binding, steps: usize) -> Target {
        // `use name;` is a crate's or a child's, never itself.
        match binding.path.as_slice() {
            [only] if *only == binding.name => match self.all[module].children.get(only) {
                Some(child) => Target::Module(*child),
                None => Target::Elsewhere,
            },
            path => self.resolve(module, path, steps + 1),
        }
    }

    fn in_globs(&self, module: usize, name: &str, is_last: bool, steps: usize) -> Option<Target> {
        let globs: &[Path] = &self.all[module].scope.globs;
        globs.iter().find_map(|path| match self.resolve(module, path, steps + 1) {
            Target::Module(other) if other != module => self.find(other, name, is_last, steps + 1),
            _ => None,
        })
    }
}

/// Where the files of a file's child modules are.
fn folder(path: &str, is_root: bool) -> String {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    match stem.rsplit_once('/') {
        Some((folder, name)) if is_root || name == "mod" => folder.to_owned(),
        _ => stem.to_owned(),
    }
}
