//! A node that may open few files, and clients that take all that are left.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use memkv_black_box::{Cluster, allow_files, eventually, skip};
use serde_json::json;

use crate::watch::{Honest, LIMIT, connect};

#[test]
fn at_exhausted_descriptors_the_log_rotates_and_the_node_lives() {
    const FILES: &str = "--nofile=256:256";
    let has_prlimit = Command::new("prlimit").arg("--version").output();
    if has_prlimit.is_err() || !allow_files(1500) {
        return skip("exhausted descriptors", "prlimit or files are missing");
    }
    let more = json!({ "max_log_size": 65536, "max_connections": 10_000 });
    let mut cluster = Cluster::configured_with(1, &more);
    let command = cluster.nodes[0].command_under(&["prlimit", FILES]);
    cluster.nodes[0].start_with(command);
    cluster.nodes[0].wait_serving();
    let addr = cluster.nodes[0].addr.clone();
    let mut client = connect(&addr, None);
    let honest = Honest::start(&addr, None);
    // Silent ones, half-sent heads, and peers' upgrades that prove nothing.
    let upgrade = format!(
        "GET /memkv{}/raft/append HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
         Upgrade: memkv-peer/2\r\nX-Memkv-From: n",
        cluster.nodes[0].id
    );
    let mut held = Vec::new();
    for at in 0..1000 {
        let Ok(mut stream) = TcpStream::connect(&addr) else {
            continue;
        };
        let text = match at % 3 {
            0 => String::new(),
            1 => "GET /v1/kv/".to_owned(),
            _ => format!("{upgrade}{at}\r\n\r\n"),
        };
        // It may be closed at once.
        let _ = std::io::Write::write_all(&mut stream, text.as_bytes());
        held.push(stream);
    }
    let index = |cluster: &Cluster| {
        let files = std::fs::read_dir(cluster.nodes[0].dir.join("log")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.max().unwrap()
    };
    let before = index(&cluster);
    let value = "v".repeat(60_000);
    eventually("the log has rotated several times", LIMIT, || {
        for _ in 0..5 {
            let set = client.call(&["SET", "k", &value]).unwrap();
            assert_eq!(set.text(), b"OK", "{set}");
        }
        (index(&cluster) != before).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(client.call(&["SET", "k", &value]).unwrap().text(), b"OK");
    }
    assert!(cluster.nodes[0].process().ended().is_none());
    honest.end("exhausted descriptors", Duration::from_secs(5));
    drop(held);
    drop(connect(&addr, None));
}
