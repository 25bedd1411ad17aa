//! Hostile sockets that would keep a peer out.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use memkv_black_box::{Cluster, Resp, eventually, write_secret};
use serde_json::json;

use crate::watch::{LIMIT, connect};

/// Ends the hostile threads also when the test fails.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_follower_comes_back_though_hundreds_of_hostile_sockets_are_open() {
    const HOSTILE: usize = 300;
    /// On an idle machine two seconds; others may use this one.
    const BACK_WITHIN: Duration = Duration::from_secs(20);
    const PASSWORD: &str = "correct horse battery staple";
    let more = json!({ "password_file": "../password", "cluster_secret_file": "../secret" });
    let mut cluster = Cluster::configured_with(3, &more);
    write_secret(&cluster.root().join("password"), PASSWORD);
    write_secret(&cluster.root().join("secret"), &"s".repeat(64));
    for node in &mut cluster.nodes {
        node.start();
    }
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.addr.clone()).collect();
    let mut client = connect(&addrs[0], Some(PASSWORD));
    let set = |client: &mut Resp, value: &str| {
        let set = client.call(&["SET", "k", value]).ok()?;
        (set.text() == b"OK").then_some(())
    };
    eventually("the cluster serves", LIMIT, || set(&mut client, "before"));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stops = Stops(&stop);
        for addr in &addrs {
            let stop = &stop;
            let ids: Vec<_> = cluster.nodes.iter().map(|node| node.id.clone()).collect();
            scope.spawn(move || {
                let mut held: Vec<TcpStream> = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    // The oldest go, as they are closed, and new ones come all the time.
                    if held.len() >= HOSTILE {
                        held.drain(..HOSTILE / 10);
                    }
                    if let Ok(mut stream) = TcpStream::connect(addr) {
                        let id = &ids[held.len() % ids.len()];
                        let text = format!(
                            "GET /memkv{id}/raft/append HTTP/1.1\r\nHost: h\r\n\
                             Connection: Upgrade\r\nUpgrade: memkv-peer/2\r\n\
                             X-Memkv-Nonce: {}\r\n\r\n",
                            "0".repeat(64)
                        );
                        let _ = std::io::Write::write_all(&mut stream, text.as_bytes());
                        held.push(stream);
                    }
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        thread::sleep(Duration::from_secs(1));
        // Any node but the one that the client is at; if it leads, another one is elected.
        let node = &mut cluster.nodes[2];
        node.kill();
        eventually("the others serve", LIMIT, || set(&mut client, "meanwhile"));
        let started = Instant::now();
        node.start();
        eventually("it reads what was written", LIMIT, || {
            // One that came before the node had the table of users ends with the table.
            let mut back = connect(&addrs[2], Some(PASSWORD));
            let get = back.call(&["GET", "k"]).ok()?;
            (get.text() == b"meanwhile").then_some(())
        });
        let took = started.elapsed();
        eprintln!("back among {HOSTILE} hostile sockets at each node: {took:?}");
        assert!(took < BACK_WITHIN, "{took:?}");
    });
}
