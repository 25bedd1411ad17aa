//! The timeline: each node tells what has happened to it with reasons, the client merges the nodes' stories and
//! follows them over a restart.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use memkv_black_box::{Cluster, Http, Node, Resp, binary, eventually};
use serde_json::Value;

/// Longer than an election takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The events of one node behind a number.
fn events(node: &Node, since: u64) -> Value {
    let path = format!("/v1/events?since={since}");
    let answer = Http::once(&node.addr, "GET", &path, b"").unwrap();
    assert_eq!(answer.status, 200);
    serde_json::from_slice(&answer.body).unwrap()
}

/// The texts of one kind.
fn texts(node: &Node, kind: &str) -> Vec<String> {
    let all = events(node, 0);
    let all = all["events"].as_array().unwrap().iter();
    all.filter(|event| event["kind"] == kind)
        .map(|event| event["text"].as_str().unwrap().to_owned())
        .collect()
}

fn client(cluster: &Cluster, words: &[&str]) -> Command {
    let mut command = Command::new(binary("memkv_client"));
    command
        .args(["events"])
        .args(words)
        .current_dir(cluster.client_dir());
    command
}

/// A client that follows, and its lines.
struct Follower {
    child: Child,
    lines: mpsc::Receiver<Value>,
}

impl Follower {
    fn start(cluster: &Cluster) -> Follower {
        let mut command = client(cluster, &["--follow", "-o", "json"]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                drop(sender.send(serde_json::from_str(&line).unwrap()));
            }
        });
        Follower { child, lines }
    }

    /// The next line that fits.
    #[track_caller]
    fn wait(&self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.lines.recv_timeout(LIMIT).expect("such an event");
            if fits(&line) {
                return line;
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_leaders_death_is_told_by_all_with_its_reason_and_followed_over_its_restart() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let old = cluster.nodes[leader].id.clone();
    for node in &cluster.nodes {
        let (started, formed) = (texts(node, "started"), texts(node, "formed"));
        assert!(started.len() == 1 && formed.len() == 1, "{formed:?}");
        assert!(started[0].ends_with("start 1"), "{started:?}");
        assert!(formed[0].contains(&node.id), "{formed:?}");
    }
    assert!(!texts(&cluster.nodes[leader], "leader").is_empty());
    let follower = Follower::start(&cluster);
    follower.wait(|line| line["kind"] == "leader");
    cluster.nodes[leader].kill();
    // The two others say the same of it, each with the reason that it knows.
    let gone = format!("the process of the leader {old} is gone");
    let told = follower.wait(|line| line["kind"] == "leader_gone");
    assert_eq!(told["text"], gone);
    assert_eq!(told["warns"], true);
    let why = format!("the process of {old} is gone");
    follower
        .wait(|line| line["kind"] == "leader" && line["text"].as_str().unwrap().ends_with(&why));
    // Numbers begin anew with the process, and it is told from its first event on.
    cluster.nodes[leader].start();
    cluster.nodes[leader].wait_serving();
    let started = follower.wait(|line| line["kind"] == "started");
    assert_eq!(
        (&started["node"], &started["seq"]),
        (&old.clone().into(), &1.into())
    );
    let follows = follower.wait(|line| line["kind"] == "follower" && line["node"] == *old);
    assert_eq!(follows["warns"], false);
    // Nothing is told again that was replayed from the log.
    assert_eq!(texts(&cluster.nodes[leader], "formed"), [""; 0]);
    let last = follows["seq"].as_u64().unwrap();
    assert_eq!(
        events(&cluster.nodes[leader], last + 1000)["events"],
        Value::Array(vec![])
    );
}

#[test]
fn a_handover_and_a_backup_are_told_and_lines_fit() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let (old, addr) = (
        cluster.nodes[leader].id.clone(),
        cluster.nodes[leader].addr.clone(),
    );
    let mut resp = Resp::connect(&addr).unwrap();
    let asked = resp.call(&["MEMKV.CLUSTER", "TRANSFER"]).unwrap();
    assert!(!asked.is_error(), "{asked:?}");
    let handed = eventually("it hands over", LIMIT, || {
        texts(&cluster.nodes[leader], "handing_over").pop()
    });
    assert!(handed.starts_with("hands leadership over to "), "{handed}");
    let next = cluster.leader();
    let why = format!("{old} has handed leadership over");
    eventually("the next leader says why", LIMIT, || {
        let led = texts(&cluster.nodes[next], "leader");
        led.iter().any(|text| text.ends_with(&why)).then_some(())
    });
    let file = cluster.root().join("backup");
    let saved = Command::new(binary("memkv_client"))
        .args(["--endpoints", &addr, "backup", "save"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(saved.status.success(), "{saved:?}");
    eventually("the backup is told", LIMIT, || {
        let node = &cluster.nodes[leader];
        let (begun, done) = (texts(node, "backup_begun"), texts(node, "backup_done"));
        let snapshots = texts(node, "snapshot_written");
        (begun.len() == 1 && done.len() == 1 && !snapshots.is_empty()).then_some(())
    });
    let answer = Http::once(&addr, "GET", "/v1/events?since=x", b"").unwrap();
    assert_eq!(answer.status, 400);
    cluster.nodes[leader].kill();
    let shown = client(&cluster, &["--since", "1h"]).output().unwrap();
    assert!(shown.status.success(), "{shown:?}");
    let said = String::from_utf8(shown.stderr).unwrap();
    assert!(
        said.contains(&old),
        "the node that does not answer is named: {said}"
    );
    let lines = String::from_utf8(shown.stdout).unwrap();
    assert!(lines.lines().count() >= 4, "{lines}");
    let times: Vec<&str> = lines.lines().map(|line| &line[..18]).collect();
    assert!(times.is_sorted(), "{lines}");
    let long: Vec<&str> = lines.lines().filter(|line| line.len() > 120).collect();
    assert_eq!(long, [""; 0]);
    // An election after the death is over at some time.
    eventually("nothing happens", LIMIT, || {
        let none = client(&cluster, &["--since", "1ms"]).output().unwrap();
        (none.status.success() && none.stdout.is_empty()).then_some(())
    });
}
