//! What the connections of each address have of the node's shares together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::share::Share;

/// Addresses that are forgotten together, at least.
const FORGOTTEN_MIN: usize = 64;

/// What the connections of one address have of the shares.
#[derive(Debug, Default)]
pub(super) struct AddressUse {
    pub(super) used: [AtomicUsize; Share::COUNT],
}

/// The same of all addresses.
#[derive(Debug, Default)]
pub(super) struct Addresses(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_address: HashMap<IpAddr, Weak<AddressUse>>,
    /// When so many are known, those without connections are forgotten.
    full: usize,
}

impl Addresses {
    /// What the connections of this address share.
    pub(super) fn of(&self, address: IpAddr) -> Arc<AddressUse> {
        let mut known = self.0.lock();
        if let Some(used) = known.by_address.get(&address).and_then(Weak::upgrade) {
            return used;
        }
        if known.by_address.len() >= known.full {
            known.by_address.retain(|_, used| used.strong_count() > 0);
            known.full = 2 * known.by_address.len() + FORGOTTEN_MIN;
        }
        let used = Arc::default();
        known.by_address.insert(address, Arc::downgrade(&used));
        used
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn addresses_without_connections_are_forgotten() {
        let (addresses, one) = (Addresses::default(), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
        let kept = addresses.of(one);
        for number in 0..200_000_u32 {
            addresses.of(IpAddr::V4(Ipv4Addr::from(number)));
        }
        assert!(addresses.0.lock().by_address.len() <= 2 * FORGOTTEN_MIN + 2);
        assert!(Arc::ptr_eq(&kept, &addresses.of(one)));
    }
}
