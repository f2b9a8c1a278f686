//! `folio bench lateness`: sends delayed messages, pulls the topic at the same time, and says how late they became visible.
//!
//! | module | what it holds |
//! |---|---|
//! | [`options`] | what was asked for, checked |
//! | [`arrivals`] | the messages that were seen, and how late |
//! | [`report`] | what it came to |

pub(super) mod arrivals;
pub(super) mod options;
mod report;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use folio_protocol::limits::PULL_MESSAGES_MAX;
use folio_protocol::properties::{TIMER_DELAY_MS, TIMER_DELIVER_MS};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::arrivals::{Arrivals, RUN, Wish};
use self::options::LatenessOptions;
use self::report::Report;
use super::clock::now_us;
use super::keeper::keep_route;
use super::kind::{Extras, pair};
use super::options::Begin;
use super::pull::{self, Reading};
use super::send::{Plan, Sender, Share, body, share};
use super::shared::{Shared, TIMEOUT};
use super::target::{Directory, Purpose, durability};

/// Sends get this much longer than the load lasts to be answered.
const ANSWERS: Duration = Duration::from_secs(5);
/// Between two looks whether all messages were seen.
const TICK: Duration = Duration::from_millis(10);

/// Runs the measurement and prints what it came to. Fails if a message came early or not at all.
pub(super) async fn run(options: LatenessOptions) -> Result<()> {
    options.check()?;
    let report = measure(&options).await?;
    if options.common.json {
        say!("{}", serde_json::to_string(&report)?);
    } else {
        say!("{report}");
    }
    report.check()
}

async fn measure(options: &LatenessOptions) -> Result<Report> {
    let common = &options.common;
    let directory = |purpose| Directory::new(common.namesrvs(), &common.topic, purpose, options.queues);
    let (mut to_send, mut to_pull) = (directory(Purpose::Send), directory(Purpose::Pull));
    let targets = to_send.prepare().await?;
    let durability = durability(&targets[0].address).await;
    to_pull.allow_group(&options.group).await?;
    let sources = to_pull.prepare().await?;
    // The queues are read from where they end before the first send.
    let readers = pull::queues(&sources, &reading(options)).await?;

    let delay = Duration::from_millis(options.delay_ms);
    let lasting = if options.due_at_once { delay } else { common.measured() + ANSWERS };
    let timeout = Duration::from_secs_f64(options.timeout);
    let pulled = Shared::new(Duration::ZERO, lasting + delay + 2 * timeout + ANSWERS, sources)?;
    let shared = Shared::new(Duration::ZERO, lasting, targets)?;
    let wish = wish(options);
    let run = format!("{:x}-{:x}", now_us(), std::process::id());
    let arrivals = Arc::new(Mutex::new(Arrivals::new(&run, wish)?));

    // Dropped at the end, which ends them.
    let mut beside = JoinSet::new();
    beside.spawn(keep_route(Arc::clone(&shared), to_send));
    beside.spawn(keep_route(Arc::clone(&pulled), to_pull));
    for reader in readers {
        let (pulled, arrivals) = (Arc::clone(&pulled), Arc::clone(&arrivals));
        beside.spawn(async move {
            reader.run(pulled, Some(arrivals)).await;
        });
    }
    send(options, &shared, extras(wish, &run)).await?;
    let until_due = match wish {
        Wish::After(_) => delay,
        Wish::At(due_ms) => Duration::from_millis(due_ms.saturating_sub(now_us() / 1_000)),
    };
    let deadline = Instant::now() + until_due + timeout;
    while arrivals.lock().seen < shared.tally.lock().acked && Instant::now() < deadline {
        sleep(TICK).await;
    }
    let (sent, read, seen) = (shared.tally.lock(), pulled.tally.lock(), arrivals.lock());
    Ok(Report::new(options, durability, (wish, &seen), (&sent, &read)))
}

/// The queues are followed from their ends.
fn reading(options: &LatenessOptions) -> Reading<'_> {
    Reading {
        topic: &options.common.topic,
        group: &options.group,
        batch: PULL_MESSAGES_MAX,
        from: Begin::End,
        follow: true,
        connections: options.connections(),
        serialization: options.common.serialization.into(),
    }
}

fn wish(options: &LatenessOptions) -> Wish {
    if options.due_at_once {
        Wish::At(now_us() / 1_000 + options.delay_ms)
    } else {
        Wish::After(options.delay_ms)
    }
}

/// What makes a message one of the run.
fn extras(wish: Wish, run: &str) -> Extras {
    let when = match wish {
        Wish::After(ms) => pair(TIMER_DELAY_MS, &ms.to_string()),
        Wish::At(ms) => pair(TIMER_DELIVER_MS, &ms.to_string()),
    };
    Extras { properties: when + &pair(RUN, run), sys_flag: 0 }
}

/// Sends all messages and waits for the answers. Fails if that took until the moment that all of them are due.
async fn send(options: &LatenessOptions, shared: &Arc<Shared>, extras: Extras) -> Result<()> {
    let plan = Arc::new(Plan {
        topics: vec![options.common.topic.clone()],
        serialization: options.common.serialization.into(),
        body: body(options.size),
        extras,
        commits: false,
    });
    let (outstanding, messages) = (options.outstanding, options.messages());
    let connections = options.connections().max(shared.targets().len()).min(outstanding);
    let mut senders = JoinSet::new();
    for index in 0..connections {
        let (each, more) = (messages / connections as u64, messages % connections as u64);
        let share = Share {
            index,
            outstanding: share(outstanding, connections, index),
            rate: (!options.due_at_once).then_some(options.rate / connections as f64),
            messages: Some(each + u64::from((index as u64) < more)),
        };
        senders.spawn(Sender::new(Arc::clone(shared), Arc::clone(&plan), share).run());
    }
    let mut unanswered = 0;
    while let Some(ended) = senders.join_next().await {
        unanswered += ended.unwrap_or_default() as u64;
    }
    let mut tally = shared.tally.lock();
    tally.end(std::time::Instant::now());
    let answered = tally.acked + tally.errors.values().sum::<u64>();
    ensure!(
        !options.due_at_once || answered >= messages,
        "{answered} of {messages} messages were answered before all were due: raise --delay-ms {}",
        options.delay_ms
    );
    tally.failed(shared.end(), TIMEOUT, unanswered as usize);
    Ok(())
}

#[cfg(test)]
mod tests {
    use folio_protocol::properties;

    use super::*;

    #[test]
    fn a_message_says_its_run_and_when_it_is_to_be_delivered() {
        let of = |wish| extras(wish, "r").properties;
        let said = |text: &str, name: &str| properties::get(text.as_bytes(), name).map(str::to_owned);
        let (after, at) = (of(Wish::After(7)), of(Wish::At(9)));
        assert_eq!(
            [TIMER_DELAY_MS, RUN].map(|name| said(&after, name)),
            ["7", "r"].map(|is| Some(is.to_owned()))
        );
        assert_eq!(
            [TIMER_DELIVER_MS, RUN].map(|name| said(&at, name)),
            ["9", "r"].map(|is| Some(is.to_owned()))
        );
    }
}
