//! Names, addresses and the words given to `ip` and `tc`: what is to be done, without doing it.
//!
//! | place | namespace | address | its end of the link | the hub's end |
//! |---|---|---|---|---|
//! | hub | `folio-<pid>-<serial>-hub` | 10.86.0.254 | | |
//! | node in place p, from 1 | `folio-<pid>-<serial>-<p>` | 10.86.0.p | `eth0` | `node<p>` |

use crate::relay::Flow;

/// What every name begins with; the process id follows.
const PREFIX: &str = "folio-";
/// The hub's address, on every link.
pub const HUB: &str = "10.86.0.254";
/// Late packets one direction holds; more are dropped.
const LATE_PACKETS_MAX: u32 = 100_000;

/// One call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// `ip` or `tc`.
    pub program: &'static str,
    /// Its arguments.
    pub words: Vec<String>,
}

impl Step {
    fn of(program: &'static str, words: &str) -> Self {
        Self { program, words: words.split_whitespace().map(str::to_owned).collect() }
    }
}

/// The namespaces of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    tag: String,
    nodes: u64,
}

/// The address of the node in this place.
pub(super) fn address(place: u64) -> String {
    format!("10.86.0.{place}")
}

/// Namespaces of harnesses that are gone: `names` without those of the living.
pub(super) fn stale(names: &[String], lives: impl Fn(u32) -> bool) -> Vec<String> {
    let pid = |name: &str| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok();
    names.iter().filter(|name| pid(name).is_some_and(|pid| !lives(pid))).cloned().collect()
}

impl Layout {
    /// For a hub and so many nodes; `serial` differs for each of one process.
    pub(super) fn new(pid: u32, serial: u64, nodes: u64) -> Self {
        Self { tag: format!("{PREFIX}{pid}-{serial}"), nodes }
    }

    pub(super) fn hub(&self) -> String {
        format!("{}-hub", self.tag)
    }

    pub(super) fn node(&self, place: u64) -> String {
        format!("{}-{place}", self.tag)
    }

    pub(super) fn places(&self) -> impl Iterator<Item = u64> + use<> {
        1..=self.nodes
    }

    /// Every namespace's name, the hub's first.
    pub(super) fn names(&self) -> Vec<String> {
        std::iter::once(self.hub()).chain(self.places().map(|place| self.node(place))).collect()
    }

    fn ip(&self, words: &str) -> Step {
        Step::of("ip", &format!("-n {} {words}", self.hub()))
    }

    fn tc(&self, words: &str) -> Step {
        Step::of("tc", &format!("-n {} {words}", self.hub()))
    }

    /// Makes the namespaces and the links between the hub and each node.
    pub(super) fn build(&self) -> Vec<Step> {
        let mut steps: Vec<Step> =
            self.names().iter().map(|name| Step::of("ip", &format!("netns add {name}"))).collect();
        steps.push(self.ip("link set lo up"));
        for place in self.places() {
            let (node, address) = (self.node(place), address(place));
            steps.push(self.ip(&format!("link add node{place} type veth peer name eth0 netns {node}")));
            steps.push(self.ip(&format!("addr add {HUB}/32 dev node{place}")));
            steps.push(self.ip(&format!("link set node{place} up")));
            steps.push(self.ip(&format!("route add {address}/32 dev node{place}")));
            for words in [
                "link set lo up",
                "link set eth0 up",
                &format!("addr add {address} peer {HUB} dev eth0"),
                &format!("route add default via {HUB}"),
            ] {
                steps.push(Step::of("ip", &format!("-n {node} {words}")));
            }
        }
        steps
    }

    /// Shows whether the kernel can hold packets back, and prepares the links for it.
    pub(super) fn prepare_delay(&self) -> Vec<Step> {
        let mut steps =
            vec![self.tc("qdisc add dev lo root netem delay 1ms"), self.tc("qdisc del dev lo root")];
        let links = self.places();
        steps
            .extend(links.map(|to| self.tc(&format!("qdisc add dev node{to} root handle 1: htb default 0"))));
        steps
    }

    /// Shows whether the kernel can lose packets at random, and prepares the links for it.
    pub(super) fn prepare_loss(&self) -> Vec<Step> {
        let mut steps: Vec<Step> =
            self.places().map(|to| self.tc(&format!("qdisc add dev node{to} clsact"))).collect();
        steps.extend(self.loss(1, 1, 0));
        steps.extend(self.no_loss(1, 1));
        steps
    }

    /// Takes one direction from this state to passing.
    pub(super) fn undo(&self, from: u64, to: u64, old: Flow) -> Vec<Step> {
        match old {
            Flow::Pass => Vec::new(),
            Flow::Hold | Flow::Swallow | Flow::Refuse => {
                vec![self.ip(&format!("rule del pref {}", preference(from, to)))]
            }
            Flow::Slow { .. } => vec![
                self.tc(&format!("filter del dev node{to} parent 1: protocol ip prio {from}")),
                self.tc(&format!("class del dev node{to} classid 1:{from}")),
            ],
            Flow::Lossy { .. } => self.no_loss(from, to),
        }
    }

    /// Takes one direction from passing to this state.
    pub(super) fn apply(&self, from: u64, to: u64, new: Flow) -> Vec<Step> {
        match new {
            Flow::Pass => Vec::new(),
            // What is not delivered is sent again by TCP: there is one way to drop silently, not two.
            Flow::Hold | Flow::Swallow => vec![self.cut(from, to, "blackhole")],
            Flow::Refuse => vec![self.cut(from, to, "unreachable")],
            Flow::Slow { least, jitter } => {
                let half = jitter.as_micros() / 2;
                let mean = least.as_micros() + half;
                vec![
                    self.tc(&format!(
                        "class add dev node{to} parent 1: classid 1:{from} htb rate 10gbit quantum 60000"
                    )),
                    self.tc(&format!(
                        "qdisc add dev node{to} parent 1:{from} netem delay {mean}us {half}us \
                         limit {LATE_PACKETS_MAX}"
                    )),
                    self.tc(&format!(
                        "filter add dev node{to} parent 1: protocol ip prio {from} \
                         u32 match ip src {}/32 flowid 1:{from}",
                        address(from)
                    )),
                ]
            }
            Flow::Lossy { stalls, resets } => self.loss(from, to, stalls + resets),
        }
    }

    /// The hub forwards nothing from the one to the other; its own packets (clients') it does.
    fn cut(&self, from: u64, to: u64, how: &str) -> Step {
        let pref = preference(from, to);
        self.ip(&format!("rule add pref {pref} iif node{from} to {}/32 {how}", address(to)))
    }

    /// Of 1000 packets so many are lost, by a program of five instructions in the kernel's classic
    /// filter machine: is the packet from that node, and is a random number small?
    fn loss(&self, from: u64, to: u64, per_mille: u32) -> Vec<Step> {
        let bound = (u64::from(per_mille.min(1000)) * u64::from(u32::MAX) / 1000) as u32;
        let source = u32::from(std::net::Ipv4Addr::new(10, 86, 0, from as u8));
        // Opcodes of <linux/filter.h>: 32 = ld [k], 21 = jeq k, 37 = jgt k, 6 = ret k. 26 is where the
        // source address is behind the Ethernet header; 4294963256 is SKF_AD_OFF + SKF_AD_RANDOM.
        // Returned: 2 = TC_ACT_SHOT, drop; 4294967295 = TC_ACT_UNSPEC, go on.
        let program =
            format!("6,32 0 0 26,21 0 3 {source},32 0 0 4294963256,37 1 0 {bound},6 0 0 2,6 0 0 4294967295");
        let mut step =
            self.tc(&format!("filter add dev node{to} egress protocol ip prio {from} bpf da bytecode"));
        step.words.push(program);
        vec![step]
    }

    fn no_loss(&self, from: u64, to: u64) -> Vec<Step> {
        vec![self.tc(&format!("filter del dev node{to} egress protocol ip prio {from}"))]
    }
}

/// The place of a direction among the hub's routing rules, before those that are always there.
fn preference(from: u64, to: u64) -> u64 {
    100 * from + to
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lines(steps: &[Step]) -> Vec<String> {
        steps.iter().map(|step| format!("{} {}", step.program, step.words.join(" "))).collect()
    }

    fn changed(old: Flow, new: Flow) -> Vec<String> {
        let layout = Layout::new(7, 0, 3);
        lines(&[layout.undo(2, 1, old), layout.apply(2, 1, new)].concat())
    }

    #[test]
    fn a_cut_is_a_rule_of_the_hub_for_one_direction() {
        assert_eq!(
            changed(Flow::Pass, Flow::Swallow),
            ["ip -n folio-7-0-hub rule add pref 201 iif node2 to 10.86.0.1/32 blackhole"]
        );
        assert_eq!(
            changed(Flow::Hold, Flow::Refuse),
            [
                "ip -n folio-7-0-hub rule del pref 201",
                "ip -n folio-7-0-hub rule add pref 201 iif node2 to 10.86.0.1/32 unreachable"
            ]
        );
        assert_eq!(changed(Flow::Refuse, Flow::Pass), ["ip -n folio-7-0-hub rule del pref 201"]);
    }

    #[test]
    fn every_state_can_be_left_for_every_other() {
        let (least, jitter) = (Duration::from_millis(20), Duration::from_millis(10));
        let late = Flow::Slow { least, jitter };
        let lossy = Flow::Lossy { stalls: 50, resets: 5 };
        for flow in [Flow::Hold, Flow::Swallow, Flow::Refuse, late, lossy] {
            let (on, off) = (changed(Flow::Pass, flow), changed(flow, Flow::Pass));
            assert!(!on.is_empty() && !off.is_empty(), "{flow:?}");
            assert_eq!(changed(flow, late).len(), off.len() + 3, "{flow:?}");
        }
        let late = changed(Flow::Pass, late).join("\n");
        assert!(late.contains("netem delay 25000us 5000us"), "{late}");
        assert!(late.contains("match ip src 10.86.0.2/32 flowid 1:2"), "{late}");
    }

    #[test]
    fn only_namespaces_of_the_dead_are_stale() {
        let names = ["folio-7-0-hub", "folio-8-1-2", "folio-x-0-hub", "folio", "other-8-0", "folio-8-0-hub"];
        let names = names.map(str::to_owned);
        assert_eq!(stale(&names, |pid| pid == 7), ["folio-8-1-2", "folio-8-0-hub"]);
    }

    #[test]
    fn every_name_is_built_and_every_node_has_its_own_address() {
        let layout = Layout::new(7, 3, 4);
        assert_eq!(layout.names().len(), 5);
        let steps = lines(&layout.build()).join("\n");
        for name in layout.names() {
            assert!(steps.contains(&format!("netns add {name}")), "{name}");
        }
        for place in layout.places() {
            assert!(steps.contains(&format!("-n {} addr add {} ", layout.node(place), address(place))));
        }
    }
}
