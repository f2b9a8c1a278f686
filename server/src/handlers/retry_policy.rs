//! A consumer group's retry policy: how long retries wait, for clients that ask for it.
//!
//! It is kept as an attribute of the group, in JSON as RocketMQ's admin tools send it: every replica has it, and builds that do not know
//! it pass it on. The policy that a group has without asking for one is not kept.

use std::collections::BTreeMap;

use folio_protocol::body::{self, GroupRetryPolicy};

use crate::error::ServerError;

/// The attribute's name. Who sends an attribute of that name is not asked for a policy by it.
const ATTRIBUTE: &str = "folio.retry.policy";

/// Keeps a policy among the attributes of its group.
pub(super) fn keep(
    policy: &GroupRetryPolicy,
    attributes: &mut BTreeMap<String, String>,
) -> Result<(), ServerError> {
    attributes.remove(ATTRIBUTE);
    if *policy != GroupRetryPolicy::default() {
        let json = body::encode(policy).map_err(|error| ServerError::Internal(error.reason))?;
        attributes.insert(ATTRIBUTE.to_owned(), String::from_utf8_lossy(&json).into_owned());
    }
    Ok(())
}

/// Takes the policy out of the attributes that clients see.
pub(super) fn take(attributes: &mut BTreeMap<String, String>) -> GroupRetryPolicy {
    let kept = attributes.remove(ATTRIBUTE);
    kept.and_then(|json| body::decode(json.as_bytes()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use folio_protocol::body::{CustomizedRetryPolicy, ExponentialRetryPolicy, RetryPolicyKind};

    use super::*;

    fn again(policy: &GroupRetryPolicy, mut attributes: BTreeMap<String, String>) -> GroupRetryPolicy {
        keep(policy, &mut attributes).expect("kept");
        let taken = take(&mut attributes);
        assert_eq!(attributes.get(ATTRIBUTE), None, "clients do not see it");
        taken
    }

    #[test]
    fn a_policy_is_kept_as_it_was_sent() {
        let exponential = GroupRetryPolicy {
            kind: RetryPolicyKind::Exponential,
            exponential_retry_policy: Some(ExponentialRetryPolicy { initial: 7, max: 900, multiplier: 3 }),
            customized_retry_policy: None,
        };
        let customized = GroupRetryPolicy {
            customized_retry_policy: Some(CustomizedRetryPolicy { next: vec![1, 2] }),
            ..GroupRetryPolicy::default()
        };
        for policy in [exponential, customized, GroupRetryPolicy::default()] {
            assert_eq!(again(&policy, BTreeMap::new()), policy);
            assert_eq!(again(&policy, [(ATTRIBUTE.to_owned(), "{}".to_owned())].into()), policy);
        }
    }
}
