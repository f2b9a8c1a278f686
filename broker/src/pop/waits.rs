//! Requests that wait for a message to pop (`pop.I6`).
//!
//! The thread that applies records notes which topics had messages, and wakes as many requests of each group as there were messages. One that
//! finds nothing, as its filter does not want the message, waits anew; all look again from time to time anyway.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use folio_engine::queues::Arrival;
use folio_protocol::Name;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Requests of one group for one topic (`popPollingSize`).
const OF_GROUP_MAX: usize = 1024;
/// Requests in all (`maxPopPollingSize`).
const ALL_MAX: usize = 100_000;

/// Too many requests wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitsFull;

/// One request that waits.
struct Waiting {
    number: usize,
    queue_id: i32,
    woken: Arc<Notify>,
}

/// Who waits for one topic: by group.
type OfTopic = HashMap<Name, Vec<Waiting>>;

#[derive(Default)]
struct Table {
    topics: HashMap<Name, OfTopic>,
    next: usize,
    all: usize,
    /// Retry topic -> the topic that is waited for, with the number of requests.
    retries: HashMap<Name, (Name, usize)>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Waits {
    table: Arc<Mutex<Table>>,
    all: Arc<AtomicUsize>,
}

/// A request that waits, until it is dropped.
pub struct Waiter {
    table: Arc<Mutex<Table>>,
    all: Arc<AtomicUsize>,
    group: Name,
    topic: Name,
    retries: [Name; 2],
    number: usize,
    woken: Arc<Notify>,
}

impl Waits {
    pub(super) fn wait(
        &self,
        group: &str,
        topic: &str,
        queue_id: i32,
        retries: &[String; 2],
    ) -> Result<Waiter, WaitsFull> {
        let (group, topic): (Name, Name) = (group.into(), topic.into());
        let retries = [retries[0].as_str().into(), retries[1].as_str().into()];
        let woken = Arc::new(Notify::new());
        let mut table = self.table.lock();
        let number = table.next;
        if table.all >= ALL_MAX {
            return Err(WaitsFull);
        }
        let waiting = table.topics.entry(topic.clone()).or_default().entry(group.clone()).or_default();
        if waiting.len() >= OF_GROUP_MAX {
            return Err(WaitsFull);
        }
        waiting.push(Waiting { number, queue_id, woken: woken.clone() });
        for retry in &retries {
            let of = table.retries.entry(Name::clone(retry)).or_insert_with(|| (topic.clone(), 0));
            of.1 += 1;
        }
        table.next += 1;
        table.all += 1;
        self.all.store(table.all, Ordering::Release);
        drop(table);
        Ok(Waiter { table: self.table.clone(), all: self.all.clone(), group, topic, retries, number, woken })
    }

    /// Messages that readers can see. Called on the thread that applies records: must not block.
    pub(crate) fn note(&self, arrivals: &[Arrival]) {
        if self.all.load(Ordering::Acquire) == 0 {
            return;
        }
        let table = self.table.lock();
        for arrival in arrivals {
            let retry = table.retries.get(&arrival.topic);
            let topic = retry.map_or(&arrival.topic, |(topic, _)| topic);
            let Some(of_topic) = table.topics.get(topic) else { continue };
            for waiting in of_topic.values() {
                let is_meant = |waiting: &&Waiting| {
                    retry.is_some()
                        || waiting.queue_id < 0
                        || waiting.queue_id.cast_unsigned() == arrival.queue
                };
                wake_one(waiting.iter().filter(is_meant), arrival.offset);
            }
        }
    }

    /// All requests of a group for a topic look again.
    pub(super) fn wake(&self, group: &str, topic: &str) {
        let table = self.table.lock();
        let waiting = table.topics.get(topic).and_then(|of| of.get(group));
        waiting.into_iter().flatten().for_each(|waiting| waiting.woken.notify_one());
    }

    pub(super) fn count(&self, group: &str, topic: &str, queue_id: i32) -> usize {
        let table = self.table.lock();
        let waiting = table.topics.get(topic).and_then(|of| of.get(group));
        waiting.map_or(0, |waiting| waiting.iter().filter(|waiting| waiting.queue_id == queue_id).count())
    }
}

/// Wakes one of them, another one for the next offset.
fn wake_one<'a>(waiting: impl Iterator<Item = &'a Waiting> + Clone, offset: u64) {
    let count = waiting.clone().count();
    if count > 0
        && let Some(one) = waiting.clone().nth((offset % count as u64) as usize)
    {
        one.woken.notify_one();
    }
}

impl Waiter {
    /// Waits until there may be a message.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        let Table { topics, retries, all, .. } = &mut *table;
        if let Some(of_topic) = topics.get_mut(&self.topic) {
            if let Some(waiting) = of_topic.get_mut(&self.group) {
                waiting.retain(|waiting| waiting.number != self.number);
                if waiting.is_empty() {
                    of_topic.remove(&self.group);
                }
            }
            if of_topic.is_empty() {
                topics.remove(&self.topic);
            }
        }
        for retry in &self.retries {
            if let Some(of) = retries.get_mut(retry) {
                of.1 -= 1;
                if of.1 == 0 {
                    retries.remove(retry);
                }
            }
        }
        *all -= 1;
        self.all.store(*all, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn arrival(topic: &str, queue: u32, offset: u64) -> Arrival {
        Arrival { topic: topic.into(), queue, offset, tags_code: 0 }
    }

    fn wait(waits: &Waits, group: &str, queue_id: i32) -> Result<Waiter, WaitsFull> {
        waits.wait(group, "t", queue_id, &[format!("%RETRY%{group}_t"), format!("%RETRY%{group}+t")])
    }

    async fn is_woken(waiter: &Waiter) -> bool {
        tokio::time::timeout(Duration::from_millis(10), waiter.woken()).await.is_ok()
    }

    #[tokio::test]
    async fn a_message_wakes_one_request_of_each_group_that_it_answers() {
        let waits = Waits::default();
        let any = wait(&waits, "g", -1).expect("room");
        let second = wait(&waits, "g", 2).expect("room");
        let other = wait(&waits, "h", -1).expect("room");
        waits.note(&[arrival("t", 1, 0), arrival("u", 1, 0)]);
        assert!(is_woken(&any).await && is_woken(&other).await && !is_woken(&second).await);
        waits.note(&[arrival("t", 2, 0), arrival("t", 2, 1)]);
        assert!(is_woken(&any).await && is_woken(&second).await);
        waits.note(&[arrival("%RETRY%h_t", 0, 0)]);
        assert!(is_woken(&any).await || is_woken(&other).await);
        waits.wake("g", "t");
        assert!(is_woken(&any).await && is_woken(&second).await);
        drop((any, second, other));
        assert_eq!(waits.all.load(Ordering::Acquire), 0);
        let table = waits.table.lock();
        assert!(table.topics.is_empty() && table.retries.is_empty());
    }

    #[tokio::test]
    async fn pop_i6_requests_that_wait_are_bounded() {
        let waits = Waits::default();
        let some: Vec<Waiter> = (0..OF_GROUP_MAX).map(|_| wait(&waits, "g", -1).expect("room")).collect();
        assert_eq!(wait(&waits, "g", -1).err(), Some(WaitsFull));
        assert!(wait(&waits, "h", -1).is_ok());
        assert_eq!((waits.count("g", "t", -1), waits.count("g", "t", 0)), (OF_GROUP_MAX, 0));
        drop(some);
        assert_eq!(waits.count("g", "t", -1), 0);
    }
}
