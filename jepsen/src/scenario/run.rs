//! A cluster with a workload on it, while a scenario breaks it, and what is found afterwards.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use crate::checker::{self, Finding, Rules};
use crate::client::Client;
use crate::cluster::Cluster;
use crate::history::Recorder;
use crate::payload::mix;
use crate::reader::{self, LiveReader};
use crate::reading::Reading;
use crate::report::{LeaderChanges, Report};
use crate::workload::Shape;

/// See the module.
pub(super) struct Run {
    pub(super) cluster: Cluster,
    pub(super) recorder: Arc<Recorder>,
    pub(super) shape: Shape,
    pub(super) random: u64,
    pub(super) extra: Vec<Finding>,
    pub(super) leader_changes: Option<LeaderChanges>,
}

impl Run {
    pub(super) fn live_readers(&self) -> Vec<LiveReader> {
        let start = |node: &crate::node::Node| {
            let consumer = format!("reader at node {}", node.id);
            let brokers = vec![node.addresses.broker.clone()];
            LiveReader::start(brokers, consumer, self.shape.clone(), Arc::clone(&self.recorder))
        };
        self.cluster.running().map(start).collect()
    }

    /// The next random number, the same for the same seed.
    pub(super) fn random(&mut self) -> u64 {
        self.random = mix(self.random);
        self.random
    }

    /// Waits for about `seconds`: half of it to one and a half times.
    pub(super) async fn wait_about(&mut self, seconds: f64) {
        let part = 0.5 + (self.random() % 1000) as f64 / 1000.0;
        sleep(Duration::from_secs_f64(seconds * part)).await;
    }

    /// Waits for an acknowledged send that began after this moment.
    pub(super) async fn acknowledged_since(&mut self, at_us: u64) -> Result<u64> {
        loop {
            if let Some(acked) = self.recorder.acked_after(at_us) {
                return Ok(acked);
            }
            self.cluster.check_alive()?;
            let waited = Duration::from_micros(self.recorder.now_us().saturating_sub(at_us));
            anyhow::ensure!(
                waited < crate::cluster::READY_TIMEOUT,
                "no write was acknowledged for {waited:?} after a fault; statuses: {:?}",
                self.cluster.statuses().await
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) async fn judge(mut self, scenario: &str, seed: u64) -> Result<Report> {
        let history = self.recorder.finish()?;
        let replicas = match self.read_replicas().await {
            Ok(replicas) => replicas,
            Err(error) => {
                let mut unreadable = Finding::fatal("unreadable");
                unreadable.add(|| format!("{error:#}"));
                self.extra.push(unreadable);
                Vec::new()
            }
        };
        let mut findings = checker::check_all(&history, &replicas, Rules::default());
        let read_end = replicas.iter().map(Reading::log_end).max().unwrap_or(0);
        let mut compared = 0;
        if !replicas.is_empty() {
            let (finding, end) =
                self.cluster.compare_logs(read_end).await.context("compare the log files")?;
            findings.push(finding);
            compared = end;
        }
        findings.push(self.cluster.health());
        findings.append(&mut self.extra);
        let mut report = Report::new(scenario, seed, &history, findings);
        report.replica_bytes = compared;
        report.leader_changes = self.leader_changes.take();
        report.replicas_identical &= compared > 0;
        Ok(report)
    }

    /// Reads every queue on every running node, once all of them rest.
    async fn read_replicas(&mut self) -> Result<Vec<Reading>> {
        self.cluster.settled().await?;
        let client = Arc::new(Client::new(Vec::new(), "jepsen-checker"));
        let mut readings = Vec::new();
        for node in self.cluster.running() {
            let reader = format!("node {}", node.id);
            readings.push(reader::read_to_end(&client, &node.addresses.broker, &reader, &self.shape).await?);
        }
        Ok(readings)
    }
}
