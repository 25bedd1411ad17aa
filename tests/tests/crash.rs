//! `kill -9` under load: nodes die at random moments, one at a time and all together, and come back
//! while 64 clients go on. No acknowledged write is lost, none is executed twice, no read is stale.
//!
//! `MEMKV_CRASH_ROUNDS` sets the number of rounds, `MEMKV_CRASH_SEED` repeats the choices of a run
//! (not its timing: the processes are real).

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use memkv_black_box::{Cluster, Load, Random, seed, setting};

const CLIENTS: usize = 64;

/// In every tenth round all nodes die together.
const ALL_DIE_EVERY: u64 = 10;

/// Answers between two events: enough that the next one happens under load.
const ANSWERS: u64 = 300;

/// The promise after the loss of a minority, with room for a busy machine.
const SERVE_AGAIN: Duration = Duration::from_secs(20);

#[test]
fn no_acknowledged_write_is_lost_when_nodes_are_killed_under_load() {
    let rounds = setting("MEMKV_CRASH_ROUNDS").unwrap_or(20);
    let seed = seed("MEMKV_CRASH_SEED");
    eprintln!("{rounds} rounds");
    let mut random = Random::new(seed);
    let mut cluster = Cluster::start(3);
    let load = Load::start(&cluster, CLIENTS, seed);
    let mut kills = 0;
    for round in 1..=rounds {
        load.wait_answered(ANSWERS, SERVE_AGAIN);
        if round % ALL_DIE_EVERY == 0 {
            cluster.nodes.iter_mut().for_each(|node| node.kill());
            kills += cluster.nodes.len();
        } else {
            let victim = random.below(cluster.nodes.len());
            cluster.nodes[victim].kill();
            kills += 1;
            // Two of three go on without the third.
            load.wait_answered(ANSWERS, SERVE_AGAIN);
        }
        cluster.start_all();
        load.next_round();
    }
    load.wait_answered(ANSWERS, SERVE_AGAIN);
    let verdict = load.finish(&cluster);
    eprintln!("{kills} kills; {verdict:?}");
    assert!(
        verdict.acknowledged_writes >= rounds * ANSWERS / 2,
        "too little was tested"
    );
}
