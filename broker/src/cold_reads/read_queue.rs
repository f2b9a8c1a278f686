//! The queue in which cold reads wait: one of them is next, the others stand behind it.
//!
//! Consumers of one topic take turns. Of one consumer's queues the one that is furthest behind comes first, so that they
//! go through the log side by side: what they share, a record and its pages, is then read and verified once, not once
//! for each queue.
//!
//! Invariants
//! - `line.I1`: at most one holds the turn; when it is given back, whoever waits gets it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use folio_protocol::Name;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Whose queues go side by side: a consumer group and a topic.
pub(super) type Consumer = (Name, Name);

/// Those who wait, each by its position in the log and the order of coming.
type Waiting = BTreeMap<(u64, u64), oneshot::Sender<Turn>>;

/// The queue.
#[derive(Default)]
pub(super) struct ReadQueue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Somebody holds the turn.
    taken: bool,
    came: u64,
    consumers: VecDeque<(Consumer, Waiting)>,
}

/// Being next; given back when it is dropped.
pub(super) struct Turn {
    queue: Option<Arc<ReadQueue>>,
}

impl ReadQueue {
    /// The turn if nobody has it, and so nobody waits for it.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Turn> {
        let mut state = self.state.lock();
        let free = !std::mem::replace(&mut state.taken, true);
        free.then(|| Turn { queue: Some(self.clone()) })
    }

    /// Waits for the turn. Whoever gives up waiting leaves nothing behind that holds others up.
    pub(super) async fn take(self: &Arc<Self>, consumer: Consumer, position: u64) -> Option<Turn> {
        let waiting = {
            let mut state = self.state.lock();
            if !std::mem::replace(&mut state.taken, true) {
                return Some(Turn { queue: Some(self.clone()) });
            }
            state.join(consumer, position)
        };
        // Given up by nobody who holds it: an error cannot be.
        waiting.await.ok()
    }

    /// Gives the turn to whoever comes next.
    fn pass(self: Arc<Self>) {
        let mut turn = Turn { queue: Some(self.clone()) };
        loop {
            let Some(next) = self.state.lock().leave() else {
                turn.queue = None;
                return;
            };
            match next.send(turn) {
                Ok(()) => return,
                // It has given up.
                Err(back) => turn = back,
            }
        }
    }
}

impl State {
    fn join(&mut self, consumer: Consumer, position: u64) -> oneshot::Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        self.came += 1;
        let place = (position, self.came);
        match self.consumers.iter_mut().find(|(known, _)| *known == consumer) {
            Some((_, waiting)) => drop(waiting.insert(place, sender)),
            None => self.consumers.push_back((consumer, BTreeMap::from([(place, sender)]))),
        }
        receiver
    }

    /// The next in queue; if none waits the turn is free.
    fn leave(&mut self) -> Option<oneshot::Sender<Turn>> {
        let next = self.consumers.pop_front().and_then(|(consumer, mut waiting)| {
            let (_, next) = waiting.pop_first()?;
            if !waiting.is_empty() {
                self.consumers.push_back((consumer, waiting));
            }
            Some(next)
        });
        self.taken = next.is_some();
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.pass();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits in queue, and notes when it is next.
    fn come(queue: &Arc<ReadQueue>, order: &Arc<Mutex<Vec<u64>>>, group: &str, position: u64) {
        let (queue, order, consumer) = (queue.clone(), order.clone(), (group.into(), "t".into()));
        drop(tokio::spawn(async move {
            let turn = queue.take(consumer, position).await;
            order.lock().push(position);
            drop(turn);
        }));
    }

    #[tokio::test]
    async fn the_queue_furthest_behind_comes_first_and_consumers_take_turns() {
        let (queue, order) = (Arc::new(ReadQueue::default()), Arc::default());
        let turn = queue.try_take();
        assert!(turn.is_some() && queue.try_take().is_none(), "line.I1");
        for (group, position) in [("a", 30), ("a", 10), ("b", 900), ("a", 20), ("b", 800), ("c", 5)] {
            come(&queue, &order, group, position);
            tokio::task::yield_now().await;
        }
        drop(turn);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        assert_eq!(*order.lock(), [10, 800, 5, 20, 900, 30]);
        assert!(queue.try_take().is_some(), "line.I1: it is free again");
    }

    #[tokio::test]
    async fn who_gives_up_holds_nobody_up() {
        let (queue, order) = (Arc::new(ReadQueue::default()), Arc::default());
        let turn = queue.try_take();
        let waiting: Vec<_> = (0..1000)
            .map(|position| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.take(("a".into(), "t".into()), position).await })
            })
            .collect();
        tokio::task::yield_now().await;
        come(&queue, &order, "a", 2000);
        tokio::task::yield_now().await;
        waiting.iter().for_each(|task| task.abort());
        tokio::task::yield_now().await;
        drop(turn);
        while order.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(queue.try_take().is_some(), "line.I1");
    }
}
