//! Commands that gather for a common entry: nobody is forgotten when the others do not come.

#![allow(clippy::unwrap_used, reason = "tests")]

use memkv_black_box::{Cluster, Frame, Resp, encode};

/// Far fewer than this are enough for the next entry, and far more than one.
const TOGETHER: usize = 32;

/// Each round has a chance that its single command comes while the node waits for more.
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
                // It fails where it waits for long.
                let alone = client.call(&["SET", "key", "value"]).unwrap();
                assert_eq!(alone, ok, "round {round}");
            }
        }
    }
}
