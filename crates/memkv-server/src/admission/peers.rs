//! The connections of peers after their upgrade: bounded for each name and in all, so that no peer can
//! use up the node's descriptors. When there is no room the oldest connection of the name with most
//! ends, never the new one: a peer that connects again is let in though its old connections have not been
//! missed yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use memkv_node::lock::Mutex;
use tokio::sync::Notify;

use super::Counts;

/// Connections of one peer: six lanes, each of which may have been opened anew three times before the
/// first is missed.
const MOST_OF_ONE: usize = 24;

#[derive(Debug, Default)]
struct Open {
    last: u64,
    /// In the order of their arrival.
    held: BTreeMap<u64, (String, Arc<Notify>)>,
    of: HashMap<String, usize>,
}

impl Open {
    fn remove(&mut self, number: u64, counts: &Counts) {
        let Some((name, ended)) = self.held.remove(&number) else {
            return;
        };
        counts.peers.fetch_sub(1, Ordering::Relaxed);
        // One that has ended by itself does not listen any more.
        ended.notify_one();
        if let Some(count) = self.of.get_mut(&name) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&name);
            }
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Peers {
    most: usize,
    open: Arc<Mutex<Open>>,
    counts: Arc<Counts>,
}

impl Peers {
    pub(super) fn new(most: usize, counts: Arc<Counts>) -> Self {
        Self {
            most: most.max(1),
            open: Arc::default(),
            counts,
        }
    }

    /// Takes a permit, which another connection loses if there is none.
    pub(super) fn enter(&self, name: &str) -> PeerPermit {
        let mut open = self.open.lock();
        let loser = if open.of.get(name).is_some_and(|count| *count >= MOST_OF_ONE) {
            Some(name.to_owned())
        } else if open.held.len() >= self.most {
            let most = open.of.iter().max_by_key(|(name, count)| (**count, *name));
            most.map(|(name, _)| name.clone())
        } else {
            None
        };
        let of_loser = |(_, (name, _)): &(&u64, &(String, _))| Some(name) == loser.as_ref();
        let oldest = open.held.iter().find(of_loser).map(|(number, _)| *number);
        if let Some(number) = oldest {
            open.remove(number, &self.counts);
        }
        open.last += 1;
        let number = open.last;
        let ended = Arc::new(Notify::new());
        open.held.insert(number, (name.to_owned(), ended.clone()));
        *open.of.entry(name.to_owned()).or_default() += 1;
        self.counts.peers.fetch_add(1, Ordering::Relaxed);
        PeerPermit {
            ended,
            counted: Some((self.open.clone(), self.counts.clone(), number)),
        }
    }
}

/// A permit; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct PeerPermit {
    ended: Arc<Notify>,
    counted: Option<(Arc<Mutex<Open>>, Arc<Counts>, u64)>,
}

impl PeerPermit {
    /// A permit that never ends.
    pub(super) fn uncounted() -> Self {
        Self {
            ended: Arc::default(),
            counted: None,
        }
    }

    /// Waits until another connection has got the permit.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
    }
}

impl Drop for PeerPermit {
    fn drop(&mut self) {
        if let Some((open, counts, number)) = &self.counted {
            open.lock().remove(*number, counts);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn has_ended(permit: &PeerPermit) -> bool {
        permit.ended().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_connection_of_a_peer_with_too_many_ends() {
        let counts = Arc::<Counts>::default();
        let peers = Peers::new(100, counts.clone());
        let other = peers.enter("n3");
        let permits: Vec<_> = (0..=MOST_OF_ONE).map(|_| peers.enter("n2")).collect();
        assert!(has_ended(&permits[0]) && !has_ended(&permits[1]) && !has_ended(&other));
        assert_eq!(counts.peers.load(Ordering::Relaxed), MOST_OF_ONE + 1);
        drop((permits, other));
        assert_eq!(counts.peers.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn many_names_are_bounded_together() {
        let counts = Arc::<Counts>::default();
        let peers = Peers::new(10, counts.clone());
        let two = [peers.enter("a"), peers.enter("a")];
        let names: Vec<_> = (0..9).map(|at| peers.enter(&format!("n{at}"))).collect();
        assert_eq!(counts.peers.load(Ordering::Relaxed), 10);
        assert!(has_ended(&two[0]) && !has_ended(&two[1]));
        assert!(!names.iter().any(has_ended));
    }
}
