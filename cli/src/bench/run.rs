//! Runs a load: prepares the topic, starts the connections, keeps the route fresh, sums up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::kind::Kind;
use super::options::{BenchArgs, Common, Load, PullOptions, SendOptions};
use super::send::{PRODUCER_GROUP, Plan, Sender, body, check, share};
use super::shared::Shared;
use super::summary::{Frame, Summary};
use super::target::{Directory, Purpose, durability};
use super::{progress, pull};

/// How often the route is asked for without a reason to.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// How often at most: a flood of errors must not become one of questions.
const REFRESH_PAUSE: Duration = Duration::from_millis(50);

/// Keeps the route as the NameServers know it.
async fn keep_route(shared: Arc<Shared>, mut directory: Directory) {
    loop {
        let _ = timeout(REFRESH_EVERY, shared.refresh_asked()).await;
        // An answer without a leader is an election under way: the last known one is as good as any.
        if let Ok(Some(targets)) = directory.lookup().await {
            shared.heard(targets);
        }
        sleep(REFRESH_PAUSE).await;
    }
}

/// Runs the load that was asked for and prints what it came to. Fails if nothing was acknowledged.
pub(crate) async fn run(args: BenchArgs) -> Result<()> {
    match args.load {
        Load::Send(options) => send(options).await,
        Load::Pull(options) => pull(options).await,
    }
}

async fn send(options: SendOptions) -> Result<()> {
    options.check()?;
    let common = &options.common;
    let topics = options.topic_names();
    for topic in &topics[1..] {
        Directory::new(common.namesrvs(), topic, Purpose::Send, options.queues).prepare().await?;
    }
    // The topics are made alike: the first one's route is that of all.
    let mut directory = Directory::new(common.namesrvs(), &topics[0], Purpose::Send, options.queues);
    let targets = directory.prepare().await?;
    let durability = durability(&targets[0].address).await;
    // Every broker needs a connection, and every connection a message.
    let connections = options.connections().max(targets.len()).min(options.outstanding);
    let shared = Shared::new(common, options.warmup(), targets)?;
    let plan = Arc::new(Plan {
        topics,
        serialization: common.serialization.into(),
        body: body(options.size),
        extras: options.kind.extras(options.delay_ms, PRODUCER_GROUP),
        commits: options.kind == Kind::Transaction,
    });
    let mut senders = JoinSet::new();
    for index in 0..connections {
        let share = share(options.outstanding, connections, index);
        let rate = options.rate.map(|rate| rate / connections as f64);
        senders.spawn(Sender::new(Arc::clone(&shared), Arc::clone(&plan), index, share, rate).run());
    }
    let unanswered = finish(&shared, directory, common, senders).await;
    let frame = Frame {
        load: "send",
        kind: Some(options.kind),
        topic: common.topic.clone(),
        size: Some(options.size as u64),
        outstanding: options.outstanding,
        rate: options.rate,
        durability,
        unanswered,
    };
    tell(common, &shared, frame, "acknowledged")
}

async fn pull(options: PullOptions) -> Result<()> {
    options.check()?;
    let common = &options.common;
    let mut directory = Directory::new(common.namesrvs(), &common.topic, Purpose::Pull, None);
    let targets = directory.prepare().await?;
    directory.allow_group(&options.group).await?;
    let durability = durability(&targets[0].address).await;
    let readers = pull::queues(&targets, &options).await?;
    // The first messages are part of what is measured.
    let shared = Shared::new(common, Duration::ZERO, targets)?;
    let in_flight = readers.iter().map(pull::Puller::queues).sum();
    let mut pullers = JoinSet::new();
    for reader in readers {
        pullers.spawn(reader.run(Arc::clone(&shared)));
    }
    let unanswered = finish(&shared, directory, common, pullers).await;
    let frame = Frame {
        load: "pull",
        kind: None,
        topic: common.topic.clone(),
        size: None,
        outstanding: in_flight,
        rate: None,
        durability,
        unanswered,
    };
    tell(common, &shared, frame, "received")
}

/// Waits for all connections: how many requests are left without an answer.
async fn finish(
    shared: &Arc<Shared>,
    directory: Directory,
    common: &Common,
    mut tasks: JoinSet<usize>,
) -> usize {
    let keeper = tokio::spawn(keep_route(Arc::clone(shared), directory));
    let drawing = (!common.json).then(|| tokio::spawn(progress::show(Arc::clone(shared))));
    let mut unanswered = 0;
    while let Some(ended) = tasks.join_next().await {
        unanswered += ended.unwrap_or_default();
    }
    shared.tally.lock().end(Instant::now());
    keeper.abort();
    if let Some(drawing) = drawing {
        drawing.abort();
    }
    unanswered
}

fn tell(common: &Common, shared: &Shared, frame: Frame, what: &str) -> Result<()> {
    let summary = Summary::new(frame, &shared.tally.lock());
    if common.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        println!("{summary}");
    }
    check(summary.acked, what)
}
