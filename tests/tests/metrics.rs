//! `GET /metrics` of real nodes: a page that Prometheus can read, with the metrics of the
//! documentation, which move with what clients do and say the same as INFO.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use memkv_black_box::{Cluster, Http, Resp, eventually, write_secret};
use serde_json::json;

/// Longer than an election and a lagging follower take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Metrics that a node may have no sample of: no other member, a disk that was not looked at yet.
const OPTIONAL: [&str; 4] = [
    "memkv_peer_lag_entries",
    "memkv_disk_free_bytes",
    "memkv_maxmemory_bytes",
    "memkv_tls_certificate_not_after_seconds",
];

/// A page: each sample with its labels, and the type of each metric.
struct Page {
    samples: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Page {
    /// Fetches and reads a page, and holds every line to the text format (version 0.0.4).
    #[track_caller]
    fn of(addr: &str) -> Page {
        let response = Http::once(addr, "GET", "/metrics", b"").unwrap();
        assert_eq!(response.status, 200);
        Page::read(std::str::from_utf8(&response.body).unwrap())
    }

    #[track_caller]
    fn read(text: &str) -> Page {
        assert!(text.ends_with('\n'), "the last line ends too");
        let mut page = Page {
            samples: BTreeMap::new(),
            types: BTreeMap::new(),
        };
        let mut helped = BTreeSet::new();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').unwrap();
                assert!(
                    !words.is_empty() && helped.insert(name.to_owned()),
                    "{line}"
                );
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(helped.contains(name), "help comes first: {line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                let before = page.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{line}");
                current = name.to_owned();
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let value: f64 = value
                    .parse()
                    .unwrap_or_else(|_| panic!("no number: {line}"));
                assert!(value.is_finite(), "{line}");
                let name = series.split('{').next().unwrap();
                check_labels(&series[name.len()..], line);
                let suffixes: &[&str] = match page.types[&current].as_str() {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                let is_of = |suffix: &&str| name == format!("{current}{suffix}");
                assert!(suffixes.iter().any(is_of), "under {current}: {line}");
                assert_eq!(
                    page.samples.insert(series.to_owned(), value),
                    None,
                    "{line}"
                );
            }
        }
        page.check_histograms(text);
        page
    }

    /// Buckets only grow, and the last one is the count.
    #[track_caller]
    fn check_histograms(&self, text: &str) {
        let mut last: Option<(String, f64, f64)> = None;
        for line in text.lines().filter(|line| line.contains("_bucket{")) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (head, bound) = series.split_once("le=\"").unwrap();
            let bound = bound.trim_end_matches("\"}");
            let bound: f64 = bound.replace("+Inf", "inf").parse().unwrap();
            let value: f64 = value.parse().unwrap();
            if let Some((of, below, fewer)) = &last
                && of == head
            {
                assert!(*below < bound && *fewer <= value, "{line}");
            }
            if bound.is_infinite() {
                let (name, labels) = head.split_once("_bucket{").unwrap();
                let labels = labels.trim_end_matches(',');
                let braced = if labels.is_empty() {
                    String::new()
                } else {
                    format!("{{{labels}}}")
                };
                assert_eq!(self.get(&format!("{name}_count{braced}")), value, "{line}");
                assert!(self.get(&format!("{name}_sum{braced}")) >= 0.0);
            }
            last = Some((head.to_owned(), bound, value));
        }
    }

    #[track_caller]
    fn get(&self, series: &str) -> f64 {
        let value = self.samples.get(series);
        *value.unwrap_or_else(|| panic!("no sample {series}"))
    }
}

/// Nothing, or `{name="value",...}`; no label of memkv needs an escape in these tests.
#[track_caller]
fn check_labels(labels: &str, line: &str) {
    if labels.is_empty() {
        return;
    }
    let inner = labels
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'));
    for label in inner.unwrap_or_else(|| panic!("{line}")).split(',') {
        let (name, value) = label.split_once('=').unwrap();
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()), "{line}");
        let value = value
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        assert!(value.is_some_and(|value| !value.contains('"')), "{line}");
    }
}

/// Fields of INFO.
fn info(client: &mut Resp) -> BTreeMap<String, String> {
    let reply = client.call(&["INFO"]).unwrap();
    let text = String::from_utf8_lossy(reply.text()).into_owned();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn the_page_has_the_documented_metrics_and_they_move() {
    let cluster = Cluster::start(3);
    let (leader, follower) = (cluster.leader(), cluster.followers()[0]);
    let addr = |index: usize| cluster.nodes[index].addr.as_str();
    let before = Page::of(addr(follower));
    let mut client = Resp::connect(addr(follower)).unwrap();
    for number in 0..50 {
        let key = format!("k{number}");
        client.call(&["SET", &key, "v"]).unwrap();
        client.call(&["GET", &key]).unwrap();
    }
    client.call(&["SET", "short", "v", "PX", "1"]).unwrap();
    client.call(&["SELECT", "3"]).unwrap();
    client.call(&["SET", "k", "v", "EX", "1000"]).unwrap();
    client.call(&["NOSUCH"]).unwrap();
    client.call(&["SUBSCRIBE", "news"]).unwrap();
    let put = Http::once(addr(follower), "PUT", "/v1/kv/http", b"v").unwrap();
    assert!((200..300).contains(&put.status));
    eventually("the short key has expired", LIMIT, || {
        (Page::of(addr(follower)).get("memkv_expired_total") > 0.0).then_some(())
    });
    let after = Page::of(addr(follower));
    for (series, by) in [
        ("memkv_commands_total", 105.0),
        ("memkv_command_errors_total", 1.0),
        ("memkv_connections_total", 1.0),
        ("memkv_network_input_bytes_total", 1000.0),
        ("memkv_network_output_bytes_total", 500.0),
        ("memkv_forwarded_total", 53.0),
        ("memkv_raft_applied_index", 53.0),
        ("memkv_revision", 53.0),
        ("memkv_subscriptions", 1.0),
        ("memkv_expired_total", 1.0),
        ("memkv_wal_fsync_duration_seconds_count", 1.0),
        ("memkv_apply_duration_seconds_count", 53.0),
        ("memkv_readindex_batch_size_sum", 50.0),
        ("memkv_command_duration_seconds_count{class=\"read\"}", 50.0),
        (
            "memkv_command_duration_seconds_count{class=\"write\"}",
            53.0,
        ),
    ] {
        let moved = after.get(series) - before.get(series);
        assert!(moved >= by, "{series} moved by {moved}");
    }
    for (series, value) in [
        ("memkv_keys{db=\"0\"}", 51.0),
        ("memkv_keys{db=\"3\"}", 1.0),
        ("memkv_keys_with_deadline{db=\"3\"}", 1.0),
        ("memkv_raft_members", 3.0),
        ("memkv_raft_leader", 0.0),
        ("memkv_raft_has_leader", 1.0),
        ("memkv_node_serving", 1.0),
        ("memkv_durability{mode=\"sync\"}", 1.0),
        ("memkv_disk_low", 0.0),
        ("memkv_divergence_alarm", 0.0),
        ("memkv_publications_unconfirmed_total", 0.0),
        ("memkv_notices_dropped_total", 0.0),
    ] {
        assert_eq!(after.get(series), value, "{series}");
    }
    assert!(after.get("memkv_memory_bytes") > 1e6);
    assert!(after.get("memkv_raft_leader_changes_total") >= 1.0);

    let of_leader = eventually("the leader knows that no node lags", LIMIT, || {
        let page = Page::of(addr(leader));
        let of_peer = |series: &&String| series.starts_with("memkv_peer_lag_entries{");
        let peers: Vec<_> = page.samples.keys().filter(of_peer).collect();
        let caught_up = peers.iter().all(|series| page.samples[*series] == 0.0);
        (peers.len() == 2 && caught_up).then_some(page)
    });
    assert_eq!(of_leader.get("memkv_raft_leader"), 1.0);

    let documented = include_str!("../../docs/metrics.md");
    let names = documented.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim);
        let name = cells.nth(1)?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name.to_owned(), cells.next()?.to_owned()))
    });
    let documented: BTreeMap<_, _> = names.collect();
    assert!(documented.len() > 30);
    let mut seen = of_leader.types.clone();
    seen.extend(after.types);
    for name in OPTIONAL {
        seen.insert(name.to_owned(), "gauge".to_owned());
    }
    assert_eq!(seen, documented);
}

#[test]
fn info_and_the_metrics_agree() {
    let cluster = Cluster::start(1);
    let addr = &cluster.nodes[0].addr;
    let mut client = Resp::connect(addr).unwrap();
    client.call(&["SET", "k", "v", "EX", "1000"]).unwrap();
    let info = info(&mut client);
    for mandatory in [
        "redis_version",
        "redis_mode",
        "os",
        "process_id",
        "run_id",
        "tcp_port",
        "uptime_in_seconds",
        "connected_clients",
        "used_memory",
        "maxmemory",
        "loading",
        "aof_enabled",
        "role",
        "connected_slaves",
        "db0",
        "cluster_enabled",
        "node_id",
        "cluster_id",
        "raft_role",
        "leader_id",
        "leader_addr",
        "term",
        "commit_index",
        "applied_index",
        "lag",
        "voters",
        "learners",
        "durability",
        "snapshot_index",
        "read_mode",
    ] {
        assert!(info.contains_key(mandatory), "INFO has no {mandatory}");
    }
    assert_eq!(info["db0"], "keys=1,expires=1,avg_ttl=0");
    let page = Page::of(addr);
    for (field, series) in [
        ("connected_clients", "memkv_connections"),
        ("total_connections_received", "memkv_connections_total"),
        ("used_memory", "memkv_dataset_bytes"),
        ("expired_keys", "memkv_expired_total"),
        ("total_error_replies", "memkv_command_errors_total"),
        ("rejected_connections", "memkv_connections_rejected_total"),
        ("term", "memkv_raft_term"),
        ("commit_index", "memkv_raft_commit_index"),
        ("applied_index", "memkv_raft_applied_index"),
        ("revision", "memkv_revision"),
        ("snapshot_index", "memkv_snapshot_index"),
        ("log_segments", "memkv_log_segments"),
    ] {
        assert_eq!(
            info[field].parse::<f64>().unwrap(),
            page.get(series),
            "{field}"
        );
    }
    // INFO itself has been counted since.
    let commands: f64 = info["total_commands_processed"].parse().unwrap();
    assert_eq!(page.get("memkv_commands_total"), commands + 1.0);
}

#[test]
fn the_password_is_wanted_here_too() {
    let cluster = {
        let mut cluster = Cluster::configured_with(1, &json!({ "password_file": "password" }));
        write_secret(&cluster.nodes[0].dir.join("password"), "secret\n");
        cluster.nodes[0].start();
        cluster
    };
    let addr = &cluster.nodes[0].addr;
    let without = eventually("the node listens", LIMIT, || {
        Http::once(addr, "GET", "/metrics", b"").ok()
    });
    assert_eq!(without.status, 401);
    // default:secret
    let with = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\
                 Authorization: Basic ZGVmYXVsdDpzZWNyZXQ=\r\n\r\n";
    let page = eventually("the node has loaded its data", LIMIT, || {
        let mut http = Http::connect(addr).unwrap();
        http.send(with).unwrap();
        let response = http.receive(true).unwrap();
        assert_ne!(response.status, 401);
        (response.status == 200).then(|| response.text())
    });
    assert_eq!(
        Page::read(&page).get("memkv_durability{mode=\"sync\"}"),
        1.0
    );
}
