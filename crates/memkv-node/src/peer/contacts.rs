//! When each peer was heard last, how long the way to it and back takes, and how much was sent: for operators.
//! Decides nothing. It has a row for each id that was ever a member's while the process ran.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock::Mutex;

/// Calls wait for disks and for entries too, so the shortest of so long a time is taken for the way.
const WINDOW: Duration = Duration::from_secs(10);

/// A peer, as this node has heard it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Contact {
    /// Its last answer, or its last request.
    pub(crate) heard_at: Option<Instant>,
    /// The last call got no answer.
    pub(crate) fails: bool,
    /// Bytes of requests that were sent to it.
    pub(crate) sent: u64,
    /// Bytes of its answers and requests.
    pub(crate) received: u64,
    /// The shortest call of this window, and of the one before.
    shortest: [Option<Duration>; 2],
    window: Option<Instant>,
}

impl Contact {
    /// The time to the peer and back; none before it has answered.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.shortest.into_iter().flatten().min()
    }

    fn took(&mut self, now: Instant, took: Duration) {
        let window = *self.window.get_or_insert(now);
        if now.saturating_duration_since(window) >= WINDOW {
            self.window = Some(now);
            self.shortest = [None, self.shortest[0]];
        }
        let shortest = &mut self.shortest[0];
        *shortest = Some(shortest.map_or(took, |known| known.min(took)));
    }
}

/// The contacts of a node, by id.
#[derive(Default)]
pub(crate) struct Contacts(Mutex<BTreeMap<u64, Contact>>);

impl Contacts {
    /// A request of so many bytes is sent.
    pub(crate) fn sent(&self, to: u64, bytes: usize) {
        let mut contacts = self.0.lock();
        contacts.entry(to).or_default().sent += bytes as u64;
    }

    /// A call that began at this time was answered with so many bytes, or not at all.
    pub(crate) fn ended(&self, to: u64, began: Instant, answer: Option<usize>) {
        let now = Instant::now();
        let mut contacts = self.0.lock();
        let contact = contacts.entry(to).or_default();
        contact.fails = answer.is_none();
        if let Some(bytes) = answer {
            contact.received += bytes as u64;
            contact.heard_at = Some(now);
            contact.took(now, now.saturating_duration_since(began));
        }
    }

    /// A member has sent a request of so many bytes.
    pub(crate) fn heard(&self, from: u64, bytes: usize) {
        let mut contacts = self.0.lock();
        let contact = contacts.entry(from).or_default();
        contact.received += bytes as u64;
        contact.heard_at = Some(Instant::now());
    }

    /// What is known of a peer.
    pub(crate) fn of(&self, id: u64) -> Contact {
        self.0.lock().get(&id).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_round_trip_is_the_shortest_of_the_last_calls() {
        let contacts = Contacts::default();
        assert_eq!(contacts.of(2), Contact::default());
        contacts.sent(2, 100);
        for ms in [30, 2, 40] {
            let began = Instant::now();
            tokio::time::advance(Duration::from_millis(ms)).await;
            contacts.ended(2, began, Some(10));
        }
        let contact = contacts.of(2);
        assert_eq!((contact.sent, contact.received), (100, 30));
        assert_eq!(contact.round_trip(), Some(Duration::from_millis(2)));
        for _ in 0..2 {
            tokio::time::advance(WINDOW).await;
            let began = Instant::now();
            tokio::time::advance(Duration::from_millis(5)).await;
            contacts.ended(2, began, Some(0));
        }
        let round_trip = contacts.of(2).round_trip();
        assert_eq!(
            round_trip,
            Some(Duration::from_millis(5)),
            "the way is longer now"
        );
        contacts.ended(2, Instant::now(), None);
        assert!(contacts.of(2).fails && contacts.of(2).heard_at < Some(Instant::now() + WINDOW));
        contacts.heard(3, 7);
        assert_eq!((contacts.of(3).received, contacts.of(3).fails), (7, false));
    }
}
