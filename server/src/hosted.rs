//! The groups of one node as they start: side by side, each on a thread of its own, behind one Raft port.

use std::sync::Arc;

use anyhow::{Context, Result};
use folio_engine::disk::Disk;
use folio_raft::group::{Group, StartError};
use folio_raft::host::{Host, Tcp};
use folio_raft::port::{PortConfig, RaftPort};

use crate::config::NodeConfig;
use crate::group_thread::GroupThread;
use crate::hooks::NodeHooks;

/// One group that runs.
pub(crate) struct Hosted {
    pub(crate) group: Group,
    pub(crate) hooks: Arc<NodeHooks>,
    pub(crate) _thread: GroupThread,
}

/// Opens the Raft port and starts all groups of the configuration, in its order. All of them, or none.
pub(crate) async fn start(config: &NodeConfig, disk: Arc<dyn Disk>) -> Result<(RaftPort, Vec<Hosted>)> {
    let configs = config.group_configs();
    let threads: Result<Vec<GroupThread>> = configs.iter().map(|_| GroupThread::start()).collect();
    let threads = threads?;
    let port = open_port(config, threads.first().context("a node hosts a group")?).await?;
    let mut starting = Vec::new();
    for (config, thread) in configs.into_iter().zip(threads) {
        let (hooks, port, host) = (Arc::new(NodeHooks::default()), port.clone(), Host::new(disk.clone()));
        let own = hooks.clone();
        let started = thread.spawn(async move { Group::start_at(&port, host, config, own).await });
        starting.push((hooks, thread, started));
    }
    let (mut hosted, mut failed) = (Vec::new(), None);
    for (hooks, thread, started) in starting {
        match started.await.context("the group's thread panicked at its start")? {
            Ok(group) => hosted.push(Hosted { group, hooks, _thread: thread }),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        None => Ok((port, hosted)),
        Some(error) => {
            for Hosted { group, .. } in hosted {
                group.shutdown().await;
            }
            Err(error.into())
        }
    }
}

async fn open_port(config: &NodeConfig, thread: &GroupThread) -> Result<RaftPort> {
    let address = config.listen.raft;
    let port = PortConfig {
        cluster: config.cluster.clone(),
        listen: address,
        secret: config.secret.clone(),
        groups: config.group_configs().into_iter().map(|group| group.group).collect(),
    };
    let opening = thread.spawn(async move { RaftPort::open(&Tcp, port).await });
    let opened = opening.await.context("the group's thread panicked at its start")?;
    Ok(opened.map_err(|source| StartError::Listen { address, source })?)
}
