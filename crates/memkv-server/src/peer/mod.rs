//! The peer link: an HTTP/1.1 upgrade on the node's one address, then frames in both directions.
//! Each lane to each peer is a connection of its own, dialled by the side that asks; the other side
//! only answers. Never retries a request and never looks into one.
//!
//! Everything here runs on the consensus runtime, next to the node, so a request crosses no thread;
//! the lane of reads alone on the runtime of the clients, where reads wait.

mod accept;
mod dial;
mod frame;
mod handshake;
mod link;
mod secret;
mod socket;
#[cfg(test)]
mod tests;

pub use accept::PeerHandler;
pub(crate) use accept::serve;
pub use frame::{FrameError, FrameReader, push};
pub use handshake::{Challenge, HandshakeError, Trust, prove};
pub use link::Links;
pub use secret::{ClusterSecret, Meeting, PROOF_BYTES, random_hex};

use memkv_node::Lane;

/// The protocol's name in the `Upgrade` header; another number is another protocol.
pub const PROTOCOL: &str = "memkv-peer/2";

/// The lane's name in paths and logs.
pub fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Append => "append",
        Lane::Control => "control",
        Lane::Forward => "forward",
        Lane::Read => "read",
        Lane::Snapshot => "snapshot",
        Lane::Publish => "publish",
    }
}

/// The lane of a path `/memkv{id}/raft/{lane}`.
pub fn lane_from_name(name: &str) -> Option<Lane> {
    Lane::ALL.into_iter().find(|lane| lane_name(*lane) == name)
}
