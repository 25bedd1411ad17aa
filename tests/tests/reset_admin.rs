//! `memkv_server acl reset-admin`: the way back into a cluster whose passwords are lost, with real binaries and a
//! node that is killed at any moment.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use memkv_black_box::{Cluster, Node, Resp, binary, eventually, files_in, write_secret};
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::json;

/// Longer than an election takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

const LOST: &str = "canary-lost-password-41";
const NEW: &str = "canary-new-password-52";

/// A cluster of three whose only user with rights is `admin`, with a password that is lost.
fn lost_cluster() -> Cluster {
    let mut cluster = Cluster::configured_with(3, &json!({ "audit_file": "audit" }));
    cluster.start_all();
    let mut client = Resp::connect(&cluster.nodes[0].addr).unwrap();
    let password = format!(">{LOST}");
    for line in [
        &["ACL", "SETUSER", "admin", "on", &password, "+@all", "~*"][..],
        &["SET", "kept", "v"],
        &["AUTH", "admin", LOST],
        &["ACL", "SETUSER", "default", "off"],
    ] {
        assert_eq!(client.call(line).unwrap().text(), b"OK", "{line:?}");
    }
    cluster
}

/// Asks for a new password of the user `admin`, which comes from a file.
fn reset(node: &Node, password: &str) -> Output {
    let file = node.dir.with_extension("password");
    let _ = fs::remove_file(&file);
    write_secret(&file, password);
    let mut command = Command::new(binary("memkv_server"));
    let data = node.dir.to_str().unwrap();
    command.args(["acl", "reset-admin", "--data", data]);
    let output = command.stdin(Stdio::from(File::open(&file).unwrap()));
    let output = output.output().unwrap();
    fs::remove_file(&file).unwrap();
    output
}

fn may(node: &Node, password: &str) -> Option<bool> {
    let mut client = Resp::connect(&node.addr).ok()?;
    let shown = client.call(&["AUTH", "admin", password]).ok()?;
    let text = String::from_utf8_lossy(shown.text()).into_owned();
    match &text[..] {
        "OK" => Some(client.call(&["GET", "kept"]).ok()?.text() == b"v"),
        // A node that starts knows no users.
        _ => text.contains("WRONGPASS").then_some(false),
    }
}

#[test]
fn a_lost_password_is_replaced_through_a_stopped_nodes_directory() {
    let mut cluster = lost_cluster();
    let running = reset(&cluster.nodes[0], NEW);
    let said = String::from_utf8_lossy(&running.stderr).into_owned();
    assert_eq!(running.status.code(), Some(1), "{said}");
    assert!(said.contains("is in use"), "{said}");
    cluster.nodes[0].terminate();
    let empty = reset(&cluster.nodes[0], "\n");
    assert_eq!(empty.status.code(), Some(1));
    let request = cluster.nodes[0].dir.join("metadata/reset-admin");
    assert!(!request.exists());
    // The second takes the place of the first.
    for password in [GUESSED, NEW] {
        let done = reset(&cluster.nodes[0], password);
        assert!(done.status.success(), "{done:?}");
    }
    assert_eq!(fs::metadata(&request).unwrap().mode() & 0o777, 0o600);
    assert_eq!(
        may(&cluster.nodes[1], NEW),
        Some(false),
        "not before the node runs"
    );
    cluster.nodes[0].start();
    for node in &cluster.nodes {
        eventually("the new password is right", LIMIT, || {
            may(node, NEW)?.then_some(())
        });
        for wrong in [LOST, GUESSED] {
            assert_eq!(may(node, wrong), Some(false));
        }
    }
    eventually("the request is gone", LIMIT, || {
        (!request.exists()).then_some(())
    });
    let audit = cluster.nodes[0].dir.join("audit");
    eventually("the audit log tells of it", LIMIT, || {
        let text = fs::read_to_string(&audit).ok()?;
        text.contains("acl reset-admin").then_some(())
    });
    for file in files_in(cluster.root()) {
        let content = fs::read(&file).unwrap_or_default();
        for secret in [LOST, GUESSED, NEW] {
            let has = content
                .windows(secret.len())
                .any(|part| part == secret.as_bytes());
            assert!(!has, "{secret} is in {}", file.display());
        }
    }
}

const GUESSED: &str = "canary-other-password-63";

/// A terminal: the end of the person, and the end of the program.
fn terminal() -> (File, File) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let mut options = File::options();
    options.read(true).write(true);
    let options = options.custom_flags(OFlags::NOCTTY.bits() as i32);
    let program = options.open(name.to_str().unwrap()).unwrap();
    (File::from(person), program)
}

#[test]
fn ctrl_c_at_the_prompt_changes_nothing_and_the_terminal_shows_again_what_is_typed() {
    let mut cluster = Cluster::start(1);
    cluster.nodes[0].terminate();
    let node = &cluster.nodes[0];
    for typed in [&b"\x03"[..], b"half a password\x03", b"a password\n\x03"] {
        let (mut person, program) = terminal();
        let is_shown = || {
            tcgetattr(&program)
                .unwrap()
                .local_modes
                .contains(LocalModes::ECHO)
        };
        assert!(is_shown());
        // The terminal is the one whose keys end the program.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(binary("memkv_server"));
        command.args(["acl", "reset-admin", "--data", node.dir.to_str().unwrap()]);
        for (end, set) in [
            (
                &program,
                Command::stdin as fn(&mut Command, Stdio) -> &mut Command,
            ),
            (&program, Command::stderr),
        ] {
            set(&mut command, Stdio::from(end.try_clone().unwrap()));
        }
        let mut child = command.spawn().unwrap();
        let mut shown = Vec::new();
        for (line, prompt) in typed
            .split_inclusive(|byte| *byte == b'\n')
            .zip(["New password: ", "The same again: "])
        {
            while !String::from_utf8_lossy(&shown).ends_with(prompt) {
                let mut bytes = [0; 256];
                let count = person.read(&mut bytes).unwrap();
                shown.extend_from_slice(&bytes[..count]);
            }
            assert!(!is_shown());
            person.write_all(line).unwrap();
        }
        let status = child.wait().unwrap();
        assert!(is_shown(), "{typed:?}");
        assert_eq!(status.code(), Some(1), "{typed:?}");
        let shown = String::from_utf8_lossy(&shown).into_owned();
        assert!(!shown.contains("password\r"), "{shown}");
        assert!(!node.dir.join("metadata/reset-admin").exists());
    }
}

#[test]
fn a_node_that_is_killed_meanwhile_resets_the_password_all_the_same() {
    let mut cluster = lost_cluster();
    cluster.nodes[0].terminate();
    assert!(reset(&cluster.nodes[0], NEW).status.success());
    let request = cluster.nodes[0].dir.join("metadata/reset-admin");
    // It starts in some hundred milliseconds: some of these are before the request was seen, some behind.
    for round in 0..12 {
        cluster.nodes[0].start();
        thread::sleep(Duration::from_millis(60 * round));
        cluster.nodes[0].kill();
    }
    cluster.nodes[0].start();
    for node in &cluster.nodes {
        eventually("the new password is right", LIMIT, || {
            may(node, NEW)?.then_some(())
        });
    }
    eventually("the request is gone", LIMIT, || {
        (!request.exists()).then_some(())
    });
    // What others change later stays, however often the node starts.
    let mut client = Resp::connect(&cluster.nodes[1].addr).unwrap();
    client.call(&["AUTH", "admin", NEW]).unwrap();
    let again = format!(">{GUESSED}");
    let line = ["ACL", "SETUSER", "admin", "resetpass", &again];
    assert_eq!(client.call(&line).unwrap().text(), b"OK");
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    eventually("the node serves", LIMIT, || {
        may(&cluster.nodes[0], GUESSED)?.then_some(())
    });
    assert_eq!(may(&cluster.nodes[0], NEW), Some(false));
}
