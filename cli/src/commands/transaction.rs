//! `folio transaction`: transactions that are open, and those that were given up.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use clap::{Args, Subcommand};
use folio_protocol::code::RequestCode;
use folio_protocol::frame::Frame;
use folio_protocol::header::ResumeCheckHalfMessageHeader;
use folio_protocol::names::TRANSACTION_CHECK_MAX_TOPIC;
use folio_server::handlers::transactions::{ListedTransaction, MAX, PRODUCER_GROUP, TRANSACTION_LIST};

use super::stored;
use super::table;
use super::target::Target;
use super::walk::{Range, Walk};

#[derive(Debug, Args)]
pub(super) struct TransactionArgs {
    #[command(subcommand)]
    command: TransactionCommand,
}

#[derive(Debug, Subcommand)]
enum TransactionCommand {
    /// The transactions that have been open for longest, or those that were given up.
    List {
        /// Of this producer group only.
        #[arg(short, long)]
        producer_group: Option<String>,
        /// Those whose producer was asked too often, the oldest first. Their message ids are what `resume` takes.
        #[arg(long, conflicts_with = "producer_group")]
        given_up: bool,
        /// How many at most, of each group of the cluster; up to 1,000.
        #[arg(short, long, default_value_t = 100)]
        max: u32,
        #[command(flatten)]
        target: Target,
    },
    /// Open a transaction again that was given up: its producer is asked anew.
    Resume {
        /// The message id, from `list --given-up`.
        message_id: String,
        /// The group of the cluster that has it; needed where the cluster has several.
        #[arg(short, long)]
        group: Option<String>,
        #[command(flatten)]
        target: Target,
    },
}

pub(super) async fn run(args: TransactionArgs) -> Result<()> {
    match args.command {
        TransactionCommand::List { given_up: true, max, target, .. } => list_given_up(&target, max).await,
        TransactionCommand::List { producer_group, max, target, .. } => {
            list(&target, producer_group.as_deref(), max).await
        }
        TransactionCommand::Resume { message_id, group, target } => {
            resume(&target, group.as_deref(), message_id).await
        }
    }
}

async fn list(target: &Target, producer_group: Option<&str>, max: u32) -> Result<()> {
    let mut request = Frame { code: TRANSACTION_LIST, ..Frame::default() };
    request.ext.insert_display(MAX, max);
    if let Some(group) = producer_group {
        request.ext.insert(PRODUCER_GROUP, group);
    }
    let groups: BTreeMap<String, Vec<ListedTransaction>> = target.ask_bodies(&request).await?;
    if target.json {
        say!("{}", serde_json::to_string_pretty(&groups)?);
        return Ok(());
    }
    let rows = groups.iter().flat_map(|(group, open)| open.iter().map(|open| row(group, open)));
    table::print(
        ["GROUP", "PRODUCER GROUP", "TOPIC", "STORED MS", "CHECKS", "BYTES", "UNIQUE KEY", "MESSAGE ID"],
        rows,
    );
    Ok(())
}

fn row(group: &str, open: &ListedTransaction) -> [String; 8] {
    [
        group.to_owned(),
        open.group.clone(),
        open.topic.clone(),
        open.stored_ms.to_string(),
        open.checks.to_string(),
        open.bytes.to_string(),
        open.unique_key.clone(),
        open.message_id.clone(),
    ]
}

async fn list_given_up(target: &Target, max: u32) -> Result<()> {
    let mut found = Vec::new();
    for group in target.groups().await? {
        let range = Range { queue: 0, from: None, max: u64::from(max.min(1_000)) };
        let walk = Walk::begin(target, &group, TRANSACTION_CHECK_MAX_TOPIC, &range).await?;
        found.extend(walk.rest().await?);
    }
    stored::print_all(&found, target.json)
}

async fn resume(target: &Target, group: Option<&str>, message_id: String) -> Result<()> {
    let header = ResumeCheckHalfMessageHeader { topic: None, msg_id: message_id.clone() };
    let request = Frame::request(RequestCode::ResumeCheckHalfMessage, &header, Bytes::new());
    target.ask_in(group, request).await?;
    if target.json {
        say!("{}", serde_json::json!({ "resumed": message_id }));
    } else {
        say!("the transaction of message {message_id} is open again");
    }
    Ok(())
}
