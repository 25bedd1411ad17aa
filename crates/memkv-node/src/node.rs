//! A node of the cluster: puts the parts together, starts and stops them, and is the handle that
//! listeners and the simulator hold.
//!
//! A start ends when the node can answer peers; everything after that (forming or joining a
//! cluster, replaying the log, following a leader) goes on in tasks on the runtime that started it.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::sync::lock::Mutex;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use memkv_disk::disk::Disk;
use memkv_disk::{LogReader, SnapshotStore, WalHandle};
use memkv_store::{Command, Reply, Store};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use crate::disk::memory;
use crate::disk::memory::Memory;
use crate::disk::space::SpaceWatch;
use crate::disk::startup;
use crate::engine::handle::Engine;
use crate::engine::inbound::Incoming;
use crate::engine::log_store::LogStore;
use crate::engine::network::Transfers;
use crate::env::blocking;
use crate::leadership::failure_detector;
use crate::leadership::handover;
use crate::membership::form::Prepare;
use crate::membership::identity::random_uuid;
use crate::membership::levels::Levels;
use crate::membership::life::{Life, State};
use crate::peer::client::Peers;
use crate::peer::server;
use crate::pubsub::publish::{self, Publication, Publisher, Subscribers};
use crate::read::barrier;
use crate::read::commit_interest::CommitInterest;
use crate::read::published::Published;
use crate::read::rounds::Rounds;
use crate::replica::Replica;
use crate::replica::divergence::Divergence;
use crate::report::seldom::Lines;
use crate::report::stats::{Counters, NodeStats};
use crate::time::log_clock;
use crate::time::log_clock::LogClock;
use crate::write::batcher::Batcher;
use crate::write::checked;
use crate::write::session::Session;
use crate::{
    Env, FatalError, Frame, Lane, NodeConfig, NodeStatus, Phase, RequestError, StartError,
    Transport, running,
};

/// The parts of the data directory that live as long as the node.
pub(crate) struct Storage {
    pub(crate) wal: WalHandle,
    pub(crate) log: LogReader,
    pub(crate) snapshots: SnapshotStore,
}

/// The leader that this node follows or is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) term: u64,
    pub(crate) id: u64,
}

/// What all of a node's tasks share.
pub(crate) struct Inner {
    pub(crate) config: NodeConfig,
    pub(crate) env: Env,
    pub(crate) life: Life,
    pub(crate) storage: Storage,
    pub(crate) replica: Arc<Replica>,
    pub(crate) clock: Arc<LogClock>,
    pub(crate) session: Arc<Session>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) batcher: Arc<Batcher>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) counters: Arc<Counters>,
    /// Last index of the log when this process began.
    pub(crate) old_through: u64,
    /// Reads that this node confirms as the leader, for itself and for others.
    pub(crate) leader_reads: Rounds,
    /// Reads that another leader confirms for this node.
    pub(crate) forwarded_reads: Rounds,
    /// The engine, once the node has an identity.
    pub(crate) engine: OnceLock<Engine>,
    pub(crate) leader: watch::Sender<Option<Leader>>,
    /// When this node last accepted something from the leader that it follows.
    heard_at: Mutex<Option<Instant>>,
    /// Whether the leader's process seems dead.
    pub(crate) suspicion: failure_detector::Suspicion,
    /// Since when this node leads without interruption.
    pub(crate) led_since: Mutex<Option<Instant>>,
    phase: Mutex<(Phase, String)>,
    /// Why there is no leader; empty while there is one.
    pub(crate) diagnosis: Mutex<String>,
    fatal: watch::Sender<Option<FatalError>>,
    pub(crate) prepares: mpsc::UnboundedSender<Prepare>,
    pub(crate) transfers: Arc<Transfers>,
    pub(crate) space: Arc<SpaceWatch>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) commit_interest: Arc<CommitInterest>,
    pub(crate) published: Arc<Published>,
    pub(crate) divergence: Divergence,
    /// What peers can make this node log.
    pub(crate) lines: Lines,
    /// Where damaged data of this node lies. Such a node may join a cluster that exists, but never
    /// found one: others may wait for the data that it can no longer read.
    pub(crate) quarantined: Option<std::path::PathBuf>,
    /// Rings when the leader is heard after a silence.
    pub(crate) heard: tokio::sync::Notify,
    pub(crate) incoming: tokio::sync::Mutex<Option<Incoming>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Inner {
    /// Starts a task that ends with the node.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(&Handle::current(), task);
    }

    /// The same, on a certain runtime.
    pub(crate) fn spawn_on(
        &self,
        runtime: &Handle,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.tasks.lock().push(runtime.spawn(task).abort_handle());
    }

    pub(crate) fn leader_id(&self) -> Option<u64> {
        self.leader.borrow().map(|leader| leader.id)
    }

    /// Whether this node leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.engine.get().is_some_and(Engine::is_leader)
    }

    /// Whether the cluster's first entry is applied here.
    pub(crate) fn is_formed(&self) -> bool {
        self.replica.member_table().cluster().is_some()
    }

    /// How long a node has not answered this leader; zero for itself and while this node does not
    /// lead.
    pub(crate) fn silent_for(&self, id: u64) -> Duration {
        let (Some(engine), Some(since)) = (self.engine.get(), *self.led_since.lock()) else {
            return Duration::ZERO;
        };
        if id == self.peers.my_id() {
            return Duration::ZERO;
        }
        let silent = engine.acked_ago(id);
        silent.map_or(since.elapsed(), |silent| silent.min(since.elapsed()))
    }

    /// When a leader that stays silent counts as lost: an election by another node would have begun
    /// at the latest then. `None`: this process has not heard any.
    pub(crate) fn leader_lost_at(&self) -> Option<Instant> {
        self.heard_at().map(|at| at + self.config.longest_silence())
    }

    /// When this process last accepted something from a leader.
    pub(crate) fn heard_at(&self) -> Option<Instant> {
        *self.heard_at.lock()
    }

    /// Notes that the leader was heard.
    pub(crate) fn hear(&self) {
        *self.heard_at.lock() = Some(Instant::now());
        if self.leader.borrow().is_none() {
            self.heard.notify_one();
        }
    }

    /// Why there is no leader to take a command, in words.
    pub(crate) fn no_leader(&self) -> String {
        let diagnosis = self.diagnosis.lock().clone();
        let (_, waits) = self.phase();
        if !waits.is_empty() && diagnosis.is_empty() {
            return waits;
        }
        match self.leader_id() {
            Some(id) => format!(
                "{} leads and cannot reach a majority",
                self.peers.name_of(id)
            ),
            None if diagnosis.is_empty() => "an election is under way".to_owned(),
            None => diagnosis,
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase, message: String) {
        let mut current = self.phase.lock();
        if current.1 != message && !message.is_empty() {
            tracing::info!(node = %self.peers.me.name, "{message}");
        }
        *current = (phase, message);
    }

    pub(crate) fn phase(&self) -> (Phase, String) {
        self.phase.lock().clone()
    }

    /// Ends the node's life.
    pub(crate) fn fail(&self, error: FatalError) {
        tracing::error!(node = %self.peers.me.name, %error, "fatal");
        self.life.enter(State::Stopped);
        self.set_phase(Phase::Stopped, error.to_string());
        self.session.close();
        self.fatal.send_if_modified(|fatal| {
            let first = fatal.is_none();
            fatal.get_or_insert(error);
            first
        });
    }
}

/// A node of the cluster: a cheap handle to tasks on the runtime that [`Node::start`] ran in.
/// Every method may be called from any runtime and any thread.
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

impl Node {
    /// Opens the data directory and starts the node's tasks on the current tokio runtime. Returns
    /// as soon as the node answers [`Node::handle`] and [`Node::status`]; it need not have a
    /// leader, nor a cluster.
    ///
    /// A directory with a corrupt log or snapshot is set aside if the node has peers that can
    /// replace it; alone, the node refuses to start.
    pub async fn start(
        config: NodeConfig,
        disk: Arc<dyn Disk>,
        transport: Arc<dyn Transport>,
        env: Env,
    ) -> Result<Node, StartError> {
        let new = random_uuid((env.random)());
        let directory = startup::open(&config, disk.clone(), &env, new).await?;
        let (opened, life, quarantined) = (directory.opened, directory.life, directory.quarantined);
        let state = life.state();
        let identity = match &state {
            State::Running(identity) => Some(identity.clone()),
            _ => None,
        };
        let boot = opened.metadata.boot + 1;
        let session = Arc::new(Session::new(boot));
        let replica = Arc::new(Replica::new(session.clone()));
        let highest = config.highest_level;
        startup::load_snapshot(&replica, &opened.snapshots, &env, highest).await?;
        startup::check_gap(&replica, &opened.log)?;
        let (clock_file, saved) = directory.clock;
        let clock = Arc::new(LogClock::resume(env.clone(), saved, Some(clock_file)));
        clock.applied(replica.machine.read().store.stamp_ms());
        let me = config.me.clone();
        let levels = Arc::new(Levels::new(&config));
        let peers = Arc::new(Peers::new(
            me,
            boot,
            transport,
            replica.clone(),
            clock.clone(),
            levels.clone(),
        ));
        let (prepares, prepare_requests) = mpsc::unbounded_channel();
        (env.drive_wal)(opened.worker, opened.wal.clone());
        let space = Arc::<SpaceWatch>::default();
        let old_through = opened.log.last().map_or(0, |last| last.index);
        let storage = Storage {
            wal: opened.wal,
            log: opened.log,
            snapshots: opened.snapshots,
        };
        let vote = opened.metadata.hard_state;
        let own = memory::held(boot, vote, &storage);
        let memory = {
            let (disk, layout, identity) = (disk.clone(), config.layout.clone(), identity.clone());
            let open = move || Memory::open(&*disk, &layout, identity.as_ref(), own);
            blocking(&env, open)
                .await
                .map_err(|error| StartError::Load(error.to_string()))??
        };
        let inner = Arc::new(Inner {
            life,
            storage,
            memory: Arc::new(memory),
            disk,
            batcher: Arc::new(Batcher::new(
                clock.clone(),
                space.clone(),
                env.clone(),
                levels,
            )),
            config,
            env,
            replica,
            clock,
            session,
            peers,
            publisher: Arc::default(),
            counters: Arc::default(),
            old_through,
            leader_reads: Rounds::default(),
            forwarded_reads: Rounds::default(),
            engine: OnceLock::new(),
            leader: watch::Sender::new(None),
            heard_at: Mutex::default(),
            suspicion: failure_detector::Suspicion::default(),
            led_since: Mutex::default(),
            phase: Mutex::new((Phase::Forming, String::new())),
            diagnosis: Mutex::default(),
            fatal: watch::Sender::new(None),
            prepares,
            transfers: Arc::default(),
            space,
            commit_interest: Arc::default(),
            published: Arc::default(),
            divergence: Divergence::default(),
            lines: Lines::default(),
            quarantined,
            heard: tokio::sync::Notify::new(),
            incoming: tokio::sync::Mutex::default(),
            tasks: Mutex::default(),
        });
        // The new boot and the directory's number must be durable before a peer hears of them.
        inner.save(&state).await?;
        if let Some(identity) = &identity {
            inner.run_as(identity.clone())?;
        }
        let log_store = LogStore::new(
            inner.storage.wal.clone(),
            inner.storage.log.clone(),
            vote,
            opened.metadata.committed_hint,
            inner.published.clone(),
            inner.env.clone(),
        );
        inner.spawn(log_clock::save(inner.clone()));
        inner.spawn(memory::keep(inner.clone()));
        inner.spawn(running::live(inner.clone(), log_store, prepare_requests));
        Ok(Node { inner })
    }

    /// Answers a peer's request. Must be called in the order of arrival on each lane, and the
    /// returned futures must be spawned in that order on the node's own runtime, those of
    /// [`Lane::Read`] on any.
    pub fn handle(&self, _lane: Lane, request: Bytes) -> BoxFuture<'static, Frame> {
        server::handle(&self.inner, request)
    }

    /// Executes a command exactly once, wherever the leader is, and resolves when it has been
    /// applied on this node. Commands of one caller that are issued in order execute in order.
    pub fn write(
        &self,
        command: &Command,
    ) -> impl Future<Output = Result<Reply, RequestError>> + Send + use<> {
        let inner = &self.inner;
        let submitted = inner
            .check_level(command)
            .and_then(|()| checked::encode(command, inner.config.max_value_bytes))
            .and_then(|encoded| inner.session.submit(encoded, inner.config.hold));
        async move { submitted?.reply().await }
    }

    /// Reads linearizably: `read` sees every write that was acknowledged anywhere before this call.
    pub fn read<T, F>(
        &self,
        read: F,
    ) -> impl Future<Output = Result<T, RequestError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&Store) -> T + Send + 'static,
    {
        let inner = self.inner.clone();
        async move {
            barrier::wait(&inner).await?;
            let machine = inner.replica.machine.read();
            #[cfg(memkv_bugs)]
            memkv_disk::bugs::pass(memkv_disk::bugs::PanicPoint::Reading);
            inner.replica.check_reads()?;
            Ok(read(&machine.store))
        }
    }

    /// The same, and gives up after `within`.
    pub fn read_within<T, F>(
        &self,
        within: Duration,
        read: F,
    ) -> impl Future<Output = Result<T, RequestError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&Store) -> T + Send + 'static,
    {
        let ends_by_itself = self.inner.config.hold + barrier::OVERTIME <= within;
        let read = self.read(read);
        async move {
            // A timer per read would cost as much as to look the key up.
            if ends_by_itself {
                return read.await;
            }
            let late = |_| RequestError::NoLeader {
                detail: format!("no leader confirmed the read within {within:?}"),
            };
            tokio::time::timeout(within, read).await.map_err(late)?
        }
    }

    /// Sends a message to the subscribers of all other nodes: at most once, and in the order of the
    /// calls. Resolves soon to the number of those who got it, without those of nodes that do not
    /// answer. Must be called within a tokio runtime.
    pub fn publish(&self, publication: &Publication) -> impl Future<Output = u64> + Send + use<> {
        publish::publish(&self.inner, publication)
    }

    /// Says who gets the messages that other nodes publish, and what is announced of keys. A second call has no effect.
    pub fn subscribe(&self, subscribers: Box<dyn Subscribers>) {
        self.inner.publisher.subscribe(subscribers);
    }

    /// Reads what is here now, however old, for a client.
    ///
    /// # Errors
    /// [`RequestError::Stopping`] once this node knows that its store is wrong.
    pub fn read_old<T>(&self, read: impl FnOnce(&Store) -> T) -> Result<T, RequestError> {
        let machine = self.inner.replica.machine.read();
        self.inner.replica.check_reads()?;
        Ok(read(&machine.store))
    }

    /// The same for status, metrics and tests: whatever is here, be it wrong.
    pub fn read_stale<T>(&self, read: impl FnOnce(&Store) -> T) -> T {
        read(&self.inner.replica.machine.read().store)
    }

    /// Log time now, in milliseconds since the Unix epoch, as far as this node knows it: what the
    /// leader would stamp on an entry, but for the time that its messages need.
    pub fn log_time_ms(&self) -> u64 {
        self.inner.clock.read().log_ms
    }

    /// The node's view of itself. Never blocks for long, never asks a peer.
    pub fn status(&self) -> NodeStatus {
        self.inner.status()
    }

    /// What the node has counted of its work. Never blocks for long, never asks a peer.
    pub fn stats(&self) -> NodeStats {
        self.inner.stats()
    }

    /// Resolves when the node has failed for good; the process must then end.
    pub fn failed(&self) -> impl Future<Output = FatalError> + Send + use<> {
        let mut fatal = self.inner.fatal.subscribe();
        async move {
            match fatal
                .wait_for(Option::is_some)
                .await
                .map(|fatal| fatal.clone())
            {
                Ok(Some(error)) => error,
                // The node was dropped without having failed.
                Ok(None) | Err(_) => std::future::pending().await,
            }
        }
    }

    /// Hands leadership over if this node leads and a caught-up peer exists, then stops
    /// everything and closes the directory. Commands that wait are answered first.
    pub async fn shutdown(&self) {
        handover::gracefully(&self.inner).await;
        // If the caller ended the runtime before the engine has, a peer's request that comes at that
        // moment would find it half stopped, and panic (`raft_inner.rs:214` of alpha.37).
        if let Some(engine) = self.end() {
            // It fails only if the runtime ends.
            let _ = engine.await;
        }
    }

    /// Stops everything at once, as the death of the process would, but for the memory.
    pub fn kill(&self) {
        // The engine ends by itself.
        drop(self.end());
    }

    /// Tells everything to stop; what is returned ends with the engine.
    fn end(&self) -> Option<JoinHandle<()>> {
        self.inner.life.enter(State::Stopped);
        self.inner.session.close();
        for task in std::mem::take(&mut *self.inner.tasks.lock()) {
            task.abort();
        }
        let engine = self.inner.engine.get().cloned();
        let engine = engine.map(|engine| tokio::spawn(async move { engine.shutdown().await }));
        self.inner.storage.wal.shutdown();
        engine
    }
}
