//! A node of the cluster: the handle that listeners and the simulator hold. Starts the parts and stops them.
//!
//! A start ends when the node can answer peers; everything after that (forming or joining a
//! cluster, replaying the log, following a leader) goes on in tasks on the runtime that started it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use memkv_disk::disk::Disk;
use memkv_disk::{HardState, LogId, SnapshotReader};
use memkv_store::{Command, MemberState, Principal, Query, Reply, Revision, Store, UserTable};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::backup::take;
use crate::disk::memory;
use crate::disk::startup;
use crate::disk::storage::Storage;
use crate::engine::log_store::LogStore;
use crate::group::{Found, Group};
use crate::leadership::handover;
use crate::membership::identity::random_uuid;
use crate::membership::levels::Levels;
use crate::membership::life::State;
use crate::membership::record::Record;
use crate::membership::verb_wire;
use crate::membership::verbs::{MemberVerb, VerbError};
use crate::membership::view::MemberList;
use crate::peer::addresses::Addresses;
use crate::peer::client::Peers;
use crate::peer::server;
use crate::process::Process;
use crate::pubsub::publish::{self, Publication, Subscribers};
use crate::read::barrier;
use crate::read::long_read::Answers;
use crate::replica::Replica;
use crate::report::event::Event;
use crate::report::stats::{NodeStats, Peaks};
use crate::report::status::NodeStatus;
use crate::report::timeline::Timeline;
use crate::report::waypoints::Stages;
use crate::running;
use crate::time::log_clock::{self, LogClock};
use crate::write::checked;
use crate::write::copies::Copies;
use crate::write::session::Session;
use crate::write::session::judging::Judge;
use crate::{Env, FatalError, Frame, Lane, NodeConfig, RequestError, StartError, Transport};

/// Longest wait for clients' answers at a stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is checked whether all have theirs.
const DRAIN_PAUSE: Duration = Duration::from_millis(10);

/// A node of the cluster: a cheap handle to tasks on the runtime that [`Node::start`] ran in.
/// Every method may be called from any runtime and any thread.
#[derive(Clone)]
pub struct Node {
    pub(crate) group: Arc<Group>,
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
        let opened = directory.opened;
        let (boot, vote) = (opened.metadata.boot + 1, opened.metadata.hard_state);
        let session = Arc::new(Session::new(boot, config.queue_bytes()));
        let replica = Arc::new(Replica::new(session.clone()));
        startup::load_snapshot(&replica, &opened.snapshots, &env, config.highest_level).await?;
        startup::check_gap(&replica, &opened.log)?;
        let (clock_file, saved) = directory.clock;
        let clock = Arc::new(LogClock::resume(env.clone(), saved, Some(clock_file)));
        clock.applied(replica.machine.read().store.stamp_ms());
        let peers = Arc::new(Peers::new(
            config.me.clone(),
            boot,
            transport,
            replica.clone(),
            clock.clone(),
            Arc::new(Levels::new(&config)),
            Addresses::new(config.peers.clone()),
        ));
        (env.drive_wal)(opened.worker, opened.wal.clone());
        let old_through = opened.log.last().map_or(0, |last| last.index);
        let storage = Storage {
            wal: opened.wal,
            log: opened.log,
            snapshots: opened.snapshots,
        };
        let life = Arc::new(directory.life);
        let state = life.state();
        let own = memory::held(boot, vote, &storage);
        let memory = startup::open_memory(&config, disk.clone(), &env, &state, own).await?;
        let process = Process::new(config, env, disk, peers, life.clone(), session.clone());
        let record = Record::new(
            life,
            storage.wal.clone(),
            process.peers.clone(),
            session.clone(),
        );
        let (prepares, prepare_requests) = mpsc::unbounded_channel();
        let found = Found {
            storage,
            memory: Arc::new(memory),
            replica,
            clock,
            session,
            record: Arc::new(record),
            quarantined: directory.quarantined,
            prepares,
        };
        let group = Arc::new(Group::new(Arc::new(process), found));
        // The new boot and the directory's number must be durable before a peer hears of them.
        let record = &group.introducer.record;
        record.save(&state).await?;
        if let State::Running(identity) = state {
            record.run_as(identity)?;
        }
        let opened = running::Opened {
            log_store: log_store(&group, vote, opened.metadata.committed_hint),
            prepares: prepare_requests,
            old_through,
        };
        spawn(&group, opened);
        Ok(Node { group })
    }

    /// Answers a peer's request. Must be called in the order of arrival on each lane, and the
    /// returned futures must be spawned in that order on the node's own runtime, those of
    /// [`Lane::Read`] on any.
    pub fn handle(&self, _lane: Lane, request: Bytes) -> BoxFuture<'static, Frame> {
        server::handle(&self.group, None, request)
    }

    /// The same on a connection whose other side has proved that it is the node `name`: a request that
    /// comes as another node, or under another node's id, is rejected.
    pub fn handle_of(&self, name: &str, request: Bytes) -> BoxFuture<'static, Frame> {
        server::handle(&self.group, Some(name), request)
    }

    /// Executes a command exactly once, wherever the leader is, and resolves when it has been
    /// applied on this node. Commands of one caller that are issued in order execute in order.
    pub fn write(
        &self,
        command: &Command,
    ) -> impl Future<Output = Result<Reply, RequestError>> + Send + use<> {
        self.write_as(command, None)
    }

    /// The same for a user, judged by the caller under the principal's revision of the table. Once a
    /// right of that user was taken away since, the command is executed under the judgement of
    /// [`Node::judge_by`], or answered [`RequestError::NoPermission`]. Without a principal it is executed as
    /// long as the cluster has no table of users, and then judged as one of the user `default`.
    pub fn write_as(
        &self,
        command: &Command,
        principal: Option<Principal>,
    ) -> impl Future<Output = Result<Reply, RequestError>> + Send + use<> {
        let group = &*self.group;
        let (config, levels) = (&group.process.config, &group.process.peers.levels);
        let submitted = levels
            .check_command(command, || group.replica.member_table())
            .and_then(|()| checked::encode(command, config.max_value_bytes))
            .and_then(|encoded| {
                group
                    .writes
                    .session
                    .submit_as(encoded, principal, config.hold)
            });
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
        let group = self.group.clone();
        async move {
            group.reads.barrier.wait().await?;
            let machine = group.replica.machine.read();
            #[cfg(memkv_bugs)]
            memkv_disk::bugs::pass(memkv_disk::bugs::PanicPoint::Reading);
            group.replica.check_reads()?;
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
        let ends_by_itself = self.group.process.config.hold + barrier::OVERTIME <= within;
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

    /// Answers queries at one state, however many keys they name, and linearizably unless `stale`. An
    /// array of more than `most` bytes of values is answered with `ReplyTooLong`, and so is what follows
    /// when there are more in all.
    ///
    /// # Errors
    ///
    /// As [`Node::read`]; also `NoLeader` if there was no turn `within` that time.
    pub fn read_all(
        &self,
        within: Duration,
        stale: bool,
        queries: Vec<Query>,
        most: usize,
    ) -> impl Future<Output = Result<Answers, RequestError>> + Send + use<> {
        let reader = self.group.reads.long.clone();
        reader.read(within, stale, queries, most)
    }

    /// Waits until so many other nodes have every write that was acknowledged here before this call, but no
    /// longer than `within`, which may be for ever. Must be called within a tokio runtime.
    pub fn wait_copies(
        &self,
        wanted: Copies,
        within: Option<Duration>,
    ) -> impl Future<Output = Copies> + Send + use<> {
        self.group.writes.copies.clone().wait(wanted, within)
    }

    /// Sends a message to the subscribers of all other nodes: at most once, and in the order of the
    /// calls. Resolves soon to the number of listeners that got it, without those of nodes that do not
    /// answer. Must be called within a tokio runtime.
    pub fn publish(&self, publication: &Publication) -> impl Future<Output = u64> + Send + use<> {
        publish::publish(
            &self.group.process.publisher,
            &self.group.process.peers,
            publication,
        )
    }

    /// Sets where messages of other nodes and key events are delivered. A second call has no effect.
    pub fn subscribe(&self, subscribers: Box<dyn Subscribers>) {
        self.group.process.publisher.subscribe(subscribers);
    }

    /// A finished snapshot of a state that holds every write that was acknowledged anywhere before this
    /// call. It is a file: it stays readable when the next one takes its place, and holds neither memory nor
    /// log. Where the node's own snapshot is older, one is built first, which takes seconds for millions of
    /// keys.
    ///
    /// # Errors
    /// As [`Node::read`].
    pub fn backup(
        &self,
    ) -> impl Future<Output = Result<SnapshotReader, RequestError>> + Send + use<> {
        take::take(self.group.clone())
    }

    /// Reads the store as it is here now, however old, for a client.
    ///
    /// # Errors
    /// [`RequestError::Stopping`] once this node knows that its store is wrong.
    pub fn read_old<T>(&self, read: impl FnOnce(&Store) -> T) -> Result<T, RequestError> {
        let machine = self.group.replica.machine.read();
        self.group.replica.check_reads()?;
        Ok(read(&machine.store))
    }

    /// The same for status, metrics and tests: the store as it is, even if it is known to be wrong.
    pub fn read_stale<T>(&self, read: impl FnOnce(&Store) -> T) -> T {
        read(&self.group.replica.machine.read().store)
    }

    /// The users of the cluster, as applied here last; none until they are initialised. A change is here
    /// before its answer is given out on this node.
    pub fn users(&self) -> Option<Arc<UserTable>> {
        self.group.replica.users()
    }

    /// The same, to wait for the next change.
    pub fn watch_users(&self) -> watch::Receiver<Option<Arc<UserTable>>> {
        self.group.replica.watch_users()
    }

    /// Resolves once [`Node::users`] is not older than the start of this process: the log has opened its
    /// session. A node that was away may know an old table before, or none.
    pub fn knows_users(&self) -> impl Future<Output = ()> + Send + use<> {
        self.group.writes.session.opened()
    }

    /// Sets the judge of commands that were judged before a right was taken away. It runs on the thread of
    /// consensus, so it must not wait. A second call has no effect.
    pub fn judge_by(&self, judge: Box<dyn Judge>) {
        self.group.writes.session.judge_by(judge);
    }

    /// Whether commands that may grow the keys are refused at the memory cap, as far as this node has
    /// applied. Takes no lock.
    pub fn refuses_growth(&self) -> bool {
        self.group.replica.refuses_growth()
    }

    /// Log time now, in milliseconds since the Unix epoch, as far as this node knows it: what the
    /// leader would stamp on an entry, but for the time that its messages need.
    pub fn log_time_ms(&self) -> u64 {
        self.group.clock.read().log_ms
    }

    /// Has the leader carry out an operator's verb for members, or only say what would be done; the answer is a
    /// sentence. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`VerbError`]; a verb that would be unsafe is refused with the way that works.
    pub fn administer(
        &self,
        verb: MemberVerb,
        dry_run: bool,
    ) -> impl Future<Output = Result<String, VerbError>> + Send + use<> {
        verb_wire::send(self.group.clone(), verb, dry_run)
    }

    /// The members and the expected names, as the leader sees them now.
    ///
    /// # Errors
    ///
    /// [`VerbError`] if there is no leader.
    pub fn members(&self) -> impl Future<Output = Result<MemberList, VerbError>> + Send + use<> {
        verb_wire::ask_list(self.group.clone())
    }

    /// The node's view of itself. Never blocks for long, never asks a peer.
    pub fn status(&self) -> NodeStatus {
        self.group.status()
    }

    /// The numbers that the node has counted of its work. Never blocks for long, never asks a peer.
    pub fn stats(&self) -> NodeStats {
        self.group.stats()
    }

    /// The longest that this node has waited for its disk, for apply and for a leader since the last call. For one
    /// caller: what it has seen, another one does not see.
    pub fn take_peaks(&self) -> Peaks {
        self.group.take_peaks()
    }

    /// Where the time of a write went that was submitted here at this time and has made this revision. Nothing if it
    /// has made none, or if some hundred entries have followed it.
    pub fn stages(&self, revision: Revision, submitted: std::time::Instant) -> Option<Stages> {
        let waypoints = &self.group.process.counters.waypoints;
        waypoints.stages(revision, submitted)
    }

    /// What has happened here since the process began.
    pub fn timeline(&self) -> &Timeline {
        &self.group.replica.timeline
    }

    /// Resolves when the node has failed for good; the process must then end.
    pub fn failed(&self) -> impl Future<Output = FatalError> + Send + use<> {
        let mut fatal = self.group.process.lifecycle.failures();
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

    /// Hands leadership over if this node leads, to a voter that answers and has the whole log; gives up after
    /// `within`. The node goes on for its clients, which see no more than a pause.
    pub async fn hand_over(&self, within: Duration) {
        let group = &*self.group;
        let process = &group.process;
        let Some(engine) = group.engine.get() else {
            return;
        };
        let answers_within = process.config.election_timeout;
        let table = group.replica.member_table();
        let fits = |id: &u64| {
            let stays = table
                .row(*id)
                .is_none_or(|row| row.state == MemberState::Member);
            stays && engine.answered(*id, answers_within)
        };
        let told = (&*process.lines, &*group.replica.timeline);
        handover::hand_over(engine, &process.peers, told, within, fits).await;
    }

    /// Hands leadership over as [`Node::hand_over`] does, then stops everything and closes the directory.
    /// Commands that wait are answered first.
    pub async fn shutdown(&self) {
        self.hand_over(handover::TRANSFER_TIMEOUT).await;
        self.close(DRAIN_TIMEOUT).await;
    }

    /// Stops everything and closes the directory. Commands that wait get so much time for their outcome; then
    /// they are answered that they were not executed, or that their outcome is not known.
    pub async fn close(&self, answers_within: Duration) {
        self.drain(answers_within).await;
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

    /// Takes no more commands, lets clients that wait have their answers, and saves what peers have told.
    async fn drain(&self, within: Duration) {
        let group = &*self.group;
        let process = &group.process;
        group.writes.session.finish();
        #[cfg(memkv_bugs)]
        if crate::bugs::active(crate::bugs::Bug::DropInFlight) {
            return;
        }
        let drained = async {
            while !group.writes.session.is_idle() {
                tokio::time::sleep(DRAIN_PAUSE).await;
            }
        };
        let _ = tokio::time::timeout(within, drained).await;
        memory::save(&group.memory, &process.peers, &process.env, true).await;
    }

    /// Tells everything to stop; the returned task ends with the engine.
    fn end(&self) -> Option<JoinHandle<()>> {
        self.group.process.lifecycle.stop();
        let engine = self.group.engine.get().cloned();
        let engine = engine.map(|engine| tokio::spawn(async move { engine.shutdown().await }));
        self.group.storage.wal.shutdown();
        engine
    }
}

/// Begins the timeline of this process.
fn tell_start(group: &Group, old_through: u64) {
    let (process, timeline) = (&group.process, &group.replica.timeline);
    let level = group.introducer.record.life.level.load(Ordering::Acquire);
    let boot = process.peers.boot;
    timeline.begin(process.env.wall_clock_ms.clone(), boot, old_through);
    timeline.note(&Event::Started { level, boot });
}

fn log_store(group: &Group, vote: Option<HardState>, committed_hint: Option<LogId>) -> LogStore {
    LogStore::new(
        group.storage.wal.clone(),
        group.storage.log.clone(),
        vote,
        committed_hint,
        group.reads.barrier.published.clone(),
        group.process.env.clone(),
        group.process.counters.clone(),
    )
}

/// Starts the tasks of a process that has no engine yet.
fn spawn(group: &Arc<Group>, opened: running::Opened) {
    tell_start(group, opened.old_through);
    let Process {
        lifecycle,
        env,
        peers,
        ..
    } = &*group.process;
    lifecycle.spawn(log_clock::save(group.clock.clone(), env.clone()));
    lifecycle.spawn(memory::keep(
        group.memory.clone(),
        peers.clone(),
        env.clone(),
    ));
    lifecycle.spawn(running::live(group.clone(), opened));
}
