//! A client that does honest work meanwhile, and the node's memory against its ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use memkv_black_box::{Http, Resp, eventually, rss_bytes, setting};

pub(crate) const MIB: u64 = 1024 * 1024;

/// Longer than any answer takes on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The allocator keeps freed memory for a second, and the honest client needs some.
const SLACK: u64 = 48 * MIB;

/// The same once nothing moves: the threads' own lists of free memory.
const SETTLED_SLACK: u64 = 16 * MIB;

/// A client whose work is counted.
pub(crate) struct Honest {
    stop: Arc<AtomicBool>,
    work: JoinHandle<Vec<(Duration, Duration)>>,
}

/// Up to here a ratio means nothing: a core that another process has for a moment takes as long.
const RATIO_FLOOR: Duration = Duration::from_millis(5);

/// In how much time 99 % of a client's reads were answered, against those before the harm. Only a machine that does
/// nothing else can tell: `cargo xtask security` sets by how much they may be slower.
#[track_caller]
pub(crate) fn compare(what: &str, before: Duration, meanwhile: Duration) {
    eprintln!("{what}: 99 % of another client's reads within {meanwhile:?}, before {before:?}");
    if let Some(times) = setting("MEMKV_SECURITY_TIMES") {
        let most = RATIO_FLOOR.max(before * times as u32);
        assert!(meanwhile < most, "{what}: {meanwhile:?}, before {before:?}");
    }
}

impl Honest {
    /// Writes and reads its own key until it is stopped.
    pub(crate) fn start(addr: &str, password: Option<&str>) -> Honest {
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let mut client = connect(addr, password);
        let work = thread::spawn(move || {
            let mut took = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let value = took.len().to_string();
                let started = Instant::now();
                let set = client.call(&["SET", "honest", &value]).unwrap();
                assert_eq!(set.text(), b"OK", "{set}");
                let written = Instant::now();
                let get = client.call(&["GET", "honest"]).unwrap();
                assert_eq!(get.text(), value.as_bytes());
                took.push((started.elapsed(), written.elapsed()));
                thread::sleep(Duration::from_millis(1));
            }
            took
        });
        Honest { stop, work }
    }

    /// What it has done: a write and a read each time, 99 % of them within `limit`. Returns what 99 % of the reads
    /// took.
    #[track_caller]
    pub(crate) fn end(self, what: &str, limit: Duration) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let took = self.work.join().expect("its work went on");
        let (mut pairs, mut reads): (Vec<_>, Vec<_>) = took.iter().copied().unzip();
        let p99_of = |all: &mut Vec<Duration>| {
            all.sort_unstable();
            all[all.len() * 99 / 100]
        };
        let (p99, p99_of_reads) = (p99_of(&mut pairs), p99_of(&mut reads));
        eprintln!(
            "{what}: {} pairs of another client, 99 % within {p99:?}",
            took.len()
        );
        // Two tests share a machine that may be busy besides: its work went on.
        assert!(took.len() > 5, "{} pairs only", took.len());
        assert!(p99 < limit, "{what}: 99 % within {p99:?}");
        p99_of_reads
    }
}

/// A client that has authenticated, as soon as the node answers.
#[track_caller]
pub(crate) fn connect(addr: &str, password: Option<&str>) -> Resp {
    eventually("the node answers", LIMIT, || {
        let mut client = Resp::connect(addr).ok()?;
        let reply = match password {
            Some(password) => client.call(&["AUTH", password]).ok()?,
            None => client.call(&["PING"]).ok()?,
        };
        (!reply.is_error()).then_some(client)
    })
}

/// A node's memory.
pub(crate) struct Watch {
    addr: String,
    process: u32,
    authorization: Option<String>,
    before: u64,
    /// The most that the ledger has said.
    ledger: u64,
    most: u64,
}

impl Watch {
    /// From now on.
    pub(crate) fn begin(addr: &str, process: u32, password: Option<&str>) -> Watch {
        let mut watch = Watch {
            addr: addr.to_owned(),
            process,
            authorization: password.map(|password| format!("Bearer {password}")),
            before: rss_bytes(process),
            ledger: 0,
            most: 0,
        };
        watch.look();
        watch
    }

    /// A metric's samples, added.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let field = self.authorization.as_deref();
        let fields: Vec<_> = field
            .map(|field| ("Authorization", field))
            .into_iter()
            .collect();
        let page = eventually("metrics are answered", LIMIT, || {
            let mut http = Http::connect(&self.addr).ok()?;
            let page = http.request("GET", "/metrics", &fields, b"").ok()?;
            (page.status == 200).then(|| page.text())
        });
        let samples = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let is_it = rest.starts_with([' ', '{']);
            is_it.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        samples.sum::<f64>() as u64
    }

    /// Looks once.
    pub(crate) fn look(&mut self) {
        let rss = rss_bytes(self.process);
        self.ledger = self.ledger.max(self.metric("memkv_client_memory_bytes"));
        self.most = self.most.max(rss);
    }

    /// Looks for so long.
    pub(crate) fn look_for(&mut self, time: Duration) {
        let started = Instant::now();
        while started.elapsed() < time {
            self.look();
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Memory that the node has taken beyond what it had.
    pub(crate) fn grown(&self) -> u64 {
        self.most.saturating_sub(self.before)
    }

    /// The node's memory was explained by its ledger.
    #[track_caller]
    pub(crate) fn check(&self, what: &str) {
        let grown = self.grown();
        eprintln!(
            "{what}: resident memory +{} MiB, the ledger at most {} MiB",
            grown / MIB,
            self.ledger / MIB
        );
        let most = self.ledger * 13 / 10 + SLACK;
        assert!(
            grown <= most,
            "{what}: {grown} bytes, the ledger {}",
            self.ledger
        );
    }

    /// The node's memory is explained by its ledger once the allocator has given back what is free.
    #[track_caller]
    pub(crate) fn check_settled(&mut self, what: &str) {
        eventually(what, LIMIT, || {
            let grown = rss_bytes(self.process).saturating_sub(self.before);
            let ledger = self.metric("memkv_client_memory_bytes");
            (grown <= ledger * 13 / 10 + SETTLED_SLACK).then_some(())
        });
    }
}
