//! Golden frames, tolerances of real clients, and hostile bytes.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::code::{LanguageCode, RequestCode, ResponseCode};
use crate::ext::HeaderError;
use crate::header::{GetMaxOffsetHeader, Header};

fn framed(kind: u8, header: &[u8], body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u32((4 + header.len() + body.len()) as u32);
    out.put_u32(u32::from(kind) << 24 | header.len() as u32);
    out.put_slice(header);
    out.put_slice(body);
    out
}

fn decoded(kind: u8, header: &[u8]) -> Result<Frame, FrameError> {
    Frame::decode(&mut framed(kind, header, b"")).map(|frame| frame.expect("a whole frame"))
}

#[test]
fn a_json_request_has_these_bytes() {
    let header = GetMaxOffsetHeader { topic: "t".into(), queue_id: 3, committed: true };
    let mut frame = Frame::request(RequestCode::GetMaxOffset, &header, Bytes::from_static(b"xy"));
    frame.opaque = 9;
    let mut out = BytesMut::new();
    frame.encode(&mut out).expect("short enough");
    let json = concat!(
        r#"{"code":30,"extFields":{"topic":"t","queueId":"3","committed":"true"},"flag":0,"#,
        r#""language":"JAVA","opaque":9,"serializeTypeCurrentRPC":"JSON","version":479}"#
    );
    assert_eq!(out, framed(0, json.as_bytes(), b"xy"));
}

#[test]
fn a_binary_response_has_these_bytes() {
    let mut frame = Frame::response(9, Serialization::Rocketmq, ResponseCode::SystemBusy);
    frame.remark = Some("no".to_owned());
    frame.ext.insert("k", "v1");
    let mut out = BytesMut::new();
    frame.encode(&mut out).expect("short enough");
    let header = b"\0\x02\0\x01\xdf\0\0\0\x09\0\0\0\x01\0\0\0\x02no\0\0\0\x09\0\x01k\0\0\0\x02v1";
    assert_eq!(out, framed(1, header, b""));
    assert_eq!(Frame::decode(&mut out), Ok(Some(frame)));
}

#[test]
fn a_code_beyond_sixteen_bits_goes_out_as_json() {
    let frame = Frame {
        code: RequestCode::PopMessage.code(),
        serialization: Serialization::Rocketmq,
        ..Frame::default()
    };
    let mut out = BytesMut::new();
    frame.encode(&mut out).expect("short enough");
    let back = Frame::decode(&mut out).expect("well-formed").expect("whole");
    assert_eq!((back.code, back.serialization), (200_050, Serialization::Json));
}

#[test]
fn what_old_clients_write_is_understood() {
    let header = br#" { "language":"KLINGON","code":11 ,"version":63,"opaque":"5","flag":0,"remark":null,
        "suspended":false,"extFields":{"queueId":0,"m":true,"nothing":null,"deep":{"a":["]}"]},"s":"x"},
        "serializeTypeCurrentRPC":"JSON"} "#;
    let frame = decoded(0, header).expect("well-formed");
    assert_eq!((frame.code, frame.version, frame.opaque), (11, 63, 5));
    assert_eq!((frame.language, frame.remark), (LanguageCode::Other, None));
    let fields: Vec<_> = frame.ext.iter().collect();
    assert_eq!(fields, [("queueId", "0"), ("m", "true"), ("s", "x")]);
}

#[test]
fn missing_keys_are_defaults() {
    let frame = decoded(0, b"{}").expect("well-formed");
    assert_eq!(frame, Frame { version: 0, ..Frame::default() });
}

#[test]
fn escapes_become_what_they_stand_for() {
    let header = br#"{"extFields":{"i\u0041":"a\u0001b\u0002\"\\\/\n\ud83d\ude00\ud83d"},"remark":"\u4e2d"}"#;
    let frame = decoded(0, header).expect("well-formed");
    assert_eq!(frame.ext.get("iA"), Some("a\u{1}b\u{2}\"\\/\n😀\u{fffd}"));
    assert_eq!(frame.remark.as_deref(), Some("中"));
}

#[test]
fn malformed_json_is_refused() {
    for header in [
        "",
        "[]",
        "{",
        "{\"a\"}",
        "{\"a\":}",
        "{\"code\":1.5}",
        "{\"code\":99999999999}",
        "{\"remark\":\"\\x\"}",
        "{\"remark\":\"\\u12\"}",
        "{\"remark\":\"\\u+123\"}",
        "{}x",
        "{\"a\":1,}",
        "{\"a\":\"",
        "{\"a\":[[",
        "{\"extFields\":7}",
        "{\"extFields\":{},\"extFields\":{}}",
        "{\"remark\":\"\\é\"}",
    ] {
        let error = decoded(0, header.as_bytes()).expect_err(header);
        assert!(matches!(error, FrameError::Json { .. }), "{header}: {error}");
    }
    assert_eq!(decoded(0, b"{\"a\":\"\xff\"}"), Err(FrameError::Utf8));
}

#[test]
fn an_empty_binary_value_counts_as_none() {
    let header = b"\0\x0b\x09\x01\x3d\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x07\0\x01k\0\0\0\0";
    let frame = decoded(1, header).expect("well-formed");
    assert_eq!((frame.code, frame.language, frame.version), (11, LanguageCode::Go, 317));
    assert!(frame.ext.is_empty() && frame.remark.is_none());
}

#[test]
fn a_binary_header_that_says_more_than_there_is_is_refused() {
    let whole = b"\0\x0b\x09\x01\x3d\0\0\0\x01\0\0\0\0\0\0\0\x01r\0\0\0\x08\0\x01k\0\0\0\x01v";
    assert!(decoded(1, whole).is_ok());
    for cut in 0..whole.len() {
        assert!(matches!(decoded(1, &whole[..cut]), Err(FrameError::Binary(_))), "cut to {cut}");
    }
    let mut negative = whole.to_vec();
    negative[13] = 0xff;
    assert_eq!(decoded(1, &negative), Err(FrameError::Binary("remark")));
}

/// Found by fuzzing. One half ended the value, the other one began the next key: together they were text, and the value
/// was cut out of it in the middle of a character.
#[test]
fn t90_a_character_split_between_a_value_and_the_next_key_panicked() {
    let mut header = vec![0, 11, 9, 1, 61, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 15];
    header.extend(b"\0\x01a\0\0\0\x01\xc9\0\x01\xbb\0\0\0\x01c");
    let length = header.len() - 21;
    header[20] = length as u8;
    assert_eq!(decoded(1, &header), Err(FrameError::Utf8));
}

#[test]
fn impossible_lengths_are_refused_before_the_bytes_arrive() {
    let decode = |bytes: &[u8]| Frame::decode(&mut BytesMut::from(bytes));
    assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff]), Err(FrameError::TooShort(-1)));
    assert_eq!(decode(&[0, 0, 0, 3]), Err(FrameError::TooShort(3)));
    assert_eq!(decode(&[0x7f, 0, 0, 0]), Err(FrameError::TooLarge { bytes: 0x7f00_0004 }));
    assert_eq!(decode(&[1, 0, 0, 0]), Err(FrameError::TooLarge { bytes: 16_777_220 }));
    assert_eq!(decode(&[0, 0, 0, 8, 0, 0, 0, 5]), Err(FrameError::HeaderLength { header: 5, frame: 8 }));
    assert_eq!(decode(&[0, 0, 0, 8, 2, 0, 0, 2]), Err(FrameError::Serialization(2)));
    assert_eq!(decode(&[0, 0x20, 0, 0, 0, 0x10, 0, 1]), Err(FrameError::HeaderTooLarge(1_048_577)));
    assert_eq!(decode(&[0, 0x20, 0, 0, 0, 0x10, 0, 0]), Ok(None));
}

#[test]
fn an_incomplete_frame_consumes_nothing() {
    let whole = framed(0, b"{\"code\":34}", b"body");
    for cut in 0..whole.len() {
        let mut part = BytesMut::from(&whole[..cut]);
        assert_eq!(Frame::decode(&mut part), Ok(None), "cut to {cut}");
        assert_eq!(part.len(), cut);
    }
}

#[test]
fn a_body_is_a_slice_of_what_was_received() {
    let mut source = framed(0, b"{\"code\":34}", b"body");
    source.extend_from_slice(b"next");
    let received = source.as_ptr() as usize..source.as_ptr() as usize + source.len();
    let frame = Frame::decode(&mut source).expect("well-formed").expect("whole");
    assert_eq!(&frame.body[..], b"body");
    assert!(received.contains(&(frame.body.as_ptr() as usize)));
    assert_eq!(&source[..], b"next");
}

/// frame.I3: escapes are replaced in the received bytes, and what follows them there is as it was.
#[test]
fn the_fields_of_a_frame_with_a_body_are_slices_of_what_was_received() {
    let header = br#"{"extFields":{"i":"KEYS\u0001\u4e2d\u0002","\u006a":"\ud83d\ude00"},"code":10}"#;
    let mut source = framed(0, header, b"body");
    source.extend_from_slice(&framed(0, header, b"more"));
    let received = source.as_ptr() as usize..source.as_ptr() as usize + source.len();
    for body in [b"body", b"more"] {
        let frame = Frame::decode(&mut source).expect("well-formed").expect("whole");
        assert_eq!((frame.code, &frame.body[..]), (10, &body[..]));
        let fields: Vec<_> = frame.ext.iter().collect();
        assert_eq!(fields, [("i", "KEYS\u{1}中\u{2}"), ("j", "😀")]);
        assert!(fields.iter().all(|(key, value)| {
            [key, value].iter().all(|part| received.contains(&(part.as_ptr() as usize)))
        }));
    }
}

/// frame.I4: what waits for long holds no read buffer.
#[test]
fn a_frame_without_a_body_keeps_nothing_of_what_was_received() {
    for (kind, header) in [
        (0, &br#"{"extFields":{"k":"v"}}"#[..]),
        (1, b"\0\x0b\x09\x01\x3d\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x08\0\x01k\0\0\0\x01v"),
    ] {
        let mut source = framed(kind, header, b"");
        let received = source.as_ptr() as usize..source.as_ptr() as usize + source.len();
        let frame = Frame::decode(&mut source).expect("well-formed").expect("whole");
        let value = frame.ext.get("k").expect("a field");
        assert_eq!(value, "v");
        assert!(!received.contains(&(value.as_ptr() as usize)));
    }
}

/// frame.I4: a pull with a body of one byte kept the buffer of a quarter of a megabyte that it came in.
#[test]
fn a_detached_frame_keeps_nothing_of_what_was_received() {
    let mut source = framed(0, br#"{"code":11,"extFields":{"k":"v"}}"#, b"x");
    let received = source.as_ptr() as usize..source.as_ptr() as usize + source.len();
    let frame = Frame::decode(&mut source).expect("well-formed").expect("whole").detached();
    let value = frame.ext.get("k").expect("a field");
    assert_eq!((value, frame.body.len(), frame.code), ("v", 0, 11));
    assert!(!received.contains(&(value.as_ptr() as usize)));
}

#[test]
fn the_fields_of_a_header_are_counted_while_they_are_read() {
    let json = |count: usize| {
        let fields: Vec<String> = (0..count).map(|n| format!("\"{n}\":1")).collect();
        decoded(0, format!("{{\"extFields\":{{{}}}}}", fields.join(",")).as_bytes())
    };
    assert_eq!(json(1_024).map(|frame| frame.ext.len()), Ok(1_024));
    let error = json(1_025).expect_err("one too many").to_string();
    assert!(error.contains("at most 1024 ext fields"), "{error}");
    let binary = |count: usize| {
        let mut header = BytesMut::from(&b"\0\x0b\x09\x01\x3d\0\0\0\x01\0\0\0\0\0\0\0\0"[..]);
        header.put_u32(count as u32 * 8);
        (0..count).for_each(|_| header.put_slice(b"\0\x01k\0\0\0\x01v"));
        decoded(1, &header)
    };
    assert_eq!(binary(1_024).map(|frame| frame.ext.len()), Ok(1_024));
    assert_eq!(binary(1_025), Err(FrameError::Binary("at most 1024 ext fields")));
}

#[test]
fn the_length_of_a_frame_is_known_from_its_first_eight_bytes() {
    let whole = framed(0, b"{}", b"body");
    assert_eq!(Frame::length(&whole), Some(whole.len()));
    assert_eq!((Frame::length(&whole[..8]), Frame::length(&whole[..7])), (Some(whole.len()), None));
    assert_eq!(Frame::length(&[0xff; 8]), None);
}

#[test]
fn a_frame_too_large_to_be_read_is_not_written() {
    let mut out = BytesMut::from(&b"kept"[..]);
    let error = Frame::default().encode_head(FRAME_BYTES_MAX, &mut out).expect_err("too large");
    assert!(matches!(error, FrameError::TooLarge { .. }));
    assert_eq!(&out[..], b"kept");
}

#[test]
fn a_head_counts_a_body_written_after_it() {
    let frame = Frame::response(1, Serialization::Json, ResponseCode::Success);
    let (mut whole, mut head) = (BytesMut::new(), BytesMut::new());
    frame.clone().with_body(&b"abc"[..]).encode(&mut whole).expect("short enough");
    frame.encode_head(3, &mut head).expect("short enough");
    head.extend_from_slice(b"abc");
    assert_eq!(whole, head);
}

#[test]
fn a_typed_header_comes_from_a_frame() {
    let frame = decoded(0, br#"{"extFields":{"topic":"t"}}"#).expect("well-formed");
    let header = GetMaxOffsetHeader::from_ext(&frame.ext);
    assert_eq!(header, Err(HeaderError::Missing("queueId")));
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let fields = proptest::collection::btree_map(".{1,9}", ".{1,9}", 0..9);
    let numbers = (any::<i16>(), 0i32..=13, any::<i16>(), any::<i32>(), any::<i32>());
    (numbers, proptest::option::of(".{1,20}"), fields, any::<Vec<u8>>(), any::<bool>()).prop_map(
        |((code, language, version, opaque, flag), remark, fields, body, is_json)| Frame {
            code: i32::from(code),
            language: LanguageCode::from_code(language).expect("one of the table"),
            version: i32::from(version),
            opaque,
            flag,
            remark,
            ext: fields.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            body: body.into(),
            serialization: if is_json { Serialization::Json } else { Serialization::Rocketmq },
        },
    )
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(frame in any_frame()) {
        let mut out = BytesMut::new();
        frame.encode(&mut out).expect("short enough");
        prop_assert_eq!(Frame::decode(&mut out), Ok(Some(frame)));
        prop_assert!(out.is_empty());
    }

    #[test]
    fn json_is_what_others_read_too(frame in any_frame()) {
        let mut out = BytesMut::new();
        json::encode(&frame, &mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        prop_assert_eq!(&value["code"], &serde_json::json!(frame.code));
        for (key, text) in frame.ext.iter() {
            prop_assert_eq!(&value["extFields"][key], &serde_json::json!(text));
        }
    }

    #[test]
    fn arbitrary_headers_are_read_without_panic(kind in 0u8..2, header: Vec<u8>) {
        let _ = decoded(kind, &header);
    }

    #[test]
    fn arbitrary_text_headers_are_read_without_panic(header in r#"\{("[a-z\\"u0é]{0,3}":?[\[{"0-9\\a-f,}\]]{0,9},?){0,5}\}?"#) {
        let _ = decoded(0, header.as_bytes());
    }

    #[test]
    fn arbitrary_bytes_are_read_without_panic(bytes: Vec<u8>) {
        let _ = Frame::decode(&mut BytesMut::from(&bytes[..]));
    }
}
