//! Redis clients work through all three nodes while the leader is killed, paused and cut off from its
//! peers in turns: counters end exact, histories are linearizable, a lock has one holder, and no
//! error hides the outcome of its command, neither at the surviving nodes nor at
//! the one that is cut off.
//!
//! `MEMKV_FAILOVER_ROUNDS` sets the number of rounds, `MEMKV_FAILOVER_SEED` repeats the choices of
//! the clients (not their timing: the processes are real).

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use memkv_black_box::{
    Cluster, Delayed, Harm, Node, Partition, Random, RedisLoad, Resp, Signal, seed, setting,
};

/// Rounds without `MEMKV_FAILOVER_ROUNDS`: two of each harm.
const ROUNDS: u64 = 6;

/// Clients of each kind of work at each node: 12 in all, as many as two cores serve well.
const CLIENTS: usize = 1;

/// Answers of every surviving node between two events: enough that the next one happens under load.
const ANSWERS: u64 = 200;

/// Refusals of a node that is cut off: each of its clients got one, or some of them more.
const REFUSALS: u64 = 4;

/// The promise after the loss of a minority, with room for a busy machine.
const SERVE_AGAIN: Duration = Duration::from_secs(20);

/// Acknowledged writes of each kind, for each round.
const FLOOR: u64 = 20;

/// The others have gone on, so the data of a node that is cut off is old, and it must not serve it.
fn check_refuses_to_read(node: &Node) {
    let mut client = Resp::connect(&node.addr).unwrap();
    let reply = client.call(&["GET", "key"]).unwrap();
    let refused = reply.is_error() && reply.text().starts_with(b"CLUSTERDOWN ");
    assert!(refused, "cut off, and answers {reply}");
}

#[test]
fn clients_see_a_pause_and_nothing_worse_when_leaders_fail() {
    let rounds = setting("MEMKV_FAILOVER_ROUNDS").unwrap_or(ROUNDS);
    let seed = seed("MEMKV_FAILOVER_SEED");
    let mut random = Random::new(seed);
    let partition = Partition::default();
    let mut cluster = Cluster::start_through(&partition, 3);
    let load = RedisLoad::start(&cluster, CLIENTS, seed);
    for round in 0..rounds {
        load.wait_answered(ANSWERS, SERVE_AGAIN);
        let leader = cluster.leader();
        let harm = [Harm::Kill, Harm::Pause, Harm::CutOff][usize::try_from(round % 3).unwrap()];
        load.harming(leader, harm);
        match harm {
            Harm::Kill => cluster.nodes[leader].kill(),
            Harm::Pause => cluster.nodes[leader].process().signal(Signal::STOP),
            Harm::CutOff => partition.cut_off(&cluster.nodes[leader].id),
        }
        load.harmed(harm);
        load.wait_answered(ANSWERS, SERVE_AGAIN);
        match harm {
            Harm::Kill => cluster.nodes[leader].start(),
            Harm::Pause => cluster.nodes[leader].process().signal(Signal::CONT),
            Harm::CutOff => {
                check_refuses_to_read(&cluster.nodes[leader]);
                load.wait_refused(leader, REFUSALS, SERVE_AGAIN);
                let delayed = [Delayed::Arrive, Delayed::Lost][random.below(2)];
                partition.heal(&cluster.nodes[leader].id, delayed);
            }
        }
        cluster.wait_serving();
        load.healed([leader]);
    }
    load.wait_answered(ANSWERS, SERVE_AGAIN);
    let verdict = load.finish(&cluster);
    for (harm, pauses) in &verdict.pauses {
        let mut pauses = pauses.clone();
        pauses.sort();
        eprintln!(
            "{harm:?}: {} failovers, pause of writes: median {:?}, longest {:?}",
            pauses.len(),
            pauses[pauses.len() / 2],
            pauses[pauses.len() - 1]
        );
    }
    eprintln!("{verdict:?}");
    let failovers: usize = verdict.pauses.values().map(Vec::len).sum();
    assert_eq!(failovers, usize::try_from(rounds).unwrap());
    assert_eq!(verdict.answered.len(), 4, "every kind of work was done");
    for (kind, count) in &verdict.answered {
        assert!(
            *count >= rounds * FLOOR,
            "too little was tested: {kind} {count}"
        );
    }
}
