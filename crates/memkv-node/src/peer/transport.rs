//! The network as a node sees it: requests and responses of opaque bytes, on lanes.
//!
//! A transport never looks into a frame and never retries. It keeps the order of the requests on
//! one lane to one address, and lanes never wait for each other, so that consensus never stands
//! behind a snapshot or a forwarded request.

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// A message as the parts that it was made from; a transport writes them one after the other. The
/// parts are shared, so an entry is encoded once and goes to every peer without a copy.
#[derive(Debug, Clone, Default)]
pub struct Frame(pub Vec<Bytes>);

impl Frame {
    /// Total length in bytes.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether the frame has no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }

    /// The frame as one piece; copies only if it has more than one part.
    pub fn into_bytes(mut self) -> Bytes {
        if self.0.len() == 1 {
            return self.0.remove(0);
        }
        let mut whole = bytes::BytesMut::with_capacity(self.len());
        for part in &self.0 {
            whole.extend_from_slice(part);
        }
        whole.freeze()
    }
}

/// One of a peer link's independent connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Log replication.
    Append,
    /// Votes, heartbeats and everything small that must never wait.
    Control,
    /// Commands on their way to the leader.
    Forward,
    /// Reads on their way to the leader, and the leader's on their way to a majority. What comes on
    /// this lane may be handled on any thread.
    Read,
    /// Snapshot chunks.
    Snapshot,
    /// Messages of publish and subscribe.
    Publish,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Lane; 6] = [
        Lane::Append,
        Lane::Control,
        Lane::Forward,
        Lane::Read,
        Lane::Snapshot,
        Lane::Publish,
    ];
}

/// Why a call got no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request was certainly never delivered.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The same, and the peer's system says that no process listens on its address (TCP's RST in
    /// answer to a SYN, RFC 9293, section 3.5.2).
    #[error("unreachable: {0}")]
    NoListener(String),
    /// The request may have been delivered; the response is lost.
    #[error("connection lost: {0}")]
    Lost(String),
}

/// A way to reach the peers.
///
/// The accepting side hands each request to [`Node::handle`](crate::Node::handle) in the order of
/// arrival and sends back what that resolves to. Callers bound their waiting themselves, by
/// dropping the future.
pub trait Transport: Send + Sync + 'static {
    /// Sends `request` on `lane` to the node named `name` that listens on `addr`.
    ///
    /// The request takes its place on the lane when this returns, not when the future is polled.
    fn call(
        &self,
        name: &str,
        addr: &str,
        lane: Lane,
        request: Frame,
    ) -> BoxFuture<'static, Result<Bytes, CallError>>;
}
