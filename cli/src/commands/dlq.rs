//! `folio dlq`: dead letters, the messages that a consumer group has failed to handle for the last time.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use folio_protocol::body::{self, TopicConfigTable};
use folio_protocol::code::RequestCode;
use folio_protocol::frame::Frame;
use folio_protocol::header::NoHeader;
use folio_protocol::names;
use serde::Serialize;

use super::bulk::{Bulk, BulkArgs};
use super::resend::to_retry;
use super::stored::{self, StoredMessage};
use super::table;
use super::target::Target;
use super::walk::{Range, Walk, bounds};

#[derive(Debug, Args)]
pub(super) struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,
}

/// Which dead letters.
#[derive(Debug, Args)]
struct Which {
    /// The consumer group.
    consumer_group: String,
    /// The queue of its dead letters.
    #[arg(short, long, default_value_t = 0)]
    queue: u32,
    /// The first offset; default: the oldest that is kept.
    #[arg(short, long)]
    from: Option<u64>,
    /// The group of the cluster that has them; default: all, one after the other.
    #[arg(short, long)]
    group: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Subcommand)]
enum DlqCommand {
    /// The consumer groups that have dead letters, and how many.
    List(Target),
    /// The dead letters of a consumer group.
    Show {
        #[command(flatten)]
        which: Which,
        /// How many at most.
        #[arg(short, long, default_value_t = 32)]
        max: u64,
    },
    /// Give dead letters to their consumer group once more, with all its retries. They stay where they are, too.
    Resend {
        #[command(flatten)]
        which: Which,
        /// How many at most; default: all that there are now.
        #[arg(short, long, default_value_t = u64::MAX, hide_default_value = true)]
        max: u64,
        #[command(flatten)]
        bulk: BulkArgs,
    },
    /// Write dead letters as JSON, one in each line.
    Export {
        #[command(flatten)]
        which: Which,
        /// The file, which must not be there yet; default: standard output.
        #[arg(short, long)]
        to: Option<PathBuf>,
        /// How many at most; default: all that there are now.
        #[arg(short, long, default_value_t = u64::MAX, hide_default_value = true)]
        max: u64,
        #[command(flatten)]
        bulk: BulkArgs,
    },
}

/// A queue of dead letters.
#[derive(Debug, Serialize)]
struct DeadLetters {
    group: String,
    consumer_group: String,
    queue: u32,
    first_offset: u64,
    next_offset: u64,
}

pub(super) async fn run(args: DlqArgs) -> Result<()> {
    match args.command {
        DlqCommand::List(target) => list(&target).await,
        DlqCommand::Show { which, max } => show(&which, max).await,
        DlqCommand::Resend { which, max, bulk } => resend(&which, max, &bulk).await,
        DlqCommand::Export { which, to, max, bulk } => export(&which, to.as_deref(), max, &bulk).await,
    }
}

async fn list(target: &Target) -> Result<()> {
    let request = Frame::request(RequestCode::GetAllTopicConfig, &NoHeader, bytes::Bytes::new());
    let mut found = Vec::new();
    for (group, answer) in target.ask(&request).await? {
        let mut client = target.connect().await?;
        let TopicConfigTable { topic_config_table, .. } = body::decode(&answer.body)?;
        for topic in topic_config_table.values() {
            let Some(consumer_group) = names::group_of_dlq_topic(&topic.topic_name) else { continue };
            for queue in 0..topic.read_queue_nums {
                let (first_offset, next_offset) =
                    bounds(&mut client, &group, &topic.topic_name, queue).await?;
                found.push(DeadLetters {
                    group: group.clone(),
                    consumer_group: consumer_group.to_owned(),
                    queue,
                    first_offset,
                    next_offset,
                });
            }
        }
    }
    found.sort_by(|one, other| (&one.group, &one.consumer_group).cmp(&(&other.group, &other.consumer_group)));
    if target.json {
        say!("{}", serde_json::to_string_pretty(&found)?);
        return Ok(());
    }
    let rows = found.into_iter().map(|queue| {
        [
            queue.group,
            queue.consumer_group,
            queue.queue.to_string(),
            (queue.next_offset - queue.first_offset).to_string(),
            queue.first_offset.to_string(),
            queue.next_offset.to_string(),
        ]
    });
    table::print(["GROUP", "CONSUMER GROUP", "QUEUE", "MESSAGES", "FIRST OFFSET", "NEXT OFFSET"], rows);
    Ok(())
}

impl Which {
    /// The queues that are meant, as far as there are some.
    async fn walks(&self, max: u64) -> Result<Vec<Walk>> {
        let topic = names::dlq_topic(&self.consumer_group);
        let known = self.target.groups().await?;
        let groups = match &self.group {
            Some(group) => vec![group.clone()],
            None if self.from.is_some() && known.len() > 1 => {
                bail!(
                    "the cluster has several groups ({}): name one, to begin at an offset",
                    known.join(", ")
                )
            }
            None => known,
        };
        let range = Range { queue: self.queue, from: self.from, max };
        let mut walks = Vec::new();
        for group in groups {
            let walk = Walk::begin(&self.target, &group, &topic, &range).await?;
            if walk.left() > 0 {
                walks.push(walk);
            }
        }
        if walks.is_empty() {
            bail!("the consumer group {} has no dead letters there", self.consumer_group);
        }
        Ok(walks)
    }
}

async fn show(which: &Which, max: u64) -> Result<()> {
    let mut found = Vec::new();
    for walk in which.walks(max).await? {
        found.extend(walk.rest().await?);
    }
    stored::print_all(&found, which.target.json)
}

/// Handles messages one after the other, and says at the end how many. `what` is what they are then.
async fn each(
    which: &Which,
    walks: Vec<Walk>,
    (mut bulk, what): (Bulk, &str),
    mut handle: impl AsyncFnMut(&mut Walk, &StoredMessage) -> Result<()>,
) -> Result<()> {
    for mut walk in walks {
        while let Some(messages) =
            walk.next().await.with_context(|| go_on(&walk, walk.offset(), &bulk, what))?
        {
            for message in messages {
                if !bulk.turn().await {
                    bail!("interrupted: {}", go_on(&walk, message.offset, &bulk, what));
                }
                let handled = handle(&mut walk, &message).await;
                handled.with_context(|| {
                    format!(
                        "{}, or behind that one if it has come",
                        go_on(&walk, message.offset, &bulk, what)
                    )
                })?;
                bulk.one();
            }
        }
    }
    let done = bulk.done();
    if which.target.json {
        eprintln!("{}", serde_json::json!({ what: done }));
    } else {
        eprintln!("{done} messages {what}");
    }
    Ok(())
}

/// What a user does who wants the rest.
fn go_on(walk: &Walk, next: u64, bulk: &Bulk, what: &str) -> String {
    let (done, group) = (bulk.done(), walk.group());
    format!("{done} messages {what}; go on with --group {group} --from {next}")
}

async fn resend(which: &Which, max: u64, args: &BulkArgs) -> Result<()> {
    let walks = which.walks(max).await?;
    let bulk = Bulk::new(args, walks.iter().map(Walk::left).sum());
    each(which, walks, (bulk, "resent"), async |walk, message| {
        walk.ask(to_retry(message, &which.consumer_group)).await.map(drop)
    })
    .await
}

async fn export(which: &Which, to: Option<&Path>, max: u64, args: &BulkArgs) -> Result<()> {
    let walks = which.walks(max).await?;
    let mut out: Box<dyn Write> = match to {
        Some(path) => {
            let file = File::create_new(path).with_context(|| format!("cannot make {}", path.display()))?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(io::stdout().lock()),
    };
    let shows = to.is_some() || !io::stdout().is_terminal();
    let bulk = Bulk::new(args, if shows { walks.iter().map(Walk::left).sum() } else { 0 });
    let written = each(which, walks, (bulk, "exported"), async |_, message| {
        serde_json::to_writer(&mut out, message)?;
        Ok(out.write_all(b"\n")?)
    })
    .await;
    out.flush()?;
    written
}
