//! The question how a node is, to one node.

use std::time::Duration;

use anyhow::{Context, Result};
use folio_protocol::body;
use folio_protocol::frame::Frame;
use folio_server::handlers::node_status::{NODE, NODE_STATUS, NodeStatus};
use folio_server::service::GROUP;

use crate::client::Client;

/// How long the node may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks one node how it is in a group, or in that of the port.
pub(crate) async fn ask_status(address: &str, group: Option<&str>) -> Result<NodeStatus> {
    let answer = Client::connect(address).await?.ask(status_request(None, group), PATIENCE).await?;
    decode(address, &answer)
}

/// The question how a node is: the one that is asked, or another one that this one asks. `group`: as above.
pub(crate) fn status_request(node: Option<u64>, group: Option<&str>) -> Frame {
    let mut request = Frame { code: NODE_STATUS, ..Frame::default() };
    if let Some(node) = node {
        request.ext.insert_display(NODE, node);
    }
    for_group(&mut request, group);
    request
}

/// Names the group that a request is for, if it is not the one of the port.
pub(crate) fn for_group(request: &mut Frame, group: Option<&str>) {
    if let Some(group) = group {
        request.ext.insert(GROUP, group);
    }
}

/// What the node at `address` answered.
pub(crate) fn decode(address: &str, answer: &Frame) -> Result<NodeStatus> {
    body::decode(&answer.body).with_context(|| format!("the answer of {address}"))
}
