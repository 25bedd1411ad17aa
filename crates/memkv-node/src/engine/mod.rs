//! The adapter to openraft: the only module that names its types.
//!
//! The disk and the network carry this crate's own encoding ([`codec`]), never the engine's
//! serde, so an upgrade or a change of engine touches this folder alone. Rules that the engine
//! expects of an adapter, and its traps, are cited where they matter.

mod apply;
pub(crate) mod codec;
#[cfg(test)]
mod cold_reads;
#[cfg(test)]
mod giving_way;
#[cfg(test)]
mod golden;
pub(crate) mod handle;
pub(crate) mod inbound;
mod load;
pub(crate) mod log_store;
pub(crate) mod network;
#[cfg(test)]
mod publishes;
mod read_ahead;
pub(crate) mod replay;
mod responder;
pub(crate) mod runtime;
pub(crate) mod settings;
pub(crate) mod start;
pub(crate) mod state_machine;
mod streaming;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod unreadable;
pub(crate) mod watch;

use std::fmt;

use bytes::Bytes;
use memkv_store::SystemOutcome;
use openraft::impls::{EmptyNode, leader_id_adv};
use openraft::{EntryPayload, OptionalSend, RaftTypeConfig};

/// A batch of commands as `memkv-store` encodes it: the application data of one entry. Cloning
/// shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Batch(pub(crate) Bytes);

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.0.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The result of an applied entry for its proposer. Replies to commands are not here: they reach
/// the session where the command began through its own node's apply.
#[derive(Debug, Clone, Default)]
pub(crate) struct Applied {
    /// One outcome per system operation of the batch, in order.
    pub(crate) system: Vec<SystemOutcome>,
}

/// The engine's types, as memkv uses them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Batch;
    type R = Applied;
    type NodeId = u64;
    /// Addresses are not kept here: `SetNodes` carries a split-brain risk, so they live in the
    /// replicated member table.
    type Node = EmptyNode;
    type Term = u64;
    type LeaderId = leader_id_adv::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Batch, u64, EmptyNode>;
    type Entry = openraft::Entry<leader_id_adv::LeaderId<u64, u64>, Self::Payload>;
    type AsyncRuntime = runtime::Runtime;
    type Responder<T>
        = responder::ProposalResponder<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

type Raft = openraft::Raft<TypeConfig, state_machine::StateMachine>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type EngineLogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot =
    openraft::type_config::alias::SnapshotOf<TypeConfig, state_machine::SnapshotData>;
pub(crate) type Membership = openraft::Membership<u64, EmptyNode>;
