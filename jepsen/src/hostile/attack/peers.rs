//! Forged peers: who is taken for a member asks what only a member may ask.
//!
//! Each connection tries what [`Intruder::member`] can without the cluster's secret. Where peers have to prove that they have
//! it, all of these end there; run against a cluster without one, they show what it is for.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::Attack;
use crate::client::Client;
use crate::hostile::forge::{self, EntryId, Vote};
use crate::hostile::intruder::{Claim, Forgery, Intruder, read_frame};
use crate::hostile::lane::repeat;
use crate::hostile::site::Site;
use crate::hostile::tally::Floor;
use crate::nemesis::Doing;
use crate::status::{self, Status};

/// By how much a forged term exceeds the real one.
const TERMS_AHEAD: u64 = 1000;

pub(super) fn all() -> Vec<Box<dyn Attack>> {
    let forged = |name, about, act| -> Box<dyn Attack> { Box::new(Forged { name, about, act }) };
    vec![
        forged(
            "peer-hello",
            "hellos and credentials with each part wrong in turn, and what a refusal tells",
            Act::Hello,
        ),
        forged("peer-calls", "garbage and giant bodies in each kind of request between peers", Act::Calls),
        forged("peer-votes", "forged votes and pre-votes, each in a term above the last one", Act::Votes),
        forged(
            "peer-acknowledged",
            "heartbeats of a forged leader that remembers entries no node has",
            Act::Acknowledged,
        ),
        forged("peer-command", "a forged leader that appends a command no node can apply", Act::Command),
        forged("peer-term", "a vote in the last term there is", Act::Term),
    ]
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Hello,
    Calls,
    Votes,
    Acknowledged,
    Command,
    Term,
}

struct Forged {
    name: &'static str,
    about: &'static str,
    act: Act,
}

impl Attack for Forged {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn floor(&self) -> Floor {
        Floor { opened: 6, frames: 6, bytes: 0, heard: 3 }
    }

    fn run<'a>(&'a self, site: &'a Site) -> Doing<'a, ()> {
        Box::pin(async move {
            let act = self.act;
            repeat(site, 3, move |site, target, round| async move {
                let done = match act {
                    Act::Hello => hellos(&site, target).await,
                    Act::Calls => calls(&site, target, round).await,
                    Act::Votes => votes(&site, target, round).await,
                    Act::Acknowledged => acknowledged(&site, target).await,
                    Act::Command => command(&site, target).await,
                    Act::Term => last_term(&site, target).await,
                };
                if let Err(error) = done {
                    tracing::debug!(target, %error, "a forged peer");
                }
                site.pause(Duration::from_millis(30)).await;
            })
            .await;
            Ok(())
        })
    }
}

async fn hellos(site: &Site, target: u32) -> io::Result<()> {
    let to = u64::from(target) + 1;
    let right = Claim::of(to % 3 + 1, to, Forgery::Zeroes);
    let said = |change: fn(&mut Claim)| {
        let mut claim = right.clone();
        change(&mut claim);
        claim
    };
    let wrong = [
        said(|claim| claim.credentials.cluster = "x".to_owned()),
        said(|claim| claim.credentials.group = "x".repeat(1 << 16)),
        said(|claim| claim.credentials.segment_bytes = u64::MAX),
        said(|claim| claim.credentials.group_id = Some([u64::MAX; 2])),
        said(|claim| claim.hello.to = u64::MAX),
        said(|claim| claim.hello.from = u64::MAX),
        said(|claim| claim.hello.from = claim.hello.to),
        said(|claim| claim.hello.requests = false),
        said(|claim| claim.hello.has_secret = false),
        said(|claim| claim.forgery = Forgery::Reflected),
        right,
    ];
    for claim in wrong {
        match Intruder::greet(site, target, &claim).await {
            Ok(Err(told)) if !told.is_empty() => site.tally().note("refusals with a sentence"),
            Ok(Err(_)) => site.tally().note("refusals without a sentence"),
            Ok(Ok(_)) => site.tally().note("taken for a member"),
            Err(_) => site.tally().note("hellos not answered"),
        }
    }
    Ok(())
}

async fn calls(site: &Site, target: u32, round: u64) -> io::Result<()> {
    const KINDS: [u8; 13] = [
        forge::APPEND,
        forge::VOTE,
        forge::PRE_VOTE,
        forge::TRANSFER,
        forge::SNAPSHOT,
        forge::CALL,
        forge::SUMMARY,
        forge::RECORD,
        forge::ALL_EMPTY,
        forge::SNAPSHOT_PART,
        forge::STORED_SNAPSHOT,
        forge::FENCE,
        forge::ANSWER,
    ];
    let Some(mut peer) = Intruder::member(site, target).await? else { return Ok(()) };
    let garbage = vec![0xff; 300];
    let giant = vec![b'{'; 4 << 20];
    let bodies: [&[u8]; 5] =
        [b"", b"FQ\x01\x00", b"FQ\x01\x00\xff\xff\xff\xff\xff\xff\xff\x7f", &garbage, &giant];
    for (number, kind) in KINDS.iter().enumerate() {
        let body = bodies[(number + round as usize) % bodies.len()];
        let id = peer.id();
        // One that ends the connection must not keep the others from being asked.
        if peer.ask(&forge::frame(*kind, id, body)).await.is_err() {
            match Intruder::member(site, target).await? {
                Some(again) => peer = again,
                None => return Ok(()),
            }
        }
    }
    Ok(())
}

/// What the node itself tells every client.
async fn status_of(site: &Site, target: u32) -> io::Result<Status> {
    told(&Client::new(Vec::new(), "hostile-status"), site, target).await
}

async fn told(client: &Client, site: &Site, target: u32) -> io::Result<Status> {
    status::ask(client, site.broker(target as usize)).await.map_err(io::Error::other)
}

async fn votes(site: &Site, target: u32, round: u64) -> io::Result<()> {
    let Some(mut peer) = Intruder::member(site, target).await? else { return Ok(()) };
    let term = status_of(site, target).await?.term + 1 + round % 3;
    let last = Some(EntryId { term, index: u64::MAX / 2 });
    for kind in [forge::PRE_VOTE, forge::VOTE] {
        let (id, vote) = (peer.id(), Vote { term, node: peer.from, elected: false });
        let (kind, answer) = peer.ask(&forge::vote(kind, id, vote, last, kind == forge::VOTE)).await?;
        // Behind the envelope: term, node, elected; then whether it was granted.
        if kind == forge::ANSWER && answer.get(4 + 17) == Some(&1) {
            site.tally().note("votes granted");
        }
    }
    Ok(())
}

async fn last_term(site: &Site, target: u32) -> io::Result<()> {
    let Some(mut peer) = Intruder::member(site, target).await? else { return Ok(()) };
    for term in [u64::MAX - 1, u64::MAX] {
        let last = Some(EntryId { term, index: u64::MAX });
        let (id, vote) = (peer.id(), Vote { term, node: peer.from, elected: false });
        peer.ask(&forge::vote(forge::VOTE, id, vote, last, true)).await?;
        let id = peer.id();
        let leader = Vote { elected: true, ..vote };
        peer.ask(&forge::append(id, leader, None, None, b"")).await?;
    }
    Ok(())
}

async fn acknowledged(site: &Site, target: u32) -> io::Result<()> {
    let Some(mut peer) = Intruder::member(site, target).await? else { return Ok(()) };
    let status = status_of(site, target).await?;
    let remembered = Some(EntryId { term: status.term, index: status.applied + 1_000_000 });
    for term in [status.term, status.term + 1] {
        let leader = Vote { term, node: peer.from, elected: true };
        let id = peer.id();
        let prev = Some(EntryId { term: status.term, index: status.applied });
        peer.ask(&forge::append(id, leader, prev, remembered, b"")).await?;
    }
    Ok(())
}

/// Stops the log with a vote, learns where it ends, and appends as the leader of that vote.
async fn command(site: &Site, target: u32) -> io::Result<()> {
    let Some(mut peer) = Intruder::member(site, target).await? else { return Ok(()) };
    let client = Client::new(Vec::new(), "hostile-status");
    let mut ends = vec![told(&client, site, target).await?];
    let term = ends[0].term + TERMS_AHEAD;
    let vote = Vote { term, node: peer.from, elected: false };
    let last = Some(EntryId { term, index: u64::MAX / 2 });
    let id = peer.id();
    peer.stream.write_all(&forge::vote(forge::VOTE, id, vote, last, true)).await?;
    site.tally().frame(0);
    // Where each entry ends, until there is no new one: the last two tell where the last one lies.
    for _ in 0..300 {
        let status = told(&client, site, target).await?;
        if ends.last().is_none_or(|last| last.applied != status.applied) {
            ends.push(status);
        }
    }
    drop(read_frame(&mut peer.stream).await);
    let found = ends.windows(2).rev().find(|pair| pair[1].applied == pair[0].applied + 1);
    let Some([before, last]) = found.and_then(|pair| pair.first_chunk()) else {
        site.tally().note("end of the log not found");
        return Ok(());
    };
    let id = peer.id();
    let record = forge::record_request(id, last.applied, before.applied_position);
    let (kind, record) = peer.ask(&record).await?;
    let Some(crc) = forge::header_crc(&record).filter(|_| kind == forge::ANSWER) else {
        site.tally().note("last record not told");
        return Ok(());
    };
    site.tally().note("last record told");
    let entry_term = record.get(16..24).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    let entry = EntryId { term, index: last.applied + 1 };
    let garbage = forge::command(entry, last.applied_position, crc, b"FQ\x01\x00\xff\xff\xff\xffgarbage");
    let prev = Some(EntryId { term: entry_term, index: last.applied });
    let id = peer.id();
    let leader = Vote { elected: true, ..vote };
    peer.ask(&forge::append(id, leader, prev, None, &garbage)).await?;
    site.tally().note("commands appended");
    // With a heartbeat it is committed.
    let id = peer.id();
    peer.ask(&forge::append(id, leader, Some(entry), None, b"")).await.map(drop)
}
