use bytes::BytesMut;
use folio_protocol::frame::Frame;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;

use super::super::Unanswered;
use super::super::share::Share;
use super::*;

#[derive(Default)]
struct Seen {
    codes: Mutex<Vec<i32>>,
    /// Requests are kept unanswered.
    keeps: bool,
    unanswered: Mutex<Vec<Unanswered>>,
}

impl Service for Seen {
    fn request(&self, channel: &Channel, frame: Frame) {
        self.codes.lock().push(frame.code);
        if self.keeps {
            self.unanswered.lock().push(channel.expect_answer(&frame));
        }
    }
    fn closed(&self, _channel: &Channel) {}
}

fn config() -> NetConfig {
    NetConfig {
        frame_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(120),
        requests_max: 128,
        ..NetConfig::default()
    }
}

async fn reason_after(bytes: &[u8], then: impl FnOnce(tokio::io::DuplexStream)) -> (CloseReason, Vec<i32>) {
    let (mut client, mut server) = tokio::io::duplex(1 << 20);
    client.write_all(bytes).await.unwrap();
    then(client);
    let seen = Seen::default();
    let reason = read_frames(&mut server, &Channel::unconnected(), &config(), &seen).await;
    (reason, seen.codes.into_inner())
}

fn frames(codes: &[i32]) -> BytesMut {
    let mut out = BytesMut::new();
    for &code in codes {
        Frame { code, ..Frame::default() }.encode(&mut out).unwrap();
    }
    out
}

#[tokio::test]
async fn every_frame_of_one_read_is_handed_over() {
    let (reason, seen) = reason_after(&frames(&[34, 105, 10]), drop).await;
    assert_eq!(seen, [34, 105, 10]);
    assert!(matches!(reason, CloseReason::PeerClosed), "{reason}");
    let many: Vec<i32> = (0..1_000).collect();
    let (_, seen) = reason_after(&frames(&many), drop).await;
    assert_eq!(seen, many);
}

#[tokio::test]
async fn garbage_giant_lengths_and_tls_are_told_apart() {
    let (reason, _) = reason_after(b"GET / HTTP/1.1\r\n", |_| {}).await;
    assert!(matches!(reason, CloseReason::BadFrame(_)), "{reason}");
    let (reason, _) = reason_after(&[0xff; 8], |_| {}).await;
    assert!(matches!(reason, CloseReason::BadFrame(_)), "{reason}");
    let (reason, _) = reason_after(&[0x16, 0x03, 0x01, 0x02, 0x00], |_| {}).await;
    assert!(matches!(reason, CloseReason::Tls), "{reason}");
}

#[tokio::test]
async fn a_frame_cut_by_the_peer_says_how_much_of_it_came() {
    let whole = frames(&[34]);
    let (reason, seen) = reason_after(&whole[..whole.len() - 1], drop).await;
    assert!(seen.is_empty());
    assert_eq!(
        reason.to_string(),
        format!("the peer closed it in the middle of a frame ({} bytes of it had come)", whole.len() - 1)
    );
}

#[tokio::test(start_paused = true)]
async fn half_a_frame_and_then_nothing_times_out_before_idleness_does() {
    let started = Instant::now();
    let (reason, _) = reason_after(&frames(&[34])[..9], std::mem::forget).await;
    assert!(matches!(reason, CloseReason::PartialFrame(_)), "{reason}");
    assert!(started.elapsed() < Duration::from_secs(11), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_its_time() {
    let started = Instant::now();
    let (reason, seen) = reason_after(&frames(&[34]), std::mem::forget).await;
    assert_eq!(seen, [34]);
    assert!(matches!(reason, CloseReason::Idle(_)), "{reason}");
    assert!(started.elapsed() >= Duration::from_secs(120), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_an_answer_is_not_idle() {
    let (mut client, mut server) = tokio::io::duplex(1 << 20);
    client.write_all(&frames(&[11])).await.unwrap();
    let (seen, channel) = (Seen { keeps: true, ..Seen::default() }, Channel::unconnected());
    let config = config();
    let mut reading = pin!(read_frames(&mut server, &channel, &config, &seen));
    let early = timeout(Duration::from_secs(1_000), reading.as_mut()).await;
    assert!(early.is_err(), "it was closed");
    seen.unanswered.lock().clear();
    let reason = reading.await;
    assert!(matches!(reason, CloseReason::Idle(_)), "{reason}");
}

/// 60,000 queries in 0.3 s on one connection were served at once: others waited for 1.1 s.
#[tokio::test(start_paused = true)]
async fn i5_requests_beyond_the_limit_of_a_connection_stay_unread() {
    let (mut client, mut server) = tokio::io::duplex(1 << 20);
    let seen = Seen { keeps: true, ..Seen::default() };
    let channel = Channel::with_limits(&config());
    let config = config();
    client.write_all(&frames(&[14; 100])).await.unwrap();
    let mut reading = pin!(read_frames(&mut server, &channel, &config, &seen));
    assert!(timeout(Duration::from_secs(300), reading.as_mut()).await.is_err(), "it is paused, not closed");
    assert_eq!(seen.codes.lock().len(), 8, "128 units, 16 for each");
    // Half of them are answered: as many come.
    seen.unanswered.lock().drain(..4);
    assert!(timeout(Duration::from_secs(1), reading.as_mut()).await.is_err());
    assert_eq!(seen.codes.lock().len(), 12);
    // One that is held is none of them.
    seen.unanswered.lock().iter_mut().for_each(Unanswered::hold);
    assert!(timeout(Duration::from_secs(1), reading.as_mut()).await.is_err());
    assert_eq!(seen.codes.lock().len(), 20);
    drop(client);
    seen.unanswered.lock().clear();
    while seen.codes.lock().len() < 100 {
        assert!(timeout(Duration::from_secs(1), reading.as_mut()).await.is_err());
        seen.unanswered.lock().clear();
    }
}

/// Sixty halves of frames of 16 MiB took a gigabyte, and kept it after they were closed.
#[tokio::test(start_paused = true)]
async fn i7_half_frames_wait_for_memory_and_give_it_back_when_they_end() {
    let config = NetConfig { frame_timeout: Duration::from_secs(10), ..NetConfig::with_memory(64 << 20) };
    let channel = Channel::with_limits(&config);
    let budget = channel.budget().clone();
    let mut whole = BytesMut::new();
    Frame::default().with_body(vec![0; 15 << 20]).encode(&mut whole).unwrap();
    let half = whole.split_to(8 << 20).freeze();
    let mut clients = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        let (channel, config, half) = (channel.clone(), config.clone(), half.clone());
        tasks.spawn(async move { read_frames(&mut server, &channel, &config, &Seen::default()).await });
        clients.push(tokio::spawn(async move {
            drop(client.write_all(&half).await);
            client
        }));
    }
    let reasons = tokio::time::timeout(Duration::from_secs(600), async {
        let mut reasons = Vec::new();
        while let Some(reason) = tasks.join_next().await {
            assert!(budget.frame_bytes() <= budget.frame_bytes_max());
            reasons.push(reason.expect("no panic"));
        }
        reasons
    });
    let reasons = reasons.await.expect("each ends by itself");
    assert!(reasons.iter().any(|reason| matches!(reason, CloseReason::SlowFrame(_))), "{reasons:?}");
    assert_eq!((budget.frame_bytes(), budget.used(Share::Buffers)), (0, 0));
    clients.iter().for_each(tokio::task::JoinHandle::abort);
}

fn announced(bytes: usize) -> [u8; 8] {
    let [a, b, c, d] = (bytes as u32).to_be_bytes();
    [a, b, c, d, 0, 0, 0, 100]
}

/// Connections that begin frames of so many bytes, send so many of them and then nothing, and one that sends a whole
/// frame of 300 KiB: how long that one takes.
async fn beside(count: usize, frame_bytes: usize, sent: usize) -> (Duration, Vec<CloseReason>) {
    let config = NetConfig::with_memory(64 << 20);
    let channel = Channel::with_limits(&config);
    let mut bytes = vec![0; sent];
    bytes[..8].copy_from_slice(&announced(frame_bytes));
    let mut others = tokio::task::JoinSet::new();
    let mut keep = Vec::new();
    for _ in 0..count {
        let (mut client, mut server) = tokio::io::duplex(32 << 20);
        client.write_all(&bytes).await.unwrap();
        keep.push(client);
        let (channel, config) = (channel.clone(), config.clone());
        others.spawn(async move { read_frames(&mut server, &channel, &config, &Seen::default()).await });
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let (mut client, mut server) = tokio::io::duplex(32 << 20);
    let mut whole = BytesMut::new();
    Frame { code: 10, ..Frame::default() }.with_body(vec![0; 300 << 10]).encode(&mut whole).unwrap();
    let (seen, started) = (Seen::default(), Instant::now());
    client.write_all(&whole).await.unwrap();
    drop(client);
    let reason = read_frames(&mut server, &channel, &config, &seen).await;
    assert!(matches!(reason, CloseReason::PeerClosed), "{reason}");
    assert_eq!(seen.codes.lock().len(), 1);
    let took = started.elapsed();
    let mut reasons = Vec::new();
    while let Some(reason) = others.join_next().await {
        reasons.push(reason.expect("no panic"));
    }
    (took, reasons)
}

/// Eight bytes reserved 16 MiB: an honest frame waited behind all of them, and was closed after 30 s.
#[tokio::test(start_paused = true)]
async fn i7_announcements_of_the_longest_frames_keep_no_other_frame_waiting() {
    let (took, _) = beside(100, 15 << 20, 8).await;
    assert!(took < Duration::from_millis(100), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn i7_frames_that_stand_still_give_way_to_one_that_waits() {
    let (took, reasons) = beside(20, 15 << 20, 1 << 20).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(reasons.iter().any(|reason| matches!(reason, CloseReason::SlowFrame(_))), "{reasons:?}");
}

/// They kept all of `buffers` for 30 s.
#[tokio::test(start_paused = true)]
async fn i7_announcements_of_frames_of_256_kib_are_closed_once_others_need_their_memory() {
    let started = Instant::now();
    let (took, reasons) = beside(60, 250 << 10, 8).await;
    assert!(took < Duration::from_millis(100), "{took:?}");
    let slow = reasons.iter().filter(|reason| matches!(reason, CloseReason::SlowFrame(_)));
    assert!(slow.count() > 0, "{:?} {reasons:?}", started.elapsed());
}
