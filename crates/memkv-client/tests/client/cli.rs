//! The program: what it prints where, its exit codes, and where it finds the cluster.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use memkv_proto::ErrorCode;

use crate::fake::{Act, Fake, nobody};

/// The program in an empty directory, unless the test says otherwise, without variables of ours.
pub(crate) fn program(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memkv_client"));
    command
        .current_dir(dir)
        .env_remove("MEMKV_ENDPOINTS")
        .env_remove("MEMKV_PASSWORD")
        .env_remove("MEMKV_PASSWORD_FILE")
        .stdin(Stdio::null());
    command
}

pub(crate) fn run(addr: &str, args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    program(dir.path())
        .args(["--endpoints", addr])
        .args(args)
        .output()
        .unwrap()
}

/// Exit code, standard output, standard error.
pub(crate) fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

pub(crate) fn done(stdout: &str) -> (i32, String, String) {
    (0, stdout.to_owned(), String::new())
}

#[test]
fn values_are_printed_as_asked() {
    let node = Fake::start(|_| Act::ok(b"v\xff".to_vec()));
    assert_eq!(run(&node.addr, &["get", "k"]).stdout, b"v\xff\n");
    assert_eq!(run(&node.addr, &["get", "k", "-o", "raw"]).stdout, b"v\xff");
    let json = told(&run(&node.addr, &["-o", "json", "get", "k"]));
    let expected = "{\"revision\":41,\"status\":\"ok\",\"value_base64\":\"dv8=\"}\n";
    assert_eq!(json, done(expected));
    let node = Fake::start(|_| Act::ok("a\"\n"));
    let json = told(&run(&node.addr, &["-o", "json", "get", "k"]));
    assert_eq!(
        json,
        done("{\"revision\":41,\"status\":\"ok\",\"value\":\"a\\\"\\n\"}\n")
    );
}

#[test]
fn an_absent_key_exits_with_1_except_for_del() {
    let node = Fake::start(|_| Act::error(ErrorCode::NotFound));
    let get = told(&run(&node.addr, &["get", "k"]));
    assert_eq!(get, (1, String::new(), "not found: k\n".to_owned()));
    assert_eq!(
        told(&run(&node.addr, &["exist", "k"])),
        (1, "no\n".to_owned(), String::new())
    );
    assert_eq!(told(&run(&node.addr, &["del", "k"])), done("ok\n"));
    let json = told(&run(&node.addr, &["get", "k", "-o", "json"]));
    assert_eq!(
        (json.0, json.1.as_str()),
        (1, "{\"status\":\"not found\"}\n")
    );
}

#[test]
fn writes_say_ok_and_are_repeated_as_often_as_asked() {
    let node = Fake::start(|_| Act::ok(""));
    assert_eq!(told(&run(&node.addr, &["set", "k", "-5"])), done("ok\n"));
    assert_eq!(
        told(&run(&node.addr, &["set", "k", "v", "3"])),
        done("ok\nok\nok\n")
    );
    assert_eq!(told(&run(&node.addr, &["exist", "k"])), done("yes\n"));
    let json = told(&run(&node.addr, &["del", "k", "-o", "json"]));
    assert_eq!(json, done("{\"revision\":42,\"status\":\"ok\"}\n"));
    let seen = node.seen();
    let asked: Vec<_> = seen
        .iter()
        .map(|request| (&*request.method, &*request.body))
        .collect();
    let set = ("PUT", &b"v"[..]);
    assert_eq!(
        asked,
        [
            ("PUT", &b"-5"[..]),
            set,
            set,
            set,
            ("HEAD", b""),
            ("DELETE", b"")
        ]
    );
}

#[test]
fn keys_and_values_are_bytes() {
    let node = Fake::start(|_| Act::ok(""));
    let dir = tempfile::tempdir().unwrap();
    let bytes = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    let mut child = program(dir.path())
        .args(["--endpoints", &node.addr, "set"])
        .arg(bytes)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"\0from\xffstdin\n")
        .unwrap();
    assert!(child.wait().unwrap().success());
    let seen = node.seen();
    assert_eq!(
        (&*seen[0].path, &*seen[0].body),
        ("/v1/kv/%FF%FE", &b"\0from\xffstdin\n"[..])
    );
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [
        &["set", "k"][..],
        &["get"],
        &["fly"],
        &["get", "k", "--timeout", "0"],
        &["get", "k", "-o", "xml"],
        &["get", "k", "--config", "/does/not/exist.json"],
        &["set", "k", "v", "0"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let output = told(&program(dir.path()).args(args).output().unwrap());
        assert_eq!(
            (output.0, output.1.as_str()),
            (2, ""),
            "{args:?}: {}",
            output.2
        );
        assert!(!output.2.is_empty());
    }
    let (code, _, talk) = told(&run("127.0.0.1", &["get", "k"]));
    assert_eq!(code, 2);
    assert!(
        talk.contains("\"127.0.0.1\" is not an address: write host:port"),
        "{talk}"
    );
    let node = Fake::start(|_| Act::error(ErrorCode::ValueTooLarge));
    let (code, _, talk) = told(&run(&node.addr, &["set", "k", "v"]));
    assert_eq!(
        (code, talk.as_str()),
        (2, "error: value too large: as the test says   [MK-021]\n")
    );
}

#[test]
fn an_unavailable_cluster_exits_with_3_and_says_that_nothing_was_written() {
    let (dead, leaderless) = (nobody(), Fake::start(|_| Act::error(ErrorCode::NoLeader)));
    let (code, data, talk) = told(&run(&dead, &["set", "k", "v", "--timeout", "300ms"]));
    assert_eq!((code, data.as_str()), (3, ""));
    assert!(
        talk.starts_with("error: no node available: nothing was written"),
        "{talk}"
    );
    assert!(
        talk.contains(&format!("  {dead}: connection refused\n")),
        "{talk}"
    );
    let both = format!("{dead},{}", leaderless.addr);
    let (code, _, talk) = told(&run(&both, &["set", "k", "v", "--timeout", "300ms"]));
    assert_eq!(code, 3);
    assert!(
        talk.starts_with("error: no leader: nothing was written   [MK-103]\n"),
        "{talk}"
    );
    // The answer to HEAD has no body that could tell why.
    let (code, data, talk) = told(&run(&leaderless.addr, &["exist", "k"]));
    assert_eq!((code, data.as_str()), (3, ""));
    assert!(
        talk.starts_with("error: no node available: exist was not answered"),
        "{talk}"
    );
    assert!(
        talk.contains(": service unavailable: the answer is HTTP 503"),
        "{talk}"
    );
    let silent = Fake::start(|_| Act::Hang);
    let (code, _, talk) = told(&run(&silent.addr, &["get", "k", "--timeout", "300ms"]));
    assert_eq!(code, 3);
    assert!(talk.contains("no answer within 0.3 s"), "{talk}");
}

#[test]
fn an_unknown_outcome_exits_with_4_and_says_how_to_check() {
    let silent = Fake::start(|_| Act::Hang);
    let (code, data, talk) = told(&run(&silent.addr, &["set", "k", "v", "--timeout", "300ms"]));
    assert_eq!((code, data.as_str()), (4, ""));
    assert!(
        talk.contains("set \"k\" may or may not have been executed   [MK-110]"),
        "{talk}"
    );
    assert!(talk.contains("check with: memkv_client get k"), "{talk}");
}

#[test]
fn a_series_that_breaks_off_says_how_far_it_came() {
    let node = Fake::start(|request| match request.connection {
        0 => Act::Answer(
            204,
            "text/plain",
            "Connection: close\r\n".to_owned(),
            Vec::new(),
        ),
        _ => Act::error(ErrorCode::Unknown),
    });
    let (code, data, talk) = told(&run(&node.addr, &["set", "k", "v", "3"]));
    assert_eq!((code, data.as_str()), (4, "ok\n"));
    assert!(talk.starts_with("1 of 3 writes were done\n"), "{talk}");
}

#[test]
fn the_cluster_is_found_by_flag_file_variable_or_in_the_working_directory() {
    let node = Fake::start(|_| Act::ok("found"));
    let dead = nobody();
    let dir = tempfile::tempdir().unwrap();
    let config = |addr: &str| format!(r#"{{"addrs":[{{"addr":"{addr}","id":"n1"}}]}}"#);
    let write = |name: &str, addr: &str| fs::write(dir.path().join(name), config(addr)).unwrap();
    let get = |args: &[&str], variable: &str| {
        let mut program = program(dir.path());
        program.args(["get", "k"]).args(args);
        if !variable.is_empty() {
            program.env("MEMKV_ENDPOINTS", variable);
        }
        told(&program.output().unwrap())
    };
    write("cluster_config.json", &node.addr);
    assert_eq!(get(&[], ""), done("found\n"), "working directory");
    write("cluster_config.json", &dead);
    write("other.json", &node.addr);
    assert_eq!(get(&[], &node.addr), done("found\n"), "variable");
    assert_eq!(
        get(&["--config", "other.json"], &dead),
        done("found\n"),
        "file"
    );
    let flag = ["--config", "cluster_config.json", "--endpoints", &node.addr];
    assert_eq!(get(&flag, &dead), done("found\n"), "flag");
    assert_eq!(get(&["--timeout", "200ms"], "").0, 3);

    fs::write(dir.path().join("cluster_config.json"), "{\"adrs\": []}").unwrap();
    let (code, _, talk) = get(&[], "");
    assert_eq!(code, 2);
    let expected =
        "unknown key \"adrs\" at cluster_config.json:1:2 — did you mean \"addrs\"?   [MK-002]";
    assert!(talk.contains(expected), "{talk}");
}

/// A node of a cluster n1, n2, n3 that n2 leads; n3 has the address `third`.
fn member(name: &'static str, leads: bool, third: String) -> Fake {
    Fake::start(move |request| {
        assert_eq!(request.path, "/v1/status");
        let role = if leads { "leader" } else { "follower" };
        let status = format!(
            r#"{{"name":"{name}","role":"{role}","leader":"n2","term":7,"commit_index":90,
            "applied_index":88,"durability":"sync","version":"0.1.0","feature_level":1,"members":[
            {{"name":"n1","addr":"10.0.0.1:1","role":"follower","highest_feature_level":2}},
            {{"name":"n2","addr":"10.0.0.2:1","role":"leader","highest_feature_level":2}},
            {{"name":"n3","addr":"{third}","role":"follower","highest_feature_level":1}}]}}"#
        );
        Act::Answer(200, "application/json", String::new(), status.into())
    })
}

#[test]
fn status_finds_members_that_nobody_named_and_sums_up() {
    let third = member("n3", false, "unused:1".to_owned());
    let (n1, n2) = (
        member("n1", false, third.addr.clone()),
        member("n2", true, third.addr.clone()),
    );
    let both = format!("{},{}", n1.addr, n2.addr);
    let (code, table, talk) = told(&run(&both, &["status"]));
    assert_eq!((code, talk.as_str()), (0, ""));
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{table}");
    assert!(
        lines[0].starts_with("  NODE") && lines[2].starts_with("* n2 "),
        "{table}"
    );
    assert!(
        lines[3].contains(&third.addr) && lines[3].contains(" ok "),
        "{table}"
    );
    assert!(lines[0].ends_with("  LEVEL"), "{table}");
    let levels = [(1, "  1/2"), (2, "  1/2"), (3, "  1")];
    for (line, level) in levels {
        assert!(lines[line].ends_with(level), "{table}");
    }
    assert_eq!(
        lines[4],
        "healthy: 3 of 3 voters serve; 1 of them may fail now"
    );
    assert!(
        lines
            .iter()
            .all(|line| line.len() <= 80 && !line.contains('\x1b')),
        "{table}"
    );

    let (_, json, _) = told(&run(&both, &["status", "-o", "json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["health"], &json["leader"]),
        (&"healthy".into(), &"n2".into())
    );
    assert_eq!(json["nodes"][2]["status"]["applied_index"], 88);
    assert_eq!(json["nodes"][2]["status"]["feature_level"], 1);
    assert_eq!(json["nodes"][1]["highest_feature_level"], 2);
}

#[test]
fn status_shows_who_is_missing_and_why() {
    let dead = nobody();
    let (n1, n2) = (
        member("n1", false, dead.clone()),
        member("n2", true, dead.clone()),
    );
    let both = format!("{},{}", n1.addr, n2.addr);
    let (code, table, talk) = told(&run(&both, &["status"]));
    assert_eq!((code, talk.as_str()), (0, "n3: connection refused\n"));
    assert!(table.contains("unreachable"), "{table}");
    assert!(
        table.ends_with(
            "degraded: 2 of 3 voters serve; no node may fail: n3 does not answer; start n3\n"
        ),
        "{table}"
    );
    let (_, tabs, _) = told(&run(&both, &["status", "-o", "raw"]));
    assert!(
        tabs.ends_with(&format!("n3\t{dead}\t-\tunreachable\t-\t-\t-\t-\t1\t-\n")),
        "{tabs}"
    );

    let (code, table, _) = told(&run(&dead, &["status"]));
    assert_eq!(code, 3);
    assert!(
        table.ends_with(
            "no node answers: start the nodes, or name others with --endpoints or MEMKV_ENDPOINTS\n"
        ),
        "{table}"
    );
}

#[test]
fn help_is_data_and_names_the_exit_codes() {
    let (code, help, talk) = told(&run("h:1", &["--help"]));
    assert_eq!((code, talk.as_str()), (0, ""));
    assert!(help.contains("4 outcome unknown"), "{help}");
    assert_eq!(run("h:1", &["--version"]).status.code(), Some(0));
}

#[test]
fn a_write_that_cannot_be_printed_exits_with_5_and_the_others_are_done() {
    let node = Fake::start(|_| Act::ok(b"1".to_vec()));
    let dir = tempfile::tempdir().unwrap();
    let into_full = |args: &[&str]| {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = program(dir.path());
        command.args(["--endpoints", &node.addr]).args(args);
        told(&command.stdout(full).output().unwrap())
    };
    for args in [&["set", "k", "v"][..], &["del", "a", "b", "c"]] {
        let (code, _, talk) = into_full(args);
        assert_eq!(code, 5, "{talk}");
        assert!(talk.contains("the write was done"), "{talk}");
    }
    // The reader of the first answer is gone, and the keys behind it are removed all the same.
    assert_eq!(node.seen().len(), 4);
    let (code, _, talk) = into_full(&["get", "k"]);
    assert_eq!(code, 3, "{talk}");
    assert!(!talk.contains("done"), "{talk}");
}
