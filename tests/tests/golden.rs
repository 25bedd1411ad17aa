//! What earlier versions have written opens in this one: the golden data directories and backups of `tests/golden`,
//! one for each feature level. Their `state.txt` says what is in them; a unit test of memkv-node holds the replay to
//! it, hash included.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use memkv_black_box::{Node, Resp, binary};

fn golden() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let entries = fs::read_dir(root).unwrap();
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

/// A node of that name, whose directory is a copy.
fn node_with(root: &Path, from: &Path) -> Node {
    let mut node = Node::new(root);
    node.id = "golden".to_owned();
    node.write_config(&node.compat_config(&[]));
    for part in ["log", "metadata", "snapshot"] {
        fs::create_dir(node.dir.join(part)).unwrap();
        for entry in fs::read_dir(from.join(part)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), node.dir.join(part).join(entry.file_name())).unwrap();
        }
    }
    node
}

/// A key as `state.txt` tells of it.
#[derive(Debug)]
struct Key {
    database: String,
    name: String,
    deadline: String,
    value: String,
}

fn keys(text: &str) -> Vec<Key> {
    let lines = text.lines().filter(|line| line.starts_with("key "));
    let key = |line: &str| {
        let words: Vec<&str> = line.splitn(11, ' ').collect();
        Key {
            database: words[1].to_owned(),
            name: words[2].to_owned(),
            deadline: words[8].replace('-', "-1"),
            value: words[10].to_owned(),
        }
    };
    let keys: Vec<_> = lines.map(key).collect();
    assert!(keys.len() > 100);
    keys
}

fn check_keys(addr: &str, keys: &[Key]) {
    let mut client = Resp::connect(addr).unwrap();
    for key in keys {
        client.call(&["SELECT", &key.database]).unwrap();
        let value = client.call(&["GET", &key.name]).unwrap();
        assert_eq!(
            value.text().escape_ascii().to_string(),
            key.value,
            "{key:?}"
        );
        let deadline = client.call(&["PEXPIRETIME", &key.name]).unwrap();
        assert_eq!(deadline.text(), key.deadline.as_bytes(), "{key:?}");
    }
}

fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

#[test]
fn a_directory_of_each_level_opens_and_serves_what_it_holds() {
    for dir in golden() {
        let root = tempfile::tempdir().unwrap();
        let mut node = node_with(root.path(), &dir);
        let before = fs::read_dir(node.dir.join("metadata")).unwrap().count();
        let mut check = Command::new(binary("memkv_server"));
        let said = succeeds(check.args(["upgrade-check", "--data"]).arg(&node.dir));
        assert!(said.starts_with("yes: "), "{said}");
        let after = fs::read_dir(node.dir.join("metadata")).unwrap().count();
        assert_eq!(before, after, "it only reads");
        node.start();
        node.wait_serving();
        let text = fs::read_to_string(dir.join("state.txt")).unwrap();
        check_keys(&node.addr, &keys(&text));
        let mut client = Resp::connect(&node.addr).unwrap();
        let users = client.call(&["ACL", "LIST"]).unwrap().items.len();
        let golden_users = text
            .lines()
            .filter(|line| line.starts_with("user "))
            .count();
        assert_eq!(users, golden_users);
        assert!(
            client
                .call(&["INCR", "written"])
                .unwrap()
                .integer()
                .is_some()
        );
        node.terminate();
    }
}

#[test]
fn a_backup_of_each_level_is_verified_and_restored() {
    for dir in golden() {
        let root = tempfile::tempdir().unwrap();
        let backup = dir.join("golden.backup");
        let mut verify = Command::new(binary("memkv_client"));
        succeeds(verify.args(["backup", "verify"]).arg(&backup));
        let mut node = Node::new(root.path());
        node.write_config(&node.compat_config(&[]));
        let mut restore = Command::new(binary("memkv_server"));
        restore
            .arg("restore")
            .arg(&backup)
            .arg("--data")
            .arg(&node.dir);
        succeeds(&mut restore);
        node.start();
        node.wait_serving();
        let text = fs::read_to_string(dir.join("state.txt")).unwrap();
        // The keys that the log behind the backup has not touched.
        let mut keys = keys(&text);
        keys.retain(|key| key.name.starts_with("key:") || key.name == "bytes");
        assert!(keys.len() > 100);
        check_keys(&node.addr, &keys);
        node.terminate();
    }
}
