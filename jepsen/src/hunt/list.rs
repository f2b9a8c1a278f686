//! What there is to choose from, with a line each.

use std::fmt;

use serde::Serialize;

use crate::checker;
use crate::hostile::attack;
use crate::nemesis;
use crate::netns;
use crate::network::Network;
use crate::workload::Kind;

/// One name and its line.
#[derive(Debug, Clone, Serialize)]
pub struct Item {
    /// Name on the command line, or in reports.
    pub name: String,
    /// What it does.
    pub about: String,
    /// Nodes it acts on, if it is a nemesis.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<&'static str>,
    /// Why it cannot be used here, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

/// Every workload, checker, nemesis and attack.
#[derive(Debug, Clone, Serialize)]
pub struct Listing {
    /// Networks.
    pub networks: Vec<Item>,
    /// Workloads.
    pub workloads: Vec<Item>,
    /// Checkers.
    pub checkers: Vec<Item>,
    /// Nemeses.
    pub nemeses: Vec<Item>,
    /// Attacks of the hostile family.
    pub attacks: Vec<Item>,
}

impl Listing {
    /// What is there, and can be used on this machine.
    #[must_use]
    pub fn here() -> Self {
        let item = |name: &str, about: &str| Item {
            name: name.to_owned(),
            about: about.to_owned(),
            targets: Vec::new(),
            skipped: None,
        };
        let nemeses = nemesis::all();
        let nemeses = nemeses.iter().map(|nemesis| Item {
            targets: nemesis.targets().iter().map(|target| target.name()).collect(),
            skipped: nemesis::available(&**nemesis, &Network::Relays).err().map(|why| why.to_string()),
            ..item(nemesis.name(), nemesis.about())
        });
        let namespaces = Item {
            skipped: netns::check().err(),
            ..item("namespaces", "each node in a network namespace of its own; the network itself is broken")
        };
        Self {
            networks: vec![item("relay", "a relay of ours on each link; needs no root"), namespaces],
            workloads: Kind::ALL.iter().map(|kind| item(kind.name(), kind.about())).collect(),
            checkers: checker::ALL.iter().map(|(name, about)| item(name, about)).collect(),
            nemeses: nemeses.collect(),
            attacks: attack::all().iter().map(|attack| item(attack.name(), attack.about())).collect(),
        }
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("networks", &self.networks),
            ("workloads", &self.workloads),
            ("checkers", &self.checkers),
            ("nemeses", &self.nemeses),
            ("attacks", &self.attacks),
        ];
        for (kind, items) in kinds {
            writeln!(f, "{kind}")?;
            for Item { name, about, targets, skipped } in items {
                write!(f, "  {name:<22} {about}")?;
                if !targets.is_empty() {
                    write!(f, " [{}]", targets.join(", "))?;
                }
                if let Some(why) = skipped {
                    write!(f, "; skipped: {why}")?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Listing;

    #[test]
    fn the_list_names_every_kind_with_a_line() {
        let listing = Listing::here();
        let text = listing.to_string();
        let Listing { networks, workloads, checkers, nemeses, attacks } = &listing;
        for item in [networks, workloads, checkers, nemeses, attacks].into_iter().flatten() {
            assert!(!item.about.is_empty() && text.contains(&item.name), "{item:?}");
        }
        assert!(text.contains("linearizable") && text.contains("poll-skip") && text.contains("kill"));
        assert!(text.contains("lock-bomb"));
    }
}
