//! What the invariants have seen so far, for what builds on it. Never looks at a node itself.

use memkv_disk::LogId;

use super::Invariants;

impl Invariants {
    /// The feature level of the log, as far as it was seen committed; 0 before formation.
    pub(crate) fn level(&self) -> u32 {
        self.0.lock().committed_log.raises.level()
    }

    /// The highest committed entry that was seen durable on a host, under the id that it was last seen with.
    pub(crate) fn acknowledged(&self, slot: usize) -> Option<LogId> {
        let seen = self.0.lock();
        let id = seen.hosts[slot].node_id;
        seen.acknowledged.get(&id).copied()
    }

    /// The term of the last entry that was seen committed.
    pub(crate) fn committed_term(&self) -> u64 {
        self.0.lock().last_committed().map_or(0, |last| last.term)
    }

    /// The index of the first committed batch, which founds the cluster.
    pub(crate) fn first_batch(&self) -> Option<u64> {
        let seen = self.0.lock();
        seen.committed_log
            .entries()
            .first()
            .map(|entry| entry.id.index)
    }

    /// The digest of the state after a committed entry, if it was seen.
    pub(crate) fn state_at(&self, entry: LogId) -> Option<u64> {
        let seen = self.0.lock();
        let is_committed = seen.committed.get(&entry.index) == Some(&entry);
        let state = seen.states.get(&entry.index).filter(|_| is_committed);
        state.map(|(digest, ..)| *digest)
    }

    /// The highest revision that a store was seen to have.
    pub(crate) fn highest_revision(&self) -> u64 {
        let seen = self.0.lock();
        let last = seen.states.last_key_value();
        last.map_or(0, |(_, (_, revision, _))| *revision)
    }

    /// The id under which a host was last seen; 0 before it had one.
    pub(crate) fn node_id(&self, slot: usize) -> u64 {
        self.0.lock().hosts[slot].node_id
    }
}
