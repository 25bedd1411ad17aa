//! A full disk is predicted, never hit: nodes tell each other when space is low, and the leader
//! refuses new commands while a majority could not keep them.
//!
//! While the reserve holds, what only removes goes on, and so do expiry and what the cluster itself
//! records: a cluster that is full is emptied by its clients. When even the reserve is in danger,
//! nothing is proposed. A node whose own disk is that full refuses entries before its engine sees them,
//! as if it could not be reached: it acknowledges nothing, proposes nothing, and stays up. Between two
//! looks at the disk it takes no more than the last one found. Never fails an append and never stops a
//! read or a heartbeat; it heals by itself when space is back. A leader whose own disk is low hands over
//! to a peer whose disk is not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::sync::lock::Mutex;

/// Space that no entry takes: the metadata, a vote and a new segment need far less. And what has been taken
/// from a leader and is not on the disk yet, eight requests of a mebibyte at most.
const KEPT: u64 = memkv_disk::RESERVE_BASE - (4 << 20);
/// Space that must be free beyond a limit before a node counts as better again: the free space swings by
/// the segments that come and go, and each change is told to the leader and to the operator.
const MARGIN: u64 = memkv_disk::RESERVE_BASE / 4;

/// Space of an entry besides its payload, at most: its header, padding, its part of a segment.
const ENTRY_OVERHEAD: u64 = 128;

/// How short a node is of space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Shortage {
    /// It is not.
    #[default]
    None = 0,
    /// It could not keep much more.
    Low = 1,
    /// It needs what is left for what is under way.
    Exhausted = 2,
}

impl Shortage {
    pub(crate) fn from_u8(value: u8) -> Option<Self> {
        [Self::None, Self::Low, Self::Exhausted]
            .into_iter()
            .find(|shortage| *shortage as u8 == value)
    }

    /// The shortage that a measurement shows, if so many of the free bytes did not count.
    fn of(space: &memkv_disk::Space, margin: u64) -> Self {
        let needed = memkv_disk::RESERVE_BASE + margin;
        if space.exhausted || space.for_log < needed {
            Self::Exhausted
        } else if space.low || space.free < needed {
            Self::Low
        } else {
            Self::None
        }
    }

    /// The shortage after another measurement: it grows at once, and shrinks only when there is room to spare.
    fn after(self, space: &memkv_disk::Space) -> Self {
        let found = Self::of(space, 0);
        if found < self {
            Self::of(space, MARGIN).min(self)
        } else {
            found
        }
    }
}

/// Which nodes are short of space, as far as this node knows.
#[derive(Default)]
pub(crate) struct SpaceWatch {
    own: AtomicU8,
    /// Bytes that the log may still take until the next look.
    pub(super) room: AtomicU64,
    /// Requests of a leader whose entries were refused.
    refused: AtomicU64,
    pub(super) detail: Mutex<String>,
    peers: Mutex<BTreeMap<u64, Shortage>>,
}

impl SpaceWatch {
    /// How short this node is; goes to the leader with every answer to its entries.
    pub(crate) fn own(&self) -> Shortage {
        Shortage::from_u8(self.own.load(Ordering::Relaxed)).unwrap_or_default()
    }

    fn set_own(&self, shortage: Shortage) -> Shortage {
        let before = self.own.swap(shortage as u8, Ordering::Relaxed);
        Shortage::from_u8(before).unwrap_or_default()
    }

    /// Whether this node is low.
    pub(crate) fn is_low(&self) -> bool {
        self.own() != Shortage::None
    }

    /// Notes a measurement of the disk.
    pub(super) fn note_own(&self, space: &memkv_disk::Space) -> Shortage {
        self.room
            .store(space.for_log.saturating_sub(KEPT), Ordering::Relaxed);
        self.set_own(self.own().after(space))
    }

    /// Whether this node's disk has room for so many entries with so many bytes; then they have it.
    pub(crate) fn take(&self, entries: usize, bytes: usize) -> bool {
        let wanted = (entries as u64).saturating_mul(ENTRY_OVERHEAD) + bytes as u64;
        let room = &self.room;
        self.own() != Shortage::Exhausted
            && room
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| {
                    room.checked_sub(wanted)
                })
                .is_ok()
    }

    /// Whether there is room for another small entry.
    pub(crate) fn has_room(&self) -> bool {
        self.room.load(Ordering::Relaxed) > ENTRY_OVERHEAD
    }

    /// Why this node refuses entries, for the leader that sent them.
    pub(crate) fn refuse(&self, me: &str) -> String {
        self.refused.fetch_add(1, Ordering::Relaxed);
        format!("the disk of {me} is full: it takes no entries until there is space")
    }

    /// How often it has.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// This node's shortage as a sentence; empty when there is none.
    pub(crate) fn detail(&self) -> String {
        self.detail.lock().clone()
    }

    /// Notes what a peer said with its answer.
    pub(crate) fn note(&self, peer: u64, shortage: Shortage) {
        self.peers.lock().insert(peer, shortage);
    }

    pub(super) fn of_peer(&self, id: u64) -> Shortage {
        self.peers.lock().get(&id).copied().unwrap_or_default()
    }

    /// The shortage that every majority has a voter of: with less, an entry may be kept.
    pub(crate) fn of_majority(&self, me: u64, voters: impl Iterator<Item = u64>) -> Shortage {
        let shortage = |id| {
            if id == me {
                self.own()
            } else {
                self.of_peer(id)
            }
        };
        let mut all: Vec<Shortage> = voters.map(shortage).collect();
        all.sort_unstable();
        // The voter with the least space of the majority that has the most.
        all.get(all.len() / 2).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(for_log: u64) -> memkv_disk::Space {
        memkv_disk::Space {
            free: for_log,
            reserve: 0,
            for_log,
            low: true,
            exhausted: for_log < memkv_disk::RESERVE_BASE,
        }
    }

    #[test]
    fn between_two_looks_the_log_takes_no_more_than_there_was() {
        let watch = SpaceWatch::default();
        assert!(!watch.take(1, 1), "nothing is measured yet");
        watch.note_own(&space(KEPT + (8 << 20)));
        assert!(watch.take(1, 7 << 20));
        assert!(!watch.take(1, 1 << 20), "with its header it is too much");
        assert!(watch.take(1_000, 512 << 10), "what fits is taken");
        assert!(!watch.take(8_000, 0), "small entries have headers, too");
        watch.note_own(&space(memkv_disk::RESERVE_BASE - 1));
        assert!(!watch.take(0, 0), "it needs what is left");
        watch.note_own(&space(u64::MAX));
        assert!(watch.take(1, 64 << 20), "it heals");
    }

    /// The space that is left on a disk with nothing but the log.
    fn left(bytes: u64) -> memkv_disk::Space {
        memkv_disk::Space {
            free: bytes,
            reserve: 0,
            for_log: bytes,
            low: bytes < memkv_disk::RESERVE_BASE,
            exhausted: bytes < memkv_disk::RESERVE_BASE,
        }
    }

    /// The same beside a reserve that holds.
    fn left_beside_reserve(bytes: u64) -> memkv_disk::Space {
        memkv_disk::Space {
            reserve: memkv_disk::RESERVE_BASE,
            for_log: bytes + memkv_disk::RESERVE_BASE,
            exhausted: false,
            ..left(bytes)
        }
    }

    #[test]
    fn a_node_at_the_edge_of_a_shortage_does_not_change_its_mind_at_every_look() {
        type Left = fn(u64) -> memkv_disk::Space;
        let edge = memkv_disk::RESERVE_BASE;
        for (left, shortage) in [
            (left as Left, Shortage::Exhausted),
            (left_beside_reserve, Shortage::Low),
        ] {
            let watch = SpaceWatch::default();
            watch.note_own(&left(edge));
            assert_eq!(watch.own(), Shortage::None, "enough to begin with");
            let mut changes = 0;
            for swing in (0..MARGIN).step_by(64 << 10) {
                for bytes in [edge - 1 - swing, edge + swing] {
                    let before = watch.note_own(&left(bytes));
                    changes += u32::from(before != watch.own());
                    assert_eq!(watch.own(), shortage, "{bytes} bytes");
                }
            }
            assert_eq!(changes, 1);
            watch.note_own(&left(edge + MARGIN));
            assert_eq!(watch.own(), Shortage::None, "room to spare");
            watch.note_own(&left(edge));
            assert_eq!(watch.own(), Shortage::None, "and it is not short at once");
        }
    }

    #[test]
    fn commands_are_refused_only_when_a_majority_is_low() {
        let watch = SpaceWatch::default();
        let of_majority = || watch.of_majority(1, [1, 2, 3].into_iter());
        assert_eq!(of_majority(), Shortage::None);
        watch.note(2, Shortage::Exhausted);
        assert_eq!(of_majority(), Shortage::None, "one of three");
        watch.set_own(Shortage::Low);
        assert_eq!(of_majority(), Shortage::Low, "two of three");
        watch.note(3, Shortage::Exhausted);
        assert_eq!(of_majority(), Shortage::Exhausted, "two that have nothing");
        watch.note(2, Shortage::None);
        watch.note(3, Shortage::None);
        assert_eq!(of_majority(), Shortage::None, "it heals");
        assert_eq!(watch.of_majority(1, [1].into_iter()), Shortage::Low);
        watch.note(2, Shortage::Low);
        assert_eq!(watch.of_majority(1, [2, 4].into_iter()), Shortage::Low);
    }
}
