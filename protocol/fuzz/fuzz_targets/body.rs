#![no_main]
//! JSON bodies, typed headers, tag expressions: the first byte chooses. What a body decodes to encodes, and decodes to the
//! same.

use folio_protocol::body::{self, *};
use folio_protocol::ext::ExtFields;
use folio_protocol::frame::json;
use folio_protocol::header::*;
use folio_protocol::subscription::TagFilter;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn both_ways<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(value) = body::decode::<T>(bytes) else { return };
    let encoded = body::encode(&value).expect("what was decoded encodes");
    let again = body::decode::<T>(&encoded).expect("own bytes decode");
    assert_eq!(body::encode(&again).expect("encodes"), encoded);
}

fn headers(ext: &ExtFields) {
    let _ = SendMessageHeader::from_ext(ext);
    let _ = PullMessageHeader::from_ext(ext);
    let _ = ConsumerSendBackHeader::from_ext(ext);
    let _ = QueryConsumerOffsetHeader::from_ext(ext);
    let _ = UpdateConsumerOffsetHeader::from_ext(ext);
    let _ = SearchOffsetHeader::from_ext(ext);
    let _ = GetMaxOffsetHeader::from_ext(ext);
    let _ = GetEarliestStoreTimeHeader::from_ext(ext);
    let _ = CreateTopicHeader::from_ext(ext);
    let _ = DeleteTopicHeader::from_ext(ext);
    let _ = EndTransactionHeader::from_ext(ext);
    let _ = PopMessageHeader::from_ext(ext);
    let _ = AckMessageHeader::from_ext(ext);
    let _ = GetRouteHeader::from_ext(ext);
    let _ = GetConsumerListHeader::from_ext(ext);
    let _ = UnregisterClientHeader::from_ext(ext);
    let _ = ResetOffsetHeader::from_ext(ext);
    let _ = QueryMessageHeader::from_ext(ext);
    let _ = ViewMessageHeader::from_ext(ext);
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 12 {
        0 => both_ways::<HeartbeatData>(rest),
        1 => both_ways::<TopicRouteData>(rest),
        2 => both_ways::<LockBatchRequest>(rest),
        3 => both_ways::<TopicConfig>(rest),
        4 => both_ways::<TopicConfigList>(rest),
        5 => both_ways::<SubscriptionGroupConfig>(rest),
        6 => both_ways::<CheckClientConfig>(rest),
        7 => both_ways::<ClusterInfo>(rest),
        8 => both_ways::<TopicConfigTable>(rest),
        9 => both_ways::<ConsumerList>(rest),
        10 => {
            if let Ok(frame) = json::decode(rest) {
                headers(&frame.ext);
            }
        }
        _ => {
            if let Ok(text) = std::str::from_utf8(rest) {
                let _ = TagFilter::parse(text);
            }
        }
    }
});
