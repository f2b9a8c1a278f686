//! Reads queues through one node's own port: to the end when all is over, or all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::client::{Client, Pulled};
use crate::reading::{Found, QueueKey, Reading};
use crate::workload::Shape;

/// Pause of a live reader when no queue had anything new, or the node is down.
const IDLE: Duration = Duration::from_millis(20);
/// How often a pull of the final reading is tried again; the nodes are up and at rest by then.
const TRIES_MAX: u32 = 20;

/// Reads every queue from its beginning to its end at one broker.
///
/// # Errors
/// When the broker does not answer, or a queue makes no progress before its end.
pub async fn read_to_end(client: &Arc<Client>, broker: &str, reader: &str, shape: &Shape) -> Result<Reading> {
    client.subscribe(broker, &shape.topic_names()).await?;
    let mut tasks = JoinSet::new();
    for topic in 0..shape.topics {
        for queue in 0..shape.queues {
            let (client, broker, shape) = (Arc::clone(client), broker.to_owned(), shape.clone());
            let place = QueueKey { topic, queue };
            tasks.spawn(async move { (place, read_queue(&client, &broker, &shape, place).await) });
        }
    }
    let mut reading = Reading { reader: reader.to_owned(), ..Reading::default() };
    while let Some(ended) = tasks.join_next().await {
        let (place, read) = ended.context("a reader ended badly")?;
        let (start, found) = read.with_context(|| format!("{reader}: {place}"))?;
        reading.queues.insert(place, found);
        if shape.expire {
            reading.starts.insert(place, start);
        }
    }
    Ok(reading)
}

/// The first offset the broker still has, and every message from there.
async fn read_queue(
    client: &Client,
    broker: &str,
    shape: &Shape,
    place: QueueKey,
) -> Result<(u64, Vec<Found>)> {
    let topic = shape.topic(place.topic);
    let mut found = Vec::new();
    let mut at = 0;
    let mut start = 0;
    loop {
        let pulled = pull_patiently(client, broker, &topic, place.queue, at).await?;
        found.extend(pulled.messages.iter().map(|message| Found::judge(shape.run, place, &topic, message)));
        if found.is_empty() {
            start = pulled.min;
        }
        if pulled.next >= pulled.max {
            return Ok((start, found));
        }
        ensure!(pulled.next > at, "stuck at offset {at} of {}", pulled.max);
        at = pulled.next;
    }
}

async fn pull_patiently(client: &Client, broker: &str, topic: &str, queue: u32, at: u64) -> Result<Pulled> {
    let mut tries = 0;
    loop {
        match client.pull(broker, topic, queue, at).await {
            Ok(pulled) => return Ok(pulled),
            Err(error) if tries >= TRIES_MAX => return Err(error),
            Err(error) => tracing::debug!(%error, "pull failed"),
        }
        tries += 1;
        sleep(IDLE * tries).await;
    }
}

/// A reader that follows every queue at one node while the cluster breaks.
pub struct LiveReader {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Reading>,
}

impl LiveReader {
    /// Starts reading at this broker, and at no other.
    #[must_use]
    pub fn start(broker: String, reader: String, shape: Shape) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(follow(broker, reader, shape, Arc::clone(&stop)));
        Self { stop, task }
    }

    /// Stops and says what was read.
    ///
    /// # Errors
    /// When the reader panicked.
    pub async fn stop(self) -> Result<Reading> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("a live reader ended badly")
    }
}

async fn follow(broker: String, reader: String, shape: Shape, stop: Arc<AtomicBool>) -> Reading {
    let client = Client::new(Vec::new(), format!("{}-reader", broker.replace(['.', ':'], "-")));
    let mut reading = Reading { reader, ..Reading::default() };
    let mut subscribed = false;
    while !stop.load(Ordering::Relaxed) {
        if !subscribed {
            subscribed = client.subscribe(&broker, &shape.topic_names()).await.is_ok();
        }
        let before = reading.len();
        for topic in 0..shape.topics {
            for queue in 0..shape.queues {
                let place = QueueKey { topic, queue };
                subscribed &= follow_queue(&client, &broker, &shape, place, &mut reading).await;
            }
        }
        if reading.len() == before {
            sleep(IDLE).await;
        }
    }
    reading
}

/// One pull; `false` when the node did not answer it well and may have forgotten this reader.
async fn follow_queue(
    client: &Client,
    broker: &str,
    shape: &Shape,
    place: QueueKey,
    into: &mut Reading,
) -> bool {
    let topic = shape.topic(place.topic);
    let found = into.queues.entry(place).or_default();
    let at = found.last().map_or(0, |last| last.offset + 1);
    match client.pull(broker, &topic, place.queue, at).await {
        Ok(pulled) => {
            found.extend(
                pulled.messages.iter().map(|message| Found::judge(shape.run, place, &topic, message)),
            );
            true
        }
        Err(error) => {
            tracing::trace!(%error, "live pull failed");
            false
        }
    }
}
