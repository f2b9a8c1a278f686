//! `peers`: what `benches/cluster` needs besides `folio` itself, in one program: the limits of the machine
//! (disk, loopback), the floor program, and one load generator for the floor and for other message systems.
//!
//! Not here: starting and stopping those systems (`benches/cluster`), and load in RocketMQ's protocol
//! (`folio bench`).

mod amqp;
mod disk;
mod etcd;
mod floor;
mod load;
mod loopback;
mod nats;
mod peer;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "peers", about = "Limits, floor and load for benches/cluster; each prints one JSON object")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sequential write + fdatasync into files of zeros.
    Disk(disk::Options),
    /// One-way throughput and the round trip of one byte over 127.0.0.1.
    Loopback {
        /// How long, each of the two.
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
    /// A follower of the floor program.
    FloorFollower {
        /// Where to listen.
        #[arg(long)]
        listen: String,
        /// Where to keep the log.
        #[arg(long)]
        data: PathBuf,
        /// What kind of log to keep.
        #[arg(long, value_enum, default_value = "ring")]
        log: floor::Kind,
    },
    /// The leader of the floor program.
    FloorLeader {
        /// Where to listen.
        #[arg(long)]
        listen: String,
        /// Where to keep the log.
        #[arg(long)]
        data: PathBuf,
        /// What kind of log to keep.
        #[arg(long, value_enum, default_value = "ring")]
        log: floor::Kind,
        /// The followers' addresses.
        #[arg(long, num_args = 1.., required = true)]
        followers: Vec<String>,
    },
    /// Closed-loop load on the floor program or on another system.
    Load(load::Options),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Disk(options) => disk::run(&options),
        Command::Loopback { seconds } => loopback::run(seconds),
        Command::FloorFollower { listen, data, log } => floor::follower::run(&listen, &data, log),
        Command::FloorLeader { listen, data, log, followers } => {
            floor::leader::run(&listen, &data, log, &followers)
        }
        Command::Load(options) => load::run(&options),
    }
}
