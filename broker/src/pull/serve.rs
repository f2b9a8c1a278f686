//! The order in which a pull is looked at: where its offset stands in the queue, and what comes of that.

use std::sync::Arc;
use std::time::Duration;

use folio_raft::proposal::ProposeError;

use super::found::{respond_found, unreadable};
use super::hold::park;
use super::on_disk;
use super::read::{self, Age};
use super::respond::{Pull, Puller, Status, bounds, respond};
use super::scan::{Place, place};
use crate::broker::Broker;
use crate::error::BrokerError;

/// A pull is held at most this long, whatever it asks for; clients ask for 15 to 20 s.
const SUSPEND_MAX: Duration = Duration::from_secs(120);
/// How long a follower waits for what the leader seems to have and it has not.
const CATCH_UP: Duration = Duration::from_secs(1);
/// Pause before an offset is answered that could not be checked, so that the client does not spin.
const UNCHECKED_PAUSE: Duration = Duration::from_millis(100);

/// How often a pull was looked at, and with what certainty.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// It may still be held.
    First,
    /// It was held; now it is answered.
    Held,
    /// This node leads and has applied everything: even "outside the queue" may be answered.
    Sure,
}

/// Serves a pull that just came.
pub(super) fn serve(broker: &Arc<Broker>, pull: Pull, puller: impl Puller) {
    answer(broker, pull, puller, Pass::First);
}

/// Serves a pull that was held.
fn release<P: Puller>(broker: &Arc<Broker>, pull: Pull, puller: P) {
    answer(broker, pull, puller, Pass::Held);
}

fn answer(broker: &Arc<Broker>, pull: Pull, puller: impl Puller, pass: Pass) {
    let bounds = bounds(broker, &pull);
    match place(bounds, pull.offset) {
        Place::Within => found(broker, pull, puller),
        Place::End => nothing(broker, pull, puller, pass),
        Place::Empty if pull.offset == 0 => nothing(broker, pull, puller, pass),
        Place::Empty | Place::Beyond => outside(broker, pull, puller, pass),
        Place::Below if broker.leads() => {
            let min = bounds.map_or(0, |(min, _)| min);
            respond(broker, &pull, puller, Status::Moved, min as i64, Vec::new());
        }
        Place::Below => puller.answer(Err(BrokerError::AskLeader)),
    }
}

/// There are messages at the offset.
fn found(broker: &Arc<Broker>, pull: Pull, puller: impl Puller) {
    let from = pull.offset as u64;
    let batch = match read::choose(broker, pull.queue(), from, &pull.subject.filter, pull.limits) {
        Ok(batch) => batch,
        Err(error) => return unreadable(broker, pull, puller, error),
    };
    let age = read::age(broker, &batch);
    match age {
        Age::Fresh => {
            let parts = read::bytes(broker, pull.queue(), &batch);
            respond_found(broker, pull, puller, &batch, parts);
        }
        Age::Recent | Age::Cold => on_disk::found(broker.clone(), pull, puller, batch, age),
    }
}

/// The next message will answer it: hold it if it wants that.
fn nothing(broker: &Arc<Broker>, pull: Pull, puller: impl Puller, pass: Pass) {
    if pass == Pass::First && !pull.wait.is_zero() && puller.connection().is_some() {
        let wait = pull.wait.min(SUSPEND_MAX);
        park(broker, pull, puller, wait, release);
    } else {
        respond(broker, &pull, puller, Status::NothingNew, pull.offset, Vec::new());
    }
}

/// The offset is beyond all this node knows.
fn outside(broker: &Arc<Broker>, pull: Pull, puller: impl Puller, pass: Pass) {
    let leads = broker.leads();
    if pass == Pass::Sure {
        let max = bounds(broker, &pull).map_or(0, |(_, max)| max);
        respond(broker, &pull, puller, Status::Moved, max as i64, Vec::new());
    } else if leads {
        drop(tokio::spawn(make_sure(broker.clone(), pull, puller)));
    } else if pass == Pass::First && puller.connection().is_some() {
        park(broker, pull, puller, CATCH_UP, release);
    } else {
        puller.answer(Err(BrokerError::AskLeader));
    }
}

/// Proves that this node leads and has applied everything acknowledged, and looks again.
async fn make_sure(broker: Arc<Broker>, pull: Pull, puller: impl Puller) {
    match broker.group.confirm().await {
        Ok(()) => answer(&broker, pull, puller, Pass::Sure),
        // A leader without a quorum is not replaced yet: there is nobody to ask.
        Err(ProposeError::NotLeader { .. }) if !broker.leads() || puller.connection().is_none() => {
            puller.answer(Err(BrokerError::AskLeader));
        }
        Err(_) => {
            tokio::time::sleep(UNCHECKED_PAUSE).await;
            respond(&broker, &pull, puller, Status::NothingNew, pull.offset, Vec::new());
        }
    }
}
