//! Three real processes, broken for a few seconds each: the short form of what `folio-jepsen`
//! does for as long as one likes. Needs the binary `folio`; it is built when it is missing.

use std::path::Path;
use std::time::Duration;

use folio_jepsen::binary;
use folio_jepsen::cluster::ports_are_free;
use folio_jepsen::report::Report;
use folio_jepsen::scenario::{self, Scenario, Setup};
use folio_jepsen::workload::Shape;
use tokio::sync::Mutex;

/// One cluster at a time: two would measure each other's load.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn run(scenario: Scenario) -> Report {
    let _turn = ONE_AT_A_TIME.lock().await;
    let free = (22_100..26_000).step_by(60).find(|base| ports_are_free(*base, 3));
    let base_port = free.expect("free ports");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let setup = setup(dir.path(), base_port);
    match scenario::run(&setup, &scenario).await {
        Ok(report) if report.ok => report,
        Ok(report) => panic!("{report}\nkept: {}", dir.keep().display()),
        Err(error) => panic!("the harness failed: {error:#}\nkept: {}", dir.keep().display()),
    }
}

fn setup(dir: &Path, base_port: u16) -> Setup {
    let think = Duration::from_millis(10);
    Setup {
        binary: binary::find(None).expect("the binary folio"),
        dir: dir.to_owned(),
        base_port,
        seed: 1,
        shape: Shape {
            name: "cluster".into(),
            run: 1,
            topics: 2,
            queues: 2,
            producers: 3,
            expire: false,
            any_queue: false,
            marked: false,
            retries_of: None,
            think,
            resend: false,
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_loses_nothing_and_is_followed_by_another() {
    let report = run(Scenario::KillLeader { kills: 2, seconds_between: 1.0 }).await;
    assert_eq!(report.kills, 2);
    assert!(report.acked > 100, "{report}");
    assert!(report.replicas_identical, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_killed_nodes_have_every_acknowledged_message_without_their_derived_files() {
    let report = run(Scenario::KillAll { rounds: 2, wipe_derived: true }).await;
    assert!(report.acked > 100 && report.replicas_identical, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_an_old_address_goes_on_without_an_error() {
    let report = run(Scenario::StaleAddress).await;
    assert!(report.acked > 500 && report.replicas_identical, "{report}");
}
