//! Backups in a bucket, against a server of S3's protocol: stored whole or not at all, listed, kept, verified,
//! fetched and restored; and nothing else in the bucket is touched.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use memkv_black_box::{
    Cluster, Http, Node, Process, Random, binary, eventually, free_port, python,
};

/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A store with one bucket, `backups`. It knows its buckets by the path of the address.
struct Store {
    addr: String,
    _server: Process,
    dir: tempfile::TempDir,
}

impl Store {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = python();
        command
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p"])
            .arg(port.to_string())
            .current_dir(dir.path());
        let server = Process::start(&mut command, &dir.path().join("store.log"));
        let addr = format!("127.0.0.1:{port}");
        eventually("the store answers", LIMIT, || {
            let made = Http::once(&addr, "PUT", "/backups", b"").ok()?;
            (made.status == 200).then_some(())
        });
        Self {
            addr,
            _server: server,
            dir,
        }
    }

    /// Asks as somebody: the store looks at whom a request names, and at no signature.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let who = "AWS4-HMAC-SHA256 Credential=operator/20260101/eu-central-1/s3/aws4_request, \
                   SignedHeaders=host, Signature=0";
        let mut http = Http::connect(&self.addr).unwrap();
        let answer = http.request(method, path, &[("Authorization", who)], body);
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.body
    }

    #[track_caller]
    fn get(&self, path: &str) -> Vec<u8> {
        self.ask("GET", path, b"")
    }

    #[track_caller]
    fn put(&self, path: &str, body: &[u8]) {
        self.ask("PUT", path, body);
    }

    /// Keys of all objects.
    fn keys(&self) -> Vec<String> {
        let listed = self.get("/backups?list-type=2");
        between(&String::from_utf8(listed).unwrap(), "<Key>", "</Key>")
    }

    /// Uploads that were begun and neither finished nor given up.
    fn unfinished(&self) -> usize {
        let listed = self.get("/backups?uploads");
        between(&String::from_utf8(listed).unwrap(), "<UploadId>", "<").len()
    }

    /// The client with the settings of the store, at a node.
    fn client(&self, node: &str) -> Command {
        let mut command = Command::new(binary("memkv_client"));
        command
            .args(["--endpoints", node])
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.addr))
            .env("AWS_ACCESS_KEY_ID", "operator")
            .env("AWS_SECRET_ACCESS_KEY", "canary-secret")
            .env("AWS_REGION", "eu-central-1");
        command
    }
}

fn between(text: &str, begin: &str, end: &str) -> Vec<String> {
    let parts = text.split(begin).skip(1);
    parts
        .map(|part| part.split(end).next().unwrap().to_owned())
        .collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn fails(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
    assert!(!said.contains("canary-secret"), "{said}");
    said
}

/// Values that do not compress, of so many bytes.
fn fill(addr: &str, values: usize, bytes: usize) {
    let mut random = Random::new(7);
    let mut http = Http::connect(addr).unwrap();
    for number in 0..values {
        let value: Vec<u8> = (0..bytes).map(|_| random.below(256) as u8).collect();
        let path = format!("/v1/kv/key:{number}");
        let stored = http.request("PUT", &path, &[], &value).unwrap();
        assert_eq!(stored.status, 200);
    }
}

#[test]
fn a_backup_in_a_bucket_is_the_cluster_again_and_nothing_else_there_is_touched() {
    let store = Store::start();
    let cluster = Cluster::start(1);
    let addr = cluster.nodes[0].addr.as_str();
    // Two parts of 16 MiB and a rest.
    fill(addr, 5, 7 << 20);
    store.put("/backups/daily/notes.txt", b"years of work");
    store.put("/backups/daily/memkv-none.backup", b"no backup");
    let save = |to: &str, more: &[&str]| {
        let mut client = store.client(addr);
        client.args(["backup", "save", to]).args(more);
        client
    };
    let first = succeeds(&mut save("s3://backups/daily/", &["--keep", "2"]));
    assert!(
        first.contains("5 keys") && first.contains("whole"),
        "{first}"
    );
    succeeds(&mut save("s3://backups/daily/", &["--keep", "2"]));
    for number in 0..2 {
        fill(addr, 1, 1000 + number);
        succeeds(&mut save("s3://backups/daily/", &["--keep", "2"]));
    }
    let ours = |key: &&String| key.ends_with(".backup") && !key.contains("none");
    let keys = store.keys();
    assert_eq!(keys.iter().filter(ours).count(), 2, "{keys:?}");
    assert_eq!(keys.len(), 4, "{keys:?}");
    assert_eq!(store.unfinished(), 0);
    let listed = succeeds(
        store
            .client(addr)
            .args(["backup", "ls", "s3://backups/daily/"]),
    );
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.contains("memkv-none.backup  unreadable"), "{listed}");

    // One key by name, again onto itself, but onto nothing that is no backup.
    succeeds(&mut save("s3://backups/one.backup", &[]));
    succeeds(&mut save("s3://backups/one.backup", &[]));
    let refused = fails(&mut save("s3://backups/daily/notes.txt", &[]));
    assert!(refused.contains("is no backup"), "{refused}");
    assert_eq!(store.get("/backups/daily/notes.txt"), b"years of work");

    let verified =
        succeeds(
            store
                .client(addr)
                .args(["backup", "verify", "s3://backups/one.backup"]),
        );
    assert!(verified.contains("whole"), "{verified}");
    let told = succeeds(
        store
            .client(addr)
            .args(["backup", "inspect", "s3://backups/one.backup"]),
    );
    assert!(told.contains("keys           5"), "{told}");

    // Here again, as a file and through a pipe.
    let dir = store.dir.path().join("fetched");
    fs::create_dir(&dir).unwrap();
    let fetch = |from: &str, to: &Path| {
        let mut client = store.client(addr);
        client.args(["backup", "fetch", from]).arg(to);
        client
    };
    succeeds(&mut fetch("s3://backups/one.backup", &dir));
    let file = dir.join("one.backup");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(fs::read(&file).unwrap(), store.get("/backups/one.backup"));
    let mut node = Node::new(&dir);
    node.write_config(&node.compat_config(&[]));
    let mut piped = fetch("s3://backups/one.backup", Path::new("-"));
    let mut piped = piped.stdout(Stdio::piped()).spawn().unwrap();
    let mut restore = Command::new(binary("memkv_server"));
    restore.args(["restore", "-", "--data"]).arg(&node.dir);
    succeeds(restore.stdin(piped.stdout.take().unwrap()));
    assert!(piped.wait().unwrap().success());
    node.start();
    node.wait_serving();
    for key in ["key:0", "key:4"] {
        let path = format!("/v1/kv/{key}");
        let value = |addr: &str| Http::once(addr, "GET", &path, b"").unwrap().body;
        assert_eq!(value(&node.addr), value(addr), "{key}");
    }
}

#[test]
fn what_is_not_whole_gets_no_name_and_what_is_damaged_is_refused() {
    let store = Store::start();
    let cluster = Cluster::start(1);
    let addr = cluster.nodes[0].addr.as_str();
    fill(addr, 3, 7 << 20);
    succeeds(
        store
            .client(addr)
            .args(["backup", "save", "s3://backups/a/one.backup"]),
    );
    let whole = store.get("/backups/a/one.backup");

    // A node that breaks off in the middle, and one that sends something else.
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let half = &whole[..whole.len() - 1];
    for (sent, announced) in [
        (half, whole.len()),
        (&flipped, whole.len()),
        (half, half.len()),
    ] {
        let node = answers_with(sent, announced);
        let mut save = store.client(&node.to_string());
        save.args(["backup", "save", "s3://backups/a/two.backup"]);
        let output = save.output().unwrap();
        assert!(!output.status.success(), "{save:?}");
        assert_eq!(store.keys(), ["a/one.backup"], "{}", said(&output));
        assert_eq!(store.unfinished(), 0, "{}", said(&output));
    }

    // What has changed in the store is found, and is not there afterwards.
    store.put("/backups/a/one.backup", &flipped);
    let mut verify = store.client(addr);
    let refused = fails(verify.args(["backup", "verify", "s3://backups/a/one.backup"]));
    assert!(refused.contains("damaged in block"), "{refused}");
    let file = store.dir.path().join("one.backup");
    let mut fetch = store.client(addr);
    fails(
        fetch
            .args(["backup", "fetch", "s3://backups/a/one.backup"])
            .arg(&file),
    );
    assert!(!file.exists());
    let left = fs::read_dir(store.dir.path()).unwrap();
    let left = left.filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        name.to_string_lossy().contains("part")
    });
    assert_eq!(left.count(), 0);

    // What is not there is said in words.
    for (words, from) in [
        ("there is no such object", "s3://backups/none.backup"),
        ("there is no such object", "s3://elsewhere/one.backup"),
    ] {
        let mut verify = store.client(addr);
        let refused = fails(verify.args(["backup", "verify", from]));
        assert!(
            refused.contains(words) && refused.contains(from),
            "{refused}"
        );
    }
    let mut far = store.client(addr);
    far.env("AWS_ENDPOINT_URL", "http://203.0.113.1");
    let refused = fails(far.args(["backup", "verify", "s3://backups/a/one.backup"]));
    assert!(refused.contains("AWS_ALLOW_HTTP"), "{refused}");
}

/// A node that answers one request with these bytes of a backup, and closes.
fn answers_with(sent: &[u8], announced: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let sent = sent.to_vec();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {announced}\r\n\r\n");
        // The client may have seen enough.
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&sent);
    });
    addr
}
