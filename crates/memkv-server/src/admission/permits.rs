//! The permits of unproven connections. Peers' addresses have permits of their own, so that strangers cannot
//! keep a peer out, and so has loopback.
//!
//! An address that holds its part loses its oldest permit to its next connection once that is a second
//! old: a pool of clients that connects at once needs more for an instant, and proves itself in less.
//!
//! Invariants: there are never more than so many; when all are taken, the oldest of the address that
//! holds most loses its permit, never a new one, so that a client that proves itself at once gets in however
//! many do not.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use memkv_node::lock::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Counts;

/// One address holds at most a sixteenth of the strangers' permits: 16 of 256.
const PART_OF_ONE: usize = 16;

/// All permits in parts of 64: 256 for strangers, 64 for the addresses of peers, 1,024 for loopback, where
/// the pools of local programs connect anew all at once.
const PARTS: usize = 21;
const PARTS_OF_STRANGERS: usize = 4;
const PARTS_OF_TRUSTED: usize = 1;
const PARTS_OF_LOOPBACK: usize = 16;

/// A permit is an address's own for so long, while there are others: many round trips.
const YOUNG: Duration = Duration::from_secs(1);

/// An address that counts as one: a whole network (/64) in IPv6, where one machine has as many
/// addresses as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Network(IpAddr);

impl Network {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 => v4,
        })
    }
}

/// The end of a permit, as its connection sees it.
#[derive(Debug, Default)]
pub(super) struct Watched {
    is_lost: AtomicBool,
    notify: Notify,
}

impl Watched {
    fn lose(&self) {
        self.is_lost.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    /// Waits until another connection has got the permit.
    pub(super) async fn lost(&self) {
        while !self.is_lost.load(Ordering::Acquire) {
            self.notify.notified().await;
        }
    }
}

/// A permit that is taken.
#[derive(Debug)]
struct Taken {
    network: Network,
    since: Instant,
    watched: Arc<Watched>,
}

#[derive(Debug, Default)]
struct Pool {
    most: usize,
    most_of_one: usize,
    /// In the order of their arrival.
    held: BTreeMap<u64, Taken>,
    of: HashMap<Network, usize>,
}

impl Pool {
    fn make_room(&mut self, network: Network, counts: &Counts) {
        let own = self.of.get(&network).copied().unwrap_or(0);
        let oldest = self.oldest(network).filter(|_| own >= self.most_of_one);
        let is_old = |number: &u64| {
            let taken = self.held.get(number);
            taken.is_some_and(|taken| taken.since.elapsed() >= YOUNG)
        };
        let loser = oldest.filter(is_old).or_else(|| {
            if self.held.len() < self.most {
                return None;
            }
            // Of the networks that hold most, the one with the oldest connection pays: the address must
            // not decide, or those that sort last would lose each new connection.
            let most = self.of.values().copied().max();
            let mut held = self.held.iter();
            let loser = held.find(|(_, taken)| self.of.get(&taken.network).copied() == most);
            loser.map(|(number, _)| *number)
        });
        if let Some(taken) = loser.and_then(|number| self.remove(number, counts)) {
            taken.watched.lose();
        }
    }

    fn oldest(&self, network: Network) -> Option<u64> {
        let mut held = self.held.iter();
        let oldest = held.find(|(_, taken)| taken.network == network);
        oldest.map(|(number, _)| *number)
    }

    fn remove(&mut self, number: u64, counts: &Counts) -> Option<Taken> {
        let taken = self.held.remove(&number)?;
        counts.unproven.fetch_sub(1, Ordering::Relaxed);
        if let Some(count) = self.of.get_mut(&taken.network) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&taken.network);
            }
        }
        Some(taken)
    }
}

/// Which pool a permit is of.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Strangers,
    Trusted,
    Loopback,
}

#[derive(Debug)]
struct Pools {
    last: u64,
    /// By [`Kind`].
    pools: [Pool; 3],
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Permits {
    pools: Arc<Mutex<Pools>>,
    counts: Arc<Counts>,
}

impl Permits {
    /// So many permits in all.
    pub(super) fn new(most: usize, counts: Arc<Counts>) -> Self {
        let pool = |parts: usize, part_of_one: usize| {
            let most = (most * parts / PARTS).max(1);
            Pool {
                most,
                most_of_one: (most / part_of_one).max(1),
                ..Pool::default()
            }
        };
        let pools = Pools {
            last: 0,
            pools: [
                pool(PARTS_OF_STRANGERS, PART_OF_ONE),
                pool(PARTS_OF_TRUSTED, 1),
                pool(PARTS_OF_LOOPBACK, 1),
            ],
        };
        Self {
            pools: Arc::new(Mutex::new(pools)),
            counts,
        }
    }

    /// Whether an eighth of the permits of a kind is taken: the others are left for those that come meanwhile.
    pub(super) fn is_crowded(&self) -> bool {
        let pools = self.pools.lock();
        let mut pools = pools.pools.iter();
        pools.any(|pool| pool.held.len() >= pool.most.div_ceil(8))
    }

    /// Takes a permit, which another connection loses if there is none.
    pub(super) fn enter(&self, address: IpAddr, is_trusted: bool) -> Permit {
        let kind = match is_trusted {
            _ if address.to_canonical().is_loopback() => Kind::Loopback,
            true => Kind::Trusted,
            false => Kind::Strangers,
        };
        let network = Network::of(address);
        let mut pools = self.pools.lock();
        pools.last += 1;
        let number = pools.last;
        let pool = &mut pools.pools[kind as usize];
        pool.make_room(network, &self.counts);
        let watched = Arc::<Watched>::default();
        let taken = Taken {
            network,
            since: Instant::now(),
            watched: watched.clone(),
        };
        pool.held.insert(number, taken);
        *pool.of.entry(network).or_default() += 1;
        self.counts.unproven.fetch_add(1, Ordering::Relaxed);
        Permit {
            pools: self.pools.clone(),
            counts: self.counts.clone(),
            number,
            kind,
            watched,
        }
    }
}

/// A permit; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    pools: Arc<Mutex<Pools>>,
    counts: Arc<Counts>,
    number: u64,
    kind: Kind,
    watched: Arc<Watched>,
}

impl Permit {
    pub(super) fn watched(&self) -> Arc<Watched> {
        self.watched.clone()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut pools = self.pools.lock();
        pools.pools[self.kind as usize].remove(self.number, &self.counts);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// As many as there are with the usual descriptors.
    const ALL: usize = 64 * PARTS;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn is_lost(permit: &Permit) -> bool {
        permit.watched.lost().now_or_never().is_some()
    }

    fn lost(permits: &[Permit]) -> usize {
        permits.iter().filter(|permit| is_lost(permit)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_has_few_places_for_long_and_its_oldest_goes_first() {
        let permits = Permits::new(ALL, Arc::default());
        let other = permits.enter(address(2), false);
        let mut same: Vec<_> = (0..16).map(|_| permits.enter(address(1), false)).collect();
        // A pool that connects at once is let in.
        same.extend((0..100).map(|_| permits.enter(address(1), false)));
        assert_eq!(lost(&same), 0);
        same.truncate(16);
        tokio::time::advance(YOUNG).await;
        same.push(permits.enter(address(1), false));
        assert!(is_lost(&same[0]) && lost(&same) == 1);
        // A permit that was given back is free again.
        drop(same.remove(5));
        same.push(permits.enter(address(1), false));
        assert_eq!((lost(&same), is_lost(&other)), (1, false));
    }

    #[tokio::test]
    async fn an_eighth_of_the_permits_of_a_kind_is_a_crowd() {
        let permits = Permits::new(ALL, Arc::default());
        let mut held: Vec<_> = (0..7).map(|_| permits.enter(address(1), true)).collect();
        held.extend((0..31).map(|_| permits.enter(address(2), false)));
        assert!(!permits.is_crowded());
        held.push(permits.enter(address(3), false));
        assert!(permits.is_crowded());
        held.pop();
        held.push(permits.enter(address(1), true));
        assert!(permits.is_crowded());
    }

    #[tokio::test]
    async fn when_all_places_are_taken_the_address_with_most_pays() {
        let counts = Arc::<Counts>::default();
        let permits = Permits::new(ALL, counts.clone());
        let many: Vec<_> = (0..15).map(|_| permits.enter(address(0), false)).collect();
        let held: Vec<_> = (0..241)
            .map(|at| permits.enter(address(1 + (at % 200) as u8), false))
            .collect();
        assert_eq!(counts.unproven.load(Ordering::Relaxed), 256);
        let new = permits.enter(address(250), false);
        assert!(is_lost(&many[0]) && !is_lost(&new));
        assert_eq!((lost(&many), lost(&held)), (1, 0));
        assert_eq!(counts.unproven.load(Ordering::Relaxed), 256);
        drop((many, held, new));
        assert_eq!(counts.unproven.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn strangers_take_no_place_of_a_peers_address_or_of_loopback() {
        let permits = Permits::new(ALL, Arc::default());
        let peers: Vec<_> = (0..64).map(|_| permits.enter(address(9), true)).collect();
        let local = IpAddr::from([127, 0, 0, 1]);
        let local: Vec<_> = (0..1024).map(|_| permits.enter(local, false)).collect();
        let stranger = |at: usize| IpAddr::from([10, 1, (at / 250) as u8, (at % 250) as u8]);
        let strangers: Vec<_> = (0..1000)
            .map(|at| permits.enter(stranger(at), false))
            .collect();
        assert_eq!((lost(&peers), lost(&local)), (0, 0));
        assert_eq!(lost(&strangers), 1000 - 256);
        let one_more = permits.enter(address(9), true);
        assert!(is_lost(&peers[0]) && !is_lost(&one_more));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let of = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::2:3:4:5"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
