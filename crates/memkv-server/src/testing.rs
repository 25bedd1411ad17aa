//! For tests: a backend that is a real store without a cluster, and can be told to fail.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use memkv_disk::{Layout, LogId, Options, SnapshotMeta, SnapshotReader};
use memkv_metrics::Histogram;
use memkv_node::lock::Mutex;
use memkv_node::{
    Answers, Copies, Frame, Lane, MemberList, MemberStatus, MemberVerb, NodeStats, NodeStatus,
    PeerStats, Phase, Publication, RequestError, Role, Subscribers, Timeline, VerbError,
};
use memkv_store::{
    BY_CERTIFICATE, BatchBuilder, Command, DEFAULT_USER, EDGE_LEVEL, GroupRights, KeyEventClasses,
    Member, NO_TABLE, Principal, Query, Reading, Readings, Rejected, Reply, SessionId, Sink, Store,
    SystemOp, SystemOutcome, UserTable, encode_group_of,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::backend::{Backend, Introspection};
use crate::read_batch::ReadBatch;
use crate::resp::RespSettings;

/// Session of every command; the first log entry opens it.
const SESSION: SessionId = 1;

/// A store that answers, or fails every request in the same way.
#[derive(Clone)]
pub(crate) struct Fake {
    /// The store, and the last sequence number.
    store: Arc<Mutex<(Store, u64)>>,
    fails_with: Option<RequestError>,
    hangs: bool,
    says: Arc<Mutex<Says>>,
    /// Up to which index the other nodes have the log.
    others: watch::Sender<Vec<u64>>,
    /// The next write waits for this on its thread.
    gate: Arc<Mutex<Option<Gate>>>,
    timeline: Arc<Timeline>,
}

/// Both directions between a write that waits on its thread, and a task that lets it go on.
struct Gate {
    waits: std::sync::mpsc::Sender<()>,
    opens: std::sync::mpsc::Receiver<()>,
}

/// What the node reports of itself.
#[derive(Default)]
struct Says {
    building_snapshot: bool,
    disk_low: bool,
    /// What is left to do for the members, see [`MemberList`]; without it there is no cluster.
    left_to_do: Option<Option<String>>,
    /// The verbs that were carried out, and whether they were to be tried only.
    verbs: Vec<(MemberVerb, bool)>,
}

impl Fake {
    pub(crate) fn working() -> Self {
        let mut store = Store::new();
        let mut open = BatchBuilder::new(1);
        open.system(&SystemOp::OpenSession {
            node: 1,
            boot: 1,
            highest: 1,
        });
        store.apply(SESSION, &open.finish(), &mut ());
        Self {
            store: Arc::new(Mutex::new((store, 0))),
            fails_with: None,
            hangs: false,
            says: Arc::default(),
            others: watch::Sender::new(Vec::new()),
            gate: Arc::default(),
            timeline: Arc::default(),
        }
    }

    /// The same at the level that has a memory cap.
    pub(crate) fn at_edge_level() -> Self {
        let fake = Self::working();
        let mut store = Store::new();
        let mut open = BatchBuilder::new(1);
        open.system(&SystemOp::Form {
            cluster: [7; 16],
            durability_sync: true,
            level: EDGE_LEVEL,
            members: vec![Member {
                id: 1,
                name: "n1".to_owned(),
                addr: "h:1".to_owned(),
                pending: false,
            }],
            users: Vec::new(),
        });
        open.system(&SystemOp::OpenSession {
            node: 1,
            boot: 1,
            highest: EDGE_LEVEL,
        });
        store.apply(SESSION, &open.finish(), &mut ());
        *fake.store.lock() = (store, 0);
        fake
    }

    /// The next write waits, on its thread, until the returned task has run after it began.
    ///
    /// # Panics
    /// In the write, if that takes a minute: the task cannot run.
    pub(crate) fn waits_for_another_task(&self) -> impl Future<Output = ()> + Send + use<> {
        let (waits, began) = std::sync::mpsc::channel();
        let (open, opens) = std::sync::mpsc::channel();
        *self.gate.lock() = Some(Gate { waits, opens });
        async move {
            while began.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            open.send(()).expect("the write waits");
        }
    }

    fn pass_gate(&self) {
        let gate = self.gate.lock().take();
        if let Some(gate) = gate {
            gate.waits.send(()).expect("there is a task");
            let limit = Duration::from_secs(60);
            let opened = gate.opens.recv_timeout(limit);
            opened.expect("another task of the thread runs meanwhile");
        }
    }

    pub(crate) fn failing(error: RequestError) -> Self {
        Self {
            fails_with: Some(error),
            ..Self::working()
        }
    }

    pub(crate) fn hanging() -> Self {
        Self {
            hangs: true,
            ..Self::working()
        }
    }

    pub(crate) fn is_building_a_snapshot(&self, is: bool) {
        self.says.lock().building_snapshot = is;
    }

    /// From now on there is a cluster, without members.
    pub(crate) fn has_left_to_do(&self, left: Option<&str>) {
        self.says.lock().left_to_do = Some(left.map(str::to_owned));
    }

    pub(crate) fn verbs(&self) -> Vec<(MemberVerb, bool)> {
        self.says.lock().verbs.clone()
    }

    pub(crate) fn is_low_on_disk(&self, is: bool) {
        self.says.lock().disk_low = is;
    }

    pub(crate) fn others_have(&self, indexes: &[u64]) {
        self.others.send_replace(indexes.to_vec());
    }

    async fn turn(&self) -> Result<(), RequestError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        self.fails_with.clone().map_or(Ok(()), Err)
    }

    async fn turn_within(&self, within: Duration) -> Result<(), RequestError> {
        let late = |_| RequestError::NoLeader {
            detail: format!("no turn within {within:?}"),
        };
        let turn = tokio::time::timeout(within, self.turn());
        turn.await.map_err(late)?
    }
}

impl Fake {
    /// Executes a command as the only one of an entry; a user who may not is told so, since nothing is
    /// judged again here.
    fn apply(
        &self,
        command: &Command,
        principal: Option<Principal>,
    ) -> Result<Reply, RequestError> {
        let mut guard = self.store.lock();
        let (store, last) = &mut *guard;
        *last += 1;
        let seq = *last;
        let mut batch = BatchBuilder::new(seq);
        let mut rights = GroupRights::default();
        if let Some(users) = store.users() {
            let default = users.get(DEFAULT_USER).expect("there is always one");
            let anybody = Principal {
                user: default.id,
                credential: BY_CERTIFICATE,
                revision: users.revision(),
            };
            let principal = principal.filter(|principal| principal.user != NO_TABLE);
            assert!(rights.add(principal.unwrap_or(anybody)));
        }
        let command = [command.encode()];
        let group = encode_group_of(SESSION, seq, seq - 1, &rights, command.iter());
        batch.raw_group(&group);
        let mut answer = Answer(None);
        store.apply(SESSION + seq, &batch.finish(), &mut answer);
        if answer.0.is_none() {
            *last -= 1;
        }
        answer.0.ok_or(RequestError::NoPermission)
    }
}

impl Backend for Fake {
    fn write(
        &self,
        command: Command,
        principal: Option<Principal>,
    ) -> impl Future<Output = Result<Reply, RequestError>> + Send {
        self.pass_gate();
        // In the order of the calls, as the node does.
        let fails = self.hangs || self.fails_with.is_some();
        let reply = (!fails).then(|| self.apply(&command, principal));
        async move {
            self.turn().await?;
            reply.expect("a request that does not fail was applied")
        }
    }

    async fn read(
        &self,
        within: Duration,
        stale: bool,
        mut batch: ReadBatch,
    ) -> Result<ReadBatch, RequestError> {
        if !stale {
            self.turn_within(within).await?;
        }
        let store = &self.store.lock().0;
        batch.answer(store, || store.stamp_ms());
        Ok(batch)
    }

    async fn read_all(
        &self,
        within: Duration,
        stale: bool,
        queries: Vec<Query>,
        most: usize,
    ) -> Result<Answers, RequestError> {
        if !stale {
            self.turn_within(within).await?;
        }
        let store = &self.store.lock().0;
        let mut reading = Reading::new(queries, most);
        while reading.resume(store, None, store.stamp_ms(), 100) != Readings::Done {}
        Ok(Answers {
            users_revision: store.users_revision(),
            values: reading.into_answers(),
            revision: store.revision(),
        })
    }

    fn refuses_growth(&self) -> bool {
        self.store.lock().0.memory().refuses_growth()
    }

    fn users(&self) -> Option<Arc<UserTable>> {
        self.store.lock().0.users().cloned()
    }

    fn watch_users(&self) -> watch::Receiver<Option<Arc<UserTable>>> {
        watch::Sender::new(self.users()).subscribe()
    }

    fn log_time_ms(&self) -> u64 {
        self.store.lock().0.stamp_ms()
    }

    fn introspect(&self) -> Introspection {
        let status = self.status();
        let store = &self.store.lock().0;
        Introspection::of(status, store, store.stamp_ms())
    }

    fn status(&self) -> NodeStatus {
        let store = &self.store.lock().0;
        let says = self.says.lock();
        let name = "n1".to_owned();
        NodeStatus {
            name: name.clone(),
            node_id: 1,
            cluster: Some([7; 16]),
            phase: Phase::Serving,
            message: String::new(),
            role: Role::Leader,
            leader: Some(name.clone()),
            term: 1,
            commit_index: store.applied_index(),
            applied_index: store.applied_index(),
            snapshot: None,
            log_segments: 1,
            revision: store.revision(),
            keys: store.len(),
            building_snapshot: says.building_snapshot,
            disk_low: says.disk_low,
            memory: store.memory(),
            memory_low: false,
            level: 1,
            sync: true,
            members: vec![MemberStatus {
                id: 1,
                name,
                addr: "127.0.0.1:11081".to_owned(),
                role: Role::Leader,
                highest_level: 1,
                state: None,
                lag: Some(0),
                answers: Some(true),
            }],
            voters: 1,
            voters_answering: Some(1),
        }
    }

    fn administer(
        &self,
        verb: MemberVerb,
        dry_run: bool,
    ) -> BoxFuture<'static, Result<String, VerbError>> {
        let mut says = self.says.lock();
        let done = match says.left_to_do {
            Some(_) => Ok("it is done".to_owned()),
            None => Err(VerbError::Refused("this store has no cluster".to_owned())),
        };
        says.verbs.push((verb, dry_run));
        Box::pin(std::future::ready(done))
    }

    fn members(&self) -> BoxFuture<'static, Result<MemberList, VerbError>> {
        let left = self.says.lock().left_to_do.clone();
        let list = left.map(|left_to_do| MemberList {
            members: Vec::new(),
            left_to_do,
        });
        let none = || VerbError::Refused("this store has no cluster".to_owned());
        Box::pin(std::future::ready(list.ok_or_else(none)))
    }

    /// There is no other node.
    fn publish(&self, _: &Publication) -> BoxFuture<'static, u64> {
        Box::pin(std::future::ready(0))
    }

    fn wait_copies(&self, wanted: Copies, within: Option<Duration>) -> BoxFuture<'static, Copies> {
        let index = self.store.lock().0.applied_index();
        let mut others = self.others.subscribe();
        let count =
            move |others: &Vec<u64>| others.iter().filter(|has| **has >= index).count() as u64;
        Box::pin(async move {
            let enough = others.wait_for(|others| count(others) >= wanted.elsewhere);
            match within {
                Some(within) => drop(tokio::time::timeout(within, enough).await),
                None => drop(enough.await),
            }
            Copies {
                here: true,
                elsewhere: count(&others.borrow()),
            }
        })
    }

    fn subscribe(&self, _: Box<dyn Subscribers>) {}

    /// A snapshot of the store, on a disk of its own.
    fn backup(&self) -> BoxFuture<'static, Result<SnapshotReader, RequestError>> {
        let (fake, store) = (self.clone(), self.store.clone());
        Box::pin(async move {
            fake.turn().await?;
            let store = &mut store.lock().0;
            let disk = Arc::new(memkv_disk::disk::sim::SimDisk::new(1));
            let layout = Layout::under(Path::new("/data"));
            let opened = memkv_disk::open(disk, &layout, Options::default()).expect("a directory");
            let last = LogId {
                term: 1,
                leader: 1,
                index: store.applied_index(),
            };
            let extra = Bytes::new();
            let mut writer = opened.snapshots.create(SnapshotMeta { last, extra });
            let head = store.begin_snapshot().expect("no other snapshot");
            writer.block(&head.encode()).expect("a disk");
            while let Some(shard) = store.next_shard() {
                let written = shard.encode_blocks(4096, &mut |block| writer.block(block));
                written.expect("a disk");
            }
            writer.finish().expect("a disk");
            let reader = opened.snapshots.open_latest().expect("a disk");
            Ok(reader.expect("a snapshot"))
        })
    }

    fn stats(&self) -> NodeStats {
        NodeStats {
            leader_changes: 1,
            proposals_pending: 0,
            proposals_failed: 0,
            forwarded: 0,
            peer_lag: vec![("n2".to_owned(), 3)],
            snapshots_built: 0,
            snapshots_installed: 0,
            disk_free: None,
            disk_low: false,
            memory_limit: None,
            growth_refused: 0,
            clock_steps: 0,
            divergence_checks: 0,
            divergence_alarm: false,
            publications_unconfirmed: 0,
            fsync: Histogram::of_durations().counted(),
            apply: Histogram::of_durations().counted(),
            read_batch: Histogram::of_sizes().counted(),
            peers: vec![PeerStats {
                id: 2,
                name: "n2".to_owned(),
                addr: "h:2".to_owned(),
                fails: false,
                last_contact: Some(Duration::from_millis(40)),
                round_trip: Some(Duration::from_micros(120)),
                sent: 1000,
                received: 70,
                lag: Some((3, Duration::from_millis(9))),
            }],
        }
    }

    fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Answers a peer with its request.
    fn handle(&self, _: Lane, _: Option<&str>, request: Bytes) -> BoxFuture<'static, Frame> {
        Box::pin(async move { Frame(vec![request]) })
    }
}

/// Settings with room for tests.
pub(crate) fn resp_settings() -> RespSettings {
    RespSettings {
        port: 6379,
        max_value_bytes: 1024 * 1024,
        max_connections: 100,
        write_stall: Duration::from_secs(10),
        idle_time: None,
        announce: KeyEventClasses::default(),
        sync: true,
    }
}

/// A stream whose other end is never slow: it has sent everything, and takes whatever is written. Notes
/// what moves while the other tasks of the thread wait.
#[derive(Clone)]
pub(crate) struct Eager {
    input: Bytes,
    /// All that was written.
    pub(crate) output: Arc<Mutex<Vec<u8>>>,
    /// Turns of the other task.
    turns: Arc<AtomicUsize>,
    /// The turn, and what has moved in it.
    moved: (usize, usize),
    /// The most that has moved in one turn.
    pub(crate) most: Arc<AtomicUsize>,
}

impl Eager {
    /// Must be called in a runtime of one thread, which is shared with a task that counts its turns.
    pub(crate) fn sending(input: Vec<u8>) -> Self {
        let turns = Arc::<AtomicUsize>::default();
        let counted = turns.clone();
        tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        Self {
            input: Bytes::from(input),
            output: Arc::default(),
            turns,
            moved: (0, 0),
            most: Arc::default(),
        }
    }

    fn note(&mut self, bytes: usize) {
        let turn = self.turns.load(Ordering::Relaxed);
        if self.moved.0 != turn {
            self.moved = (turn, 0);
        }
        self.moved.1 += bytes;
        self.most.fetch_max(self.moved.1, Ordering::Relaxed);
    }
}

impl AsyncRead for Eager {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = into.remaining().min(self.input.len());
        into.put_slice(&self.input.split_to(bytes));
        self.note(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Eager {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.output.lock().extend_from_slice(bytes);
        self.note(bytes.len());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        self.poll_write(context, &bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Answer(Option<Reply>);

impl Sink for Answer {
    fn reply(&mut self, _: SessionId, _: u64, reply: &Reply) {
        self.0 = Some(reply.clone());
    }

    fn duplicate(&mut self, _: SessionId, _: u64, _: Option<&Reply>) {}
    fn rejected(&mut self, _: SessionId, _: u64, _: u64, _: Rejected) {}
    fn system(&mut self, _: usize, _: &SystemOutcome) {}
    fn malformed(&mut self, _: &memkv_store::DecodeError) {}
}
