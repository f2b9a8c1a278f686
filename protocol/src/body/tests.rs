//! Bodies as servers write them and as old clients send them.

use std::collections::BTreeMap;

use super::*;

#[test]
fn a_route_has_every_field_and_quoted_keys() {
    let route = TopicRouteData {
        queue_datas: vec![QueueData {
            broker_name: "b".to_owned(),
            read_queue_nums: 8,
            write_queue_nums: 8,
            perm: 6,
            topic_sys_flag: 0,
        }],
        broker_datas: vec![BrokerData {
            cluster: "c".to_owned(),
            broker_name: "b".to_owned(),
            broker_addrs: BTreeMap::from([(0, "1.2.3.4:10911".to_owned()), (1, "1.2.3.5:10911".to_owned())]),
            ..BrokerData::default()
        }],
        ..TopicRouteData::default()
    };
    let expected = concat!(
        r#"{"queueDatas":[{"brokerName":"b","readQueueNums":8,"writeQueueNums":8,"perm":6,"topicSysFlag":0}],"#,
        r#""brokerDatas":[{"cluster":"c","brokerName":"b","#,
        r#""brokerAddrs":{"0":"1.2.3.4:10911","1":"1.2.3.5:10911"},"enableActingMaster":false}],"#,
        r#""filterServerTable":{}}"#
    );
    let bytes = encode(&route).expect("encodable");
    assert_eq!(std::str::from_utf8(&bytes), Ok(expected));
    assert_eq!(decode(&bytes), Ok(route));
}

#[test]
fn a_heartbeat_of_the_old_cpp_client_is_read() {
    let json = br#"{"clientID":"1.2.3.4@1","consumerDataSet":[{"consumeFromWhere":0,"consumeType":1,
        "groupName":"g","messageModel":1,"subscriptionDataSet":[{"classFilterMode":false,
        "subString":"*","subVersion":"1700000000000","topic":"t"}]}],"producerDataSet":[{"groupName":"p"}]}"#;
    let heartbeat: HeartbeatData = decode(json).expect("tolerated");
    assert_eq!(heartbeat.client_id, "1.2.3.4@1");
    assert_eq!(heartbeat.producer_data_set, [ProducerData { group_name: "p".to_owned() }]);
    let group = &heartbeat.consumer_data_set[0];
    assert_eq!((group.consume_type, group.message_model), (ConsumeType::Passively, MessageModel::Clustering));
    assert_eq!(group.consume_from_where, ConsumeFromWhere::LastOffset);
    let subscription = &group.subscription_data_set[0];
    assert_eq!((subscription.sub_version, subscription.is_tag()), (1_700_000_000_000, true));
}

#[test]
fn a_heartbeat_of_a_java_client_is_read() {
    let json = br#"{"clientID":"c","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_TIMESTAMP",
        "consumeType":"CONSUME_POP","groupName":"g","messageModel":"BROADCASTING","subscriptionDataSet":[{
        "classFilterMode":false,"codeSet":[2598919],"expressionType":"SQL92","subString":"a > 1",
        "subVersion":17,"tagsSet":["TagA"],"topic":"t"}],"unitMode":false}],"heartbeatFingerprint":-5,
        "producerDataSet":null,"withoutSub":true,"subscriptionDataSet":[]}"#;
    let heartbeat: HeartbeatData = decode(json).expect("well-formed");
    assert!(heartbeat.without_sub && heartbeat.producer_data_set.is_empty());
    let group = &heartbeat.consumer_data_set[0];
    assert_eq!((group.consume_type, group.message_model), (ConsumeType::Pop, MessageModel::Broadcasting));
    assert_eq!(group.consume_from_where, ConsumeFromWhere::Timestamp);
    assert!(!group.subscription_data_set[0].is_tag());
    let again: HeartbeatData = decode(&encode(&heartbeat).expect("encodable")).expect("well-formed");
    assert_eq!(again, heartbeat);
}

#[test]
fn an_enum_nobody_knows_is_the_default() {
    let group: ConsumerData =
        decode(br#"{"consumeType":"CONSUME_BY_MAGIC","messageModel":9}"#).expect("tolerated");
    assert_eq!((group.consume_type, group.message_model), (ConsumeType::Passively, MessageModel::Clustering));
}

#[test]
fn a_topic_config_has_rocketmqs_defaults() {
    let config: TopicConfig = decode(br#"{"topicName":"t"}"#).expect("well-formed");
    let expected = concat!(
        r#"{"attributes":{},"order":false,"perm":6,"readQueueNums":16,"topicFilterType":"SINGLE_TAG","#,
        r#""topicName":"t","topicSysFlag":0,"writeQueueNums":16}"#
    );
    assert_eq!(encode(&config).expect("encodable"), expected);
}

#[test]
fn a_group_config_has_rocketmqs_defaults() {
    let config: SubscriptionGroupConfig =
        decode(br#"{"groupName":"g","groupRetryPolicy":null,"subscriptionDataSet":null}"#)
            .expect("well-formed");
    assert_eq!(config.group_name, "g");
    assert!(config.consume_enable && config.consume_broadcast_enable);
    assert_eq!((config.retry_max_times, config.retry_queue_nums), (16, 1));
    assert_eq!(config.group_retry_policy.kind, RetryPolicyKind::Customized);
    assert_eq!(CustomizedRetryPolicy::default().next.len(), 18);
}

#[test]
fn locks_have_the_names_clients_expect() {
    let request: LockBatchRequest = decode(
        br#"{"clientId":"c","consumerGroup":"g","mqSet":[{"brokerName":"b","queueId":3,"topic":"t"}]}"#,
    )
    .expect("well-formed");
    let response = LockBatchResponse { lock_ok_mq_set: request.mq_set };
    let expected = r#"{"lockOKMQSet":[{"brokerName":"b","queueId":3,"topic":"t"}]}"#;
    assert_eq!(encode(&response).expect("encodable"), expected);
}

#[test]
fn a_list_of_consumers_has_the_name_clients_expect() {
    let list = ConsumerList { consumer_id_list: vec!["a".to_owned()] };
    assert_eq!(encode(&list).expect("encodable"), r#"{"consumerIdList":["a"]}"#);
}

#[test]
fn a_body_that_is_no_json_says_where() {
    let error = decode::<HeartbeatData>(b"{\"clientID\":").expect_err("cut");
    assert!(error.to_string().contains("line 1"), "{error}");
    assert!(decode::<HeartbeatData>(&[b'['; 100_000]).is_err());
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_are_read_without_panic(bytes: Vec<u8>) {
        let _ = decode::<HeartbeatData>(&bytes);
        let _ = decode::<SubscriptionGroupConfig>(&bytes);
    }
}

#[test]
fn the_go_clients_quoted_codes_are_read() {
    let body = br#"{"clientID":"c@1","consumerDataSet":[{"groupName":"g","subscriptionDataSet":[
        {"topic":"t","subString":"a || b","tagsSet":["a","b"],"codeSet":["97",98],"subVersion":1}]}]}"#;
    let heartbeat: HeartbeatData = decode(body).expect("as the Go client writes it");
    assert_eq!(heartbeat.consumer_data_set[0].subscription_data_set[0].code_set, [97, 98]);
}

fn list_of(name: &str, entry: &str, count: usize) -> Vec<u8> {
    format!("{{\"{name}\":[{}]}}", vec![entry; count].join(",")).into_bytes()
}

fn refused<T: serde::de::DeserializeOwned + std::fmt::Debug>(bytes: &[u8]) -> String {
    decode::<T>(bytes).expect_err("too many").reason
}

/// A list of `{}` had forty to fifty times its size in memory before its length was looked at.
#[test]
fn lists_are_counted_while_they_are_read() {
    use crate::limits::*;
    let at_most = |count: usize| format!("more than {count} entries");
    for list in ["consumerDataSet", "producerDataSet"] {
        assert!(decode::<HeartbeatData>(&list_of(list, "{}", HEARTBEAT_GROUPS_MAX)).is_ok());
        let reason = refused::<HeartbeatData>(&list_of(list, "{}", 3_000_000));
        assert!(reason.contains(&at_most(HEARTBEAT_GROUPS_MAX)), "{reason}");
    }
    let subscriptions = list_of("subscriptionDataSet", "{}", SUBSCRIPTIONS_MAX + 1);
    assert!(refused::<ConsumerData>(&subscriptions).contains(&at_most(SUBSCRIPTIONS_MAX)));
    for (list, entry) in [("tagsSet", "\"\""), ("codeSet", "1")] {
        assert!(decode::<SubscriptionData>(&list_of(list, entry, TAGS_MAX)).is_ok());
        let reason = refused::<SubscriptionData>(&list_of(list, entry, TAGS_MAX + 1));
        assert!(reason.contains(&at_most(TAGS_MAX)), "{reason}");
    }
    let queues = list_of("mqSet", "{}", LOCK_QUEUES_MAX + 1);
    assert!(refused::<LockBatchRequest>(&queues).contains(&at_most(LOCK_QUEUES_MAX)));
    let topics = list_of("topicConfigList", "{}", CONFIGS_MAX + 1);
    assert!(refused::<TopicConfigList>(&topics).contains(&at_most(CONFIGS_MAX)));
    let groups = list_of("groupConfigList", "{}", CONFIGS_MAX + 1);
    assert!(refused::<SubscriptionGroupList>(&groups).contains(&at_most(CONFIGS_MAX)));
    let times = list_of("next", "1", RETRY_TIMES_MAX + 1);
    assert!(refused::<CustomizedRetryPolicy>(&times).contains(&at_most(RETRY_TIMES_MAX)));
}

#[test]
fn fields_of_an_object_are_counted_while_they_are_read() {
    let fields: Vec<String> = (0..=crate::limits::ATTRIBUTES_MAX).map(|n| format!("\"{n}\":\"\"")).collect();
    let attributes = format!("{{\"attributes\":{{{}}}}}", fields.join(","));
    assert!(refused::<TopicConfig>(attributes.as_bytes()).contains("more than 256 fields"));
    assert!(refused::<SubscriptionGroupConfig>(attributes.as_bytes()).contains("more than 256 fields"));
    let fewer = format!("{{\"attributes\":{{{}}}}}", fields[1..].join(","));
    assert!(decode::<TopicConfig>(fewer.as_bytes()).is_ok());
}

#[test]
fn a_clients_body_has_so_many_objects_and_no_more() {
    let body = list_of("consumerDataSet", r#"{"subscriptionDataSet":[{},{},{}]}"#, 100);
    assert!(decode_request::<HeartbeatData>(&body, 401).is_ok());
    let error = decode_request::<HeartbeatData>(&body, 400).expect_err("one too many");
    assert_eq!(error.reason, "401 objects in the body, the limit is 400");
}
