//! The program: conditions, counters, listings, transactions and the password.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use memkv_proto::ErrorCode;

use crate::cli::{done, program, run, told};
use crate::fake::{Act, Fake};

#[test]
fn a_condition_that_does_not_hold_exits_with_1() {
    let node = Fake::start(|_| Act::error(ErrorCode::PreconditionFailed));
    let note = "the condition does not hold: nothing was written\n".to_owned();
    for args in [
        &["set", "k", "v", "--nx"][..],
        &["set", "k", "v", "3", "--xx"],
        &["del", "k", "--if-rev", "7"],
    ] {
        let failed = (1, String::new(), note.clone());
        assert_eq!(told(&run(&node.addr, args)), failed, "{args:?}");
    }
    let json = told(&run(&node.addr, &["set", "k", "v", "--nx", "-o", "json"]));
    assert_eq!(
        json,
        (1, "{\"status\":\"condition failed\"}\n".to_owned(), note)
    );
    assert_eq!(node.seen().len(), 4);
}

#[test]
fn del_removes_all_that_are_named() {
    let node = Fake::start(|request| match request.path.as_str() {
        "/v1/kv/c" => Act::error(ErrorCode::Unknown),
        _ => Act::ok(""),
    });
    assert_eq!(told(&run(&node.addr, &["del", "a", "b"])), done("ok\nok\n"));
    let (code, data, talk) = told(&run(&node.addr, &["del", "b", "c", "d"]));
    assert_eq!((code, data.as_str()), (4, "ok\n"));
    assert!(talk.starts_with("1 of 3 keys were removed\n"), "{talk}");
    assert_eq!(node.seen().len(), 4);
    let (code, _, talk) = told(&run(&node.addr, &["del", "a", "b", "--if-rev", "7"]));
    assert_eq!((code, node.seen().len()), (2, 4), "{talk}");
}

#[test]
fn incr_prints_the_sum() {
    let node = Fake::start(|_| Act::ok("5"));
    assert_eq!(told(&run(&node.addr, &["incr", "n", "-2"])), done("5\n"));
    let json = told(&run(&node.addr, &["incr", "n", "-o", "json"]));
    assert_eq!(
        json,
        done("{\"revision\":42,\"status\":\"ok\",\"value\":5}\n")
    );
    let seen = node.seen();
    let paths: Vec<_> = seen.iter().map(|request| &*request.path).collect();
    assert_eq!(paths, ["/v1/kv/n?incr=-2", "/v1/kv/n?incr=1"]);
}

/// Two pages: `a`, and a key that is no text.
fn pages() -> Fake {
    Fake::start(|request| {
        if request.path.contains("after=") {
            Act::json(r#"{"items":[{"key_base64":"/w==","value":"x\ny","expires_ms":9}]}"#)
        } else {
            Act::json(r#"{"items":[{"key":"a","value":"1","revision":3}],"next":"a"}"#)
        }
    })
}

#[test]
fn scan_prints_page_after_page() {
    let node = pages();
    assert_eq!(
        told(&run(&node.addr, &["scan"])),
        done("a  1\n\\xff  x\\ny\n")
    );
    let raw = run(&node.addr, &["scan", "p/", "-o", "raw"]);
    assert_eq!(raw.stdout, b"a\t1\n\xff\tx\ny\n");
    let json = told(&run(&node.addr, &["scan", "-o", "json"]));
    assert_eq!(
        json,
        done(
            "{\"key\":\"a\",\"revision\":3,\"value\":\"1\"}\n\
             {\"expires_ms\":9,\"key_base64\":\"/w==\",\"value\":\"x\\ny\"}\n"
        )
    );
    assert_eq!(
        told(&run(&node.addr, &["scan", "--limit", "1"])),
        done("a  1\n")
    );
    let after = ["scan", "--after", "b", "--keys", "--limit", "5000"];
    assert_eq!(run(&node.addr, &after).status.code(), Some(0));
    let seen = node.seen();
    let paths: Vec<_> = seen.iter().skip(2).map(|request| &*request.path).collect();
    assert_eq!(
        paths,
        [
            "/v1/kv?prefix=p%2F&limit=1000",
            "/v1/kv?prefix=p%2F&after=a&limit=1000",
            "/v1/kv?prefix=&limit=1000",
            "/v1/kv?prefix=&after=a&limit=1000",
            "/v1/kv?prefix=&limit=1",
            "/v1/kv?prefix=&after=b&limit=1000&keys=1",
        ]
    );
}

#[test]
fn txn_sends_the_file_and_tells_the_branch() {
    let answer = r#"{"succeeded":false,"results":[{"ok":true,"value":"v\n"},{"ok":true,"value":null},{"ok":true},{"ok":false,"error":"why"}]}"#;
    let node = Fake::start(move |_| Act::json(answer));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.json"), "{\"then\":[]}").unwrap();
    let txn = |args: &[&str]| {
        let mut program = program(dir.path());
        program.args(["--endpoints", &node.addr, "txn"]).args(args);
        program
    };
    let table = told(&txn(&["t.json"]).output().unwrap());
    let expected = "else\nv\\n\nnot found\nok\nerror: why\n".to_owned();
    assert_eq!(table, (1, expected, String::new()));
    let raw = told(&txn(&["t.json", "-o", "raw"]).output().unwrap());
    assert_eq!(raw.1, "v\n\nnot found\nok\nerror: why\n");
    let json = told(
        &txn(&["-", "-o", "json"])
            .stdin(Stdio::null())
            .output()
            .unwrap(),
    );
    assert_eq!((json.0, json.1), (1, format!("{answer}\n")));
    assert_eq!(node.seen()[0].body, b"{\"then\":[]}");
    assert_eq!(told(&txn(&["none.json"]).output().unwrap()).0, 2);

    let node = Fake::start(|_| Act::json(r#"{"succeeded":true,"results":[]}"#));
    let file = dir.path().join("t.json");
    let table = told(&run(&node.addr, &["txn", file.to_str().unwrap()]));
    assert_eq!(table, done("then\n"));
}

#[test]
fn the_password_comes_from_a_file_or_a_variable() {
    let node = Fake::start(|_| Act::ok("v"));
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str, mode| {
        let file = dir.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    };
    write("one", "one\n", 0o600);
    write("empty", "\n", 0o600);
    write("open", "one\n", 0o640);
    write("long", &"a".repeat(5000), 0o600);
    let get = |args: &[&str], variables: &[(&str, &str)]| {
        let mut program = program(dir.path());
        program
            .args(["--endpoints", &node.addr, "get", "k"])
            .args(args);
        program.envs(variables.iter().copied());
        told(&program.output().unwrap())
    };
    let two = ("MEMKV_PASSWORD", "two");
    let file = ("MEMKV_PASSWORD_FILE", "one");
    let one = ("MEMKV_PASSWORD", "one");
    for (args, variables) in [
        (&["--password-file", "one"][..], &[one][..]),
        (&[], &[two]),
        (&[], &[("MEMKV_PASSWORD", ""), file]),
    ] {
        assert_eq!(get(args, variables), done("v\n"));
    }
    let seen = node.seen();
    let shown: Vec<_> = seen
        .iter()
        .map(|seen| &*seen.headers["authorization"])
        .collect();
    let one = "Basic ZGVmYXVsdDpvbmU=";
    assert_eq!(shown, [one, "Basic ZGVmYXVsdDp0d28=", one]);
    for bad in ["empty", "absent", "open", "long"] {
        let (code, _, talk) = get(&["--password-file", bad], &[]);
        assert_eq!((code, talk.contains(bad)), (2, true), "{talk}");
    }
    for (args, variables) in [
        (&["--password-file", "one"][..], &[two][..]),
        (&[], &[two, file]),
    ] {
        let (code, _, talk) = get(args, variables);
        assert!(code == 2 && talk.contains("different passwords"), "{talk}");
    }
    assert_eq!(node.seen().len(), 3);
}
