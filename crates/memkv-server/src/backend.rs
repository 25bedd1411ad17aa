//! What the listeners need of a node, so that they can be tested without a cluster.
//! Never decides anything: for a [`Node`] every method is the node's own.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
#[cfg(memkv_bugs)]
use memkv_disk::bugs;
use memkv_node::{
    Answers, Copies, Frame, Lane, Node, NodeStats, NodeStatus, Publication, RequestError,
    Subscribers,
};
use memkv_store::{Command, Query, Reply, ReplyValue, Store};

/// Largest answer of one MGET, or of a transaction that only reads (256 MiB): what one client may make
/// the node hold at once.
pub(crate) const MAX_MANY_BYTES: usize = 256 * 1024 * 1024;

/// Bytes of the values of an answer.
pub(crate) fn bytes_of(value: &ReplyValue) -> usize {
    match value {
        ReplyValue::Bulk(bytes) => bytes.len(),
        ReplyValue::Array(values) => values.iter().map(bytes_of).sum(),
        _ => 0,
    }
}

/// A replicated store; a clone is another handle to the same one.
pub trait Backend: Clone + Send + Sync + 'static {
    /// Executes a command exactly once. Commands execute in the order of the calls, whenever the
    /// futures are polled.
    fn write(&self, command: Command) -> impl Future<Output = Result<Reply, RequestError>> + Send;

    /// Reads linearizably; gives up after `within`.
    fn read<T: Send + 'static>(
        &self,
        within: Duration,
        read: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, RequestError>> + Send;

    /// Answers queries at one state without keeping others waiting; see [`Node::read_all`].
    fn read_all(
        &self,
        within: Duration,
        stale: bool,
        queries: Vec<Query>,
        most: usize,
    ) -> impl Future<Output = Result<Answers, RequestError>> + Send;

    /// Reads what is here now, however old, for a client.
    fn read_old<T>(&self, read: impl FnOnce(&Store) -> T) -> Result<T, RequestError>;

    /// Reads what is here now, for status and metrics.
    fn read_stale<T>(&self, read: impl FnOnce(&Store) -> T) -> T;

    /// Log time here and now in milliseconds since the Unix epoch; never before the store's last
    /// stamp.
    fn now_ms(&self, store: &Store) -> u64;

    /// The node's view of itself.
    fn status(&self) -> NodeStatus;

    /// Sends a message to the subscribers of all other nodes, in the order of the calls; resolves
    /// to their number.
    fn publish(&self, publication: &Publication) -> BoxFuture<'static, u64>;

    /// Waits until so many other nodes have whatever was acknowledged here before, but no longer than
    /// `within`.
    fn wait_copies(&self, wanted: Copies, within: Option<Duration>) -> BoxFuture<'static, Copies>;

    /// Says who gets the messages that other nodes publish, and what is announced of keys.
    fn subscribe(&self, subscribers: Box<dyn Subscribers>);

    /// What the node has counted of its work.
    fn stats(&self) -> NodeStats;

    /// Answers a peer's request; called in the order of arrival on each lane, see [`Node::handle`].
    fn handle(&self, lane: Lane, request: Bytes) -> BoxFuture<'static, Frame>;
}

impl Backend for Node {
    fn write(&self, command: Command) -> impl Future<Output = Result<Reply, RequestError>> + Send {
        #[cfg(memkv_bugs)]
        let command = match bugs::take(bugs::PanicPoint::NextLevel) {
            true => Command::OfNextLevel,
            false => command,
        };
        // Not an `async fn`: the command is in line when this returns.
        Self::write(self, &command)
    }

    async fn read<T: Send + 'static>(
        &self,
        within: Duration,
        read: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        self.read_within(within, read).await
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

    fn read_old<T>(&self, read: impl FnOnce(&Store) -> T) -> Result<T, RequestError> {
        Self::read_old(self, read)
    }

    fn read_stale<T>(&self, read: impl FnOnce(&Store) -> T) -> T {
        Self::read_stale(self, read)
    }

    fn now_ms(&self, store: &Store) -> u64 {
        self.log_time_ms().max(store.stamp_ms())
    }

    fn status(&self) -> NodeStatus {
        Self::status(self)
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

    fn stats(&self) -> NodeStats {
        Self::stats(self)
    }

    fn handle(&self, lane: Lane, request: Bytes) -> BoxFuture<'static, Frame> {
        Self::handle(self, lane, request)
    }
}
