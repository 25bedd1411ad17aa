//! The state of this node that others may depend on: its vote, changes of membership, the commit index.
//!
//! Reads are confirmed from this on the thread where they arrive, without the engine. That is safe by
//! one invariant: everything is published here *before* anything that depends on it leaves this node. Never
//! decides anything.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::lock::Mutex;

use crate::leadership::leader::Leader;

/// Shared by the engine's log and network, which write it, and by reads.
#[derive(Default)]
pub(crate) struct Published {
    vote: Mutex<Option<Leader>>,
    membership: AtomicU64,
    commit: AtomicU64,
}

impl Published {
    /// The node that this one is about to vote for, or to accept as its leader.
    pub(crate) fn publish_vote(&self, vote: Leader) {
        *self.vote.lock() = Some(vote);
    }

    /// The candidate that this node has voted for last. As long as it says so, no other candidate after that one has
    /// this node's vote, and no other leader has its acknowledgement.
    pub(crate) fn vote(&self) -> Option<Leader> {
        *self.vote.lock()
    }

    /// The log is about to get a change of membership at `index`.
    pub(crate) fn publish_membership(&self, index: u64) {
        self.membership.fetch_max(index, Ordering::SeqCst);
    }

    /// The log is about to lose everything after `last`.
    pub(crate) fn publish_truncation(&self, last: u64) {
        if self.membership() > last {
            self.membership.store(0, Ordering::SeqCst);
        }
    }

    /// Index of the newest change of membership that this process has put into the log and not
    /// removed again; 0 if there is none, or if what was removed covered it.
    pub(crate) fn membership(&self) -> u64 {
        self.membership.load(Ordering::SeqCst)
    }

    /// A peer is about to be told that everything up to `index` is committed.
    pub(crate) fn publish_commit(&self, index: u64) {
        self.commit.fetch_max(index, Ordering::SeqCst);
    }

    /// The highest index that a peer may know from this process to be committed.
    pub(crate) fn commit(&self) -> u64 {
        self.commit.load(Ordering::SeqCst)
    }
}
