//! Reads where leadership is in doubt: an answer is never older than a write that was acknowledged
//! before the request, whichever node serves it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use memkv_black_box::{Cluster, Resp, Signal, encode, eventually};

/// Far longer than an election.
const LIMIT: Duration = Duration::from_secs(20);

/// How often a leader is paused.
const ROUNDS: usize = 8;

/// Reads that wait in the sockets of the paused leader: enough that some are answered before it has
/// learned of its successor.
const CONNECTIONS: usize = 16;

#[test]
fn a_leader_that_was_paused_through_an_election_does_not_answer_with_the_past() {
    let mut cluster = Cluster::start(3);
    for round in 0..ROUNDS {
        let leader = cluster.leader();
        let (past, present) = (format!("past {round}"), format!("present {round}"));
        let addr = cluster.nodes[leader].addr.clone();
        let mut readers: Vec<Resp> = (0..CONNECTIONS)
            .map(|_| Resp::connect(&addr).unwrap())
            .collect();
        assert_eq!(
            readers[0].call(&["SET", "key", &past]).unwrap().text(),
            b"OK"
        );
        for reader in &mut readers {
            assert_eq!(
                reader.call(&["GET", "key"]).unwrap().text(),
                past.as_bytes()
            );
        }
        cluster.nodes[leader].process().signal(Signal::STOP);
        let survivor = &cluster.nodes[(leader + 1) % 3];
        eventually("a write at a survivor", LIMIT, || {
            let set = survivor.compat().set("key", &present);
            set.is_ok_and(|reply| reply.status == "ok").then_some(())
        });
        for reader in &mut readers {
            reader.send(&encode(&["GET", "key"])).unwrap();
        }
        cluster.nodes[leader].process().signal(Signal::CONT);
        for reader in &mut readers {
            let answer = reader.receive().unwrap();
            let is_present = answer.text() == present.as_bytes();
            assert!(
                is_present || answer.is_error(),
                "{answer:?} in round {round}"
            );
        }
        cluster.wait_serving();
        // An error is allowed above, but the connections must be of use again: refusing for ever would
        // also be never to answer with the past.
        for reader in &mut readers {
            let answer = eventually("the reader is answered", LIMIT, || {
                let answer = reader.call(&["GET", "key"]).unwrap();
                (!answer.is_error()).then_some(answer)
            });
            assert_eq!(answer.text(), present.as_bytes(), "round {round}");
        }
    }
}
