//! Notices at once when the leader's process dies, or that there is no leader when this process
//! starts, and begins an election without waiting for the election timeout.
//!
//! A follower keeps one request at the leader, which answers it only when it leads no more. If that
//! connection breaks, and then no process listens on the leader's address, the leader is dead: its
//! system says so by refusing the connection. A leader that is cut off, or whose machine is gone,
//! refuses nothing, and the election timeout decides as ever.
//!
//! Never deposes a leader on the word of one node: a follower that has noticed only forgets its own
//! lease and asks the others for a pre-vote, and they grant it if they have noticed too. A leader
//! that was refused from the start, as by a firewall, was never attended. Safety does not depend on
//! any of this: reads do not use leases (`read`).

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::watch;

use crate::engine::Raft;
use crate::node::{Inner, Leader};
use crate::peers::PeerError;
use crate::wire::{self, Kind};
use crate::{Frame, Lane};

/// How long a request stays at the leader before it is asked anew. What a broken connection leaves
/// behind there is gone after this time.
const ATTENDANCE: Duration = Duration::from_secs(3600);
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
/// Pause before the next try, if nobody leads by then.
const AGAIN_PAUSE: Duration = Duration::from_millis(150);
/// A process that has started gives a leader this long to be heard: one heartbeat.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Then it asks for votes this often; whoever has no majority by then waits for timeouts as ever.
const FIRST_TRIES: usize = 10;
/// No node has this id.
const NOBODY: u64 = 0;

/// Attends every leader until the node stops.
pub(crate) async fn run(inner: Arc<Inner>, raft: Raft) {
    let mut known = inner.leader.subscribe();
    tokio::select! {
        biased;
        heard = known.wait_for(Option::is_some) => if heard.is_err() { return },
        () = first(&inner, &raft) => {}
    }
    loop {
        let leader = *known.borrow_and_update();
        let me = inner.peers.my_id();
        let attended = async {
            match leader.filter(|leader| leader.id != me) {
                Some(leader) => {
                    death(&inner, leader).await;
                    campaign(&inner, &raft, leader).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = known.changed() => if changed.is_err() { return },
            () = attended => if known.changed().await.is_err() { return },
        }
    }
}

/// Asks for votes where no leader is heard after a start: all nodes were started, or a majority was
/// missing. Where somebody leads, the others grant no pre-vote.
async fn first(inner: &Inner, raft: &Raft) {
    tokio::time::sleep(FIRST_PAUSE + STAGGER * rank(inner, raft, NOBODY)).await;
    for _ in 0..FIRST_TRIES {
        if is_voter(inner, raft) {
            // Fails only if the engine has stopped.
            let _ = raft.trigger().elect(true).await;
        }
        tokio::time::sleep(AGAIN_PAUSE).await;
    }
}

/// Whether this node has a vote in the membership that its log tells.
fn is_voter(inner: &Inner, raft: &Raft) -> bool {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let mut voters = metrics.membership_config.voter_ids();
    voters.any(|id| id == inner.peers.my_id())
}

/// Resolves when the leader's process is dead.
async fn death(inner: &Inner, leader: Leader) {
    let mut was_attended = false;
    loop {
        let request = inner.peers.envelope(Kind::Attend, leader.id).freeze();
        let frame = Frame(vec![request]);
        let asked = inner
            .peers
            .call(leader.id, Lane::Control, frame, ATTENDANCE + ANSWER_GRACE)
            .await;
        match asked {
            // The link pauses by itself before it connects again.
            Err(PeerError::Lost(_)) => was_attended = true,
            Err(PeerError::NoListener(_)) if was_attended => return,
            Ok(_)
            | Err(PeerError::Unreachable(_) | PeerError::NoListener(_) | PeerError::Refused(_)) => {
                tokio::time::sleep(RETRY_PAUSE).await
            }
        }
    }
}

/// Asks for votes until another leader is known, or none: then the caller drops this.
async fn campaign(inner: &Inner, raft: &Raft, dead: Leader) {
    tracing::info!(
        node = %inner.peers.me.name,
        leader = %inner.peers.name_of(dead.id),
        "the leader's process is gone"
    );
    // To nobody, a transfer of leadership is just the end of the lease of this vote's leader.
    let vote = raft.server_metrics().borrow_watched().vote;
    if (vote.leader_id.term, vote.leader_id.node_id) != (dead.term, dead.id) {
        // Another election is under way, or over.
        return;
    }
    let forget = TransferLeaderRequest::new(vote, NOBODY, None);
    // Both fail only if the engine has stopped.
    let _ = raft.handle_transfer_leader(forget).await;
    tokio::time::sleep(NOTICE_PAUSE + STAGGER * rank(inner, raft, dead.id)).await;
    loop {
        let _ = raft.trigger().elect(true).await;
        tokio::time::sleep(AGAIN_PAUSE).await;
    }
}

/// How many voters with smaller ids there are besides the one that is dead.
fn rank(inner: &Inner, raft: &Raft, dead: u64) -> u32 {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let me = inner.peers.my_id();
    let before = metrics.membership_config.voter_ids();
    let before = before.filter(|id| *id < me && *id != dead).count();
    u32::try_from(before).unwrap_or(u32::MAX)
}

/// Answers when this node does not lead, or no more, or after a long time.
pub(crate) async fn receive(mut known: watch::Receiver<Option<Leader>>, me: u64) -> Frame {
    let leads = |leader: &Option<Leader>| leader.is_some_and(|leader| leader.id == me);
    // It fails only when the node stops.
    let _ = tokio::time::timeout(ATTENDANCE, known.wait_for(|leader| !leads(leader))).await;
    wire::ok(|_| {})
}
