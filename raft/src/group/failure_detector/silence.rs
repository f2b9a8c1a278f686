//! How long the leader has been silent while this node ran, and how long it may be.
//!
//! A pure model: the caller says what time it is. [`Silence::look`] is called every [`LOOK_INTERVAL`]; a look that comes much
//! later than that is a stall of this node.
//!
//! - `failure_detector.I1`: time during which this node did not run is not the leader's silence. After a stall as much
//!   time passes before the leader is suspected, [`Limits::grace`] at most, so that what has arrived is read first.
//! - `failure_detector.I2`: the threshold lies within [`Limits::quick`] and [`Limits::bound`], and is back at the first
//!   [`GAP_WINDOW`] after the last long gap.
//! - `failure_detector.I3`: stalls of this node hide a dead leader for [`EXCUSED_MAX`] and one stall more at most.

use std::time::Duration;

use folio_engine::planted;
use tokio::time::Instant;

use crate::config::Timing;

/// How often a node looks whether its leader is silent, and whether it ran itself.
pub(in crate::group) const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// A look that comes so late was held up: three intervals.
const STALL_MIN: Duration = Duration::from_millis(30);
/// Time that stalls of this node may add to one silence, the last of them aside: on a starved machine they never end.
const EXCUSED_MAX: Duration = Duration::from_secs(1);
/// A gap this many times the largest one lately is a sign of death.
const GAP_FACTOR: u32 = 2;
/// The longest threshold, however large the gaps.
const THRESHOLD_MAX: Duration = Duration::from_secs(2);
/// How long a gap is remembered.
pub(super) const GAP_WINDOW: Duration = Duration::from_secs(30);
/// The window is forgotten in so many parts.
const GAP_PARTS: usize = 6;

/// What follows from the group's timing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The threshold on a quiet machine. Below what openraft itself waits, so that it costs nothing there.
    pub(super) quick: Duration,
    /// The longest threshold.
    pub(super) bound: Duration,
    /// How long a leader that lives needs to be heard once this node runs again: two heartbeats.
    pub(super) grace: Duration,
}

impl Limits {
    pub(super) fn of(timing: &Timing) -> Limits {
        let quick = timing.election_max + timing.election_min.saturating_sub(timing.heartbeat);
        Limits { quick, bound: THRESHOLD_MAX.max(quick), grace: timing.heartbeat * 2 }
    }
}

/// The largest gap between two signs of life within a window that ends now.
#[derive(Debug)]
struct Gaps {
    parts: [Duration; GAP_PARTS],
    /// When the newest part, `parts[0]`, began.
    since: Instant,
}

impl Gaps {
    fn new(now: Instant) -> Gaps {
        Gaps { parts: Default::default(), since: now }
    }

    fn pass(&mut self, now: Instant) {
        let part = GAP_WINDOW / GAP_PARTS as u32;
        for _ in 0..GAP_PARTS {
            if now.duration_since(self.since) < part {
                return;
            }
            self.parts.rotate_right(1);
            self.parts[0] = Duration::ZERO;
            self.since += part;
        }
        // Longer than the window: all parts are empty.
        self.since = now;
    }

    fn note(&mut self, now: Instant, gap: Duration) {
        self.pass(now);
        self.parts[0] = self.parts[0].max(gap);
    }

    fn largest(&self) -> Duration {
        self.parts.into_iter().max().unwrap_or_default()
    }
}

/// A leader's silence as one node counts it.
#[derive(Debug)]
pub(super) struct Silence {
    limits: Limits,
    looked: Instant,
    /// While this node ran.
    counted: Duration,
    /// By the clock.
    passed: Duration,
    last_stall: Duration,
    /// How long this node has run since then, and how long it has to before it judges.
    awake: Duration,
    grace: Duration,
    gaps: Gaps,
}

impl Silence {
    pub(super) fn new(limits: Limits, now: Instant) -> Silence {
        let (counted, passed, last_stall, awake, grace) = Default::default();
        let gaps = Gaps::new(now);
        Silence { limits, looked: now, counted, passed, last_stall, awake, grace, gaps }
    }

    /// Time passes. Returns how long this node did not run, if it did not.
    pub(super) fn look(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.looked);
        self.looked = now;
        self.passed += passed;
        self.gaps.pass(now);
        if passed < STALL_MIN || planted::is("stall-is-silence") {
            self.counted += passed;
            self.awake += passed;
            return None;
        }
        self.counted += LOOK_INTERVAL;
        self.last_stall = passed;
        (self.awake, self.grace) = (Duration::ZERO, passed.min(self.limits.grace));
        // What holds up this node may hold up its leader as long, unless it is more than any threshold covers: such a node
        // was stopped by itself.
        if passed <= self.limits.bound {
            self.gaps.note(now, passed.min(self.limits.quick));
        }
        Some(passed)
    }

    /// A sign of life of the leader that was silent.
    pub(super) fn heard(&mut self, now: Instant) {
        self.look(now);
        self.gaps.note(now, self.counted);
        self.begin();
    }

    /// A sign of life of this leader's quorum: the gap tells something of the machines, and nothing of a leader.
    pub(super) fn answered(&mut self, now: Instant) {
        self.look(now);
        self.gaps.note(now, self.counted.min(self.limits.quick));
        self.begin();
    }

    /// Another leader: how long there was none says nothing of it.
    pub(super) fn begin(&mut self) {
        (self.counted, self.passed, self.last_stall) = Default::default();
        // What had arrived was read.
        self.grace = Duration::ZERO;
    }

    pub(super) fn counted(&self) -> Duration {
        self.counted
    }

    /// Whether the silence is longer than `limit`.
    pub(super) fn exceeds(&self, limit: Duration) -> bool {
        let has_read = self.awake >= self.grace;
        // failure_detector.I3
        let hidden = self.passed.saturating_sub(self.last_stall) >= limit + EXCUSED_MAX;
        (self.counted >= limit && has_read) || hidden
    }

    /// The silence after which a leader is suspected (`failure_detector.I2`).
    pub(super) fn threshold(&self) -> Duration {
        if planted::is("stall-is-silence") {
            return self.limits.quick;
        }
        (self.gaps.largest() * GAP_FACTOR).clamp(self.limits.quick, self.limits.bound)
    }

    /// The silence after which another node's suspicion is believed: less, since that node waited its own threshold.
    pub(super) fn grants_at(&self) -> Duration {
        self.threshold() * 2 / 3
    }

    /// Whether the threshold is above that of a quiet machine.
    pub(super) fn is_jittery(&self) -> bool {
        self.threshold() > self.limits.quick
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: u64 = 50;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A node with the usual timing, its clock, and a leader that sends heartbeats.
    struct Node {
        now: Instant,
        silence: Silence,
        last_heartbeat: Instant,
    }

    impl Node {
        fn new() -> Node {
            let now = Instant::now();
            let silence = Silence::new(Limits::of(&Timing::default()), now);
            Node { now, silence, last_heartbeat: now }
        }

        /// Both run; whether the leader was suspected meanwhile.
        fn run(&mut self, for_ms: u64) -> bool {
            self.run_while(for_ms, true)
        }

        fn run_while(&mut self, for_ms: u64, leader_lives: bool) -> bool {
            let mut suspected = false;
            for _ in 0..for_ms / 10 {
                self.now += LOOK_INTERVAL;
                self.silence.look(self.now);
                if leader_lives && self.now - self.last_heartbeat >= ms(HEARTBEAT) {
                    self.last_heartbeat = self.now;
                    self.silence.heard(self.now);
                }
                suspected |= self.suspects();
            }
            suspected
        }

        fn suspects(&self) -> bool {
            self.silence.exceeds(self.silence.threshold())
        }

        /// This node does not run; then it looks before it reads.
        fn stall(&mut self, for_ms: u64) -> bool {
            self.now += ms(for_ms);
            self.silence.look(self.now);
            self.suspects()
        }

        /// How long it takes from now until the leader is suspected that says nothing any more.
        fn until_suspected(&mut self) -> u64 {
            (1..1_000).find(|_| self.run_while(10, false)).map_or(u64::MAX, |looks| looks * 10)
        }
    }

    #[test]
    fn a_dead_leader_of_a_quiet_machine_is_suspected_before_openraft_asks() {
        let mut node = Node::new();
        assert!(!node.run(120_000));
        let timing = Timing::default();
        let least = (timing.election_max + timing.election_min).as_millis() as u64;
        assert!(node.until_suspected() <= least, "openraft waits at least {least} ms");
    }

    #[test]
    fn failure_detector_i1_a_stall_of_this_node_is_not_its_leaders_silence() {
        let mut node = Node::new();
        node.run(1_000);
        for stall in [40, 400, 3_000, 60_000, 400] {
            assert!(!node.stall(stall), "{stall} ms");
            assert!(!node.run(1_000), "{stall} ms");
        }
        // The leader had been silent for nearly too long: what arrived meanwhile is read first.
        let mut node = Node::new();
        node.run(1_000);
        assert!(!node.run_while(440, false));
        assert!(!node.stall(400));
        assert!(!node.run_while(90, false), "the grace");
        node.silence.heard(node.now);
        assert!(!node.run(1_000));
    }

    /// On a machine under a load of 26 a leader that hung was replaced after three to seven seconds.
    #[test]
    fn a_starved_node_suspects_a_dead_leader_nearly_as_soon() {
        let mut node = Node::new();
        node.run(1_000);
        let dead = node.now;
        while !node.suspects() {
            node.stall(60);
            node.run_while(100, false);
        }
        assert!(node.now - dead < ms(1_000), "{:?}", node.now - dead);
    }

    #[test]
    fn failure_detector_i2_the_threshold_follows_the_gaps_up_to_a_bound_and_down_again() {
        let mut node = Node::new();
        assert_eq!(node.silence.threshold(), ms(450));
        for gap in [100, 200, 300, 430] {
            assert!(!node.run_while(gap, false));
            node.silence.heard(node.now);
        }
        let threshold = node.silence.threshold();
        assert!((ms(800)..ms(1_000)).contains(&threshold), "{threshold:?}");
        for _ in 0..10 {
            node.run_while(1_900, false);
            node.silence.heard(node.now);
        }
        assert_eq!(node.silence.threshold(), THRESHOLD_MAX);
        assert!(node.until_suspected() <= 2_000);
        node.silence.heard(node.now);
        node.run(GAP_WINDOW.as_millis() as u64);
        assert_eq!(node.silence.threshold(), ms(450), "down again");
        // A day without a look leaves nothing either.
        node.stall(400);
        assert!(node.silence.is_jittery());
        node.now += Duration::from_secs(86_400);
        node.silence.gaps.pass(node.now);
        assert!(!node.silence.is_jittery());
    }

    /// A node that had been stopped for five seconds took twice as long as others to replace a leader that hung after it.
    #[test]
    fn a_node_that_was_stopped_for_seconds_was_slower_than_others_afterwards() {
        let mut node = Node::new();
        node.stall(THRESHOLD_MAX.as_millis() as u64);
        assert_eq!(node.silence.threshold(), ms(900));
        for stopped in [2_100, 5_000, 300_000] {
            let mut node = Node::new();
            node.stall(stopped);
            assert_eq!(node.silence.threshold(), ms(450), "{stopped} ms");
        }
    }

    #[test]
    fn failure_detector_i3_a_node_that_stalls_all_the_time_still_suspects_a_dead_leader() {
        for (stall, runs) in [(40, 0), (40, 100), (40, 300), (100, 10), (100, 200), (400, 50), (1_000, 10)] {
            let mut node = Node::new();
            node.run(1_000);
            let dead = node.now;
            while !node.suspects() {
                node.stall(stall);
                node.run_while(runs, false);
                let silent = node.now - dead;
                // By its stalls alone the threshold is no more than 900 ms.
                let most = EXCUSED_MAX + ms(900) + ms(2 * stall + runs);
                assert!(silent < most, "{silent:?} with stalls of {stall} ms");
            }
        }
    }

    #[test]
    fn another_nodes_suspicion_is_believed_earlier() {
        let mut node = Node::new();
        node.run(1_000);
        node.run_while(310, false);
        assert!(node.silence.exceeds(node.silence.grants_at()) && !node.suspects());
        node.stall(40);
        assert!(!node.silence.exceeds(node.silence.grants_at()), "not before it has read what arrived");
        node.run_while(40, false);
        assert!(node.silence.exceeds(node.silence.grants_at()));
    }
}
