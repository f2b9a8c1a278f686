//! The question how a node is, to one node.

use std::time::Duration;

use anyhow::{Context, Result};
use folio_protocol::body;
use folio_protocol::frame::Frame;
use folio_server::handlers::node_status::{NODE, NODE_STATUS, NodeStatus};

use crate::client::Client;

/// How long the node may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks one node how it is.
pub(crate) async fn ask_status(address: &str) -> Result<NodeStatus> {
    let answer = Client::connect(address).await?.ask(status_request(None), PATIENCE).await?;
    decode(address, &answer)
}

/// The question how a node is: the one that is asked, or another one that this one asks.
pub(crate) fn status_request(node: Option<u64>) -> Frame {
    let mut request = Frame { code: NODE_STATUS, ..Frame::default() };
    if let Some(node) = node {
        request.ext.insert_display(NODE, node);
    }
    request
}

/// What the node at `address` answered.
pub(crate) fn decode(address: &str, answer: &Frame) -> Result<NodeStatus> {
    body::decode(&answer.body).with_context(|| format!("the answer of {address}"))
}
