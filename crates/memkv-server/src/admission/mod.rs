//! Which connections are let in. A connection is *unproven* until its client has authenticated or its
//! peer has proved itself; unproven ones have few permits (`permits`), little time and little room. Then
//! it is a client's, of which there are `max_connections`, or a peer's (`peers`); neither can take
//! the other's permits. `door` is one connection's way through, `trusted` the addresses of peers.
//!
//! Where nothing needs a proof, on loopback without a password and without a secret, a client's permit is
//! taken at once. Never reads or writes a socket.

mod door;
mod peers;
mod permits;
mod trusted;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use memkv_node::lock::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ledger::Ledger;
use crate::process::Descriptors;

pub use door::Door;
pub(crate) use door::Full;
pub(crate) use peers::PeerPermit;
pub use trusted::know_peers;

use peers::Peers;
use permits::{Network, Permits};

/// How connections are let in.
#[derive(Debug, Clone)]
pub struct AdmissionSettings {
    /// How many of each kind may be open.
    pub descriptors: Descriptors,
    /// Connections of clients from one address that is not loopback; none is any number.
    pub per_address: Option<usize>,
    /// Clients must authenticate, as the table of users is now.
    pub clients_prove: Arc<AtomicBool>,
    /// Peers must prove themselves.
    pub peers_prove: bool,
}

impl AdmissionSettings {
    /// For so many clients, none of which must authenticate.
    #[must_use]
    pub fn open(max_connections: usize) -> Self {
        Self {
            descriptors: Descriptors {
                clients: max_connections,
                ..Descriptors::default()
            },
            per_address: None,
            clients_prove: Arc::default(),
            peers_prove: false,
        }
    }
}

/// What was counted since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Unproven connections that lost their permit to another one, or were too slow.
    pub(crate) expelled: AtomicU64,
    /// Connections of peers that are open.
    pub(crate) peers: AtomicUsize,
    /// Unproven connections.
    pub(crate) unproven: AtomicUsize,
}

/// The state that all doors share.
pub struct Admission {
    settings: AdmissionSettings,
    ledger: Ledger,
    counts: Arc<Counts>,
    clients: Arc<Semaphore>,
    /// Connections of clients, by their networks; loopback is not among them.
    addresses: Mutex<HashMap<Network, usize>>,
    /// Connections beyond the clients' permits that may only turn out to be peers'.
    reserved: Arc<Semaphore>,
    permits: Permits,
    peers: Peers,
    trusted: trusted::Trusted,
}

impl Admission {
    /// An admission that charges `ledger`.
    pub(crate) fn new(
        settings: AdmissionSettings,
        ledger: Ledger,
        counts: Arc<Counts>,
    ) -> Arc<Self> {
        let semaphore = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        let descriptors = settings.descriptors;
        Arc::new(Self {
            clients: semaphore(descriptors.clients),
            reserved: semaphore(descriptors.permits),
            addresses: Mutex::default(),
            permits: Permits::new(descriptors.permits, counts.clone()),
            peers: Peers::new(descriptors.peers, counts.clone()),
            trusted: trusted::Trusted::default(),
            settings,
            ledger,
            counts,
        })
    }

    /// The way in for a connection from this address; none if it is not let in.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Door> {
        let clients_prove = self.settings.clients_prove.load(Ordering::Relaxed);
        let needs_no_proof = !clients_prove && !self.settings.peers_prove;
        if !needs_no_proof || !address.is_loopback() {
            let is_trusted = self.trusted.has(address);
            let permit = self.permits.enter(address, is_trusted);
            return Some(Door::unproven(self.clone(), address, permit));
        }
        if let Ok(permit) = self.take_client(address) {
            return Some(Door::client(self.clone(), address, permit));
        }
        let reserved = self.reserved.clone().try_acquire_owned().ok()?;
        Some(Door::reserved(self.clone(), address, reserved))
    }

    /// Whether so many connections are unproven that the next ones may take the permits of others.
    pub(crate) fn is_crowded(&self) -> bool {
        self.permits.is_crowded()
    }

    fn take_client(self: &Arc<Self>, address: IpAddr) -> Result<ClientPermit, Full> {
        let permit = self.clients.clone().try_acquire_owned();
        let permit = permit.map_err(|_full| Full::Clients)?;
        let network = match self.settings.per_address {
            Some(most) if !address.is_loopback() => {
                let network = Network::of(address);
                let mut addresses = self.addresses.lock();
                let count = addresses.entry(network).or_default();
                if *count >= most {
                    return Err(Full::Address(most));
                }
                *count += 1;
                Some(network)
            }
            _ => None,
        };
        let counted = network.map(|network| (self.clone(), network));
        Ok(ClientPermit {
            _permit: permit,
            counted,
        })
    }
}

/// A client's permit, given back when it is dropped.
struct ClientPermit {
    _permit: OwnedSemaphorePermit,
    counted: Option<(Arc<Admission>, Network)>,
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let Some((admission, network)) = &self.counted else {
            return;
        };
        let mut addresses = admission.addresses.lock();
        if let Some(count) = addresses.get_mut(network) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(network);
            }
        }
    }
}

impl Counts {
    fn expel(&self) {
        self.expelled.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::Rights;
    use crate::rights::tests::replicated;

    fn admission(clients: usize, per_address: Option<usize>, proves: bool) -> Arc<Admission> {
        let settings = AdmissionSettings {
            per_address,
            clients_prove: Arc::new(AtomicBool::new(proves)),
            ..AdmissionSettings::open(clients)
        };
        Admission::new(settings, Ledger::default(), Arc::default())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_unproven_connection_takes_no_clients_place_and_gets_one_by_its_proof() {
        let admission = admission(1, None, true);
        let local = address("127.0.0.1");
        let doors: Vec<_> = (0..10).map(|_| admission.enter(local).unwrap()).collect();
        assert!(doors.iter().all(|door| !door.is_proven()));
        assert_eq!(doors[3].admit_client(), Ok(()));
        assert_eq!(doors[3].admit_client(), Ok(()));
        assert_eq!(doors[4].admit_client(), Err(Full::Clients));
        assert!(doors[3].is_proven() && !doors[4].is_proven());
        assert_eq!(admission.counts.unproven.load(Ordering::Relaxed), 9);
        drop(doors);
        let door = admission.enter(local).unwrap();
        assert_eq!(door.admit_client(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_stays_unproven_ends_and_one_that_does_not_goes_on() {
        let admission = admission(10, None, true);
        let start = tokio::time::Instant::now();
        let idle = admission.enter(address("10.0.0.1")).unwrap();
        idle.watch(std::pin::pin!(std::future::pending::<()>()))
            .await;
        assert_eq!(start.elapsed(), door::UNPROVEN_TIME);
        assert_eq!(admission.counts.expelled.load(Ordering::Relaxed), 1);
        let client = admission.enter(address("10.0.0.1")).unwrap();
        let serve = async {
            tokio::time::sleep(door::UNPROVEN_TIME / 2).await;
            client.admit_client().unwrap();
            tokio::time::sleep(door::UNPROVEN_TIME * 10).await;
        };
        client.watch(std::pin::pin!(serve)).await;
        assert_eq!(start.elapsed(), door::UNPROVEN_TIME * 23 / 2);
        assert_eq!(admission.counts.expelled.load(Ordering::Relaxed), 1);
    }

    /// The wait after failures is as long as a connection may be unproven.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_the_node_lets_wait_is_told_the_outcome_but_does_not_stay() {
        let admission = admission(10, None, true);
        let start = tokio::time::Instant::now();
        let right = admission.enter(address("10.0.0.1")).unwrap();
        let is_told = AtomicBool::new(false);
        let serve = async {
            let judging = right.judging();
            tokio::time::sleep(door::UNPROVEN_TIME).await;
            right.admit_client().unwrap();
            drop(judging);
            tokio::time::sleep(door::JUDGED_TIME * 2).await;
            is_told.store(true, Ordering::Relaxed);
        };
        right.watch(std::pin::pin!(serve)).await;
        assert!(is_told.load(Ordering::Relaxed));
        assert_eq!(admission.counts.expelled.load(Ordering::Relaxed), 0);
        let wrong = admission.enter(address("10.0.0.1")).unwrap();
        let (start, mut answers) = (start + start.elapsed(), 0);
        let serve = async {
            loop {
                let judging = wrong.judging();
                tokio::time::sleep(door::UNPROVEN_TIME * 2 / 3).await;
                drop(judging);
                answers += 1;
            }
        };
        wrong.watch(std::pin::pin!(serve)).await;
        assert_eq!(start.elapsed(), door::UNPROVEN_TIME + door::JUDGED_TIME);
        assert_eq!(answers, 4);
        assert_eq!(admission.counts.expelled.load(Ordering::Relaxed), 1);
    }

    /// The users of the cluster decide, and not the password that the node was started with.
    #[test]
    fn loopback_must_prove_itself_once_the_user_default_needs_a_password() {
        let first = |ops: &[&str]| replicated(&[("default", ops)]);
        let rights = Rights::new(None, false);
        let settings = AdmissionSettings {
            clients_prove: rights.clients_prove(),
            ..AdmissionSettings::open(2)
        };
        let admission = Admission::new(settings, Ledger::default(), Arc::default());
        let is_let_in = || {
            let door = admission.enter(address("127.0.0.1"));
            door.is_some_and(|door| door.is_proven())
        };
        assert!(is_let_in());
        assert!(rights.follow(&first(&["on", "nopass"])) && is_let_in());
        let closed = Rights::new(None, false);
        assert!(closed.follow(&first(&["on", ">pw"])));
        assert!(closed.clients_prove().load(Ordering::Relaxed));
        let off = Rights::new(None, false);
        assert!(off.follow(&first(&["off", "nopass"])));
        assert!(off.clients_prove().load(Ordering::Relaxed));
    }

    #[test]
    fn loopback_without_credentials_is_let_in_at_once() {
        let admission = admission(1, None, false);
        let first = admission.enter(address("::1")).unwrap();
        assert!(first.is_proven());
        let second = admission.enter(address("127.0.0.1")).unwrap();
        assert_eq!(second.admit_client(), Err(Full::Clients));
        let elsewhere = admission.enter(address("10.0.0.1")).unwrap();
        assert!(!elsewhere.is_proven());
    }

    #[test]
    fn one_address_has_only_so_many_connections_of_clients() {
        let admission = admission(100, Some(2), true);
        let enter = |text: &str| admission.enter(address(text)).unwrap();
        // A network of IPv6 is one address.
        let same = ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:1"].map(enter);
        assert_eq!(same[0].admit_client(), Ok(()));
        assert_eq!(same[1].admit_client(), Ok(()));
        assert_eq!(same[2].admit_client(), Err(Full::Address(2)));
        assert_eq!(enter("2001:db8:0:1::1").admit_client(), Ok(()));
        let local: Vec<_> = (0..10).map(|_| enter("127.0.0.1")).collect();
        assert!(local.iter().all(|door| door.admit_client() == Ok(())));
        let [_first, second, third] = same;
        drop(second);
        assert_eq!(third.admit_client(), Ok(()));
    }
}
