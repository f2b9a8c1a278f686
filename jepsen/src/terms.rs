//! How many terms passed: each is an election that somebody began.

use crate::cluster::Cluster;

/// Terms of a cluster, as its nodes told them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms {
    first: Option<u64>,
    last: u64,
}

impl Terms {
    /// Asks every running node; says who leads, if somebody does in the highest term.
    pub async fn look(&mut self, cluster: &Cluster) -> Option<u64> {
        let statuses = cluster.statuses().await;
        let term = statuses.iter().map(|status| status.term).max()?;
        self.saw(term);
        let leader = statuses.iter().find(|status| status.is_leader() && status.term == term);
        leader.map(|leader| leader.node_id)
    }

    fn saw(&mut self, term: u64) {
        self.first.get_or_insert(term);
        self.last = self.last.max(term);
    }

    /// How many terms began since the first look.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.last.saturating_sub(self.first.unwrap_or(self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::Terms;

    #[test]
    fn terms_pass_from_the_first_look_on() {
        let mut terms = Terms::default();
        assert_eq!(terms.passed(), 0);
        [5, 5, 9, 7].into_iter().for_each(|term| terms.saw(term));
        assert_eq!(terms.passed(), 4);
    }
}
