//! The life of a node, as explicit states, and what of it is in the directory.
//!
//! - `Blank`: it belongs to nothing.
//! - `Proposing`: the same, and it asks all others for their agreement to a cluster. On disk this
//!   is `Blank`: a proposal dies with its process.
//! - `Prepared`: it has agreed to a peer's proposal.
//! - `Running`: it has an identity that can no longer change, and an engine under it.
//! - `Stopped`: it answers nothing any more.
//!
//! Invariants: the engine exists in `Running` only and is started once; nothing leads from
//! `Running` but to `Stopped`; a state that must survive a crash is durable before it is shown.
//!
//! Each directory has a number of its own, drawn at random at its first start, which tells a node
//! that has given up a proposal from one whose directory was emptied.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use memkv_store::FIRST_LEVEL;

use crate::membership::identity::Identity;
use crate::peer::encoding::{DecodeError, Reader, put_blob};
use crate::sync::lock::Mutex;

/// Version of the record in the directory. Version 1 was a bare identity.
const VERSION: u8 = 3;

/// A directory's own number.
pub(crate) type Directory = [u8; 16];

/// An agreement to a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// The identity that it will have if the proposal is carried out.
    pub(crate) proposal: Identity,
    /// The proposer's directory.
    pub(crate) proposer: Directory,
}

/// Where in its life a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    Blank,
    Proposing(Identity),
    Prepared(Agreement),
    Running(Identity),
    Stopped,
}

impl State {
    /// For messages.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            State::Blank => "an empty life",
            State::Proposing(_) => "a proposal",
            State::Prepared(_) => "an agreement",
            State::Running(_) => "another identity",
            State::Stopped => "the end",
        }
    }
}

/// The same as peers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    Blank = 0,
    Proposing = 1,
    Prepared = 2,
    Running = 3,
}

impl Stage {
    pub(crate) fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        const ALL: [Stage; 4] = [
            Stage::Blank,
            Stage::Proposing,
            Stage::Prepared,
            Stage::Running,
        ];
        let value = reader.u8("stage of life")?;
        ALL.into_iter()
            .find(|stage| *stage as u8 == value)
            .ok_or(DecodeError::Bad {
                what: "stage of life",
                value: u64::from(value),
            })
    }
}

/// A node's directory and the state that it is in.
pub(crate) struct Life {
    pub(crate) directory: Directory,
    state: Mutex<State>,
    /// The cluster that this node has agreed to exists. Peers are told at once, so that none takes it
    /// for one that never was while this node's disk is slow.
    known: AtomicBool,
    /// The cluster's feature level that the record holds, or the one that it is about to hold. It only
    /// rises, and is no part of the identity.
    pub(crate) level: AtomicU32,
}

impl Life {
    /// Goes on from what the directory holds; `new` is the number of one that holds nothing.
    pub(crate) fn resume(record: Bytes, new: Directory) -> Result<Self, DecodeError> {
        let blank = (new, FIRST_LEVEL, State::Blank);
        let (directory, level, state) = decode(record)?.unwrap_or(blank);
        Ok(Self {
            directory,
            state: Mutex::new(state),
            known: AtomicBool::new(false),
            level: AtomicU32::new(level),
        })
    }

    pub(crate) fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// The stage that peers are told, and the cluster that it is about. `None`: nothing any more.
    pub(crate) fn stage(&self) -> Option<(Stage, Option<[u8; 16]>)> {
        Some(match &*self.state.lock() {
            State::Blank => (Stage::Blank, None),
            State::Proposing(proposal) => (Stage::Proposing, Some(proposal.cluster)),
            State::Prepared(agreed) => {
                let known = self.known.load(Ordering::Relaxed);
                let stage = if known {
                    Stage::Running
                } else {
                    Stage::Prepared
                };
                (stage, Some(agreed.proposal.cluster))
            }
            State::Running(identity) => (Stage::Running, Some(identity.cluster)),
            State::Stopped => return None,
        })
    }

    /// The cluster that this node has agreed to exists.
    pub(crate) fn learn(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    /// Whether the node may go on to this state.
    pub(crate) fn allows(&self, next: &State) -> bool {
        may_follow(&self.state.lock(), next)
    }

    /// Goes on to a state that is durable already, or need not be. Whether that was possible.
    pub(crate) fn enter(&self, next: State) -> bool {
        let mut state = self.state.lock();
        let possible = may_follow(&state, &next);
        if possible {
            *state = next;
        }
        possible
    }

    /// The record of a state in this directory.
    pub(crate) fn record(&self, state: &State) -> Bytes {
        encode(self.directory, self.level.load(Ordering::Acquire), state)
    }
}

/// The UUID of the cluster to which the directory with this record belongs.
///
/// # Errors
/// Why it belongs to none, or cannot be read, in words.
pub fn cluster_of(record: Bytes) -> Result<[u8; 16], String> {
    match decode(record) {
        Ok(Some((_, _, State::Running(identity)))) => Ok(identity.cluster),
        Ok(_) => Err("the node belongs to no cluster yet".to_owned()),
        Err(error) => Err(format!("its identity cannot be read: {error}")),
    }
}

/// The feature level that is in use in the directory with this record; none if it belongs to no cluster.
///
/// # Errors
/// Why it cannot be read, in words.
pub fn level_of(record: Bytes) -> Result<Option<u32>, String> {
    match decode(record) {
        Ok(Some((_, level, State::Running(identity)))) => Ok(Some(level.max(identity.level))),
        Ok(Some((_, level, State::Prepared(agreed)))) => Ok(Some(level.max(agreed.proposal.level))),
        Ok(_) => Ok(None),
        Err(error) => Err(format!("its identity cannot be read: {error}")),
    }
}

/// Whether a node may go from one state to the other.
fn may_follow(now: &State, next: &State) -> bool {
    match (now, next) {
        (_, State::Stopped) => true,
        (State::Stopped, _) => false,
        (State::Running(_), _) => false,
        // An agreement binds: it is carried out, or the proposal is known to be dead.
        (State::Prepared(agreed), State::Running(identity)) => agreed.proposal == *identity,
        (State::Prepared(_), next) => *next == State::Blank,
        (State::Proposing(proposal), State::Running(identity)) if identity.founder => {
            proposal == identity
        }
        (State::Proposing(_), next) => *next == State::Blank,
        (State::Blank, State::Running(identity)) if identity.founder => {
            #[cfg(memkv_bugs)]
            if crate::bugs::active(crate::bugs::Bug::WipedNodeVotes) {
                return true;
            }
            false
        }
        (State::Blank, _) => true,
    }
}

fn encode(directory: Directory, level: u32, state: &State) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_slice(&directory);
    out.put_u32_le(level);
    match state {
        State::Blank | State::Proposing(_) | State::Stopped => out.put_u8(Stage::Blank as u8),
        State::Prepared(agreed) => {
            out.put_u8(Stage::Prepared as u8);
            out.put_slice(&agreed.proposer);
            put_blob(&mut out, &agreed.proposal.encode());
        }
        State::Running(identity) => {
            out.put_u8(Stage::Running as u8);
            put_blob(&mut out, &identity.encode());
        }
    }
    out.freeze()
}

/// `None` for a directory that has no number yet.
fn decode(record: Bytes) -> Result<Option<(Directory, u32, State)>, DecodeError> {
    if record.is_empty() {
        return Ok(None);
    }
    let mut reader = Reader(record);
    let version = reader.u8("identity version")?;
    if version != VERSION {
        return Err(DecodeError::Bad {
            what: "identity version",
            value: u64::from(version),
        });
    }
    let directory = reader.array("directory")?;
    let level = reader.u32("feature level")?;
    let state = match Stage::read(&mut reader)? {
        Stage::Blank => State::Blank,
        Stage::Prepared => State::Prepared(Agreement {
            proposer: reader.array("proposer")?,
            proposal: read_identity(&mut reader)?,
        }),
        Stage::Running => State::Running(read_identity(&mut reader)?),
        Stage::Proposing => {
            return Err(DecodeError::Bad {
                what: "stage of life on disk",
                value: Stage::Proposing as u64,
            });
        }
    };
    reader.end("identity")?;
    Ok(Some((directory, level, state)))
}

fn read_identity(reader: &mut Reader) -> Result<Identity, DecodeError> {
    let blob = reader.blob("identity")?;
    Identity::decode(blob)?.ok_or(DecodeError::Bad {
        what: "length of an identity",
        value: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(cluster: u8, founder: bool) -> Identity {
        Identity {
            cluster: [cluster; 16],
            node_id: 2,
            name: "b".to_owned(),
            sync: true,
            members: Vec::new(),
            founder,
            level: 1,
        }
    }

    fn prepared(cluster: u8) -> State {
        State::Prepared(Agreement {
            proposal: identity(cluster, true),
            proposer: [9; 16],
        })
    }

    fn all() -> Vec<State> {
        vec![
            State::Blank,
            State::Proposing(identity(1, true)),
            prepared(1),
            State::Running(identity(1, true)),
            State::Stopped,
        ]
    }

    #[test]
    fn the_level_in_use_is_the_higher_one_of_record_and_identity() {
        assert_eq!(level_of(Bytes::new()), Ok(None));
        let record = |level, state| encode([9; 16], level, &state);
        assert_eq!(level_of(record(1, State::Blank)), Ok(None));
        let running = |level| {
            let mut identity = identity(1, true);
            identity.level = level;
            State::Running(identity)
        };
        assert_eq!(level_of(record(1, running(3))), Ok(Some(3)));
        assert_eq!(level_of(record(4, running(3))), Ok(Some(4)));
        assert!(level_of(Bytes::from_static(b"\xff")).is_err());
    }

    #[test]
    fn an_identity_never_changes_once_the_engine_runs() {
        let running = State::Running(identity(1, true));
        for next in all().into_iter().chain([
            prepared(2),
            State::Running(identity(2, true)),
            State::Running(identity(2, false)),
        ]) {
            assert_eq!(may_follow(&running, &next), next == State::Stopped);
        }
        for next in all() {
            assert_eq!(may_follow(&State::Stopped, &next), next == State::Stopped);
        }
    }

    #[test]
    fn an_agreement_ends_by_its_own_cluster_or_by_release() {
        let now = prepared(1);
        assert!(may_follow(&now, &State::Running(identity(1, true))));
        assert!(may_follow(&now, &State::Blank));
        assert!(!may_follow(&now, &prepared(2)));
        assert!(!may_follow(&now, &State::Running(identity(2, true))));
        assert!(!may_follow(&now, &State::Running(identity(1, false))));
        assert!(!may_follow(&now, &State::Proposing(identity(2, true))));
        let now = State::Proposing(identity(1, true));
        assert!(may_follow(&now, &State::Running(identity(1, true))));
        assert!(!may_follow(&now, &State::Running(identity(2, true))));
        assert!(!may_follow(&now, &prepared(2)), "it gives up first");
        let founder = State::Running(identity(1, true));
        assert!(!may_follow(&State::Blank, &founder), "no node has agreed");
    }

    #[test]
    fn peers_hear_that_the_cluster_exists_before_the_disk_does() {
        let life = Life::resume(encode([7; 16], 1, &prepared(1)), [8; 16]).unwrap();
        assert_eq!(life.stage(), Some((Stage::Prepared, Some([1; 16]))));
        life.learn();
        assert_eq!(life.stage(), Some((Stage::Running, Some([1; 16]))));
        assert_eq!(life.state(), prepared(1));
    }

    #[test]
    fn what_must_survive_does_and_a_proposal_does_not() {
        for state in all() {
            let read = decode(encode([7; 16], 5, &state)).unwrap();
            let kept = match state {
                State::Proposing(_) | State::Stopped => State::Blank,
                kept => kept,
            };
            assert_eq!(read, Some(([7; 16], 5, kept)));
        }
        assert_eq!(decode(Bytes::new()).unwrap(), None);
    }

    #[test]
    fn another_version_and_any_cut_are_refused() {
        let record = encode([7; 16], 1, &prepared(1));
        for len in 1..record.len() {
            assert!(decode(record.slice(..len)).is_err(), "cut at {len}");
        }
        assert!(decode(identity(1, true).encode()).is_err(), "version 1");
    }
}
