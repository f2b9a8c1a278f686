//! A network for each node: namespaces of the kernel, so that links break as links of a network do.
//!
//! ```text
//!   node 1's namespace    node 2's namespace    node 3's namespace    ...
//!        eth0                  eth0                  eth0
//!         |                     |                     |
//!       node1                 node2                 node3
//!   ---------------- the hub's namespace, a router ----------------
//!                     the clients: this process
//! ```
//!
//! A cut is a rule of the hub's for packets of one direction between two nodes: dropped, and either
//! nobody is told or the sender is. Nobody's connection is reset, so what this shows and the relays
//! cannot are half-open connections: one side is gone and the other side's TCP still sends again, for
//! minutes. Loss is of packets, at random; delay is the kernel's `netem`. Clients are at the hub: they
//! reach a node that its peers do not.
//!
//! It takes root and the program `ip` (and `tc` for loss and delay); nothing of the host's network is
//! touched. Names carry the process id: what a killed harness left, processes included, the next one
//! removes.
//!
//! What it is not: a sandbox. File system, clock and users are the machine's.

mod layout;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub use self::layout::HUB;
use self::layout::{Layout, Step};
use crate::relay::Flow;

/// Where `ip` keeps the names.
const NAMES: &str = "/var/run/netns";

/// The namespaces of one cluster; removed when dropped.
pub struct Namespaces {
    layout: Layout,
    hub: File,
    nodes: Vec<File>,
    delay: std::result::Result<(), String>,
    loss: std::result::Result<(), String>,
    now: Mutex<BTreeMap<(u64, u64), Flow>>,
    _names: Names,
}

/// Names that go when this does. What is still inside, threads of ours or a process, keeps a
/// namespace alive without its name until it ends.
struct Names(Vec<String>);

impl Drop for Names {
    fn drop(&mut self) {
        for name in &self.0 {
            if let Err(error) = remove(name) {
                tracing::warn!(error = format!("{error:#}"), "a network namespace is left");
            }
        }
    }
}

/// Whether there can be namespaces here.
///
/// # Errors
/// With the reason why not.
pub fn check() -> std::result::Result<(), String> {
    Namespaces::create(1).map(drop).map_err(|error| format!("{error:#}"))
}

impl Namespaces {
    /// A hub and so many nodes.
    ///
    /// # Errors
    /// When this process may not, or a program is missing.
    pub fn create(nodes: u64) -> Result<Arc<Self>> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        ensure!(rustix::process::geteuid().is_root(), "it takes root");
        sweep()?;
        let layout = Layout::new(std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed), nodes);
        // First, so that half of them do not stay when one fails.
        let names = Names(layout.names());
        run_all(&layout.build())?;
        let open =
            |name: String| File::open(format!("{NAMES}/{name}")).with_context(|| format!("open {name}"));
        let hub = open(layout.hub())?;
        let files = layout.places().map(|place| open(layout.node(place))).collect::<Result<Vec<File>>>()?;
        inside(&hub, || {
            set("ip_forward", "1")?;
            // Every sender is told, each time.
            set("icmp_ratelimit", "0")
        })?;
        let try_all = |steps: &[Step]| run_all(steps).map_err(|error| format!("{error:#}"));
        let (delay, loss) = (try_all(&layout.prepare_delay()), try_all(&layout.prepare_loss()));
        let now = Mutex::new(BTreeMap::new());
        Ok(Arc::new(Self { layout, hub, nodes: files, delay, loss, now, _names: names }))
    }

    /// Moves this thread, and all that it starts from now on, to where the clients are.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> Result<()> {
        enter(&self.hub)
    }

    /// The address of the node in this place, from 1.
    #[must_use]
    pub fn address(&self, place: u64) -> String {
        layout::address(place)
    }

    /// Starts a process in the network of the node in this place.
    ///
    /// # Errors
    /// When there is no such place, or the process cannot be started.
    pub fn spawn(&self, place: u64, command: &mut Command) -> Result<Child> {
        let at = (place as usize).checked_sub(1).and_then(|at| self.nodes.get(at));
        let at = at.with_context(|| format!("there is no network for place {place}"))?;
        inside(at, || command.spawn().context("start a process"))
    }

    /// Whether links can be late.
    ///
    /// # Errors
    /// With the reason why not.
    pub fn delays(&self) -> std::result::Result<(), String> {
        self.delay.clone()
    }

    /// Whether links can lose packets.
    ///
    /// # Errors
    /// With the reason why not.
    pub fn loses(&self) -> std::result::Result<(), String> {
        self.loss.clone()
    }

    /// All directions `(from, to)`.
    pub fn directions(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let pairs = self.layout.places().flat_map(|from| self.layout.places().map(move |to| (from, to)));
        pairs.filter(|(from, to)| from != to)
    }

    /// Sets what happens to packets from `from` to `to`.
    ///
    /// # Errors
    /// When a program fails: then it is not done.
    pub fn set(&self, from: u64, to: u64, flow: Flow) -> Result<()> {
        self.set_in(&mut self.now.lock(), from, to, flow)
    }

    fn set_in(&self, now: &mut BTreeMap<(u64, u64), Flow>, from: u64, to: u64, flow: Flow) -> Result<()> {
        if !self.directions().any(|direction| direction == (from, to)) {
            return Ok(());
        }
        let state = now.entry((from, to)).or_default();
        if *state != flow {
            run_all(&self.layout.undo(from, to, std::mem::take(state)))?;
            run_all(&self.layout.apply(from, to, flow))?;
            *state = flow;
        }
        Ok(())
    }

    /// Every packet passes at once again.
    ///
    /// # Errors
    /// When a program fails.
    pub fn heal(&self) -> Result<()> {
        let mut now = self.now.lock();
        self.directions().try_for_each(|(from, to)| self.set_in(&mut now, from, to, Flow::Pass))
    }
}

/// Removes the namespaces, and the processes in them, of harnesses that are gone.
fn sweep() -> Result<()> {
    let Ok(entries) = std::fs::read_dir(NAMES) else { return Ok(()) };
    let names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let lives = |pid: u32| std::fs::exists(format!("/proc/{pid}")).unwrap_or(true);
    for name in layout::stale(&names, lives) {
        // Another harness may be sweeping as well: then it is gone.
        let inside = ip_netns("pids", &name).unwrap_or_default();
        for pid in inside.lines().filter_map(|pid| Pid::from_raw(pid.trim().parse().ok()?)) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
        remove(&name)?;
    }
    Ok(())
}

fn remove(name: &str) -> Result<()> {
    // Its links go with it, once nobody is inside.
    match ip_netns("del", name) {
        Err(error) if std::fs::exists(format!("{NAMES}/{name}")).unwrap_or(true) => Err(error),
        _ => Ok(()),
    }
}

fn ip_netns(what: &str, name: &str) -> Result<String> {
    output("ip", &["netns", what, name].map(str::to_owned))
}

fn enter(namespace: &File) -> Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .context("enter a network namespace")
}

/// Does this on a thread of its own in the namespace; processes started there stay there.
fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| enter(namespace).and_then(|()| work()));
        thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread in a network namespace panicked")))
    })
}

/// Sets one of this thread's network's variables.
fn set(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/ipv4/{name}");
    std::fs::write(&path, value).with_context(|| format!("write {path}"))
}

fn run_all(steps: &[Step]) -> Result<()> {
    steps.iter().try_for_each(|step| output(step.program, &step.words).map(drop))
}

fn output(program: &str, words: &[String]) -> Result<String> {
    let done = Command::new(program).args(words).stdin(Stdio::null()).output();
    let done = done.with_context(|| format!("run {program} (package iproute2)"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{program} {}: {}", words.join(" "), said.trim());
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[cfg(test)]
mod tests;
