//! What a SEND's header costs to read, and its answer to write. Run it with
//! `cargo run --release -p folio-protocol --example header_cost`; one thread, nothing else running.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use folio_protocol::code::{RequestCode, ResponseCode};
use folio_protocol::frame::{Frame, Serialization};
use folio_protocol::header::{SendAnswer, SendMessageHeader, SendRequest};

const ROUNDS: u32 = 300_000;

fn main() {
    for serialization in [Serialization::Json, Serialization::Rocketmq] {
        let wire = send_frame(serialization);
        report("copy and split the frame's bytes", serialization, || {
            let mut source = BytesMut::from(&wire[..]);
            black_box(source.split_to(8));
        });
        report("decode the frame", serialization, || {
            let mut source = BytesMut::from(&wire[..]);
            black_box(Frame::decode(&mut source).expect("well-formed"));
        });
        let mut source = BytesMut::from(&wire[..]);
        let frame = Frame::decode(&mut source).expect("well-formed").expect("whole");
        report("read the typed header", serialization, || {
            black_box(SendRequest::from_ext(black_box(&frame.ext)).expect("well-formed"));
        });
        let mut out = BytesMut::with_capacity(1 << 16);
        report("write the answer", serialization, || {
            out.clear();
            let answer = frame.response_to(ResponseCode::Success);
            answer.encode_with(&ANSWER, &mut out).expect("short enough");
            black_box(&out);
        });
    }
}

fn report(what: &str, serialization: Serialization, mut once: impl FnMut()) {
    let best = (0..5).map(|_| {
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| once());
        start.elapsed() / ROUNDS
    });
    println!("{serialization:?}: {what}: {:?}", best.min().unwrap_or_default());
}

fn send_frame(serialization: Serialization) -> BytesMut {
    let header = SendMessageHeader {
        producer_group: "please_rename_unique_group_name".into(),
        topic: "BenchmarkTest".into(),
        default_topic: "TBW102".into(),
        default_topic_queue_nums: 4,
        queue_id: 3,
        sys_flag: 0,
        born_timestamp: 1_700_000_000_000,
        flag: 0,
        properties: Some(
            "UNIQ_KEY\u{1}7F0000010001AABBCCDD000000010000\u{2}WAIT\u{1}true\u{2}TAGS\u{1}TagA\u{2}".into(),
        ),
        reconsume_times: Some(0),
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker_name: Some("broker-a".into()),
    };
    let mut frame = Frame::request(RequestCode::SendMessageV2, &header, Bytes::from(vec![b'x'; 128]));
    frame.serialization = serialization;
    let mut out = BytesMut::new();
    frame.encode(&mut out).expect("short enough");
    out
}

const ANSWER: SendAnswer<'static> = SendAnswer {
    host: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 10_911)),
    positions: &[0x1234],
    queue_id: 3,
    queue_offset: 123_456,
    transaction_id: Some("7F0000010001AABBCCDD000000010000"),
    region_id: "DefaultRegion",
    trace_on: true,
};
