//! The hash of this node's store at certain entries, to be compared with other nodes' stores.
//!
//! At the same indexes on all nodes the store's hash of effects is kept as a *checkpoint*; besides
//! those, that of the last entry is, so that nodes without work are compared to the end. Noted between
//! entries only: within one, the hash depends on how this node cuts it. Invariants: what is kept is of
//! the store that is here now; its number has a bound, and so has the message that carries it.

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};
use memkv_store::Store;

use crate::peer::encoding::{DecodeError, Reader, len32};
use crate::sync::lock::Mutex;

/// Every so many entries one is kept for a while: some milliseconds of a busy cluster's work.
const EVERY: u64 = 64;
/// How many are kept: those of 4,096 entries, more than a node that keeps up is ever behind another
/// within a round trip. One that is further behind is compared when it has caught up.
const KEPT: usize = 64;
/// Most that a node tells: those, and the last entry's.
const TOLD: usize = KEPT + 1;

/// A store's hash of effects after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) index: u64,
    pub(crate) effects: u64,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    kept: VecDeque<Checkpoint>,
    newest: Option<Checkpoint>,
}

/// This node's checkpoints.
#[derive(Default)]
pub(crate) struct Checkpoints(Mutex<State>);

impl Checkpoints {
    /// Notes what the store has come to, if that is to be compared.
    pub(crate) fn note(&self, store: &Store) {
        if store.is_within_entry() {
            return;
        }
        let Some(effects) = store.effects() else {
            return;
        };
        let index = store.applied_index();
        let this = Checkpoint { index, effects };
        let mut state = self.0.lock();
        let is_new = state.newest.is_none_or(|newest| newest.index < index);
        state.newest = Some(this);
        if is_new && index.is_multiple_of(EVERY) {
            if state.kept.len() == KEPT {
                state.kept.pop_front();
            }
            state.kept.push_back(this);
        }
    }

    /// The store is another one.
    pub(crate) fn replaced(&self, store: &Store) {
        *self.0.lock() = State::default();
        self.note(store);
    }

    /// That of the last entry.
    pub(crate) fn newest(&self) -> Option<Checkpoint> {
        self.0.lock().newest
    }

    /// All, oldest first.
    pub(crate) fn all(&self) -> Vec<Checkpoint> {
        let state = self.0.lock();
        let last = state.kept.back().copied();
        let newest = state.newest.filter(|newest| Some(*newest) != last);
        state.kept.iter().copied().chain(newest).collect()
    }
}

/// Writes checkpoints into a message.
pub(crate) fn put(out: &mut BytesMut, all: &[Checkpoint]) {
    out.put_u32_le(len32(all.len()));
    for checkpoint in all {
        out.put_u64_le(checkpoint.index);
        out.put_u64_le(checkpoint.effects);
    }
}

/// Reads what [`put`] wrote, and no more than a node ever tells.
pub(crate) fn read(body: &mut Reader) -> Result<Vec<Checkpoint>, DecodeError> {
    let what = "checkpoints";
    let all = body.list(what, |body| {
        Ok(Checkpoint {
            index: body.u64("index of a checkpoint")?,
            effects: body.u64("hash of effects")?,
        })
    })?;
    body.end(what)?;
    if all.len() > TOLD {
        let value = all.len() as u64;
        return Err(DecodeError::Bad { what, value });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use memkv_store::{BatchBuilder, Command, SystemOp};

    use super::*;

    fn open() -> Bytes {
        let mut batch = BatchBuilder::new(0);
        batch.system(&SystemOp::OpenSession {
            node: 1,
            boot: 1,
            highest: 1,
        });
        batch.finish()
    }

    /// An entry of two commands.
    fn entry(session: u64, seq: u64) -> Bytes {
        let set = |key: &'static str| {
            let (key, value) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(b"v"));
            Command::Set { key, value }.encode()
        };
        let mut batch = BatchBuilder::new(0);
        batch.group(session, seq, 0, [set("a"), set("b")].iter());
        batch.finish()
    }

    #[test]
    fn some_are_kept_and_their_number_has_a_bound() {
        let (mut store, checkpoints) = (Store::new(), Checkpoints::default());
        store.apply(1, &open(), &mut ());
        checkpoints.note(&store);
        for index in 2..=2 * EVERY * KEPT as u64 + 5 {
            store.apply(index, &entry(1, 2 * index - 3), &mut ());
            checkpoints.note(&store);
            checkpoints.note(&store);
        }
        let all = checkpoints.all();
        assert_eq!(all.len(), TOLD);
        assert!(all.iter().rev().skip(1).all(|at| at.index % EVERY == 0));
        assert!(all.is_sorted_by(|a, b| a.index < b.index));
        let newest = Checkpoint {
            index: store.applied_index(),
            effects: store.effects().unwrap(),
        };
        assert_eq!(all.last(), Some(&newest));
        assert_eq!(checkpoints.newest(), Some(newest));
        // Those of another store are of no use.
        checkpoints.replaced(&Store::new());
        let fresh = Store::new();
        let index = fresh.applied_index();
        let effects = fresh.effects().unwrap();
        assert_eq!(checkpoints.all(), [Checkpoint { index, effects }]);
    }

    #[test]
    fn nothing_is_noted_within_an_entry() {
        let (mut store, checkpoints) = (Store::new(), Checkpoints::default());
        store.apply(1, &open(), &mut ());
        checkpoints.note(&store);
        let before = checkpoints.all();
        let batch = entry(1, 1);
        let mut applying = store.begin_apply(2, &batch, &mut ()).unwrap();
        let mut room = 20;
        let paused = store.resume(&mut applying, &mut room, &mut ());
        assert_ne!(paused, memkv_store::Progress::Done);
        checkpoints.note(&store);
        assert_eq!(checkpoints.all(), before);
        room = u64::MAX;
        let done = store.resume(&mut applying, &mut room, &mut ());
        assert_eq!(done, memkv_store::Progress::Done);
        checkpoints.note(&store);
        assert_eq!(checkpoints.newest().map(|at| at.index), Some(2));
    }

    #[test]
    fn a_message_of_more_than_a_node_tells_is_refused() {
        let all = |count: u64| -> Vec<Checkpoint> {
            let at = |index| Checkpoint { index, effects: 7 };
            (0..count).map(at).collect()
        };
        let message = |count| {
            let mut out = BytesMut::new();
            put(&mut out, &all(count));
            out.freeze()
        };
        for count in [0, 1, TOLD as u64] {
            assert_eq!(read(&mut Reader(message(count))), Ok(all(count)));
        }
        assert!(read(&mut Reader(message(TOLD as u64 + 1))).is_err());
        let whole = message(3);
        for len in 0..whole.len() {
            assert!(read(&mut Reader(whole.slice(..len))).is_err());
        }
        let more = [&whole[..], &[0]].concat();
        assert!(read(&mut Reader(more.into())).is_err());
    }
}
