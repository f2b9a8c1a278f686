//! Which crate may depend on which: the layering of the workspace as a table.

use super::SourceFile;

/// Crate folder, our crates it may use, outside crates it must not use.
///
/// * engine has no sockets, no runtime and no consensus: it can be simulated in one thread.
/// * jepsen shares no code with what it checks: a checker that does agrees with its subject's bugs.
/// * openraft is touched by `raft` only, bincode by `state` only.
const RULES: &[(&str, &[&str], &[&str])] = &[
    ("protocol", &[], &["tokio", "openraft", "bincode", "memmap2", "rustix"]),
    ("engine", &["protocol"], &["tokio", "openraft", "bincode"]),
    ("state", &["protocol"], &["tokio", "openraft", "rustix", "getrandom", "parking_lot", "tracing"]),
    ("raft", &["protocol", "engine", "state"], &["bincode"]),
    ("broker", &["protocol", "engine", "state", "raft"], &["openraft", "bincode"]),
    ("server", &["protocol", "engine", "state", "raft", "broker"], &["openraft", "bincode"]),
    ("cli", &["protocol", "engine", "state", "raft", "broker", "server"], &["openraft", "bincode"]),
    ("jepsen", &["protocol"], &["openraft", "bincode"]),
    ("jepsen/clock", &[], &["tokio", "openraft", "bincode"]),
    ("tests", &["protocol", "jepsen", "engine", "state", "raft"], &["openraft", "bincode"]),
    ("benches", &["protocol", "engine", "state", "raft"], &["openraft", "bincode"]),
];

/// Complaints about a dependency arrow that the table does not have.
///
/// Looks at `[dependencies]`, `[dev-dependencies]`, `[build-dependencies]` and the same below
/// `[target.*]` of every crate folder's manifest.
#[must_use]
pub fn arrows(files: &[SourceFile]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (folder, ours, never) in RULES {
        let path = format!("{folder}/Cargo.toml");
        let Some(file) = files.iter().find(|file| file.path == path) else {
            complaints.push(format!(
                "{path}: missing; if the crate is gone, take it out of the table in tests/src/tidy/arrows.rs"
            ));
            continue;
        };
        let names = match dependencies(&file.text) {
            Ok(names) => names,
            Err(error) => {
                complaints.push(format!("{path}: not TOML: {error}"));
                continue;
            }
        };
        for name in names {
            let is_ours = name.strip_prefix("folio-");
            let wrong = is_ours.is_some_and(|name| !ours.contains(&name)) || never.contains(&name.as_str());
            if wrong {
                complaints.push(format!(
                    "{path}: must not depend on {name}; move the code to a crate that may, or make the new arrow \
                     a decision: ARCHITECTURE.md and the table in tests/src/tidy/arrows.rs"
                ));
            }
        }
    }
    complaints
}

fn dependencies(manifest: &str) -> Result<Vec<String>, toml::de::Error> {
    let manifest: toml::Table = manifest.parse()?;
    let mut names = names_in(&manifest);
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    for target in targets.into_iter().flat_map(|table| table.values()) {
        names.extend(target.as_table().map(names_in).unwrap_or_default());
    }
    Ok(names)
}

fn names_in(table: &toml::Table) -> Vec<String> {
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .iter()
        .filter_map(|kind| table.get(*kind).and_then(toml::Value::as_table))
        .flat_map(|entries| entries.iter())
        .map(|(key, value)| {
            // A renamed dependency hides behind `package`.
            let package = value.get("package").and_then(toml::Value::as_str);
            package.unwrap_or(key).to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(folder: &str, manifest: &str) -> Vec<SourceFile> {
        RULES
            .iter()
            .map(|(name, ..)| SourceFile {
                path: format!("{name}/Cargo.toml"),
                text: if *name == folder { manifest } else { "" }.to_owned(),
            })
            .collect()
    }

    #[test]
    fn the_allowed_arrows_are_silent() {
        let manifest = "[dependencies]\nfolio-protocol.workspace = true\nfolio-engine.workspace = true\n";
        assert_eq!(arrows(&workspace("raft", manifest)), Vec::<String>::new());
    }

    #[test]
    fn an_upward_arrow_is_named_in_every_kind_of_dependency_table() {
        for table in
            ["dependencies", "dev-dependencies", "build-dependencies", "target.'cfg(unix)'.dependencies"]
        {
            let manifest = format!("[{table}]\nfolio-raft.workspace = true\n");
            let found = arrows(&workspace("jepsen", &manifest));
            assert_eq!(found.len(), 1, "{table}");
            assert!(found[0].contains("jepsen/Cargo.toml") && found[0].contains("folio-raft"));
        }
    }

    #[test]
    fn a_renamed_dependency_does_not_slip_through() {
        let manifest = "[dependencies]\nrt = { package = \"tokio\", version = \"1\" }\n";
        assert_eq!(arrows(&workspace("engine", manifest)).len(), 1);
    }

    #[test]
    fn a_crate_that_is_gone_is_a_breach_of_the_table() {
        assert_eq!(arrows(&[]).len(), RULES.len());
    }
}
