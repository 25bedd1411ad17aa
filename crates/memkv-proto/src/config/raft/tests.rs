//! Files, variables and flags, and the texts with which wrong ones are refused.

use super::*;

const ORIGINAL: &str = r#"{
    "log_path": "log/",
    "snapshot_path": "snapshot/",
    "metadata_path": "metadata/",
    "max_log_size": 1024,
    "max_log_count": 6,
    "peer_addrs": [
        {
            "addr": "127.0.0.1:11082",
            "id": "11082"
        }
    ],
    "node_addr": {
        "addr": "127.0.0.1:11081",
        "id": "11081"
    }
}"#;

fn fails(text: &str) -> String {
    let checked =
        RaftConfig::from_json(text, "raft_config.json").and_then(|config| config.validate());
    checked.unwrap_err().to_string()
}

#[test]
fn the_originals_file_loads() {
    let config = RaftConfig::from_json(ORIGINAL, "raft_config.json").unwrap();
    config.validate().unwrap();
    assert_eq!(config.log_path, "log/");
    assert_eq!((config.max_log_size, config.max_log_count), (1024, 6));
    assert_eq!(config.segment_bytes(), 65536);
    assert_eq!(config.node_addr.to_string(), "11081@127.0.0.1:11081");
    let ids: Vec<_> = config.nodes().iter().map(|node| node.id.as_str()).collect();
    assert_eq!(ids, ["11081", "11082"]);
    assert_eq!(config.origin("max_log_size"), "raft_config.json:5:21");
    assert_eq!(config.origin("durability"), "default");
}

#[test]
fn keys_fields_and_defaults_are_the_same_settings() {
    let config = RaftConfig::default();
    config.validate().unwrap();
    assert!(config.is_single());
    let json: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&config.to_json()).unwrap();
    let mut fields: Vec<_> = json.keys().map(String::as_str).collect();
    let mut keys: Vec<_> = KEYS.iter().map(|key| key.name).collect();
    fields.sort_unstable();
    keys.sort_unstable();
    assert_eq!(fields, keys);
}

#[test]
fn a_written_file_loads_as_the_same_settings() {
    let mut config = RaftConfig::from_json(ORIGINAL, "f").unwrap();
    config
        .apply_override("durability", "os", "--durability")
        .unwrap();
    config
        .apply_override("insecure", "true", "--insecure")
        .unwrap();
    let mut loaded = RaftConfig::from_json(&config.to_json(), "g").unwrap();
    loaded.origins = config.origins.clone();
    assert_eq!(loaded, config);
}

#[test]
fn redis_has_an_address_of_its_own_or_none() {
    let with = |addr: &str| {
        ORIGINAL.replace(
            "{\n    \"log",
            &format!("{{ \"redis_addr\": {addr},\n \"log"),
        )
    };
    let config = RaftConfig::from_json(&with("\"127.0.0.1:6379\""), "f").unwrap();
    assert_eq!(config.redis_addr, "127.0.0.1:6379");
    assert_eq!(
        RaftConfig::from_json(&with("\"\""), "f")
            .unwrap()
            .redis_addr,
        ""
    );
    assert!(fails(&with("\"6379\"")).contains("host:port"));
    assert!(fails(&with("6379")).contains("redis_addr"));
    assert!(fails(&with("\"127.0.0.1:11081\"")).contains("leave redis_addr out"));
}

#[test]
fn an_unknown_key_names_its_location_and_the_nearest_key() {
    assert_eq!(
        fails("{\n    \"log_path\": \"log/\",\n  \"max_log_sizee\": 1024}"),
        "config: unknown key \"max_log_sizee\" at raft_config.json:3:3 — \
         did you mean \"max_log_size\"?"
    );
    assert!(fails(r#"{"colour": 1}"#).contains("the keys are log_path, snapshot_path"));
    assert!(
        fails(r#"{"node_addr": {"add": "h:1", "id": "1"}}"#)
            .contains(r#"unknown key "add" at raft_config.json:1:16 — did you mean "addr"?"#)
    );
}

#[test]
fn bad_values_say_what_would_be_accepted() {
    for (text, expected) in [
        (
            r#"{"max_log_size": 0}"#,
            r#""max_log_size" at raft_config.json:1:18 is "0"; it must be a whole number from 1"#,
        ),
        (
            r#"{"max_log_size": -1}"#,
            r#"is "-1"; it must be a whole number"#,
        ),
        (
            r#"{"max_log_size": 1024.5}"#,
            r#"is "1024.5"; it must be a whole number"#,
        ),
        (
            r#"{"max_log_size": "1024"}"#,
            r#"is the string "1024"; it must be a whole number"#,
        ),
        (
            r#"{"max_log_size": 99999999999999999999}"#,
            "it must be a whole number",
        ),
        (r#"{"max_log_count": 1}"#, "a whole number from 2"),
        (
            r#"{"max_log_count": null}"#,
            r#"is "null"; it must be a whole number"#,
        ),
        (r#"{"log_path": ""}"#, r#"is ""; it must be a directory"#),
        (r#"{"log_path": 1}"#, "is a number; it must be a directory"),
        (
            r#"{"durability": "fsync"}"#,
            r#"is "fsync"; it must be one of "sync", "os""#,
        ),
        (r#"{"insecure": 1}"#, r#"is "1"; it must be true or false"#),
        (
            r#"{"peer_addrs": {}}"#,
            "is an object; it must be a list of nodes",
        ),
        (
            r#"{"peer_addrs": ["h:1"]}"#,
            "is a string; it must be a list of nodes",
        ),
        (r#"{"node_addr": []}"#, "is an array; it must be a node"),
        (
            r#"{"allowed_hosts": "kv.example.com"}"#,
            "is a string; it must be a list of host names",
        ),
        (
            r#"{"allowed_hosts": ["kv.example.com", "h:1"]}"#,
            r#"is "h:1"; it must be a list of host names without ports"#,
        ),
        (
            r#"{"node_addr": {"id": "1"}}"#,
            r#""addr" is missing in the object at raft_config.json:1:15"#,
        ),
        (
            r#"{"node_addr": {"id": 1, "addr": "h:1"}}"#,
            r#""id" at raft_config.json:1:22 is a number; it must be a string"#,
        ),
        (
            r#"{"node_addr": {"id": "a/b", "addr": "h:1"}}"#,
            r#""a/b" is not a node id"#,
        ),
        (
            r#"{"node_addr": {"id": "1", "addr": "h"}}"#,
            r#""h" is not an address: write host:port"#,
        ),
    ] {
        assert!(fails(text).contains(expected), "{text} -> {}", fails(text));
    }
}

#[test]
fn bad_syntax_names_its_location() {
    for (text, expected) in [
        ("", "raft_config.json:1:0"),
        ("{\"log_path\": \"a\"\n \"b\"}", "at raft_config.json:2:2"),
        ("{} x", "at raft_config.json:1:4"),
        ("[]", "found an array at raft_config.json:1:1"),
        (
            r#"{"insecure": true, "insecure": true}"#,
            r#"key "insecure" at raft_config.json:1:20 was already given at raft_config.json:1:2"#,
        ),
    ] {
        assert!(fails(text).contains(expected), "{text} -> {}", fails(text));
    }
    let deep = format!("{{\"log_path\": {}", "[".repeat(500_000));
    assert!(fails(&deep).contains("EOF while parsing"));
    assert!(fails(&" ".repeat(2 << 20)).contains("more than 1048576 bytes"));
}

#[test]
fn settings_that_conflict_are_refused() {
    let node = |id: &str, addr: &str| format!(r#"{{"id":"{id}","addr":"{addr}"}}"#);
    let cluster = |own: String, peers: &[String]| {
        format!(
            r#"{{"node_addr":{own},"peer_addrs":[{}]}}"#,
            peers.join(",")
        )
    };
    let memory = |bytes: u64| format!(r#"{{"max_memory":{bytes}}}"#);
    assert!(fails(&memory(512)).contains("max_memory is 512 bytes, less than 32 MiB"));
    let twice = cluster(node("1", "h:1"), &[node("2", "h:2"), node("2", "h:3")]);
    assert!(fails(&twice).contains(r#"id "2" occurs twice in "peer_addrs" (raft_config.json:1:"#));
    let same = cluster(node("1", "h:1"), &[node("2", "h:2"), node("3", "h:2")]);
    assert!(fails(&same).contains(r#"address "h:2" occurs twice"#));
    let own_id = cluster(node("1", "h:1"), &[node("1", "h:2")]);
    assert!(fails(&own_id).contains(r#"this node's id "1" is also in peer_addrs (node_addr: raft_config.json:1:14, peer_addrs: "#));
    let own_addr = cluster(node("1", "h:1"), &[node("2", "h:1")]);
    assert!(fails(&own_addr).contains(r#"this node's address "h:1" is also in peer_addrs"#));
    let anywhere = cluster(node("1", "0.0.0.0:1"), &[node("2", "h:1")]);
    assert!(fails(&anywhere).contains("names no machine"));
    let advertised = |addr: &str| {
        let peer = node("2", "h:2");
        let own = node("1", "0.0.0.0:1");
        format!(r#"{{"node_addr":{own},"peer_addrs":[{peer}],"advertise_addr":"{addr}"}}"#)
    };
    let config = RaftConfig::from_json(&advertised("h:1"), "f").unwrap();
    assert_eq!((config.validate(), config.told_addr()), (Ok(()), "h:1"));
    assert!(
        fails(&advertised("h:2")).contains(r#"this node's address "h:2" is also in peer_addrs"#)
    );
    assert!(fails(&advertised("[::]:1")).contains("names no machine"));
    assert!(
        RaftConfig::from_json(&cluster(node("1", "[::]:1"), &[]), "f")
            .unwrap()
            .validate()
            .is_ok()
    );
    assert!(fails(r#"{"election_timeout_ms": 399}"#).contains("less than four times"));
    assert!(fails(r#"{"hold_timeout_ms": 5001}"#).contains("more than request_timeout_ms (5000)"));
    assert!(fails(r#"{"log_path": "x", "metadata_path": "x/"}"#).contains("the same directory"));
}

#[test]
fn later_layers_win_and_a_failed_one_changes_nothing() {
    let mut config = RaftConfig::from_json(ORIGINAL, "f").unwrap();
    let env = |name: &str| match name {
        "MEMKV_MAX_LOG_SIZE" => Some("2048".to_owned()),
        "MEMKV_PEER_ADDRS" => Some("a@h:1, b@h:2".to_owned()),
        _ => None,
    };
    config.apply_env(env).unwrap();
    config
        .apply_override("max_log_size", "4096", "--max-log-size")
        .unwrap();
    assert_eq!(
        (config.max_log_size, config.origin("max_log_size")),
        (4096, "--max-log-size")
    );
    assert_eq!(
        (config.peer_addrs.len(), config.origin("peer_addrs")),
        (2, "MEMKV_PEER_ADDRS")
    );

    let before = config.clone();
    let error = config
        .apply_override("max_log_size", "many", "--max-log-size")
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains(r#""max_log_size" at --max-log-size is "many""#)
    );
    assert!(config.apply_override("max_log", "1", "--max-log").is_err());
    assert!(
        config
            .apply_override("peer_addrs", "a@h:1,a@h:2", "--peer-addrs")
            .is_err()
    );
    assert_eq!(config, before);
    config
        .apply_override("peer_addrs", "", "--peer-addrs")
        .unwrap();
    assert!(config.is_single());
}
