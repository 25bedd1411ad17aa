//! Disks without space: reads and deletions are served, writes are rejected with a reason, nothing
//! acknowledged is lost, and all of it heals without a restart.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use memkv_black_box::{Cluster, Compat, Http, Node, Resp, Tmpfs, eventually, skip};

/// Far longer than a busy machine needs.
const LIMIT: Duration = Duration::from_secs(60);

/// The reserve of a node without a snapshot: `RESERVE_BASE` of `memkv-disk`.
const RESERVE: u64 = 16 << 20;

fn set(client: &mut Compat, key: &str, value: &str) {
    assert_eq!(client.set(key, value).unwrap().status, "ok");
}

#[track_caller]
fn holds(node: &Node, key: &str, value: &str) {
    assert_eq!(
        node.compat().get(key).unwrap().value.as_deref(),
        Some(value)
    );
}

/// A cluster whose last node has its directory on a small file system.
fn with_small_disk(size: usize, megabytes: u32) -> Option<(Cluster, Tmpfs)> {
    let mut cluster = Cluster::configured(size);
    let last = &cluster.nodes[size - 1];
    let config = last.read_config();
    let Some(disk) = Tmpfs::mount(&last.dir, megabytes) else {
        skip("a full disk", "this process may not mount a file system");
        return None;
    };
    last.write_config(&config);
    cluster.start_all();
    Some((cluster, disk))
}

/// Writes to a file until `left` bytes of its file system are free, or all that can be written is.
fn fill_disk(path: &Path, left: u64) {
    let mut file = fs::File::create(path).unwrap();
    for size in [1_u64 << 20, 4096] {
        let chunk = vec![1; usize::try_from(size).unwrap()];
        loop {
            let disk = rustix::fs::statvfs(path).unwrap();
            if disk.f_bavail * disk.f_frsize < left + size || file.write_all(&chunk).is_err() {
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_on_one_node_stops_neither_the_cluster_nor_loses_a_write() {
    let Some((mut cluster, _disk)) = with_small_disk(3, 64) else {
        return;
    };
    set(&mut cluster.nodes[0].compat(), "before", "kept");
    let ballast = cluster.nodes[2].dir.join("ballast");
    // Not a byte is left but the node's reserve.
    fill_disk(&ballast, 0);
    let mut client = cluster.nodes[0].compat();
    let value = "v".repeat(4096);
    for number in 0..1000 {
        let reply = client
            .set(&format!("during-{}", number % 50), &value)
            .unwrap();
        assert_eq!(reply.status, "ok", "two of three have room: {reply:?}");
    }
    holds(&cluster.nodes[0], "before", "kept");
    // With room again the same process serves all of it.
    fs::remove_file(&ballast).unwrap();
    cluster.nodes[2].wait_serving();
    holds(&cluster.nodes[2], "during-7", &value);
    cluster.nodes.iter_mut().for_each(Node::kill);
}

#[test]
fn a_cluster_without_space_refuses_writes_with_words_and_serves_and_deletes() {
    let Some((mut cluster, _disk)) = with_small_disk(1, 96) else {
        return;
    };
    let node = &cluster.nodes[0];
    let mut redis = Resp::connect(&node.addr).unwrap();
    for (key, value) in [
        ("kept", "value"),
        ("removed", "value"),
        ("expires", "value"),
    ] {
        assert_eq!(redis.call(&["SET", key, value]).unwrap().text(), b"OK");
    }
    let ballast = node.dir.join("ballast");
    fill_disk(&ballast, RESERVE / 2);
    let refused = eventually("writes are refused", LIMIT, || {
        let reply = redis.call(&["SET", "during", "value"]).unwrap();
        reply.is_error().then_some(reply)
    });
    assert!(refused.text().starts_with(b"MISCONF "), "{refused}");
    let put = Http::once(&node.addr, "PUT", "/v1/kv/during", b"value").unwrap();
    assert_eq!(put.status, 507, "{}", put.text());
    assert!(put.text().contains("MK-105"), "{}", put.text());
    // Reads, deletes and expiry go on.
    assert_eq!(redis.call(&["GET", "kept"]).unwrap().text(), b"value");
    assert_eq!(redis.call(&["DEL", "removed"]).unwrap().integer(), Some(1));
    assert_eq!(
        redis.call(&["EXISTS", "removed"]).unwrap().integer(),
        Some(0)
    );
    assert_eq!(
        redis.call(&["PEXPIRE", "expires", "-1"]).unwrap().integer(),
        Some(1)
    );
    assert_eq!(
        redis.call(&["EXISTS", "expires"]).unwrap().integer(),
        Some(0)
    );
    // With room again the same process takes writes.
    fs::remove_file(&ballast).unwrap();
    eventually("writes are taken again", LIMIT, || {
        (redis.call(&["SET", "after", "value"]).unwrap().text() == b"OK").then_some(())
    });
    assert_eq!(redis.call(&["GET", "kept"]).unwrap().text(), b"value");
    cluster.nodes.iter_mut().for_each(Node::kill);
}

#[test]
fn a_follower_whose_disk_is_used_up_refuses_entries_and_catches_up_when_there_is_space() {
    let Some((mut cluster, disk)) = with_small_disk(3, 24) else {
        return;
    };
    let value = "v".repeat(64 * 1024);
    let mut client = cluster.nodes[0].compat();
    // More than the disk of the last node holds, in whatever form.
    for number in 0..600 {
        set(&mut client, &format!("key-{number}"), &value);
    }
    let last = &mut cluster.nodes[2];
    last.process()
        .wait_output("disk space is used up: this node takes no entries", LIMIT);
    // It keeps running, and rejects writes.
    for number in 0..100 {
        set(&mut client, &format!("more-{number}"), &value);
    }
    let output = cluster.nodes[2].process().output();
    assert!(cluster.nodes[2].process().ended().is_none(), "{output}");
    let status = cluster.nodes[2].status().unwrap();
    let applied = status["applied_index"].as_u64().unwrap();
    let of_others = cluster.nodes[0].status().unwrap();
    assert!(applied < of_others["applied_index"].as_u64().unwrap());
    disk.resize(256);
    eventually("it has caught up", LIMIT, || {
        let status = cluster.nodes[2].status()?;
        (status["applied_index"].as_u64()? >= of_others["applied_index"].as_u64()?).then_some(())
    });
    holds(&cluster.nodes[2], "more-99", &value);
    cluster.nodes.iter_mut().for_each(Node::kill);
}
