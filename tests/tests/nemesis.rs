//! Redis clients at all nodes while nodes are killed, paused and cut off from their peers in any
//! order and at the same time, a majority of them too: there may be no answer then, but there is no
//! wrong one. Leaders return with entries that they had appended alone, while the next one dies.
//!
//! `MEMKV_NEMESIS_ROUNDS` sets the number of rounds, `MEMKV_NEMESIS_SEED` repeats the choices (not
//! their timing: the processes are real).

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use memkv_black_box::{
    Cluster, Delayed, Harm, Partition, Random, RedisLoad, Signal, seed, setting,
};

/// Rounds without `MEMKV_NEMESIS_ROUNDS`.
const ROUNDS: u64 = 4;

/// Events of a round, after which everything is healed.
const EVENTS: usize = 6;

/// Clients of each kind of work at each node: 12 in all, as many as two cores serve well.
const CLIENTS: usize = 1;

/// Answers between two events: a fraction of a second's.
const SOME_ANSWERS: u64 = 50;

/// Refusals between two events while there is no leader: those of some seconds.
const SOME_REFUSALS: u64 = 4;

/// Answers of every node when all is healed.
const ANSWERS: u64 = 100;

/// The promise when a majority is back, with room for a busy machine.
const SERVE_AGAIN: Duration = Duration::from_secs(30);

/// The current fault of a node, if any.
type State = Option<Harm>;

struct Nemesis {
    cluster: Cluster,
    partition: Partition,
    random: Random,
    states: Vec<State>,
    done: usize,
}

impl Nemesis {
    /// Harms a node that is sound, or heals one that is not. One always stays sound and tells its
    /// clients how it is.
    fn event(&mut self, load: &RedisLoad) {
        let harmed = |state: &State| state.is_some();
        let count = self.states.iter().filter(|state| harmed(state)).count();
        let mut node = self.random.below(self.states.len());
        if count == 0 && self.random.below(2) == 0 {
            node = self.cluster.leader();
        } else if count + 1 == self.states.len() {
            node = self.states.iter().position(harmed).unwrap_or(node);
        }
        if harmed(&self.states[node]) {
            return self.heal(node);
        }
        let harm = [Harm::Kill, Harm::Pause, Harm::CutOff][self.random.below(3)];
        load.harming(node, harm);
        let sound = &mut self.cluster.nodes[node];
        match harm {
            Harm::Kill => sound.kill(),
            Harm::Pause => sound.process().signal(Signal::STOP),
            Harm::CutOff => self.partition.cut_off(&sound.id),
        }
        self.states[node] = Some(harm);
        self.done += 1;
    }

    fn heal(&mut self, node: usize) {
        let harmed = &mut self.cluster.nodes[node];
        match self.states[node].take() {
            None => {}
            Some(Harm::Kill) => harmed.start(),
            Some(Harm::Pause) => harmed.process().signal(Signal::CONT),
            Some(Harm::CutOff) => {
                let delayed = [Delayed::Arrive, Delayed::Lost][self.random.below(2)];
                self.partition.heal(&harmed.id, delayed);
            }
        }
    }

    fn heal_all(&mut self, load: &RedisLoad) {
        (0..self.states.len()).for_each(|node| self.heal(node));
        self.cluster.wait_serving();
        load.healed(0..self.states.len());
    }
}

#[test]
fn whatever_fails_together_no_answer_is_wrong() {
    let rounds = setting("MEMKV_NEMESIS_ROUNDS").unwrap_or(ROUNDS);
    let seed = seed("MEMKV_NEMESIS_SEED");
    let partition = Partition::default();
    let cluster = Cluster::start_through(&partition, 3);
    let load = RedisLoad::start_at_home(&cluster, CLIENTS, seed);
    let mut nemesis = Nemesis {
        states: vec![None; cluster.nodes.len()],
        cluster,
        partition,
        random: Random::new(seed),
        done: 0,
    };
    for _ in 0..rounds {
        load.wait_answered(ANSWERS, SERVE_AGAIN);
        for _ in 0..EVENTS {
            nemesis.event(&load);
            load.wait_outcomes(SOME_ANSWERS, SOME_REFUSALS, SERVE_AGAIN);
        }
        nemesis.heal_all(&load);
    }
    load.wait_answered(ANSWERS, SERVE_AGAIN);
    let verdict = load.finish(&nemesis.cluster);
    eprintln!("{} harms, {verdict:?}", nemesis.done);
    assert!(
        nemesis.done >= usize::try_from(rounds).unwrap() * EVENTS / 3,
        "too little was tested"
    );
}
