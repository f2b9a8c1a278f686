//! `folio timer`: delayed messages that wait for their time.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::{Args, Subcommand};
use folio_protocol::code::RequestCode;
use folio_protocol::frame::Frame;
use folio_protocol::header::RecallMessageHeader;
use folio_protocol::recall::RecallHandle;
use folio_server::handlers::timers::{MAX, PendingTimer, TIMER_LIST, TOPIC};

use super::table;
use super::target::Target;

#[derive(Debug, Args)]
pub(super) struct TimerArgs {
    #[command(subcommand)]
    command: TimerCommand,
}

#[derive(Debug, Subcommand)]
enum TimerCommand {
    /// The delayed messages that are due first.
    List {
        /// Of this topic only. The retries of a consumer group are those of %RETRY%group.
        #[arg(short, long)]
        topic: Option<String>,
        /// How many at most, of each group of the cluster; up to 1,000.
        #[arg(short, long, default_value_t = 100)]
        max: u32,
        #[command(flatten)]
        target: Target,
    },
    /// Take a delayed message back: it will not be delivered.
    Recall {
        /// Its handle, from the list or from the answer to its send.
        handle: String,
        #[command(flatten)]
        target: Target,
    },
}

pub(super) async fn run(args: TimerArgs) -> Result<()> {
    match args.command {
        TimerCommand::List { topic, max, target } => list(&target, topic.as_deref(), max).await,
        TimerCommand::Recall { handle, target } => recall(&target, handle).await,
    }
}

async fn list(target: &Target, topic: Option<&str>, max: u32) -> Result<()> {
    let mut request = Frame { code: TIMER_LIST, ..Frame::default() };
    request.ext.insert_display(MAX, max);
    if let Some(topic) = topic {
        request.ext.insert(TOPIC, topic);
    }
    let groups: BTreeMap<String, Vec<PendingTimer>> = target.ask_bodies(&request).await?;
    if target.json {
        say!("{}", serde_json::to_string_pretty(&groups)?);
        return Ok(());
    }
    let rows = groups.iter().flat_map(|(group, timers)| timers.iter().map(|timer| row(group, timer)));
    table::print(
        ["GROUP", "TOPIC", "QUEUE", "DUE MS", "BYTES", "RETRIES", "UNIQUE KEY", "RECALL HANDLE"],
        rows,
    );
    Ok(())
}

fn row(group: &str, timer: &PendingTimer) -> [String; 8] {
    [
        group.to_owned(),
        timer.topic.clone(),
        timer.queue.to_string(),
        timer.due_ms.to_string(),
        timer.bytes.to_string(),
        timer.reconsume_times.to_string(),
        timer.unique_key.clone(),
        timer.recall_handle.clone(),
    ]
}

async fn recall(target: &Target, handle: String) -> Result<()> {
    let said = RecallHandle::decode(&handle).context("this is no handle of a delayed message")?;
    let header = RecallMessageHeader {
        producer_group: None,
        topic: said.topic.as_str().into(),
        recall_handle: handle,
    };
    let request = Frame::request(RequestCode::RecallMessage, &header, Bytes::new());
    target.ask_one(&said.broker_name, request).await?;
    if target.json {
        say!("{}", serde_json::json!({ "recalled": said.unique_key }));
    } else {
        say!("the message {} of topic {} is recalled", said.unique_key, said.topic);
    }
    Ok(())
}
