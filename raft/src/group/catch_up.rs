//! When a node that lost acknowledged records, or forgot votes, takes part again.
//!
//! Such a node (its disk was replaced, records rotted, or a power cut took what asynchronous flushing had not synced) once
//! helped to commit entries that it does not hold any more, and may have promised its vote to a candidate that nobody else
//! remembers. Nothing it could learn by asking others once is a promise for later: a node that is silent now may be that
//! candidate, and one that has answered may vote for it a moment later. So it asks the leader for a **fence**.
//!
//! **The fence.** The leader L of a term T appends an entry e after this node n asked, and answers once e is committed. n
//! that has forgotten its vote acknowledges no append before that answer (`founding.I4`), so e is committed without it. Up to
//! that moment n has done nothing since its loss: the group's history is one of Raft with n stopped. In it e is committed in
//! T, hence (leader completeness) every leader of a later term has e in its log. A candidate with a vote that n has forgotten
//! stood before n's loss, when e did not exist, and a candidate's log does not change while it stands. Therefore:
//!
//! 1. No candidate of a term after T that has n's forgotten vote is ever elected, and no leader was elected in such a term
//!    before n's loss. Forgotten votes of terms after T elect nobody, so n may vote in those terms as if it had not voted.
//! 2. n's forgotten acknowledgements were given to leaders of terms up to T. What was committed with them, or still will be,
//!    is in L's log, and before e; so is nothing else that a node which followed L up to e would hold.
//! 3. Once n has L's vote and its log durably reaches e, it is in the very state of a node that lost nothing, voted in no
//!    term after T, and took L's log up to e. Such a node votes, stands and acknowledges as any other.
//!
//! The proof counts no quorum of its own: e is committed by whatever memberships are in force, old and new while they change,
//! and whatever their size. It also holds for a node that kept its vote and lost entries alone. Its promises are whole, so
//! it may acknowledge appends, e among them, all along. And for a node that was never a member: it has nothing to forget.
//!
//! **The ballot.** Where no leader can be elected without n there is no fence: of two voters one lost its disk; in
//! asynchronous mode a power cut struck a majority. Then n waits until *every* other voter of the newest membership has
//! answered since n's start. No silent candidate is left: a node that has n's forgotten vote in a term t and still counts it
//! has named a term of t or later, and one that has restarted since counts it no more. So n grants its vote, but only in
//! terms after every term it has heard, and only for logs that end no earlier than the furthest end it has heard.
//! In synchronous mode so many of the others must be whole that every quorum with n has one of them: what n forgot is in
//! that one's log, or is still to be committed by a leader that has answered with it. In asynchronous mode the furthest end
//! is the best there is: nodes that lost records do not elect each other and cut the log of one that has more.
//! n itself stands again once its own log reaches that end and it knows its own vote.
//!
//! - `catch_up.I1`: a node votes again only once its log durably has an entry that its leader made and committed after the
//!   loss, or has reached the furthest end that every other voter was asked for.
//! - `catch_up.I2`: before that, it votes only by a ballot: in terms and for logs that leave nothing to what it has forgotten.
//! - `catch_up.I3`: in synchronous mode a ballot needs a whole node in every quorum that this node was ever part of, in the old
//!   set and the new one while members are being changed.

use std::io;

use folio_engine::record::EntryId;
use tokio::time::{Duration, Instant, sleep};

use super::discovery::{self, Asker, Discovery};
use super::eligibility::Reason;
use super::fence;
use super::founding::Ballot;
use super::log_summary::Members;
use crate::codec::WireLogId;
use crate::config::Flush;
use crate::transport::wire::Kind;

/// How often the others are asked, and this node's log is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How often the log says whom this node waits for.
const SAY_INTERVAL: Duration = Duration::from_secs(10);
/// How long a node waits before it says for the first time whom it waits for.
const SAY_AFTER: Duration = Duration::from_secs(2);

/// What to do where waiting is in vain.
const ACCEPT_LOSS: &str = "To accept the loss of what only this node may have held, create the file accept-loss beside the \
                           file catching-up and restart this node";

/// What a node says that is not in its group.
const NO_MEMBER: &str =
    "this node is no member of its group: it waits to be added with `folio cluster add-node`";

fn copies(fence: EntryId) -> String {
    format!("this node copies the leader's log up to entry {fence}, and votes again then")
}

/// Lets the node vote again once it has caught up; to be started when it was noted that it has to.
pub(super) async fn run(asker: &Asker) {
    let (mut fence, mut is_member): (Option<EntryId>, bool) = (None, true);
    let (mut says, mut losses) = (Says::new(), asker.founding.losses());
    // The membership whose voters have all answered.
    let mut witnesses: Option<WireLogId> = None;
    while asker.founding.is_catching_up() {
        if losses != asker.founding.losses() {
            // The entry may be committed by what this node has acknowledged and forgotten since.
            (fence, losses) = (None, asker.founding.losses());
        }
        if let Some(fence) = fence {
            says.waiting(asker, if is_member { copies(fence) } else { NO_MEMBER.to_owned() });
        } else {
            let discovery = discovery::run(asker).await;
            is_member = discovery.address(asker.config.node_id).is_some();
            match learn_group(asker, &discovery) {
                Ok(()) => {
                    fence = ask_for_fence(asker, &discovery, losses).await;
                    if fence.is_none() {
                        let waits = ballot(asker, &discovery, &mut witnesses, losses);
                        says.waiting(asker, waits);
                    }
                }
                Err(why) => says.waiting(asker, why.to_string()),
            }
        }
        // A snapshot's beginning counts as durable before it is on disk: what was begun by now is waited for.
        if has_reached(asker, fence)
            && asker.shared.durably(|done| asker.shared.log.submit(done)).await.is_ok()
            && finish(asker, losses)
        {
            break;
        }
        sleep(LOOK_INTERVAL).await;
    }
    asker.shared.status_messages.waits_for(None);
}

/// Says now and then what is waited for; the status has it at any time.
pub(super) struct Says {
    next: Instant,
}

impl Says {
    pub(super) fn new() -> Says {
        Says { next: Instant::now() + SAY_AFTER }
    }

    pub(super) fn waiting(&mut self, asker: &Asker, what: String) {
        if Instant::now() >= self.next {
            self.next = Instant::now() + SAY_INTERVAL;
            tracing::warn!("{what}");
        }
        asker.shared.status_messages.waits_for(Some(what));
    }
}

/// Why this node does not know its group's id yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoGroup {
    /// The disk did not take it.
    #[error("cannot store the group's id: {0}")]
    Store(io::Error),
    /// No member told it; who was silent.
    #[error(
        "this node waits for a member of its group to answer. {0} Start a member, or correct `nodes` in this node's \
         configuration"
    )]
    NoAnswer(String),
    /// The members tell different ids.
    #[error(
        "the nodes that answer belong to different groups of the same name: stop those that were founded by mistake, or remove \
         them from `nodes` in this node's configuration"
    )]
    Different,
}

/// Takes the group's id from the members that answered, if this node does not have it yet (`group_id.I2`).
pub(super) fn learn_group(asker: &Asker, discovery: &Discovery) -> Result<(), NoGroup> {
    if asker.founding.group_id.get().is_some() {
        return Ok(());
    }
    let ids: Vec<_> = discovery.group_ids().into_iter().collect();
    match ids[..] {
        [id] => asker.founding.group_id.adopt(id).map_err(NoGroup::Store),
        [] => Err(NoGroup::NoAnswer(silence(discovery))),
        _ => Err(NoGroup::Different),
    }
}

/// Asks the leader for a fence. From its answer on this node may follow the leader, and later ones.
async fn ask_for_fence(asker: &Asker, discovery: &Discovery, losses: u64) -> Option<EntryId> {
    let leader = discovery.leader()?;
    let address = discovery.address(leader)?;
    let requests = asker.connections.requests(leader, address, "discovery");
    let answer = requests.request(Kind::Fence, Vec::new(), fence::ANSWER_TIMEOUT).await;
    match answer.and_then(|body| fence::parse(&body)) {
        Ok(fence) => {
            asker.founding.follow_from(fence.term, losses);
            Some(fence)
        }
        Err(error) => {
            tracing::debug!(leader, %error, "no fence from the leader");
            None
        }
    }
}

/// Where there is no leader to ask: votes by a ballot, once every other voter has answered. Gives what is waited for.
fn ballot(asker: &Asker, discovery: &Discovery, witnesses: &mut Option<WireLogId>, losses: u64) -> String {
    let newest = discovery.members.as_ref().map(|members| members.id);
    if *witnesses < newest {
        asker.founding.revoke_ballot();
    }
    match weigh(discovery, asker.config.node_id, asker.config.flush) {
        Ok(ballot) => {
            *witnesses = newest;
            asker.founding.allow(ballot, losses);
            let end = ballot.at_least.map_or("nothing".to_owned(), |end| end.to_string());
            format!(
                "this node waits for a leader whose log reaches {end}, the furthest end that any member has named"
            )
        }
        Err(waits) => waits.to_string(),
    }
}

/// Why a node that lost something does not vote yet.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Waits {
    #[error("this node waits for a member of its group to answer: none has named the members")]
    NoMembers,
    #[error(
        "this node has lost part of its log and is the only voter that it knows of. If the group has no other voter, set \
         `single_node = true` in its configuration and restart it; otherwise start the other members"
    )]
    Alone,
    #[error(
        "this node has lost part of its log and waits for node {ids} to answer{why}. Start it, or remove it from the group \
             with `folio cluster remove-node`. {ACCEPT_LOSS}"
    )]
    Silent { ids: String, why: String },
    #[error(
        "no leader can be elected without this node, and too few members have a whole log: node {ids} lost something too. \
             {ACCEPT_LOSS}"
    )]
    TooFewWhole { ids: String },
}

fn list(ids: &[u64]) -> String {
    ids.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

/// Why nodes did not answer, in one sentence.
fn silence(discovery: &Discovery) -> String {
    let said: Vec<String> = discovery.silent.iter().map(|(id, why)| format!("node {id}: {why}")).collect();
    if said.is_empty() { String::new() } else { format!("No answer from {}.", said.join("; ")) }
}

/// The ballot that the answers allow (`catch_up.I2`, `catch_up.I3`).
fn weigh(discovery: &Discovery, own: u64, flush: Flush) -> Result<Ballot, Waits> {
    let members = discovery.members.as_ref().ok_or(Waits::NoMembers)?;
    let missing = discovery.missing(own);
    if !missing.is_empty() {
        let why = |id: &u64| discovery.silent.get(id).map(|why| format!("node {id}: {why}"));
        let why: Vec<String> = missing.iter().filter_map(why).collect();
        let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
        return Err(Waits::Silent { ids: list(&missing), why });
    }
    let others: Vec<u64> = members.all_voters().into_iter().filter(|id| *id != own).collect();
    if others.is_empty() {
        return Err(Waits::Alone);
    }
    let whole = members.voters.iter().all(|set| discovery::furthest(set, own, &discovery.answers).is_some());
    if !whole && flush == Flush::Sync {
        let lost: Vec<u64> = others.iter().copied().filter(|id| discovery.answers[id].lost).collect();
        return Err(Waits::TooFewWhole { ids: list(&lost) });
    }
    let answers = others.iter().map(|id| &discovery.answers[id]);
    Ok(Ballot {
        above: discovery.answers.values().map(|answer| answer.term).max().unwrap_or(0),
        at_least: answers.map(|answer| answer.last()).max().flatten(),
    })
}

/// Whether nothing depends any more on what this node has forgotten (`catch_up.I1`).
fn has_reached(asker: &Asker, fence: Option<EntryId>) -> bool {
    let durable = asker.shared.log.state().durable;
    if let Some(fence) = fence {
        return durable >= Some(fence);
    }
    let members = discovery::own_members(&asker.raft);
    if asker.config.single_node
        && members.as_ref().is_some_and(|members| is_alone(members, asker.config.node_id))
    {
        return true;
    }
    let knows_its_vote = asker.founding.knows_its_vote(asker.shared.log.vote().is_some());
    let target = asker.founding.ballot().filter(|_| knows_its_vote);
    target.is_some_and(|ballot| durable.is_some() && durable >= ballot.at_least)
}

/// Whether no other node votes.
fn is_alone(members: &Members, own: u64) -> bool {
    members.all_voters().into_iter().eq([own])
}

/// This node votes again. False when that cannot be noted, or is not true any more: it was told of another loss.
fn finish(asker: &Asker, losses: u64) -> bool {
    let alone =
        discovery::own_members(&asker.raft).is_none_or(|members| is_alone(&members, asker.config.node_id));
    // Where nobody else could be asked, what was cut off is the last copy there is.
    if !alone && let Err(error) = asker.shared.log.discard_cut() {
        tracing::warn!(%error, "what was cut off the log and is back cannot be removed");
    }
    match asker.founding.caught_up(losses) {
        Ok(false) => false,
        Ok(true) => {
            let eligibility = &asker.shared.eligibility;
            eligibility.set(Reason::CatchingUp, false);
            if asker.founding.refuses_votes() {
                // It was told of another loss meanwhile.
                eligibility.set(Reason::CatchingUp, true);
            }
            tracing::info!(end = ?asker.shared.log.state().durable, "caught up: this node votes again");
            true
        }
        Err(error) => {
            tracing::warn!(%error, "caught up, but the marker cannot be removed");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::discovery::tests::{at, empty, members};
    use crate::group::log_summary::LogSummary;

    fn heard(members: Members, answers: &[(u64, LogSummary)]) -> Discovery {
        Discovery {
            members: Some(members),
            answers: answers.iter().cloned().collect(),
            ..Discovery::default()
        }
    }

    fn lost(summary: LogSummary) -> LogSummary {
        LogSummary { lost: true, ..summary }
    }

    fn ends(term: u64, index: u64) -> Option<EntryId> {
        Some(EntryId { term, index })
    }

    #[test]
    fn catch_up_i2_one_silent_voter_is_enough_to_wait() {
        let five = || members(1, &[&[1, 2, 3, 4, 5]]);
        let three = [(2, at(3, 9)), (3, at(3, 9)), (4, at(3, 9))];
        let waits = weigh(&heard(five(), &three), 1, Flush::Sync).unwrap_err();
        assert!(waits.to_string().contains("waits for node 5"), "{waits}");
        let all = [&three[..], &[(5, LogSummary { term: 7, ..at(3, 12) })]].concat();
        let ballot = weigh(&heard(five(), &all), 1, Flush::Sync);
        assert_eq!(ballot, Ok(Ballot { above: 7, at_least: ends(3, 12) }));
    }

    #[test]
    fn catch_up_i3_every_quorum_has_a_whole_node_in_both_sets() {
        let three = members(1, &[&[1, 2, 3]]);
        let one_whole = [(2, at(3, 9)), (3, lost(at(3, 4)))];
        let waits = weigh(&heard(three.clone(), &one_whole), 1, Flush::Sync).unwrap_err();
        assert_eq!(waits, Waits::TooFewWhole { ids: "3".into() });
        let joint = members(4, &[&[1, 2], &[1, 2, 3]]);
        assert!(weigh(&heard(joint, &one_whole), 1, Flush::Sync).is_err(), "whole for the old set only");
        let two = members(4, &[&[1, 2]]);
        assert!(weigh(&heard(two, &one_whole), 1, Flush::Sync).is_ok());
    }

    #[test]
    fn in_asynchronous_mode_the_furthest_end_is_the_target_whoever_names_it() {
        let three = members(1, &[&[1, 2, 3]]);
        let both = [(2, lost(at(3, 4))), (3, lost(at(3, 8)))];
        let ballot = weigh(&heard(three, &both), 1, Flush::Async);
        assert_eq!(ballot, Ok(Ballot { above: 3, at_least: ends(3, 8) }));
    }

    /// A node that was starting counted as an answer: what it knew of newer members was not asked for.
    #[test]
    fn census_i1_a_voter_that_does_not_name_its_members_yet_has_not_answered() {
        let mut discovery = heard(members(1, &[&[1, 2, 3]]), &[(3, at(3, 9))]);
        discovery.hear(2, Ok(at(3, 9)));
        let waits = weigh(&discovery, 1, Flush::Sync).unwrap_err();
        assert!(waits.to_string().contains("waits for node 2 to answer (node 2: it is starting"), "{waits}");
        let four = members(9, &[&[1, 3, 4]]);
        discovery.hear(2, Ok(LogSummary { members: Some(four), ..at(3, 9) }));
        let waits = weigh(&discovery, 1, Flush::Sync).unwrap_err();
        assert!(waits.to_string().contains("waits for node 4"), "{waits}");
    }

    #[test]
    fn an_empty_list_of_others_is_no_answer() {
        let alone = heard(members(1, &[&[1]]), &[(2, at(3, 9))]);
        assert_eq!(weigh(&alone, 1, Flush::Sync), Err(Waits::Alone));
        assert_eq!(weigh(&alone, 1, Flush::Async), Err(Waits::Alone));
        let nobody = Discovery { answers: [(2, empty())].into(), ..Discovery::default() };
        assert_eq!(weigh(&nobody, 1, Flush::Async), Err(Waits::NoMembers));
    }
}
