//! `folio cluster`: a whole cluster on this machine, one process per node.
//!
//! The parent serves nothing: it starts `folio node` once per node, waits until a leader serves, and
//! stops them together. A node that dies is reported, and started again only if asked to.

mod child;
mod launch;
mod layout;
mod program;

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval, sleep, timeout};

use crate::status::ask_status;
use child::Child;
pub(crate) use launch::Launch;
use layout::Layout;
use program::tell;

/// How long the nodes may take until one leads.
const READY_PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait for the other nodes once one leads.
const OTHERS_PATIENCE: Duration = Duration::from_secs(5);
/// How often nodes are asked while they start, and looked after later.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// One answer of a starting node.
const ASK_PATIENCE: Duration = Duration::from_millis(500);
/// Pause before a dead node is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// A node that is told to stop ends by itself in twenty seconds.
const STOP_PATIENCE: Duration = Duration::from_secs(25);

/// Runs the cluster until it is told to stop.
pub(crate) async fn run(launch: Launch) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut told = std::pin::pin!(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    });
    let layout = Layout::prepare(&launch)?;
    let mut children = Vec::new();
    for id in layout.ids() {
        children.push(Child::start(&layout, id, launch.log.as_deref())?);
    }
    tell(&layout);
    let ended = tokio::select! {
        () = &mut told => Ok(()),
        ended = serve(&layout, &launch, &mut children) => ended,
    };
    let running = children.iter_mut().map(Child::is_running).filter(|running| *running).count();
    tell(format_args!("stopping {running} nodes"));
    stop(&mut children).await;
    ended
}

async fn serve(layout: &Layout, launch: &Launch, children: &mut [Child]) -> Result<()> {
    let leader = ready(layout, children).await?;
    tell(format_args!(
        "ready: node {leader} leads. RocketMQ clients connect to NameServer {}",
        layout.namesrv()
    ));
    tell(format_args!(
        "next:  folio topic create orders -n {0}    or    folio cluster status -n {0}",
        layout.namesrv()
    ));
    tell(format_args!("       Ctrl-C stops all nodes"));
    look_after(layout, launch, children).await
}

/// Waits until one node leads, and a little for the others to follow it: until a node has heard who belongs to the
/// group, it says it is a learner.
async fn ready(layout: &Layout, children: &mut [Child]) -> Result<u64> {
    let started = Instant::now();
    let mut leads: Option<(u64, Instant)> = None;
    loop {
        for child in children.iter_mut() {
            if let Some(how) = child.ended() {
                bail!(
                    "node {} {how}; the end of its log, {}:\n{}",
                    child.id,
                    child.log.display(),
                    child.last_lines()
                );
            }
        }
        let mut take_part = 0;
        for id in layout.ids() {
            if let Ok(Ok(status)) = timeout(ASK_PATIENCE, ask_status(&layout.at(id).broker, None)).await {
                take_part += usize::from(matches!(status.role.as_str(), "leader" | "follower"));
                if status.role == "leader" {
                    leads.get_or_insert((status.node_id, Instant::now()));
                }
            }
        }
        match leads {
            Some((leader, _)) if take_part == children.len() => return Ok(leader),
            Some((leader, since)) if since.elapsed() > OTHERS_PATIENCE => return Ok(leader),
            None if started.elapsed() > READY_PATIENCE => {
                bail!("no node leads after {READY_PATIENCE:?}; their logs are in {}", layout.dir().display());
            }
            _ => sleep(LOOK_EVERY).await,
        }
    }
}

/// Reports nodes that die; fails when none is left.
async fn look_after(layout: &Layout, launch: &Launch, children: &mut [Child]) -> Result<()> {
    let mut ticks = interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        for child in children.iter_mut() {
            let Some(how) = child.ended() else { continue };
            tell(format_args!("node {} {how}; its log: {}", child.id, child.log.display()));
            if launch.restart {
                sleep(RESTART_PAUSE).await;
                *child = Child::start(layout, child.id, launch.log.as_deref())?;
                tell(format_args!("node {} started again", child.id));
            }
        }
        if !children.iter_mut().any(Child::is_running) {
            bail!("all nodes have ended");
        }
    }
}

async fn stop(children: &mut [Child]) {
    for child in children.iter_mut() {
        child.terminate();
    }
    let deadline = Instant::now() + STOP_PATIENCE;
    for child in children.iter_mut() {
        while child.is_running() && Instant::now() < deadline {
            sleep(Duration::from_millis(10)).await;
        }
        if child.is_running() {
            tell(format_args!("node {} did not stop within {STOP_PATIENCE:?} and is killed", child.id));
            child.kill();
        }
    }
}
