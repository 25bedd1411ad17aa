//! Confirms that this node still leads, by asking as few peers as a majority takes which node they have
//! voted for last (ReadIndex, Raft dissertation, section 6.4).
//!
//! The engine confirms too, with a round of heartbeats that passes both nodes' cores and waits for the
//! followers' disks. It confirms the first read of each leadership here; from then on the peers are asked
//! past it, because all that a confirmation needs is what [`Published`](crate::read::published) shows. Never
//! confirms while the membership is changing. Any other case falls back to the engine.
//!
//! Why it is linearizable: let a read arrive, then this node see its own vote for its own leadership
//! `L`, then a majority of the voters answer that they have voted for `L` last. A node that
//! led after `L` before the read arrived had the votes of a majority by then, which shares a node with
//! those that have answered; that one would have said so. So every write that was acknowledged before is one of `L`, or
//! older. That an entry of `L` is committed is learned from this node alone: from its store, from its
//! messages, and both are in the index.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::sync::lock::Mutex;
use bytes::BufMut;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::leadership::leader::Leader;
use crate::peer::client::{PeerError, Peers};
use crate::peer::encoding::{DecodeError, Reader};
use crate::peer::message::{self, Kind};
use crate::read::published::Published;
use crate::replica::Replica;
use crate::{Frame, Lane};

/// After this, all others are asked too: a peer that is well answers within a fraction of it, and one
/// that is paused or cut off must cost a read no more than that.
const HEDGE: Duration = Duration::from_millis(5);
/// A peer that has not answered within this is not waited for. If too few have, the engine is asked
/// instead.
const GIVE_UP: Duration = Duration::from_millis(50);

/// How long it takes at most to learn whether the peers confirm.
pub(crate) const LONGEST: Duration = HEDGE.saturating_add(GIVE_UP);

/// A leadership of this node that the engine has confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ConfirmedTerm {
    leader: Leader,
    /// The read index that the engine gave: its first entry, or a later one, and everything that was
    /// committed before.
    from: u64,
    /// The voters that agreed the last time, which are asked first: slow or absent ones cost one round.
    agreed: Vec<u64>,
}

/// The leadership that the engine has confirmed last.
#[derive(Default)]
pub(crate) struct Confirmer(Mutex<Option<ConfirmedTerm>>);

/// The state of this node when a round begins.
struct View {
    /// Last applied index.
    applied: u64,
    /// The voters of each part of the applied membership, and the index of its entry.
    voters: Vec<BTreeSet<u64>>,
    settled_at: u64,
    /// The published state by then, or later.
    membership: u64,
    commit: u64,
    vote: Option<Leader>,
    /// Members without a vote.
    #[cfg(memkv_bugs)]
    learners: BTreeSet<u64>,
}

/// The voters to ask, and the read index if they agree.
#[derive(Debug, PartialEq, Eq)]
struct QuorumCheck {
    leader: Leader,
    index: u64,
    others: Vec<u64>,
    /// How many of them make a majority with this node.
    needed: usize,
}

type Answer = Result<bool, PeerError>;

impl Confirmer {
    /// The read index, confirmed by the peers; `None` if the engine must be asked.
    pub(crate) async fn ask_peers(
        &self,
        peers: &Peers,
        replica: &Replica,
        published: &Published,
    ) -> Option<u64> {
        let confirmed = self.0.lock().clone()?;
        let check = quorum_check(&confirmed, view(replica, published)?)?;
        let ask = |id| ask(peers, id, check.leader);
        let agreed = collect_votes(&check, ask).await;
        let confirmed = agreed.map(|agreed| ConfirmedTerm {
            agreed,
            ..confirmed
        });
        let is_confirmed = confirmed.is_some();
        *self.0.lock() = confirmed;
        is_confirmed.then_some(check.index)
    }

    /// Notes what the engine has confirmed: `before` and `after` are this node's vote at both ends.
    /// If they are the same, it was for that leadership: it can neither be an older one, whose vote
    /// would have been another, nor a newer one, which begins with a new vote.
    pub(crate) fn note(&self, before: Option<Leader>, after: Option<Leader>, index: u64) {
        *self.0.lock() = before
            .filter(|_| before == after)
            .map(|leader| ConfirmedTerm {
                leader,
                from: index,
                agreed: Vec::new(),
            });
    }
}

fn view(replica: &Replica, published: &Published) -> Option<View> {
    // The published state covers everything that a read has seen here or a client was told.
    let state = replica.applied_state();
    let (applied, voters, settled_at) = {
        let membership = &state.membership;
        let settled_at = membership.index();
        let voters = membership.configs.clone();
        (state.last_applied?.index, voters, settled_at)
    };
    Some(View {
        applied,
        voters,
        settled_at,
        membership: published.membership(),
        commit: published.commit(),
        vote: published.vote(),
        #[cfg(memkv_bugs)]
        learners: state.membership.learners.clone(),
    })
}

/// The check of this leadership; nothing if this node has voted for another one, or while a change of
/// the voters is under way.
fn quorum_check(confirmed: &ConfirmedTerm, view: View) -> Option<QuorumCheck> {
    let [voters] = &view.voters[..] else {
        return None;
    };
    // Changes of membership before `from` are applied with it; those after it are published.
    let settled = view.applied >= confirmed.from && view.membership <= view.settled_at;
    #[cfg(memkv_bugs)]
    let settled = settled || crate::bugs::active(crate::bugs::Bug::ConfirmUnsettled);
    if !settled || view.vote != Some(confirmed.leader) {
        return None;
    }
    let own = confirmed.leader.id;
    let mut others: Vec<u64> = voters.iter().copied().filter(|id| *id != own).collect();
    #[cfg(memkv_bugs)]
    if crate::bugs::active(crate::bugs::Bug::ConfirmWithoutVote) {
        others.extend(&view.learners);
    }
    others.sort_by_key(|id| !confirmed.agreed.contains(id));
    let majority = voters.len() / 2 + 1;
    let index = confirmed.from.max(view.applied).max(view.commit);
    #[cfg(memkv_bugs)]
    let index = if crate::bugs::active(crate::bugs::Bug::ForgetCommit) {
        confirmed.from
    } else {
        index
    };
    Some(QuorumCheck {
        leader: confirmed.leader,
        index,
        needed: majority - usize::from(voters.contains(&own)),
        others,
    })
}

/// Asks as many voters as are needed, and the others if one of those is slow or absent; returns those that
/// agree.
/// Nothing if one has voted for another leader, or too few answer.
async fn collect_votes<F>(check: &QuorumCheck, ask: impl Fn(u64) -> F) -> Option<Vec<u64>>
where
    F: Future<Output = (u64, Answer)>,
{
    let (first, rest) = check.others.split_at_checked(check.needed)?;
    let mut rest = rest.iter().copied();
    let mut answers: FuturesUnordered<F> = first.iter().copied().map(&ask).collect();
    let mut agreed = Vec::with_capacity(check.needed);
    let hedge = tokio::time::sleep(HEDGE);
    tokio::pin!(hedge);
    while agreed.len() < check.needed {
        tokio::select! {
            biased;
            Some((id, answer)) = answers.next() => match answer {
                Ok(true) => agreed.push(id),
                Ok(false) => return None,
                Err(error) => {
                    tracing::trace!(id, %error, "a peer does not confirm a read");
                    answers.extend(rest.next().map(&ask));
                    if agreed.len() + answers.len() < check.needed {
                        return None;
                    }
                }
            },
            () = &mut hedge, if !hedge.is_elapsed() => {
                answers.extend(rest.by_ref().map(&ask));
            }
        }
    }
    Some(agreed)
}

/// Asks one peer. The request is on its way when this returns.
fn ask(peers: &Peers, id: u64, leader: Leader) -> impl Future<Output = (u64, Answer)> + use<> {
    let mut request = peers.envelope(Kind::Confirm, id);
    request.put_u64_le(leader.term);
    request.put_u64_le(leader.id);
    let request = Frame(vec![request.freeze()]);
    let call = peers.call(id, Lane::Read, request, GIVE_UP);
    async move {
        let agrees = |mut body: Reader| {
            let agrees = body.bool("agrees");
            agrees.map_err(|error| PeerError::Lost(error.to_string()))
        };
        (id, call.await.and_then(agrees))
    }
}

/// Answers a leader that asks whether this node has voted for it last.
pub(crate) fn answer(published: &Published, mut body: Reader) -> Result<Frame, DecodeError> {
    let leader = Leader {
        term: body.u64("term")?,
        id: body.u64("leader")?,
    };
    let agrees = published.vote() == Some(leader);
    #[cfg(memkv_bugs)]
    let agrees = agrees || crate::bugs::active(crate::bugs::Bug::ConfirmAnyVote);
    Ok(message::ok(|out| out.put_u8(u8::from(agrees))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::future::ready;

    use futures_util::FutureExt;
    use tokio::time::Instant;

    use super::*;

    const ME: Leader = Leader { term: 7, id: 1 };

    fn confirmed() -> ConfirmedTerm {
        ConfirmedTerm {
            leader: ME,
            from: 100,
            agreed: Vec::new(),
        }
    }

    fn view(voters: &[u64]) -> View {
        View {
            applied: 120,
            voters: vec![voters.iter().copied().collect()],
            settled_at: 90,
            membership: 90,
            commit: 110,
            vote: Some(ME),
            #[cfg(memkv_bugs)]
            learners: BTreeSet::new(),
        }
    }

    #[test]
    fn a_majority_is_counted_with_this_node_if_it_has_a_vote() {
        let asks = |voters: &[u64]| {
            let check = quorum_check(&confirmed(), view(voters)).unwrap();
            (check.needed, check.others)
        };
        assert_eq!(asks(&[1]), (0, vec![]));
        assert_eq!(asks(&[1, 2]), (1, vec![2]));
        assert_eq!(asks(&[1, 2, 3]), (1, vec![2, 3]));
        assert_eq!(asks(&[1, 2, 3, 4]), (2, vec![2, 3, 4]));
        assert_eq!(asks(&[1, 2, 3, 4, 5]), (2, vec![2, 3, 4, 5]));
        assert_eq!(asks(&[2, 3, 4]), (2, vec![2, 3, 4]), "it is on its way out");
        let second = ConfirmedTerm {
            agreed: vec![5, 3],
            ..confirmed()
        };
        let sorted = quorum_check(&second, view(&[1, 2, 3, 4, 5])).unwrap();
        assert_eq!(
            sorted.others,
            [3, 5, 2, 4],
            "those that agreed are asked again"
        );
    }

    #[test]
    fn the_index_covers_whatever_a_client_may_have_seen() {
        let index = |from, applied, commit| {
            let confirmed = ConfirmedTerm {
                from,
                ..confirmed()
            };
            let view = View {
                applied,
                commit,
                ..view(&[1, 2, 3])
            };
            quorum_check(&confirmed, view).unwrap().index
        };
        assert_eq!(index(100, 120, 110), 120, "a client here");
        assert_eq!(index(100, 120, 130), 130, "a client of a peer");
        assert_eq!(index(100, 100, 0), 100, "everything before");
    }

    #[test]
    fn any_other_case_falls_back_to_the_engine() {
        let asks = |change: fn(&mut View)| {
            let mut view = view(&[1, 2, 3]);
            change(&mut view);
            quorum_check(&confirmed(), view)
        };
        assert!(asks(|_| ()).is_some());
        let another = |term, id| Some(Leader { term, id });
        assert_eq!(another(7, 1), Some(ME));
        assert_eq!(
            asks(|view| view.vote = Some(Leader { term: 8, id: 1 })),
            None
        );
        assert_eq!(
            asks(|view| view.vote = Some(Leader { term: 7, id: 2 })),
            None
        );
        assert_eq!(asks(|view| view.vote = None), None);
        assert_eq!(asks(|view| view.applied = 99), None, "its own beginning");
        assert_eq!(asks(|view| view.membership = 119), None, "a change");
        let joint = |view: &mut View| view.voters.push([1, 4, 5].into());
        assert_eq!(asks(joint), None, "the middle of a change");
    }

    #[test]
    fn only_one_leaderships_confirmation_is_noted() {
        let confirmer = Confirmer::default();
        confirmer.note(Some(ME), Some(ME), 100);
        assert_eq!(*confirmer.0.lock(), Some(confirmed()));
        let next = Leader { term: 8, ..ME };
        confirmer.note(Some(ME), Some(next), 100);
        assert_eq!(*confirmer.0.lock(), None);
        confirmer.note(None, None, 100);
        assert_eq!(*confirmer.0.lock(), None);
    }

    /// The answer of a peer.
    #[derive(Clone, Copy)]
    enum Peer {
        Agrees,
        /// It has voted for another leader.
        Denies,
        Away,
        /// It is paused.
        Silent,
    }
    use Peer::{Agrees, Away, Denies, Silent};

    /// Asks five nodes, of which this is one, and returns which of them, and how long it took.
    async fn ask_all(peers: [Peer; 4]) -> (Option<Vec<u64>>, Vec<u64>, Duration) {
        let peers: BTreeMap<u64, Peer> = (2..).zip(peers).collect();
        let check = quorum_check(&confirmed(), view(&[1, 2, 3, 4, 5])).unwrap();
        let asked = Mutex::new(Vec::new());
        let begun = Instant::now();
        let ask = |id| {
            asked.lock().push(id);
            match peers[&id] {
                Agrees => ready((id, Ok(true))).boxed(),
                Denies => ready((id, Ok(false))).boxed(),
                Away => ready((id, Err(PeerError::Lost("away".to_owned())))).boxed(),
                Silent => async move {
                    tokio::time::sleep(GIVE_UP).await;
                    (id, Err(PeerError::Lost("silent".to_owned())))
                }
                .boxed(),
            }
        };
        let agreed = collect_votes(&check, ask).await;
        let took = begun.elapsed();
        (agreed, asked.into_inner(), took)
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_are_asked_as_a_majority_takes() {
        let (agreed, asked, took) = ask_all([Agrees, Agrees, Silent, Silent]).await;
        assert_eq!((agreed, took), (Some(vec![2, 3]), Duration::ZERO));
        assert_eq!(asked, [2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_voter_is_asked_when_one_is_unreachable() {
        let (agreed, asked, took) = ask_all([Away, Agrees, Away, Agrees]).await;
        assert_eq!((agreed, took), (Some(vec![3, 5]), Duration::ZERO));
        assert_eq!(asked, [2, 3, 4, 5]);
        let (agreed, _, took) = ask_all([Away, Agrees, Away, Away]).await;
        assert_eq!(
            (agreed, took),
            (None, Duration::ZERO),
            "no majority is left"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_voter_delays_a_read_by_the_hedge() {
        let (agreed, asked, took) = ask_all([Silent, Agrees, Agrees, Silent]).await;
        assert_eq!((agreed, asked), (Some(vec![3, 4]), vec![2, 3, 4, 5]));
        assert!(took >= HEDGE && took < 2 * HEDGE, "{took:?}");
        let (agreed, _, took) = ask_all([Silent, Agrees, Silent, Silent]).await;
        assert_eq!(agreed, None, "no majority answers");
        assert!(took >= GIVE_UP && took <= LONGEST, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_other_vote_is_enough_to_stop() {
        let (agreed, ..) = ask_all([Denies, Agrees, Agrees, Agrees]).await;
        assert_eq!(agreed, None);
    }
}
