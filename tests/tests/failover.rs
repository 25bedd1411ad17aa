//! Redis clients work through all three nodes while the leader is killed and paused in turns:
//! counters end exact, histories are linearizable, a lock has one holder, and at surviving nodes no
//! error is seen that does not say what became of the command.
//!
//! `MEMKV_FAILOVER_ROUNDS` sets the number of rounds, `MEMKV_FAILOVER_SEED` repeats the choices of
//! the clients (not their timing: the processes are real).

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use memkv_tests::{Cluster, RedisLoad, Signal, seed, setting};

/// Rounds without `MEMKV_FAILOVER_ROUNDS`.
const ROUNDS: u64 = 5;

/// Clients of each kind of work at each node: 12 in all, as many as two cores serve well.
const CLIENTS: usize = 1;

/// Answers of every surviving node between two events: enough that the next one happens under load.
const ANSWERS: u64 = 200;

/// The promise after the loss of a minority, with room for a busy machine.
const SERVE_AGAIN: Duration = Duration::from_secs(20);

/// Acknowledged writes of each kind, for each round.
const FLOOR: u64 = 20;

#[test]
fn clients_see_a_pause_and_nothing_worse_when_leaders_fail() {
    let rounds = setting("MEMKV_FAILOVER_ROUNDS").unwrap_or(ROUNDS);
    let seed = seed("MEMKV_FAILOVER_SEED");
    let mut cluster = Cluster::start(3);
    let load = RedisLoad::start(&cluster, CLIENTS, seed);
    for round in 0..rounds {
        load.wait_answered(ANSWERS, SERVE_AGAIN);
        let leader = cluster.leader();
        load.harming(leader);
        if round % 2 == 0 {
            cluster.nodes[leader].kill();
            load.harmed();
            load.wait_answered(ANSWERS, SERVE_AGAIN);
            cluster.start_all();
        } else {
            cluster.nodes[leader].process().signal(Signal::STOP);
            load.harmed();
            load.wait_answered(ANSWERS, SERVE_AGAIN);
            cluster.nodes[leader].process().signal(Signal::CONT);
            cluster.wait_serving();
        }
        load.healed(leader);
    }
    load.wait_answered(ANSWERS, SERVE_AGAIN);
    let verdict = load.finish(&cluster);
    let mut pauses = verdict.pauses.clone();
    pauses.sort();
    eprintln!(
        "{rounds} failovers, pause of writes: median {:?}, longest {:?}",
        pauses[pauses.len() / 2],
        pauses[pauses.len() - 1]
    );
    eprintln!("{verdict:?}");
    assert_eq!(verdict.pauses.len(), usize::try_from(rounds).unwrap());
    assert_eq!(verdict.answered.len(), 4, "every kind of work was done");
    for (kind, count) in &verdict.answered {
        assert!(
            *count >= rounds * FLOOR,
            "too little was tested: {kind} {count}"
        );
    }
}
