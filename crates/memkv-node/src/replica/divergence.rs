//! Detects that this node's store differs from its peers' stores, although they have
//! applied the same log: by a machine whose memory or processor errs, or by a fault of ours.
//!
//! Every node asks all voters, each by itself, for their checkpoints (`checkpoints`), and compares
//! those of the same index with its own. Where a majority of the voters, in a joint membership one of
//! each side, has one other value, this node is wrong: from that moment on it reads, applies and answers
//! nothing, condemns its directory, ends, sets the directory aside at its next start as it does with
//! damage, and is replaced under a new id. The leader does the same. Where values differ and none has a
//! majority, it is not known which is right: there is an alarm, and no node stops.
//!
//! No other node can stop this one by a word: what counts is what so many voters say of themselves when
//! asked at their addresses, under their ids. Nothing is remembered from round to round but that, so a
//! node that restarted, was replaced or installed a snapshot is held to what its store is now. A node
//! that is behind has no checkpoint at the index in question, and none that another node has forgotten;
//! a difference stays in the hash, so it is found at a later one. Never blocks consensus.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BufMut;
use futures_util::future::join_all;

use crate::disk::memory::Memory;
use crate::disk::storage::DataDirectory;
use crate::lifecycle::Lifecycle;
use crate::peer::client::Peers;
use crate::peer::encoding::Reader;
use crate::peer::message::{self, Kind};
use crate::replica::Replica;
use crate::replica::checkpoints::{self, Checkpoint};
use crate::report::event::Event;
use crate::report::timeline::Timeline;
use crate::sync::lock::Mutex;
use crate::{FatalError, Frame, Lane};

/// How often a node asks, while there is anything new: so long it may serve what is wrong, and a round
/// costs each peer a message of a kilobyte.
const INTERVAL: Duration = Duration::from_millis(500);
/// A peer that has not answered by then is left out of a round.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Rounds in a row without a majority value before there is an alarm: in the first, the node that
/// decides may be an entry behind.
const ROUNDS: u32 = 2;

type Told = BTreeMap<u64, Vec<Checkpoint>>;
type Voters = [BTreeSet<u64>];

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Nothing differs; all voters have been compared at `whole`, if at any index.
    Equal { whole: Option<u64> },
    /// These, a majority of the voters, have a value that this node has not.
    Wrong { index: u64, others: Vec<u64> },
    /// A majority has this node's value, and these have not.
    OthersWrong { index: u64, others: Vec<u64> },
    /// Values differ, and none has a majority.
    Undecided { index: u64 },
}

/// Compares all that can be compared, the newest first.
fn compare(own: &[Checkpoint], me: u64, told: &Told, voters: &Voters) -> Verdict {
    let mut whole = None;
    let mut others_wrong = None;
    let mut undecided = None;
    for Checkpoint { index, effects } in own.iter().rev().copied() {
        let at = |all: &Vec<Checkpoint>| all.iter().find(|at| at.index == index).copied();
        let theirs = told
            .iter()
            .filter_map(|(id, all)| Some((*id, at(all)?.effects)));
        let mut values: BTreeMap<u64, u64> = theirs.collect();
        values.insert(me, effects);
        let with = |wanted: u64| values.iter().filter(move |(_, value)| **value == wanted);
        let has_majority = |wanted: u64| {
            let has = |id: &&u64| values.get(id) == Some(&wanted);
            let of = |set: &BTreeSet<u64>| set.iter().filter(has).count() > needed(set);
            !voters.is_empty() && voters.iter().all(of)
        };
        let distinct: BTreeSet<u64> = values.values().copied().collect();
        if distinct.len() < 2 {
            let all = voters.iter().flatten().all(|id| values.contains_key(id));
            whole = whole.or((all && !voters.is_empty()).then_some(index));
            continue;
        }
        match distinct.into_iter().find(|value| has_majority(*value)) {
            Some(value) if value != effects => {
                let others = with(value).map(|(id, _)| *id).collect();
                return Verdict::Wrong { index, others };
            }
            Some(_) => {
                others_wrong.get_or_insert_with(|| {
                    let others = values.iter().filter(|(_, value)| **value != effects);
                    let others = others.map(|(id, _)| *id).collect();
                    Verdict::OthersWrong { index, others }
                });
            }
            None => {
                undecided.get_or_insert(Verdict::Undecided { index });
            }
        }
    }
    others_wrong
        .or(undecided)
        .unwrap_or(Verdict::Equal { whole })
}

/// A majority is more than this.
fn needed(voters: &BTreeSet<u64>) -> usize {
    #[cfg(memkv_bugs)]
    if crate::bugs::active(crate::bugs::Bug::BelieveOneReport) {
        return 0;
    }
    voters.len() / 2
}

/// Known differences between the nodes, for status and metrics.
#[derive(Default)]
pub(crate) struct Divergence {
    /// The alarm that it is not known which node is right, as a sentence; else empty.
    alarm: Mutex<String>,
    /// Rounds in which another node's store was compared with this one's.
    rounds: AtomicU64,
    /// This node tells false checkpoints.
    #[cfg(memkv_bugs)]
    pub(crate) lies: std::sync::atomic::AtomicBool,
}

impl Divergence {
    pub(crate) fn alarm(&self) -> String {
        self.alarm.lock().clone()
    }

    pub(crate) fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    fn raise(&self, alarm: String, timeline: &Timeline) {
        let mut current = self.alarm.lock();
        if current.is_empty() {
            tracing::error!("{alarm}");
            let alarm = alarm.clone();
            timeline.note(&Event::Diverged { alarm });
        }
        *current = alarm;
    }

    fn clear(&self, timeline: &Timeline) {
        let alarm = std::mem::take(&mut *self.alarm.lock());
        if !alarm.is_empty() {
            tracing::info!("the stores of the nodes differ no more, or it is known which is wrong");
            timeline.note(&Event::Converged);
        }
    }
}

/// Answers a node that asks for this one's checkpoints.
pub(crate) fn answer(replica: &Replica, divergence: &Divergence, boot: u64) -> Frame {
    let all = replica.checkpoints.all();
    #[cfg(not(memkv_bugs))]
    let _ = divergence;
    #[cfg(memkv_bugs)]
    let all = match divergence.lies.load(Ordering::Relaxed) {
        false => all,
        true => all
            .into_iter()
            .map(|at| Checkpoint {
                effects: !at.effects,
                ..at
            })
            .collect(),
    };
    message::ok(|out| {
        out.put_u64_le(boot);
        checkpoints::put(out, &all);
    })
}

/// Compares this node's store with those of its peers.
pub(crate) struct Comparison {
    pub(crate) replica: Arc<Replica>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) divergence: Arc<Divergence>,
    pub(crate) directory: DataDirectory,
    pub(crate) lifecycle: Arc<Lifecycle>,
}

/// Compares from time to time, until this node stops.
pub(crate) async fn run(comparison: Comparison) {
    let mut watch = Watch::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let voters = comparison.voters();
        let newest = comparison.replica.checkpoints.newest();
        // Nothing has been applied since all were equal.
        if newest.is_none() || watch.settled == newest.map(|at| (at, voters.clone())) {
            continue;
        }
        let told = comparison.ask_all(&voters).await;
        // Only now: a snapshot may have replaced the store meanwhile.
        let own = comparison.replica.checkpoints.all();
        if told.is_empty() {
            continue;
        }
        comparison.divergence.rounds.fetch_add(1, Ordering::Relaxed);
        match compare(&own, comparison.peers.my_id(), &told, &voters) {
            Verdict::Wrong { index, others } => {
                #[cfg(memkv_bugs)]
                if crate::bugs::active(crate::bugs::Bug::TrustOwnStore) {
                    continue;
                }
                return comparison.quarantine(index, &others).await;
            }
            verdict => watch.conclude(&comparison, verdict, &own, voters),
        }
    }
}

/// The state from one round to the next.
#[derive(Default)]
struct Watch {
    /// The checkpoint at which all voters were equal.
    settled: Option<(Checkpoint, Vec<BTreeSet<u64>>)>,
    undecided: u32,
    /// The nodes that were found wrong last.
    wrong: Vec<u64>,
}

impl Watch {
    /// Draws the conclusions from a round after which this node goes on.
    fn conclude(
        &mut self,
        comparison: &Comparison,
        verdict: Verdict,
        own: &[Checkpoint],
        voters: Vec<BTreeSet<u64>>,
    ) {
        self.settled = None;
        self.undecided = match verdict {
            Verdict::Undecided { .. } => self.undecided.saturating_add(1),
            _ => 0,
        };
        let timeline = &comparison.replica.timeline;
        match verdict {
            Verdict::Equal { whole: Some(index) } => {
                comparison.divergence.clear(timeline);
                let at = own.iter().rev().find(|at| at.index == index);
                self.settled = at.map(|at| (*at, voters));
                self.wrong.clear();
            }
            // Some have not been compared: they may be those that differed.
            Verdict::Equal { whole: None } => {}
            Verdict::OthersWrong { index, others } => {
                comparison.divergence.clear(timeline);
                if self.wrong != others {
                    tracing::error!(
                        nodes = %comparison.names(&others),
                        index,
                        "the store of these nodes is another than a majority's: they are to set their \
                         directories aside and to be replaced"
                    );
                    self.wrong = others;
                }
            }
            Verdict::Undecided { index } if self.undecided >= ROUNDS => {
                let alarm = format!(
                    "the stores of the nodes differ after log entry {index}, and none of the values has \
                     a majority: it is not known which node is right, and no node is stopped. Compare \
                     what they hold, and move the data directory of a wrong one away"
                );
                comparison.divergence.raise(alarm, timeline);
            }
            Verdict::Undecided { .. } | Verdict::Wrong { .. } => {}
        }
    }
}

impl Comparison {
    fn voters(&self) -> Vec<BTreeSet<u64>> {
        let state = self.replica.applied_state();
        state.membership.configs.clone()
    }

    /// The checkpoints of all voters but this node, of those that answer.
    async fn ask_all(&self, voters: &Voters) -> Told {
        let me = self.peers.my_id();
        let others: BTreeSet<u64> = voters.iter().flatten().copied().collect();
        let asked = others.into_iter().filter(|id| *id != me);
        let told = join_all(asked.map(|id| self.ask(id))).await;
        told.into_iter().flatten().collect()
    }

    async fn ask(&self, id: u64) -> Option<(u64, Vec<Checkpoint>)> {
        let request = self.peers.envelope(Kind::Checkpoints, id).freeze();
        let request = Frame(vec![request]);
        let call = self.peers.call(id, Lane::Control, request, ANSWER_WITHIN);
        let read = |mut body: Reader| {
            let boot = body.u64("boot")?;
            Ok::<_, crate::peer::encoding::DecodeError>((boot, checkpoints::read(&mut body)?))
        };
        let (boot, all) = read(call.await.ok()?).ok()?;
        // The answer of a process that has ended since does not describe its node's store of now.
        let known = self.memory.recall(id).map_or(0, |of| of.boot);
        (boot >= known).then_some((id, all))
    }

    fn names(&self, ids: &[u64]) -> String {
        let names: Vec<String> = ids.iter().map(|id| self.peers.name_of(*id)).collect();
        names.join(", ")
    }

    /// Ends this node, whose store is another than that of `others`, a majority.
    async fn quarantine(&self, index: u64, others: &[u64]) {
        let why = format!(
            "after log entry {index} the store of {} is another than that of {}, a majority of the cluster",
            self.peers.me.name,
            self.names(others)
        );
        // From here on nothing is read, applied or answered.
        if !self.replica.halt(FatalError::Diverged(why.clone())) {
            // It ends already, and nothing more is applied.
            return;
        }
        let error = self.directory.condemn(why, FatalError::Diverged).await;
        self.lifecycle.fail(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(sets: &[&[u64]]) -> Vec<BTreeSet<u64>> {
        let set = |set: &&[u64]| set.iter().copied().collect();
        sets.iter().map(set).collect()
    }

    /// Checkpoints at 64, 128, ... of these values; 0: none.
    fn values(values: &[u64]) -> Vec<Checkpoint> {
        let at = (1..).zip(values).filter(|(_, effects)| **effects > 0);
        at.map(|(number, effects)| Checkpoint {
            index: 64 * number,
            effects: *effects,
        })
        .collect()
    }

    /// The conclusion of node 1.
    fn verdict(own: &[u64], told: &[(u64, &[u64])], sets: &[&[u64]]) -> Verdict {
        let told = told.iter().map(|(id, all)| (*id, values(all))).collect();
        compare(&values(own), 1, &told, &voters(sets))
    }

    fn wrong(number: u64, others: &[u64]) -> Verdict {
        let (index, others) = (64 * number, others.to_vec());
        Verdict::Wrong { index, others }
    }

    fn others_wrong(number: u64, others: &[u64]) -> Verdict {
        let (index, others) = (64 * number, others.to_vec());
        Verdict::OthersWrong { index, others }
    }

    fn undecided(number: u64) -> Verdict {
        Verdict::Undecided { index: 64 * number }
    }

    fn equal(whole: Option<u64>) -> Verdict {
        let whole = whole.map(|number| 64 * number);
        Verdict::Equal { whole }
    }

    const THREE: &[&[u64]] = &[&[1, 2, 3]];

    #[test]
    fn only_a_strict_minority_is_wrong() {
        assert_eq!(
            verdict(&[7], &[(2, &[7]), (3, &[7])], THREE),
            equal(Some(1))
        );
        assert_eq!(
            verdict(&[8], &[(2, &[7]), (3, &[7])], THREE),
            wrong(1, &[2, 3])
        );
        assert_eq!(
            verdict(&[7], &[(2, &[8]), (3, &[7])], THREE),
            others_wrong(1, &[2])
        );
        assert_eq!(verdict(&[7], &[(2, &[8]), (3, &[9])], THREE), undecided(1));
        assert_eq!(verdict(&[7], &[(2, &[8])], &[&[1, 2]]), undecided(1));
        let four: &[&[u64]] = &[&[1, 2, 3, 4]];
        let halves: [(u64, &[u64]); 3] = [(2, &[7]), (3, &[8]), (4, &[8])];
        assert_eq!(verdict(&[7], &halves, four), undecided(1));
        let five: &[&[u64]] = &[&[1, 2, 3, 4, 5]];
        let two_wrong: [(u64, &[u64]); 4] = [(2, &[8]), (3, &[7]), (4, &[7]), (5, &[7])];
        assert_eq!(verdict(&[9], &two_wrong, five), wrong(1, &[3, 4, 5]));
        assert_eq!(verdict(&[7], &two_wrong, five), others_wrong(1, &[2]));
    }

    #[test]
    fn one_false_word_stops_no_node() {
        // Two of three is a majority: this node's own value is one of them, or it is wrong.
        assert_eq!(verdict(&[7], &[(2, &[8])], THREE), undecided(1));
        assert_eq!(
            verdict(&[7], &[(2, &[8]), (3, &[7])], THREE),
            others_wrong(1, &[2])
        );
        // The checkpoints of nodes without a vote do not count.
        let learners: [(u64, &[u64]); 3] = [(2, &[7]), (8, &[9]), (9, &[9])];
        assert_eq!(verdict(&[7], &learners, THREE), others_wrong(1, &[8, 9]));
        assert_eq!(verdict(&[7], &[(8, &[9]), (9, &[9])], THREE), undecided(1));
        assert_eq!(verdict(&[7], &[(2, &[8])], &[]), undecided(1));
    }

    #[test]
    fn a_node_without_a_vote_is_wrong_all_the_same() {
        let others: &[&[u64]] = &[&[2, 3, 4]];
        assert_eq!(
            verdict(&[8], &[(2, &[7]), (3, &[7])], others),
            wrong(1, &[2, 3])
        );
        assert_eq!(verdict(&[8], &[(2, &[7])], others), undecided(1));
    }

    #[test]
    fn a_joint_membership_asks_for_both_majorities() {
        let joint: &[&[u64]] = &[&[1, 2, 3], &[3, 4, 5]];
        let one_side: [(u64, &[u64]); 2] = [(2, &[7]), (3, &[7])];
        assert_eq!(verdict(&[8], &one_side, joint), undecided(1));
        let both: [(u64, &[u64]); 3] = [(2, &[7]), (3, &[7]), (4, &[7])];
        assert_eq!(verdict(&[8], &both, joint), wrong(1, &[2, 3, 4]));
    }

    #[test]
    fn only_what_is_of_the_same_index_is_compared() {
        // Node 2 is behind, and node 3 has forgotten the first.
        let told: [(u64, &[u64]); 2] = [(2, &[5, 6]), (3, &[0, 0, 7])];
        assert_eq!(verdict(&[5, 6, 7], &told, THREE), equal(None));
        let told: [(u64, &[u64]); 2] = [(2, &[5, 6]), (3, &[0, 6, 7])];
        assert_eq!(verdict(&[5, 6, 7], &told, THREE), equal(Some(2)));
        // This node is behind, or has nothing yet.
        let told: [(u64, &[u64]); 2] = [(2, &[0, 6, 7]), (3, &[0, 6, 7])];
        assert_eq!(verdict(&[5], &told, THREE), equal(None));
        assert_eq!(verdict(&[], &told, THREE), equal(None));
        assert_eq!(verdict(&[5, 9], &told, THREE), wrong(2, &[2, 3]));
    }

    #[test]
    fn what_the_newest_leaves_open_an_older_one_decides() {
        // At the third, node 3 has not arrived.
        let told: [(u64, &[u64]); 2] = [(2, &[8, 8, 8]), (3, &[7, 7])];
        assert_eq!(verdict(&[7, 7, 7], &told, THREE), others_wrong(2, &[2]));
        let told: [(u64, &[u64]); 2] = [(2, &[7, 7, 7]), (3, &[7, 7])];
        assert_eq!(verdict(&[8, 8, 8], &told, THREE), wrong(2, &[2, 3]));
    }

    #[test]
    fn an_alarm_is_there_until_it_is_taken_back() {
        let divergence = Divergence::default();
        let timeline = Timeline::default();
        timeline.begin(Arc::new(|| 0), 1, 0);
        divergence.raise("they differ".to_owned(), &timeline);
        divergence.raise("they differ still".to_owned(), &timeline);
        assert_eq!(divergence.alarm(), "they differ still");
        divergence.clear(&timeline);
        divergence.clear(&timeline);
        assert_eq!(divergence.alarm(), "");
        let told: Vec<_> = timeline.since(0).iter().map(|noted| noted.kind).collect();
        assert_eq!(told, ["diverged", "converged"], "each change once");
    }
}
