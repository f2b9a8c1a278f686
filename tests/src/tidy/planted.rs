//! Defects on purpose stay out of every ordinary build.

use super::SourceFile;

/// Complaints about a manifest that turns the feature `planted` on by itself.
///
/// A crate may have the feature and pass it on to another crate's; nothing may ask for it: neither `default`, nor a
/// dependency's `features`.
#[must_use]
pub fn planted(files: &[SourceFile]) -> Vec<String> {
    let manifests = files.iter().filter(|file| file.path.ends_with("Cargo.toml"));
    manifests.filter_map(|file| complaint(&file.path, &file.text)).collect()
}

fn complaint(path: &str, text: &str) -> Option<String> {
    let manifest: toml::Table = match text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return Some(format!("{path}: not TOML: {error}")),
    };
    let asks = asks(&toml::Value::Table(manifest), "");
    asks.then(|| {
        format!("{path}: turns the feature `planted` on: only a person does that, with --features planted")
    })
}

/// Whether a list named `default` or a dependency's `features` has it.
fn asks(value: &toml::Value, key: &str) -> bool {
    match value {
        toml::Value::Table(table) => {
            let in_features = key == "features";
            table.iter().any(|(key, value)| (!in_features || key == "default") && asks(value, key))
        }
        toml::Value::Array(list) if key == "default" || key == "features" => {
            list.iter().filter_map(toml::Value::as_str).any(|name| name.contains("planted"))
        }
        toml::Value::Array(list) => list.iter().any(|value| asks(value, key)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> usize {
        planted(&[SourceFile { path: "x/Cargo.toml".to_owned(), text: text.to_owned() }]).len()
    }

    #[test]
    fn having_and_passing_on_the_feature_is_silent() {
        assert_eq!(complaints("[features]\nplanted = [\"folio-engine/planted\"]\n"), 0);
        assert_eq!(complaints("[features]\ndefault = [\"fast\"]\nplanted = []\n"), 0);
    }

    #[test]
    fn asking_for_it_is_a_breach() {
        assert_eq!(complaints("[features]\ndefault = [\"planted\"]\nplanted = []\n"), 1);
        let dependency = "folio-raft = { path = \"../raft\", features = [\"planted\"] }\n";
        assert_eq!(complaints(&format!("[dependencies]\n{dependency}")), 1);
        assert_eq!(complaints(&format!("[target.'cfg(unix)'.dev-dependencies]\n{dependency}")), 1);
        assert_eq!(complaints(&format!("[workspace.dependencies]\n{dependency}")), 1);
    }
}
