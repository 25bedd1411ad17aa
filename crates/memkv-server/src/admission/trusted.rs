//! The addresses that peers have: those of the configuration and those of the cluster's members. A
//! connection from one of them proves nothing by that; it only has permits that strangers cannot take.
//! Names are resolved now and then, since a peer may move. Never waits for an answer while a connection
//! is let in.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use memkv_node::lock::Mutex;

use super::Admission;
use super::permits::Network;

/// How often names are resolved again.
const PERIOD: Duration = Duration::from_secs(10);

/// A name that is not resolved in this time keeps the others from being known no longer.
const RESOLVE_MAX: Duration = Duration::from_secs(2);

/// Addresses as they were known last.
#[derive(Debug, Default)]
pub(super) struct Trusted(Mutex<BTreeSet<Network>>);

impl Trusted {
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.0.lock().contains(&Network::of(address))
    }
}

/// Keeps the addresses of peers known, for ever. `addrs` gives them as `host:port`.
pub async fn know_peers(admission: Arc<Admission>, addrs: impl Fn() -> Vec<String> + Send) {
    // A name that is not resolved now keeps its addresses: a peer must get in while name service fails.
    let mut known: HashMap<String, Vec<Network>> = HashMap::new();
    loop {
        let addrs = addrs();
        known.retain(|addr, _| addrs.contains(addr));
        for addr in addrs {
            let resolving = tokio::net::lookup_host(addr.clone());
            if let Ok(Ok(found)) = tokio::time::timeout(RESOLVE_MAX, resolving).await {
                known.insert(addr, found.map(|addr| Network::of(addr.ip())).collect());
            }
        }
        *admission.trusted.0.lock() = known.values().flatten().copied().collect();
        tokio::time::sleep(PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::AdmissionSettings;
    use super::*;
    use crate::ledger::Ledger;

    #[tokio::test]
    async fn addresses_of_peers_become_known() {
        let settings = AdmissionSettings::open(1);
        let admission = Admission::new(settings, Ledger::default(), Arc::default());
        let addrs = || vec!["10.0.0.7:1".to_owned(), "no address".to_owned()];
        let knowing = tokio::spawn(know_peers(admission.clone(), addrs));
        let peer = IpAddr::from([10, 0, 0, 7]);
        let limit = Duration::from_secs(60);
        let known = async {
            while !admission.trusted.has(peer) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(limit, known).await.unwrap();
        assert!(!admission.trusted.has(IpAddr::from([10, 0, 0, 8])));
        knowing.abort();
    }
}
