//! Topics being created for senders that wait: of many senders that miss one only the first proposes it.

use std::collections::HashMap;
use std::sync::Arc;

use folio_raft::proposal::ProposeError;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// See the module.
#[derive(Default)]
pub(crate) struct Creations {
    under_way: Mutex<HashMap<String, Arc<Creation>>>,
}

type Creation = OnceCell<Result<(), ProposeError>>;

impl Creations {
    /// Creates a topic of this name, or waits for a creation of it that is under way.
    pub(crate) async fn once(
        &self,
        name: &str,
        create: impl Future<Output = Result<(), ProposeError>>,
    ) -> Result<(), ProposeError> {
        let creation = self.under_way.lock().entry(name.to_owned()).or_default().clone();
        let outcome = creation.get_or_init(|| create).await.clone();
        let mut under_way = self.under_way.lock();
        if under_way.get(name).is_some_and(|other| Arc::ptr_eq(other, &creation)) {
            under_way.remove(name);
        }
        outcome
    }
}
