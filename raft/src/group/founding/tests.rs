//! What a node does with what it is told of its own losses.

use folio_engine::disk::sim::{LoseAll, SimDisk};

use super::*;
use crate::group::group_id::GroupId;

#[test]
fn a_reboot_after_unsynced_acknowledgements_is_noticed_and_a_clean_stop_is_not() {
    let disk: Arc<dyn Disk> = Arc::new(folio_engine::disk::RealDisk);
    let dir = tempfile::TempDir::new().unwrap();
    let open = |boot| Founding::open(disk.clone(), dir.path(), NAMES, false, boot).unwrap();
    let lost = |boot| open(boot).is_catching_up();
    assert!(!lost(Some("boot 1")), "the first start");
    assert!(!lost(Some("boot 1")), "a killed process leaves the page cache alone");
    assert!(lost(Some("boot 2")), "a power cut does not");
    assert!(lost(Some("boot 2")), "and that is not forgotten by starting once more");
    open(Some("boot 2")).nothing_lost().unwrap();
    assert!(lost(None), "not told by the mode of today");
    open(None).nothing_lost().unwrap();
    assert!(!lost(Some("boot 3")), "no note, no loss");
    open(Some("boot 3")).note_synced().unwrap();
    assert!(!lost(Some("boot 4")), "all was on disk");
}

#[test]
fn a_node_killed_before_it_knew_why_its_log_was_empty_does_not_vote_with_part_of_one() {
    let disk: Arc<dyn Disk> = Arc::new(folio_engine::disk::RealDisk);
    let dir = tempfile::TempDir::new().unwrap();
    assert!(Founding::open(disk.clone(), dir.path(), NAMES, true, None).unwrap().refuses_votes());
    // Meanwhile the leader has sent it a part of the log.
    let again = Founding::open(disk.clone(), dir.path(), NAMES, false, None).unwrap();
    assert!(again.is_catching_up(), "founding.I2");
    again.nothing_lost().unwrap();
    assert!(!Founding::open(disk, dir.path(), NAMES, false, None).unwrap().refuses_votes());
}

#[test]
fn an_operator_who_accepts_the_loss_lets_a_node_vote_with_and_without_a_log() {
    let disk: Arc<dyn Disk> = Arc::new(folio_engine::disk::RealDisk);
    for empty in [true, false] {
        let dir = tempfile::TempDir::new().unwrap();
        let open = || Founding::open(disk.clone(), dir.path(), NAMES, empty, None).unwrap();
        open().begin_catch_up(false).unwrap();
        assert!(open().refuses_votes());
        std::fs::write(dir.path().join("accept-loss"), "").unwrap();
        assert!(!open().refuses_votes());
        assert_eq!(open().refuses_votes(), empty, "it counts for one start");
    }
}

#[test]
fn founding_i4_a_node_without_its_vote_follows_nobody_until_it_knows_from_which_term_on() {
    let disk: Arc<dyn Disk> = Arc::new(folio_engine::disk::RealDisk);
    let dir = tempfile::TempDir::new().unwrap();
    let node = Founding::open(disk.clone(), dir.path(), NAMES, true, None).unwrap();
    assert!(!node.may_follow(9, false) && node.may_follow(9, true), "founding.I4");
    node.begin_catch_up(true).unwrap();
    assert!(!node.may_follow(9, true), "its vote is an old one");
    let again = || Founding::open(disk.clone(), dir.path(), NAMES, false, None).unwrap();
    assert!(!again().may_follow(9, true), "also after a restart");
    // Found by a review: a start that found rot as well forgot that it had.
    note_loss(&*disk, dir.path()).unwrap();
    assert!(!again().may_follow(9, true), "also after more is lost");
    let again = again();
    again.follow_from(5, 0);
    again.follow_from(3, 0);
    assert!(!again.may_follow(4, true) && again.may_follow(5, false) && again.may_follow(6, false));
    again.nothing_lost().unwrap();
    assert!(again.may_follow(4, false), "openraft has a vote by now");
}

/// It went on voting where the note found no room.
#[test]
fn founding_i5_a_node_told_of_its_loss_does_not_vote_though_its_disk_is_full() {
    let disk = SimDisk::new();
    let open =
        |disk: &SimDisk| Founding::open(Arc::new(disk.clone()), Path::new("/"), NAMES, false, None).unwrap();
    let node = open(&disk);
    disk.set_capacity(Some(disk.used()));
    assert!(is_full(&node.begin_catch_up(true).unwrap_err()) && is_full(&node.mark().unwrap_err()));
    assert_eq!(
        node.may_grant(9, Some(EntryId { term: 9, index: 9 })),
        Err(NoVote::CatchingUp),
        "founding.I5"
    );
    assert!(!open(&disk.crash(&mut LoseAll)).is_catching_up(), "nothing may be answered before it is noted");
    disk.set_capacity(None);
    node.mark().unwrap();
    let again = open(&disk.crash(&mut LoseAll));
    assert!(again.is_catching_up() && !again.may_follow(9, true), "founding.I5");
}

#[test]
fn catch_up_i2_a_ballot_is_for_later_terms_and_for_logs_that_are_no_shorter() {
    let disk: Arc<dyn Disk> = Arc::new(folio_engine::disk::RealDisk);
    let dir = tempfile::TempDir::new().unwrap();
    let node = Founding::open(disk, dir.path(), NAMES, true, None).unwrap();
    let at = |term, index| Some(EntryId { term, index });
    assert_eq!(node.may_grant(9, at(9, 9)), Err(NoVote::CatchingUp));
    node.allow(Ballot { above: 5, at_least: at(4, 7) }, 0);
    assert_eq!(node.may_grant(5, at(4, 9)), Err(NoVote::TermTooLow(5)));
    assert_eq!(node.may_grant(6, at(4, 6)), Err(NoVote::LogTooShort));
    assert_eq!(node.may_grant(6, None), Err(NoVote::LogTooShort));
    assert_eq!((node.may_grant(6, at(4, 7)), node.may_grant(7, at(5, 1))), (Ok(()), Ok(())));
    assert!(!node.may_follow(4, false) && node.may_follow(5, false));
    node.nothing_lost().unwrap();
    assert_eq!(node.may_grant(1, None), Ok(()), "openraft decides");
}

#[test]
fn a_node_that_joined_does_not_doubt_after_a_restart_that_its_group_runs() {
    let disk: Arc<dyn Disk> = Arc::new(folio_engine::disk::RealDisk);
    let dir = tempfile::TempDir::new().unwrap();
    let open = || Founding::open(disk.clone(), dir.path(), NAMES, true, None).unwrap();
    open().group_id.adopt(GroupId::random()).unwrap();
    assert!(open().is_catching_up(), "marked, and it knows its group");
    let told = open();
    told.nothing_lost().unwrap();
    let again = open();
    assert!(again.is_undecided() && again.group_id.get().is_none(), "a founding that came to nothing");
}

const NAMES: (&str, &str) = ("c", "g");

/// Found by a review: what made up for the first loss was taken to make up for the second one.
#[test]
fn founding_i5_a_later_loss_is_not_made_up_for_by_what_was_asked_before() {
    let disk = SimDisk::new();
    let open =
        |disk: &SimDisk| Founding::open(Arc::new(disk.clone()), Path::new("/"), NAMES, false, None).unwrap();
    let node = open(&disk);
    node.begin_catch_up(false).unwrap();
    let first = node.losses();
    node.follow_from(3, first);
    node.begin_catch_up(true).unwrap();
    assert!(!node.may_follow(9, true), "it has to ask again");
    // Asked before, answered after.
    node.follow_from(3, first);
    node.allow(Ballot { above: 3, at_least: None }, first);
    assert!(!node.may_follow(9, true) && node.ballot().is_none(), "founding.I4");
    node.begin_catch_up(false).unwrap();
    assert!(!node.knows_its_vote(true), "it does not remember a vote because it has lost more");
    assert!(!node.caught_up(first).unwrap() && node.refuses_votes());
    assert!(open(&disk).refuses_votes(), "the marker stays");
    assert!(node.caught_up(node.losses()).unwrap() && !open(&disk).refuses_votes());
}
