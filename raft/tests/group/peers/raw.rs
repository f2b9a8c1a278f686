//! A peer by hand: says over a socket what a node would say, and what none would. Written from the tables of the transport's
//! modules, byte by byte, so that it shares nothing with what it tests.

use std::io;

use folio_raft::secret::ClusterSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cluster::PATIENCE;

pub(crate) const HELLO: u8 = 1;
pub(crate) const APPEND: u8 = 2;
pub(crate) const VOTE: u8 = 3;
pub(crate) const PRE_VOTE: u8 = 4;
pub(crate) const TRANSFER: u8 = 5;
pub(crate) const CALL: u8 = 7;
pub(crate) const CHALLENGE: u8 = 15;
pub(crate) const CREDENTIALS: u8 = 16;
pub(crate) const GROUP_HELLO: u8 = 17;
pub(crate) const ANSWER: u8 = 100;
pub(crate) const FAILURE: u8 = 101;

/// An encoded value's first bytes.
const ENVELOPE: &[u8] = b"FQ\x01\0";

/// Fields of a value, one behind the other.
#[derive(Clone, Default)]
pub(crate) struct Value(pub(crate) Vec<u8>);

impl Value {
    pub(crate) fn new() -> Value {
        Value(ENVELOPE.to_vec())
    }

    pub(crate) fn number(mut self, number: u64) -> Value {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(crate) fn byte(mut self, byte: u8) -> Value {
        self.0.push(byte);
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Value {
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(self, text: &str) -> Value {
        self.number(text.len() as u64).bytes(text.as_bytes())
    }

    pub(crate) fn vote(self, (term, node, committed): (u64, u64, bool)) -> Value {
        self.number(term).number(node).byte(committed.into())
    }

    pub(crate) fn id(self, id: Option<(u64, u64)>) -> Value {
        match id {
            Some((term, index)) => self.byte(1).number(term).number(index),
            None => self.byte(0),
        }
    }
}

/// What a caller says of itself.
#[derive(Clone)]
pub(crate) struct Says {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) cluster: String,
    pub(crate) group: String,
    pub(crate) segment_bytes: u64,
    /// 32 hex digits.
    pub(crate) group_id: Option<String>,
    pub(crate) secret: Option<ClusterSecret>,
    pub(crate) nonce: [u8; 32],
    /// The feature levels that its build supports, up to this one, and the one that its group uses.
    pub(crate) levels: [u16; 2],
}

impl Says {
    pub(crate) fn hello(&self) -> Vec<u8> {
        // Purpose 1: requests.
        let ids = Value::new().number(self.from).number(self.to).bytes(&1_u32.to_le_bytes());
        ids.bytes(&self.nonce).byte(self.secret.is_some().into()).0
    }

    fn transcript(&self, domain: &str, listener: &[u8], said: &[u8], secret: &ClusterSecret) -> [u8; 32] {
        let parts: [&[u8]; 8] = [
            &self.nonce,
            listener,
            &self.from.to_le_bytes(),
            &self.to.to_le_bytes(),
            self.cluster.as_bytes(),
            self.group.as_bytes(),
            b"requests",
            said,
        ];
        secret.prove(domain, &parts)
    }

    /// The second frame, for a listener with that nonce.
    pub(crate) fn credentials(&self, listener: &[u8]) -> Vec<u8> {
        let said = Value::new().text(&self.cluster).text(&self.group).number(self.segment_bytes);
        let said = match &self.group_id {
            Some(digits) => {
                let half = |at: usize| u64::from_str_radix(&digits[at..at + 16], 16).unwrap();
                said.byte(1).number(half(0)).number(half(16))
            }
            None => said.byte(0),
        };
        let [supports, uses] = self.levels.map(u16::to_le_bytes);
        // And nothing more.
        let said = said.text("").bytes(&supports).bytes(&uses).text("").0;
        let proof = self
            .secret
            .as_ref()
            .map_or([0; 32], |secret| self.transcript("folio peers 1: caller", listener, &said, secret));
        [&proof[..], &said].concat()
    }

    /// Whether a challenge shows that its maker has this caller's secret.
    pub(crate) fn is_proved(&self, challenge: &[u8]) -> bool {
        let (nonce, proof) = challenge[ENVELOPE.len()..].split_at(32);
        let secret = self.secret.as_ref().unwrap();
        self.transcript("folio peers 1: listener", nonce, &[], secret) == proof
    }
}

/// A connection to a node's Raft port.
pub(crate) struct RawPeer(TcpStream);

impl RawPeer {
    pub(crate) async fn connect(address: &str) -> RawPeer {
        RawPeer(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) async fn send(&mut self, kind: u8, body: &[u8]) {
        let mut frame = ((9 + body.len()) as u32).to_le_bytes().to_vec();
        frame.push(kind);
        frame.extend(7_u64.to_le_bytes());
        frame.extend_from_slice(body);
        self.0.write_all(&frame).await.unwrap();
    }

    /// The next frame's kind and body; an error when the node has closed.
    pub(crate) async fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        timeout(PATIENCE, async {
            let length = self.0.read_u32_le().await? as usize;
            let mut frame = vec![0; length];
            self.0.read_exact(&mut frame).await?;
            Ok((frame[0], frame.split_off(9)))
        })
        .await
        .expect("an answer in time")
    }

    /// All that the node still sends until it closes.
    pub(crate) async fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("closed in time");
        rest
    }

    /// A handshake that names no group, as earlier builds begin it; the node's last word.
    pub(crate) async fn introduce(&mut self, says: &Says) -> io::Result<(u8, Vec<u8>)> {
        self.send(HELLO, &says.hello()).await;
        self.prove(says).await
    }

    /// The same with the group's name.
    pub(crate) async fn introduce_named(&mut self, says: &Says) -> io::Result<(u8, Vec<u8>)> {
        self.send(GROUP_HELLO, &Value(says.hello()).text(&says.group).0).await;
        self.prove(says).await
    }

    async fn prove(&mut self, says: &Says) -> io::Result<(u8, Vec<u8>)> {
        let (kind, challenge) = self.receive().await?;
        if kind != CHALLENGE {
            return Ok((kind, challenge));
        }
        self.send(CREDENTIALS, &says.credentials(&challenge[ENVELOPE.len()..][..32])).await;
        self.receive().await
    }

    /// A connection that was let in.
    pub(crate) async fn admitted(address: &str, says: &Says) -> RawPeer {
        let mut peer = RawPeer::connect(address).await;
        let (kind, body) = peer.introduce(says).await.unwrap();
        assert_eq!(kind, ANSWER, "{}", String::from_utf8_lossy(&body));
        peer
    }

    /// One request and its answer.
    pub(crate) async fn ask(&mut self, kind: u8, body: &[u8]) -> (u8, Vec<u8>) {
        self.send(kind, body).await;
        self.receive().await.unwrap()
    }

    /// One request that has to be refused, and why it was.
    pub(crate) async fn refused(&mut self, kind: u8, body: &[u8]) -> String {
        let (answer, body) = self.ask(kind, body).await;
        let text = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(answer, FAILURE, "request {kind} was taken: {text:?}");
        text
    }
}
