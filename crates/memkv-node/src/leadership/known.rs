//! The leader as this node knows it: which node leads, when it was last heard, and since when this node
//! leads itself.
//!
//! Never asks a peer and never elects: the tracker and the messages that come in write it, everything
//! else reads it. Invariant: a leader that is shown here was heard within the longest silence, or is this
//! node.

use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::NodeConfig;
use crate::engine::handle::Engine;
use crate::leadership::cause::Causes;
use crate::leadership::leader::Leader;
use crate::leadership::suspicion::Suspicion;
use crate::peer::client::Peers;
use crate::sync::lock::Mutex;

/// Shared by everything that depends on which node leads.
pub(crate) struct Leadership {
    leader: watch::Sender<Option<Leader>>,
    /// When this node last accepted something from the leader that it follows.
    heard_at: Mutex<Option<Instant>>,
    /// Notified when the leader is heard after a silence.
    heard: Notify,
    /// Since when this node leads without interruption.
    led_since: Mutex<Option<Instant>>,
    /// Whether the leader's process seems dead.
    pub(crate) suspicion: Suspicion,
    /// Why leadership changes, for operators.
    pub(crate) causes: Causes,
    /// A follower that heard nothing for this long has started an election.
    longest_silence: Duration,
    /// How long a follower that heard its leader grants no vote.
    lease: Duration,
}

impl Leadership {
    pub(crate) fn new(config: &NodeConfig) -> Self {
        Self {
            leader: watch::Sender::new(None),
            heard_at: Mutex::default(),
            heard: Notify::new(),
            led_since: Mutex::default(),
            suspicion: Suspicion::default(),
            causes: Causes::default(),
            longest_silence: config.longest_silence(),
            lease: config.engine_timeouts().1,
        }
    }

    /// The leader that this node follows or is.
    pub(crate) fn leader(&self) -> Option<Leader> {
        *self.leader.borrow()
    }

    pub(crate) fn leader_id(&self) -> Option<u64> {
        self.leader.borrow().map(|leader| leader.id)
    }

    /// The name of the leader, for messages.
    pub(crate) fn leader_name(&self, peers: &Peers) -> Option<String> {
        self.leader_id().map(|id| peers.name_of(id))
    }

    /// Tells of every change of the leader.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Leader>> {
        self.leader.subscribe()
    }

    /// Shows this leader. Whether another one was shown before.
    pub(crate) fn show(&self, leader: Option<Leader>) -> bool {
        self.leader.send_if_modified(|current| {
            let changed = *current != leader;
            *current = leader;
            changed
        })
    }

    /// Notes whether this node leads now.
    pub(crate) fn note_leading(&self, leads: bool) {
        let mut since = self.led_since.lock();
        *since = leads.then(|| since.unwrap_or_else(Instant::now));
    }

    /// Notes that the leader was heard.
    pub(crate) fn hear(&self) {
        *self.heard_at.lock() = Some(Instant::now());
        if self.leader.borrow().is_none() {
            self.heard.notify_one();
        }
    }

    /// When this process last accepted something from a leader.
    pub(crate) fn heard_at(&self) -> Option<Instant> {
        *self.heard_at.lock()
    }

    /// Resolves when a leader is heard after a silence.
    pub(crate) async fn heard_again(&self) {
        self.heard.notified().await;
    }

    /// When a leader that stays silent counts as lost: an election by another node would have begun
    /// at the latest then. `None`: this process has not heard any.
    pub(crate) fn lost_at(&self) -> Option<Instant> {
        self.heard_at().map(|at| at + self.longest_silence)
    }

    /// How long a member has not answered this leader; zero for itself and while this node does not
    /// lead.
    pub(crate) fn silent_for(&self, engine: Option<&Engine>, me: u64, id: u64) -> Duration {
        let (Some(engine), Some(since)) = (engine, *self.led_since.lock()) else {
            return Duration::ZERO;
        };
        if id == me {
            return Duration::ZERO;
        }
        let silent = engine.acked_ago(id);
        silent.map_or(since.elapsed(), |silent| silent.min(since.elapsed()))
    }

    /// Whether this node hears a leader whose lease its engine has forgotten by a false alarm.
    pub(crate) fn owes_lease(&self) -> bool {
        let (leader, heard_at) = (self.leader(), self.heard_at());
        self.suspicion.owes_lease(leader, heard_at, self.lease)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::peer::fake::config;

    fn leadership() -> Leadership {
        Leadership::new(&config())
    }

    const LEADER: Leader = Leader { term: 2, id: 3 };

    #[tokio::test(start_paused = true)]
    async fn a_silent_leader_is_lost_after_the_longest_silence() {
        let leadership = leadership();
        assert_eq!(leadership.lost_at(), None, "none was heard");
        leadership.hear();
        let heard = Instant::now();
        assert_eq!(
            leadership.lost_at(),
            Some(heard + leadership.longest_silence)
        );
        tokio::time::advance(Duration::from_secs(1)).await;
        leadership.hear();
        assert!(leadership.lost_at() > Some(heard + leadership.longest_silence));
    }

    #[tokio::test]
    async fn only_a_leader_that_is_not_shown_wakes_the_tracker_when_it_is_heard() {
        let leadership = leadership();
        assert!(leadership.show(Some(LEADER)));
        leadership.hear();
        assert_eq!(leadership.heard_again().now_or_never(), None);
        assert!(leadership.show(None));
        leadership.hear();
        assert_eq!(leadership.heard_again().now_or_never(), Some(()));
    }

    #[test]
    fn a_leader_is_shown_as_new_once() {
        let leadership = leadership();
        let mut seen = leadership.subscribe();
        assert!(leadership.show(Some(LEADER)));
        assert!(!leadership.show(Some(LEADER)));
        assert!(seen.has_changed().unwrap());
        assert_eq!(
            (leadership.leader(), leadership.leader_id()),
            (Some(LEADER), Some(3))
        );
        assert_eq!(*seen.borrow_and_update(), Some(LEADER));
    }

    #[test]
    fn no_member_is_silent_for_a_node_that_does_not_lead() {
        let leadership = leadership();
        assert_eq!(leadership.silent_for(None, 1, 2), Duration::ZERO);
        leadership.note_leading(true);
        assert_eq!(leadership.silent_for(None, 1, 2), Duration::ZERO);
    }
}
