//! The transfer of leadership before a stop, or away from a node without disk space.
//!
//! Never transfers to a voter that lacks entries. Invariant: it ends within a bound, so that an operator's
//! stop does not hang.

use std::collections::BTreeSet;
use std::time::Duration;

use memkv_store::{MemberState, MemberTable, Role};

use crate::engine::handle::{Engine, Matched};
use crate::peer::client::Peers;
use crate::report::event::Event;
use crate::report::seldom::Lines;
use crate::report::timeline::Timeline;

/// Longest wait for a peer to be caught up and to take over.
pub(crate) const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the followers' logs are compared with the leader's.
const PAUSE: Duration = Duration::from_millis(10);

/// Where it is told that leadership is handed over.
pub(crate) type Told<'a> = (&'a Lines, &'a Timeline);

/// Transfers leadership to a voter that `fits`, within this time; after that the peers elect a leader by
/// themselves when this one is gone.
pub(crate) async fn hand_over(
    engine: &Engine,
    peers: &Peers,
    told: Told<'_>,
    within: Duration,
    fits: impl Fn(&u64) -> bool,
) {
    let transferred = transfer(engine, peers, told, fits);
    let _ = tokio::time::timeout(within, transferred).await;
}

/// Transfers leadership to the voter that has all of the log. One that lags must not get it: a
/// failed transfer has no undo and suppresses heartbeats (`raft_core.rs:708` of alpha.37).
async fn transfer(
    engine: &Engine,
    peers: &Peers,
    (lines, timeline): Told<'_>,
    fits: impl Fn(&u64) -> bool,
) {
    while engine.is_leader() {
        let me = peers.my_id();
        let report = engine.report();
        let (voters, matched) = (report.members.voters(), report.matched);
        match successor(&voters, &matched, |id| *id != me && fits(id)) {
            Some(to) => {
                let name = peers.name_of(to);
                if let Some(left_out) = lines.handing_over.say() {
                    tracing::info!(to = %name, left_out, "handing leadership over");
                }
                timeline.note(&Event::HandsOver { to: name });
                if engine.transfer_to(to).await.is_err() {
                    return;
                }
                let mut changes = engine.changes();
                while changes.now().leads() {
                    if !changes.changed().await {
                        return;
                    }
                }
                return;
            }
            None if voters.len() < 2 => return,
            None => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Whether the vote's heir of a leader that is to lose its own may be this voter: one that answers, and keeps its
/// vote, unless every other one that answers loses it too. In a cluster without writes a voter that is gone has all
/// of the log as well, and a transfer to it would stop the heartbeats.
pub(crate) fn may_follow(
    id: u64,
    me: u64,
    voters: &BTreeSet<u64>,
    table: &MemberTable,
    answers: impl Fn(u64) -> bool,
) -> bool {
    let keeps = |id: u64| {
        let row = table.row(id);
        row.is_some_and(|row| row.state == MemberState::Member && row.role == Role::Voter)
    };
    let stays = |other: &u64| *other != me && keeps(*other) && answers(*other);
    answers(id) && (keeps(id) || !voters.iter().any(stays))
}

/// The first voter that fits and has all of the leader's log.
fn successor(
    voters: &BTreeSet<u64>,
    matched: &Matched,
    fits: impl Fn(&u64) -> bool,
) -> Option<u64> {
    let fitting = voters.iter().copied().filter(fits);
    let mut fitting = fitting.filter(|id| matched.of_member(*id) == matched.last);
    fitting.next()
}

#[cfg(test)]
mod tests {
    use memkv_store::{BatchBuilder, MEMBERS_LEVEL, MemberChange, Store, SystemOp};

    use super::*;
    use crate::peer::fake::form_at;

    #[test]
    fn a_leader_that_leaves_is_followed_by_a_voter_that_answers_and_stays() {
        let mut store = Store::new();
        let leave = |node| SystemOp::Members(MemberChange::Leave { node });
        for (index, op) in (1..).zip([form_at(3, MEMBERS_LEVEL), leave(1), leave(2)]) {
            let mut batch = BatchBuilder::new(index);
            batch.system(&op);
            store.apply(index, &batch.finish(), &mut ());
        }
        let (table, voters) = (store.member_table(), BTreeSet::from([1, 2, 3]));
        let may = |id, alive: &[u64]| may_follow(id, 1, &voters, table, |id| alive.contains(&id));
        assert!(may(3, &[1, 2, 3]) && !may(2, &[1, 2, 3]), "2 leaves too");
        assert!(!may(3, &[1, 2]), "it is silent");
        assert!(may(2, &[1, 2]), "it is the only one that answers");
    }

    #[test]
    fn only_a_voter_with_all_of_the_log_may_take_over() {
        let matched = Matched {
            last: Some(9),
            members: vec![(1, Some(9)), (2, Some(8)), (3, Some(9)), (4, Some(9))],
        };
        let voters = BTreeSet::from([1, 2, 3]);
        let others = |id: &u64| *id != 1;
        assert_eq!(successor(&voters, &matched, others), Some(3), "2 lags");
        let roomy = |id: &u64| *id == 2;
        assert_eq!(successor(&voters, &matched, roomy), None);
        let learner = |id: &u64| *id == 4;
        assert_eq!(
            successor(&voters, &matched, learner),
            None,
            "it has no vote"
        );
    }
}
