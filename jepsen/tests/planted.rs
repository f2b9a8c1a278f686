//! The harness against a broker in memory that breaks one promise: it must find exactly that.
//!
//! A checker that has never found anything has never been tested.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod broker;

use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, Flaw, LAST_READER};
use folio_jepsen::checker::{Finding, Rules, check_all};
use folio_jepsen::client::Client;
use folio_jepsen::history::Recorder;
use folio_jepsen::reader::{LiveReader, read_to_end};
use folio_jepsen::workload::{Kind, Shape, Site, Target, Workload, Writers};

/// Runs a short workload and says which fatal properties were found broken.
async fn broken_by(flaw: Flaw) -> Vec<Finding> {
    let broker = Broker::start(flaw).await;
    let address = broker.address();
    let dir = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::create(&dir.path().join("history.jsonl")).unwrap());
    let shape = Shape {
        name: "planted".to_owned(),
        run: 7,
        topics: 2,
        queues: 2,
        producers: 2,
        expire: false,
        think: Duration::from_millis(1),
        resend: flaw == Flaw::ForgetsKeys,
        any_queue: false,
        marked: false,
        retries_of: None,
    };
    let reader = "live reader".to_owned();
    let live = LiveReader::start(vec![address.clone()], reader, shape.clone(), Arc::clone(&recorder));
    let writers = Writers::start(std::slice::from_ref(&address), &shape, &Target::Route, &recorder);
    while recorder.recorded() < 400 || !broker.has_shown_itself() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    writers.stop().await;
    live.drain(Duration::from_secs(20)).await.unwrap();
    let history = recorder.finish().unwrap();
    assert!(!history.polls.is_empty(), "the live reader read nothing");
    let client = Arc::new(Client::new(Vec::new(), LAST_READER));
    let replica = read_to_end(&client, &address, "node 1", &shape).await.unwrap();
    let rules = Rules { retried: shape.resend, drained: true, ..Rules::default() };
    check_all(&history, &[replica], rules).into_iter().filter(Finding::fails).collect()
}

/// Runs a workload for a while and says which fatal properties were found broken.
async fn broken_under(kind: Kind, flaw: Flaw) -> Vec<Finding> {
    let broker = Broker::start(flaw).await;
    let address = broker.address();
    let dir = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::create(&dir.path().join("history.jsonl")).unwrap());
    let shape = kind.shape(7, Duration::from_secs(1));
    let brokers = vec![address.clone()];
    let site = Site { name_servers: brokers.clone(), brokers, seed: 1, old_reads: false, clocks_jump: false };
    let mut workload = Workload::start(kind, shape.clone(), &site, Arc::clone(&recorder));
    while recorder.recorded() < 600 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    workload.quiet().await;
    let history = recorder.finish().unwrap();
    let client = Arc::new(Client::new(Vec::new(), LAST_READER));
    let replica = read_to_end(&client, &address, "node 1", &shape).await.unwrap();
    check_all(&history, &[replica], kind.rules()).into_iter().filter(Finding::fails).collect()
}

fn names(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.name).collect()
}

#[tokio::test]
async fn a_broker_that_keeps_its_promises_passes() {
    assert_eq!(broken_by(Flaw::None).await, []);
}

#[tokio::test]
async fn an_acknowledged_message_that_is_forgotten_is_missing() {
    assert!(names(&broken_by(Flaw::ForgetsAcknowledged).await).contains(&"lost-write"));
}

#[tokio::test]
async fn a_message_stored_twice_is_a_duplicate() {
    assert_eq!(names(&broken_by(Flaw::StoresTwice).await), ["duplicate"]);
}

#[tokio::test]
async fn a_wrong_offset_in_an_acknowledgement_is_a_conflict() {
    assert!(names(&broken_by(Flaw::TellsWrongOffset).await).contains(&"inconsistent-offsets"));
}

#[tokio::test]
async fn a_refused_message_that_is_stored_is_resurrected() {
    assert_eq!(names(&broken_by(Flaw::StoresRefused).await), ["resurrected"]);
}

#[tokio::test]
async fn a_changed_byte_is_an_invented_message_and_a_missing_one() {
    let found = broken_by(Flaw::ChangesByte).await;
    assert!(names(&found).contains(&"invented") && names(&found).contains(&"lost-write"), "{found:?}");
}

#[tokio::test]
async fn a_queue_with_a_hole_has_a_gap() {
    assert!(names(&broken_by(Flaw::SkipsOffset).await).contains(&"offset-gap"));
}

#[tokio::test]
async fn an_answer_that_never_comes_is_an_unknown_outcome_and_no_fault() {
    assert_eq!(broken_by(Flaw::ClosesConnections).await, []);
}

#[tokio::test]
async fn a_message_sent_again_and_stored_again_is_a_duplicate() {
    assert_eq!(names(&broken_by(Flaw::ForgetsKeys).await), ["duplicate"]);
}

#[tokio::test]
async fn a_pull_that_leads_past_a_message_is_a_poll_skip() {
    let found = broken_by(Flaw::LeadsOnTooFar).await;
    assert!(names(&found).contains(&"poll-skip") && names(&found).contains(&"unseen"), "{found:?}");
}

#[tokio::test]
async fn a_pull_that_leads_back_is_a_nonmonotonic_poll() {
    assert_eq!(names(&broken_by(Flaw::LeadsBack).await), ["nonmonotonic-poll"]);
}

#[tokio::test]
async fn an_object_sent_again_on_purpose_and_answered_by_its_key_is_a_lost_repeat() {
    assert_eq!(broken_under(Kind::SameObject, Flaw::None).await, []);
    assert_eq!(names(&broken_under(Kind::SameObject, Flaw::AnswersByKey).await), ["lost-repeat"]);
}

#[tokio::test]
async fn a_deleted_topics_messages_that_are_served_again_are_resurrected() {
    assert_eq!(broken_under(Kind::DeletedTopic, Flaw::None).await, []);
    assert_eq!(names(&broken_under(Kind::DeletedTopic, Flaw::KeepsDeleted).await), ["resurrected"]);
}
