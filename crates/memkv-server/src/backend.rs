//! What the listeners need of a node, so that they can be tested without a cluster.
//! Never decides anything: for a [`Node`] every method is the node's own.

use std::future::Future;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use memkv_raft::store::{Command, Reply, Store};
use memkv_raft::{Frame, Lane, Node, NodeStatus, RequestError};

/// A replicated store; a clone is another handle to the same one.
pub trait Backend: Clone + Send + Sync + 'static {
    /// Executes a command exactly once.
    fn write(&self, command: Command) -> impl Future<Output = Result<Reply, RequestError>> + Send;

    /// Reads linearizably.
    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, RequestError>> + Send;

    /// Log time in milliseconds since the Unix epoch.
    fn log_time_ms(&self) -> u64;

    /// The node's view of itself.
    fn status(&self) -> NodeStatus;

    /// Answers a peer's request; called in the order of arrival, on the consensus runtime.
    fn handle(&self, lane: Lane, request: Bytes) -> BoxFuture<'static, Frame>;
}

impl Backend for Node {
    async fn write(&self, command: Command) -> Result<Reply, RequestError> {
        Self::write(self, &command).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        Self::read(self, read).await
    }

    fn log_time_ms(&self) -> u64 {
        Self::log_time_ms(self)
    }

    fn status(&self) -> NodeStatus {
        Self::status(self)
    }

    fn handle(&self, lane: Lane, request: Bytes) -> BoxFuture<'static, Frame> {
        Self::handle(self, lane, request)
    }
}
