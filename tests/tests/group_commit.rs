//! Group commit: a command is executed in time when no other one comes to share its entry.

#![allow(clippy::unwrap_used, reason = "tests")]

use memkv_black_box::{Cluster, Frame, Resp, encode};

/// Far more commands than the next entry waits for, and far more than one.
const TOGETHER: usize = 32;

/// In each round its single command may come while the node waits for more commands.
const ROUNDS: usize = 200;

#[test]
fn a_command_that_comes_alone_after_many_is_executed() {
    for nodes in [1, 3] {
        let cluster = Cluster::start(nodes);
        for node in &cluster.nodes {
            let mut client = Resp::connect(&node.addr).unwrap();
            let set = encode(&["SET", "key", "value"]);
            let many = set.repeat(TOGETHER);
            let ok = Frame::of(b"+OK\r\n");
            for round in 0..ROUNDS {
                client.send(&many).unwrap();
                for _ in 0..TOGETHER {
                    assert_eq!(client.receive().unwrap(), ok);
                }
                // The call fails if the command waits longer than its time limit.
                let alone = client.call(&["SET", "key", "value"]).unwrap();
                assert_eq!(alone, ok, "round {round}");
            }
        }
    }
}
