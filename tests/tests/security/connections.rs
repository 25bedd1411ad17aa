//! Many connections: slow, silent, without a password, malformed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use memkv_black_box::{
    Cluster, Http, Resp, allow_files, encode, eventually, free_port, setting, skip, write_secret,
};
use serde_json::json;

use crate::watch::{Honest, LIMIT, MIB, Watch, compare, connect};

/// How long another client may wait on a machine whose cores are all busy.
const HONEST_LIMIT: Duration = Duration::from_secs(2);

const PASSWORD: &str = "correct horse battery staple";

fn is_ended(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

fn with_password() -> (Cluster, String) {
    let mut cluster = Cluster::configured_with(1, &json!({ "password_file": "../password" }));
    write_secret(&cluster.root().join("password"), PASSWORD);
    cluster.nodes[0].start();
    let addr = cluster.nodes[0].addr.clone();
    drop(connect(&addr, Some(PASSWORD)));
    (cluster, addr)
}

/// What 99 % of a client's reads take while nothing else happens.
fn quiet(addr: &str, password: Option<&str>) -> Duration {
    let honest = Honest::start(addr, password);
    thread::sleep(Duration::from_secs(1));
    honest.end("before", HONEST_LIMIT)
}

#[test]
fn two_thousand_slow_connections_cost_others_little_and_are_closed() {
    const CONNECTIONS: usize = 2000;
    if !allow_files(CONNECTIONS as u64 + 500) {
        return skip("slow connections", "too few files may be open");
    }
    let mut cluster = Cluster::start(1);
    let addr = cluster.nodes[0].addr.clone();
    let mut watch = Watch::begin(&addr, cluster.nodes[0].process().id(), None);
    let quiet = quiet(&addr, None);
    let honest = Honest::start(&addr, None);
    let begun: [&[u8]; 4] = [
        b"*2\r\n$3\r\nGET\r\n$100\r\n",
        b"GET /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
        b"*100000\r\n$1\r\n",
    ];
    let mut slow: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|at| {
            let mut stream = TcpStream::connect(&addr).unwrap();
            stream.write_all(begun[at % begun.len()]).unwrap();
            stream
        })
        .collect();
    // A byte of each now and then.
    for _ in 0..3 {
        for stream in &mut slow {
            // It may have been closed by now.
            let _ = stream.write_all(b"x");
        }
        watch.look_for(Duration::from_millis(500));
    }
    watch.check("2,000 slow connections");
    let meanwhile = honest.end("2,000 slow connections", HONEST_LIMIT);
    compare("2,000 slow connections", quiet, meanwhile);
    eventually("slow connections are closed", LIMIT, || {
        slow.retain_mut(|stream| !is_ended(stream));
        slow.is_empty().then_some(())
    });
}

#[test]
fn thousands_that_send_one_byte_leave_the_others_served() {
    let count = match allow_files(10_500) {
        true => 9_900,
        false if allow_files(2_500) => 2_000,
        false => return skip("connections of one byte", "too few files may be open"),
    };
    let mut cluster = Cluster::start(1);
    let addr = cluster.nodes[0].addr.clone();
    let mut watch = Watch::begin(&addr, cluster.nodes[0].process().id(), None);
    let honest = Honest::start(&addr, None);
    let mut silent = Vec::new();
    for at in 0..count {
        let mut stream = TcpStream::connect(&addr).unwrap();
        stream
            .write_all(if at % 2 == 0 { b"*" } else { b"G" })
            .unwrap();
        silent.push(stream);
        if at % 1000 == 0 {
            watch.look();
        }
    }
    watch.look_for(Duration::from_secs(1));
    let what = format!("{count} connections of one byte");
    watch.check(&what);
    honest.end(&what, HONEST_LIMIT);
}

#[test]
fn a_flood_without_the_password_takes_little_memory_and_no_clients_place() {
    /// Of memory beyond what the node had.
    const GROWTH_LIMIT: u64 = 64 * MIB;
    const HELD: usize = 3000;
    if !allow_files(HELD as u64 + 500) {
        return skip("a flood", "too few files may be open");
    }
    let (mut cluster, addr) = with_password();
    let mut watch = Watch::begin(&addr, cluster.nodes[0].process().id(), Some(PASSWORD));
    let honest = Honest::start(&addr, Some(PASSWORD));
    // Long heads, long arguments, long lines, upgrades without a proof.
    let long = "k".repeat(150_000);
    let upgrade = format!(
        "GET /memkv{}/raft/append HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
         Upgrade: memkv-peer/2\r\n\r\n",
        cluster.nodes[0].id
    );
    let begun = [
        format!("GET /v1/kv/{long}"),
        format!("*2\r\n$4\r\nECHO\r\n$16000\r\n{}", &long[..15_000]),
        format!("*2\r\n$4\r\nECHO\r\n${}\r\n{long}", long.len()),
        upgrade,
    ];
    let mut held = Vec::new();
    for at in 0..HELD {
        let Ok(mut stream) = TcpStream::connect(&addr) else {
            continue;
        };
        stream
            .set_write_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        // It may be closed before it has sent all.
        let _ = stream.write_all(begun[at % begun.len()].as_bytes());
        held.push(stream);
        if at % 200 == 0 {
            watch.look();
            let unproven = watch.metric("memkv_connections_unproven");
            assert!(unproven <= 1344, "{unproven} places");
        }
    }
    watch.look();
    let grown = watch.grown();
    eprintln!("a flood of {HELD}: resident memory +{} MiB", grown / MIB);
    assert!(grown < GROWTH_LIMIT, "{grown} bytes");
    watch.check("a flood without the password");
    honest.end("a flood without the password", HONEST_LIMIT);
    eventually("unproven connections are closed", LIMIT, || {
        (watch.metric("memkv_connections_unproven") == 0).then_some(())
    });
    assert!(watch.metric("memkv_connections_expelled_total") > 0);
}

/// Authenticates `count` clients from many threads, and again where one was closed among so many strangers.
fn authenticate(addr: &str, count: usize) -> Vec<Resp> {
    const THREADS: usize = 128;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let mine = (thread..count).step_by(THREADS);
                scope.spawn(move || mine.map(|_| connect(addr, Some(PASSWORD))).collect())
            })
            .collect();
        let clients = threads.into_iter().map(|thread| thread.join().unwrap());
        clients.flat_map(|clients: Vec<Resp>| clients).collect()
    })
}

#[test]
fn ten_thousand_clients_with_a_password_come_back_at_once() {
    /// On two idle cores it takes two seconds; on a busy machine nothing less is certain.
    const BACK_WITHIN_S: u64 = 60;
    let count = match allow_files(11_000) {
        true => 9_900,
        false if allow_files(2_500) => 2_000,
        false => return skip("clients that come back", "too few files may be open"),
    };
    let (mut cluster, addr) = with_password();
    let clients = authenticate(&addr, count);
    let quiet = quiet(&addr, Some(PASSWORD));
    // The node has forgotten which password was right.
    cluster.nodes[0].kill();
    drop(clients);
    cluster.nodes[0].start();
    let honest = Honest::start(&addr, Some(PASSWORD));
    let started = Instant::now();
    let mut clients = authenticate(&addr, count);
    let took = started.elapsed();
    let p99 = honest.end("while they come back", HONEST_LIMIT);
    eprintln!(
        "{count} clients were back within {took:?}; 99 % of another's reads within {p99:?}, before {quiet:?}"
    );
    let within = setting("MEMKV_SECURITY_BACK_WITHIN_S").unwrap_or(BACK_WITHIN_S);
    assert!(took < Duration::from_secs(within), "{took:?}");
    for client in [0, count / 2, count - 1] {
        assert_eq!(clients[client].call(&["PING"]).unwrap().text(), b"PONG");
    }
}

/// After many failures an attempt waits for as long as a connection may stay unproven: it is answered anyway.
#[test]
fn the_password_is_taken_after_many_wrong_ones_from_the_same_address() {
    /// The wait doubles seven times, from 100 ms to 5 s.
    const WRONG: usize = 8;
    const LONGEST_WAIT: Duration = Duration::from_secs(5);
    let (_cluster, addr) = with_password();
    let mut guessing: Vec<Resp> = (0..WRONG).map(|_| Resp::connect(&addr).unwrap()).collect();
    for client in &mut guessing {
        client.send(&encode(&["AUTH", "a guess"])).unwrap();
    }
    for client in &mut guessing {
        assert!(client.receive().unwrap().is_error());
    }
    let started = Instant::now();
    // `default` and the password, in base64.
    let shown = "Basic ZGVmYXVsdDpjb3JyZWN0IGhvcnNlIGJhdHRlcnkgc3RhcGxl";
    let mut http = Http::connect(&addr).unwrap();
    let mut redis = Resp::connect(&addr).unwrap();
    redis.send(&encode(&["AUTH", PASSWORD])).unwrap();
    let status = http.request("GET", "/v1/status", &[("Authorization", shown)], b"");
    assert_eq!(status.unwrap().status, 200);
    assert_eq!(redis.receive().unwrap().text(), b"OK");
    assert!(started.elapsed() >= LONGEST_WAIT, "{:?}", started.elapsed());
    // Neither connection ends later.
    assert_eq!(redis.call(&["PING"]).unwrap().text(), b"PONG");
    let again = http.request("GET", "/v1/status", &[("Authorization", shown)], b"");
    assert_eq!(again.unwrap().status, 200);
}

#[test]
fn a_thousand_malformed_frames_a_second_on_each_protocol_change_nothing() {
    const FRAMES: usize = 3000;
    let mut cluster = Cluster::configured(1);
    let redis = format!("127.0.0.1:{}", free_port());
    let mut config = cluster.nodes[0].read_config();
    config["redis_addr"] = json!(redis);
    cluster.nodes[0].write_config(&config);
    cluster.start_all();
    let addr = cluster.nodes[0].addr.clone();
    let peer = format!(
        "GET /memkv{}/raft/append HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
         Upgrade: memkv-peer/2\r\n\r\n",
        cluster.nodes[0].id
    );
    let mut watch = Watch::begin(&addr, cluster.nodes[0].process().id(), None);
    let honest = Honest::start(&addr, None);
    let sent = AtomicUsize::new(0);
    let resp: [&[u8]; 4] = [
        b"*x\r\n",
        b"*1\r\n$-5\r\n",
        b"*2\r\n:1\r\n",
        b"SET k \"open\r\n",
    ];
    let http: [&[u8]; 4] = [
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  /\r\n\r\n",
        b"POST /v1/txn HTTP/1.1\r\nContent-Length: x\r\nHost: h\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
    ];
    let frames = [
        &b"\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"garbage garbage garbage garbage",
    ];
    let upgraded: Vec<Vec<u8>> = frames
        .iter()
        .map(|frame| [peer.as_bytes(), frame].concat())
        .collect();
    let upgraded: Vec<&[u8]> = upgraded.iter().map(Vec::as_slice).collect();
    thread::scope(|scope| {
        for (to, malformed) in [(&redis, &resp[..]), (&addr, &http), (&addr, &upgraded)] {
            let sent = &sent;
            scope.spawn(move || {
                let started = Instant::now();
                for (at, frame) in malformed.iter().cycle().take(FRAMES).enumerate() {
                    let mut stream = TcpStream::connect(to).unwrap();
                    let _ = stream.write_all(frame);
                    sent.fetch_add(1, Ordering::Relaxed);
                    // A thousand a second, or as many as the machine can.
                    let due = started + Duration::from_millis(at as u64);
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
            });
        }
        while sent.load(Ordering::Relaxed) < 3 * FRAMES {
            watch.look_for(Duration::from_millis(200));
        }
    });
    watch.check("malformed frames");
    honest.end("malformed frames", HONEST_LIMIT);
}
