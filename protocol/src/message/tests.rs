//! Golden messages, stamping, and hostile bytes.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use std::net::SocketAddr;

use super::*;
use crate::flags::sys_flag;
use crate::java;

fn sample() -> NewMessage {
    NewMessage {
        topic: "TopicA".into(),
        queue_id: 3,
        flag: 7,
        sys_flag: sys_flag::TRANSACTION_COMMIT,
        born_timestamp: 0x0102_0304_0506_0708,
        born_host: "10.0.0.1:1000".parse().expect("address"),
        store_timestamp: 0x1112_1314_1516_1718,
        store_host: "127.0.0.1:10911".parse().expect("address"),
        reconsume_times: 2,
        prepared_transaction_offset: 5,
        body: Bytes::from_static(b"hello"),
        properties: Bytes::from_static(b"TAGS\x01TagA\x02"),
    }
}

fn encoded(message: &NewMessage) -> BytesMut {
    let mut out = BytesMut::new();
    message.encode(&mut out).expect("short enough");
    out
}

#[test]
fn a_message_has_these_bytes() {
    let expected: Vec<u8> = [
        &b"\0\0\0\x70\xda\xa3\x20\xa7"[..],
        b"\x36\x10\xa6\x86", // CRC-32 of "hello"
        b"\0\0\0\x03\0\0\0\x07",
        &[0; 16],
        b"\0\0\0\x08\x01\x02\x03\x04\x05\x06\x07\x08",
        b"\x0a\0\0\x01\0\0\x03\xe8",
        b"\x11\x12\x13\x14\x15\x16\x17\x18",
        b"\x7f\0\0\x01\0\0\x2a\x9f",
        b"\0\0\0\x02\0\0\0\0\0\0\0\x05",
        b"\0\0\0\x05hello\x06TopicA\0\x0aTAGS\x01TagA\x02",
    ]
    .concat();
    assert_eq!(encoded(&sample()), expected);
}

#[test]
fn every_field_is_read_back() {
    let message = sample();
    let bytes = encoded(&message);
    let view = MessageView::parse(&bytes).expect("well-formed");
    assert_eq!(view.total_size(), message.encoded_len());
    assert_eq!((view.topic(), view.queue_id(), view.flag()), ("TopicA", 3, 7));
    assert_eq!(view.sys_flag(), sys_flag::TRANSACTION_COMMIT);
    assert_eq!((view.born_timestamp(), view.born_host()), (message.born_timestamp, message.born_host));
    assert_eq!((view.store_timestamp(), view.store_host()), (message.store_timestamp, message.store_host));
    assert_eq!((view.reconsume_times(), view.prepared_transaction_offset()), (2, 5));
    assert_eq!((view.body(), view.properties()), (&b"hello"[..], &b"TAGS\x01TagA\x02"[..]));
    assert_eq!(view.property("TAGS"), Some("TagA"));
    assert_eq!(view.tags_code(), java::tags_code("TagA"));
    assert_eq!(view.verify_body_crc(), Ok(()));
}

#[test]
fn a_long_topic_takes_the_second_encoding() {
    let short = NewMessage { topic: "t".repeat(127).into(), ..sample() };
    let long = NewMessage { topic: "t".repeat(128).into(), ..sample() };
    assert_eq!(&encoded(&short)[4..8], MAGIC_V1.to_be_bytes());
    let bytes = encoded(&long);
    assert_eq!(&bytes[4..8], MAGIC_V2.to_be_bytes());
    assert_eq!(bytes.len(), encoded(&short).len() + 2);
    assert_eq!(MessageView::parse(&bytes).expect("well-formed").topic(), &*long.topic);
}

#[test]
fn host_bits_follow_the_addresses() {
    let v6: SocketAddr = "[2001:db8::1]:5".parse().expect("address");
    let mapped: SocketAddr = "[::ffff:10.0.0.1]:5".parse().expect("address");
    let message =
        NewMessage { born_host: v6, store_host: mapped, sys_flag: sys_flag::STORE_HOST_V6, ..sample() };
    let bytes = encoded(&message);
    assert_eq!(bytes.len(), message.encoded_len());
    let view = MessageView::parse(&bytes).expect("well-formed");
    assert_eq!(view.sys_flag(), sys_flag::BORN_HOST_V6);
    assert_eq!(view.born_host(), v6);
    assert_eq!(view.store_host(), "10.0.0.1:5".parse().expect("address"));
}

#[test]
fn stamping_changes_the_offsets_and_nothing_else() {
    let before = encoded(&sample());
    let mut after = before.clone();
    stamp(&mut after, 42, 1_000);
    let route = peek(&after).expect("well-formed");
    assert_eq!((route.total_size, route.topic, route.queue_id), (before.len(), &b"TopicA"[..], 3));
    assert_eq!((route.queue_offset, route.physical_offset), (42, 1_000));
    stamp(&mut after, 0, 0);
    assert_eq!(before, after);
}

#[test]
fn parts_too_long_for_their_length_field_are_refused() {
    let mut out = BytesMut::new();
    let message = NewMessage { properties: vec![b'x'; 32_768].into(), ..sample() };
    let error = message.encode(&mut out).expect_err("too long");
    assert_eq!(error, MessageError::TooLong { what: "properties", bytes: 32_768, max: 32_767 });
    assert!(out.is_empty());
}

#[test]
fn a_message_cut_anywhere_is_refused() {
    let bytes = encoded(&sample());
    for cut in 0..bytes.len() {
        let error = MessageView::parse(&bytes[..cut]).expect_err("cut");
        assert!(matches!(error, MessageError::Short { .. }), "cut to {cut}: {error}");
    }
}

#[test]
fn a_wrong_length_anywhere_is_refused() {
    let good = encoded(&sample());
    let body_length_at = 84;
    let topic_length_at = body_length_at + 4 + 5;
    for at in [0, body_length_at, body_length_at + 3, topic_length_at, good.len() - 12, good.len() - 11] {
        for change in [1, 0x80] {
            let mut bad = good.clone();
            bad[at] ^= change;
            assert!(MessageView::parse(&bad).is_err() && peek(&bad).is_err(), "byte {at} ^ {change:#x}");
        }
    }
}

#[test]
fn foreign_magic_topic_and_checksum_are_named() {
    let good = encoded(&sample());
    let mut bad = good.clone();
    bad[4..8].copy_from_slice(&MAGIC_BLANK.to_be_bytes());
    assert_eq!(MessageView::parse(&bad), Err(MessageError::Magic(MAGIC_BLANK)));
    let mut bad = good.clone();
    bad[94] = 0xff;
    assert_eq!(MessageView::parse(&bad), Err(MessageError::TopicUtf8));
    let mut bad = good;
    bad[88] ^= 1;
    let view = MessageView::parse(&bad).expect("lengths are right");
    assert!(matches!(view.verify_body_crc(), Err(MessageError::BodyCrc { .. })));
}

#[test]
fn messages_back_to_back_are_walked_until_an_error() {
    let mut bytes = encoded(&sample());
    let first = bytes.len();
    sample().encode(&mut bytes).expect("short enough");
    bytes.extend_from_slice(b"junk");
    let items: Vec<_> = Messages::new(&bytes).map(|item| item.map(|(at, _)| at)).collect();
    let error = MessageError::Short { needed: i32::from_be_bytes(*b"junk") as usize, available: 4 };
    assert_eq!(items[..2], [Ok(0), Ok(first)]);
    assert_eq!(items.len(), 3);
    assert!(matches!(items[2], Err(MessageError::TotalSize(_))) || items[2] == Err(error));
}

fn any_message() -> impl Strategy<Value = NewMessage> {
    let hosts = (any::<SocketAddr>(), any::<SocketAddr>());
    let numbers = (any::<u32>(), any::<i32>(), any::<i32>(), any::<i64>(), any::<i64>(), any::<i32>());
    ("[a-zA-Z0-9%_-]{0,200}", hosts, numbers, any::<Vec<u8>>(), any::<Vec<u8>>()).prop_map(
        |(topic, (born_host, store_host), numbers, body, properties)| NewMessage {
            topic: topic.into(),
            queue_id: numbers.0,
            flag: numbers.1,
            sys_flag: numbers.2,
            born_timestamp: numbers.3,
            born_host,
            store_timestamp: numbers.4,
            store_host,
            reconsume_times: numbers.5,
            prepared_transaction_offset: numbers.3,
            body: body.into(),
            properties: properties.into(),
        },
    )
}

proptest! {
    #[test]
    fn what_is_encoded_is_parsed(message in any_message()) {
        let bytes = encoded(&message);
        prop_assert_eq!(bytes.len(), message.encoded_len());
        let view = MessageView::parse(&bytes).expect("well-formed");
        prop_assert_eq!(view.topic(), &*message.topic);
        prop_assert_eq!(view.body(), &message.body[..]);
        prop_assert_eq!(view.properties(), &message.properties[..]);
        prop_assert_eq!(view.born_host().ip(), message.born_host.ip().to_canonical());
        prop_assert_eq!(view.store_host().port(), message.store_host.port());
        prop_assert_eq!(view.store_timestamp(), message.store_timestamp);
        prop_assert_eq!(view.reconsume_times(), message.reconsume_times);
        prop_assert_eq!(view.verify_body_crc(), Ok(()));
    }

    #[test]
    fn a_changed_byte_never_panics(message in any_message(), at: prop::sample::Index, byte: u8) {
        let mut bytes = encoded(&message);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(view) = MessageView::parse(&bytes) {
            let _ = (view.tags_code(), view.born_host(), view.store_host(), view.verify_body_crc());
            prop_assert!(peek(&bytes).is_ok());
        }
    }

    #[test]
    fn arbitrary_bytes_are_parsed_without_panic(bytes: Vec<u8>) {
        prop_assert!(Messages::new(&bytes).count() <= bytes.len());
    }
}
