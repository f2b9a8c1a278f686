//! `folio message`: one message by its id, or those with a key.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{QueryMessageHeader, ViewMessageHeader};
use folio_protocol::ids::OffsetMessageId;

use super::stored::{self, StoredMessage};
use super::target::Target;

#[derive(Debug, Args)]
pub(super) struct MessageArgs {
    #[command(subcommand)]
    command: MessageCommand,
}

#[derive(Debug, Subcommand)]
enum MessageCommand {
    /// All that one message has.
    Show {
        /// Its message id: 32 or 56 hexadecimal digits.
        message_id: String,
        /// The group of the cluster that has it; needed where the cluster has several.
        #[arg(short, long)]
        group: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// The messages with a key, or with a unique key, the newest first.
    Find {
        /// Of which topic.
        #[arg(short, long)]
        topic: String,
        /// The key.
        #[arg(short, long)]
        key: String,
        /// How many at most, of each group of the cluster.
        #[arg(short, long, default_value_t = 32)]
        max: u32,
        #[command(flatten)]
        target: Target,
    },
}

pub(super) async fn run(args: MessageArgs) -> Result<()> {
    match args.command {
        MessageCommand::Show { message_id, group, target } => {
            show(&target, group.as_deref(), &message_id).await
        }
        MessageCommand::Find { topic, key, max, target } => find(&target, &topic, key, max).await,
    }
}

async fn show(target: &Target, group: Option<&str>, message_id: &str) -> Result<()> {
    let id: OffsetMessageId = message_id.parse()?;
    let offset = i64::try_from(id.position).context("no message is at that position")?;
    let header = ViewMessageHeader { offset, topic: None };
    let request = Frame::request(RequestCode::ViewMessageById, &header, Bytes::new());
    let answer = target.ask_in(group, request).await?;
    let messages = StoredMessage::all(&answer.body)?;
    let Some(message) = messages.first() else { bail!("an answer without a message") };
    stored::print_one(message, target.json)
}

async fn find(target: &Target, topic: &str, key: String, max: u32) -> Result<()> {
    let header = QueryMessageHeader {
        topic: topic.into(),
        key,
        max_num: i32::try_from(max).unwrap_or(i32::MAX),
        begin_timestamp: 0,
        end_timestamp: i64::MAX,
        unique_key_query: false,
    };
    let mut found = Vec::new();
    for group in target.groups().await? {
        let request = Frame::request(RequestCode::QueryMessage, &header, Bytes::new());
        let mut client = target.connect().await?;
        let answer = target.call_in(&mut client, Some(&group), request).await?;
        if answer.code != ResponseCode::QueryNotFound.code() {
            found.extend(StoredMessage::all(&client.accept(answer)?.body)?);
        }
    }
    stored::print_all(&found, target.json)
}
