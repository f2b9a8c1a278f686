//! A consumer group as RocketMQ's clients form it: members ask who else is there, share the queues
//! out among themselves, go on where the group has committed, and commit after they have consumed.
//!
//! Members join and die at random. The harness adds one thing clients do not have: a queue is held
//! by one member at a time, so that no two of them commit for it at once, and a committed offset
//! that goes back was not put back by another member.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{Shape, Site};
use crate::client::Client;
use crate::connection::CallError;
use crate::history::{Commit, Committed, Recorder};
use crate::nemesis::Dice;
use crate::reader::{PollOf, new_session};
use crate::reading::QueueKey;

/// How often a member says that it is there and asks who else is.
const REBALANCE_EVERY: Duration = Duration::from_millis(500);
/// Pause of a member that was given nothing.
const IDLE: Duration = Duration::from_millis(20);
/// Members at a time.
const MEMBERS: std::ops::Range<usize> = 2..5;
/// How often the committed offsets are asked for at every node in turn, members aside.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// Who consumes which queue.
type Claims = Arc<Mutex<HashMap<QueueKey, u64>>>;

/// The group, running.
pub(super) struct Members {
    stop: Arc<AtomicBool>,
    directing: JoinHandle<()>,
    watching: JoinHandle<()>,
}

impl Members {
    pub(super) fn start(site: &Site, shape: &Shape, recorder: &Arc<Recorder>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        recorder.consumer("group");
        let group = Group {
            site: site.clone(),
            shape: shape.clone(),
            recorder: Arc::clone(recorder),
            claims: Claims::default(),
        };
        let watching = tokio::spawn(watch(group.clone(), Arc::clone(&stop)));
        Self { directing: tokio::spawn(direct(group, Arc::clone(&stop))), watching, stop }
    }

    /// Waits until the group has committed the end of every queue, at most for `limit`.
    pub(super) async fn drain(self, limit: Duration) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let until = Instant::now() + limit;
        while !self.directing.is_finished() && Instant::now() < until {
            sleep(IDLE).await;
        }
        self.directing.abort();
        match self.directing.await {
            Err(error) if error.is_panic() => Err(error).context("the group's members ended badly"),
            _ => self.watching.await.context("the group's watcher ended badly"),
        }
    }
}

#[derive(Clone)]
struct Group {
    site: Site,
    shape: Shape,
    recorder: Arc<Recorder>,
    claims: Claims,
}

impl Group {
    fn client(&self) -> Client {
        Client::new(self.site.name_servers.clone(), format!("{}-group", self.shape.name))
    }

    async fn committed(&self, client: &Client, broker: &str, queue: QueueKey) -> Result<u64> {
        let invoked_us = self.recorder.now_us();
        let offset = client.committed(broker, &self.shape.topic(queue.topic), queue.queue).await?;
        let (broker, completed_us) = (broker.to_owned(), self.recorder.now_us());
        self.recorder.committed(Committed { queue, broker, invoked_us, completed_us, offset });
        Ok(offset)
    }

    /// Whether the group has committed the end of every queue.
    async fn is_done(&self, client: &Client) -> Result<bool> {
        // A follower takes its time to be sure.
        let route = client.route(&self.shape.topic(0)).await?;
        let broker = route.get(&0).context("no leader")?;
        for queue in self.shape.places() {
            let end = client.sure_end(broker, &self.shape.topic(queue.topic), queue.queue).await?;
            if self.committed(client, broker, queue).await? < end {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Starts members and kills them, until it is told to stop and they have consumed everything.
async fn direct(group: Group, stop: Arc<AtomicBool>) {
    let mut dice = Dice::new(group.site.seed ^ 0x6d65);
    let mut members: BTreeMap<u64, AbortOnDrop> = BTreeMap::new();
    let client = group.client();
    let mut next = 0;
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        if stopping && group.is_done(&client).await.unwrap_or(false) {
            return;
        }
        if members.len() < MEMBERS.start || (members.len() < MEMBERS.end && dice.one_in(2)) {
            let member = Member::new(next, group.clone());
            members.insert(next, AbortOnDrop(tokio::spawn(member.run())));
            next += 1;
        } else if !stopping {
            let ids: Vec<u64> = members.keys().copied().collect();
            if let Some((id, task)) = dice.one_of(&ids).and_then(|id| members.remove_entry(id)) {
                task.end().await;
                group.claims.lock().retain(|_, holder| *holder != id);
            }
        }
        let pause = if stopping { REBALANCE_EVERY } else { dice.millis(500, 3000) };
        let until = Instant::now() + pause;
        while Instant::now() < until && (stopping || !stop.load(Ordering::Relaxed)) {
            sleep(IDLE).await;
        }
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl AbortOnDrop {
    /// Kills the member in the middle of whatever it does, connections and all.
    async fn end(mut self) {
        self.0.abort();
        // It was told to end: that it did so early is what is wanted.
        let _ = (&mut self.0).await;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks every node in turn what the group has committed.
async fn watch(group: Group, stop: Arc<AtomicBool>) {
    let client = group.client();
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some(broker) = group.site.brokers.get(turn % group.site.brokers.len().max(1)) else { return };
        for queue in group.shape.places() {
            // A node that is down or has no leader to ask says nothing: that is no answer.
            let _ = group.committed(&client, broker, queue).await;
        }
        turn += 1;
        sleep(WATCH_EVERY).await;
    }
}

struct Member {
    number: u64,
    name: String,
    client: Client,
    group: Group,
    turn: usize,
    held: BTreeMap<QueueKey, Held>,
}

/// A queue this member consumes.
struct Held {
    session: u64,
    next: u64,
    committed: u64,
}

impl Member {
    fn new(number: u64, group: Group) -> Self {
        let name = format!("member-{number:04}");
        let client = group.client().with_member(name.clone());
        Self { number, name, client, group, turn: number as usize, held: BTreeMap::new() }
    }

    async fn run(mut self) {
        let mut rebalanced: Option<Instant> = None;
        loop {
            if rebalanced.is_none_or(|at| at.elapsed() > REBALANCE_EVERY) {
                match self.rebalance().await {
                    Ok(()) => rebalanced = Some(Instant::now()),
                    Err(error) => {
                        tracing::trace!(error = format!("{error:#}"), "no rebalance");
                        self.turn += 1;
                    }
                }
            }
            if !self.consume().await {
                sleep(IDLE).await;
            }
        }
    }

    fn broker(&self) -> String {
        let brokers = &self.group.site.brokers;
        brokers.get(self.turn % brokers.len().max(1)).cloned().unwrap_or_default()
    }

    /// Shares the queues out as RocketMQ's `AllocateMessageQueueAveragely` does: in order.
    async fn rebalance(&mut self) -> Result<()> {
        let broker = self.broker();
        self.client.subscribe(&broker, &self.group.shape.topic_names()).await?;
        let members = self.client.members(&broker).await?;
        let at = members.iter().position(|member| *member == self.name).context("not in the list yet")?;
        let places = self.group.shape.places();
        let mine = |index: usize| index * members.len() / places.len().max(1) == at;
        let wanted: Vec<QueueKey> =
            places.iter().enumerate().filter(|(index, _)| mine(*index)).map(|(_, queue)| *queue).collect();
        let released: Vec<QueueKey> =
            self.held.keys().filter(|queue| !wanted.contains(queue)).copied().collect();
        for queue in released {
            self.commit(queue).await;
            self.held.remove(&queue);
        }
        // Also those it could not begin with.
        let mine = |queue: &QueueKey, holder: u64| holder == self.number && !wanted.contains(queue);
        self.group.claims.lock().retain(|queue, holder| !mine(queue, *holder));
        for queue in wanted {
            self.take(queue, &broker).await?;
        }
        Ok(())
    }

    /// Takes a queue nobody holds, and goes on where the group has committed.
    async fn take(&mut self, queue: QueueKey, broker: &str) -> Result<()> {
        let holder = *self.group.claims.lock().entry(queue).or_insert(self.number);
        if holder != self.number || self.held.contains_key(&queue) {
            return Ok(());
        }
        let next = self.group.committed(&self.client, broker, queue).await?;
        self.held.insert(queue, Held { session: new_session(), next, committed: next });
        Ok(())
    }

    /// One pull of every queue, and a commit after it; whether anything came.
    async fn consume(&mut self) -> bool {
        let queues: Vec<QueueKey> = self.held.keys().copied().collect();
        let mut news = false;
        for queue in queues {
            let broker = self.broker();
            let Some(held) = self.held.get_mut(&queue) else { continue };
            let poll = PollOf {
                consumer: "group".to_owned(),
                session: held.session,
                shape: self.group.shape.clone(),
                recorder: Arc::clone(&self.group.recorder),
            };
            match poll.poll(&self.client, &broker, queue, held.next).await {
                Ok(pulled) => {
                    held.next = pulled.next;
                    news |= !pulled.messages.is_empty();
                }
                Err(error) => {
                    tracing::trace!(error = format!("{error:#}"), "a member's pull failed");
                    self.turn += 1;
                }
            }
            self.commit(queue).await;
        }
        news
    }

    /// Commits what was consumed, if it is more than before.
    async fn commit(&mut self, queue: QueueKey) {
        let broker = self.broker();
        let Some(held) = self.held.get_mut(&queue).filter(|held| held.next > held.committed) else { return };
        let recorder = &self.group.recorder;
        let mut open = Open { recorder: Arc::clone(recorder), commit: None };
        open.commit =
            Some(Commit { queue, invoked_us: recorder.now_us(), acked_us: None, offset: held.next });
        let topic = self.group.shape.topic(queue.topic);
        match self.client.commit(&broker, &topic, queue.queue, held.next).await {
            Ok(()) => {
                held.committed = held.next;
                if let Some(commit) = &mut open.commit {
                    commit.acked_us = Some(recorder.now_us());
                }
            }
            Err(CallError::NotSent(_)) => {
                open.commit = None;
                self.turn += 1;
            }
            Err(CallError::Unknown(_)) => self.turn += 1,
        }
    }
}

/// A commit under way: recorded whatever happens to the member meanwhile.
struct Open {
    recorder: Arc<Recorder>,
    commit: Option<Commit>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(commit) = self.commit.take() {
            self.recorder.commit(commit);
        }
    }
}
