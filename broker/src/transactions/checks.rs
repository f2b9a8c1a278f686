//! The leader's task that asks producers about transactions of which they have said nothing for a while, and gives up those that were
//! asked about too often.
//!
//! What is due is found in the applied state, some at a time for each producer group. A question that was handed to a connection counts, and
//! that it was is noted in the state then. Where no producer of the group lives nothing is asked, written, or counted.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use folio_protocol::half;
use folio_protocol::message::MessageView;
use folio_raft::driver::outcome;
use folio_state::sections::features::TRANSACTIONS;
use folio_state::sections::transactions::{OpenTransaction, Transactions};
use folio_state::{Ending, NoteChecks};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::producers::{Asked, ask};
use super::settings::Due;
use crate::broker::Broker;
use crate::clients::ProducerPlace;
use crate::clock::now_ms;
use crate::error::BrokerError;

/// How often is looked what is due.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Questions of one group that are made at the same time.
const AT_ONCE: usize = 16;
/// Transactions that are given up in one look.
const GIVEN_UP_AT_ONCE: usize = 64;
/// How long a note may take.
const NOTE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs until the node stops.
pub async fn run(broker: Arc<Broker>) {
    loop {
        sleep(LOOK_INTERVAL).await;
        if broker.leads() && !broker.group.is_settling() && broker.group.state().level() >= TRANSACTIONS {
            look(&broker).await;
        } else {
            broker.checks.clear();
        }
    }
}

/// What is due of one group.
#[derive(Default)]
struct DueOfGroup {
    ask: Vec<(u64, OpenTransaction)>,
    give_up: Vec<(u64, OpenTransaction)>,
}

async fn look(broker: &Arc<Broker>) {
    let transactions = broker.group.state().transactions().clone();
    broker.checks.forget(&transactions);
    if transactions.count() == 0 {
        return;
    }
    let groups: HashSet<&str> = transactions.groups().collect();
    let places = broker.clients.producer_places(&groups);
    for group in groups {
        let places = places.get(group).map_or(&[][..], Vec::as_slice);
        let due = due(broker, &transactions, group, !places.is_empty());
        give_up(broker, group, due.give_up).await;
        if let Err(error) = ask_all(broker, group, due.ask, places).await
            && broker.checks.troubles.admit().is_some()
        {
            tracing::warn!(%error, group, "producers are not asked about their transactions, trying again");
        }
    }
}

/// `transactions.I5`
fn due(broker: &Broker, transactions: &Transactions, group: &str, lives: bool) -> DueOfGroup {
    let (now_ms, settings) = (now_ms(), &broker.settings.transactions);
    let (mut room, mut bytes) = if lives { broker.checks.room(group) } else { (0, 0) };
    let mut due = DueOfGroup::default();
    for (id, open) in transactions.of(group) {
        match settings.due(open, now_ms) {
            Due::GiveUp if due.give_up.len() < GIVEN_UP_AT_ONCE => due.give_up.push((id, *open)),
            Due::Ask if room > 0 && bytes > 0 && !broker.checks.is_under_way(id) => {
                room -= 1;
                bytes = bytes.saturating_sub(open.bytes as usize);
                due.ask.push((id, *open));
            }
            Due::Ask if !lives && due.give_up.len() >= GIVEN_UP_AT_ONCE => break,
            _ => {}
        }
    }
    due
}

/// Asks about some transactions of a group, and notes which.
async fn ask_all(
    broker: &Arc<Broker>,
    group: &str,
    due: Vec<(u64, OpenTransaction)>,
    places: &[ProducerPlace],
) -> Result<(), BrokerError> {
    if due.is_empty() || places.is_empty() {
        return Ok(());
    }
    let (group, places): (Arc<str>, Arc<[ProducerPlace]>) = (group.into(), places.into());
    let mut asking = JoinSet::new();
    let mut asked = Vec::with_capacity(due.len());
    for (id, open) in due {
        if asking.len() >= AT_ONCE {
            match asking.join_next().await.and_then(Result::ok) {
                Some(One::Asked(id, checks)) => asked.push((id, checks)),
                // The others would wait for the same producers.
                Some(One::NotAsked) => break,
                Some(One::Ended) | None => {}
            }
        }
        let (broker, group, places) = (broker.clone(), group.clone(), places.clone());
        asking.spawn(async move { ask_one(&broker, &group, id, open, &places).await });
    }
    while let Some(one) = asking.join_next().await {
        if let Ok(One::Asked(id, checks)) = one {
            asked.push((id, checks));
        }
    }
    if asked.is_empty() {
        return Ok(());
    }
    let note = NoteChecks { group: group.to_string(), checks: asked, at_ms: now_ms() };
    let noted = outcome(|reply| broker.group.note_checks(note, reply));
    match timeout(NOTE_TIMEOUT, noted).await {
        Ok(noted) => Ok(noted?),
        Err(_) => Ok(()),
    }
}

/// What came of one question.
enum One {
    /// It was made; how often it was by now.
    Asked(u64, u32),
    /// Not now.
    NotAsked,
    /// There is nothing to be asked any more.
    Ended,
}

async fn ask_one(
    broker: &Arc<Broker>,
    group: &Arc<str>,
    id: u64,
    open: OpenTransaction,
    places: &[ProducerPlace],
) -> One {
    let Ok(Some((_memory, bytes))) = broker.half(id, &open).await else { return One::Ended };
    let checks = open.checks.saturating_add(1);
    let shown = MessageView::parse(&bytes).ok().and_then(|message| half::shown(&message, &bytes, checks));
    let Some(Ok(shown)) = shown else { return One::Ended };
    broker.checks.begin(id, group, shown.len());
    let turn = broker.checks.turn() % places.len();
    let (before, after) = places.split_at(turn);
    match ask(broker, group, shown, after.iter().chain(before)).await {
        Asked::Yes => One::Asked(id, checks),
        asked => {
            broker.checks.answered(id);
            if asked == Asked::Ended { One::Ended } else { One::NotAsked }
        }
    }
}

/// Gives transactions up: their messages go to a topic of their own.
async fn give_up(broker: &Arc<Broker>, group: &str, due: Vec<(u64, OpenTransaction)>) {
    for (id, open) in due {
        let message = match broker.half(id, &open).await {
            Ok(Some((_memory, bytes))) => {
                MessageView::parse(&bytes).ok().map(|message| half::given_up(&message, &bytes, open.checks))
            }
            _ => None,
        };
        // It is looked for again.
        let Some(message) = message else { continue };
        if let Err(error) = broker.end(group, id, Ending::GivenUp, Some(message)).await {
            tracing::debug!(%error, id, "a transaction is not given up yet");
            return;
        }
        if let Some(left_out) = broker.checks.troubles.admit() {
            tracing::warn!(
                id,
                group,
                checks = open.checks,
                left_out,
                "a transaction is given up: its producer was asked too often, or it is too old"
            );
        }
    }
}
