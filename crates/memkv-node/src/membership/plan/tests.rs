//! The steps of growing, shrinking and moving, from a leader's view.

use super::*;

const LONG: Duration = Duration::from_secs(3600);
const PROMOTE_AFTER: Duration = Duration::from_secs(10);

/// A leader's view, node 1 being the leader: every node answers and is close behind that is not named silent
/// or behind.
#[derive(Default)]
struct Seen {
    voters: BTreeSet<u64>,
    learners: BTreeSet<u64>,
    behind: BTreeSet<u64>,
    silent: BTreeMap<u64, Duration>,
    close_for: Duration,
    leaving_for: Duration,
}

impl Known for Seen {
    fn voters(&self) -> &BTreeSet<u64> {
        &self.voters
    }
    fn is_sent_the_log(&self, id: u64) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }
    fn has_caught_up(&self, id: u64) -> bool {
        self.is_sent_the_log(id) && !self.behind.contains(&id)
    }
    fn silent_for(&self, id: u64) -> Duration {
        self.silent.get(&id).copied().unwrap_or_default()
    }
    fn pending_for(&self, _: u64) -> Duration {
        LONG
    }
    fn replace_after(&self) -> Duration {
        Duration::from_secs(10)
    }
    fn election_timeout(&self) -> Duration {
        Duration::from_secs(1)
    }
}

impl View for Seen {
    fn me(&self) -> u64 {
        1
    }
    fn answers(&self, id: u64) -> bool {
        self.silent_for(id) < self.election_timeout()
    }
    fn close_for(&self, id: u64) -> Option<Duration> {
        (self.has_caught_up(id) && self.answers(id)).then_some(self.close_for)
    }
    fn leaving_for(&self, _: u64) -> Duration {
        self.leaving_for
    }
    fn promote_after(&self) -> Duration {
        PROMOTE_AFTER
    }
    fn drop_after(&self) -> Duration {
        Duration::from_secs(600)
    }
}

fn seen(voters: &[u64], learners: &[u64]) -> Seen {
    Seen {
        voters: voters.iter().copied().collect(),
        learners: learners.iter().copied().collect(),
        close_for: PROMOTE_AFTER,
        leaving_for: DRAIN,
        ..Seen::default()
    }
}

fn node(id: u64, role: Role, state: MemberState) -> Wanted {
    let name = format!("n{id}");
    Wanted {
        id,
        name,
        role,
        state,
    }
}

/// Members that are to vote.
fn voters(ids: impl IntoIterator<Item = u64>) -> Vec<Wanted> {
    let one = |id| node(id, Role::Voter, MemberState::Member);
    ids.into_iter().map(one).collect()
}

fn become_voters(ids: &[u64], stays: bool) -> Option<Move> {
    let voters = ids.iter().copied().collect();
    Some(Move::Voters { voters, stays })
}

#[test]
fn a_node_joins_step_by_step() {
    let mut nodes = voters([1]);
    nodes.push(node(2, Role::Voter, MemberState::Joining));
    let mut view = seen(&[1], &[]);
    assert_eq!(next(&nodes, &view), Some(Move::AddLearner(2)));
    view.learners.insert(2);
    view.behind.insert(2);
    assert_eq!(next(&nodes, &view), None, "it lacks the log");
    view.behind.clear();
    assert_eq!(next(&nodes, &view), Some(Move::Settle(2)));
    view.silent.insert(2, Duration::from_secs(599));
    assert_eq!(next(&nodes, &view), None);
    view.silent.insert(2, Duration::from_secs(600));
    assert_eq!(next(&nodes, &view), Some(Move::GiveUp(2)));
}

#[test]
fn two_get_the_log_at_a_time() {
    let mut nodes = voters([1]);
    let joins = |id| node(id, Role::Voter, MemberState::Joining);
    nodes.extend((2..=5).map(joins));
    let mut view = seen(&[1], &[2, 3]);
    view.behind = [2, 3].into();
    assert_eq!(next(&nodes, &view), None);
    view.silent.insert(2, Duration::from_secs(5));
    assert_eq!(
        next(&nodes, &view),
        Some(Move::AddLearner(4)),
        "2 is silent"
    );
    view.silent.clear();
    view.behind = [3].into();
    nodes[1].state = MemberState::Member;
    assert_eq!(next(&nodes, &view), Some(Move::AddLearner(4)));
}

#[test]
fn voters_are_promoted_to_an_odd_number() {
    let mut view = seen(&[1], &[2]);
    assert_eq!(next(&voters([1, 2]), &view), None, "two survive no loss");
    view.learners = [2, 3].into();
    assert_eq!(next(&voters(1..=3), &view), become_voters(&[1, 2, 3], true));
    view.close_for = PROMOTE_AFTER - Duration::from_millis(1);
    assert_eq!(next(&voters(1..=3), &view), None, "not for long");
    let mut view = seen(&[1, 2, 3], &[4]);
    assert_eq!(next(&voters(1..=4), &view), None);
    view.learners = [4, 5].into();
    let five = become_voters(&[1, 2, 3, 4, 5], true);
    assert_eq!(next(&voters(1..=5), &view), five);
    view.silent = [(2, LONG), (3, LONG)].into();
    assert_eq!(next(&voters(1..=5), &view), None, "no majority of the old");
    let view = seen(&[1, 2], &[3]);
    assert_eq!(next(&voters(1..=3), &view), become_voters(&[1, 2, 3], true));
    let view = seen(&[1, 2, 3, 4, 5, 6, 7], &[8, 9]);
    assert_eq!(next(&voters(1..=9), &view), None, "seven at most");
}

#[test]
fn a_node_that_leaves_goes_from_the_engine_and_then_from_the_table() {
    let mut nodes = voters(1..=3);
    nodes[2].state = MemberState::Leaving;
    let mut view = seen(&[1, 2, 3], &[]);
    view.leaving_for = DRAIN - Duration::from_millis(1);
    assert_eq!(next(&nodes, &view), None, "it finishes what it has begun");
    view.silent.insert(3, LONG);
    assert_eq!(next(&nodes, &view), become_voters(&[1, 2], false));
    view.silent.insert(2, LONG);
    assert_eq!(next(&nodes, &view), None, "2 is needed");
    view.silent.clear();
    view.leaving_for = DRAIN;
    assert_eq!(next(&nodes, &view), become_voters(&[1, 2], false));
    view.voters = [1, 2].into();
    assert_eq!(next(&nodes, &view), Some(Move::TakeOut(3)));
    view.learners.insert(3);
    assert_eq!(next(&nodes, &view), Some(Move::RemoveLearner(3)));
}

#[test]
fn a_vote_goes_to_a_node_that_is_ready_in_one_step() {
    let mut nodes = voters(1..=4);
    nodes[2].state = MemberState::Leaving;
    let mut view = seen(&[1, 2, 3], &[4]);
    view.close_for = Duration::ZERO;
    assert_eq!(next(&nodes, &view), become_voters(&[1, 2, 4], false));
    view.silent = [(2, LONG), (3, LONG)].into();
    assert_eq!(next(&nodes, &view), None, "no majority of the old");
}

#[test]
fn a_leader_gives_leadership_up_before_its_vote() {
    let mut nodes = voters(1..=3);
    nodes[0].state = MemberState::Leaving;
    let view = seen(&[1, 2, 3], &[]);
    assert_eq!(next(&nodes, &view), Some(Move::HandOver));
    nodes[0] = node(1, Role::Replica, MemberState::Member);
    assert_eq!(next(&nodes, &view), Some(Move::HandOver));
    // Alone, it makes another one vote first.
    let mut nodes = voters([1, 2]);
    nodes[0].state = MemberState::Leaving;
    let mut view = seen(&[1], &[]);
    assert_eq!(next(&nodes, &view), Some(Move::AddLearner(2)));
    view.learners.insert(2);
    assert_eq!(next(&nodes, &view), become_voters(&[1, 2], true));
    view.voters.insert(2);
    assert_eq!(next(&nodes, &view), Some(Move::HandOver));
}

#[test]
fn a_demoted_node_keeps_the_log() {
    let mut nodes = voters(1..=3);
    nodes[2].role = Role::Replica;
    let mut view = seen(&[1, 2, 3], &[]);
    assert_eq!(next(&nodes, &view), become_voters(&[1, 2], true));
    view.voters.remove(&3);
    assert_eq!(next(&nodes, &view), Some(Move::AddLearner(3)));
}

#[test]
fn a_node_that_takes_the_seat_of_its_name_is_left_to_seats() {
    let mut nodes = voters(1..=3);
    let newcomer = Wanted {
        name: "n3".to_owned(),
        ..node(9, Role::Voter, MemberState::Joining)
    };
    nodes.push(newcomer);
    let view = seen(&[1, 2, 3], &[]);
    assert_eq!(next(&nodes, &view), None);
    let view = seen(&[1, 2, 9], &[]);
    assert_eq!(next(&nodes, &view), None, "3 has lost its vote to 9");
    nodes[2].state = MemberState::Leaving;
    let mut view = seen(&[1, 2], &[]);
    view.leaving_for = DRAIN;
    assert_eq!(next(&nodes, &view), Some(Move::TakeOut(3)));
    nodes.remove(2);
    assert_eq!(
        next(&nodes, &view),
        Some(Move::AddLearner(9)),
        "it joins as a new one"
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_is_close_while_it_has_what_the_leader_had_a_second_ago() {
    let nodes = voters([1, 2]);
    let mut watch = Watch::default();
    let step = Duration::from_millis(250);
    // Four entries a look: a lag of twelve is less than a second, one of twenty is more.
    for (look, lag) in (1..=40).zip([12u64; 20].into_iter().chain([20; 20])) {
        let last = 100 + look * 4;
        watch.note(&nodes, last, |id| (id == 2).then_some(last - lag));
        if look == 20 {
            let close = watch.close_for(2).unwrap();
            assert!(close >= Duration::from_secs(3), "{close:?}");
        }
        tokio::time::advance(step).await;
    }
    assert_eq!(watch.close_for(2), None);
    assert_eq!(watch.close_for(1), None, "it does not answer");
}
