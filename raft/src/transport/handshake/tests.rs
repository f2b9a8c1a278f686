use std::sync::Arc;

use folio_engine::disk::sim::SimDisk;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::group::group_id::GroupIdFile;
use crate::secret::{ClusterSecret, SECRET_BYTES_MIN};
use crate::transport::frames::STRANGER_FRAME_BYTES_MAX;
use crate::transport::introduction::Identity;

fn secret(byte: u8) -> Option<ClusterSecret> {
    ClusterSecret::parse(&[byte; SECRET_BYTES_MIN]).ok()
}

fn identity(node_id: u64, secret: Option<ClusterSecret>) -> Identity {
    Identity {
        node_id,
        cluster: "the-cluster".into(),
        group: "the-group".into(),
        segment_bytes: 12_345,
        address: "the-host:1".into(),
        secret,
        level: Default::default(),
    }
}

/// A node that hosts the identity's group and another one, which it lists first.
fn node(of: &Identity) -> NodeIdentity {
    let groups = vec!["another-group".to_owned(), of.group.clone()];
    NodeIdentity { cluster: of.cluster.clone(), secret: of.secret.clone(), groups }
}

fn introduction(identity: Identity, to: u64) -> Introduction {
    let names = (identity.cluster.as_str(), identity.group.as_str());
    let ids = GroupIdFile::open(Arc::new(SimDisk::new()), "/".as_ref(), names, true).unwrap();
    Introduction::new(identity, Arc::new(ids)).to(to, Purpose::Requests)
}

/// Two ends of a connection, as a reader and a writer of frames each.
fn pair() -> [(FrameReader, FrameWriter); 2] {
    let (a, b) = tokio::io::duplex(1 << 16);
    [a, b].map(frames)
}

fn frames(socket: DuplexStream) -> (FrameReader, FrameWriter) {
    let (reader, writer) = tokio::io::split(socket);
    (FrameReader::of_stranger(Box::new(reader)), FrameWriter::new(Box::new(writer)))
}

/// What both sides think of each other: node 1 calls node 2.
async fn shake(caller: Identity, listener: Identity) -> (Result<(), String>, Result<Caller, String>) {
    let [(mut r, mut w), (mut reader, mut writer)] = pair();
    let call = async {
        let called = introduce(&mut r, &mut w, &introduction(caller, 2), Naming::Named).await;
        drop((r, w));
        called.map(|introduced| assert_eq!(introduced, Introduced::Done)).map_err(|error| error.to_string())
    };
    let answer = async {
        match meet(&mut reader, &mut writer, &node(&listener)).await {
            Ok(caller) => {
                writer.write(Kind::Answer, 0, Vec::new()).await.unwrap();
                Ok(caller)
            }
            Err(NotMet::Left) => Err("left".to_owned()),
            Err(NotMet::Refused { told, why }) => {
                if let Some(told) = told {
                    writer.write(Kind::Failure, 0, vec![told.into()]).await.unwrap();
                }
                Err(why)
            }
        }
    };
    tokio::join!(call, answer)
}

#[tokio::test]
async fn peers_with_one_secret_meet_and_peers_without_one_do() {
    for secret in [secret(b'x'), None] {
        let (called, met) = shake(identity(1, secret.clone()), identity(2, secret)).await;
        called.unwrap();
        let caller = met.unwrap();
        assert_eq!((caller.hello.from, caller.hello.to, &*caller.group), (1, 2, "the-group"));
        assert_eq!(caller.credentials.segment_bytes, 12_345);
        assert_eq!(caller.credentials.address, "the-host:1");
    }
}

#[tokio::test]
async fn a_secret_that_is_missing_on_one_node_is_named_on_both() {
    let (called, met) = shake(identity(1, None), identity(2, secret(b'x'))).await;
    let (called, met) = (called.unwrap_err(), met.unwrap_err());
    assert!(called.contains("this node has none: set `secret_file`"), "{called}");
    assert!(met.contains("node 1 and has no cluster secret"), "{met}");
    let (called, met) = shake(identity(1, secret(b'x')), identity(2, None)).await;
    let (called, met) = (called.unwrap_err(), met.unwrap_err());
    assert!(called.contains("set `secret_file` in the configuration of that node"), "{called}");
    assert!(met.contains("this node has none"), "{met}");
}

#[tokio::test]
async fn peer_i7_another_secret_or_cluster_proves_nothing() {
    let own = || identity(2, secret(b'x'));
    let other_cluster = Identity { cluster: "another".into(), ..identity(1, secret(b'x')) };
    for caller in [identity(1, secret(b'y')), other_cluster] {
        let (called, met) = shake(caller, own()).await;
        let (called, met) = (called.unwrap_err(), met.unwrap_err());
        assert!(called.contains("does not prove"), "{called}");
        assert!(met.contains("node 1 and left when it was asked for a proof"), "{met}");
    }
}

/// A node says which groups it hosts to who has the secret, and a hello says which one it is for.
#[tokio::test]
async fn port_i1_a_caller_of_another_group_is_known_by_its_name() {
    let other_group = Identity { group: "a-third-group".into(), ..identity(1, secret(b'x')) };
    let (called, met) = shake(other_group, identity(2, secret(b'x'))).await;
    called.unwrap();
    let caller = met.unwrap();
    assert_eq!((&*caller.group, caller.credentials.group.as_str()), ("a-third-group", "a-third-group"));
}

/// What a build says whose nodes host one group, and a listener of such a build.
#[tokio::test]
async fn port_i1_a_hello_without_a_name_is_for_the_first_group() {
    for (group, is_proved) in [("another-group", true), ("the-group", false)] {
        let [(mut r, mut w), (mut reader, mut writer)] = pair();
        let listener = node(&identity(2, secret(b'x')));
        let calling = tokio::spawn(async move {
            let caller = Identity { group: group.into(), ..identity(1, secret(b'x')) };
            introduce(&mut r, &mut w, &introduction(caller, 2), Naming::Unnamed).await
        });
        let met = meet(&mut reader, &mut writer, &listener).await;
        assert_eq!(met.is_ok_and(|caller| &*caller.group == "another-group"), is_proved, "{group}");
        drop((reader, writer));
        drop(calling.await.unwrap());
    }
}

#[tokio::test]
async fn a_listener_that_closes_on_the_name_of_a_group_is_no_error() {
    let [(mut r, mut w), (mut reader, writer)] = pair();
    let caller = introduction(identity(1, secret(b'x')), 2);
    let calling = tokio::spawn(async move { introduce(&mut r, &mut w, &caller, Naming::Named).await });
    assert_eq!(reader.next().await.unwrap().unwrap().kind, Kind::GroupHello);
    drop((reader, writer));
    assert_eq!(calling.await.unwrap().unwrap(), Introduced::Closed);
}

#[tokio::test]
async fn a_name_that_is_longer_than_names_are_is_refused() {
    let hello = Hello { from: 1, to: 2, purpose: Purpose::Requests, nonce: [7; 32], has_secret: false };
    let group = "g".repeat(GROUP_BYTES_MAX + 1);
    let frame = (Kind::GroupHello, codec::encode(&GroupHello { hello, group }).into());
    let (_, met) = say(&identity(2, None), vec![frame]).await;
    assert!(matches!(met, Err(NotMet::Refused { told: None, .. })), "{met:?}");
}

/// Sends whole frames as they are and gives all that comes back.
async fn say(listener: &Identity, frames: Vec<(Kind, Bytes)>) -> (Vec<u8>, Result<Caller, NotMet>) {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let (mut reader, mut writer) = self::frames(near);
    for (kind, body) in frames {
        let mut bytes = ((9 + body.len()) as u32).to_le_bytes().to_vec();
        bytes.push(kind as u8);
        bytes.extend([0; 8]);
        bytes.extend_from_slice(&body);
        far.write_all(&bytes).await.unwrap();
    }
    far.shutdown().await.unwrap();
    let only = NodeIdentity { groups: vec![listener.group.clone()], ..node(listener) };
    let met = meet(&mut reader, &mut writer, &only).await;
    if let Err(NotMet::Refused { told: Some(told), .. }) = &met {
        writer.write(Kind::Failure, 0, vec![Bytes::from_static(told.as_bytes())]).await.unwrap();
    }
    writer.finish().await.unwrap();
    drop((reader, writer));
    let mut heard = Vec::new();
    far.read_to_end(&mut heard).await.unwrap();
    (heard, met)
}

fn hello(has_secret: bool) -> (Kind, Bytes) {
    let hello = Hello { from: 1, to: 2, purpose: Purpose::Requests, nonce: [7; 32], has_secret };
    (Kind::Hello, codec::encode(&hello).into())
}

/// The refusals told a caller cluster, group, id and segment size one after the other: its fourth hello passed.
#[tokio::test]
async fn peer_i7_a_caller_without_the_secret_was_told_cluster_group_and_segment_size() {
    let listener = identity(2, secret(b'x'));
    let credentials = |proof: &[u8]| {
        let said = Credentials {
            cluster: "the-cluster".into(),
            group: "the-group".into(),
            segment_bytes: 12_345,
            group_id: None,
            address: String::new(),
            supports: 1,
            uses: 1,
            more: Vec::new(),
        };
        (Kind::Credentials, Bytes::from([proof, &codec::encode(&said)].concat()))
    };
    for frames in [
        vec![hello(false)],
        vec![hello(true)],
        vec![hello(true), credentials(&[0; 32])],
        vec![hello(true), (Kind::Summary, Bytes::new())],
        vec![hello(true), (Kind::Credentials, Bytes::from_static(b"short"))],
        vec![(Kind::Summary, Bytes::new())],
    ] {
        let (heard, met) = say(&listener, frames).await;
        assert!(met.is_err());
        let heard = String::from_utf8_lossy(&heard);
        for told in ["the-cluster", "the-group", "12345", "the-host", "\u{39}\u{30}\0\0"] {
            assert!(!heard.contains(told), "{heard:?}");
        }
    }
}

#[tokio::test]
async fn a_port_that_was_looked_at_is_no_refusal() {
    let (heard, met) = say(&identity(2, secret(b'x')), Vec::new()).await;
    assert!(heard.is_empty() && matches!(met, Err(NotMet::Left)), "{met:?}");
}

/// The caller's half of a whole handshake, recorded, and played again.
#[tokio::test]
async fn peer_i7_a_recorded_handshake_does_not_pass_again() {
    let (listener, caller) = (identity(2, secret(b'x')), introduction(identity(1, secret(b'x')), 2));
    let hello = caller.hello([7; 32]);
    let own = caller.identity();
    let transcript = |listener: Nonce| Transcript {
        secret: own.secret.as_ref(),
        cluster: &own.cluster,
        group: &own.group,
        hello: &hello,
        listener,
    };
    let said = codec::encode(&caller.credentials());
    let recorded = |nonce| {
        let proof = transcript(nonce).prove(CALLER, &said);
        let credentials = Bytes::from([&proof[..], &said].concat());
        vec![(Kind::Hello, Bytes::from(codec::encode(&hello))), (Kind::Credentials, credentials)]
    };
    // Of a connection on which the listener had another nonce.
    let (_, met) = say(&listener, recorded([9; 32])).await;
    assert!(matches!(met, Err(NotMet::Refused { told: Some(REFUSED), .. })), "{met:?}");
    // The listener's own proof is none of the caller.
    let reflected = transcript([9; 32]).prove(LISTENER, &[]);
    assert!(!transcript([9; 32]).is_proved(CALLER, &[], &reflected));
    assert!(transcript([9; 32]).is_proved(LISTENER, &[], &reflected));
}

/// A listener without the secret learns two ids and the group's name, and is sent nothing after its challenge.
#[tokio::test]
async fn peer_i7_a_fake_listener_is_told_nothing() {
    let [(mut r, mut w), (mut reader, mut writer)] = pair();
    let caller = introduction(identity(1, secret(b'x')), 2);
    let calling = tokio::spawn(async move { introduce(&mut r, &mut w, &caller, Naming::Named).await });
    let hello = reader.next().await.unwrap().unwrap();
    assert_eq!(codec::decode::<GroupHello>(&hello.body).unwrap().hello.from, 1);
    let challenge = Challenge { nonce: [1; 32], proof: [2; 32] };
    writer.write(Kind::Challenge, 0, vec![codec::encode(&challenge).into()]).await.unwrap();
    let refused = calling.await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert!(reader.next().await.unwrap().is_none(), "nothing more came");
}

#[tokio::test]
async fn a_frame_before_the_proof_is_small() {
    let (_, met) =
        say(&identity(2, None), vec![(Kind::Hello, vec![0; STRANGER_FRAME_BYTES_MAX].into())]).await;
    assert!(matches!(met, Err(NotMet::Refused { told: None, .. })), "{met:?}");
}

#[test]
fn an_open_port_without_a_secret_is_said() {
    let at = |address: [u8; 4]| (address, 10_915).into();
    assert!(is_open(false, at([0, 0, 0, 0])) && is_open(false, at([10, 0, 0, 1])));
    assert!(!is_open(false, at([127, 0, 0, 1])) && !is_open(true, at([0, 0, 0, 0])));
}

/// Both sides' work on one connection, without the network: what a failover pays for each connection that it makes.
#[tokio::test]
async fn a_handshake_costs_microseconds() {
    let rounds = 200;
    for secret in [None, secret(b'x')] {
        let mut took = Vec::new();
        for _ in 0..rounds {
            let begun = std::time::Instant::now();
            let (called, met) = shake(identity(1, secret.clone()), identity(2, secret.clone())).await;
            called.unwrap();
            drop(met.unwrap());
            took.push(begun.elapsed());
        }
        took.sort();
        // On a busy machine some wait for their turn.
        let median = took[rounds / 2];
        println!("with a secret: {}, {median:?} a handshake", secret.is_some());
        assert!(median < Duration::from_millis(5), "{median:?}");
    }
}
