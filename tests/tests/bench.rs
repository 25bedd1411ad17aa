//! The load generator against a real node: every protocol and pace does work, and nothing fails.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

use memkv_black_box::{Cluster, binary};
use serde_json::Value;

/// Runs `memkv-bench run` for a second, and returns its only sample.
fn sample(addr: &str, json: &Path, more: &[&str]) -> Value {
    let mut command = Command::new(binary("memkv-bench"));
    command.args([
        "run",
        "--target",
        addr,
        "--seconds",
        "1",
        "--warm-up-ms",
        "0",
    ]);
    command.args(["--keys", "100", "--json"]).arg(json);
    let output = command.args(more).output().unwrap();
    assert!(output.status.success(), "{more:?}: {output:?}");
    let samples: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(samples.as_array().unwrap().len(), 1);
    samples[0].clone()
}

#[test]
fn every_protocol_and_pace_does_work_without_failures() {
    let mut cluster = Cluster::start(1);
    let addr = cluster.nodes[0].addr.clone();
    let process = cluster.nodes[0].process().id().to_string();
    let json = cluster.root().join("samples.json");
    for more in [
        &["--protocol", "resp", "-c", "4", "-P", "8"][..],
        &[
            "--protocol",
            "resp",
            "-c",
            "4",
            "-P",
            "8",
            "--window",
            "--reads",
            "50",
        ],
        &["--protocol", "resp", "-c", "4", "--rate", "100"],
        &["--protocol", "compat", "-c", "4", "--reads", "50"],
        &["--protocol", "rest", "-c", "4", "-P", "2", "--reads", "50"],
    ] {
        let sample = sample(&addr, &json, &[more, &["--pid", &process]].concat());
        assert!(
            sample["ops_per_second"].as_f64().unwrap() > 0.0,
            "{more:?}: {sample}"
        );
        assert!(
            sample["p50_ms"].as_f64().unwrap() > 0.0,
            "{more:?}: {sample}"
        );
        assert_eq!(sample["failed"], 0, "{more:?}: {sample}");
        assert!(
            sample["resident_bytes"].as_u64().unwrap() > 0,
            "{more:?}: {sample}"
        );
    }
    assert!(cluster.nodes[0].status().unwrap()["keys"].as_u64().unwrap() >= 100);
}

#[test]
fn what_cannot_be_measured_is_reported() {
    let run = |more: &[&str]| {
        let mut command = Command::new(binary("memkv-bench"));
        let output = command.arg("run").args(more).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), text)
    };
    let (code, text) = run(&["--target", "127.0.0.1:1", "-c", "1"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("cannot connect to 127.0.0.1:1"), "{text}");
    let (code, text) = run(&["--target", "nowhere", "-c", "1"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("nowhere is not HOST:PORT"), "{text}");
}
