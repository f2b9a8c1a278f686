//! Requests that wait for a message to pop (`pop.I6`).
//!
//! The thread that applies records notes which topics had messages, and wakes one request of each group for each message: of those that the message
//! may answer the next one by number, so that all have their turn. That takes a time that grows with the groups that wait for the topic, and with the
//! logarithm of their requests. One that finds nothing, as its filter does not want the message, waits anew; all look again from time to time anyway.
//!
//! A request that was woken and does not look, since it has got something else or its client has gone, wakes another one ([`Waiter::pass_on`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::pin;
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

/// A message that requests wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// Of this queue of their topic.
    Queue(u32),
    /// Of a retry topic of their group: a pop of any queue is given it.
    Retry,
}

/// One request that waits.
struct Waiting {
    queue: Option<u32>,
    /// What it was woken for last.
    news: News,
    woken: Arc<Notify>,
}

/// Requests of one group for one topic, by number.
struct OfGroup {
    all: BTreeMap<u64, Waiting>,
    /// Their numbers, by the queue that they wait for; `None`: for any.
    by_queue: BTreeMap<Option<u32>, BTreeSet<u64>>,
    /// The number that was woken last.
    last: u64,
    retries: [Name; 2],
}

impl OfGroup {
    fn new(retries: &[String; 2]) -> OfGroup {
        let retries = [retries[0].as_str().into(), retries[1].as_str().into()];
        OfGroup { all: BTreeMap::new(), by_queue: BTreeMap::new(), last: 0, retries }
    }

    fn put(&mut self, number: u64, waiting: Waiting) {
        self.by_queue.entry(waiting.queue).or_default().insert(number);
        self.all.insert(number, waiting);
    }

    fn remove(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.all.remove(&number)?;
        if let Some(numbers) = self.by_queue.get_mut(&waiting.queue) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_queue.remove(&waiting.queue);
            }
        }
        Some(waiting)
    }

    /// The lowest number, from this one on, of those that the message may answer.
    fn first(&self, news: News, from: u64) -> Option<u64> {
        match news {
            News::Retry => self.all.range(from..).next().map(|(number, _)| *number),
            News::Queue(queue) => {
                let of = |queue| self.by_queue.get(&queue)?.range(from..).next().copied();
                [None, Some(queue)].into_iter().filter_map(of).min()
            }
        }
    }

    fn wake_next(&mut self, news: News) {
        let next = self.first(news, self.last + 1).or_else(|| self.first(news, 0));
        let Some((number, waiting)) = next.and_then(|number| Some((number, self.all.get_mut(&number)?)))
        else {
            return;
        };
        self.last = number;
        waiting.news = news;
        waiting.woken.notify_one();
    }
}

#[derive(Default)]
struct Table {
    /// Topic -> group -> who waits.
    topics: HashMap<Name, HashMap<Name, OfGroup>>,
    /// Retry topic -> groups with the topics that they wait for: two may share a name, as group `a` with topic `b_c` and group `a_b` with topic `c` do.
    retries: HashMap<Name, Vec<(Name, Name)>>,
    last: u64,
    all: usize,
}

impl Table {
    /// The number of one that waits from now on.
    fn add(
        &mut self,
        (group, topic): (&Name, &Name),
        retries: &[String; 2],
        waiting: Waiting,
    ) -> Result<u64, WaitsFull> {
        if self.all >= ALL_MAX {
            return Err(WaitsFull);
        }
        let of_topic = self.topics.entry(topic.clone()).or_default();
        let of_group = of_topic.entry(group.clone()).or_insert_with(|| OfGroup::new(retries));
        if of_group.all.len() >= OF_GROUP_MAX {
            return Err(WaitsFull);
        }
        if of_group.all.is_empty() {
            for retry in &of_group.retries {
                self.retries.entry(retry.clone()).or_default().push((group.clone(), topic.clone()));
            }
        }
        self.last += 1;
        self.all += 1;
        of_group.put(self.last, waiting);
        Ok(self.last)
    }

    /// One waits no more.
    fn remove(&mut self, (group, topic): (&Name, &Name), number: u64) -> Option<Waiting> {
        let of_topic = self.topics.get_mut(topic)?;
        let of_group = of_topic.get_mut(group)?;
        let waiting = of_group.remove(number)?;
        self.all -= 1;
        if of_group.all.is_empty() {
            let retries = of_group.retries.clone();
            of_topic.remove(group);
            if of_topic.is_empty() {
                self.topics.remove(topic);
            }
            retries.iter().for_each(|retry| self.forget_retries((group, topic), retry));
        }
        Some(waiting)
    }

    fn forget_retries(&mut self, (group, topic): (&Name, &Name), retry: &Name) {
        let Some(waiting) = self.retries.get_mut(retry) else { return };
        waiting.retain(|(other, of)| (other, of) != (group, topic));
        if waiting.is_empty() {
            self.retries.remove(retry);
        }
    }

    fn group_mut(&mut self, group: &str, topic: &str) -> Option<&mut OfGroup> {
        self.topics.get_mut(topic)?.get_mut(group)
    }

    fn note(&mut self, arrival: &Arrival) {
        let Table { topics, retries, .. } = self;
        for of_group in topics.get_mut(&arrival.topic).into_iter().flat_map(HashMap::values_mut) {
            of_group.wake_next(News::Queue(arrival.queue));
        }
        for (group, topic) in retries.get(&arrival.topic).into_iter().flatten() {
            let of_group = topics.get_mut(topic).and_then(|of| of.get_mut(group));
            of_group.into_iter().for_each(|of| of.wake_next(News::Retry));
        }
    }
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
    number: u64,
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
        let woken = Arc::new(Notify::new());
        let waiting =
            Waiting { queue: u32::try_from(queue_id).ok(), news: News::Retry, woken: woken.clone() };
        let mut table = self.table.lock();
        let number = table.add((&group, &topic), retries, waiting)?;
        self.all.store(table.all, Ordering::Release);
        drop(table);
        Ok(Waiter { table: self.table.clone(), all: self.all.clone(), group, topic, number, woken })
    }

    /// Messages that readers can see. Called on the thread that applies records: must not block.
    pub(crate) fn note(&self, arrivals: &[Arrival]) {
        if self.all.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut table = self.table.lock();
        arrivals.iter().for_each(|arrival| table.note(arrival));
    }

    /// All requests of a group for a topic look again.
    pub(super) fn wake(&self, group: &str, topic: &str) {
        let mut table = self.table.lock();
        let of_group = table.group_mut(group, topic);
        of_group.into_iter().flat_map(|of| of.all.values()).for_each(|waiting| waiting.woken.notify_one());
    }

    /// All requests look again: the node stops.
    pub(super) fn wake_all(&self) {
        let table = self.table.lock();
        let all = table.topics.values().flat_map(HashMap::values).flat_map(|of| of.all.values());
        all.for_each(|waiting| waiting.woken.notify_one());
    }

    pub(super) fn count(&self, group: &str, topic: &str, queue_id: i32) -> usize {
        let mut table = self.table.lock();
        let queue = u32::try_from(queue_id).ok();
        table.group_mut(group, topic).and_then(|of| of.by_queue.get(&queue)).map_or(0, BTreeSet::len)
    }
}

impl Waiter {
    /// Waits until there may be a message.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Was woken, and does not look: another one is woken instead.
    pub fn pass_on(self) {
        self.woken.notify_one();
    }

    /// Whether it was woken since it waited last.
    fn is_woken(&self) -> bool {
        pin!(self.woken.notified()).enable()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        let waiting = table.remove((&self.group, &self.topic), self.number);
        self.all.store(table.all, Ordering::Release);
        if let Some(Waiting { news, .. }) = waiting
            && self.is_woken()
            && let Some(of_group) = table.group_mut(&self.group, &self.topic)
        {
            of_group.wake_next(news);
        }
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
        assert!(is_woken(&other).await && !is_woken(&any).await && !is_woken(&second).await);
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

    fn woken(waiters: &[Waiter]) -> Vec<bool> {
        waiters.iter().map(Waiter::is_woken).collect()
    }

    /// Was: the offset of the message chose the request, so that the messages of a queue may have woken one of them only.
    #[test]
    fn each_of_n_requests_is_woken_by_n_messages() {
        for (queue_id, count) in [(-1, 5), (3, 4)] {
            let waits = Waits::default();
            let waiters: Vec<Waiter> =
                (0..count).map(|_| wait(&waits, "g", queue_id).expect("room")).collect();
            for turn in 0..3 {
                let offsets = (0..count as u64).map(|at| at * count as u64 + turn);
                let all: Vec<Arrival> = offsets.map(|offset| arrival("t", 3, offset)).collect();
                waits.note(&all);
                assert_eq!(woken(&waiters), vec![true; count], "queue {queue_id}");
            }
        }
    }

    #[test]
    fn requests_for_one_queue_and_for_any_are_woken_in_turn() {
        let waits = Waits::default();
        let waiters = [-1, 2, 1, -1].map(|queue_id| wait(&waits, "g", queue_id).expect("room"));
        waits.note(&[arrival("t", 2, 0), arrival("t", 2, 1)]);
        assert_eq!(woken(&waiters), [true, true, false, false]);
        waits.note(&[arrival("t", 2, 2), arrival("t", 1, 0), arrival("t", 1, 1)]);
        assert_eq!(woken(&waiters), [true, false, true, true]);
        waits.note(&[arrival("%RETRY%g+t", 0, 0), arrival("%RETRY%g_t", 0, 0)]);
        assert_eq!(woken(&waiters), [true, false, false, true]);
    }

    #[test]
    fn a_request_that_was_woken_and_goes_wakes_another_one() {
        let waits = Waits::default();
        let [first, second, third, fourth] = [2, 1, 2, -1].map(|of| wait(&waits, "g", of).expect("room"));
        waits.note(&[arrival("t", 2, 0)]);
        drop(first);
        assert!(third.is_woken() && !second.is_woken() && !fourth.is_woken());
        third.pass_on();
        assert!(fourth.is_woken() && !second.is_woken());
        // One that was not woken wakes nobody.
        drop(fourth);
        assert!(!second.is_woken());
    }

    /// Was: the second of them was not woken.
    #[test]
    fn two_groups_whose_retry_topics_share_a_name_are_both_woken() {
        let waits = Waits::default();
        let of = |group, topic, other: &str| {
            waits.wait(group, topic, -1, &["%RETRY%a_b_c".to_owned(), other.to_owned()]).expect("room")
        };
        let (one, two) = (of("a", "b_c", "%RETRY%a+b_c"), of("a_b", "c", "%RETRY%a_b+c"));
        waits.note(&[arrival("%RETRY%a_b_c", 0, 0)]);
        assert!(one.is_woken() && two.is_woken());
        drop(one);
        waits.note(&[arrival("%RETRY%a_b_c", 0, 1)]);
        assert!(two.is_woken());
    }
}
