//! Clusters of whole nodes in one task, on simulated disks and under paused time, whose lists of
//! nodes differ and are corrected between starts, with crashes and lost directories in between.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use memkv_disk::Layout;
use memkv_disk::disk::sim::SimDisk;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::membership::identity::Identity;
use crate::membership::life::{Agreement, State};
use crate::peer::message::{Envelope, Kind};
use crate::sync::lock::Mutex;
use crate::{
    CallError, Elsewhere, Env, Frame, Lane, Node, NodeConfig, NodeStatus, Peer, Phase,
    PreciseTimer, Role, Transport, kind_of,
};

/// The fate of a request on its way; `false`: it is lost.
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
    /// `b` has agreed to the proposal of `a`, which never hears from `c`.
    async fn agreed_but_c() -> Self {
        let mut hosts = Hosts::new();
        hosts.gate(|kind, to| kind != "Prepare" || to != "c");
        hosts.start_all(&ALL).await;
        hosts
            .waits("b", "waiting for a to have the agreement of all")
            .await;
        hosts
    }

    fn new() -> Self {
        Self {
            mesh: Arc::default(),
            disks: BTreeMap::new(),
            drawn: Arc::default(),
        }
    }

    fn env(&self) -> Env {
        let drawn = self.drawn.clone();
        let here: Elsewhere = Arc::new(|work| {
            work();
            async {}.boxed()
        });
        Env {
            resident: Arc::new(|| None),
            wall_clock_ms: Arc::new(|| 1_750_000_000_000),
            boot_clock: Arc::new(|| None),
            random: Arc::new(move || {
                let mut drawn = drawn.lock();
                *drawn += 1;
                *drawn * 0x0123_4567_89ab_cdef_0123_4567
            }),
            blocking: here.clone(),
            busy: here,
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
            precise_timer: Arc::new(|| PreciseTimer::Runtime),
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

    /// The fate of requests from now on.
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
    hosts.waits("c", "what became of it from b at b").await;
    hosts.waits("c", "empty its directory").await;
    hosts.start("a", &ALL).await;
    pass(2_000).await;
    assert_eq!(hosts.status("c").node_id, 0, "it is still bound");
    hosts.start("b", &ALL).await;
    hosts.serve("b proposes no more").await;
}

/// The founders that have an engine, and whether any log has an entry after the first, which all
/// logs begin with.
fn engines(hosts: &Hosts) -> (Vec<String>, bool) {
    let nodes = hosts.mesh.nodes.lock();
    let runs = |(name, node): (&String, &Node)| Some((name.clone(), node.inspect()?));
    let runs: Vec<_> = nodes.iter().filter_map(runs).collect();
    let has_more = runs
        .iter()
        .any(|(_, now)| now.log.last().is_some_and(|id| id.index > 0));
    (runs.into_iter().map(|(name, _)| name).collect(), has_more)
}

#[tokio::test(start_paused = true)]
async fn a_directory_emptied_in_the_middle_of_formation_stops_nothing() {
    let mut unwritten = 0;
    for wiped in ALL {
        for requests in 0..28 {
            let mut hosts = Hosts::new();
            only(&hosts, requests);
            hosts.start_all(&ALL).await;
            pass(3_000).await;
            let (run, has_more) = engines(&hosts);
            unwritten += u32::from(wiped == "a" && run.len() > 1 && !has_more);
            hosts.wipe(wiped);
            pass(100).await;
            hosts.start(wiped, &ALL).await;
            hosts.open_gate();
            let what = format!("{wiped} was emptied after {requests} requests");
            hosts.serve(&what).await;
        }
    }
    assert!(
        unwritten > 0,
        "the founder was emptied before its cluster had a leader"
    );
}

#[tokio::test(start_paused = true)]
async fn a_founder_of_two_that_was_emptied_too_early_says_what_the_operator_must_do() {
    let two = ["a", "b"];
    let mut unwritten = 0;
    for requests in 0..16 {
        let mut hosts = Hosts::new();
        only(&hosts, requests);
        hosts.start_all(&two).await;
        pass(3_000).await;
        let (run, has_more) = engines(&hosts);
        hosts.wipe("a");
        hosts.start("a", &two).await;
        hosts.open_gate();
        if run.len() < 2 {
            hosts.serve("no cluster of a's old directory runs").await;
            continue;
        }
        unwritten += u32::from(!has_more);
        let words = "start both nodes on empty directories";
        hosts.waits("a", words).await;
        hosts.waits("b", words).await;
        hosts.wipe("b");
        hosts.start("b", &two).await;
        hosts.serve("both were emptied").await;
    }
    assert!(unwritten > 0, "both ran, and neither had led");
}

#[tokio::test(start_paused = true)]
async fn a_running_node_takes_no_other_identity_not_even_on_disk() {
    let mut hosts = Hosts::new();
    hosts.start_all(&ALL).await;
    hosts.serve("formed").await;
    let b = hosts.mesh.nodes.lock()["b"].clone();
    let mine = b.group.process.peers.identity().unwrap();
    let other = Identity {
        cluster: [9; 16],
        node_id: 3,
        ..mine.clone()
    };
    let agreement = Agreement {
        proposal: other.clone(),
        proposer: [1; 16],
    };
    for next in [
        State::Running(other.clone()),
        State::Prepared(agreement),
        State::Blank,
    ] {
        assert!(b.group.introducer.record.advance(next).await.is_err());
    }
    assert!(!b.group.process.peers.set_identity(other));
    assert_eq!(b.group.process.peers.identity(), Some(mine.clone()));
    hosts.kill("b");
    let b = hosts.start("b", &ALL).await;
    assert_eq!(b.group.process.peers.identity(), Some(mine));
}

#[tokio::test(start_paused = true)]
async fn a_request_for_another_recipient_is_refused_on_every_lane() {
    let mut hosts = Hosts::new();
    hosts.start_all(&ALL).await;
    hosts.serve("formed").await;
    let nodes = hosts.mesh.nodes.lock();
    let (a, b) = (nodes["a"].group.process.clone(), nodes["b"].clone());
    let mine = b.group.process.peers.my_id();
    let ask = |kind: u8, to: u64, lane| {
        let mut request = a.peers.envelope(Kind::Hello, to);
        request[1] = kind;
        let answer = b.handle(lane, request.freeze()).now_or_never();
        // A request that waits was let in.
        let answer = answer.map_or(String::new(), |frame| {
            let answer = crate::peer::message::response(frame.into_bytes()).unwrap();
            answer.err().unwrap_or_default()
        });
        (!answer.contains("unreadable request (")).then_some(answer)
    };
    // The first three need no common cluster; the others come before a peer's id is known.
    let open = [
        Kind::Hello,
        Kind::Prepare,
        Kind::Join,
        Kind::Recall,
        Kind::Moved,
    ];
    let open = open.map(|kind| kind as u8);
    let mut kinds = 0;
    for kind in (0..=u8::MAX).filter(|kind| !open.contains(kind)) {
        let is_kind = Envelope::decode({
            let mut request = a.peers.envelope(Kind::Hello, mine);
            request[1] = kind;
            request.freeze()
        })
        .is_ok();
        if !is_kind {
            continue;
        }
        kinds += 1;
        for lane in Lane::ALL {
            for to in [0, mine - 1, mine + 1, u64::MAX] {
                let answer = ask(kind, to, lane).unwrap();
                let words = format!("this is node id {mine}, the request is for node id {to}");
                assert!(answer.contains(&words), "kind {kind} on {lane:?}: {answer}");
            }
        }
    }
    assert!(kinds >= 13, "{kinds} kinds of requests");
}

#[tokio::test(start_paused = true)]
async fn an_old_copy_of_a_directory_that_had_only_agreed_is_found() {
    let mut hosts = Hosts::agreed_but_c().await;
    let image = hosts.disks["b"].image();
    hosts.open_gate();
    hosts.serve("formed").await;
    hosts.kill("b");
    hosts.disks.insert("b".to_owned(), Arc::new(image));
    let b = hosts.start("b", &ALL).await;
    hosts.waits("b", "went back in time").await;
    assert!(b.inspect().is_none(), "it has no engine");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_agreed_has_no_engine_before_the_cluster_exists() {
    let hosts = Hosts::agreed_but_c().await;
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
    let hello = b
        .group
        .process
        .peers
        .envelope(crate::peer::message::Kind::Hello, 0)
        .freeze();
    let reply = b.handle(Lane::Control, hello).now_or_never().unwrap();
    let mut reply = crate::peer::message::response(reply.into_bytes())
        .unwrap()
        .unwrap();
    let reply = crate::peer::message::HelloReply::read(&mut reply).unwrap();
    assert!(reply.is_formed(), "{reply:?}");
    hosts.wipe("a");
    hosts.start("c", &ALL).await;
    hosts.start("a", &ALL).await;
    hosts.serve("a is replaced").await;
    assert_eq!(hosts.status("a").cluster, cluster);
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_engine_has_ended_leads_no_more() {
    let mut hosts = Hosts::new();
    let node = hosts.start("a", &["a"]).await;
    hosts.serve("alone").await;
    assert_eq!(node.status().role, Role::Leader);
    assert!(node.inspect().is_some_and(|shown| shown.leads.is_some()));
    node.shutdown().await;
    assert_eq!(node.status().role, Role::Learner);
    assert!(node.inspect().is_some_and(|shown| shown.leads.is_none()));
}
