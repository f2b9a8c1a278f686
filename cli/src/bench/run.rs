//! Runs a load: prepares the topic, starts the connections, keeps the route fresh, sums up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use super::common::Common;
use super::keeper::keep_route;
use super::kind::Kind;
use super::options::{BenchArgs, Load, PullOptions, SendOptions};
use super::pop::options::PopOptions;
use super::pull::Reading;
use super::send::{PRODUCER_GROUP, Plan, Sender, Share, body, check, share};
use super::shared::Shared;
use super::summary::{Frame, Summary};
use super::target::{Directory, Purpose, durability};
use super::{lateness, pop, progress, pull};

/// Runs the load that was asked for and prints what it came to. Fails if nothing was acknowledged.
pub(crate) async fn run(args: BenchArgs) -> Result<()> {
    match args.load {
        Load::Send(options) => send(options).await,
        Load::Pull(options) => pull(options).await,
        Load::Pop(options) => pop(options).await,
        Load::Lateness(options) => lateness::run(options).await,
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
    let shared = Shared::new(options.warmup(), common.measured(), targets)?;
    let plan = Arc::new(Plan {
        topics,
        serialization: common.serialization.into(),
        body: body(options.size),
        extras: options.kind.extras(options.delay_ms, PRODUCER_GROUP),
        commits: options.kind == Kind::Transaction,
    });
    let mut senders = JoinSet::new();
    for index in 0..connections {
        let share = Share {
            index,
            outstanding: share(options.outstanding, connections, index),
            rate: options.rate.map(|rate| rate / connections as f64),
            messages: None,
        };
        senders.spawn(Sender::new(Arc::clone(&shared), Arc::clone(&plan), share).run());
    }
    let unanswered = finish(&shared, directory, common, senders).await;
    let frame = Frame {
        load: "send",
        kind: Some(options.kind.name()),
        acks: None,
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
    let reading = Reading {
        topic: &common.topic,
        group: &options.group,
        batch: options.batch,
        from: options.from,
        follow: options.follows(),
        connections: options.connections,
        serialization: common.serialization.into(),
    };
    let readers = pull::queues(&targets, &reading).await?;
    // The first messages are part of what is measured.
    let shared = Shared::new(Duration::ZERO, common.measured(), targets)?;
    let in_flight = readers.iter().map(pull::Puller::queues).sum();
    let mut pullers = JoinSet::new();
    for reader in readers {
        pullers.spawn(reader.run(Arc::clone(&shared), None));
    }
    let unanswered = finish(&shared, directory, common, pullers).await;
    let frame = Frame {
        load: "pull",
        kind: None,
        acks: None,
        topic: common.topic.clone(),
        size: None,
        outstanding: in_flight,
        rate: None,
        durability,
        unanswered,
    };
    tell(common, &shared, frame, "received")
}

async fn pop(options: PopOptions) -> Result<()> {
    options.check()?;
    let common = &options.common;
    let mut directory = Directory::new(common.namesrvs(), &common.topic, Purpose::Pull, None);
    let targets = directory.prepare().await?;
    directory.allow_group(&options.group).await?;
    let durability = durability(&targets[0].address).await;
    let shared = Shared::new(Duration::ZERO, common.measured(), targets)?;
    let mut poppers = JoinSet::new();
    for popper in pop::poppers(&shared.targets(), &options)? {
        poppers.spawn(popper.run(Arc::clone(&shared)));
    }
    let unanswered = finish(&shared, directory, common, poppers).await;
    let frame = Frame {
        load: "pop",
        kind: None,
        acks: Some(options.acks.name()),
        topic: common.topic.clone(),
        size: None,
        outstanding: options.outstanding,
        rate: None,
        durability,
        unanswered,
    };
    tell(common, &shared, frame, "popped and acknowledged")
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
        say!("{}", serde_json::to_string(&summary)?);
    } else {
        say!("{summary}");
    }
    check(summary.acked, what)
}
