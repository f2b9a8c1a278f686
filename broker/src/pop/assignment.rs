//! Which queues a client is to consume, and how: requests 400 and 401.

use std::sync::Arc;

use folio_protocol::names;
use folio_state::{RequestMode, SetRequestMode};

use crate::broker::Broker;
use crate::error::BrokerError;

/// A queue of a broker; -1 for all of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Queue {
    /// The broker's name.
    pub broker: String,
    /// The queue's number.
    pub queue_id: i32,
}

/// A client's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignments {
    /// Its queues.
    pub queues: Vec<Queue>,
    /// Whether it pops from them.
    pub pops: bool,
}

/// How queues are shared.
#[derive(Debug, Clone, Copy)]
enum Strategy {
    /// Neighbours together.
    Averagely,
    /// One after the other.
    ByCircle,
}

impl Strategy {
    fn of_name(name: &str) -> Option<Strategy> {
        match name {
            "AVG" => Some(Strategy::Averagely),
            "AVG_BY_CIRCLE" => Some(Strategy::ByCircle),
            _ => None,
        }
    }

    /// The part of one of so many clients.
    fn part(self, queues: &[Queue], at: usize, clients: usize) -> Vec<Queue> {
        match self {
            Strategy::ByCircle => queues.iter().skip(at).step_by(clients).cloned().collect(),
            Strategy::Averagely => {
                let (each, more) = (queues.len() / clients, queues.len() % clients);
                let from = at * each + at.min(more);
                let count = each + usize::from(at < more);
                queues.iter().skip(from).take(count).cloned().collect()
            }
        }
    }
}

/// The part of a client of a group. `None`: the client keeps what it has, as it is not known yet or names an unknown strategy.
pub fn assign(
    mut queues: Vec<Queue>,
    mut clients: Vec<String>,
    (client, strategy): (&str, &str),
    mode: RequestMode,
) -> Option<Vec<Queue>> {
    queues.sort();
    clients.sort();
    let strategy = Strategy::of_name(strategy)?;
    let at = clients.iter().position(|other| other == client)?;
    let count = clients.len();
    let share = mode.share as usize;
    if !mode.pops {
        return Some(strategy.part(&queues, at, count));
    }
    if share == 0 || share + 1 >= count {
        let mut brokers: Vec<String> = queues.into_iter().map(|queue| queue.broker).collect();
        brokers.dedup();
        return Some(brokers.into_iter().map(|broker| Queue { broker, queue_id: -1 }).collect());
    }
    if count > queues.len() {
        return Some(queues.get(at % queues.len().max(1)).cloned().into_iter().collect());
    }
    let mut all: Vec<Queue> =
        (0..=share).flat_map(|next| strategy.part(&queues, (at + next) % count, count)).collect();
    all.sort();
    all.dedup();
    Some(all)
}

impl Broker {
    /// How the clients of a group get the messages of a topic.
    pub fn request_mode(&self, group: &str, topic: &str) -> RequestMode {
        let said = self.group.state().popped().mode(group, topic);
        said.unwrap_or(RequestMode { pops: false, share: 0 })
    }

    /// Says how the clients of a group get the messages of a topic.
    pub async fn set_request_mode(
        self: &Arc<Self>,
        group: String,
        topic: String,
        mode: RequestMode,
    ) -> Result<(), BrokerError> {
        if names::is_retry_topic(&topic) {
            return Err(BrokerError::NoPermission("retry topic is not allowed to set mode".to_owned()));
        }
        if self.topic(&topic).is_none() {
            return Err(BrokerError::TopicNotExist(topic));
        }
        if self.consumer_group(&group).is_none() {
            return Err(BrokerError::GroupNotExist(group));
        }
        self.group.execute(SetRequestMode { group, topic, mode }).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(count: i32) -> Vec<Queue> {
        (0..count).rev().map(|queue_id| Queue { broker: "b".into(), queue_id }).collect()
    }

    fn part(count: i32, client: &str, strategy: &str, mode: RequestMode) -> Option<Vec<i32>> {
        let clients = ["c", "a", "b", "d"].map(str::to_owned).to_vec();
        let part = assign(queues(count), clients, (client, strategy), mode)?;
        Some(part.into_iter().map(|queue| queue.queue_id).collect())
    }

    #[test]
    fn clients_that_pull_share_queues() {
        let pulls = RequestMode { pops: false, share: 0 };
        let all = |strategy: &str| {
            ["a", "b", "c", "d"].map(|client| part(6, client, strategy, pulls).expect("a part"))
        };
        assert_eq!(all("AVG"), [vec![0, 1], vec![2, 3], vec![4], vec![5]]);
        assert_eq!(all("AVG_BY_CIRCLE"), [vec![0, 4], vec![1, 5], vec![2], vec![3]]);
        assert_eq!(part(2, "d", "AVG", pulls), Some(vec![]));
        assert_eq!((part(6, "x", "AVG", pulls), part(6, "a", "CONFIG", pulls)), (None, None));
    }

    #[test]
    fn clients_that_pop_have_all_queues_or_those_of_their_neighbours() {
        let pops = |share| RequestMode { pops: true, share };
        assert_eq!(part(8, "a", "AVG", pops(0)), Some(vec![-1]));
        assert_eq!(part(8, "a", "AVG", pops(3)), Some(vec![-1]));
        assert_eq!(part(8, "d", "AVG", pops(1)), Some(vec![0, 1, 6, 7]));
        assert_eq!(part(2, "d", "AVG", pops(1)), Some(vec![1]), "more clients than queues");
    }
}
