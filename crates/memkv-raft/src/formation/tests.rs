//! Clusters of whole nodes in one task, on simulated disks and under paused time, whose lists of
//! nodes differ and are corrected between starts, with crashes and lost directories in between.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::lock::Mutex;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use memkv_storage::Layout;
use memkv_storage::disk::sim::SimDisk;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::{
    Alarm, CallError, Env, Frame, Lane, Node, NodeConfig, NodeStatus, Peer, Phase, Role, Transport,
    kind_of,
};

/// What a request meets on its way; `false`: it is lost.
type Gate = Box<dyn FnMut(&str, &str) -> bool + Send>;

/// The nodes that run, by name, and the links between them.
#[derive(Default)]
struct Mesh {
    nodes: Mutex<BTreeMap<String, Node>>,
    gate: Mutex<Option<Gate>>,
}

impl Transport for Arc<Mesh> {
    fn call(
        &self,
        _name: &str,
        addr: &str,
        lane: Lane,
        request: Frame,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let request = request.into_bytes();
        let passes = self
            .gate
            .lock()
            .as_mut()
            .is_none_or(|gate| gate(kind_of(&request), addr));
        let node = self.nodes.lock().get(addr).cloned();
        match node.filter(|_| passes) {
            Some(node) => node
                .handle(lane, request)
                .map(|f| Ok(f.into_bytes()))
                .boxed(),
            None => async { Err(CallError::Unreachable("down".to_owned())) }.boxed(),
        }
    }
}

/// The hosts of a test: their disks outlive their nodes.
struct Hosts {
    mesh: Arc<Mesh>,
    disks: BTreeMap<String, Arc<SimDisk>>,
    drawn: Arc<Mutex<u128>>,
}

impl Hosts {
    fn new() -> Self {
        Self {
            mesh: Arc::default(),
            disks: BTreeMap::new(),
            drawn: Arc::default(),
        }
    }

    fn env(&self) -> Env {
        let drawn = self.drawn.clone();
        Env {
            wall_clock_ms: Arc::new(|| 1_750_000_000_000),
            boot_clock: Arc::new(|| None),
            random: Arc::new(move || {
                let mut drawn = drawn.lock();
                *drawn += 1;
                *drawn * 0x0123_4567_89ab_cdef_0123_4567
            }),
            blocking: Arc::new(|work| {
                work();
                async {}.boxed()
            }),
            drive_wal: Arc::new(|mut worker, handle| {
                let wakeup = Arc::new(Notify::new());
                let notify = wakeup.clone();
                handle.set_wakeup(Arc::new(move || notify.notify_one()));
                tokio::spawn(async move {
                    loop {
                        wakeup.notified().await;
                        while let Some(answers) = worker.poll() {
                            answers.fire();
                        }
                    }
                });
            }),
            reads: Handle::current(),
            alarm: Arc::new(|| Alarm::Runtime),
        }
    }

    /// Starts `name` with this list of names; a node's address is its name.
    async fn start(&mut self, name: &str, list: &[&str]) -> Node {
        let disk = self
            .disks
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(SimDisk::new(1)))
            .clone();
        let peer = |name: &str| Peer {
            name: name.to_owned(),
            addr: name.to_owned(),
        };
        let mut config = NodeConfig::new(peer(name), Layout::under(Path::new("/memkv")));
        config.peers = list
            .iter()
            .filter(|n| **n != name)
            .map(|n| peer(n))
            .collect();
        config.max_log_size = 64 * 1024;
        config.replace_after = Duration::from_secs(2);
        let node = Node::start(config, disk, Arc::new(self.mesh.clone()), self.env())
            .await
            .unwrap();
        self.mesh.nodes.lock().insert(name.to_owned(), node.clone());
        node
    }

    /// Ends a node's process; its directory stays.
    fn kill(&mut self, name: &str) {
        if let Some(node) = self.mesh.nodes.lock().remove(name) {
            node.kill();
        }
        // The process before lets go of its files.
        if let Some(disk) = self.disks.get_mut(name) {
            *disk = Arc::new(disk.kill());
        }
    }

    fn wipe(&mut self, name: &str) {
        self.kill(name);
        self.disks.remove(name);
    }

    async fn start_all(&mut self, names: &[&str]) {
        for name in names {
            self.start(name, names).await;
        }
    }

    /// What requests meet from now on.
    fn gate(&self, gate: impl FnMut(&str, &str) -> bool + Send + 'static) {
        *self.mesh.gate.lock() = Some(Box::new(gate));
    }

    fn open_gate(&self) {
        *self.mesh.gate.lock() = None;
    }

    fn status(&self, name: &str) -> NodeStatus {
        self.mesh.nodes.lock()[name].status()
    }

    fn all(&self) -> Vec<NodeStatus> {
        self.mesh.nodes.lock().values().map(Node::status).collect()
    }

    /// Waits until all nodes that run serve in one cluster of this many voters, and checks that no
    /// moment on the way has two leaders of one term.
    async fn serve(&self, what: &str) {
        let mut leaders: BTreeMap<u64, String> = BTreeMap::new();
        for _ in 0..3_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let all = self.all();
            for status in all.iter().filter(|status| status.role == Role::Leader) {
                let first = leaders.entry(status.term).or_insert(status.name.clone());
                assert_eq!(
                    *first, status.name,
                    "{what}: two leaders of {}",
                    status.term
                );
            }
            for status in &all {
                assert_ne!(status.phase, Phase::Stopped, "{what}: {status:?}");
            }
            let clusters: BTreeSet<_> = all.iter().map(|status| status.cluster).collect();
            let serving = |status: &NodeStatus| status.phase == Phase::Serving;
            if all.iter().all(serving) && clusters.len() == 1 {
                let ids: BTreeSet<u64> = all.iter().map(|status| status.node_id).collect();
                assert_eq!(ids.len(), all.len(), "{what}: an id each");
                return;
            }
        }
        panic!("{what}: not in time: {:#?}", self.all());
    }

    async fn waits(&self, name: &str, words: &str) {
        for _ in 0..1_000 {
            if self.status(name).message.contains(words) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{name} says `{}`, not `{words}`", self.status(name).message);
    }
}

impl Drop for Hosts {
    /// Nodes hold the mesh that holds them.
    fn drop(&mut self) {
        for node in std::mem::take(&mut *self.mesh.nodes.lock()).into_values() {
            node.kill();
        }
    }
}

async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_corrected_between_starts_makes_one_cluster() {
    let mut hosts = Hosts::new();
    let all = ["a", "b", "c"];
    hosts.start("b", &["b", "c"]).await;
    hosts.start("c", &all).await;
    hosts.waits("b", "the lists of nodes differ").await;
    hosts.kill("b");
    hosts.start("b", &all).await;
    pass(500).await;
    hosts.start("a", &all).await;
    hosts.serve("b had proposed").await;
}

const ALL: [&str; 3] = ["a", "b", "c"];

/// Lets this many requests of formation pass, and none after them.
fn only(hosts: &Hosts, mut requests: u32) {
    hosts.gate(move |_, _| {
        let passes = requests > 0;
        requests = requests.saturating_sub(1);
        passes
    });
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_any_request_leaves_a_state_that_goes_on() {
    for crashed in ALL {
        for requests in (0..28).step_by(3) {
            let mut hosts = Hosts::new();
            only(&hosts, requests);
            hosts.start_all(&ALL).await;
            pass(3_000).await;
            hosts.kill(crashed);
            hosts.open_gate();
            pass(700).await;
            hosts.start(crashed, &ALL).await;
            let what = format!("{crashed} crashed after {requests} requests");
            hosts.serve(&what).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lists_that_differ_and_are_corrected_in_any_order_make_one_cluster() {
    let first: [&[&str]; 4] = [&["b", "c"], &["a", "b"], &["a", "c"], &["a", "b", "c", "d"]];
    let orders = [
        ["a", "b", "c"],
        ["a", "c", "b"],
        ["b", "a", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["c", "b", "a"],
    ];
    for wrong in ALL {
        for list in first.into_iter().filter(|list| list.contains(&wrong)) {
            for order in orders {
                let mut hosts = Hosts::new();
                // The ones before the last start; the wrong one is corrected before the last does.
                let list_of = |name: &str| if name == wrong { list } else { &ALL[..] };
                let (last, early) = order.split_last().unwrap();
                for name in early {
                    hosts.start(name, list_of(name)).await;
                    pass(700).await;
                }
                hosts.kill(wrong);
                pass(300).await;
                if wrong != *last {
                    hosts.start(wrong, &ALL).await;
                }
                pass(100).await;
                hosts.start(last, &ALL).await;
                hosts
                    .serve(&format!("{wrong} had {list:?}, in the order {order:?}"))
                    .await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_proposer_that_proposes_no_more_releases_those_that_agreed() {
    // d never comes: b and c agree that b proposes, and wait.
    let mut hosts = Hosts::new();
    hosts.gate(|kind, to| kind != "Prepare" || to != "d");
    for name in ["b", "c", "d"] {
        hosts.start(name, &["b", "c", "d"]).await;
    }
    hosts
        .waits("c", "waiting for b to have the agreement of all")
        .await;
    for name in ["b", "c", "d"] {
        hosts.kill(name);
    }
    hosts.open_gate();
    // The list was wrong: it is a, b and c.
    hosts.start("c", &ALL).await;
    hosts.waits("c", "b alone knows what became of it").await;
    hosts.waits("c", "empty this node's directory").await;
    hosts.start("a", &ALL).await;
    pass(2_000).await;
    assert_eq!(hosts.status("c").node_id, 0, "it is still bound");
    hosts.start("b", &ALL).await;
    hosts.serve("b proposes no more").await;
}

#[tokio::test(start_paused = true)]
async fn a_directory_emptied_in_the_middle_of_formation_stops_nothing_but_an_unwritten_cluster() {
    let mut unwritten = 0;
    for wiped in ALL {
        for requests in (0..28).step_by(3) {
            let mut hosts = Hosts::new();
            only(&hosts, requests);
            hosts.start_all(&ALL).await;
            pass(3_000).await;
            hosts.wipe(wiped);
            pass(100).await;
            hosts.start(wiped, &ALL).await;
            hosts.open_gate();
            pass(8_000).await;
            // The founder alone writes the first entry; without its directory nobody does.
            let has_entry = |name: &str| {
                let now = hosts.mesh.nodes.lock()[name].inspect();
                now.is_some_and(|now| now.log.last().is_some())
            };
            let runs = hosts.mesh.nodes.lock()["b"].inspect().is_some();
            if wiped == "a" && runs && !ALL.iter().any(|name| has_entry(name)) {
                unwritten += 1;
                hosts
                    .waits("a", "empty the directories of all its nodes")
                    .await;
                continue;
            }
            let what = format!("{wiped} was emptied after {requests} requests");
            hosts.serve(&what).await;
        }
    }
    assert!(unwritten > 0, "the moment between the two was hit");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_agreed_has_no_engine_before_the_cluster_exists() {
    let mut hosts = Hosts::new();
    hosts.gate(|kind, to| kind != "Prepare" || to != "c");
    hosts.start_all(&ALL).await;
    hosts
        .waits("b", "waiting for a to have the agreement of all")
        .await;
    for name in ALL {
        let node = hosts.mesh.nodes.lock()[name].clone();
        assert!(node.inspect().is_none(), "{name} has an engine");
        assert_eq!(node.status().node_id, 0, "{name} shows an id");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_node_founds_nothing_while_its_peers_have_no_engine_yet() {
    let mut hosts = Hosts::new();
    hosts.start_all(&ALL).await;
    hosts.serve("formed").await;
    let cluster = hosts.status("b").cluster;
    for name in ALL {
        hosts.kill(name);
    }
    let b = hosts.start("b", &ALL).await;
    assert!(b.inspect().is_none(), "its engine is not up yet");
    let hello = b.inner.peers.envelope(crate::wire::Kind::Hello, 0).freeze();
    let reply = b.handle(Lane::Control, hello).now_or_never().unwrap();
    let mut reply = crate::wire::response(reply.into_bytes()).unwrap().unwrap();
    let reply = crate::wire::HelloReply::read(&mut reply).unwrap();
    assert!(reply.is_formed(), "{reply:?}");
    hosts.wipe("a");
    hosts.start("c", &ALL).await;
    hosts.start("a", &ALL).await;
    hosts.serve("a is replaced").await;
    assert_eq!(hosts.status("a").cluster, cluster);
}
