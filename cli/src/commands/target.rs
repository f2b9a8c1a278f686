//! What commands that ask a running cluster have in common.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use folio_protocol::body::{self, ClusterInfo};
use folio_protocol::code::RequestCode;
use folio_protocol::frame::Frame;
use folio_protocol::header::NoHeader;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::status::for_group;

/// What a command waits for one node's answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Which cluster a command talks to, and how it prints.
#[derive(Debug, Clone, Args)]
pub(super) struct Target {
    /// A NameServer or broker address of any node of the cluster; several with commas are tried in order.
    #[arg(short = 'n', long, alias = "namesrv", value_name = "HOST:PORT", default_value = "127.0.0.1:9876")]
    pub(super) namesrv_addr: String,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(super) json: bool,
}

impl Target {
    /// What each group answers, by its name. Any port of any node takes any request.
    pub(super) async fn ask(&self, request: &Frame) -> Result<BTreeMap<String, Frame>> {
        ask_groups(&mut self.connect().await?, request).await
    }

    /// The bodies of the answers, by the groups' names.
    pub(super) async fn ask_bodies<T: DeserializeOwned>(
        &self,
        request: &Frame,
    ) -> Result<BTreeMap<String, T>> {
        let answers = self.ask(request).await?.into_iter();
        answers.map(|(group, answer)| Ok((group, body::decode(&answer.body)?))).collect()
    }

    /// What one group answers.
    pub(super) async fn ask_one(&self, group: &str, mut request: Frame) -> Result<Frame> {
        for_group(&mut request, Some(group));
        self.connect().await?.ask(request, PATIENCE).await
    }

    /// What the only group of the cluster answers, or the one with that name.
    pub(super) async fn ask_in(&self, group: Option<&str>, request: Frame) -> Result<Frame> {
        let mut client = self.connect().await?;
        let answer = self.call_in(&mut client, group, request).await?;
        client.accept(answer)
    }

    /// The same on a connection, whatever the answer's code.
    pub(super) async fn call_in(
        &self,
        client: &mut Client,
        group: Option<&str>,
        mut request: Frame,
    ) -> Result<Frame> {
        let groups = groups(client).await?;
        let known = groups.join(", ");
        match (group, groups.as_slice()) {
            (Some(group), _) if !groups.iter().any(|known| known == group) => {
                bail!("the cluster has no group {group}: it has {known}")
            }
            (None, [_, _, ..]) => bail!("the cluster has several groups ({known}): name one"),
            _ => {}
        }
        for_group(&mut request, group);
        client.call(request, PATIENCE).await
    }

    /// The groups of the cluster.
    pub(super) async fn groups(&self) -> Result<Vec<String>> {
        groups(&mut self.connect().await?).await
    }

    pub(super) async fn connect(&self) -> Result<Client> {
        let mut last = anyhow::anyhow!("no address given");
        for address in self.namesrv_addr.split([',', ';']).map(str::trim) {
            match Client::connect(address).await {
                Ok(client) => return Ok(client),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

async fn groups(client: &mut Client) -> Result<Vec<String>> {
    let info = Frame::request(RequestCode::GetBrokerClusterInfo, &NoHeader, Bytes::new());
    let info: ClusterInfo = body::decode(&client.ask(info, PATIENCE).await?.body)?;
    Ok(info.broker_addr_table.into_keys().collect())
}

async fn ask_groups(client: &mut Client, request: &Frame) -> Result<BTreeMap<String, Frame>> {
    let groups = groups(client).await?;
    let mut answers = BTreeMap::new();
    for group in &groups {
        let (mut request, is_one_of_many) = (request.clone(), groups.len() > 1);
        for_group(&mut request, is_one_of_many.then_some(group.as_str()));
        let asked = client.ask(request, PATIENCE).await;
        let answer = if is_one_of_many { asked.with_context(|| format!("group {group}"))? } else { asked? };
        answers.insert(group.clone(), answer);
    }
    Ok(answers)
}
