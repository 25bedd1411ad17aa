//! The alerts and the dashboard for Prometheus and Grafana: the rules are valid and each has a test, every metric in
//! them exists, and a real Prometheus that scrapes a real cluster fires when nodes die and stops when they are back.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use memkv_black_box::{Cluster, Http, Process, binary, eventually, free_port};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than Prometheus takes to start, and an alert to fire, on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

fn read(name: &str) -> String {
    fs::read_to_string(dir().join(name)).unwrap()
}

#[track_caller]
fn promtool(words: &[&str]) -> String {
    let output = Command::new("promtool")
        .args(words)
        .current_dir(dir())
        .output()
        .expect("promtool of Debian's package prometheus");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}{errors}");
    said
}

/// The values behind `key: ` of a file.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text.lines().map(str::trim);
    lines.filter_map(|line| line.strip_prefix(key)).collect()
}

#[test]
fn rules_are_valid_and_each_is_silent_then_fires_once_then_is_silent() {
    let rules = read("rules.yml");
    let alerts = values(&rules, "- alert: ");
    let said = promtool(&["check", "rules", "rules.yml"]);
    assert!(said.contains(&format!("{} rules", alerts.len())), "{said}");
    promtool(&["test", "rules", "rules_test.yml"]);
    let unique: BTreeSet<&str> = alerts.iter().copied().collect();
    assert_eq!(unique.len(), alerts.len());
    let tests = read("rules_test.yml");
    for alert in alerts {
        let one = tests
            .split("  - name: ")
            .find(|test| test.starts_with(&format!("{alert}\n")));
        let one = one.unwrap_or_else(|| panic!("{alert} has no test"));
        let cases: Vec<&str> = one.split("- eval_time: ").skip(1).collect();
        let fires: Vec<usize> = cases
            .iter()
            .map(|case| case.matches("exp_labels:").count())
            .collect();
        assert_eq!(fires, [0, 1, 0], "{alert}");
        assert_eq!(values(one, "alertname: "), [alert; 3]);
    }
    // What an operator reads of each.
    for key in ["summary: ", "description: ", "severity: "] {
        assert_eq!(values(&rules, key).len(), unique.len(), "{key}");
    }
}

#[test]
fn each_alert_has_an_entry_in_the_runbook_and_its_commands_exist() {
    let page = fs::read_to_string(dir().join("../docs/runbook.md")).unwrap();
    let rules = read("rules.yml");
    assert_eq!(values(&page, "## "), values(&rules, "- alert: "));
    for entry in page.split("\n## ").skip(1) {
        for part in ["**Means**", "**Look**", "**Do**"] {
            assert_eq!(entry.matches(part).count(), 1, "{part} of {entry}");
        }
    }
    let quoted = page.split('`').skip(1).step_by(2);
    let commands: BTreeSet<Vec<&str>> = quoted
        .filter_map(|quoted| {
            let words: Vec<&str> = quoted.split_whitespace().collect();
            let (program, rest) = words.split_first()?;
            let is_verb = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            let verbs = rest.iter().take_while(is_verb);
            let verbs = verbs.take_while(|word| !word.starts_with('-')).copied();
            program
                .starts_with("memkv_")
                .then(|| [*program].into_iter().chain(verbs).collect())
        })
        .collect();
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands {
        let mut help = Command::new(binary(command[0]));
        let output = help.args(&command[1..]).arg("--help").output().unwrap();
        assert!(output.status.success(), "{command:?}");
    }
}

/// Every word of a text that looks like a metric.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !is_word(c));
    let named = words.filter(|word| word.starts_with("memkv_"));
    // Programs are named in texts.
    let named = named.filter(|word| !["memkv_client", "memkv_server"].contains(word));
    named.map(str::to_owned).collect()
}

#[test]
fn every_metric_of_the_rules_and_the_dashboard_exists() {
    let page = fs::read_to_string(dir().join("../docs/metrics.md")).unwrap();
    let mut known = BTreeSet::new();
    for line in page.lines() {
        let Some(rest) = line.strip_prefix("| `") else {
            continue;
        };
        let (name, rest) = rest.split_once('`').unwrap();
        match rest.starts_with(" | histogram") {
            true => known.extend(["bucket", "sum", "count"].map(|end| format!("{name}_{end}"))),
            false => drop(known.insert(name.to_owned())),
        }
    }
    assert!(known.len() > 60, "{known:?}");
    for (file, least) in [
        ("rules.yml", 20),
        ("rules_test.yml", 20),
        ("grafana.json", 30),
    ] {
        let named = metrics(&read(file));
        let unknown: Vec<&String> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
        assert!(named.len() >= least, "{file}: {named:?}");
    }
}

#[test]
fn each_panel_has_a_place_of_its_own_and_says_what_it_shows() {
    let dashboard: Value = serde_json::from_str(&read("grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut covered) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let number = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let (x, y) = (number("x"), number("y"));
        assert!(x + number("w") <= 24, "{panel}");
        for at_x in x..x + number("w") {
            for at_y in y..y + number("h") {
                assert!(covered.insert((at_x, at_y)), "two panels at {at_x}, {at_y}");
            }
        }
        if panel["type"] != "row" {
            assert!(
                panel["description"].as_str().unwrap().ends_with('.'),
                "{panel}"
            );
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{panel}");
        }
    }
    assert!(panels.len() > 25);
}

/// A Prometheus that scrapes a cluster.
struct Prometheus {
    addr: String,
    _process: Process,
    _dir: TempDir,
}

impl Prometheus {
    /// With the rules as they are, but for the time that a cause must last: two seconds for all.
    fn start(cluster: &Cluster) -> Prometheus {
        let dir = tempfile::tempdir().unwrap();
        let (rules, config) = (
            dir.path().join("rules.yml"),
            dir.path().join("prometheus.yml"),
        );
        let soon = |line: &str| match line.trim_start().starts_with("for: ") {
            true => "        for: 2s\n".to_owned(),
            false => format!("{line}\n"),
        };
        fs::write(
            &rules,
            read("rules.yml").lines().map(soon).collect::<String>(),
        )
        .unwrap();
        let targets: Vec<&str> = cluster.nodes.iter().map(|node| &*node.addr).collect();
        let text = format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  evaluation_interval: 1s\n\
             rule_files: [rules.yml]\nscrape_configs:\n  - job_name: memkv\n    static_configs:\n      \
             - targets: {}\n",
            serde_json::to_string(&targets).unwrap()
        );
        fs::write(&config, text).unwrap();
        let addr = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={addr}"))
            .arg("--log.level=warn");
        let process = Process::start(&mut command, &dir.path().join("log"));
        Prometheus {
            addr,
            _process: process,
            _dir: dir,
        }
    }

    fn ask(&self, path: &str) -> Option<Value> {
        let answer = Http::once(&self.addr, "GET", path, b"").ok()?;
        let value: Value = serde_json::from_slice(&answer.body).ok()?;
        (value["status"] == "success").then(|| value["data"].clone())
    }

    /// The alerts that fire: each with its node, and when its cause began.
    fn firing(&self) -> Option<BTreeMap<(String, String), String>> {
        let data = self.ask("/api/v1/alerts")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let alerts = data["alerts"].as_array()?.iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        let of = |alert: &Value| {
            let labels = &alert["labels"];
            let key = (text(&labels["alertname"]), text(&labels["instance"]));
            (key, text(&alert["activeAt"]))
        };
        Some(firing.map(of).collect())
    }
}

#[test]
fn alerts_fire_once_when_two_nodes_die_and_stop_when_they_are_back() {
    let mut cluster = Cluster::start(3);
    let prometheus = Prometheus::start(&cluster);
    eventually("all nodes are scraped", LIMIT, || {
        let data = prometheus.ask("/api/v1/targets?state=active")?;
        let targets = data["activeTargets"].as_array()?;
        let up = targets.iter().filter(|target| target["health"] == "up");
        (up.count() == 3).then_some(())
    });
    for node in &mut cluster.nodes[..2] {
        node.kill();
    }
    let down = |index: usize| {
        (
            "MemkvNodeDown".to_owned(),
            cluster.nodes[index].addr.clone(),
        )
    };
    let of_cluster = |name: &str| (name.to_owned(), String::new());
    let expected = [
        down(0),
        down(1),
        of_cluster("MemkvNoLeader"),
        of_cluster("MemkvNoneMayFail"),
    ];
    let early = prometheus.firing().unwrap();
    assert!(
        expected.iter().all(|alert| !early.contains_key(alert)),
        "{early:?}"
    );
    // Each time at which the cause of an alert began, over all that is seen.
    let mut begun: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    let mut look = || {
        let firing = prometheus.firing()?;
        for (alert, at) in &firing {
            begun.entry(alert.clone()).or_default().insert(at.clone());
        }
        Some(firing)
    };
    eventually("the alerts fire", LIMIT, || {
        let firing = look()?;
        expected
            .iter()
            .all(|alert| firing.contains_key(alert))
            .then_some(())
    });
    for node in &mut cluster.nodes[..2] {
        node.start();
    }
    cluster.wait_serving();
    // A busy machine may have others, such as slow fsyncs.
    eventually("the alerts stop", LIMIT, || {
        let firing = look()?;
        let is_over = |alert| !firing.contains_key(alert);
        expected.iter().all(is_over).then_some(())
    });
    let once: Vec<_> = begun
        .iter()
        .map(|(alert, times)| (alert, times.len()))
        .collect();
    for alert in &expected {
        assert!(
            once.contains(&(alert, 1)),
            "{alert:?} fires once: {begun:?}"
        );
    }
}
