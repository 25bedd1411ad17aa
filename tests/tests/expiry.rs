//! A key lives as long as it was given, whatever the wall clock does: it jumps an hour either way
//! while nodes run and while they are down, and in between the leader dies, all nodes restart, and a
//! follower gets the keys by a snapshot.
//!
//! Time is measured by the test's own monotonic clock. Never early is asserted; how late a key was
//! seen is printed.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use memkv_black_box::{Cluster, Node, Resp, WallClock, eventually, first_index};

const HOUR: i64 = 3600;

/// Life of the keys that a test sees to their end: longer than an election takes.
const SHORT: Duration = Duration::from_secs(4);

/// Life of a key that a snapshot carries, which takes longer.
const MEDIUM: Duration = Duration::from_secs(12);

/// Life of a key that no jump may end: more than an hour, less than two.
const LONG: Duration = Duration::from_secs(5400);

/// The leader's clock is drawn to its wall clock by at most this share of the time that passes.
const SLEW: f64 = 0.005;

/// Stamps, deadlines and answers are whole milliseconds, each rounded down; and a node that has heard
/// nothing for up to a second does not know of the slew by which its leader was set back meanwhile.
const ROUNDING: Duration = Duration::from_millis(3 + 5);

/// A key's life and an election, with room for a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Writes of [`FILL_BYTES`] that push everything older out of the log, which keeps six segments of
/// 64 KiB: several times as much.
const FILLS: usize = 128;
const FILL_BYTES: usize = 16 * 1024;

/// A reply, if the node gives one that is no error now.
fn call(node: &Node, arguments: &[&str]) -> Option<memkv_black_box::Frame> {
    let mut client = Resp::connect(&node.addr).ok()?;
    let reply = client.call(arguments).ok()?;
    (!reply.is_error()).then_some(reply)
}

/// A key with a life.
struct Key {
    name: &'static str,
    life: Duration,
    /// Its life began between these two.
    asked: Instant,
    acknowledged: Instant,
}

/// How late a key was seen.
#[derive(Default)]
struct Late {
    /// There, when it should have been gone for so long; or with so much too much left.
    at_least: Duration,
    /// Gone, when it should have been gone for so long.
    at_most: Duration,
}

impl Key {
    fn set(node: &Node, name: &'static str, life: Duration) -> Key {
        let millis = life.as_millis().to_string();
        eventually("a key is set", LIMIT, || {
            let asked = Instant::now();
            call(node, &["SET", name, "value", "PX", &millis])?;
            Some(Key {
                name,
                life,
                asked,
                acknowledged: Instant::now(),
            })
        })
    }

    /// Asks a node, if it answers, whether the key is gone, and sees that it is not early.
    #[track_caller]
    fn is_gone(&self, node: &Node, late: &mut Late) -> Option<bool> {
        let asking = Instant::now();
        let left = call(node, &["PTTL", self.name])?.integer()?;
        let answered = Instant::now();
        let most_passed = (answered - self.asked).mul_f64(1.0 + SLEW) + ROUNDING;
        let least_passed = asking - self.acknowledged;
        let left_ms = u64::try_from(left).unwrap_or(0);
        let left_for_now = Duration::from_millis(left_ms);
        assert!(
            left_for_now + most_passed >= self.life,
            "`{}`, which lives for {:?}, is early: {:?} after it was set node {} says {left}",
            self.name,
            self.life,
            answered - self.asked,
            node.id
        );
        let gone = left < 0;
        if gone {
            late.at_most = late
                .at_most
                .max((answered - self.asked).saturating_sub(self.life));
        } else {
            let over = (left_for_now + least_passed).saturating_sub(self.life);
            late.at_least = late.at_least.max(over);
        }
        Some(gone)
    }

    /// Waits until it is gone at every node that runs.
    #[track_caller]
    fn wait_gone(&self, cluster: &Cluster, late: &mut Late) {
        let mut there: Vec<&Node> = cluster.nodes.iter().filter(|node| node.runs()).collect();
        eventually("a key's end at every node", LIMIT, || {
            there.retain(|node| self.is_gone(node, late) != Some(true));
            there.is_empty().then_some(())
        });
    }

    /// Sees at every node that runs that it is there.
    #[track_caller]
    fn check_there(&self, cluster: &Cluster, late: &mut Late) {
        for node in cluster.nodes.iter().filter(|node| node.runs()) {
            let gone = eventually("a node answers", LIMIT, || self.is_gone(node, late));
            assert!(!gone, "`{}` is gone at node {}", self.name, node.id);
        }
    }
}

fn kill_all(cluster: &mut Cluster) {
    cluster.nodes.iter_mut().for_each(Node::kill);
}

/// Starts the nodes that do not run, and checks that every node sees the clock.
#[track_caller]
fn start_all(cluster: &mut Cluster, clock: &WallClock) {
    for node in cluster.nodes.iter_mut().filter(|node| !node.runs()) {
        clock.start(node);
    }
    cluster.wait_serving();
    cluster.nodes.iter().for_each(|node| clock.wait_seen(node));
}

/// Sets the clock of running nodes.
fn jump(cluster: &Cluster, clock: &mut WallClock, offset_seconds: i64) {
    clock.set(offset_seconds);
    let running = cluster.nodes.iter().filter(|node| node.runs());
    running.for_each(|node| clock.wait_seen(node));
}

fn report(what: &str, short: &Late, long: &Late) -> String {
    format!(
        "{what}: gone at most {:?} late, still there {:?} late; the long one has {:?} too much",
        short.at_most, short.at_least, long.at_least
    )
}

type Event = fn(&mut Cluster, &mut WallClock);

const EVENTS: [(&str, Event); 7] = [
    ("an hour ahead", |cluster, clock| jump(cluster, clock, HOUR)),
    ("another leader", |cluster, _| {
        let leader = cluster.leader();
        cluster.nodes[leader].kill();
    }),
    ("two hours back", |cluster, clock| {
        jump(cluster, clock, -HOUR)
    }),
    ("another leader, an hour behind", |cluster, _| {
        let leader = cluster.leader();
        cluster.nodes[leader].kill();
    }),
    ("a restart an hour ahead", |cluster, clock| {
        kill_all(cluster);
        clock.set(HOUR);
        start_all(cluster, clock);
    }),
    ("a restart an hour behind", |cluster, clock| {
        kill_all(cluster);
        clock.set(-HOUR);
        start_all(cluster, clock);
    }),
    ("another leader, and two hours ahead", |cluster, clock| {
        let leader = cluster.leader();
        cluster.nodes[leader].kill();
        jump(cluster, clock, HOUR);
    }),
];

#[test]
fn keys_live_as_long_as_they_were_given_whatever_the_wall_clock_does() {
    // It outlives the nodes.
    let mut clock = WallClock::default();
    let mut cluster = Cluster::configured(3);
    start_all(&mut cluster, &clock);
    let long = Key::set(&cluster.nodes[0], "long", LONG);
    for (what, event) in EVENTS {
        let (mut short_late, mut long_late) = (Late::default(), Late::default());
        let short = Key::set(&cluster.nodes[0], "short", SHORT);
        event(&mut cluster, &mut clock);
        long.check_there(&cluster, &mut long_late);
        short.wait_gone(&cluster, &mut short_late);
        eprintln!("{}", report(what, &short_late, &long_late));
        start_all(&mut cluster, &clock);
    }
}

#[test]
fn a_cluster_that_dies_young_goes_on_with_its_time() {
    let mut clock = WallClock::default();
    let mut cluster = Cluster::configured(3);
    start_all(&mut cluster, &clock);
    let (mut short_late, mut long_late) = (Late::default(), Late::default());
    let long = Key::set(&cluster.nodes[0], "long", LONG);
    let short = Key::set(&cluster.nodes[0], "short", SHORT);
    kill_all(&mut cluster);
    clock.set(2 * HOUR);
    start_all(&mut cluster, &clock);
    long.check_there(&cluster, &mut long_late);
    short.wait_gone(&cluster, &mut short_late);
    let what = "a restart two hours ahead";
    eprintln!("{}", report(what, &short_late, &long_late));
}

#[test]
fn a_key_that_came_by_a_snapshot_lives_as_long_as_the_others() {
    let mut clock = WallClock::default();
    let mut cluster = Cluster::configured(3);
    start_all(&mut cluster, &clock);
    let (leader, absent) = (cluster.leader(), cluster.followers()[0]);
    let status = cluster.nodes[absent].status().unwrap();
    let had = status["applied_index"].as_u64().unwrap();
    let long = Key::set(&cluster.nodes[leader], "long", LONG);
    let medium = Key::set(&cluster.nodes[leader], "medium", MEDIUM);
    cluster.nodes[absent].kill();
    let value = "v".repeat(FILL_BYTES);
    for number in 0..FILLS {
        let name = format!("fill-{}", number % 8);
        eventually("a write", LIMIT, || {
            call(&cluster.nodes[leader], &["SET", &name, &value])
        });
    }
    // By both: either may lead when the third one returns.
    eventually("the log of before is dropped", LIMIT, || {
        let mut running = cluster.nodes.iter().filter(|node| node.runs());
        let dropped = running.all(|node| first_index(node) > had + 1);
        dropped.then_some(())
    });

    clock.set(HOUR);
    start_all(&mut cluster, &clock);
    let status = cluster.nodes[absent].status().unwrap();
    let snapshot = status["snapshot_index"].as_u64();
    assert!(snapshot.is_some_and(|index| index > had), "{status}");
    // Its own copy counts: it is one of the two that are left.
    let third = (0..3).find(|index| ![leader, absent].contains(index));
    cluster.nodes[third.unwrap()].kill();
    let (mut medium_late, mut long_late) = (Late::default(), Late::default());
    long.check_there(&cluster, &mut long_late);
    medium.wait_gone(&cluster, &mut medium_late);
    eprintln!("{}", report("a snapshot", &medium_late, &long_late));
}
