//! Topic attributes and the notation of their changes: `+name=value,-name`.

use std::collections::BTreeMap;

use crate::error::BrokerError;

/// Attributes RocketMQ 5 knows, with the values they may have; none listed means any.
const KNOWN: [(&str, &[&str]); 4] = [
    ("queue.type", &["SimpleCQ", "BatchCQ"]),
    ("cleanup.policy", &["DELETE", "COMPACTION"]),
    ("message.type", &["UNSPECIFIED", "NORMAL", "FIFO", "DELAY", "TRANSACTION", "MIXED"]),
    ("reserve.time", &[]),
];

/// The attributes after the changes.
pub(super) fn change(
    before: Option<&BTreeMap<String, String>>,
    changes: &str,
) -> Result<BTreeMap<String, String>, BrokerError> {
    let mut attributes = before.cloned().unwrap_or_default();
    for change in changes.split(',').map(str::trim).filter(|change| !change.is_empty()) {
        if let Some((name, value)) = change.strip_prefix('+').and_then(|change| change.split_once('=')) {
            check(name, value)?;
            attributes.insert(name.to_owned(), value.to_owned());
        } else if let Some(name) = change.strip_prefix('-') {
            attributes.remove(name);
        } else {
            return Err(BrokerError::InvalidParameter(format!(
                "the attribute change {change:?} is malformed, expected +name=value or -name"
            )));
        }
    }
    Ok(attributes)
}

fn check(name: &str, value: &str) -> Result<(), BrokerError> {
    let Some((_, values)) = KNOWN.iter().find(|(known, _)| *known == name) else {
        return Err(BrokerError::InvalidParameter(format!("unsupported key: {name}")));
    };
    if !values.is_empty() && !values.contains(&value) {
        let expected = values.join(", ");
        return Err(BrokerError::InvalidParameter(format!(
            "the attribute {name} has the value {value:?}, expected one of {expected}"
        )));
    }
    Ok(())
}

/// Attributes of a config body as changes: their names carry the sign already, or are plain.
pub fn as_changes(attributes: &BTreeMap<String, String>) -> String {
    let changes = attributes.iter().map(|(name, value)| match name.as_bytes().first() {
        Some(b'-') => name.clone(),
        Some(b'+') => format!("{name}={value}"),
        _ => format!("+{name}={value}"),
    });
    changes.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn changes_add_replace_and_remove() {
        let before = map(&[("message.type", "NORMAL"), ("queue.type", "SimpleCQ")]);
        let after =
            change(Some(&before), "+message.type=FIFO, -queue.type,+reserve.time=5").expect("changed");
        assert_eq!(after, map(&[("message.type", "FIFO"), ("reserve.time", "5")]));
    }

    #[test]
    fn unknown_names_and_values_and_malformed_changes_are_refused() {
        for changes in ["+colour=red", "+message.type=BLUE", "message.type=FIFO", "+message.type"] {
            assert!(change(None, changes).is_err(), "{changes}");
        }
        assert_eq!(change(None, "").expect("nothing to change"), BTreeMap::new());
    }

    #[test]
    fn a_configs_attributes_are_changes_with_or_without_a_sign() {
        let attributes = map(&[("+message.type", "FIFO"), ("-queue.type", ""), ("reserve.time", "5")]);
        let after = change(None, &as_changes(&attributes)).expect("changed");
        assert_eq!(after, map(&[("message.type", "FIFO"), ("reserve.time", "5")]));
    }
}
