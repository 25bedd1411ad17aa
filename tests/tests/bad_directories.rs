//! Data directories that are torn, damaged, shared or someone else's, and configurations that
//! are wrong: each has its outcome and a message with the remedy.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use memkv_black_box::{
    Cluster, Compat, Node, Process, eventually, files_in, first_index, flip_bit, newest_snapshot,
};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

/// A member is replaced once it was silent for 10 s; then it must catch up.
const REPLACED_LIMIT: Duration = Duration::from_secs(60);

/// A node that refuses to start exits at once.
const REFUSAL_LIMIT: Duration = Duration::from_secs(10);

/// Starts a node that must end by itself, with a failure and with all these words in its output.
#[track_caller]
fn refuses_to_start(node: &Node, words: &[&str]) -> String {
    let mut process = Process::start(&mut node.command(), &node.log);
    let status = process.wait_end(REFUSAL_LIMIT);
    let output = process.output();
    assert!(!status.success(), "{status}:\n{output}");
    for word in words {
        assert!(output.contains(word), "says `{word}`:\n{output}");
    }
    output
}

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

/// Segments of a node's log, the oldest first.
fn segments(node: &Node) -> Vec<std::path::PathBuf> {
    let mut files = files_in(&node.dir.join("log"));
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    files
}

/// Place after the last byte that is not zero: where the log ends in a zero-filled segment.
fn end_of_data(file: &Path) -> usize {
    fs::read(file)
        .unwrap()
        .iter()
        .rposition(|byte| *byte != 0)
        .unwrap()
        + 1
}

/// Three nodes with data, all killed.
fn killed_cluster() -> Cluster {
    let mut cluster = Cluster::start(3);
    let mut client = cluster.nodes[0].compat();
    for number in 0..100 {
        set(&mut client, &format!("key-{number}"), "kept");
    }
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster
}

#[test]
fn a_torn_tail_is_cut_and_nothing_acknowledged_is_lost() {
    let mut cluster = killed_cluster();
    for node in &cluster.nodes {
        let last = segments(node).pop().unwrap();
        let mut bytes = fs::read(&last).unwrap();
        // A record that was being written when the power failed: some of its sectors are there.
        let start = (end_of_data(&last) + 64).next_multiple_of(8);
        for (index, byte) in bytes[start..start + 200].iter_mut().enumerate() {
            *byte = u8::try_from(index % 251).unwrap() | 1;
        }
        fs::write(&last, bytes).unwrap();
    }
    cluster.start_all();
    for number in 0..100 {
        holds(&cluster.nodes[number % 3], &format!("key-{number}"), "kept");
    }
}

/// Flips a bit in the middle of a node's log and returns the segment's name. The byte is one that
/// is not zero: those are a record's header or payload, never the padding between two records,
/// which means nothing.
fn damage_log(node: &Node) -> String {
    let damaged = segments(node).remove(0);
    let bytes = fs::read(&damaged).unwrap();
    let middle = end_of_data(&damaged) / 2;
    let written = bytes[middle..].iter().position(|byte| *byte != 0).unwrap();
    flip_bit(&damaged, middle + written);
    damaged.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_flipped_bit_in_the_log_is_named_and_the_node_is_replaced_under_a_new_id() {
    let mut cluster = killed_cluster();
    let name = damage_log(&cluster.nodes[0]);
    let evidence = fs::read(segments(&cluster.nodes[0]).remove(0)).unwrap();
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.nodes[1].wait_serving();
    holds(&cluster.nodes[1], "key-7", "kept");
    let new_id = eventually("the damaged node was replaced", REPLACED_LIMIT, || {
        let status = cluster.nodes[0].status()?;
        (status["phase"] == "serving").then(|| status["node_id"].as_u64().unwrap())
    });
    assert!(new_id > 3, "an id that was never used: {new_id}");
    let output = cluster.nodes[0].process().output();
    assert!(
        output.contains(&name) && output.contains("offset"),
        "{output}"
    );
    let kept = files_in(&cluster.nodes[0].dir)
        .iter()
        .any(|file| fs::read(file).unwrap() == evidence);
    assert!(kept, "what is damaged is evidence, and is not deleted");
    holds(&cluster.nodes[0], "key-7", "kept");
}

#[test]
fn when_every_log_is_damaged_nothing_is_started_anew() {
    let mut cluster = killed_cluster();
    for node in &mut cluster.nodes {
        damage_log(node);
        node.start();
    }
    // Each logs its fault; together they must not become a new, empty cluster.
    for node in &mut cluster.nodes {
        node.process().wait_output("is corrupt at offset", LIMIT);
    }
    for node in &cluster.nodes {
        let reply = eventually("an answer", LIMIT, || node.compat().get("key-7").ok());
        assert_eq!(reply.status, "no leader", "neither served nor forgotten");
    }
}

#[test]
fn one_bad_copy_of_the_metadata_is_survived_and_two_are_refused() {
    let mut cluster = killed_cluster();
    let copies = files_in(&cluster.nodes[0].dir.join("metadata"));
    let copies: Vec<_> = copies
        .into_iter()
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("metadata-")
        })
        .collect();
    assert_eq!(copies.len(), 2, "{copies:?}");
    flip_bit(&copies[0], 40);
    cluster.start_all();
    holds(&cluster.nodes[0], "key-7", "kept");
    let output = cluster.nodes[0].process().output();
    assert!(
        output.contains("one of the two copies of the metadata"),
        "the repair is told:\n{output}"
    );

    cluster.nodes[0].kill();
    flip_bit(&copies[0], 40);
    flip_bit(&copies[1], 40);
    refuses_to_start(&cluster.nodes[0], &["metadata"]);
    holds(&cluster.nodes[1], "key-7", "kept");
}

#[test]
fn a_bad_snapshot_that_nothing_else_covers_is_named_and_the_node_is_replaced() {
    let mut cluster = Cluster::start(3);
    set(&mut cluster.nodes[0].compat(), "early", "kept");
    let value = "v".repeat(1024);
    let mut client = cluster.nodes[0].compat();
    for number in 0..1500 {
        set(&mut client, &format!("fill-{}", number % 20), &value);
    }
    eventually(
        "a snapshot that the log does not reach back to",
        LIMIT,
        || {
            let taken = cluster.nodes[0].status()?["snapshot_index"].as_u64()? > 0;
            (taken && first_index(&cluster.nodes[0]) > 1).then_some(())
        },
    );
    cluster.nodes[0].kill();
    let snapshot = newest_snapshot(&cluster.nodes[0].dir.join("snapshot"));
    // An older one could fill the gap together with the log.
    for other in files_in(&cluster.nodes[0].dir.join("snapshot")) {
        if other.extension().is_some_and(|end| end == "snap") && other != snapshot {
            fs::remove_file(other).unwrap();
        }
    }
    flip_bit(&snapshot, end_of_data(&snapshot) / 2);
    let name = snapshot.file_name().unwrap().to_str().unwrap().to_owned();
    cluster.nodes[0].start();
    let new_id = eventually("the node was replaced", REPLACED_LIMIT, || {
        let status = cluster.nodes[0].status()?;
        (status["phase"] == "serving").then(|| status["node_id"].as_u64().unwrap())
    });
    assert!(new_id > 3, "an id that was never used: {new_id}");
    let output = cluster.nodes[0].process().output();
    assert!(
        output.contains(&name),
        "the damaged file is named:\n{output}"
    );
    for node in &cluster.nodes {
        holds(node, "early", "kept");
    }
}

#[test]
fn a_failing_write_of_the_log_stops_the_node_at_once_and_the_others_go_on() {
    a_failing_disk_stops_the_node("write", &["inject=pwritev2:error=EIO:when=20+"]);
}

/// On a file system that takes no direct writes.
#[test]
fn a_failing_fsync_stops_the_node_at_once_and_the_others_go_on() {
    // The first syncs are those of the start; a later one fails, and none is tried again.
    let injections = [
        "inject=pwritev2:error=EINVAL",
        "inject=fdatasync,fsync:error=EIO:when=40+",
    ];
    a_failing_disk_stops_the_node("sync", &injections);
}

/// Lets `strace` fail calls of one node until it ends with the message that it could not `what`.
fn a_failing_disk_stops_the_node(what: &str, injections: &[&str]) {
    let mut cluster = Cluster::start(3);
    set(&mut cluster.nodes[0].compat(), "before", "kept");
    cluster.nodes[2].terminate();
    let mut strace = vec![
        "strace",
        "-f",
        "-D",
        "-qq",
        "-o",
        "strace.log",
        "-e",
        "trace=fdatasync,fsync,pwritev2",
    ];
    for injection in injections {
        strace.extend(["-e", injection]);
    }
    let command = cluster.nodes[2].command_under(&strace);
    cluster.nodes[2].start_with(command);
    let mut client = cluster.nodes[0].compat();
    let mut number = 0;
    let status = eventually("the node ends by itself", LIMIT, || {
        number += 1;
        set(&mut client, &format!("key-{}", number % 50), "written");
        cluster.nodes[2].process().ended()
    });
    let output = cluster.nodes[2].process().output();
    assert!(!status.success(), "{status}:\n{output}");
    let failed = format!("cannot {what} log segment");
    assert!(output.contains(&failed), "says what failed:\n{output}");
    set(&mut client, "after", "kept");

    cluster.nodes[2].kill();
    cluster.nodes[2].start();
    cluster.nodes[2].wait_serving();
    holds(&cluster.nodes[2], "before", "kept");
    holds(&cluster.nodes[2], "after", "kept");
}

#[test]
fn a_second_process_on_the_same_directory_refuses_to_start() {
    let mut cluster = Cluster::start(2);
    let second = Node::new(cluster.root());
    let mut config = second.compat_config(&[]);
    for key in ["log_path", "metadata_path", "snapshot_path"] {
        let below = cluster.nodes[0].read_config()[key]
            .as_str()
            .unwrap()
            .to_owned();
        config[key] = json!(cluster.nodes[0].dir.join(below).to_str().unwrap());
    }
    second.write_config(&config);
    let holder = cluster.nodes[0].process().id().to_string();
    refuses_to_start(&second, &["in use", &holder]);
    set(&mut cluster.nodes[0].compat(), "key", "value");
}

/// Replaces a node's files by those of another.
fn copy_data(from: &Node, to: &Node) {
    to.wipe();
    for dir in ["log", "metadata", "snapshot"] {
        fs::create_dir_all(to.dir.join(dir)).unwrap();
        for file in files_in(&from.dir.join(dir)) {
            fs::copy(&file, to.dir.join(dir).join(file.file_name().unwrap())).unwrap();
        }
    }
}

#[test]
fn a_directory_that_is_put_back_to_an_old_copy_is_set_aside_and_the_node_replaced() {
    let mut cluster = killed_cluster();
    let copy = Node::new(cluster.root());
    copy_data(&cluster.nodes[0], &copy);
    for node in &mut cluster.nodes {
        node.start();
    }
    for node in &mut cluster.nodes {
        node.wait_serving();
    }
    set(&mut cluster.nodes[1].compat(), "later", "kept");
    cluster.nodes[0].kill();
    copy_data(&copy, &cluster.nodes[0]);
    cluster.nodes[0].start();
    let new_id = eventually("the node was replaced", REPLACED_LIMIT, || {
        let status = cluster.nodes[0].status()?;
        let id = status["node_id"].as_u64().unwrap();
        (status["phase"] == "serving" && id > 3).then_some(id)
    });
    assert!(new_id > 3, "an id that was never used: {new_id}");
    let output = cluster.nodes[0].process().output();
    assert!(output.contains("went back in time"), "{output}");
    let metadata = cluster.nodes[0].dir.join("metadata/quarantine-1");
    assert!(metadata.join("condemned").is_file(), "the old copy is kept");
    holds(&cluster.nodes[0], "later", "kept");
}

#[test]
fn a_directory_that_another_user_could_write_is_refused_with_the_remedy() {
    let mut cluster = Cluster::configured(1);
    let node = &mut cluster.nodes[0];
    node.start();
    node.wait_serving();
    set(&mut node.compat(), "k", "v");
    node.terminate();
    let log = node.dir.join("log");
    let mode = |mode| fs::set_permissions(&log, Permissions::from_mode(mode)).unwrap();
    mode(0o707);
    let log_name = log.file_name().unwrap().to_str().unwrap().to_owned();
    refuses_to_start(node, &[&log_name, "every user", "707", "chmod 700"]);
    // Only root can give a directory away.
    if fs::metadata(&log).unwrap().uid() == 0 {
        mode(0o700);
        std::os::unix::fs::chown(&log, Some(1), None).unwrap();
        refuses_to_start(node, &[&log_name, "user 1,", "user 0", "chown"]);
        std::os::unix::fs::chown(&log, Some(0), None).unwrap();
    }
    mode(0o770);
    node.start();
    node.wait_serving();
    holds(node, "k", "v");
}

#[test]
fn another_nodes_directory_is_refused_with_both_names() {
    let mut cluster = killed_cluster();
    copy_data(&cluster.nodes[1], &cluster.nodes[0]);
    let (own, other) = (cluster.nodes[0].id.clone(), cluster.nodes[1].id.clone());
    refuses_to_start(&cluster.nodes[0], &[&own, &other]);
    for index in [1, 2] {
        cluster.nodes[index].start();
    }
    cluster.nodes[1].wait_serving();
    holds(&cluster.nodes[1], "key-7", "kept");
}

#[test]
fn a_directory_of_another_cluster_is_refused_with_both_clusters() {
    let mut cluster = killed_cluster();
    let ours: Vec<_> = cluster
        .nodes
        .iter()
        .map(|n| (n.addr.clone(), n.id.clone()))
        .collect();
    // Another cluster whose first node has the same name and address.
    let mut stranger = Node::new(cluster.root());
    let mut other_first = Node::new(cluster.root());
    other_first.id.clone_from(&ours[0].1);
    other_first.addr.clone_from(&ours[0].0);
    other_first.peer_addr.clone_from(&ours[0].0);
    other_first
        .write_config(&other_first.compat_config(&[(stranger.addr.clone(), stranger.id.clone())]));
    stranger.write_config(&stranger.compat_config(&ours[..1]));
    other_first.start();
    stranger.start();
    other_first.wait_serving();
    let strange_cluster = other_first.status().unwrap()["cluster"]
        .as_str()
        .unwrap()
        .to_owned();
    other_first.kill();
    stranger.kill();

    copy_data(&other_first, &cluster.nodes[0]);
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.nodes[1].wait_serving();
    let our_cluster = cluster.nodes[1].status().unwrap()["cluster"]
        .as_str()
        .unwrap()
        .to_owned();
    eventually("both clusters are named", LIMIT, || {
        let mut outputs = cluster.nodes.iter_mut().map(|node| node.process().output());
        let both =
            |output: String| output.contains(&strange_cluster) && output.contains(&our_cluster);
        outputs.any(both).then_some(())
    });
    let reply = cluster.nodes[0].compat().get("key-7");
    assert!(
        reply.is_err() || reply.unwrap().status == "no leader",
        "it must not serve"
    );
    holds(&cluster.nodes[1], "key-7", "kept");
}

#[test]
fn wrong_configurations_are_refused_with_the_line_and_the_remedy() {
    let cluster = Cluster::configured(2);
    let node = &cluster.nodes[0];
    let good = node.read_config();
    let refused = |change: &dyn Fn(&mut serde_json::Value), words: &[&str]| {
        let mut config = good.clone();
        change(&mut config);
        node.write_config(&config);
        refuses_to_start(node, words);
        assert!(
            files_in(&node.dir.join("log")).is_empty(),
            "nothing was created"
        );
    };
    refused(
        &|config| config["max_log_sizee"] = json!(1),
        &["max_log_sizee", "did you mean \"max_log_size\"", "[MK-002]"],
    );
    refused(
        &|config| config["colour"] = json!(1),
        &["colour", "raft_config.json:"],
    );
    refused(
        &|config| config["max_log_size"] = json!("big"),
        &["max_log_size", "whole number"],
    );
    refused(
        &|config| config["max_log_count"] = json!(1),
        &["max_log_count", "2"],
    );
    refused(
        &|config| config["node_addr"]["addr"] = json!("nowhere"),
        &["nowhere", "host:port"],
    );
    fs::write(node.dir.join("raft_config.json"), "{ \"log_path\": ").unwrap();
    refuses_to_start(node, &["raft_config.json"]);

    // A missing file that the command line names does not select the defaults.
    let mut command = node.command();
    command.arg("missing.json");
    let mut process = Process::start(&mut command, &node.log);
    assert!(!process.wait_end(REFUSAL_LIMIT).success());
    assert!(
        process.output().contains("missing.json"),
        "{}",
        process.output()
    );
}

#[test]
fn a_busy_port_is_named() {
    let cluster = Cluster::configured(2);
    let node = &cluster.nodes[0];
    let _holder = TcpListener::bind(&node.addr).unwrap();
    refuses_to_start(node, &[&node.addr]);
}
