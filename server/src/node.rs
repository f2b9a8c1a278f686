//! One node: starts its group, its listeners and its table of clients, and stops them in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use folio_broker::broker::Broker;
use folio_broker::clients::Addresses;
use folio_broker::gossip;
use folio_broker::identity::Identity;
use folio_broker::settings::Settings;
use folio_engine::disk::{Disk, RealDisk};
use folio_engine::planted;
use folio_raft::group::HandOver;
use folio_raft::status::{Role, Status};
use tokio::net::{TcpListener, lookup_host};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::admin::Network;
use crate::config::{Listen, NodeConfig};
use crate::hooks::NodeHooks;
use crate::net::{Listener, Resources};
use crate::{group_thread, identity, private, service};

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
    private::tighten(&config.data_dir, &identity::names(&config));
    let store_host = store_host(&config).await?;
    let sockets = Sockets::bind(&config.listen).await?;
    report_ignored(&config);
    report_operators(&config);
    let hooks = Arc::new(NodeHooks::default());
    let (group, group_thread) = tokio::select! {
        started = group_thread::start(config.group_config(), disk, hooks.clone()) => started?,
        name = signals.next() => bail!("{name} while starting"),
    };
    let resources = Resources::new(&config.net);
    let identity = identity_of(&config, store_host, sockets.namesrv.is_some());
    let settings = Settings {
        delay_levels: config.delay_levels.clone(),
        timer_delay_max_s: config.timer_delay_max_s,
        ..Settings::default()
    };
    let remoting = service::open(identity, settings, resources, group.clone());
    hooks.attach(&remoting);
    let broker = remoting.broker.clone();
    let gossip = tokio::spawn(gossip::run(broker.clone()));
    let running = broker.clone();
    let stalls = tokio::spawn(async move { running.stalls.watch().await });
    let listener = service::listener(config.net.clone(), &remoting);
    sockets.serve(&listener);
    tracing::info!(
        node = config.node_id, group = config.group, cluster = config.cluster,
        namesrv = %config.listen.namesrv, broker = %config.listen.broker, raft = %config.listen.raft,
        data = %config.data_dir.display(), "node started"
    );
    let failure = tokio::select! {
        name = signals.next() => { tracing::info!("{name}: stopping; once more stops at once"); None }
        why = group_stopped(group.watch()) => Some(why),
    };
    gossip.abort();
    stalls.abort();
    let patience = if failure.is_some() { FAILED_DRAIN_PATIENCE } else { DRAIN_PATIENCE };
    stop(&listener, &broker, &mut signals, patience).await;
    drop(group_thread);
    match failure {
        Some(why) => bail!("the group stopped on this node: {why}"),
        None => Ok(()),
    }
}

fn identity_of(config: &NodeConfig, store_host: SocketAddr, is_namesrv: bool) -> Identity {
    let advertised = config.advertised();
    let namesrv = if is_namesrv { advertised.namesrv } else { advertised.broker.clone() };
    Identity {
        cluster: config.cluster.clone(),
        broker_name: config.group.clone(),
        node_id: config.node_id,
        store_host,
        addresses: Addresses { broker: advertised.broker, namesrv },
    }
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

/// The advertised broker address as messages carry it: numbers, IPv4 if there is one.
async fn store_host(config: &NodeConfig) -> Result<SocketAddr> {
    let advertised = config.advertised().broker;
    let resolved = lookup_host(&advertised).await;
    let found: Vec<SocketAddr> = resolved
        .with_context(|| format!("the host {:?} (key `host`) cannot be resolved", config.host))?
        .collect();
    let best = found.iter().find(|address| address.is_ipv4()).or(found.first());
    best.copied().with_context(|| format!("the host {:?} (key `host`) has no address", config.host))
}

/// Sockets taken before anything else, so that a port in use is found out first.
struct Sockets {
    namesrv: Option<TcpListener>,
    broker: TcpListener,
    admin: Option<TcpListener>,
}

impl Sockets {
    async fn bind(listen: &Listen) -> Result<Self> {
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
        let broker = bind(listen.broker, "listen.broker").await?;
        let admin = match listen.admin {
            Some(address) => Some(bind(address, "listen.admin").await?),
            None => None,
        };
        Ok(Self { namesrv, broker, admin })
    }

    fn serve(self, listener: &Listener) {
        if let Some(namesrv) = self.namesrv {
            listener.serve(namesrv);
        }
        listener.serve(self.broker);
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

async fn group_stopped(mut status: watch::Receiver<Status>) -> String {
    let stopped = status.wait_for(|status| matches!(status.role, Role::Stopped(_))).await;
    match stopped.map(|status| status.role.clone()) {
        Ok(Role::Stopped(why)) => why,
        _ => "it ended".to_owned(),
    }
}

/// Leadership first: what was proposed here is committed by the next leader and answered here, what comes meanwhile
/// is forwarded. Then no request is taken any more, what was taken is answered, and connections are closed (net.I4).
async fn stop(listener: &Listener, broker: &Broker, signals: &mut Signals, patience: Duration) {
    let group = &broker.group;
    let orderly = async {
        listener.stop_accepting();
        if let Err(error) = group.hand_over(None, HandOver::Stopping).await {
            tracing::info!("leadership was not handed over: {error}");
        }
        tokio::time::sleep(HANDOVER_PAUSE).await;
        listener.refuse();
        broker.polls.release_all();
        tokio::join!(listener.drain(patience), group.answer_calls(patience));
        // Whatever is still under way learns here that its outcome is not known.
        group.shutdown().await;
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
