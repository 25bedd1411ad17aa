//! A cluster that grows from one node to five, has each of its nodes replaced and its leader moved, and shrinks to
//! three, under clients that write and read all the while: nothing is lost, nothing is executed twice, no read is
//! stale.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests; the pauses are printed"
)]

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use memkv_black_box::{
    Cluster, Load, Node, Resp, ask_cluster as ask, eventually, growing, members, wait_voters,
};
use serde_json::json;

/// A node joins, gets the log, and is close behind for ten seconds; on a busy machine all that takes longer.
const LIMIT: Duration = Duration::from_secs(180);

/// Nodes, of which five are there at once.
const NODES: usize = 10;

/// A client that counts up one key through whatever node answers, and measures its pauses.
struct Pulse {
    stop: Arc<AtomicBool>,
    longest_us: Arc<AtomicU64>,
    thread: JoinHandle<u64>,
}

impl Pulse {
    fn start(addrs: Vec<String>) -> Pulse {
        let (stop, longest_us) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (ends, longest) = (stop.clone(), longest_us.clone());
        let thread = thread::spawn(move || {
            let (mut acknowledged, mut at, mut last) = (0_u64, 0, Instant::now());
            while !ends.load(Ordering::Acquire) {
                let Ok(mut client) = Resp::connect(&addrs[at]) else {
                    at = (at + 1) % addrs.len();
                    continue;
                };
                while let Ok(reply) = client.call(&["INCR", "pulse"]) {
                    if reply.is_error() || ends.load(Ordering::Acquire) {
                        break;
                    }
                    acknowledged += 1;
                    let pause = u64::try_from(last.elapsed().as_micros()).unwrap();
                    longest.fetch_max(pause, Ordering::AcqRel);
                    last = Instant::now();
                }
                at = (at + 1) % addrs.len();
            }
            acknowledged
        });
        Pulse {
            stop,
            longest_us,
            thread,
        }
    }

    /// Prints the longest pause since the last step.
    fn step(&self, what: &str) {
        let longest = Duration::from_micros(self.longest_us.swap(0, Ordering::AcqRel));
        eprintln!("{what}: longest pause {longest:?}");
    }

    /// Ends it. What was acknowledged was counted, and more only where an outcome was unknown. Returns the
    /// number of writes.
    fn finish(self, addr: &str) -> u64 {
        self.stop.store(true, Ordering::Release);
        let acknowledged = self.thread.join().unwrap();
        let counted = Resp::connect(addr)
            .unwrap()
            .call(&["GET", "pulse"])
            .unwrap();
        let counted: u64 = String::from_utf8_lossy(counted.text()).parse().unwrap();
        assert!(
            counted >= acknowledged,
            "{acknowledged} acknowledged, {counted} counted"
        );
        counted
    }
}

fn start(cluster: &mut Cluster, slots: &[usize]) {
    slots.iter().for_each(|slot| cluster.nodes[*slot].start());
}

/// Has another node lead, some times.
fn transfer(cluster: &Cluster, slots: &[usize], times: usize) {
    for time in 0..times {
        let to = &cluster.nodes[slots[time % slots.len()]];
        let addr = &cluster.nodes[slots[0]].addr;
        eventually(&format!("{} leads", to.id), LIMIT, || {
            let _ = ask(addr, &["TRANSFER", &to.id]);
            let members = members(addr)?;
            (members.get(&to.id)?["leads"] == "yes").then_some(())
        });
    }
}

/// A new node joins as a replica, and takes the place of another one, which then ends by itself.
fn replace(cluster: &mut Cluster, old: usize, new: usize, through: usize) {
    let mut config = cluster.nodes[new].read_config();
    config["role"] = json!("replica");
    cluster.nodes[new].write_config(&config);
    cluster.nodes[new].start();
    let addr = cluster.nodes[through].addr.clone();
    let names = [old, new].map(|slot| cluster.nodes[slot].id.clone());
    eventually(
        &format!("{} takes the place of {}", names[1], names[0]),
        LIMIT,
        || {
            let joined = members(&addr)?.get(&names[1])?["state"] == "member";
            let replaced = joined.then(|| ask(&addr, &["REPLACE", &names[0], &names[1]]));
            replaced?.ok()
        },
    );
    ended(&mut cluster.nodes[old]);
}

/// Waits until a node that was removed has ended, and says so.
fn ended(node: &mut Node) {
    let process = node.process();
    process.wait_output("was removed from the cluster", LIMIT);
    process.wait_end(LIMIT);
    node.kill();
}

#[test]
fn a_cluster_grows_moves_and_shrinks_under_load() {
    let mut cluster = growing(NODES);
    start(&mut cluster, &[0]);
    cluster.nodes[0].wait_serving();
    let load = Load::start(&cluster, 16, 1);
    let pulse = Pulse::start(cluster.nodes.iter().map(|node| node.addr.clone()).collect());
    load.wait_answered(500, LIMIT);
    pulse.step("one node");

    start(&mut cluster, &[1, 2]);
    wait_voters(&cluster, &[0, 1, 2]);
    load.wait_answered(500, LIMIT);
    pulse.step("one to three");
    load.next_round();

    start(&mut cluster, &[3, 4]);
    wait_voters(&cluster, &[0, 1, 2, 3, 4]);
    load.wait_answered(500, LIMIT);
    pulse.step("three to five");
    load.next_round();

    transfer(&cluster, &[0, 1, 2, 3, 4], 10);
    pulse.step("ten transfers of leadership");
    load.next_round();

    let mut slots = vec![0, 1, 2, 3, 4];
    for (old, new) in (0..5).zip(5..NODES) {
        let through = *slots.iter().find(|slot| **slot != old).unwrap();
        replace(&mut cluster, old, new, through);
        slots.retain(|slot| *slot != old);
        slots.push(new);
        wait_voters(&cluster, &slots);
        load.wait_answered(200, LIMIT);
        pulse.step("a node replaced");
        load.next_round();
    }

    for _ in 0..2 {
        let gone = slots.remove(0);
        let name = cluster.nodes[gone].id.clone();
        let addr = cluster.nodes[slots[0]].addr.clone();
        eventually(&format!("{name} leaves"), LIMIT, || {
            ask(&addr, &["REMOVE", &name]).ok()
        });
        ended(&mut cluster.nodes[gone]);
        wait_voters(&cluster, &slots);
        pulse.step("a node removed");
    }
    load.wait_answered(500, LIMIT);

    let stays: Vec<String> = slots
        .iter()
        .map(|slot| cluster.nodes[*slot].id.clone())
        .collect();
    cluster.nodes.retain(|node| stays.contains(&node.id));
    cluster.wait_serving();
    let pulses = pulse.finish(&cluster.nodes[0].addr);
    let verdict = load.finish_beside(&cluster, pulses);
    assert!(verdict.acknowledged_writes > 1_000, "{verdict:?}");
    eprintln!("{verdict:?}");
}

#[test]
fn a_removed_name_comes_back_only_when_it_is_expected() {
    let mut cluster = growing(3);
    start(&mut cluster, &[0, 1, 2]);
    wait_voters(&cluster, &[0, 1, 2]);
    let addr = cluster.nodes[0].addr.clone();
    let name = cluster.nodes[2].id.clone();
    // A change of the voters may be under way for a moment.
    let dry = eventually("the verb is tried", LIMIT, || {
        ask(&addr, &["REMOVE", &name, "DRYRUN"]).ok()
    });
    assert!(dry.contains("2 then vote, of which none may fail"), "{dry}");
    assert!(dry.contains("nothing was changed"), "{dry}");
    wait_voters(&cluster, &[0, 1, 2]);
    eventually("the node leaves", LIMIT, || {
        ask(&addr, &["REMOVE", &name]).ok()
    });
    ended(&mut cluster.nodes[2]);
    wait_voters(&cluster, &[0, 1]);

    // Two voters need each other.
    let other = cluster.nodes[1].id.clone();
    cluster.nodes[1].kill();
    let refused = eventually("a change that is not safe is refused", LIMIT, || {
        ask(&addr, &["REMOVE", &other, "DRYRUN"]).err()
    });
    assert!(
        refused.contains("voters must answer") || refused.contains("no leader"),
        "{refused}"
    );
    cluster.nodes[1].start();
    wait_voters(&cluster, &[0, 1]);

    // The machine comes back by itself, which is not enough.
    cluster.nodes[2].start();
    let process = cluster.nodes[2].process();
    process.wait_output("was removed from this cluster", LIMIT);
    ask(&addr, &["ADD", &name]).unwrap();
    wait_voters(&cluster, &[0, 1, 2]);
    an_emptied_founder_serves_nothing(&mut cluster);
}

/// The founder of a cluster that has grown from it knows no other node; its disk is not mounted.
fn an_emptied_founder_serves_nothing(cluster: &mut Cluster) {
    let founder = &mut cluster.nodes[0];
    founder.kill();
    founder.wipe();
    let began = Instant::now();
    founder.start();
    let process = founder.process();
    process.wait_output("calls this node one of its members", LIMIT);
    process.wait_end(LIMIT);
    eprintln!("an emptied founder ended after {:?}", began.elapsed());
    founder.kill();
    founder.wipe();
    let mut config = founder.read_config();
    config["found"] = json!("never");
    founder.write_config(&config);
    founder.start();
    eventually("it founds nothing", LIMIT, || {
        let status = founder.status()?;
        let message = status["message"].as_str()?;
        (status["phase"] == "joining" && message.contains("founds no")).then_some(())
    });
    founder.kill();
    let others: Vec<String> = cluster.nodes[1..]
        .iter()
        .map(|node| node.addr.clone())
        .collect();
    config["join"] = json!(others);
    cluster.nodes[0].write_config(&config);
    cluster.nodes[0].start();
    wait_voters(cluster, &[0, 1, 2]);
}

#[test]
fn many_nodes_join_at_once_while_writes_go_on() {
    // Twenty take most of a minute on a small machine: MEMKV_JOINERS=20 is the campaign.
    let joiners = env::var("MEMKV_JOINERS").map_or(6, |count| count.parse().unwrap());
    let mut cluster = growing(joiners + 1);
    for node in &cluster.nodes[1..] {
        let mut config = node.read_config();
        // More than seven never vote.
        config["role"] = json!("replica");
        node.write_config(&config);
    }
    start(&mut cluster, &[0]);
    cluster.nodes[0].wait_serving();
    let addr = cluster.nodes[0].addr.clone();
    let pulse = Pulse::start(vec![addr.clone()]);
    let began = Instant::now();
    start(&mut cluster, &(1..=joiners).collect::<Vec<_>>());
    eventually("all have joined", LIMIT, || {
        let members = members(&addr)?;
        let joined = members
            .values()
            .filter(|member| member["state"] == "member");
        (joined.count() == joiners + 1).then_some(())
    });
    pulse.step(&format!("{joiners} joined within {:?}", began.elapsed()));
    let written = pulse.finish(&addr);
    assert!(written > 100, "writes went on: {written}");
}

#[test]
fn only_expected_nodes_are_admitted_where_the_list_counts() {
    let mut cluster = growing(2);
    for node in &cluster.nodes {
        let mut config = node.read_config();
        config["admit"] = json!("listed");
        config["role"] = json!("replica");
        node.write_config(&config);
    }
    start(&mut cluster, &[0]);
    cluster.nodes[0].wait_serving();
    start(&mut cluster, &[1]);
    let process = cluster.nodes[1].process();
    process.wait_output("admits only nodes that are expected", LIMIT);
    let addr = cluster.nodes[0].addr.clone();
    let name = cluster.nodes[1].id.clone();
    ask(&addr, &["ADD", &name, "REPLICA"]).unwrap();
    cluster.nodes[1].wait_serving();
    let member = &members(&addr).unwrap()[&name];
    assert_eq!((&*member["role"], &*member["votes"]), ("replica", "no"));
}
