//! `folio topic`: list, create, delete; in every group of the cluster.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use clap::{Args, Subcommand};
use folio_protocol::body::{self, TopicConfig, TopicConfigTable};
use folio_protocol::code::RequestCode;
use folio_protocol::flags::PermissionBits;
use folio_protocol::frame::Frame;
use folio_protocol::header::{CreateTopicHeader, DeleteTopicHeader, Header, NoHeader};
use folio_protocol::names;

use super::table;
use super::target::Target;

#[derive(Debug, Args)]
pub(super) struct TopicArgs {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Debug, Subcommand)]
enum TopicCommand {
    /// All topics with their queues and permissions.
    List(Target),
    /// Create a topic, or change its queues and permissions.
    Create {
        /// The topic's name.
        topic: String,
        /// Queues to read and write.
        #[arg(short, long, default_value_t = 8)]
        queues: u32,
        /// Permissions: rw, r or w.
        #[arg(short, long, default_value = "rw", value_parser = permissions)]
        perm: u32,
        /// Attributes, such as +message.type=FIFO.
        #[arg(short, long)]
        attributes: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Delete a topic. Its messages are dropped with their log segments.
    Delete {
        /// The topic's name.
        topic: String,
        #[command(flatten)]
        target: Target,
    },
}

/// A text that is no permission.
#[derive(Debug, thiserror::Error)]
#[error("expected rw, r or w")]
struct NoPermission;

fn permissions(text: &str) -> Result<u32, NoPermission> {
    match text {
        "rw" | "wr" | "6" => Ok(6),
        "r" | "4" => Ok(4),
        "w" | "2" => Ok(2),
        _ => Err(NoPermission),
    }
}

pub(super) async fn run(args: TopicArgs) -> Result<()> {
    match args.command {
        TopicCommand::List(target) => list(&target).await,
        TopicCommand::Create { topic, queues, perm, attributes, target } => {
            names::check_topic(&topic)?;
            let header = CreateTopicHeader {
                attributes,
                ..CreateTopicHeader::new(topic.as_str(), queues, PermissionBits(perm))
            };
            ask(&target, RequestCode::UpdateAndCreateTopic, &header).await?;
            say!("topic {topic} has {queues} queues");
            Ok(())
        }
        TopicCommand::Delete { topic, target } => {
            let header = DeleteTopicHeader { topic: topic.as_str().into(), cluster_name: None };
            ask(&target, RequestCode::DeleteTopicInBroker, &header).await?;
            say!("topic {topic} is deleted");
            Ok(())
        }
    }
}

async fn list(target: &Target) -> Result<()> {
    let mut groups = BTreeMap::new();
    for (group, answer) in ask(target, RequestCode::GetAllTopicConfig, &NoHeader).await? {
        let TopicConfigTable { topic_config_table, .. } = body::decode(&answer.body)?;
        groups.insert(group, topic_config_table);
    }
    if target.json {
        let text = match groups.values().next() {
            Some(only) if groups.len() == 1 => serde_json::to_string_pretty(only),
            _ => serde_json::to_string_pretty(&groups),
        };
        say!("{}", text?);
        return Ok(());
    }
    let rows = groups.iter().flat_map(|(group, topics)| topics.values().map(|topic| row(group, topic)));
    table::print(["GROUP", "TOPIC", "READ QUEUES", "WRITE QUEUES", "PERM", "ATTRIBUTES"], rows);
    Ok(())
}

fn row(group: &str, topic: &TopicConfig) -> [String; 6] {
    let bit = |mask, letter| if topic.perm & mask != 0 { letter } else { "-" };
    let attributes: Vec<String> =
        topic.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    [
        group.to_owned(),
        topic.topic_name.clone(),
        topic.read_queue_nums.to_string(),
        topic.write_queue_nums.to_string(),
        format!("{}{}", bit(4, "r"), bit(2, "w")),
        attributes.join(","),
    ]
}

async fn ask(target: &Target, code: RequestCode, header: &impl Header) -> Result<BTreeMap<String, Frame>> {
    target.ask(&Frame::request(code, header, Bytes::new())).await
}
