//! What a node tells of its clients' commands: INFO's statistics, SLOWLOG, LATENCY, and what RESETSTAT forgets.

use memkv_metrics::Histogram;
use memkv_node::NodeStats;

use super::*;
use crate::commands::{find, flag};
use crate::report::{Findings, Kind, advice};

/// The lines of a section, without its head.
fn lines(text: &str) -> Vec<&str> {
    text.trim_start_matches('$').lines().skip(1).collect()
}

/// The fields of a command's line.
async fn stat(client: &mut TestClient, command: &str) -> Option<(u64, u64, u64)> {
    let text = client.ask("INFO commandstats").await;
    let head = format!("cmdstat_{command}:");
    let line = lines(&text)
        .into_iter()
        .find_map(|line| line.strip_prefix(&head))?;
    let fields: Vec<(&str, &str)> = line
        .split(',')
        .map(|field| field.split_once('=').unwrap())
        .collect();
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let all = [
        "calls",
        "usec",
        "usec_per_call",
        "rejected_calls",
        "failed_calls",
    ];
    assert_eq!(names, all);
    let number = |at: usize| fields[at].1.parse().unwrap();
    Some((number(0), number(3), number(4)))
}

#[tokio::test]
async fn calls_are_counted_as_in_redis() {
    let mut client = start().await.client().await;
    for line in [
        "SET k v",
        "SET k v NOSUCH",
        "GET k",
        "GET",
        "GET k",
        "INCR k",
        "CONFIG GET save",
        "NOSUCH",
        "MULTI",
        "SET a 1",
        "INCR k",
        "PING",
        "EXEC",
        "EXEC",
        "WATCH k",
        "PUBLISH c m",
    ] {
        client.ask(line).await;
    }
    for (command, counted) in [
        ("get", Some((2, 1, 0))),
        ("set", Some((3, 0, 1))),
        ("incr", Some((2, 0, 2))),
        ("config|get", Some((1, 0, 0))),
        ("multi", Some((1, 0, 0))),
        ("ping", Some((1, 0, 0))),
        ("exec", Some((2, 0, 1))),
        ("watch", Some((1, 0, 0))),
        ("publish", Some((1, 0, 0))),
        ("del", None),
        ("config", None),
    ] {
        assert_eq!(stat(&mut client, command).await, counted, "{command}");
    }
}

#[tokio::test]
async fn a_pipeline_counts_each_command() {
    let mut client = start().await.client().await;
    let mut out = BytesMut::new();
    for number in 0..3000_u32 {
        let command = match number % 3 {
            0 => vec!["SET", "k", "1"],
            1 => vec!["GET", "k"],
            _ => vec!["INCRBY", "k", "x"],
        };
        encode_command(&mut out, &command);
    }
    client.send_raw(&out).await;
    for _ in 0..3000 {
        client.answer().await;
    }
    assert_eq!(stat(&mut client, "set").await, Some((1000, 0, 0)));
    assert_eq!(stat(&mut client, "get").await, Some((1000, 0, 0)));
    assert_eq!(stat(&mut client, "incrby").await, Some((1000, 0, 1000)));
}

#[tokio::test]
async fn errors_are_counted_by_kind_and_resetstat_forgets_all() {
    let server = start().await;
    let mut client = server.client().await;
    for line in [
        "NOSUCH", "GET", "INCR k x", "AUTH a b", "MULTI", "GET", "EXEC",
    ] {
        client.ask(line).await;
    }
    let errors = client.ask("INFO errorstats").await;
    assert_eq!(
        lines(&errors),
        [
            "errorstat_ERR:count=4",
            "errorstat_EXECABORT:count=1",
            "errorstat_WRONGPASS:count=1"
        ]
    );
    let latency = client.ask("INFO latencystats").await;
    let line = lines(&latency)
        .into_iter()
        .find(|line| line.starts_with("latency_percentiles_usec_multi:p50="));
    assert!(line.is_some_and(|line| line.contains(",p99=") && line.contains(",p99.9=")));
    client
        .dialogue(&[
            ("CONFIG SET slowlog-log-slower-than 0", "+OK"),
            ("GET k", "$-1"),
            ("CONFIG SET slowlog-log-slower-than -1", "+OK"),
            ("SLOWLOG LEN", ":2"),
            ("CONFIG RESETSTAT", "+OK"),
            ("SLOWLOG LEN", ":2"),
            ("INFO errorstats", "$# Errorstats\r\n"),
        ])
        .await;
    let commands = client.ask("INFO commandstats").await;
    let names = lines(&commands).into_iter();
    let names: Vec<&str> = names.filter_map(|line| line.split(':').next()).collect();
    assert_eq!(
        names,
        [
            "cmdstat_info",
            "cmdstat_config|resetstat",
            "cmdstat_slowlog|len"
        ]
    );
    let stats = client.ask("INFO stats").await;
    assert!(stats.contains("total_error_replies:0\r\n"), "{stats}");
    assert!(
        stats.contains("total_connections_received:0\r\n"),
        "{stats}"
    );
}

#[tokio::test]
async fn sections_are_those_of_redis() {
    let mut client = start().await.client().await;
    let usual =
        "Server Clients Memory Persistence Stats Replication Errorstats Cluster Keyspace Raft";
    let all = "Server Clients Memory Persistence Stats Replication Commandstats Errorstats Latencystats \
               Cluster Keyspace Raft Peers";
    for (asked, expected) in [
        ("", usual),
        (" default", usual),
        (
            " DEFAULT latencystats",
            &usual.replace("Cluster", "Latencystats Cluster"),
        ),
        (" all", all),
        (" everything stats", all),
        (" keyspace errorstats server", "Server Errorstats Keyspace"),
        (" nosuch", ""),
    ] {
        let text = client.ask(&format!("INFO{asked}")).await;
        let heads = text.trim_start_matches('$').lines();
        let heads: Vec<&str> = heads.filter_map(|line| line.strip_prefix("# ")).collect();
        assert_eq!(heads.join(" "), expected, "INFO{asked}");
    }
}

#[tokio::test]
async fn peers_have_a_line_each() {
    let mut client = start().await.client().await;
    let text = client.ask("INFO peers").await;
    assert_eq!(
        lines(&text),
        [
            "peer0:id=2,name=n2,addr=h:2,state=up,round_trip_usec=120,last_contact_ms=40,lag_entries=3,\
             lag_ms=9,sent_bytes=1000,received_bytes=70"
        ]
    );
    let persistence = client.ask("INFO persistence").await;
    for field in ["fsyncs:0", "fsync_p50_usec:0", "fsync_p99_usec:0"] {
        assert!(persistence.contains(field), "no {field} in {persistence}");
    }
}

#[tokio::test]
async fn the_doctor_says_what_is_slow_and_what_to_do() {
    let server = start().await;
    let shared = &server.resp.server;
    let slow = Duration::from_millis(24);
    shared.calls.count(find(b"set").unwrap(), slow, 100, 0);
    let fsync = Histogram::of_durations();
    fsync.count_duration(slow, 50);
    let stats = NodeStats {
        fsync: fsync.counted(),
        peer_lag: vec![("n2".to_owned(), 5_000)],
        leader_changes: 3,
        ..NodeStats::default()
    };
    shared.spikes.set_least_ms(20);
    shared.spikes.add(Kind::Fsync, 7, slow);
    let text = advice(&Findings {
        status: &shared.introspect().unwrap().status,
        stats: &stats,
        writes: shared.calls.took_with(flag::WRITE),
        reads: shared.calls.took_with(flag::READONLY),
        calls: shared.calls.seen().collect(),
        spikes: &shared.spikes,
        slow: (4, 10_000),
    });
    let expected = "\
n1, which leads: times since its process began or CONFIG RESETSTAT.

100 writes: half took at most 25.2 ms, 99 % at most 25.2 ms.
No reads of Redis clients.
50 fsyncs of the log since the start: half took about 17.5 ms,
99 % at most about 25.0 ms.
n2 lacks 5000 entries of this leader.
The leader has changed 2 times: `memkv_client events` says why.
100 calls of SET: 99 % took at most 25.2 ms.
4 commands of 10.0 ms or more are in the slow log.
Spikes of fsync from 20 ms on: 1, the longest 24 ms.

What to do:
1. Every write waits for the disk of the log, and it is slow. Measure it with
   `memkv_server doctor --data DIR`; give the log a disk of its own.
2. A member is behind. Look at its disk and at the network to it: LATENCY DOCTOR
   there, and INFO peers here.
3. MEMKV.SLOWLOG says which commands were slow, and where each spent its time:
   queue, fsync, replicate, apply, send.
4. LATENCY HISTORY and LATENCY GRAPH of each event say when it was slow.
";
    assert_eq!(text, expected);
    assert!(text.lines().all(|line| line.len() <= 80));
}

#[tokio::test]
async fn slow_commands_are_kept_without_their_secrets() {
    let mut client = start().await.client().await;
    client
        .dialogue(&[
            ("SLOWLOG GET", "[]"),
            ("CLIENT SETNAME ann", "+OK"),
            ("CONFIG SET slowlog-log-slower-than 0", "+OK"),
            ("SLOWLOG RESET", "+OK"),
            ("SET k v", "+OK"),
        ])
        .await;
    client.ask("AUTH hunter2").await;
    client.ask("ACL SETUSER bob >hunter3").await;
    client.ask("CONFIG SET slowlog-log-slower-than -1").await;
    let all = client.ask("SLOWLOG GET -1").await;
    assert!(!all.contains("hunter"), "{all}");
    assert_eq!(client.ask("SLOWLOG LEN").await, ":4");
    client.send("SLOWLOG GET").await;
    let Some(Frame::Array(entries)) = client.answer().await else {
        panic!("no array");
    };
    let words: Vec<String> = entries
        .iter()
        .map(|entry| {
            let Frame::Array(fields) = entry else {
                panic!("{entry:?}");
            };
            assert_eq!(fields.len(), 6);
            assert_eq!(show(&fields[5]), "$ann");
            show(&fields[3])
        })
        .collect();
    assert_eq!(
        words,
        [
            "[$ACL $SETUSER $(redacted) $(redacted)]",
            "[$AUTH $(redacted)]",
            "[$SET $k $v]",
            "[$SLOWLOG $RESET]",
        ]
    );
    let stages = client.ask("MEMKV.SLOWLOG 1").await;
    for name in [
        "took_usec",
        "with_it :0",
        "user $default",
        "queue_usec $-1",
        "send_usec :",
    ] {
        assert!(stages.contains(name), "no {name} in {stages}");
    }
    client
        .dialogue(&[
            (
                "SLOWLOG GET x",
                "-ERR count should be greater than or equal to -1",
            ),
            (
                "MEMKV.SLOWLOG -2",
                "-ERR count should be greater than or equal to -1",
            ),
            ("CONFIG SET slowlog-max-len 2", "+OK"),
            ("SLOWLOG LEN", ":2"),
            ("SLOWLOG RESET", "+OK"),
            ("SLOWLOG LEN", ":0"),
        ])
        .await;
}

#[tokio::test]
async fn a_pipeline_is_one_entry_of_the_slow_log() {
    let mut client = start().await.client().await;
    client.ask("CONFIG SET slowlog-log-slower-than 0").await;
    client.ask("SLOWLOG RESET").await;
    let mut out = BytesMut::new();
    for number in 0..10 {
        encode_command(&mut out, &["SET", &format!("k{number}"), "v"]);
    }
    client.send_raw(&out).await;
    for _ in 0..10 {
        client.answer().await;
    }
    let last = client.ask("MEMKV.SLOWLOG 1").await;
    assert!(
        last.contains("[$SET $k0 $v]") && last.contains("$with_it :9"),
        "{last}"
    );
}

#[tokio::test]
async fn settings_of_this_node_are_set_together_or_not_at_all() {
    let mut client = start().await.client().await;
    let text = "ERR CONFIG SET failed (possibly related to argument";
    client
        .dialogue(&[
            (
                "CONFIG GET slowlog-* latency-monitor-threshold",
                "[$latency-monitor-threshold $0 $slowlog-log-slower-than $10000 $slowlog-max-len $128]",
            ),
            (
                "CONFIG SET slowlog-max-len 5 slowlog-log-slower-than -5",
                &format!("-{text} 'slowlog-log-slower-than') - argument must be between -1 and 9223372036854775807 inclusive"),
            ),
            (
                "CONFIG SET latency-monitor-threshold x",
                &format!("-{text} 'latency-monitor-threshold') - argument couldn't be parsed into an integer"),
            ),
            (
                "CONFIG SET slowlog-max-len 1025",
                &format!("-{text} 'slowlog-max-len') - argument must be between 0 and 1024 inclusive"),
            ),
            (
                "CONFIG SET slowlog-max-len 5 maxmemory 0",
                &format!("-{text} 'slowlog-max-len') - it is a setting of this node alone; set it in a command of its own"),
            ),
            ("CONFIG GET slowlog-max-len", "[$slowlog-max-len $128]"),
            ("MULTI", "+OK"),
            ("CONFIG SET slowlog-max-len 5 latency-monitor-threshold 7", "+QUEUED"),
            ("SET k v", "+QUEUED"),
            ("EXEC", "[+OK +OK]"),
            ("CONFIG GET slowlog-max-len", "[$slowlog-max-len $5]"),
            ("CONFIG GET latency-monitor-threshold", "[$latency-monitor-threshold $7]"),
        ])
        .await;
}

#[tokio::test]
async fn latency_has_histograms_and_spikes() {
    let server = start().await;
    let mut client = server.client().await;
    client
        .dialogue(&[
            ("SET k v", "+OK"),
            ("GET k", "$v"),
            ("CONFIG GET save", "[$save $]"),
        ])
        .await;
    for (asked, names) in [
        ("LATENCY HISTOGRAM get nosuch", "$get"),
        ("LATENCY HISTOGRAM config", "$config|get"),
        ("LATENCY HISTOGRAM del", ""),
    ] {
        let text = client.ask(asked).await;
        match names.is_empty() {
            true => assert_eq!(text, "[]"),
            false => assert!(
                text.starts_with(&format!("[{names} [$calls :1 $histogram_usec [:")),
                "{text}"
            ),
        }
    }
    assert_eq!(client.ask("LATENCY LATEST").await, "[]");
    let spikes = &server.resp.server.spikes;
    client.ask("CONFIG SET latency-monitor-threshold 100").await;
    spikes.add(Kind::Fsync, 1000, Duration::from_millis(300));
    spikes.add(Kind::Fsync, 1001, Duration::from_millis(200));
    client
        .dialogue(&[
            ("LATENCY LATEST", "[[$fsync :1001 :200 :300]]"),
            ("LATENCY HISTORY fsync", "[[:1000 :300] [:1001 :200]]"),
            ("LATENCY HISTORY nosuch", "[]"),
            (
                "LATENCY GRAPH nosuch",
                "-ERR No samples available for event 'nosuch'",
            ),
            ("LATENCY RESET command nosuch", ":0"),
            ("LATENCY RESET fsync", ":1"),
            ("LATENCY RESET", ":0"),
        ])
        .await;
    let text = client.ask("LATENCY DOCTOR").await;
    assert!(text.contains("1 writes: half took at most"), "{text}");
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
}
