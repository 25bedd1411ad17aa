//! What the interfaces need of a node, so that they can be tested without a cluster.
//! Never decides anything: for a [`Node`] every method is the node's own.

use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use memkv_disk::SnapshotReader;
#[cfg(memkv_bugs)]
use memkv_disk::bugs;
use memkv_node::{
    Answers, Copies, Frame, Lane, MemberList, MemberVerb, Node, NodeStats, NodeStatus, Peaks,
    Publication, RequestError, Stages, Subscribers, Timeline, VerbError,
};
use memkv_store::{
    Command, DATABASES, KeyEventClasses, Memory, Principal, Query, Reply, ReplyValue, Revision,
    Store, UserTable,
};
use tokio::sync::watch;

use crate::read_batch::ReadBatch;

/// Bytes of the values of an answer.
pub(crate) fn bytes_of(value: &ReplyValue) -> usize {
    match value {
        ReplyValue::Bulk(bytes) => bytes.len(),
        ReplyValue::Array(values) => values.iter().map(bytes_of).sum(),
        _ => 0,
    }
}

/// What a node tells of itself and of its store at one moment, however old: for status, INFO, CONFIG
/// and metrics. Never holds clients' data.
#[derive(Debug)]
pub struct Introspection {
    pub(crate) status: NodeStatus,
    /// Databases that have keys.
    pub(crate) databases: Vec<Database>,
    pub(crate) memory_bytes: u64,
    /// What the keys cost and may cost.
    pub(crate) memory: Memory,
    /// Keys that have expired since this node's store began.
    pub(crate) expired: u64,
    /// The events of keys that the cluster was told to announce.
    pub(crate) announced: Option<KeyEventClasses>,
    /// Log time in milliseconds since the Unix epoch; never before the store's last stamp.
    pub(crate) now_ms: u64,
}

/// Keys of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Database {
    pub(crate) index: u8,
    pub(crate) keys: usize,
    /// Keys that will expire.
    pub(crate) expires: usize,
}

impl Introspection {
    /// Of a store, at a log time.
    #[must_use]
    pub fn of(status: NodeStatus, store: &Store, now_ms: u64) -> Self {
        let databases = (0..DATABASES).filter_map(|index| {
            let keys = store.database_len(index);
            (keys > 0).then(|| Database {
                index,
                keys,
                expires: store.database_deadlines(index),
            })
        });
        Self {
            status,
            databases: databases.collect(),
            memory_bytes: store.memory_bytes(),
            memory: store.memory(),
            expired: store.expired_total(),
            announced: store.announced(),
            now_ms,
        }
    }
}

/// A replicated store; a clone is another handle to the same one.
pub trait Backend: Clone + Send + Sync + 'static {
    /// Executes a command exactly once, for a user. Commands execute in the order of the calls, whenever
    /// the futures are polled.
    fn write(
        &self,
        command: Command,
        principal: Option<Principal>,
    ) -> impl Future<Output = Result<Reply, RequestError>> + Send;

    /// Answers queries at one state, as [`ReadBatch::answer`] does: linearizably, or if `stale` at the
    /// state that is here, however old. Gives up after `within`.
    fn read(
        &self,
        within: Duration,
        stale: bool,
        batch: ReadBatch,
    ) -> impl Future<Output = Result<ReadBatch, RequestError>> + Send;

    /// Answers queries at one state without keeping others waiting; see [`Node::read_all`].
    fn read_all(
        &self,
        within: Duration,
        stale: bool,
        queries: Vec<Query>,
        most: usize,
    ) -> impl Future<Output = Result<Answers, RequestError>> + Send;

    /// The users of the cluster, as applied here last; none if it has no table of users.
    fn users(&self) -> Option<Arc<UserTable>>;

    /// The revision of that table; 0 without one.
    fn users_revision(&self) -> u64 {
        self.users().map_or(0, |users| users.revision())
    }

    /// That table, to wait for its next change.
    fn watch_users(&self) -> watch::Receiver<Option<Arc<UserTable>>>;

    /// Log time here, in milliseconds since the Unix epoch.
    fn log_time_ms(&self) -> u64;

    /// The node's view of itself.
    fn status(&self) -> NodeStatus;

    /// Whether commands that may grow the keys are refused at the memory cap, as far as this node has
    /// applied.
    fn refuses_growth(&self) -> bool;

    /// What this node tells of itself and of its store, without asking another one.
    fn introspect(&self) -> Introspection;

    /// Sends a message to the subscribers of all other nodes, in the order of the calls; resolves
    /// to their number.
    fn publish(&self, publication: &Publication) -> BoxFuture<'static, u64>;

    /// Waits, at most for `within`, until so many other nodes have everything that was acknowledged
    /// here before.
    fn wait_copies(&self, wanted: Copies, within: Option<Duration>) -> BoxFuture<'static, Copies>;

    /// Sets the receiver of messages that other nodes publish and of the events of keys.
    fn subscribe(&self, subscribers: Box<dyn Subscribers>);

    /// A finished snapshot that holds everything that was acknowledged anywhere before; see
    /// [`Node::backup`].
    fn backup(&self) -> BoxFuture<'static, Result<SnapshotReader, RequestError>>;

    /// Has the leader carry out a verb for members, see [`Node::administer`]. A store without a cluster has none.
    fn administer(
        &self,
        _verb: MemberVerb,
        _dry_run: bool,
    ) -> BoxFuture<'static, Result<String, VerbError>> {
        Box::pin(ready(Err(no_cluster())))
    }

    /// The members as the leader sees them, see [`Node::members`].
    fn members(&self) -> BoxFuture<'static, Result<MemberList, VerbError>> {
        Box::pin(ready(Err(no_cluster())))
    }

    /// What the node has counted of its work.
    fn stats(&self) -> NodeStats;

    /// What has happened to the node.
    fn timeline(&self) -> &Timeline;

    /// The longest that the node has waited since the last call, see [`Node::take_peaks`].
    fn take_peaks(&self) -> Peaks {
        Peaks::default()
    }

    /// Where the time of a write went, see [`Node::stages`].
    fn stages(&self, _revision: Revision, _submitted: std::time::Instant) -> Option<Stages> {
        None
    }

    /// Answers a request of a peer that has proved to be the node `proven`, if it has; called in the
    /// order of arrival on each lane, see [`Node::handle`].
    fn handle(&self, lane: Lane, proven: Option<&str>, request: Bytes)
    -> BoxFuture<'static, Frame>;
}

fn no_cluster() -> VerbError {
    VerbError::Refused("this store has no cluster".to_owned())
}

impl Backend for Node {
    fn write(
        &self,
        command: Command,
        principal: Option<Principal>,
    ) -> impl Future<Output = Result<Reply, RequestError>> + Send {
        #[cfg(memkv_bugs)]
        let command = match bugs::take(bugs::PanicPoint::NextLevel) {
            true => Command::OfNextLevel,
            false => command,
        };
        // Not an `async fn`: the command is in line when this returns.
        Self::write_as(self, &command, principal)
    }

    async fn read(
        &self,
        within: Duration,
        stale: bool,
        mut batch: ReadBatch,
    ) -> Result<ReadBatch, RequestError> {
        if stale {
            self.read_old(|store| batch.answer(store, || now_ms(self, store)))?;
            return Ok(batch);
        }
        let clock = self.clone();
        self.read_within(within, move |store| {
            batch.answer(store, || now_ms(&clock, store));
            batch
        })
        .await
    }

    fn read_all(
        &self,
        within: Duration,
        stale: bool,
        queries: Vec<Query>,
        most: usize,
    ) -> impl Future<Output = Result<Answers, RequestError>> + Send {
        Self::read_all(self, within, stale, queries, most)
    }

    fn users(&self) -> Option<Arc<UserTable>> {
        Self::users(self)
    }

    fn watch_users(&self) -> watch::Receiver<Option<Arc<UserTable>>> {
        Self::watch_users(self)
    }

    fn log_time_ms(&self) -> u64 {
        Self::log_time_ms(self)
    }

    fn status(&self) -> NodeStatus {
        Self::status(self)
    }

    fn refuses_growth(&self) -> bool {
        Self::refuses_growth(self)
    }

    fn introspect(&self) -> Introspection {
        let status = Self::status(self);
        self.read_stale(|store| Introspection::of(status, store, now_ms(self, store)))
    }

    fn publish(&self, publication: &Publication) -> BoxFuture<'static, u64> {
        Box::pin(Self::publish(self, publication))
    }

    fn wait_copies(&self, wanted: Copies, within: Option<Duration>) -> BoxFuture<'static, Copies> {
        Box::pin(Self::wait_copies(self, wanted, within))
    }

    fn subscribe(&self, subscribers: Box<dyn Subscribers>) {
        Self::subscribe(self, subscribers);
    }

    fn backup(&self) -> BoxFuture<'static, Result<SnapshotReader, RequestError>> {
        Box::pin(Self::backup(self))
    }

    fn administer(
        &self,
        verb: MemberVerb,
        dry_run: bool,
    ) -> BoxFuture<'static, Result<String, VerbError>> {
        Box::pin(Self::administer(self, verb, dry_run))
    }

    fn members(&self) -> BoxFuture<'static, Result<MemberList, VerbError>> {
        Box::pin(Self::members(self))
    }

    fn stats(&self) -> NodeStats {
        Self::stats(self)
    }

    fn timeline(&self) -> &Timeline {
        Self::timeline(self)
    }

    fn take_peaks(&self) -> Peaks {
        Self::take_peaks(self)
    }

    fn stages(&self, revision: Revision, submitted: std::time::Instant) -> Option<Stages> {
        Self::stages(self, revision, submitted)
    }

    fn handle(
        &self,
        lane: Lane,
        proven: Option<&str>,
        request: Bytes,
    ) -> BoxFuture<'static, Frame> {
        match proven {
            Some(name) => Self::handle_of(self, name, request),
            None => Self::handle(self, lane, request),
        }
    }
}

/// Log time here and now; never before the store's last stamp.
fn now_ms(node: &Node, store: &Store) -> u64 {
    node.log_time_ms().max(store.stamp_ms())
}
