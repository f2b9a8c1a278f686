//! One node: starts its groups, their listeners and tables of clients, and stops them in order.
//!
//! A group that stops by itself, such as one with a failed disk, ends the process, and its other groups fail over in order: the
//! process is started again as a whole, and one machine's groups mostly share the disk that failed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use folio_broker::clients::Addresses;
use folio_broker::gossip;
use folio_broker::identity::Identity;
use folio_broker::settings::Settings;
use folio_broker::transactions;
use folio_engine::disk::{Disk, RealDisk};
use folio_engine::planted;
use folio_raft::group::{Group, HandOver};
use folio_raft::port::RaftPort;
use folio_raft::status::{Role, Status};
use tokio::net::{TcpListener, lookup_host};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::admin::Network;
use crate::config::{Listen, NodeConfig};
use crate::hosted::{self, Hosted};
use crate::net::{Listener, Resources};
use crate::remoting::Remoting;
use crate::{identity, private_files, service};

/// What clients and peers have asked may take this long to be answered.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// The same on a node whose group has stopped. What waits for the group was answered by its end, and until this process is
/// gone and started again the group lacks a member.
const FAILED_DRAIN_PATIENCE: Duration = Duration::from_secs(1);
/// The answers to what could not be brought to an end may take this long to leave.
const LAST_PATIENCE: Duration = Duration::from_millis(500);
/// A stop takes no longer than this; then the process ends as if it had been killed.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// Pause between handing leadership over and closing connections: clients hear of the new leader.
const HANDOVER_PAUSE: Duration = Duration::from_millis(50);

/// Runs a node until it is told to stop; the process's exit code.
pub async fn run(config: NodeConfig) -> Result<()> {
    let mut signals = Signals::new()?;
    if let Some(defect) = planted::active() {
        tracing::error!(defect, "this node breaks a promise on purpose: a build to test the harness with");
    }
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let _lock = identity::claim(&disk, &config)?;
    private_files::tighten(&config.data_dir, &identity::names(&config));
    let store_host = store_host(&config).await?;
    let sockets = Sockets::bind(&config).await?;
    report_ignored(&config);
    report_operators(&config);
    let (port, hosted) = tokio::select! {
        started = hosted::start(&config, disk) => started?,
        name = signals.next() => bail!("{name} while starting"),
    };
    let doors = open(&config, store_host, sockets.namesrv.is_some(), &hosted);
    let Some(first) = doors.first() else { bail!("a node hosts a group") };
    let node = first.broker.node.clone();
    let mut beside = JoinSet::new();
    doors.iter().for_each(|door| drop(beside.spawn(gossip::run(door.broker.clone()))));
    doors.iter().for_each(|door| drop(beside.spawn(transactions::run(door.broker.clone()))));
    let running = node.clone();
    beside.spawn(async move { running.stalls.watch().await });
    let listener = service::listener(config.net.clone(), first);
    sockets.serve(&listener, &doors);
    tracing::info!(
        node = config.node_id, group = node.groups.join(", "), cluster = config.cluster,
        namesrv = %config.listen.namesrv, broker = %config.listen.broker, raft = %config.listen.raft,
        data = %config.data_dir.display(), "node started"
    );
    let failure = tokio::select! {
        name = signals.next() => { tracing::info!("{name}: stopping; once more stops at once"); None }
        why = any_stopped(&hosted) => Some(why),
    };
    beside.abort_all();
    let patience = if failure.is_some() { FAILED_DRAIN_PATIENCE } else { DRAIN_PATIENCE };
    if failure.is_some() {
        // Peers of the group that has stopped take a refused connection for a dead process, and elect at once.
        port.close().await;
    }
    stop(&listener, &doors, &port, &mut signals, patience).await;
    drop(hosted);
    match failure {
        Some((place, why)) => {
            let group = node.groups.get(place).map_or("", String::as_str);
            bail!("group {group} stopped on this node: {why}")
        }
        None => Ok(()),
    }
}

/// The front doors of all groups, in the order of the configuration.
fn open(config: &NodeConfig, host: IpAddr, is_namesrv: bool, hosted: &[Hosted]) -> Vec<Arc<Remoting>> {
    let names: Vec<String> = config.group_configs().into_iter().map(|group| group.group).collect();
    let resources = Resources::new(&config.net);
    let node = service::node(&config.cluster, config.node_id, names.clone(), host, &resources);
    let settings = Settings {
        delay_levels: config.delay_levels.clone(),
        timer_delay_max_s: config.timer_delay_max_s,
        pop_retry_v2: config.pop_retry_v2,
        checks_message_type: config.checks_message_type,
        transactions: config.transactions.clone(),
        ..Settings::default()
    };
    let groups = names.iter().zip(config.broker_listeners()).zip(hosted);
    let doors = groups.map(|((name, listen), hosted)| {
        let advertised = config.advertised_for(listen);
        let namesrv = if is_namesrv { advertised.namesrv } else { advertised.broker.clone() };
        let identity = Identity {
            cluster: config.cluster.clone(),
            broker_name: name.clone(),
            node_id: config.node_id,
            store_host: SocketAddr::new(host, listen.port()),
            addresses: Addresses { broker: advertised.broker, namesrv },
        };
        service::open_on(node.clone(), identity, settings.clone(), resources.clone(), hosted.group.clone())
    });
    let doors: Vec<Arc<Remoting>> = doors.collect();
    Remoting::join(&doors);
    hosted.iter().zip(&doors).for_each(|(hosted, door)| hosted.hooks.attach(door));
    doors
}

fn report_ignored(config: &NodeConfig) {
    if !config.ignored.is_empty() {
        tracing::warn!("keys of the configuration that mean nothing here: {}", config.ignored.join(", "));
    }
}

/// Says who may administer this node, where that is more than this machine.
fn report_operators(config: &NodeConfig) {
    if let Some(admin) = config.listen.admin {
        tracing::info!(%admin, "administrative requests are accepted from whoever connects to the port listen.admin");
    }
    let others = config.net.operators.iter().filter(|network| !Network::LOOPBACK.contains(network));
    let others: Vec<String> = others.map(Network::to_string).collect();
    if config.net.operators.iter().any(Network::is_everything) {
        tracing::warn!("administrative requests are accepted from everywhere: see listen.admin_from");
    } else if !others.is_empty() {
        tracing::info!("administrative requests are accepted from {} too", others.join(", "));
    }
}

/// The advertised host as messages carry it: numbers, IPv4 if there is one.
async fn store_host(config: &NodeConfig) -> Result<IpAddr> {
    let advertised = config.advertised().broker;
    let resolved = lookup_host(&advertised).await;
    let found: Vec<SocketAddr> = resolved
        .with_context(|| format!("the host {:?} (key `host`) cannot be resolved", config.host))?
        .collect();
    let best = found.iter().find(|address| address.is_ipv4()).or(found.first());
    best.map(SocketAddr::ip)
        .with_context(|| format!("the host {:?} (key `host`) has no address", config.host))
}

/// Sockets taken before anything else, so that a port in use is found out first.
struct Sockets {
    namesrv: Option<TcpListener>,
    /// Of each group.
    brokers: Vec<TcpListener>,
    admin: Option<TcpListener>,
}

impl Sockets {
    async fn bind(config: &NodeConfig) -> Result<Self> {
        let listen: &Listen = &config.listen;
        let namesrv = match bind(listen.namesrv, "listen.namesrv").await {
            Ok(socket) => Some(socket),
            Err(error) if listen.namesrv_optional => {
                tracing::warn!(
                    "no NameServer port of its own: {error:#}; the broker port answers as one, too"
                );
                None
            }
            Err(error) => return Err(error),
        };
        let mut brokers = vec![bind(listen.broker, "listen.broker").await?];
        for group in &config.groups {
            brokers.push(bind(group.listen, &format!("groups ({}): listen", group.name)).await?);
        }
        let admin = match listen.admin {
            Some(address) => Some(bind(address, "listen.admin").await?),
            None => None,
        };
        Ok(Self { namesrv, brokers, admin })
    }

    /// `listener` is the first group's.
    fn serve(self, listener: &Listener, doors: &[Arc<Remoting>]) {
        if let Some(namesrv) = self.namesrv {
            listener.serve(namesrv);
        }
        for (socket, door) in self.brokers.into_iter().zip(doors) {
            service::listener_of(listener, door).serve(socket);
        }
        if let Some(admin) = self.admin {
            listener.serve_operators(admin);
        }
    }
}

async fn bind(address: SocketAddr, key: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (key `{key}`; in a broker.conf `listenPort`, `namesrvListenPort` or `adminListenPort`)"))
}

/// Waits until one of the groups has stopped; its place among them, and why.
async fn any_stopped(hosted: &[Hosted]) -> (usize, String) {
    let mut groups = JoinSet::new();
    for (place, hosted) in hosted.iter().enumerate() {
        let group = hosted.group.clone();
        groups.spawn(async move { (place, stopped(&group).await) });
    }
    match groups.join_next().await {
        Some(Ok(stopped)) => stopped,
        // None of them is aborted, and there is one at least: the error is for the compiler.
        Some(Err(_)) | None => std::future::pending().await,
    }
}

async fn stopped(group: &Group) -> String {
    let is_stopped = |status: &Status| matches!(status.role, Role::Stopped(_));
    match group.watch().wait_for(is_stopped).await.map(|status| status.role.clone()) {
        Ok(Role::Stopped(why)) => why,
        _ => "it ended".to_owned(),
    }
}

/// Does the same with all groups at once.
async fn with_all<F: Future<Output = ()> + Send + 'static>(
    doors: &[Arc<Remoting>],
    call: impl Fn(Group) -> F,
) {
    let calls: JoinSet<()> = doors.iter().map(|door| call(door.broker.group.clone())).collect();
    calls.join_all().await;
}

/// Leadership first: what was proposed here is committed by the next leader and answered here, what comes meanwhile
/// is forwarded. Then no request is taken any more, what was taken is answered, and connections are closed (net.I4).
async fn stop(
    listener: &Listener,
    doors: &[Arc<Remoting>],
    port: &RaftPort,
    signals: &mut Signals,
    patience: Duration,
) {
    let orderly = async {
        listener.stop_accepting();
        with_all(doors, |group| async move {
            if let Err(error) = group.hand_over(None, HandOver::Stopping).await {
                tracing::info!("leadership was not handed over: {error}");
            }
        })
        .await;
        tokio::time::sleep(HANDOVER_PAUSE).await;
        listener.refuse();
        doors.iter().for_each(|door| {
            door.broker.polls.release_all();
            door.broker.release_pops();
        });
        let calls = with_all(doors, move |group| async move { group.answer_calls(patience).await });
        tokio::join!(listener.drain(patience), calls);
        // Whatever is still under way learns here that its outcome is not known.
        port.close().await;
        with_all(doors, |group| async move { group.shutdown().await }).await;
        listener.close(LAST_PATIENCE).await;
    };
    tokio::select! {
        () = orderly => tracing::info!("node stopped"),
        () = tokio::time::sleep(STOP_PATIENCE) => tracing::warn!("the stop took longer than {STOP_PATIENCE:?}: ending now"),
        name = signals.next() => {
            tracing::warn!("{name} again: ending now");
            std::process::exit(1);
        }
    }
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
