//! Messages, dead letters and transactions as the command line shows them, and what it does with them.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use folio_protocol::body::SubscriptionGroupConfig;
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::Frame;
use folio_protocol::header::{
    ConsumerSendBackHeader, GetMaxOffsetHeader, Header, OffsetResponseHeader, PopMessageHeader,
    SendMessageResponseHeader,
};
use folio_protocol::ids::OffsetMessageId;
use serde_json::Value;

use super::node::{Node, PATIENCE, ask, folio, send_request};

impl Node {
    fn call(&self, request: &Frame) -> Frame {
        let answer = ask(&mut self.connect(), request).expect("an answer");
        assert_eq!(answer.code, ResponseCode::Success.code(), "{:?}", answer.remark);
        answer
    }

    fn folio(&self, words: &[&str]) -> Output {
        folio().args(words).args(["-n", &format!("127.0.0.1:{}", self.port)]).output().unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        let output = self.folio(&[words, &["--json"]].concat());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
    }

    /// How many messages a queue has had.
    fn count(&self, topic: &str) -> i64 {
        let header = GetMaxOffsetHeader { topic: topic.into(), queue_id: 0, committed: true };
        let answer = self.call(&Frame::request(RequestCode::GetMaxOffset, &header, Bytes::new()));
        OffsetResponseHeader::from_ext(&answer.ext).unwrap().offset
    }

    /// Stores a message that the group `g` gives up at once; its id.
    fn dead_letter(&self, key: &str) -> String {
        let answer = self.call(&send_request(0, Some(key), "hello"));
        let id = SendMessageResponseHeader::from_ext(&answer.ext).unwrap().msg_id;
        let position = id.parse::<OffsetMessageId>().unwrap().position;
        let back = ConsumerSendBackHeader {
            offset: position as i64,
            group: "g".into(),
            delay_level: -1,
            origin_msg_id: None,
            origin_topic: Some("orders".into()),
            unit_mode: false,
            max_reconsume_times: None,
            broker_name: None,
        };
        self.call(&Frame::request(RequestCode::ConsumerSendMessageBack, &back, Bytes::new()));
        id
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn node_with_group() -> Node {
    let node = Node::start();
    let config = SubscriptionGroupConfig { group_name: "g".into(), ..Default::default() };
    let body = folio_protocol::body::encode(&config).unwrap();
    let code = RequestCode::UpdateAndCreateSubscriptionGroup.code();
    node.call(&Frame { code, body, ..Frame::default() });
    node
}

#[test]
fn dead_letters_are_listed_shown_exported_and_resent_to_their_group_alone() {
    let node = node_with_group();
    let ids: Vec<String> = (0..40).map(|number| node.dead_letter(&format!("K{number}"))).collect();
    let listed = node.json(&["dlq", "list"]);
    assert_eq!((&listed[0]["consumer_group"], &listed[0]["next_offset"]), (&"g".into(), &40.into()));
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let shown = node.json(&["dlq", "show", "g", "--from", "38"]);
    let properties = |message: &Value| message["properties"].clone();
    assert_eq!(shown.as_array().unwrap().len(), 2);
    assert_eq!((&shown[1]["text"], &shown[1]["offset"]), (&"hello".into(), &39.into()));
    assert_eq!(properties(&shown[1])["ORIGIN_MESSAGE_ID"], ids[39].as_str());

    let file = node.dir.path().join("dead.json");
    let path = file.to_str().unwrap();
    let exported = node.folio(&["dlq", "export", "g", "--to", path]);
    assert_eq!(text(&exported.stderr), "40 messages exported\n");
    let lines = std::fs::read_to_string(&file).unwrap();
    let offsets = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["offset"].as_u64());
    assert!(offsets.eq((0..40).map(Some)));
    assert!(!node.folio(&["dlq", "export", "g", "--to", path]).status.success(), "it was written over");

    let resent = node.folio(&["dlq", "resend", "g", "--from", "3", "--max", "2"]);
    assert_eq!(text(&resent.stderr), "2 messages resent\n");
    assert_eq!((node.count("%RETRY%g"), node.count("orders")), (2, 40));
    let found = node.json(&["message", "find", "--topic", "%RETRY%g", "--key", "K3"]);
    assert_eq!((&found[0]["topic"], &found[0]["reconsume_times"]), (&"%RETRY%g".into(), &0.into()));
    assert_eq!(properties(&found[0])["RETRY_TOPIC"], "orders");

    let none = node.folio(&["dlq", "show", "other"]);
    assert!(!none.status.success() && text(&none.stderr).contains("other has no dead letters"));
}

#[test]
fn a_resend_is_as_fast_as_it_is_told_and_says_where_it_was_interrupted() {
    let node = node_with_group();
    (0..20).for_each(|number| drop(node.dead_letter(&format!("K{number}"))));
    let address = format!("127.0.0.1:{}", node.port);
    let words = ["dlq", "resend", "g", "--rate", "1", "-n", &address];
    let child = folio().args(words).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while node.count("%RETRY%g") < 2 {
        assert!(Instant::now() < deadline, "nothing is resent");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let (said, done) = (text(&output.stderr), node.count("%RETRY%g"));
    assert!(!output.status.success() && done < 20, "{said}");
    assert!(
        said.contains(&format!("{done} messages resent; go on with --group broker-a --from {done}")),
        "{said}"
    );
}

#[test]
fn a_message_is_found_by_its_key_and_shown_by_its_id() {
    let node = Node::start();
    let answer = node.call(&send_request(2, Some("K"), vec![0, 255]));
    let id = SendMessageResponseHeader::from_ext(&answer.ext).unwrap().msg_id;
    let shown = node.json(&["message", "show", &id]);
    assert_eq!(
        (&shown["topic"], &shown["queue"], &shown["hex"]),
        (&"orders".into(), &2.into(), &"00ff".into())
    );
    let people = text(&node.folio(&["message", "show", &id]).stdout);
    assert!(people.contains("UNIQ_KEY = K") && people.ends_with("2 bytes\n00ff\n"), "{people}");
    let found = node.json(&["message", "find", "--topic", "orders", "--key", "K"]);
    assert_eq!(found[0]["message_id"], id.as_str());
    assert_eq!(node.json(&["message", "find", "--topic", "orders", "--key", "L"]), Value::Array(Vec::new()));
    let wrong = node.folio(&["message", "show", "7"]);
    assert!(!wrong.status.success() && text(&wrong.stderr).contains("32 or 56 hex digits"));
}

#[test]
fn open_transactions_are_listed_with_what_their_messages_say() {
    let node = Node::start();
    let mut half = send_request(1, None, "hello");
    let properties = "UNIQ_KEY\u{1}T\u{2}TRAN_MSG\u{1}true\u{2}PGROUP\u{1}p\u{2}";
    half.ext.insert("i", properties);
    half.ext.insert("f", "4");
    let deadline = Instant::now() + PATIENCE;
    // The feature level is raised a moment after the start.
    while ask(&mut node.connect(), &half).unwrap().code != ResponseCode::Success.code() {
        assert!(Instant::now() < deadline, "no transaction is taken");
        std::thread::sleep(Duration::from_millis(50));
    }
    let listed = node.json(&["transaction", "list"]);
    let open = &listed["broker-a"][0];
    assert_eq!((&open["group"], &open["topic"], &open["queue"]), (&"p".into(), &"orders".into(), &1.into()));
    assert_eq!((&open["unique_key"], &open["checks"]), (&"T".into(), &0.into()));
    let shown = node.json(&["message", "show", open["message_id"].as_str().unwrap()]);
    assert_eq!(shown["topic"], "RMQ_SYS_TRANS_HALF_TOPIC");
    let others = node.json(&["transaction", "list", "--producer-group", "q"]);
    assert_eq!(others["broker-a"], Value::Array(Vec::new()));
    assert_eq!(node.json(&["transaction", "list", "--given-up"]), Value::Array(Vec::new()));
    let refused = node.folio(&["transaction", "resume", open["message_id"].as_str().unwrap()]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("TRANS_CHECK_MAX_TIME_TOPIC"));
}

/// `folio ... | head` ended with a panic and its stack.
#[test]
fn output_that_nobody_reads_any_more_ended_with_a_panic() {
    let node = node_with_group();
    let address = format!("127.0.0.1:{}", node.port);
    let mut command = folio();
    command.args(["topic", "list", "-n", &address]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn popped_messages_are_listed_until_they_are_acknowledged() {
    let node = node_with_group();
    node.call(&send_request(1, Some("K"), "hello"));
    node.call(&send_request(1, Some("L"), "hello"));
    let pop = PopMessageHeader {
        consumer_group: "g".into(),
        topic: "orders".into(),
        queue_id: 1,
        max_msg_nums: 32,
        invisible_time: 600_000,
        poll_time: 0,
        born_time: 0,
        init_mode: 0,
        expression_type: None,
        expression: None,
        order: None,
        attempt_id: None,
    };
    let pop = Frame::request(RequestCode::PopMessage, &pop, Bytes::new());
    let deadline = Instant::now() + PATIENCE;
    // The feature level is raised a moment after the start.
    while ask(&mut node.connect(), &pop).unwrap().code != ResponseCode::Success.code() {
        assert!(Instant::now() < deadline, "nothing is popped");
        std::thread::sleep(Duration::from_millis(50));
    }
    let listed = &node.json(&["pop", "list", "--consumer-group", "g"])["broker-a"];
    assert_eq!((&listed["messages"], &listed["batches"]), (&2.into(), &1.into()));
    let batch = &listed["oldest"][0];
    assert_eq!(
        (&batch["group"], &batch["topic"], &batch["queue"]),
        (&"g".into(), &"orders".into(), &1.into())
    );
    assert_eq!((&batch["offsets"], &batch["ordered"]), (&serde_json::json!([0, 1]), &false.into()));
    let times = ["visible_ms", "popped_ms"].map(|time| batch[time].as_u64().unwrap());
    assert_eq!(times[0] - times[1], 600_000);
    let people = text(&node.folio(&["pop", "list"]).stdout);
    assert!(people.contains("broker-a: 2 messages in flight, in 1 batches"), "{people}");
    let others = &node.json(&["pop", "list", "--topic", "others"])["broker-a"];
    assert_eq!((&others["messages"], &others["oldest"]), (&0.into(), &serde_json::json!([])));
}
