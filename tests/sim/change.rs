//! A change of the members.

/// One that is under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) joins: Option<u64>,
    pub(crate) leaves: Option<u64>,
}

impl Change {
    pub(crate) fn joins(&self, node: u64) -> bool {
        self.joins == Some(node)
    }
}
