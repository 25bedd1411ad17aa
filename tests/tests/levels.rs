//! Two builds that differ in the feature level that they know: the one that people run, and the one
//! with the deliberate bugs, which knows one level more and which `cargo xtask test` builds and names
//! in `MEMKV_BUGS_BIN_DIR`. And entries of the log that no build can read.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;
use std::time::Duration;

use memkv_black_box::{
    Cluster, Delayed, DrainLoad, Node, Partition, Resp, binary, command_with_bugs, eventually,
    order,
};
use serde_json::json;

/// Longer than a start and an election take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A member is replaced once it was silent for 10 s; then it must catch up.
const REPLACED_LIMIT: Duration = Duration::from_secs(60);

/// The highest level that the build knows which people run, and the one level more of the other build.
const OLD: u64 = 3;
const NEW: u64 = OLD + 1;

/// The error for a command that belongs to the next level.
fn command_of_next_level(node: &Node) -> String {
    let mut client = Resp::connect(&node.addr).unwrap();
    order(&node.addr, "/deliberate-panic/next-level");
    let answer = client.call(&["SET", "next", "level"]).unwrap();
    String::from_utf8_lossy(answer.text()).into_owned()
}

fn level(node: &Node) -> Option<u64> {
    node.status()?["feature_level"].as_u64()
}

/// Waits until a node ends by itself, with exit code 1 and all these words; gives the line with them.
#[track_caller]
fn ends(node: &mut Node, words: &[&str]) -> String {
    let status = node.process().wait_end(LIMIT);
    let output = node.process().output();
    assert_eq!(status.code(), Some(1), "{output}");
    node.kill();
    let mut last_words = output.lines().filter(|line| line.starts_with("error: "));
    let said = |line: &&str| words.iter().all(|word| line.contains(word));
    let line = last_words.rfind(said);
    line.unwrap_or_else(|| panic!("says {words:?}:\n{output}"))
        .to_owned()
}

/// What a binary says of replacing the one that runs, or ran.
#[track_caller]
fn may_replace(command: &mut Command, may: bool, words: &[String]) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(i32::from(!may)), "{output:?}");
    assert!(
        said.starts_with(if may { "yes: " } else { "no: " }),
        "{said}"
    );
    for part in words {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_cluster_is_raised_once_every_node_knows_more_and_then_refuses_the_older_build() {
    let at_once = json!({ "raise_feature_level_after_s": 0 });
    let mut cluster = Cluster::configured_with(3, &at_once);
    cluster.start_all();
    for index in 0..3 {
        let node = &mut cluster.nodes[index];
        assert_eq!(level(node), Some(OLD));
        let newer = command_with_bugs(node);
        let mut newer = Command::new(newer.get_program());
        let words = [
            format!("up to {NEW}"),
            format!("uses level {OLD}"),
            format!("max_feature_level = {OLD}"),
        ];
        may_replace(newer.arg("upgrade-check").arg(&node.addr), true, &words);
        node.terminate();
        let command = command_with_bugs(node);
        node.start_with(command);
        node.wait_serving();
        if index == 2 {
            break;
        }
        // Both builds serve, at the level that both know.
        let behind = cluster.nodes[2].id.clone();
        let told = command_of_next_level(&cluster.nodes[index]);
        let needs = format!("needs feature level {NEW}");
        for part in [&needs, &format!("level {OLD}"), &behind] {
            assert!(told.contains(part.as_str()), "{told}");
        }
        let key = format!("while-{index}");
        let written = cluster.nodes[2].compat().set(&key, "both").unwrap();
        assert_eq!(written.status, "ok");
        let read = cluster.nodes[index].compat().get(&key).unwrap();
        assert_eq!(read.value.as_deref(), Some("both"));
    }
    for node in &cluster.nodes {
        eventually("the level is raised", LIMIT, || {
            (level(node) == Some(NEW)).then_some(())
        });
    }
    assert_eq!(command_of_next_level(&cluster.nodes[1]), "OK");
    let status = cluster.nodes[1].status().unwrap();
    let announced = status["members"].as_array().unwrap().iter();
    let announced: Vec<_> = announced
        .map(|member| member["highest_feature_level"].as_u64())
        .collect();
    assert_eq!(announced, [Some(NEW); 3]);

    // The older build refuses, each time with the same words, and says so before it is tried.
    let levels = [format!("feature level {NEW}"), format!("up to {OLD}")];
    let older = || Command::new(binary("memkv_server"));
    let running = &cluster.nodes[1].addr;
    may_replace(older().arg("upgrade-check").arg(running), false, &levels);
    let node = &mut cluster.nodes[0];
    node.terminate();
    let dir = &node.dir;
    may_replace(
        older().args(["upgrade-check", "--data"]).arg(dir),
        false,
        &levels,
    );
    let words = [
        &levels[0],
        &levels[1],
        "the version that the other nodes run",
    ];
    let lines = [(); 2].map(|()| {
        node.start();
        ends(node, &words)
    });
    assert_eq!(lines[0], lines[1]);
    // On an empty directory it is not admitted, with a reason.
    node.wipe();
    node.start();
    eventually("it says why it cannot join", LIMIT, || {
        let status = node.status()?;
        let message = status["message"].as_str()?;
        let said = levels.iter().all(|word| message.contains(word));
        (status["phase"] == "joining" && said).then_some(())
    });
    node.kill();
    let command = command_with_bugs(node);
    node.start_with(command);
    eventually("the newer build is admitted", REPLACED_LIMIT, || {
        (node.status()?["phase"] == "serving").then_some(())
    });
    let read = node.compat().get("while-1").unwrap();
    assert_eq!(read.value.as_deref(), Some("both"));
}

#[test]
fn an_entry_that_cannot_be_read_stops_the_node_with_the_same_words_at_each_start() {
    // The older build must be able to run on this directory, too.
    let held_back = json!({ "max_feature_level": OLD });
    let mut cluster = Cluster::configured_with(1, &held_back);
    let node = &mut cluster.nodes[0];
    let command = command_with_bugs(node);
    node.start_with(command);
    node.wait_serving();
    assert_eq!(level(node), Some(OLD));
    assert_eq!(node.compat().set("kept", "yes").unwrap().status, "ok");
    order(&node.addr, "/deliberate-panic/unreadable");
    // It is never answered: the entry that holds it cannot be applied.
    drop(node.compat().set("other", "lost"));
    let words = ["log entry", "cannot be read", "newer version"];
    let first = ends(node, &words);
    // With either build, and the last time as the first.
    for command in [node.command(), command_with_bugs(node), node.command()] {
        node.start_with(command);
        assert_eq!(ends(node, &words), first);
    }
}

/// How a build of either level runs a node.
type Build = fn(&Node) -> Command;

#[test]
fn a_rolling_upgrade_under_load_with_a_rollback_in_the_middle_fails_no_request() {
    // Longer than two restarts on a busy machine: the raise must wait for all of it.
    let later = json!({ "raise_feature_level_after_s": 15 });
    let mut cluster = Cluster::configured_with(3, &later);
    cluster.start_all();
    let load = DrainLoad::start(&cluster);
    let (newer, older): (Build, Build) = (command_with_bugs, Node::command);
    // All know more, one goes back before the level is raised, and comes again.
    for (index, build) in [(0, newer), (1, newer), (2, newer), (1, older), (1, newer)] {
        load.restart_with(&mut cluster, index, build);
        assert_eq!(level(&cluster.nodes[index]), Some(OLD));
    }
    for node in &cluster.nodes {
        eventually("the level is raised", LIMIT, || {
            (level(node) == Some(NEW)).then_some(())
        });
    }
    load.finish(&cluster);
}

#[test]
fn an_older_node_that_is_cut_off_holds_the_level_back() {
    let partition = Partition::default();
    let at_once = json!({ "raise_feature_level_after_s": 0 });
    let through = |node: &Node| partition.proxy(&node.id, &node.addr);
    let mut cluster = Cluster::configured_as(3, &at_once, through);
    cluster.start_all();
    let replace = |node: &mut Node| {
        node.terminate();
        let command = command_with_bugs(node);
        node.start_with(command);
        node.wait_serving();
    };
    cluster.nodes[..2].iter_mut().for_each(replace);
    let behind = cluster.nodes[2].id.clone();
    partition.cut_off(&behind);
    for node in &cluster.nodes[..2] {
        eventually("the two serve without it", LIMIT, || {
            (node.compat().set("cut", "off").ok()?.status == "ok").then_some(())
        });
    }
    for number in 0..200 {
        let key = format!("beside-{number}");
        let written = cluster.nodes[number % 2].compat().set(&key, "v").unwrap();
        assert_eq!(written.status, "ok");
    }
    for node in &cluster.nodes[..2] {
        assert_eq!(level(node), Some(OLD), "it has announced no more");
    }
    partition.heal(&behind, Delayed::Lost);
    cluster.nodes[2].wait_serving();
    replace(&mut cluster.nodes[2]);
    for node in &cluster.nodes {
        eventually("the level is raised", LIMIT, || {
            (level(node) == Some(NEW)).then_some(())
        });
    }
}
