//! `folio cluster`: run one on this machine; ask and change a running one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use folio_protocol::body;
use folio_protocol::frame::Frame;
use folio_server::config::ByteSize;
use folio_server::handlers::members::{ADD_NODE, AddNode, CHANGE_PATIENCE, REMOVE_NODE, RemoveNode};
use folio_server::handlers::node_status::{NodeAt, NodeStatus};
use folio_server::private_files;

use super::table;
use super::target::{PATIENCE, Target};
use crate::client::{Client, is_forbidden};
use crate::cluster::{self, Launch};
use crate::status::{ask_status, decode, for_group, status_request};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct ClusterArgs {
    #[command(flatten)]
    start: Start,
    #[command(subcommand)]
    command: Option<ClusterCommand>,
}

/// Without a subcommand: run a cluster on this machine until Ctrl-C.
#[derive(Debug, Args)]
struct Start {
    /// How many nodes: 1, 3, 5, 7 or 9. Default: 3, or what the data directory was made with.
    #[arg(long, value_name = "N")]
    nodes: Option<u64>,
    /// Where the nodes keep their data, configurations and logs.
    #[arg(long, value_name = "DIR", default_value = "./folio-data")]
    data: PathBuf,
    /// First port: NameServers B, B+1, ...; brokers B+10, B+20, ...; Raft four above each broker.
    /// Default: RocketMQ's ports (9876..., 10911, 10921, ...), or what the data directory was made with.
    #[arg(long, value_name = "B")]
    base_port: Option<u16>,
    /// Size of a log segment, fixed when the data directory is made. Default: 256MiB.
    #[arg(long, value_name = "SIZE")]
    segment_size: Option<ByteSize>,
    /// Start a node again when it dies by itself.
    #[arg(long)]
    restart: bool,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Every node's role, term, log and lag, in each group.
    Status(Target),
    /// Take a node in that runs with `join = true`: it catches up, then it votes.
    AddNode {
        /// The node's id, never used before in this group.
        #[arg(long)]
        id: u64,
        /// Its Raft address.
        #[arg(long, value_name = "HOST:PORT")]
        raft: String,
        /// Its broker address.
        #[arg(long, value_name = "HOST:PORT")]
        broker: String,
        /// Its NameServer address.
        #[arg(long, value_name = "HOST:PORT")]
        namesrv: String,
        /// The group; default: the first one of the node that is asked.
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
        /// A NameServer address of any node that is in the group.
        #[arg(short = 'n', long, value_name = "HOST:PORT", default_value = "127.0.0.1:9876")]
        namesrv_addr: String,
    },
    /// Take a node out, dead or alive.
    RemoveNode {
        /// The node's id.
        #[arg(long)]
        id: u64,
        /// The group; default: the first one of the node that is asked.
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
        /// A NameServer address of any other node of the group.
        #[arg(
            short = 'n',
            long,
            alias = "namesrv",
            value_name = "HOST:PORT",
            default_value = "127.0.0.1:9876"
        )]
        namesrv_addr: String,
    },
}

pub(super) async fn run(args: ClusterArgs, log: Option<String>) -> Result<()> {
    match args.command {
        None => {
            let Start { nodes, data, base_port, segment_size, restart } = args.start;
            private_files::mask();
            cluster::run(Launch { nodes, data, base_port, segment_size, restart, log }).await
        }
        Some(ClusterCommand::Status(target)) => status(&target).await,
        Some(ClusterCommand::AddNode { id, raft, broker, namesrv, group, namesrv_addr }) => {
            let add = AddNode { id, at: NodeAt { broker, namesrv, raft } };
            change(&namesrv_addr, group.as_deref(), ADD_NODE, &add).await?;
            say!("node {id} is in the group");
            Ok(())
        }
        Some(ClusterCommand::RemoveNode { id, group, namesrv_addr }) => {
            change(&namesrv_addr, group.as_deref(), REMOVE_NODE, &RemoveNode { id }).await?;
            say!("node {id} is out of the group");
            Ok(())
        }
    }
}

/// How a node is by its own word. A node takes operators' requests from its own machine, unless it is told otherwise: one
/// that refuses, or cannot be reached from here, is asked by the node that answered, at `door`.
async fn status_through(door: &str, group: Option<&str>, id: u64, at: &NodeAt) -> Result<NodeStatus> {
    let direct = match Client::connect(&at.broker).await {
        Ok(mut node) => {
            let answer = node.call(status_request(None, group), PATIENCE).await?;
            if !is_forbidden(answer.code) {
                return decode(&at.broker, &node.accept(answer)?);
            }
            format!("{} refuses", at.broker)
        }
        Err(error) => format!("{error:#}"),
    };
    let asked = async {
        let answer = Client::connect(door).await?.ask(status_request(Some(id), group), PATIENCE).await?;
        decode(door, &answer)
    };
    match asked.await {
        Ok(status) if status.node_id == id => Ok(status),
        Ok(_) => bail!("{direct}"),
        Err(error) => bail!("{direct}; {error:#}"),
    }
}

/// The first answer of several addresses, and which of them gave it.
async fn ask_any<'a>(addresses: &'a str, group: Option<&str>) -> Result<(&'a str, NodeStatus)> {
    let mut failures = Vec::new();
    for address in addresses.split([',', ';']).map(str::trim) {
        match ask_status(address, group).await {
            Ok(status) => return Ok((address, status)),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    bail!("{}", failures.join("; "))
}

/// What each node of a group says of itself, by id.
type Answers = BTreeMap<u64, (NodeAt, Result<NodeStatus>)>;

async fn ask_all(addresses: &str, group: Option<&str>) -> Result<Answers> {
    let (door, first) = ask_any(addresses, group).await?;
    ask_others(door, group, first).await
}

/// `first` is what the node at `door` says.
async fn ask_others(door: &str, group: Option<&str>, first: NodeStatus) -> Result<Answers> {
    let mut all = BTreeMap::new();
    for (id, at) in &first.nodes {
        let answer = match *id == first.node_id {
            true => Ok(first.clone()),
            false => status_through(door, group, *id, at).await,
        };
        all.insert(*id, (at.clone(), answer));
    }
    Ok(all)
}

async fn status(target: &Target) -> Result<()> {
    let groups = ask_groups(&target.namesrv_addr).await?;
    if target.json {
        let of_group = |(name, all): &(String, Answers)| {
            all.iter().map(|(id, (at, answer))| json(name, *id, at, answer)).collect::<Vec<_>>()
        };
        let nodes: Vec<_> = groups.iter().flat_map(of_group).collect();
        say!("{}", serde_json::to_string_pretty(&nodes)?);
    } else {
        let rows = groups.iter().flat_map(|(name, all)| rows(name, all));
        table::print(
            [
                "GROUP",
                "NODE",
                "ROLE",
                "TERM",
                "START",
                "LAST",
                "COMMITTED",
                "APPLIED",
                "LAG",
                "BROKER",
                "NAMESRV",
            ],
            rows,
        );
    }
    for (name, all) in &groups {
        // The names only matter where there are several.
        let of = if groups.len() > 1 { format!("group {name}: ") } else { String::new() };
        lines_about(all).into_iter().for_each(|line| eprintln!("{of}{line}"));
    }
    Ok(())
}

/// The groups of the first node that answers, each with what its nodes say.
async fn ask_groups(addresses: &str) -> Result<Vec<(String, Answers)>> {
    let (door, first) = ask_any(addresses, None).await?;
    let others: Vec<String> = first.groups.iter().filter(|group| **group != first.group).cloned().collect();
    let mut groups = vec![(first.group.clone(), ask_others(door, None, first).await?)];
    for group in others {
        let of_group = ask_status(door, Some(&group)).await?;
        let answers = ask_others(door, Some(&group), of_group).await?;
        groups.push((group, answers));
    }
    Ok(groups)
}

fn rows(group: &str, all: &Answers) -> Vec<[String; 11]> {
    let leader = all.values().filter_map(|(_, answer)| answer.as_ref().ok());
    let lag = leader.filter(|status| status.role == "leader").max_by_key(|status| status.term);
    let lag = lag.map(|status| status.lag.clone()).unwrap_or_default();
    all.iter().map(|(id, (at, answer))| row(group, *id, at, answer, &lag)).collect()
}

/// What does not fit the table: nodes that do not answer, and what an operator should know of the others.
fn lines_about(all: &Answers) -> Vec<String> {
    let silent = all
        .iter()
        .filter_map(|(id, (_, answer))| answer.as_ref().err().map(|error| format!("node {id}: {error:#}")));
    let told = all.iter().filter_map(|(id, (_, answer))| Some((*id, answer.as_ref().ok()?)));
    silent.chain(told.flat_map(|(id, status)| notices(id, status))).collect()
}

/// What an operator should know of a node, in sentences.
fn notices(id: u64, status: &NodeStatus) -> Vec<String> {
    let reasons = (!status.no_election.is_empty())
        .then(|| format!("node {id} does not stand for election: {}", status.no_election.join("; ")));
    let waiting = status.waiting.iter().map(|what| format!("node {id}: {what}"));
    let foreign = status.foreign.iter().map(|peer| format!("node {id} refused {peer}"));
    waiting.chain(reasons).chain(foreign).chain(scarce(id, status)).collect()
}

/// Resources of which little is left.
fn scarce(id: u64, status: &NodeStatus) -> impl Iterator<Item = String> {
    let scarce = status
        .resources
        .iter()
        .filter(|(_, of)| of.limit > 0 && of.used.saturating_mul(10) >= of.limit.saturating_mul(9));
    scarce.map(move |(name, of)| format!("node {id}: {name} {} of {} ({})", of.used, of.limit, of.key))
}

fn json(group: &str, id: u64, at: &NodeAt, answer: &Result<NodeStatus>) -> serde_json::Value {
    match answer {
        Ok(status) => serde_json::json!(status),
        Err(error) => {
            let error = format!("{error:#}");
            serde_json::json!({ "group": group, "node_id": id, "role": "unreachable", "at": at, "error": error })
        }
    }
}

fn row(
    group: &str,
    id: u64,
    at: &NodeAt,
    answer: &Result<NodeStatus>,
    lag: &BTreeMap<u64, u64>,
) -> [String; 11] {
    let place = [at.broker.clone(), at.namesrv.clone()];
    let [broker, namesrv] = place;
    let Ok(status) = answer else {
        let dash = || "-".to_owned();
        return [
            group.to_owned(),
            id.to_string(),
            "unreachable".to_owned(),
            dash(),
            dash(),
            dash(),
            dash(),
            dash(),
            dash(),
            broker,
            namesrv,
        ];
    };
    let lag = lag.get(&id).map_or("-".to_owned(), u64::to_string);
    let mut role = status.role.clone();
    if status.disk_full {
        role.push_str(" (disk full)");
    }
    if status.damaged_snapshots > 0 {
        role.push_str(" (snapshots damaged)");
    }
    [
        group.to_owned(),
        id.to_string(),
        role,
        status.term.to_string(),
        status.start_position.to_string(),
        status.last.to_string(),
        status.committed.to_string(),
        status.applied.to_string(),
        lag,
        broker,
        namesrv,
    ]
}

/// Sends a change of the membership to the leader, or to a node that brings it there.
async fn change(
    addresses: &str,
    group: Option<&str>,
    code: i32,
    request: &impl serde::Serialize,
) -> Result<()> {
    let all = ask_all(addresses, group).await?;
    let leader = all.values().filter_map(|(at, answer)| Some((at, answer.as_ref().ok()?)));
    let leader = leader.filter(|(_, status)| status.role == "leader").max_by_key(|(_, status)| status.term);
    let (at, _) =
        leader.context("no node says it leads: nothing was changed; `folio cluster status` shows more")?;
    let mut frame = Frame { code, body: body::encode(request)?, ..Frame::default() };
    for_group(&mut frame, group);
    // Catching up may take long; the node logs its progress.
    if let Ok(mut leader) = Client::connect(&at.broker).await {
        let answer = leader.call(frame.clone(), CHANGE_PATIENCE).await?;
        if !is_forbidden(answer.code) {
            return leader.accept(answer).map(drop);
        }
    }
    // The leader takes it from its own machine only, or cannot be reached from here: nothing was changed.
    let (door, _) = ask_any(addresses, group).await?;
    Client::connect(door).await?.ask(frame, CHANGE_PATIENCE + PATIENCE).await.map(drop)
}
