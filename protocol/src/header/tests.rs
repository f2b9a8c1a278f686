//! Headers as real clients send them, and that each comes back as it was written.

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::code::RequestCode;
use crate::flags::pull_sys_flag;
use crate::frame::{Frame, Serialization};

fn fields(pairs: &[(&str, &str)]) -> ExtFields {
    pairs.iter().copied().collect()
}

/// Through a frame in both serializations, as on the wire.
#[track_caller]
fn comes_back<H: Header + PartialEq + Debug>(header: H) {
    for serialization in [Serialization::Json, Serialization::Rocketmq] {
        let mut frame = Frame::request(RequestCode::SendMessage, &header, Bytes::new());
        frame.serialization = serialization;
        let mut out = BytesMut::new();
        frame.encode(&mut out).expect("short enough");
        let back = Frame::decode(&mut out).expect("well-formed").expect("whole");
        assert_eq!(H::from_ext(&back.ext).as_ref(), Ok(&header));
    }
}

fn send() -> SendMessageHeader {
    SendMessageHeader {
        producer_group: "group".into(),
        topic: "topic".into(),
        default_topic: "TBW102".into(),
        default_topic_queue_nums: 4,
        queue_id: 2,
        sys_flag: 0,
        born_timestamp: 1_700_000_000_000,
        flag: 0,
        properties: Some("KEYS\u{1}k\u{2}".to_owned()),
        reconsume_times: Some(0),
        unit_mode: false,
        max_reconsume_times: None,
        batch: true,
        broker_name: Some("broker-a".into()),
    }
}

#[test]
fn a_send_of_a_java_client_is_read() {
    let ext = fields(&[
        ("a", "group"),
        ("b", "topic"),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "2"),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", "KEYS\u{1}k\u{2}"),
        ("j", "0"),
        ("k", "false"),
        ("m", "true"),
        ("n", "broker-a"),
    ]);
    assert_eq!(SendMessageHeader::from_ext(&ext), Ok(send()));
}

#[test]
fn a_send_of_the_old_cpp_client_is_read() {
    // Seen on the wire: numbers unquoted, booleans as digits, access fields empty.
    let json = br#"{"code":10,"extFields":{"AccessKey":"","OnsChannel":"","Signature":"","batch":"1",
        "bornTimestamp":"1700000000000","bname":"broker-a","defaultTopic":"TBW102","defaultTopicQueueNums":4,
        "flag":0,"producerGroup":"group","properties":"KEYS\u0001k\u0002","queueId":2,"reconsumeTimes":"0",
        "sysFlag":0,"topic":"topic","unitMode":"0"},"flag":0,"language":"CPP","opaque":1,"version":63}"#;
    let frame = crate::frame::json::decode(json).expect("well-formed");
    assert_eq!(SendMessageHeader::from_ext(&frame.ext), Ok(send()));
}

#[test]
fn a_send_without_a_required_field_is_refused_by_its_long_name() {
    let mut ext = ExtFields::new();
    send().to_ext(&mut ext);
    for (key, name) in [("a", "producerGroup"), ("b", "topic"), ("e", "queueId"), ("h", "flag")] {
        let mut without = ext.clone();
        assert!(without.remove(key));
        assert_eq!(SendMessageHeader::from_ext(&without), Err(HeaderError::Missing(name)));
    }
    ext.insert("e", "two");
    let error = SendMessageHeader::from_ext(&ext).expect_err("not a number");
    assert!(error.to_string().contains("queueId"), "{error}");
}

#[test]
fn both_forms_of_a_send_come_back() {
    comes_back(send());
    comes_back(send().into_v1());
    let mut ext = ExtFields::new();
    send().into_v1().to_ext(&mut ext);
    assert_eq!(ext.get("producerGroup"), Some("group"));
    assert_eq!(ext.get("a"), None);
}

#[test]
fn a_send_answer_has_region_and_trace() {
    let header = SendMessageResponseHeader {
        msg_id: "C0A8000100002A9F0000000000001234".to_owned(),
        queue_id: 1,
        queue_offset: 7,
        transaction_id: None,
        batch_uniq_id: None,
        recall_handle: None,
        region_id: DEFAULT_REGION.to_owned(),
        trace_on: true,
    };
    let mut ext = ExtFields::new();
    header.to_ext(&mut ext);
    assert_eq!(ext.get("MSG_REGION"), Some("DefaultRegion"));
    assert_eq!((ext.get("TRACE_ON"), ext.get("transactionId")), (Some("true"), None));
    comes_back(header);
}

#[test]
fn a_pull_of_the_old_cpp_client_is_read() {
    let ext = fields(&[
        ("commitOffset", "-1"),
        ("consumerGroup", "g"),
        ("maxMsgNums", "32"),
        ("queueId", "0"),
        ("queueOffset", "10"),
        ("subVersion", "5"),
        ("subscription", "*"),
        ("suspendTimeoutMillis", "15000"),
        ("sysFlag", "6"),
        ("topic", "t"),
    ]);
    let header = PullMessageHeader::from_ext(&ext).expect("well-formed");
    assert_eq!(header.sys_flag, pull_sys_flag::SUSPEND | pull_sys_flag::SUBSCRIPTION);
    assert_eq!((header.commit_offset, header.suspend_timeout_millis), (-1, 15_000));
    assert_eq!((header.subscription.as_deref(), header.expression_type.as_deref()), (Some("*"), None));
    comes_back(header);
}

#[test]
fn a_pull_answer_comes_back() {
    comes_back(PullMessageResponseHeader {
        suggest_which_broker_id: 0,
        next_begin_offset: 11,
        min_offset: 0,
        max_offset: 11,
        offset_delta: None,
        topic_sys_flag: Some(0),
        group_sys_flag: None,
        forbidden_type: None,
    });
}

#[test]
fn absent_fields_take_their_defaults() {
    let ext = fields(&[("topic", "t"), ("queueId", "0")]);
    assert_eq!(GetMaxOffsetHeader::from_ext(&ext).map(|header| header.committed), Ok(true));
    let ext = fields(&[("groupName", "g")]);
    assert_eq!(DeleteGroupHeader::from_ext(&ext).map(|header| header.clean_offset), Ok(false));
}

#[test]
fn a_client_may_leave_with_an_empty_group() {
    let ext = fields(&[("clientID", "c"), ("producerGroup", ""), ("consumerGroup", "g")]);
    let header = UnregisterClientHeader::from_ext(&ext).expect("well-formed");
    assert_eq!(header.producer_group.as_deref(), Some(""));
}

#[test]
fn a_search_boundary_is_named_in_any_case() {
    let upper = |text: &str| {
        let ext = fields(&[("topic", "t"), ("queueId", "0"), ("timestamp", "5"), ("boundaryType", text)]);
        SearchOffsetHeader::from_ext(&ext).expect("well-formed").is_upper()
    };
    assert!(upper("UPPER") && upper("upper"));
    assert!(!upper("lower") && !upper(""));
}

#[test]
fn a_topic_is_created_as_asked() {
    let ext = fields(&[
        ("topic", "t"),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", "8"),
        ("writeQueueNums", "4"),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", "true"),
        ("attributes", "+message.type=FIFO"),
    ]);
    let header = CreateTopicHeader::from_ext(&ext).expect("well-formed");
    let config = header.topic_config();
    assert_eq!((config.read_queue_nums, config.write_queue_nums, config.order), (8, 4, true));
    assert_eq!(header.attributes.as_deref(), Some("+message.type=FIFO"));
    comes_back(header);
}

#[test]
fn ends_of_transactions_come_back() {
    comes_back(EndTransactionHeader {
        topic: Some("t".into()),
        producer_group: "g".into(),
        tran_state_table_offset: 3,
        commit_log_offset: 400,
        commit_or_rollback: 8,
        from_transaction_check: true,
        msg_id: "7F0000010001".to_owned(),
        transaction_id: Some("7F0000010001".to_owned()),
    });
}

#[test]
fn a_pop_of_a_java_client_is_read() {
    let ext = fields(&[
        ("consumerGroup", "g"),
        ("topic", "t"),
        ("queueId", "-1"),
        ("maxMsgNums", "32"),
        ("invisibleTime", "60000"),
        ("pollTime", "15000"),
        ("bornTime", "1700000000000"),
        ("initMode", "1"),
        ("expType", "TAG"),
        ("exp", "*"),
        ("order", "false"),
    ]);
    let header = PopMessageHeader::from_ext(&ext).expect("well-formed");
    assert_eq!((header.queue_id, header.init_mode, header.order), (-1, 1, Some(false)));
    comes_back(header);
}

#[test]
fn a_reset_without_a_queue_means_all() {
    let ext = fields(&[("group", "g"), ("topic", "t"), ("timestamp", "-1"), ("isForce", "true")]);
    let header = ResetOffsetHeader::from_ext(&ext).expect("well-formed");
    assert_eq!((header.queue_id, header.offset, header.timestamp), (-1, None, -1));
    comes_back(header);
}
