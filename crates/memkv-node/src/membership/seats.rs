//! Which seat of the member table the leader works on next, and how: what is decided, without doing it.
//!
//! A seat that has to wait never keeps another one waiting. Invariant: a newcomer gives its seat up only
//! while it has no vote, so that the table never forgets a voter.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use memkv_store::Member;
use tokio::time::Instant;

/// How many times the silence after which a member may be replaced a newcomer may be silent, while the
/// member that it would replace answers. Its seat hinders nothing, and it may come back.
const PATIENCE: u32 = 3;

/// The next step of a newcomer towards its seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// The table says that `new` has the seat of `old`: it votes already, and `old` does not.
    Record { old: u64, new: u64 },
    /// It hears the log.
    AddLearner { new: u64 },
    /// The voters become these, and it is one of them.
    Promote { new: u64, voters: BTreeSet<u64> },
    /// It gives the seat up, because it is silent and `old` is back.
    GiveUp { old: u64, new: u64 },
    /// The log is sent to this node no more: it has no vote, and its seat goes to a newcomer.
    Drop { old: u64 },
}

/// The knowledge of the leader when it decides.
pub(crate) trait Known {
    /// The nodes with a vote.
    fn voters(&self) -> &BTreeSet<u64>;
    /// Whether the engine sends the log to this node.
    fn is_sent_the_log(&self, id: u64) -> bool;
    /// Whether this node has nearly all of the log.
    fn has_caught_up(&self, id: u64) -> bool;
    /// How long a node has not answered.
    fn silent_for(&self, id: u64) -> Duration;
    /// How long this leader has known of a newcomer.
    fn pending_for(&self, id: u64) -> Duration;
    /// How long a member must have been silent before it may be replaced.
    fn replace_after(&self) -> Duration;
    /// A node that has not answered for this long is not counted as alive.
    fn election_timeout(&self) -> Duration;
}

/// The next step, for the first seat that does not have to wait: one at a time.
pub(crate) fn next(members: &[Member], known: &impl Known) -> Option<Step> {
    let mut seats = members.iter().filter(|member| member.pending);
    #[cfg(memkv_bugs)]
    if crate::bugs::active(crate::bugs::Bug::StopAtFirstSeat) {
        let newcomer = seats.next()?;
        let step = step(members, known, newcomer);
        return step.filter(|step| !matches!(step, Step::GiveUp { .. }));
    }
    seats.find_map(|newcomer| step(members, known, newcomer))
}

/// The next step of putting `newcomer` in the place of the member of its name: learner, caught up, one
/// joint change, member table. `None`: it has to wait.
fn step(members: &[Member], known: &impl Known, newcomer: &Member) -> Option<Step> {
    let new = newcomer.id;
    let same = |member: &&Member| !member.pending && member.name == newcomer.name;
    let old = members.iter().find(same)?.id;
    let voters = known.voters();
    let leaving = leaving(voters, members, old);
    let votes = voters.contains(&new);
    if votes && leaving.is_empty() {
        return Some(Step::Record { old, new });
    }
    let is_silent = |id: &u64| known.silent_for(*id) >= known.replace_after();
    if !is_silent(&old) || !leaving.iter().all(is_silent) {
        // Two nodes claim one name, and the one with the data stays.
        let is_back = known.silent_for(old) < known.election_timeout();
        let gives_up = is_back && !votes && is_gone(known, new);
        return gives_up.then_some(Step::GiveUp { old, new });
    }
    if !known.is_sent_the_log(new) {
        return Some(Step::AddLearner { new });
    }
    if leaving.is_empty() {
        return without_vote(known, old, new);
    }
    let ready = votes || known.has_caught_up(new);
    if !ready || !majority_without(known, &leaving) {
        return None;
    }
    let voters = voters.difference(&leaving).copied().chain([new]).collect();
    Some(Step::Promote { new, voters })
}

/// The same where no vote comes with the seat: that of a replica, or of a node that is to vote and does not yet.
fn without_vote(known: &impl Known, old: u64, new: u64) -> Option<Step> {
    if !known.has_caught_up(new) {
        return None;
    }
    Some(match known.is_sent_the_log(old) {
        true => Step::Drop { old },
        false => Step::Record { old, new },
    })
}

/// Whether a newcomer has been silent for so long that it need not be waited for. One that the engine
/// was never told of is asked nothing: then the time since it was admitted counts.
fn is_gone(known: &impl Known, new: u64) -> bool {
    let silent = known.silent_for(new).min(known.pending_for(new));
    silent >= known.replace_after() * PATIENCE
}

/// The voters that must go for a newcomer: the current member `old`, and earlier newcomers of its
/// name that were wiped after they came to vote and before the table said so. The table has forgotten
/// those, and no other one is missing from it.
fn leaving(voters: &BTreeSet<u64>, members: &[Member], old: u64) -> BTreeSet<u64> {
    let stays = |id: &u64| *id != old && members.iter().any(|member| member.id == *id);
    voters.iter().copied().filter(|id| !stays(id)).collect()
}

/// Whether a majority of the voters is alive when those in `without` are not counted.
fn majority_without(known: &impl Known, without: &BTreeSet<u64>) -> bool {
    let voters = known.voters();
    let alive = voters
        .difference(without)
        .filter(|id| known.silent_for(**id) < known.election_timeout())
        .count();
    alive > voters.len() / 2
}

/// Since when this leader knows of each newcomer. Another leader counts anew.
#[derive(Default)]
pub(crate) struct Arrivals(BTreeMap<u64, Instant>);

impl Arrivals {
    /// Notes which newcomers are pending now.
    pub(crate) fn note(&mut self, members: &[Member]) {
        let is_pending = |id: &u64| {
            members
                .iter()
                .any(|member| member.pending && member.id == *id)
        };
        self.0.retain(|id, _| is_pending(id));
        for newcomer in members.iter().filter(|member| member.pending) {
            self.0.entry(newcomer.id).or_insert_with(Instant::now);
        }
    }

    pub(crate) fn pending_for(&self, id: u64) -> Duration {
        self.0.get(&id).map_or(Duration::ZERO, Instant::elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLACE_AFTER: Duration = Duration::from_secs(10);
    const LONG: Duration = Duration::from_secs(3600);

    /// A leader's view in which every member answers that is not named silent.
    #[derive(Default)]
    struct View {
        voters: BTreeSet<u64>,
        learners: BTreeSet<u64>,
        caught_up: BTreeSet<u64>,
        silent: BTreeMap<u64, Duration>,
        pending: BTreeMap<u64, Duration>,
    }

    impl Known for View {
        fn voters(&self) -> &BTreeSet<u64> {
            &self.voters
        }
        fn is_sent_the_log(&self, id: u64) -> bool {
            self.voters.contains(&id) || self.learners.contains(&id)
        }
        fn has_caught_up(&self, id: u64) -> bool {
            self.caught_up.contains(&id)
        }
        fn silent_for(&self, id: u64) -> Duration {
            self.silent.get(&id).copied().unwrap_or_default()
        }
        fn pending_for(&self, id: u64) -> Duration {
            self.pending.get(&id).copied().unwrap_or(LONG)
        }
        fn replace_after(&self) -> Duration {
            REPLACE_AFTER
        }
        fn election_timeout(&self) -> Duration {
            Duration::from_secs(1)
        }
    }

    fn member(id: u64, name: &str, pending: bool) -> Member {
        Member {
            id,
            name: name.to_owned(),
            addr: "127.0.0.1:1".to_owned(),
            pending,
        }
    }

    /// a to e, and newcomers with these names and ids.
    fn member_table(newcomers: &[(u64, &str)]) -> Vec<Member> {
        let members = (1..)
            .zip(["a", "b", "c", "d", "e"])
            .map(|(id, name)| (id, name, false));
        let newcomers = newcomers.iter().map(|(id, name)| (*id, *name, true));
        let all = members.chain(newcomers);
        all.map(|(id, name, pending)| member(id, name, pending))
            .collect()
    }

    fn view(silent: &[u64]) -> View {
        view_of(&[1, 2, 3], silent)
    }

    fn view_of(voters: &[u64], silent: &[u64]) -> View {
        View {
            voters: voters.iter().copied().collect(),
            silent: silent.iter().map(|id| (*id, LONG)).collect(),
            ..View::default()
        }
    }

    #[test]
    fn a_replacement_goes_step_by_step() {
        let table = member_table(&[(9, "c")]);
        let mut view = view(&[3]);
        assert_eq!(next(&table, &view), Some(Step::AddLearner { new: 9 }));
        view.learners.insert(9);
        assert_eq!(next(&table, &view), None, "it lacks the log");
        view.caught_up.insert(9);
        let voters = BTreeSet::from([1, 2, 9]);
        let promote = Step::Promote {
            new: 9,
            voters: voters.clone(),
        };
        assert_eq!(next(&table, &view), Some(promote));
        view.silent.insert(2, LONG);
        assert_eq!(next(&table, &view), None, "there is no majority without c");
        view.voters = voters;
        assert_eq!(next(&table, &view), Some(Step::Record { old: 3, new: 9 }));
    }

    #[test]
    fn the_seat_of_a_replica_comes_without_a_vote() {
        let table = member_table(&[(9, "d")]);
        let mut view = view(&[4]);
        view.learners.insert(4);
        assert_eq!(next(&table, &view), Some(Step::AddLearner { new: 9 }));
        view.learners.insert(9);
        assert_eq!(next(&table, &view), None, "it lacks the log");
        view.caught_up.insert(9);
        assert_eq!(next(&table, &view), Some(Step::Drop { old: 4 }));
        view.learners.remove(&4);
        assert_eq!(next(&table, &view), Some(Step::Record { old: 4, new: 9 }));
    }

    #[test]
    fn a_seat_that_waits_keeps_no_other_one_waiting() {
        // c was admitted anew and is back with its real directory; b has lost its own.
        let table = member_table(&[(8, "c"), (9, "b")]);
        let mut view = view(&[2, 8]);
        view.pending.insert(8, REPLACE_AFTER);
        assert_eq!(next(&table, &view), Some(Step::AddLearner { new: 9 }));
        view.learners.insert(9);
        view.caught_up.insert(9);
        let voters = BTreeSet::from([1, 3, 9]);
        assert_eq!(next(&table, &view), Some(Step::Promote { new: 9, voters }));
        // The same where the first newcomer is on its way, and slow.
        let mut view = view_of(&[1, 2, 3, 4, 5], &[2, 3]);
        view.learners.insert(8);
        assert_eq!(next(&table, &view), Some(Step::AddLearner { new: 9 }));
        view.learners.insert(9);
        assert_eq!(next(&table, &view), None);
    }

    #[test]
    fn a_silent_newcomer_gives_its_seat_up_when_its_member_is_back() {
        let table = member_table(&[(9, "c")]);
        let give_up = Some(Step::GiveUp { old: 3, new: 9 });
        let mut view = view(&[9]);
        assert_eq!(next(&table, &view), give_up);
        view.learners.insert(9);
        assert_eq!(next(&table, &view), give_up, "also one that hears the log");
        view.pending
            .insert(9, REPLACE_AFTER * PATIENCE - Duration::from_millis(1));
        assert_eq!(next(&table, &view), None, "it has just been admitted");
        view.pending.insert(9, REPLACE_AFTER * PATIENCE);
        assert_eq!(next(&table, &view), give_up);
        view.silent.insert(9, Duration::ZERO);
        assert_eq!(next(&table, &view), None, "it answers");
        view.silent.insert(9, LONG);
        view.silent.insert(3, Duration::from_secs(2));
        assert_eq!(next(&table, &view), None, "its member does not");
    }

    #[test]
    fn a_newcomer_with_a_vote_keeps_its_seat() {
        let table = member_table(&[(9, "c")]);
        let mut view = view(&[9]);
        view.voters = BTreeSet::from([1, 2, 3, 9]);
        assert_eq!(next(&table, &view), None);
        view.voters = BTreeSet::from([1, 2, 9]);
        assert_eq!(next(&table, &view), Some(Step::Record { old: 3, new: 9 }));
    }

    #[test]
    fn a_newcomer_that_was_wiped_before_the_book_named_it_goes_with_the_next() {
        let table = member_table(&[(9, "c")]);
        let leaving_of = |voters: &[u64]| leaving(&voters.iter().copied().collect(), &table, 3);
        assert_eq!(leaving_of(&[1, 2, 3]), BTreeSet::from([3]));
        // 7 was a newcomer too, and had taken the vote of 3.
        assert_eq!(leaving_of(&[1, 2, 7]), BTreeSet::from([7]));
        assert_eq!(leaving_of(&[1, 2, 9]), BTreeSet::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_counts_from_when_it_first_saw_a_newcomer() {
        let mut arrivals = Arrivals::default();
        let table = member_table(&[(9, "c")]);
        arrivals.note(&table);
        tokio::time::advance(REPLACE_AFTER).await;
        arrivals.note(&table);
        assert_eq!(arrivals.pending_for(9), REPLACE_AFTER);
        assert_eq!(arrivals.pending_for(3), Duration::ZERO);
        arrivals.note(&table[..5]);
        arrivals.note(&table);
        assert_eq!(arrivals.pending_for(9), Duration::ZERO);
    }
}
