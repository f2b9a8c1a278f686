//! Pops that wait: what wakes them, and what ends their wait.

use std::time::Duration;

use folio_protocol::header::PopMessageHeader;
use tokio::time::{Instant, sleep};

use super::{Got, node, pop_header, reach_level};
use crate::node::{Client, Node};

/// A pop that waits for a retry, and when its answer came.
async fn held_pop(client: &mut Client) -> (Vec<Got>, Duration) {
    let waits = PopMessageHeader { poll_time: 20_000, ..pop_header(32, 60_000) };
    let began = Instant::now();
    (client.pop(&waits).await, began.elapsed())
}

#[tokio::test]
async fn a_message_that_becomes_visible_again_wakes_pops_that_wait_at_any_node() {
    let nodes = Node::cluster(3).await;
    reach_level(&nodes).await;
    for (at, body) in ["at the leader", "at a follower", "at the other follower"].iter().enumerate() {
        let mut client = nodes[at].client_of_group().await;
        // Twice: once before the retry topic exists. Without the wake it is seen five seconds later, at the next look; a stalled machine
        // is late, too, but not each time.
        for times in 1..3 {
            let mut took = Vec::new();
            let prompt =
                |took: &[Duration]| took.iter().filter(|took| **took < Duration::from_secs(2)).count();
            while prompt(&took) * 2 <= took.len() {
                assert!(took.len() < 6, "{body}, {times}: {took:?}");
                client.send("orders", "", body).await;
                client.pop_some(&pop_header(32, 300)).await;
                let (again, now_took) = held_pop(&mut client).await;
                assert_eq!(again.iter().map(|got| (&*got.body, got.times)).collect::<Vec<_>>(), [(*body, 1)]);
                took.push(now_took);
            }
        }
    }
}

/// Was: seen within a second, when the next look was due. Now the node wakes what waits, as the next look may be five away.
#[tokio::test]
async fn pops_that_wait_are_answered_at_once_when_the_node_stops() {
    let node = node().await;
    let mut client = node.client_of_group().await;
    client.send("orders", "", "a").await;
    client.pop_some(&pop_header(1, 60_000)).await;
    let broker = node.broker.clone();
    let stops = async {
        while broker.waiting_pops("g", "orders", -1) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        // Its look has found nothing by then.
        sleep(Duration::from_millis(200)).await;
        node.listener.refuse();
        broker.release_pops();
    };
    let ((popped, took), ()) = tokio::join!(held_pop(&mut client), stops);
    assert!(popped.is_empty() && took < Duration::from_secs(3), "{took:?}");
}
