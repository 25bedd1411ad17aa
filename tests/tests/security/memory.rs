//! Clients that take memory: by replies that they do not read, by transactions, by subscriptions.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use memkv_black_box::{
    Ca, Cluster, Resp, TlsClient, allow_files, encode, eventually, rss_bytes, skip, tls_config,
};
use serde_json::json;

use crate::watch::{Honest, LIMIT, MIB, Watch, connect};

/// How long another client may wait on a machine whose cores are all busy.
const HONEST_LIMIT: Duration = Duration::from_secs(2);

/// What clients may take in these tests: the least that a node can be told.
const CLIENTS: u64 = 64 * MIB;

fn small() -> (Cluster, String, u32) {
    let mut cluster = Cluster::configured_with(1, &json!({ "max_client_memory": CLIENTS }));
    cluster.start_all();
    let addr = cluster.nodes[0].addr.clone();
    let process = cluster.nodes[0].process().id();
    (cluster, addr, process)
}

#[test]
fn slow_readers_of_large_replies_are_bounded_and_disconnected() {
    const READERS: usize = 100;
    let (_cluster, addr, process) = small();
    let mut client = connect(&addr, None);
    let value = "v".repeat(MIB as usize);
    for at in 0..8 {
        let set = client
            .call(&["SET", &format!("large:{at}"), &value])
            .unwrap();
        assert_eq!(set.text(), b"OK");
    }
    for at in 0..1000 {
        let set = client
            .call(&["SET", &format!("small:{at:04}"), &value[..2000]])
            .unwrap();
        assert_eq!(set.text(), b"OK");
    }
    let mut watch = Watch::begin(&addr, process, None);
    let honest = Honest::start(&addr, None);
    let large: Vec<String> = (0..8).map(|at| format!("large:{at}")).collect();
    let small: Vec<String> = (0..1000).map(|at| format!("small:{at:04}")).collect();
    let many = |names: &[String]| {
        let args = ["MGET".to_owned()].into_iter().chain(names.iter().cloned());
        encode(&args.collect::<Vec<_>>())
    };
    let requests = [
        many(&large).repeat(50),
        many(&small).repeat(200),
        encode(&["GET", "large:0"]).repeat(500),
        [
            encode(&["MULTI"]),
            many(&small).repeat(4),
            encode(&["EXEC"]),
        ]
        .concat()
        .repeat(50),
        encode(&["COMMAND", "DOCS"]).repeat(1000),
    ];
    let mut readers: Vec<TcpStream> = (0..READERS)
        .map(|at| {
            let mut stream = TcpStream::connect(&addr).unwrap();
            let timeout = Some(Duration::from_millis(20));
            stream.set_write_timeout(timeout).unwrap();
            // The node stops reading when it cannot answer.
            let _ = stream.write_all(&requests[at % requests.len()]);
            stream
        })
        .collect();
    watch.look_for(Duration::from_secs(3));
    watch.check("slow readers");
    honest.end("slow readers", HONEST_LIMIT);
    // Those that were refused have too little to read to be slow.
    eventually("slow readers are disconnected", LIMIT, || {
        (watch.metric("memkv_connections_slow_total") >= READERS as u64 / 5).then_some(())
    });
    readers.clear();
    eventually("their memory is given back", LIMIT, || {
        (watch.metric("memkv_client_memory_bytes") < MIB).then_some(())
    });
}

#[test]
fn connections_with_tls_take_what_the_ledger_says() {
    const CONNECTIONS: u64 = 2000;
    /// Of the threads that shake hands, and of the allocator.
    const SLACK: u64 = 16 * MIB;
    if !allow_files(CONNECTIONS + 500) {
        return skip("connections with TLS", "too few files may be open");
    }
    let kept = tempfile::tempdir().unwrap();
    let ca = Ca::new(kept.path(), "ca");
    ca.issue_node("n1");
    let more = json!({
        "tls": "accept",
        "tls_cert_file": ca.file("n1.crt"),
        "tls_key_file": ca.file("n1.key"),
    });
    let mut cluster = Cluster::configured_with(1, &more);
    cluster.start_all();
    let (addr, process) = (
        cluster.nodes[0].addr.clone(),
        cluster.nodes[0].process().id(),
    );
    let config = tls_config(&ca, None, None);
    let watch = Watch::begin(&addr, process, None);
    let open = |_| {
        let mut client = TlsClient::connect(&addr, config.clone()).unwrap();
        client.send(&encode(&["PING"])).unwrap();
        assert_eq!(client.receive(7).unwrap(), b"+PONG\r\n");
        client
    };
    // What the first ones cost once is no connection's.
    let first: Vec<TlsClient> = (0..20).map(open).collect();
    let taken = || {
        (
            rss_bytes(process),
            watch.metric("memkv_client_memory_bytes"),
        )
    };
    let before = taken();
    let clients: Vec<TlsClient> = (0..CONNECTIONS).map(open).collect();
    let after = taken();
    let (resident, counted) = (after.0.saturating_sub(before.0), after.1 - before.1);
    let each = |bytes: u64| bytes / CONNECTIONS;
    eprintln!(
        "{CONNECTIONS} connections with TLS: {} bytes each are resident, {} counted",
        each(resident),
        each(counted)
    );
    assert!(counted > CONNECTIONS * 16 * 1024, "{counted}");
    assert!(
        resident <= counted + SLACK,
        "{resident} bytes, {counted} counted"
    );
    drop((first, clients));
    eventually("it is given back", LIMIT, || {
        (watch.metric("memkv_client_memory_bytes") < MIB).then_some(())
    });
}

#[test]
fn ten_thousand_subscriptions_with_fan_out_are_counted_and_bounded() {
    const LISTENERS: usize = 100;
    const CHANNELS: usize = 99;
    const MESSAGES: usize = 200;
    let (_cluster, addr, process) = small();
    let mut watch = Watch::begin(&addr, process, None);
    let honest = Honest::start(&addr, None);
    let mut listeners: Vec<Resp> = (0..LISTENERS)
        .map(|at| {
            let own = (0..CHANNELS).map(|channel| format!("channel:{at}:{channel:060}"));
            let names = ["SUBSCRIBE".to_owned(), "news".to_owned()];
            let args: Vec<String> = names.into_iter().chain(own).collect();
            let mut listener = Resp::connect(&addr).unwrap();
            listener.send(&encode(&args)).unwrap();
            for _ in 0..=CHANNELS {
                assert!(!listener.receive().unwrap().is_error());
            }
            listener
        })
        .collect();
    assert_eq!(watch.metric("memkv_subscriptions"), 10_000);
    watch.look();
    watch.check("10,000 subscriptions");
    let mut publisher = connect(&addr, None);
    // Half of them read, and get everything; messages are shared, so the others cost little.
    let mut silent = listeners.split_off(LISTENERS / 2);
    thread::scope(|scope| {
        for listener in &mut listeners {
            scope.spawn(move || {
                for _ in 0..MESSAGES {
                    let message = listener.receive().unwrap();
                    assert_eq!(message.items[2].text().len(), 100_000);
                }
            });
        }
        let message = "m".repeat(100_000);
        for _ in 0..MESSAGES {
            let count = publisher.call(&["PUBLISH", "news", &message]).unwrap();
            assert!(count.integer() >= Some(LISTENERS as i64 / 2), "{count}");
            watch.look();
        }
    });
    watch.check("fan-out to listeners that do not read");
    honest.end("fan-out", HONEST_LIMIT);
    silent.clear();
    listeners.clear();
    eventually("all is given back", LIMIT, || {
        let is_empty = watch.metric("memkv_subscriptions") == 0;
        (is_empty && watch.metric("memkv_client_memory_bytes") < MIB).then_some(())
    });
}

#[test]
fn queued_commands_pin_no_buffers_and_transactions_are_bounded() {
    const CONNECTIONS: usize = 60;
    let (_cluster, addr, process) = small();
    let mut watch = Watch::begin(&addr, process, None);
    let honest = Honest::start(&addr, None);
    let large = "v".repeat(4 * MIB as usize);
    // A large command, and a small one that is queued and came in the same buffer: 240 MiB if pinned.
    let pinning = [
        encode(&["STRLEN", &large]),
        encode(&["MULTI"]),
        encode(&["GET", "k"]),
    ]
    .concat();
    let mut queued: Vec<Resp> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = Resp::connect(&addr).unwrap();
            client.send(&pinning).unwrap();
            // No key is that long, and what follows is not affected.
            assert_eq!(client.receive().unwrap().integer(), Some(0));
            assert_eq!(client.receive().unwrap().text(), b"OK");
            assert_eq!(client.receive().unwrap().text(), b"QUEUED");
            client
        })
        .collect();
    watch.check_settled("queued commands pin no buffer");
    // A broken transaction queues nothing more, and large ones are refused in time.
    let mut refused = 0;
    let value = "v".repeat(MIB as usize);
    for (at, client) in queued.iter_mut().enumerate() {
        if at % 2 == 0 {
            assert!(client.call(&["NOSUCHCOMMAND"]).unwrap().is_error());
        }
        for _ in 0..4 {
            let reply = client.call(&["SET", "k", &value]).unwrap();
            if reply.is_error() {
                assert!(reply.text().starts_with(b"TRYAGAIN"), "{reply}");
                refused += 1;
            }
        }
        watch.look();
    }
    assert!(
        refused > 0,
        "half of the clients want 120 MiB, and may have 16 MiB"
    );
    let used = watch.metric("memkv_client_memory_bytes{class=\"queued\"}");
    assert!(used <= CLIENTS / 4, "{used}");
    watch.check("large transactions");
    honest.end("large transactions", HONEST_LIMIT);
    queued.clear();
    eventually("all is given back", LIMIT, || {
        (watch.metric("memkv_client_memory_bytes") < MIB).then_some(())
    });
}
