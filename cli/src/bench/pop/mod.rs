//! `folio bench pop`: pops messages and acknowledges them.
//!
//! | module | what it holds |
//! |---|---|
//! | [`options`] | what was asked for, checked |
//! | [`exchange`] | requests, and the handles in their answers |
//! | [`popper`] | one connection of the load |

mod exchange;
pub(super) mod options;
mod popper;

use anyhow::Result;

use self::exchange::Question;
use self::options::PopOptions;
use self::popper::Popper;
use super::send::share;
use super::target::Target;

/// The connections of the load, spread over the brokers.
pub(super) fn poppers(targets: &[Target], options: &PopOptions) -> Result<Vec<Popper>> {
    let question = Question {
        topic: options.common.topic.as_str().into(),
        group: options.group.as_str().into(),
        batch: options.batch.try_into()?,
        invisible_ms: options.invisible_ms.try_into()?,
        follow: options.follow,
        acks: options.acks,
    };
    let connections = options.connections().max(targets.len()).min(options.outstanding);
    let one = |index| {
        let slots = share(options.outstanding, connections, index);
        Popper::new(&targets[index % targets.len()].broker, question.clone(), slots)
    };
    Ok((0..connections).map(one).collect())
}
