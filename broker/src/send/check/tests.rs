use std::sync::LazyLock;

use folio_state::{ConsumerGroup, CreateTopic, LockQueues, PutGroup, PutTopic, QueueRef, Topic};

use super::*;
use crate::testing::kind;

fn state() -> State {
    let mut state = State::default();
    let mut read_only = Topic::new("read-only", 4);
    read_only.perm = 4;
    for topic in [read_only, Topic::new("orders", 4), Topic::new("%RETRY%g", 1)] {
        state.apply(PutTopic(topic));
    }
    state.apply(PutGroup(ConsumerGroup::new("g")));
    state
}

fn to(topic: &str) -> Destination<'_> {
    Destination {
        topic,
        default_topic: names::AUTO_CREATE_TOPIC,
        default_queues: 4,
        queue: 0,
        batch: false,
        reconsume_times: 0,
        max_reconsume_times: None,
        producer: ([127, 0, 0, 1], 5000).into(),
    }
}

fn identity() -> &'static Identity {
    static IDENTITY: LazyLock<Identity> = LazyLock::new(crate::testing::identity);
    &IDENTITY
}

fn rules(state: &State) -> Rules<'_> {
    Rules {
        state,
        identity: identity(),
        broker_writable: true,
        auto_create: true,
        lease_now_ms: 1000,
        draw: 6,
    }
}

fn queue(queue: u32) -> Route {
    Route::Queue(Place { diverted: None, queue, multi_tags: false })
}

fn refused(outcome: Result<Route, BrokerError>) -> String {
    kind(&outcome.expect_err("refused"))
}

#[test]
fn a_known_topic_takes_the_message_into_the_queue_asked_for() {
    let state = state();
    assert_eq!(route(&rules(&state), &Destination { queue: 3, ..to("orders") }), Ok(queue(3)));
}

#[test]
fn an_open_queue_is_picked_among_the_write_queues() {
    let state = state();
    assert_eq!(route(&rules(&state), &Destination { queue: -1, ..to("orders") }), Ok(queue(2)), "6 mod 4");
}

#[test]
fn a_queue_the_topic_does_not_have_is_refused() {
    let state = state();
    let outcome = route(&rules(&state), &Destination { queue: 4, ..to("orders") });
    assert_eq!(refused(outcome), "InvalidParameter");
}

#[test]
fn illegal_names_system_topics_and_read_only_topics_are_refused() {
    let state = state();
    let refuse = |topic: &str| refused(route(&rules(&state), &to(topic)));
    assert_eq!(refuse("a b"), "Name");
    assert_eq!(refuse(""), "Name");
    assert_eq!(refuse(&"a".repeat(128)), "Name");
    assert_eq!(refuse(names::HALF_TOPIC), "NoPermission");
    assert_eq!(refuse("read-only"), "NoPermission");
}

#[test]
fn a_broker_without_write_permission_takes_nothing() {
    let state = state();
    let rules = Rules { broker_writable: false, ..rules(&state) };
    assert_eq!(refused(route(&rules, &to("orders"))), "NoPermission");
}

#[test]
fn an_unknown_topic_is_created_from_its_template() {
    let state = state();
    let Ok(Route::Create(topic)) = route(&rules(&state), &to("new")) else { panic!("not created") };
    assert_eq!((topic.name.as_str(), topic.read_queues, topic.write_queues, topic.perm), ("new", 4, 4, 6));
    let wish = Destination { default_queues: 100, ..to("new") };
    let Ok(Route::Create(topic)) = route(&rules(&state), &wish) else { panic!("not created") };
    assert_eq!(topic.write_queues, 8, "the template's queues are the most");
}

#[test]
fn an_unknown_topic_is_refused_without_auto_creation_or_template() {
    let state = state();
    let off = Rules { auto_create: false, ..rules(&state) };
    assert_eq!(refused(route(&off, &to("new"))), "TopicNotExist");
    let no_heir = Destination { default_topic: "orders", ..to("new") };
    assert_eq!(refused(route(&rules(&state), &no_heir)), "TopicNotExist");
    let nothing = Destination { default_topic: "nothing", ..to("new") };
    assert_eq!(refused(route(&rules(&state), &nothing)), "TopicNotExist");
}

#[test]
fn a_retry_topic_is_created_even_without_auto_creation() {
    let mut state = state();
    state.apply(PutGroup(ConsumerGroup::new("h")));
    let off = Rules { auto_create: false, ..rules(&state) };
    let Ok(Route::Create(topic)) = route(&off, &to("%RETRY%h")) else { panic!("not created") };
    assert_eq!((topic.name.as_str(), topic.write_queues), ("%RETRY%h", 1));
}

#[test]
fn a_retry_of_an_unknown_group_is_refused() {
    let mut state = state();
    state.apply(PutTopic(Topic::new("%RETRY%x", 1)));
    assert_eq!(refused(route(&rules(&state), &to("%RETRY%x"))), "GroupNotExist");
}

#[test]
fn a_retry_over_its_limit_becomes_a_dead_letter() {
    let mut state = state();
    let dead = Destination { reconsume_times: 17, ..to("%RETRY%g") };
    assert_eq!(route(&rules(&state), &Destination { reconsume_times: 16, ..dead }), Ok(queue(0)));
    let Ok(Route::Create(topic)) = route(&rules(&state), &dead) else { panic!("not created") };
    assert_eq!(topic.name, "%DLQ%g");
    state.apply(CreateTopic(topic));
    let diverted = Route::Queue(Place { diverted: Some("%DLQ%g".into()), queue: 0, multi_tags: false });
    assert_eq!(route(&rules(&state), &dead), Ok(diverted.clone()));
    let by_client = Destination { reconsume_times: 4, max_reconsume_times: Some(3), ..to("%RETRY%g") };
    assert_eq!(route(&rules(&state), &by_client), Ok(diverted), "the client's limit counts");
}

#[test]
fn a_retry_of_a_group_that_holds_locks_becomes_a_dead_letter_at_once() {
    let mut state = state();
    state.apply(PutTopic(Topic::new("%DLQ%g", 1)));
    let queues = vec![QueueRef { topic: "orders".into(), queue: 0 }];
    let (group, client) = ("g".to_owned(), "c".to_owned());
    state.apply(LockQueues { group, client, queues, now_ms: 1, ttl_ms: 60_000 });
    let diverted = Route::Queue(Place { diverted: Some("%DLQ%g".into()), queue: 0, multi_tags: false });
    let given_up = Destination { reconsume_times: 1, ..to("%RETRY%g") };
    assert_eq!(route(&rules(&state), &given_up), Ok(diverted.clone()));
    let at_once = Destination { max_reconsume_times: Some(0), ..to("%RETRY%g") };
    assert_eq!(route(&rules(&state), &at_once), Ok(diverted), "its consumer wants no retries");
    let later = Rules { lease_now_ms: 60_001, ..rules(&state) };
    assert_eq!(route(&later, &given_up), Ok(queue(0)), "the locks have expired");
}

/// Sent again for a group that consumes in order, they were dead letters again at once, and the answer said "resent".
#[test]
fn a_dead_letter_that_is_sent_again_goes_to_a_group_that_holds_locks() {
    let mut state = state();
    state.apply(PutTopic(Topic::new("%DLQ%g", 1)));
    let queues = vec![QueueRef { topic: "orders".into(), queue: 0 }];
    let (group, client) = ("g".to_owned(), "c".to_owned());
    state.apply(LockQueues { group, client, queues, now_ms: 1, ttl_ms: 60_000 });
    assert_eq!(route(&rules(&state), &to("%RETRY%g")), Ok(queue(0)));
}

#[test]
fn a_batch_to_a_retry_topic_is_refused() {
    let state = state();
    let outcome = route(&rules(&state), &Destination { batch: true, ..to("%RETRY%g") });
    assert_eq!(refused(outcome), "IllegalMessage");
}
