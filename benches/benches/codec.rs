//! The bytes of a SEND and of its message: headers in both serializations, encoding, parsing, stamping.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use bytes::BytesMut;
use criterion::{Criterion, Throughput};
use folio_benches::{BATCH, messages, new_message, send_request};
use folio_protocol::code::ResponseCode;
use folio_protocol::frame::{Frame, Serialization};
use folio_protocol::header::{SendAnswer, SendMessageResponseHeader, SendRequest};
use folio_protocol::ids::OffsetMessageId;
use folio_protocol::message::{Messages, peek, stamp};

fn headers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("header");
    group.throughput(Throughput::Elements(1));
    for (name, serialization) in [("json", Serialization::Json), ("rocketmq", Serialization::Rocketmq)] {
        let request = send_request(serialization);
        let mut wire = BytesMut::new();
        request.encode(&mut wire).expect("short enough");
        let mut out = BytesMut::with_capacity(wire.len());
        group.bench_function(format!("{name}/encode_send"), |bencher| {
            bencher.iter(|| {
                out.clear();
                request.encode(&mut out).expect("short enough");
                black_box(&out);
            });
        });
        // Decoding takes the bytes off a buffer, so the copy that fills it is part of the figure.
        group.bench_function(format!("{name}/decode_send"), |bencher| {
            bencher.iter(|| {
                let frame =
                    Frame::decode(&mut BytesMut::from(&wire[..])).expect("well-formed").expect("whole");
                black_box(SendRequest::from_ext(&frame.ext).expect("well-formed"));
            });
        });
        // As a list of owned fields, which is then encoded, and straight into the frame.
        group.bench_function(format!("{name}/answer_listed"), |bencher| {
            bencher.iter(|| {
                out.clear();
                let header = owned_answer(black_box(&ANSWER));
                let frame = request.response_to(ResponseCode::Success).with_header(&header);
                frame.encode(&mut out).expect("short enough");
                black_box(&out);
            });
        });
        group.bench_function(format!("{name}/answer"), |bencher| {
            bencher.iter(|| {
                out.clear();
                let frame = request.response_to(ResponseCode::Success);
                frame.encode_with(black_box(&ANSWER), &mut out).expect("short enough");
                black_box(&out);
            });
        });
    }
    group.finish();
}

const ANSWER: SendAnswer<'static> = SendAnswer {
    host: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 10_911)),
    positions: &[0x1_2345_6789],
    queue_id: 3,
    queue_offset: 1_000_000,
    transaction_id: Some("7F0000010A2B00000C0D11223344AABB"),
    region_id: "DefaultRegion",
    trace_on: true,
    recall_handle: None,
};

fn owned_answer(answer: &SendAnswer<'_>) -> SendMessageResponseHeader {
    SendMessageResponseHeader {
        msg_id: OffsetMessageId { host: answer.host, position: answer.positions[0] }.to_string(),
        queue_id: answer.queue_id,
        queue_offset: answer.queue_offset,
        transaction_id: answer.transaction_id.map(str::to_owned),
        batch_uniq_id: None,
        recall_handle: None,
        region_id: answer.region_id.to_owned(),
        trace_on: answer.trace_on,
    }
}

fn stored_messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message");
    let message = new_message(3);
    let mut out = BytesMut::with_capacity(message.encoded_len());
    group.throughput(Throughput::Bytes(message.encoded_len() as u64));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            out.clear();
            message.encode(&mut out).expect("short enough");
            black_box(&out);
        });
    });
    let mut batch = messages(BATCH).expect("short enough");
    let size = message.encoded_len();
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    group.bench_function("peek_and_stamp_batch", |bencher| {
        bencher.iter(|| {
            for (offset, message) in (0..).zip(batch.chunks_exact_mut(size)) {
                black_box(peek(message).expect("well-formed").queue_id);
                stamp(message, offset, offset);
            }
        });
    });
    group.bench_function("parse_batch", |bencher| {
        bencher.iter(|| {
            let tags = Messages::new(&batch).map(|message| message.expect("well-formed").1.tags_code());
            tags.fold(0_i64, i64::wrapping_add)
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    headers(&mut criterion);
    stored_messages(&mut criterion);
    criterion.final_summary();
}
