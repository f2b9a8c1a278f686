//! One client that sends each of its messages until it knows how that ended, as RocketMQ's clients do: under one unique
//! key, to another broker after each failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use folio_protocol::frame::Frame;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{Shape, Site};
use crate::client::{AGAIN_PATIENCE, Client, Message};
use crate::connection::Question;
use crate::history::{Op, Outcome, Recorder};
use crate::payload::{self, OpKey};

/// Pause before anything is asked again.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(40);
/// How often a message is sent again before its outcome stays unknown: longer than any fault lasts.
const RESENDS_MAX: u32 = 100;

/// See the module.
pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) shape: Shape,
    pub(super) recorder: Arc<Recorder>,
    brokers: Vec<String>,
    turn: AtomicUsize,
}

impl Sender {
    /// The client of this number.
    pub(super) fn new(site: &Site, shape: &Shape, recorder: &Arc<Recorder>, number: u32) -> Self {
        let client = Client::new(site.name_servers.clone(), format!("{}-producers", shape.name));
        let client = client.with_member(format!("{}-producer-{number}@jepsen", shape.name));
        Self {
            client: client.with_patience(AGAIN_PATIENCE).closing(true),
            shape: shape.clone(),
            recorder: Arc::clone(recorder),
            brokers: site.brokers.clone(),
            turn: AtomicUsize::new(number as usize),
        }
    }

    /// This client, with somebody who is told what brokers ask it.
    pub(super) fn asked(mut self, asked: mpsc::UnboundedSender<Question>) -> Self {
        self.client = self.client.asked(asked);
        self
    }

    /// Every broker.
    pub(super) fn brokers(&self) -> &[String] {
        &self.brokers
    }

    /// The broker that is used now.
    pub(super) fn broker(&self) -> String {
        let turn = self.turn.load(Ordering::Relaxed);
        self.brokers.get(turn % self.brokers.len().max(1)).cloned().unwrap_or_default()
    }

    /// Uses the next broker.
    pub(super) fn turn(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// The message of a key, without further properties.
    pub(super) fn message(&self, key: OpKey) -> Message {
        Message {
            topic: self.shape.topic(key.topic),
            queue: key.queue,
            unique_key: payload::unique_key(self.shape.run, key),
            body: payload::encode(self.shape.run, key),
            ..Message::default()
        }
    }

    /// Sends a message until its outcome is known; with the last answer.
    pub(super) async fn send(&self, key: OpKey, message: &Message) -> (Op, Option<Frame>) {
        let (invoked_us, mut resent, mut may_be_there) = (self.recorder.now_us(), 0, false);
        let (outcome, answer) = loop {
            let (outcome, answer) = self.client.send_message(&self.broker(), message).await;
            if matches!(outcome, Outcome::Ok { .. }) {
                break (outcome, answer);
            }
            self.turn();
            may_be_there |= matches!(outcome, Outcome::Unknown { .. });
            if !may_be_there {
                break (outcome, answer);
            }
            if resent == RESENDS_MAX {
                let error = "unknown, and so after every further try".to_owned();
                break (Outcome::Unknown { error }, None);
            }
            resent += 1;
            sleep(AGAIN_AFTER).await;
        };
        (Op { key, invoked_us, completed_us: self.recorder.now_us(), resent, outcome }, answer)
    }
}
