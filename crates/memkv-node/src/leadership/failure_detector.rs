//! Notices at once when the leader's process dies, or that there is no leader when this process
//! starts, and begins an election without waiting for the election timeout.
//!
//! A follower keeps one request at the leader, which answers it only when it leads no more. If no
//! process listens on the leader's address, the leader is dead: its system says so by refusing a
//! connection, whichever lane asked for one and however short the leader was followed. A leader that
//! is cut off, or whose machine is gone, refuses nothing, and the election timeout decides as ever.
//!
//! Never deposes a leader on the evidence of one node: a follower that has detected it only forgets its own
//! lease and asks the others for a pre-vote, and they grant it if they have detected it too. An alarm is
//! over once the leader is heard again: the lease then counts as before, for pre-votes and votes. A
//! refusal that a leader's later messages contradict is a firewall's, and counts no more until a
//! connection works. Safety does not depend on any of this: reads do not use leases (`read`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::engine::handle::Engine;
use crate::leadership::cause::Cause;
use crate::leadership::known::Leadership;
use crate::leadership::leader::Leader;
use crate::peer::client::{PeerError, Peers};
use crate::peer::message::{self, Kind};
use crate::report::event::Event;
use crate::report::seldom::Lines;
use crate::report::timeline::Timeline;
use crate::{Frame, Lane};

/// How long a request stays at the leader before it is asked anew. What a broken connection leaves
/// behind there is gone after this time.
const LONGEST_WATCH: Duration = Duration::from_secs(3600);
/// How much longer the follower waits for that answer.
const ANSWER_GRACE: Duration = Duration::from_secs(60);
/// Pause before a leader is asked again that did not take the request.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Time for the other followers to notice the same: their next attempts to connect are at most
/// 20 ms later (`memkv-server`, `peer/link.rs`).
const NOTICE_PAUSE: Duration = Duration::from_millis(30);
/// Followers start one after the other, so that votes are not split: an election takes a round of
/// pre-votes and two of fsyncs, 35 ms on a busy machine.
const STAGGER: Duration = Duration::from_millis(75);
/// Pause before the next try, if there is no leader by then.
const AGAIN_PAUSE: Duration = Duration::from_millis(150);
/// How often a node that asks for votes looks whether the leader was heard after all.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// A process that has started gives a leader this long to be heard: one heartbeat.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Then it asks for votes this often; a node that has no majority by then waits for timeouts as ever.
const FIRST_TRIES: usize = 10;

/// Watches the process of the leader.
pub(crate) struct FailureDetector {
    pub(crate) peers: Arc<Peers>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) lines: Arc<Lines>,
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) engine: Engine,
}

impl FailureDetector {
    /// Watches every leader until the node stops.
    pub(crate) async fn run(self) {
        let mut known = self.leadership.subscribe();
        tokio::select! {
            biased;
            heard = known.wait_for(Option::is_some) => if heard.is_err() { return },
            () = self.first() => {}
        }
        loop {
            let leader = *known.borrow_and_update();
            let me = self.peers.my_id();
            let watched = async {
                match leader.filter(|leader| leader.id != me) {
                    Some(leader) => self.watch_leader(leader).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = known.changed() => if changed.is_err() { return },
                () = watched => {}
            }
        }
    }

    /// Asks for votes where no leader is heard after a start: all nodes were started, or a majority was
    /// missing. Where there is a leader, the others grant no pre-vote.
    async fn first(&self) {
        tokio::time::sleep(FIRST_PAUSE + STAGGER * self.rank(None)).await;
        for _ in 0..FIRST_TRIES {
            if self.is_voter() {
                self.leadership.causes.note(Cause::Start);
                // Fails only if the engine has stopped.
                let _ = self.engine.elect().await;
            }
            tokio::time::sleep(AGAIN_PAUSE).await;
        }
    }

    /// Whether this node has a vote in the membership that its log tells.
    fn is_voter(&self) -> bool {
        self.engine.voters().contains(&self.peers.my_id())
    }

    /// Watches the leader's process, and asks for votes whenever it is dead.
    async fn watch_leader(&self, leader: Leader) {
        // By a connection that worked since the refusals were contradicted, or before any were.
        let mut trusts_refusals = true;
        loop {
            self.death(leader, &mut trusts_refusals).await;
            if self.leadership.suspicion.raise(leader) {
                self.tell_death(leader.id);
            }
            tokio::select! {
                biased;
                () = self.heard_again(leader) => {}
                () = self.campaign(leader) => {}
            }
            if self
                .leadership
                .suspicion
                .is_contradicted(leader, self.leadership.heard_at())
            {
                trusts_refusals = false;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Tells the operator that the leader's process is dead.
    fn tell_death(&self, leader: u64) {
        self.leadership.causes.note(Cause::ProcessGone { leader });
        let name = self.peers.name_of(leader);
        if let Some(left_out) = self.lines.deaths.say() {
            let node = &self.peers.me.name;
            tracing::info!(%node, leader = %name, left_out, "the leader's process is gone");
        }
        self.timeline.note(&Event::LeaderGone { leader: name });
    }

    /// Resolves when the leader's process is dead.
    async fn death(&self, leader: Leader, trusts_refusals: &mut bool) {
        let mut refusals = self.peers.refusals();
        loop {
            let request = self.peers.envelope(Kind::Attend, leader.id).freeze();
            let asked = self.peers.call(
                leader.id,
                Lane::Control,
                Frame(vec![request]),
                LONGEST_WATCH + ANSWER_GRACE,
            );
            let refused = async {
                // The sender lives as long as `peers`.
                while refusals.changed().await.is_ok() {
                    if *refusals.borrow_and_update() == leader.id {
                        return;
                    }
                }
            };
            let asked = tokio::select! {
                biased;
                asked = asked => asked,
                () = refused, if *trusts_refusals => return,
            };
            match asked {
                // The link pauses by itself before it connects again.
                Err(PeerError::Lost(_)) => *trusts_refusals = true,
                Err(PeerError::NoListener(_)) if *trusts_refusals => return,
                Ok(_) => {
                    *trusts_refusals = true;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(
                    PeerError::Unreachable(_) | PeerError::NoListener(_) | PeerError::Refused(_),
                ) => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Resolves when the leader has been heard since it seemed dead.
    async fn heard_again(&self, leader: Leader) {
        while !self
            .leadership
            .suspicion
            .is_over(leader, self.leadership.heard_at())
        {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Asks for votes until the caller drops this, or returns as another election is under way.
    async fn campaign(&self, dead: Leader) {
        if !self.engine.forget_leader(dead).await {
            return;
        }
        tokio::time::sleep(NOTICE_PAUSE + STAGGER * self.rank(Some(dead.id))).await;
        loop {
            let leader = dead.id;
            self.leadership.causes.note(Cause::ProcessGone { leader });
            // It fails only if the engine has stopped.
            let _ = self.engine.elect().await;
            tokio::time::sleep(AGAIN_PAUSE).await;
        }
    }

    /// This node's turn among the voters.
    fn rank(&self, dead: Option<u64>) -> u32 {
        rank(self.engine.voters(), self.peers.my_id(), dead)
    }
}

/// How many voters with smaller ids there are besides the one that is dead.
fn rank(voters: Vec<u64>, me: u64, dead: Option<u64>) -> u32 {
    let before = voters
        .into_iter()
        .filter(|id| *id < me && Some(*id) != dead);
    u32::try_from(before.count()).unwrap_or(u32::MAX)
}

/// Answers when this node does not lead, or no more, or after a long time.
pub(crate) async fn receive(mut known: watch::Receiver<Option<Leader>>, me: u64) -> Frame {
    let leads = |leader: &Option<Leader>| leader.is_some_and(|leader| leader.id == me);
    // It fails only when the node stops.
    let _ = tokio::time::timeout(LONGEST_WATCH, known.wait_for(|leader| !leads(leader))).await;
    message::ok(|_| {})
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn voters_stand_for_election_one_after_the_other_without_the_dead_one() {
        let voters = || vec![1, 2, 3, 5];
        let turns = [2, 3, 5].map(|me| rank(voters(), me, Some(1)));
        assert_eq!(turns, [0, 1, 2]);
        assert_eq!(rank(voters(), 3, None), 2, "after a start of all");
    }

    #[tokio::test(start_paused = true)]
    async fn the_watch_is_answered_when_the_leader_leads_no_more() {
        let known = watch::Sender::new(Some(Leader { term: 3, id: 1 }));
        let mut watched = Box::pin(receive(known.subscribe(), 1));
        assert!(watched.as_mut().now_or_never().is_none(), "it leads");
        known.send_replace(Some(Leader { term: 4, id: 1 }));
        assert!(watched.as_mut().now_or_never().is_none(), "in a newer term");
        known.send_replace(Some(Leader { term: 5, id: 2 }));
        assert!(watched.now_or_never().is_some());
        assert!(receive(known.subscribe(), 1).now_or_never().is_some());
    }
}
