//! Memory: nodes with little of it are filled by writers of every kind. No process ends or takes more than its
//! limit, all nodes refuse the same, no transaction is torn, what does not grow goes on, and it heals.
//!
//! For longer, with more of everything, and each node in a control group whose kernel ends what takes more
//! than its limit (version 1 of control groups, as root): `MEMKV_MEMORY_SECONDS=600 MEMKV_MEMORY_LIMIT=536870912
//! MEMKV_MEMORY_CAP=268435456 MEMKV_MEMORY_WRITERS=64 MEMKV_MEMORY_VALUE=8388608
//! MEMKV_MEMORY_CONNECTIONS=10000 MEMKV_MEMORY_GROUPS=1 cargo test --release -p memkv-black-box --test memory`.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use memkv_black_box::{
    Cluster, Frame, Http, Resp, allow_files, eventually, rss_bytes, seed, setting,
};
use serde_json::json;

/// Far longer than a busy machine needs.
const LIMIT: Duration = Duration::from_secs(60);

/// Memory of each node, in bytes.
const MEMORY: u64 = 192 << 20;

/// For how long the writers write.
const FILL: u64 = 8;

/// Clients that write, and the longest value that they do.
const WRITERS: u64 = 6;
const VALUE: u64 = 1 << 20;

const ACCOUNTS: u64 = 8;
const OPENING: i64 = 1_000;

const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// Numbers without a pattern.
struct Draws(u64);

/// A control group of the first version that limits the memory of one node; removed with it.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn new(name: &str) -> Self {
        let path = format!("/sys/fs/cgroup/memory/memkv-{}-{name}", std::process::id());
        fs::create_dir(&path).unwrap();
        let limit = limit().to_string();
        fs::write(format!("{path}/memory.limit_in_bytes"), limit).unwrap();
        Self(path.into())
    }

    /// Starts a program within it.
    fn around(&self) -> Vec<String> {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        vec!["sh".into(), "-c".into(), script, "sh".into()]
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Only once its last process has gone.
        let until = Instant::now() + LIMIT;
        while fs::remove_dir(&self.0).is_err() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Three nodes, each in a group of its own if that is asked for.
struct Nodes {
    cluster: Cluster,
    groups: Vec<MemoryGroup>,
}

impl Nodes {
    fn start(more: &serde_json::Value) -> Self {
        let cluster = Cluster::configured_with(3, more);
        let groups = match setting("MEMKV_MEMORY_GROUPS") {
            Some(1..) => cluster
                .nodes
                .iter()
                .map(|node| &node.id[..])
                .map(MemoryGroup::new)
                .collect(),
            _ => Vec::new(),
        };
        let mut nodes = Self { cluster, groups };
        (0..3).for_each(|node| nodes.start_node(node));
        nodes.cluster.wait_serving();
        nodes
    }

    fn start_node(&mut self, node: usize) {
        let command = self.command(node);
        self.cluster.nodes[node].start_with(command);
    }

    fn command(&self, node: usize) -> Command {
        let around = self
            .groups
            .get(node)
            .map(MemoryGroup::around)
            .unwrap_or_default();
        let around: Vec<&str> = around.iter().map(String::as_str).collect();
        self.cluster.nodes[node].command_under(&around)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.cluster
            .nodes
            .iter_mut()
            .filter(|node| node.runs())
            .for_each(memkv_black_box::Node::kill);
    }
}

impl Draws {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn key(&mut self) -> String {
        format!("k{}", self.below(2_000))
    }

    fn value(&mut self) -> String {
        let len = match self.below(20) {
            0 => self.below(longest_value()),
            1..5 => self.below(64 << 10),
            _ => self.below(2_000),
        };
        "v".repeat(usize::try_from(len).unwrap())
    }

    /// A command on the keys of database 0.
    fn command(&mut self) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let (key, other) = (self.key(), self.key());
        match self.below(40) {
            0..14 => words(&["SET", &key, &self.value()]),
            14..18 => words(&["SET", &key, &self.value(), "PX", "400"]),
            18..21 => words(&["APPEND", &key, &self.value()]),
            21 => words(&["SETRANGE", &key, "300000", "x"]),
            22..25 => words(&["COPY", &key, &other, "REPLACE"]),
            25..28 => {
                let name = "n".repeat(usize::try_from(self.below(30_000)).unwrap());
                words(&["RENAME", &key, &format!("{other}{name}")])
            }
            28..31 => words(&["MSET", &key, &self.value(), &other, &self.value()]),
            31 => words(&["INCR", "counter"]),
            32..34 => words(&["PEXPIRE", &key, "2000"]),
            34 if self.below(30) == 0 => words(&["FLUSHDB"]),
            34 => words(&["PERSIST", &key]),
            _ => words(&["DEL", &key, &other]),
        }
    }
}

#[derive(Default)]
struct Counted {
    stop: AtomicBool,
    refused: AtomicU64,
    aborted: AtomicU64,
    done: AtomicU64,
    transfers: AtomicU64,
    most_resident: AtomicU64,
}

impl Counted {
    fn count(&self, reply: &Frame) {
        let text = String::from_utf8_lossy(reply.text()).into_owned();
        let counter = match reply.is_error() {
            false => &self.done,
            true if text.starts_with("OOM") => &self.refused,
            true if text.starts_with("EXECABORT") => &self.aborted,
            // A leader may change on a busy machine; a key to rename may be absent.
            true => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn ends(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn account(number: u64) -> String {
    format!("account{number}")
}

fn call(client: &mut Resp, words: &[&str]) -> Frame {
    client.call(words).unwrap()
}

/// Moves money between two accounts, and fills database 0 meanwhile.
fn write(addr: &str, mut draws: Draws, counted: &Counted) {
    let mut client = Resp::connect(addr).unwrap();
    let (mut mover, mut asked) = (Resp::connect(addr).unwrap(), 0);
    assert_eq!(call(&mut mover, &["SELECT", "1"]).text(), b"OK");
    while !counted.ends() {
        let command = draws.command();
        let Ok(reply) = client.call(&command) else {
            // The test finds the node that has ended.
            return;
        };
        counted.count(&reply);
        asked += 1;
        if asked % 8 != 0 {
            continue;
        }
        let amount = draws.below(50).to_string();
        let (from, to) = (draws.below(ACCOUNTS), draws.below(ACCOUNTS));
        call(&mut mover, &["MULTI"]);
        call(&mut mover, &["DECRBY", &account(from), &amount]);
        call(&mut mover, &["INCRBY", &account(to), &amount]);
        let moved = call(&mut mover, &["EXEC"]);
        counted
            .transfers
            .fetch_add(u64::from(!moved.is_error()), Ordering::Relaxed);
        counted.count(&moved);
        // A connection more, as clients come and go.
        drop(Resp::connect(addr));
    }
}

/// The value of a metric.
fn metric(addr: &str, name: &str) -> Option<u64> {
    let page = Http::once(addr, "GET", "/metrics", b"").ok()?.text();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse::<f64>().ok()? as u64)
}

/// Opens the accounts once there is a cap.
fn open_accounts(cluster: &Cluster) {
    let addr = &cluster.nodes[0].addr;
    eventually("the cap that follows from the nodes", LIMIT, || {
        metric(addr, "memkv_maxmemory_bytes")
    });
    let mut client = Resp::connect(addr).unwrap();
    call(&mut client, &["SELECT", "1"]);
    for number in 0..ACCOUNTS {
        let set = ["SET", &account(number), &OPENING.to_string()];
        assert_eq!(call(&mut client, &set).text(), b"OK");
    }
}

fn total(client: &mut Resp) -> i64 {
    call(client, &["SELECT", "1"]);
    let balances = (0..ACCOUNTS).map(|number| {
        let balance = call(client, &["GET", &account(number)]);
        let text = String::from_utf8(balance.text().to_vec()).unwrap();
        text.parse::<i64>().unwrap()
    });
    let total = balances.sum();
    call(client, &["SELECT", "0"]);
    total
}

/// Fills the cluster for a while and watches what its processes take.
fn fill(cluster: &mut Cluster) -> Counted {
    let counted = Counted::default();
    let seconds = setting("MEMKV_MEMORY_SECONDS").unwrap_or(FILL);
    let until = Instant::now() + Duration::from_secs(seconds);
    let seed = seed("MEMKV_MEMORY_SEED");
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.addr.clone()).collect();
    let ids: Vec<u32> = cluster
        .nodes
        .iter()
        .filter_map(|node| node.process_id())
        .collect();
    thread::scope(|scope| {
        for writer in 0..setting("MEMKV_MEMORY_WRITERS").unwrap_or(WRITERS) {
            let addr = &addrs[writer as usize % addrs.len()];
            let counted = &counted;
            scope.spawn(move || write(addr, Draws(seed + writer), counted));
        }
        let lives = |node: &mut memkv_black_box::Node| node.process().ended().is_none();
        while Instant::now() < until && cluster.nodes.iter_mut().all(lives) {
            for id in &ids {
                counted
                    .most_resident
                    .fetch_max(rss_bytes(*id), Ordering::Relaxed);
            }
            thread::sleep(Duration::from_millis(50));
        }
        counted.stop.store(true, Ordering::Relaxed);
    });
    for node in &mut cluster.nodes {
        assert!(node.process().ended().is_none(), "{} has ended", node.id);
    }
    counted
}

/// All nodes count the same and hold the same.
fn agree(cluster: &Cluster) {
    eventually("nodes with the same cost and revision", LIMIT, || {
        let seen = |name| {
            let all: Option<Vec<u64>> = cluster
                .nodes
                .iter()
                .map(|node| metric(&node.addr, name))
                .collect();
            all.filter(|all| all.iter().all(|one| *one == all[0]))
        };
        seen("memkv_keys_cost_bytes").and(seen("memkv_revision"))
    });
    for node in &cluster.nodes {
        assert_eq!(metric(&node.addr, "memkv_divergence_alarm"), Some(0));
    }
}

/// Fills database 0 up to the cap with values of half a mebibyte.
fn fill_to_the_cap(client: &mut Resp) {
    let value = "v".repeat(512 << 10);
    for number in 0.. {
        let key = format!("full{number}");
        let reply = call(client, &["SET", &key, &value]);
        let text = String::from_utf8_lossy(reply.text()).into_owned();
        if text == OOM {
            return;
        }
        // Near its memory's limit a node stops growth for a while.
        assert!(text == "OK" || text.starts_with("OOM"), "{text}");
    }
}

fn limit() -> u64 {
    setting("MEMKV_MEMORY_LIMIT").unwrap_or(MEMORY)
}

fn longest_value() -> u64 {
    setting("MEMKV_MEMORY_VALUE").unwrap_or(VALUE)
}

/// Connections that do nothing, spread over the nodes.
fn idle_connections(cluster: &Cluster) -> Vec<TcpStream> {
    let count = setting("MEMKV_MEMORY_CONNECTIONS").unwrap_or(30);
    assert!(allow_files(count + 500), "too few files may be open");
    let nodes = cluster
        .nodes
        .iter()
        .cycle()
        .take(usize::try_from(count).unwrap());
    nodes
        .map(|node| TcpStream::connect(&node.addr).unwrap())
        .collect()
}

#[test]
fn nodes_that_are_filled_by_all_commands_refuse_the_same_and_heal() {
    let more = json!({
        "max_memory": limit(),
        "max_log_size": 4 << 20,
        "max_value_bytes": longest_value().max(8 << 20),
    });
    let mut nodes = Nodes::start(&more);
    let cluster = &mut nodes.cluster;
    open_accounts(cluster);
    let addr = cluster.nodes[1].addr.clone();
    let mut client = Resp::connect(&addr).unwrap();
    // So small that the writers reach it at once.
    let cap = setting("MEMKV_MEMORY_CAP")
        .unwrap_or(limit() / 24)
        .to_string();
    let set = ["CONFIG", "SET", "maxmemory", &cap];
    assert_eq!(call(&mut client, &set).text(), b"OK");
    let idle = idle_connections(cluster);
    let counted = fill(cluster);
    drop(idle);
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (refused, done) = (of(&counted.refused), of(&counted.done));
    let (aborted, transfers) = (of(&counted.aborted), of(&counted.transfers));
    let resident_mib = of(&counted.most_resident) >> 20;
    eprintln!(
        "{done} done, {refused} refused, {transfers} transfers, {aborted} aborted, {resident_mib} MiB"
    );
    assert!(
        done > 100 && refused > 20 && transfers > 5,
        "too little was done"
    );
    assert!(of(&counted.most_resident) < limit(), "{resident_mib} MiB");
    agree(cluster);
    assert_eq!(total(&mut client), OPENING * ACCOUNTS as i64);

    // With nothing else under way every interface answers the same.
    call(&mut client, &["FLUSHDB"]);
    fill_to_the_cap(&mut client);
    let put = Http::once(&addr, "PUT", "/v1/kv/one", b"v").unwrap();
    assert_eq!(put.status, 507, "{}", put.text());
    assert!(put.text().contains("MK-108"), "{}", put.text());
    let compat = cluster.nodes[2].compat().set("one", "v").unwrap();
    assert_eq!(compat.status, "error");
    call(&mut client, &["MULTI"]);
    assert_eq!(
        call(&mut client, &["SET", "one", "v"]).text(),
        OOM.as_bytes()
    );
    assert!(
        call(&mut client, &["EXEC"])
            .text()
            .starts_with(b"EXECABORT")
    );
    assert_eq!(call(&mut client, &["GET", "one"]).text(), b"");
    // What does not grow goes on, and makes room.
    assert_eq!(
        call(&mut client, &["PEXPIRE", "full0", "1"]).integer(),
        Some(1)
    );
    assert_eq!(
        call(&mut client, &["DEL", "full1", "full2"]).integer(),
        Some(2)
    );
    assert_eq!(call(&mut client, &["SET", "one", "v"]).text(), b"OK");
    // A node that starts again counts the same.
    cluster.nodes[2].kill();
    nodes.start_node(2);
    let cluster = &mut nodes.cluster;
    cluster.wait_serving();
    agree(cluster);
    assert_eq!(total(&mut client), OPENING * ACCOUNTS as i64);
    call(&mut client, &["FLUSHALL"]);
    assert_eq!(metric(&addr, "memkv_keys_cost_bytes"), Some(0));
}

#[test]
fn with_volatile_ttl_keys_with_deadlines_make_room_on_all_nodes_alike() {
    let mut cluster = Cluster::configured_with(3, &json!({ "max_memory": limit() }));
    cluster.start_all();
    open_accounts(&cluster);
    let mut client = Resp::connect(&cluster.nodes[0].addr).unwrap();
    let set = [
        "CONFIG",
        "SET",
        "maxmemory",
        "4mb",
        "maxmemory-policy",
        "volatile-ttl",
    ];
    assert_eq!(call(&mut client, &set).text(), b"OK");
    let value = "v".repeat(10_000);
    for number in 0..1_500 {
        let (key, seconds) = (format!("lock{number}"), (100_000 - number).to_string());
        let set = ["SET", &key, &value, "EX", &seconds];
        assert_eq!(call(&mut client, &set).text(), b"OK", "{number}");
    }
    agree(&cluster);
    let evicted = metric(&cluster.nodes[1].addr, "memkv_evicted_total").unwrap();
    assert!(evicted > 1_000, "{evicted}");
    // The nearest deadline goes first: that of the last key but one.
    let exists = |client: &mut Resp, key: &str| call(client, &["EXISTS", key]).integer();
    assert_eq!(exists(&mut client, "lock0"), Some(1));
    assert_eq!(exists(&mut client, "lock1498"), Some(0));
    assert_eq!(total(&mut client), OPENING * ACCOUNTS as i64);
    let info = call(&mut client, &["INFO"]);
    let info = String::from_utf8_lossy(info.text()).into_owned();
    assert!(info.contains(&format!("evicted_keys:{evicted}\r\n")));
    assert!(info.contains(
        "maxmemory:4194304\r\nmaxmemory_human:4.00M\r\nmaxmemory_policy:volatile-ttl\r\n"
    ));
}

#[test]
fn memory_of_keys_that_are_gone_goes_back_to_the_system() {
    const MOST: u64 = 128 << 20;
    let mut cluster = Cluster::configured_with(1, &json!({ "max_log_size": 4 << 20 }));
    cluster.start_all();
    let addr = &cluster.nodes[0].addr;
    let id = cluster.nodes[0].process_id().unwrap();
    thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || {
                let mut client = Resp::connect(addr).unwrap();
                let mut draws = Draws(writer);
                for _ in 0..200 {
                    let len = match draws.below(3) {
                        0 => draws.below(4 << 20),
                        _ => draws.below(256 << 10),
                    };
                    let value = "v".repeat(usize::try_from(len).unwrap());
                    let key = format!("k{}", draws.below(200));
                    assert_eq!(call(&mut client, &["SET", &key, &value]).text(), b"OK");
                }
            });
        }
    });
    let mut client = Resp::connect(addr).unwrap();
    assert!(rss_bytes(id) > MOST, "{} bytes show nothing", rss_bytes(id));
    assert_eq!(call(&mut client, &["FLUSHALL"]).text(), b"OK");
    eventually("its memory has gone back", LIMIT, || {
        (rss_bytes(id) < MOST).then_some(())
    });
}
