//! `folio pop`: popped messages that nobody has acknowledged yet.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::{Args, Subcommand};
use folio_protocol::frame::Frame;
use folio_server::handlers::in_flight::{
    CONSUMER_GROUP, IN_FLIGHT_LIST, InFlightList, ListedBatch, MAX, TOPIC,
};

use super::table;
use super::target::Target;

#[derive(Debug, Args)]
pub(super) struct PopArgs {
    #[command(subcommand)]
    command: PopCommand,
}

#[derive(Debug, Subcommand)]
enum PopCommand {
    /// What is in flight: what each pop was given of one queue, the oldest first.
    List {
        /// Of this consumer group only.
        #[arg(short, long)]
        consumer_group: Option<String>,
        /// Of this topic only.
        #[arg(short, long)]
        topic: Option<String>,
        /// How many at most, of each group of the cluster; up to 1,000. All are counted.
        #[arg(short, long, default_value_t = 100)]
        max: u32,
        #[command(flatten)]
        target: Target,
    },
}

pub(super) async fn run(args: PopArgs) -> Result<()> {
    let PopCommand::List { consumer_group, topic, max, target } = args.command;
    let mut request = Frame { code: IN_FLIGHT_LIST, ..Frame::default() };
    request.ext.insert_display(MAX, max);
    for (field, value) in [(CONSUMER_GROUP, consumer_group), (TOPIC, topic)] {
        if let Some(value) = value {
            request.ext.insert(field, &value);
        }
    }
    let groups: BTreeMap<String, InFlightList> = target.ask_bodies(&request).await?;
    if target.json {
        say!("{}", serde_json::to_string_pretty(&groups)?);
        return Ok(());
    }
    let rows = groups.iter().flat_map(|(group, listed)| listed.oldest.iter().map(|batch| row(group, batch)));
    table::print(
        [
            "GROUP",
            "CONSUMER GROUP",
            "TOPIC",
            "QUEUE",
            "POPPED MS",
            "COMES AGAIN MS",
            "IN ORDER",
            "MESSAGES",
            "FROM OFFSET",
        ],
        rows,
    );
    for (group, listed) in &groups {
        say!("{group}: {} messages in flight, in {} batches", listed.messages, listed.batches);
    }
    Ok(())
}

fn row(group: &str, batch: &ListedBatch) -> [String; 9] {
    [
        group.to_owned(),
        batch.group.clone(),
        batch.topic.clone(),
        batch.queue.to_string(),
        batch.popped_ms.to_string(),
        batch.visible_ms.to_string(),
        if batch.ordered { "yes" } else { "no" }.to_owned(),
        batch.offsets.len().to_string(),
        batch.offsets.first().map(u64::to_string).unwrap_or_default(),
    ]
}
