//! KeyEvents at once when the leader's process dies, or that there is no leader when this process
//! starts, and begins an election without waiting for the election timeout.
//!
//! A follower keeps one request at the leader, which answers it only when it leads no more. If no
//! process listens on the leader's address, the leader is dead: its system says so by refusing a
//! connection, whichever lane asked for one and however short the leader was followed. A leader that
//! is cut off, or whose machine is gone, refuses nothing, and the election timeout decides as ever.
//!
//! Never deposes a leader on the word of one node: a follower that has noticed only forgets its own
//! lease and asks the others for a pre-vote, and they grant it if they have noticed too. An alarm is
//! over once the leader is heard again: the lease then counts as before, for pre-votes and votes. A
//! refusal that a leader's later messages contradict is a firewall's, and counts no more until a
//! connection works. Safety does not depend on any of this: reads do not use leases (`read`).

use std::sync::Arc;
use std::time::Duration;

use crate::sync::lock::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::engine::handle::Engine;
use crate::node::{Inner, Leader};
use crate::peer::client::PeerError;
use crate::peer::message::{self, Kind};
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
/// What a dead process had sent is read within this, also on a busy machine. What comes later was sent
/// by one that lives.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A process that has started gives a leader this long to be heard: one heartbeat.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Then it asks for votes this often; a node that has no majority by then waits for timeouts as ever.
const FIRST_TRIES: usize = 10;

/// Attends every leader until the node stops.
pub(crate) async fn run(inner: Arc<Inner>, engine: Engine) {
    let mut known = inner.leader.subscribe();
    tokio::select! {
        biased;
        heard = known.wait_for(Option::is_some) => if heard.is_err() { return },
        () = first(&inner, &engine) => {}
    }
    loop {
        let leader = *known.borrow_and_update();
        let me = inner.peers.my_id();
        let watched = async {
            match leader.filter(|leader| leader.id != me) {
                Some(leader) => watch_leader(&inner, &engine, leader).await,
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
async fn first(inner: &Inner, engine: &Engine) {
    tokio::time::sleep(FIRST_PAUSE + STAGGER * rank(inner, engine, None)).await;
    for _ in 0..FIRST_TRIES {
        if is_voter(inner, engine) {
            // Fails only if the engine has stopped.
            let _ = engine.elect().await;
        }
        tokio::time::sleep(AGAIN_PAUSE).await;
    }
}

/// Whether this node has a vote in the membership that its log tells.
fn is_voter(inner: &Inner, engine: &Engine) -> bool {
    engine.voters().contains(&inner.peers.my_id())
}

/// What this node suspects of the leader that it follows.
#[derive(Default)]
pub(crate) struct Suspicion(Mutex<Option<Suspected>>);

#[derive(Clone, Copy)]
struct Suspected {
    leader: Leader,
    /// When its process first seemed dead,
    first: Instant,
    /// and last.
    last: Instant,
}

impl Suspicion {
    /// The leader's process seems dead. Whether that is news.
    fn raise(&self, leader: Leader) -> bool {
        let now = Instant::now();
        let mut suspected = self.0.lock();
        let before = suspected.filter(|suspected| suspected.leader == leader);
        *suspected = Some(Suspected {
            leader,
            first: before.map_or(now, |before| before.first),
            last: now,
        });
        before.is_none()
    }

    /// Whether this leader was heard after it last seemed dead.
    fn is_over(&self, leader: Leader, heard_at: Option<Instant>) -> bool {
        let suspected = *self.0.lock();
        suspected.is_some_and(|suspected| {
            suspected.leader == leader && heard_at.is_some_and(|at| at > suspected.last)
        })
    }

    /// Whether this leader was heard so long after it seemed dead that its process lives.
    fn is_contradicted(&self, leader: Leader, heard_at: Option<Instant>) -> bool {
        let suspected = *self.0.lock();
        suspected.is_some_and(|suspected| {
            suspected.leader == leader
                && heard_at.is_some_and(|at| at > suspected.first + LAST_WORDS)
        })
    }

    /// Whether this node owes `leader` the lease that its engine has forgotten: the alarm was false,
    /// and the leader was heard within `lease`.
    fn owes_lease(
        &self,
        leader: Option<Leader>,
        heard_at: Option<Instant>,
        lease: Duration,
    ) -> bool {
        leader.is_some_and(|leader| self.is_over(leader, heard_at))
            && heard_at.is_some_and(|at| at.elapsed() < lease)
    }
}

/// Whether this node hears a leader whose lease its engine has forgotten by a false alarm.
pub(crate) fn owes_lease(inner: &Inner) -> bool {
    let leader = *inner.leader.borrow();
    let lease = inner.config.engine_timeouts().1;
    inner.suspicion.owes_lease(leader, inner.heard_at(), lease)
}

/// Watches the leader's process, and asks for votes whenever it is dead.
async fn watch_leader(inner: &Inner, engine: &Engine, leader: Leader) {
    // By a connection that worked since the refusals were contradicted, or before any were.
    let mut trusts_refusals = true;
    loop {
        death(inner, leader, &mut trusts_refusals).await;
        if inner.suspicion.raise(leader)
            && let Some(left_out) = inner.lines.deaths.say()
        {
            tracing::info!(
                node = %inner.peers.me.name,
                leader = %inner.peers.name_of(leader.id),
                left_out,
                "the leader's process is gone"
            );
        }
        tokio::select! {
            biased;
            () = heard_again(inner, leader) => {}
            () = campaign(inner, engine, leader) => {}
        }
        if inner.suspicion.is_contradicted(leader, inner.heard_at()) {
            trusts_refusals = false;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Resolves when the leader's process is dead.
async fn death(inner: &Inner, leader: Leader, trusts_refusals: &mut bool) {
    let mut refusals = inner.peers.refusals();
    loop {
        let request = inner.peers.envelope(Kind::Attend, leader.id).freeze();
        let asked = inner.peers.call(
            leader.id,
            Lane::Control,
            Frame(vec![request]),
            LONGEST_WATCH + ANSWER_GRACE,
        );
        let refused = async {
            // The sender lives as long as `inner`.
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
            Err(PeerError::Unreachable(_) | PeerError::NoListener(_) | PeerError::Refused(_)) => {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Resolves when the leader has been heard since it seemed dead.
async fn heard_again(inner: &Inner, leader: Leader) {
    while !inner.suspicion.is_over(leader, inner.heard_at()) {
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Asks for votes until the caller drops this, or returns as another election is under way.
async fn campaign(inner: &Inner, engine: &Engine, dead: Leader) {
    if !engine.forget_leader(dead).await {
        return;
    }
    tokio::time::sleep(NOTICE_PAUSE + STAGGER * rank(inner, engine, Some(dead.id))).await;
    loop {
        // It fails only if the engine has stopped.
        let _ = engine.elect().await;
        tokio::time::sleep(AGAIN_PAUSE).await;
    }
}

/// How many voters with smaller ids there are besides the one that is dead.
fn rank(inner: &Inner, engine: &Engine, dead: Option<u64>) -> u32 {
    let me = inner.peers.my_id();
    let voters = engine.voters().into_iter();
    let before = voters.filter(|id| *id < me && Some(*id) != dead).count();
    u32::try_from(before).unwrap_or(u32::MAX)
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
    use super::*;

    const LEADER: Leader = Leader { term: 3, id: 2 };
    const LEASE: Duration = Duration::from_millis(600);
    const MOMENT: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_is_heard_after_a_false_alarm_has_its_lease_again() {
        let suspicion = Suspicion::default();
        let heard = Some(Instant::now());
        let owes = |leader, heard| suspicion.owes_lease(leader, heard, LEASE);
        assert!(!owes(Some(LEADER), heard), "without an alarm, the engine's");
        tokio::time::advance(MOMENT).await;
        assert!(suspicion.raise(LEADER));
        assert!(!owes(Some(LEADER), heard), "it was heard before the alarm");
        tokio::time::advance(MOMENT).await;
        let heard = Some(Instant::now());
        assert!(owes(Some(LEADER), heard));
        assert!(!owes(Some(Leader { term: 4, id: 1 }), heard), "another one");
        assert!(!owes(None, heard), "no leader any more");
        tokio::time::advance(LEASE).await;
        assert!(!owes(Some(LEADER), heard), "it is silent for its lease");
        tokio::time::advance(MOMENT).await;
        let heard = Some(Instant::now());
        tokio::time::advance(MOMENT).await;
        assert!(!suspicion.raise(LEADER), "told once");
        assert!(!owes(Some(LEADER), heard), "dead after all");
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_comes_long_after_an_alarm_was_sent_by_a_living_process() {
        let suspicion = Suspicion::default();
        suspicion.raise(LEADER);
        tokio::time::advance(LAST_WORDS).await;
        let last_words = Some(Instant::now());
        assert!(suspicion.is_over(LEADER, last_words));
        assert!(!suspicion.is_contradicted(LEADER, last_words));
        suspicion.raise(LEADER);
        tokio::time::advance(MOMENT).await;
        assert!(suspicion.is_contradicted(LEADER, Some(Instant::now())));
    }
}
