use tokio::io::AsyncWriteExt;

use super::super::budget::MEMORY_BYTES_MIN;
use super::*;

fn frame(body: usize) -> BytesMut {
    let mut out = BytesMut::new();
    Frame::default().with_body(vec![0; body]).encode(&mut out).expect("a frame");
    out
}

/// Reads these bytes; the first step of memory that the frame needs before they are all read.
async fn fed(buffer: &mut ReadBuffer, bytes: &[u8]) -> Option<Step> {
    let (mut client, mut server) = tokio::io::duplex(32 << 20);
    client.write_all(bytes).await.expect("room");
    let mut left = bytes.len();
    while left > 0 {
        match buffer.read(&mut server).await.expect("readable") {
            Read::Bytes(read) => left -= read,
            Read::NeedsMemory(step) => return Some(step),
        }
    }
    None
}

#[tokio::test]
async fn i7_half_a_frame_holds_no_more_than_twice_what_came_of_it_and_is_in_a_share() {
    let budget = Budget::new(MEMORY_BYTES_MIN);
    let mut buffer = ReadBuffer::new(&budget);
    let whole = frame(10 << 20);
    let (mut client, mut server) = tokio::io::duplex(32 << 20);
    client.write_all(&whole).await.expect("room");
    let mut steps = Vec::new();
    while buffer.len() < whole.len() {
        match buffer.read(&mut server).await.expect("readable") {
            Read::Bytes(_) => {}
            Read::NeedsMemory(step) => {
                assert_eq!((step.frame_bytes, step.bytes), (whole.len(), whole.len().min(2 * buffer.len())));
                steps.push(step.bytes);
                let from = std::net::Ipv4Addr::LOCALHOST.into();
                let memory = buffer.take_memory();
                let memory = memory.unwrap_or_else(|| budget.frames().begin(from, step.frame_bytes));
                assert!(!memory.grow(step.bytes).await, "it is left");
                buffer.hold_frame(step.bytes, memory);
            }
        }
        let held = budget.frame_bytes() + budget.used(Share::Buffers) + BASE_BYTES;
        assert!(
            buffer.bytes.capacity() <= held
                && buffer.bytes.capacity() <= READ_BYTES_MAX.max(2 * buffer.len())
        );
    }
    assert_eq!(steps[..3], [512 << 10, 1 << 20, 2 << 20]);
    assert_eq!(buffer.take_frame().expect("a frame").expect("whole").body.len(), 10 << 20);
    buffer.after_frames();
    assert_eq!((budget.frame_bytes(), budget.used(Share::Buffers)), (0, 0));
}

#[tokio::test]
async fn i7_an_idle_connection_keeps_no_buffer() {
    let budget = Budget::new(MEMORY_BYTES_MIN);
    let mut buffer = ReadBuffer::new(&budget);
    let several = [frame(1_000), frame(60_000), frame(60_000)].concat();
    assert_eq!(fed(&mut buffer, &several).await, None);
    assert!(budget.used(Share::Buffers) > 0);
    assert!(!buffer.release(), "something is in it");
    while buffer.take_frame().expect("frames").is_some() {}
    assert!(buffer.release());
    assert_eq!((budget.used(Share::Buffers), buffer.bytes.capacity()), (0, 0));
}

#[tokio::test]
async fn a_share_that_is_used_up_leaves_small_requests_a_buffer() {
    let budget = Budget::new(MEMORY_BYTES_MIN);
    let all = budget.take(Share::Buffers, budget.limit(Share::Buffers)).expect("it is left");
    let mut buffer = ReadBuffer::new(&budget);
    let small = frame(9_000);
    assert_eq!(fed(&mut buffer, &small).await, None);
    assert!(buffer.bytes.capacity() <= BASE_BYTES);
    assert!(buffer.take_frame().expect("a frame").is_some());
    let large = frame(40_000);
    let step = fed(&mut buffer, &large).await.expect("the share is used up");
    assert_eq!(step, Step { frame_bytes: large.len(), bytes: 32 * 1024 });
    drop(all);
    let mut buffer = ReadBuffer::new(&budget);
    assert_eq!(fed(&mut buffer, &large).await, None);
}

/// A send of one byte kept 256 KiB while it waited for a leader, and no share knew of them.
#[tokio::test]
async fn i7_buffers_that_small_requests_keep_stay_in_the_share_until_these_are_served() {
    let budget = Budget::new(MEMORY_BYTES_MIN);
    let mut buffer = ReadBuffer::new(&budget);
    let some = [frame(1), frame(60_000), frame(60_000), frame(60_000)].concat();
    let mut waiting = Vec::new();
    for served in 1..=20 {
        assert_eq!(fed(&mut buffer, &some).await, None);
        while let Some(frame) = buffer.take_frame().expect("frames") {
            if frame.body.len() == 1 {
                waiting.push(frame);
            }
        }
        buffer.cover_requests(served * 2_100);
    }
    let used = budget.used(Share::Buffers);
    assert!(used > 20 * 50_000, "{used}");
    assert!(!buffer.release(), "requests keep some");
    drop(waiting.split_off(10));
    assert!(!buffer.release());
    assert!((1..=used * 2 / 3).contains(&budget.used(Share::Buffers)), "{}", budget.used(Share::Buffers));
    let kept = buffer.end();
    drop(buffer);
    assert!(budget.used(Share::Buffers) > 10 * 50_000, "the connection has ended, its requests have not");
    drop(kept);
    assert_eq!(budget.used(Share::Buffers), 0);
}

#[tokio::test]
async fn sends_that_fill_their_buffers_are_slices_and_cover_these_themselves() {
    let budget = Budget::new(MEMORY_BYTES_MIN);
    let mut buffer = ReadBuffer::new(&budget);
    let many = frame(1_024).repeat(100);
    let mut waiting = Vec::new();
    for _ in 0..100 {
        assert_eq!(fed(&mut buffer, &many).await, None);
        while let Some(frame) = buffer.take_frame().expect("frames") {
            waiting.push(frame);
        }
        buffer.cover_requests(waiting.len() * 3_000);
        assert!(budget.used(Share::Buffers) <= 2 * READ_BYTES_MAX, "{}", budget.used(Share::Buffers));
    }
    assert!(buffer.old.bytes > 5 << 20, "they are no copies");
    drop(waiting);
    assert!(buffer.release());
    assert_eq!(budget.used(Share::Buffers), 0);
}

#[tokio::test]
async fn small_requests_keep_no_buffer_while_the_share_is_used_up() {
    let budget = Budget::new(MEMORY_BYTES_MIN);
    let mut buffer = ReadBuffer::new(&budget);
    let some = [frame(1), frame(15_000)].concat();
    let mut waiting = Vec::new();
    let mut all = None;
    for _ in 0..50 {
        assert_eq!(fed(&mut buffer, &some).await, None);
        all = all.or_else(|| {
            let left = budget.limit(Share::Buffers) - budget.used(Share::Buffers);
            budget.take(Share::Buffers, left)
        });
        while let Some(frame) = buffer.take_frame().expect("frames") {
            waiting.extend((frame.body.len() == 1).then_some(frame));
        }
    }
    assert!(buffer.old.bytes <= 4 * BASE_BYTES, "{}", buffer.old.bytes);
    assert_eq!(waiting.len(), 50);
}
