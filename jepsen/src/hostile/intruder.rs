//! A connection to the Raft port, introduced as well as one can who does not have the cluster's secret.
//!
//! He knows cluster, group, segment size and ids, which are no secrets. Where peers are asked for a proof he has none that is
//! right; where they are not, he is taken for a member, and says what he wants.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ask;
use super::forge::{self, Credentials, Hello, PROOF_BYTES, Proof};
use super::lane::{dial, push};
use super::site::Site;

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Segments of the cluster.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Answers of the Raft port are counted from here on, less their kind.
const PEER_CODES: i32 = -100_000;

/// What stands where a proof should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forgery {
    /// "I have no secret."
    NoSecret,
    /// Zeroes, as where nobody has a secret.
    Zeroes,
    /// The listener's own proof, sent back.
    Reflected,
    /// The listener's number.
    Nonce,
}

impl Forgery {
    pub(super) const ALL: [Self; 4] = [Self::NoSecret, Self::Zeroes, Self::Reflected, Self::Nonce];
}

/// How he introduces himself.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) hello: Hello,
    pub(super) credentials: Credentials,
    pub(super) forgery: Forgery,
}

impl Claim {
    /// Node `from`, to node `to`.
    pub(super) fn of(from: u64, to: u64, forgery: Forgery) -> Self {
        let credentials = Credentials {
            cluster: "jepsen".to_owned(),
            group: ask::BROKER.to_owned(),
            segment_bytes: SEGMENT_BYTES,
            group_id: None,
        };
        let has_secret = forgery != Forgery::NoSecret;
        Self { hello: Hello { from, to, requests: true, has_secret }, credentials, forgery }
    }
}

/// The first frames that an intruder may try at this node, in the name of each other member.
pub(super) fn first_frames(site: &Site, target: u32) -> Vec<Bytes> {
    let nodes = site.nodes().len() as u64;
    let to = u64::from(target) % nodes + 1;
    let others = (1..=nodes).filter(|from| *from != to);
    let claims = others.flat_map(|from| Forgery::ALL.map(|forgery| Claim::of(from, to, forgery)));
    claims.map(|claim| forge::hello(&claim.hello)).collect()
}

/// A connection that was taken for a member's.
pub(super) struct Intruder<'a> {
    site: &'a Site,
    pub(super) stream: TcpStream,
    pub(super) from: u64,
    next: u64,
}

impl<'a> Intruder<'a> {
    /// Connects and introduces itself; what it was refused with, if it was.
    pub(super) async fn greet(
        site: &'a Site,
        target: u32,
        claim: &Claim,
    ) -> io::Result<Result<Self, String>> {
        let address = &site.nodes()[target as usize % site.nodes().len()].raft;
        let stream = dial(site, address, None).await?;
        let mut peer = Self { site, stream, from: claim.hello.from, next: 1 };
        let (kind, challenge) = peer.ask(&forge::hello(&claim.hello)).await?;
        if kind != forge::CHALLENGE {
            return Ok(Err(text(&challenge)));
        }
        let (nonce, own) = forge::challenge(&challenge).ok_or(io::ErrorKind::InvalidData)?;
        let proof: Proof = match claim.forgery {
            Forgery::NoSecret | Forgery::Zeroes => [0; PROOF_BYTES],
            Forgery::Reflected => own,
            Forgery::Nonce => nonce,
        };
        match peer.ask(&forge::credentials(&proof, &claim.credentials)).await? {
            (forge::ANSWER, _) => Ok(Ok(peer)),
            (_, told) => Ok(Err(text(&told))),
        }
    }

    /// The same in the name of another member, by each forgery, with the group's id if a refusal tells it.
    pub(super) async fn member(site: &'a Site, target: u32) -> io::Result<Option<Self>> {
        let to = u64::from(target) + 1;
        let from = to % site.nodes().len() as u64 + 1;
        for forgery in Forgery::ALL {
            let mut claim = Claim::of(from, to, forgery);
            claim.credentials.group_id = Some([0, 0]);
            let told = match Self::greet(site, target, &claim).await {
                Ok(Ok(peer)) => return Ok(Some(taken(peer))),
                Ok(Err(told)) => told,
                Err(error) if is_refusal(&error) => continue,
                Err(error) => return Err(error),
            };
            let Some(id) = forge::told_group_id(&told) else { continue };
            site.tally().note("group id told");
            claim.credentials.group_id = Some(id);
            if let Ok(peer) = Self::greet(site, target, &claim).await? {
                return Ok(Some(taken(peer)));
            }
        }
        site.tally().note("not taken for a member");
        Ok(None)
    }

    /// Writes a frame and reads one; the connection's end is an error.
    pub(super) async fn ask(&mut self, frame: &[u8]) -> io::Result<(u8, BytesMut)> {
        push(self.site, &mut self.stream, frame).await?;
        let answer = timeout(ANSWER_TIMEOUT, read_frame(&mut self.stream)).await;
        let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match answer {
            Ok((kind, body)) => {
                self.site.tally().answer(PEER_CODES - i32::from(kind));
                Ok((kind, body))
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::TimedOut {
                    self.site.tally().close();
                }
                Err(error)
            }
        }
    }

    pub(super) fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

fn taken(peer: Intruder<'_>) -> Intruder<'_> {
    peer.site.tally().note("taken for a member");
    peer
}

fn text(told: &[u8]) -> String {
    String::from_utf8_lossy(told).into_owned()
}

/// Whether the node closed without a word.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

pub(super) async fn read_frame(stream: &mut TcpStream) -> io::Result<(u8, BytesMut)> {
    let length = stream.read_u32_le().await? as usize;
    if length > ANSWER_BYTES_MAX {
        return Err(io::Error::other("an answer too large to look at"));
    }
    let mut frame = BytesMut::zeroed(length);
    stream.read_exact(&mut frame).await?;
    let (kind, body) = forge::parse(&frame).ok_or(io::ErrorKind::InvalidData)?;
    Ok((kind, BytesMut::from(body)))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    fn site(raft: String) -> Site {
        let mut addresses = crate::addresses::Addresses::of(20_000, 1);
        addresses.raft = raft;
        Site::new(vec![addresses; 3], 0, "t", Duration::from_secs(20), 1)
    }

    fn challenge() -> Bytes {
        forge::frame(forge::CHALLENGE, 0, &[&b"FQ\x01\x00"[..], &[7; 32], &[9; 32]].concat())
    }

    /// Answers each connection in turn with these, one for each frame that comes; returns the last frames.
    async fn answer(listener: TcpListener, answers: Vec<Vec<Bytes>>) -> Vec<BytesMut> {
        let mut last = Vec::new();
        for answers in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = BytesMut::new();
            for answer in answers {
                heard = read_frame(&mut stream).await.unwrap().1;
                stream.write_all(&answer).await.unwrap();
            }
            last.push(heard);
        }
        last
    }

    #[tokio::test]
    async fn a_refusal_that_tells_the_group_lets_the_next_one_pass() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = site(listener.local_addr().unwrap().to_string());
        let told = b"this node belongs to the group with id 00000000000000010000000000000002, the peer not";
        let refused = vec![challenge(), forge::frame(forge::FAILURE, 0, told)];
        let taken = vec![challenge(), forge::frame(forge::ANSWER, 0, b"")];
        let server = tokio::spawn(answer(listener, vec![refused, taken]));
        assert!(Intruder::member(&site, 0).await.unwrap().is_some());
        server.await.unwrap();
        let done = site.tally().done();
        assert_eq!((done.opened, done.frames, done.heard()), (2, 4, 4));
        assert_eq!(done.notes.get("taken for a member"), Some(&1));
    }

    #[tokio::test]
    async fn each_forgery_is_tried_before_it_gives_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = site(listener.local_addr().unwrap().to_string());
        let refused = || forge::frame(forge::FAILURE, 0, b"refused");
        let answers = vec![
            vec![refused()],
            vec![challenge(), refused()],
            vec![challenge(), refused()],
            vec![challenge(), refused()],
        ];
        let server = tokio::spawn(answer(listener, answers));
        assert!(Intruder::member(&site, 0).await.unwrap().is_none());
        let last = server.await.unwrap();
        assert_eq!(last[1][..32], [0; 32]);
        assert_eq!(last[2][..32], [9; 32]);
        assert_eq!(last[3][..32], [7; 32]);
        assert_eq!(site.tally().done().notes.get("not taken for a member"), Some(&1));
    }

    #[test]
    fn first_frames_are_in_the_name_of_each_other_member() {
        let site = site("127.0.0.1:1".to_owned());
        assert_eq!(first_frames(&site, 0).len(), 8);
    }
}
