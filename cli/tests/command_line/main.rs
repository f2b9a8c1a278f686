//! The command line against nodes that take this machine for a stranger's.

mod node;

use std::collections::BTreeMap;
use std::process::Output;

use folio_server::handlers::node_status::NodeStatus;
use folio_server::handlers::timers::PendingTimer;

use self::node::Node;

async fn folio(words: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_folio"));
    command.args(words).env_remove("FOLIO_LOG").kill_on_drop(true).output().await.expect("folio runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What an operator types on one of three machines: that node takes it, and no other one would from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_needs_one_node_that_takes_it_for_an_operator() {
    let nodes = Node::three().await;
    let (door, closed) = (nodes[1].admin.to_string(), nodes[1].address.to_string());
    let status = folio(&["cluster", "status", "--json", "-n", &door]).await;
    let told: Vec<NodeStatus> = serde_json::from_slice(&status.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&status.stderr)));
    assert_eq!(told.len(), 3);
    assert!(told.iter().any(|node| node.role == "leader"), "{told:?}");
    let gone = nodes[2].broker.node_id().to_string();
    let removed = folio(&["cluster", "remove-node", "--id", &gone, "-n", &door]).await;
    assert!(removed.status.success(), "{}", text(&removed.stderr));
    for words in [
        vec!["cluster", "status"],
        vec!["cluster", "remove-node", "--id", "1"],
        vec!["topic", "list"],
        vec!["timer", "list"],
        vec!["topic", "delete", "orders"],
    ] {
        let refused = folio(&[&words[..], &["-n", closed.as_str()]].concat()).await;
        let said = text(&refused.stderr);
        assert!(!refused.status.success(), "{words:?} was accepted");
        assert!(
            said.starts_with(&format!("folio: {closed} refuses: ")) && said.contains("listen.admin_from"),
            "{said}"
        );
    }
    let none = folio(&["timer", "list", "--json", "-n", &door]).await;
    let listed: BTreeMap<String, Vec<PendingTimer>> = serde_json::from_slice(&none.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&none.stderr)));
    assert!(listed.values().all(Vec::is_empty) && listed.len() == 1, "{listed:?}");
    let refused = folio(&["timer", "recall", "nothing", "-n", &door]).await;
    assert!(
        !refused.status.success() && text(&refused.stderr).contains("no handle"),
        "{}",
        text(&refused.stderr)
    );
    let created = folio(&["topic", "create", "orders", "-n", &closed]).await;
    assert!(created.status.success(), "{}", text(&created.stderr));
}
