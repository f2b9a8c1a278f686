//! The leader's question what the client of an earlier send knows: to its own connections, and to the other nodes.
//!
//! The question, after the kind byte (see `peers.rs`), big-endian:
//!
//! | part | bytes | meaning |
//! |---|---|---|
//! | flags | 1 | 1: the repeat came by the same connection, 2: the number is known, 4: the position is |
//! | client | 7 or 19 | the client's end, as in `client_address.rs` |
//! | number, position | 8 + 8 | of the send in its connection, of its message in the log |
//! | sent, repeated | 8 + 8 | milliseconds since both were taken |
//! | body | 8 + 4 | length and checksum |
//! | topic | 2 + n | |
//! | key | rest | `UNIQ_KEY` |
//!
//! The answer is one byte: 0 settled, 1 doubtful, 2 not known here.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use folio_raft::proposal::{Known, Knows, Question};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::client_address::{put_client, take_client};
use crate::peers;

/// A node that does not answer within this time counts as gone: clients wait for the answer to the repeat.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// A client that closes one connection and repeats by another may be heard on the second first, above all by a node that
/// did not run for a while. A connection lives if it does after this time, too.
pub const CLOSE_DELAY: Duration = Duration::from_millis(20);

const SAME_CONNECTION: u8 = 1;
const NUMBER: u8 = 2;
const POSITION: u8 = 4;

/// What the client of an earlier send knows; the other nodes are asked if it is not this one's.
pub fn knows(broker: &Arc<Broker>, question: Question) -> Known {
    if is_abandoned(broker, &question) {
        return Known::Now(Knows::Doubtful);
    }
    match broker.sends.knows(&question) {
        Knows::Doubtful => Known::Now(Knows::Doubtful),
        Knows::Settled if question.same_connection => Known::Now(Knows::Settled),
        Knows::Gone if broker.other_members().is_empty() => Known::Now(Knows::Gone),
        _ => Known::Later(Box::pin(ask(broker.clone(), question))),
    }
}

/// Whether nobody waits for the answer to the repeat: then the first one may be the retry of it, which was overtaken.
fn is_abandoned(broker: &Broker, question: &Question) -> bool {
    question.repeat.is_some_and(|client| broker.sends.is_gone(client))
}

/// Answers another node's question.
pub(crate) async fn serve(broker: &Broker, question: Bytes) -> Bytes {
    let Some(question) = decode(question) else {
        tracing::error!("a question for an earlier send does not decode: do all nodes run one version?");
        return Bytes::new();
    };
    let answer: &'static [u8] = match look(broker, &question).await {
        Knows::Settled => &[0],
        Knows::Doubtful => &[1],
        Knows::Gone => &[2],
    };
    Bytes::from_static(answer)
}

async fn ask(broker: Arc<Broker>, question: Question) -> Knows {
    let knows = ask_all(&broker, &question).await;
    if is_abandoned(&broker, &question) { Knows::Doubtful } else { knows }
}

async fn ask_all(broker: &Arc<Broker>, question: &Question) -> Knows {
    let here = look(broker, question).await;
    if here != Knows::Gone {
        return here;
    }
    let request = encode(question);
    let mut answers = JoinSet::new();
    for node in broker.other_members() {
        let (group, request) = (broker.group.clone(), request.clone());
        answers.spawn(async move { group.call(node, request, ANSWER_TIMEOUT).await });
    }
    // One node has the connection, if it lives.
    while let Some(Ok(answer)) = answers.join_next().await {
        match answer.as_deref() {
            Ok([0]) => return Knows::Settled,
            Ok([1]) => return Knows::Doubtful,
            Ok(_) => {}
            Err(error) => tracing::debug!("nobody knows of an earlier send: {error}"),
        }
    }
    Knows::Gone
}

async fn look(broker: &Broker, question: &Question) -> Knows {
    let here = broker.sends.knows(question);
    if here != Knows::Settled || question.same_connection {
        return here;
    }
    tokio::time::sleep(CLOSE_DELAY).await;
    broker.sends.knows(question)
}

fn encode(question: &Question) -> Bytes {
    let mut out = BytesMut::with_capacity(96 + question.topic.len() + question.key.len());
    let flag = |flag: u8, is_set: bool| if is_set { flag } else { 0 };
    let ago = |at: Instant| at.elapsed().as_millis() as u64;
    out.put_u8(peers::KNOWS);
    out.put_u8(
        flag(SAME_CONNECTION, question.same_connection)
            | flag(NUMBER, question.number.is_some())
            | flag(POSITION, question.position.is_some()),
    );
    put_client(&mut out, question.client);
    out.put_u64(question.number.unwrap_or(0));
    out.put_u64(question.position.unwrap_or(0));
    out.put_u64(ago(question.sent_by));
    out.put_u64(ago(question.repeated));
    out.put_u64(question.body_bytes as u64);
    out.put_u32(question.body_crc);
    // A topic's name is far shorter.
    out.put_u16(question.topic.len() as u16);
    out.put_slice(question.topic.as_bytes());
    out.put_slice(&question.key);
    out.freeze()
}

/// Everything after the kind byte.
fn decode(mut bytes: Bytes) -> Option<Question> {
    let flags = bytes.try_get_u8().ok()?;
    let client = take_client(&mut bytes)?;
    let (number, position) = (bytes.try_get_u64().ok()?, bytes.try_get_u64().ok()?);
    let sent_by = before(bytes.try_get_u64().ok()?)?;
    let repeated = before(bytes.try_get_u64().ok()?)?;
    let body_bytes = usize::try_from(bytes.try_get_u64().ok()?).ok()?;
    let body_crc = bytes.try_get_u32().ok()?;
    let topic_bytes = usize::from(bytes.try_get_u16().ok()?);
    if bytes.len() < topic_bytes {
        return None;
    }
    let topic = bytes.split_to(topic_bytes);
    Some(Question {
        client,
        same_connection: flags & SAME_CONNECTION != 0,
        number: (flags & NUMBER != 0).then_some(number),
        position: (flags & POSITION != 0).then_some(position),
        topic: std::str::from_utf8(&topic).ok()?.into(),
        key: bytes,
        body_bytes,
        body_crc,
        sent_by,
        repeated,
        repeat: None,
    })
}

fn before(ms: u64) -> Option<Instant> {
    Instant::now().checked_sub(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            client: ([10, 1, 2, 3], 4_567).into(),
            same_connection: true,
            number: Some(7),
            position: None,
            topic: "orders".into(),
            key: Bytes::from_static(b"KEY"),
            body_bytes: 5,
            body_crc: 0x1234_5678,
            sent_by: Instant::now(),
            repeated: Instant::now(),
            repeat: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_comes_as_it_was_asked() {
        tokio::time::advance(Duration::from_secs(5)).await;
        let by_place = Question {
            client: "[2001:db8::1]:99".parse().unwrap(),
            same_connection: false,
            number: None,
            position: Some(9),
            sent_by: Instant::now() - Duration::from_millis(1_200),
            ..question()
        };
        for question in [question(), by_place] {
            let mut bytes = encode(&question);
            assert_eq!(bytes.get_u8(), peers::KNOWS);
            assert_eq!(decode(bytes), Some(question));
        }
    }

    #[test]
    fn a_question_that_is_cut_is_refused() {
        let mut whole = encode(&question());
        whole.advance(1);
        let shortest = whole.len() - question().key.len();
        assert!((0..shortest).all(|cut| decode(whole.slice(..cut)).is_none()));
    }
}
