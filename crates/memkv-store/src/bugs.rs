//! Deliberate bugs, compiled in only with `--cfg memkv_bugs`, to show that the proofs find them.
//!
//! A plain build contains none of this. At most one bug is active, for the whole process.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::keyspace::{Keyspace, Record};
use crate::{DATABASES, Reply, ReplyValue};

/// A deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// Commands that a session has already executed are executed again.
    DropDedup = 1,
    /// The feature level is raised although nodes have not announced it.
    RaiseUnasked = 2,
    /// A key that was watched and has changed stops no transaction.
    IgnoreWatch = 3,
    /// A read hides a key when the node's own clock reaches the deadline, not when a stamp does.
    ExpireByOwnClock = 4,
    /// A read in several steps sees writes between them.
    ReadWithoutView = 5,
    /// A newcomer is admitted under an id that is not above the highest.
    AdmitKnownId = 6,
    /// A group is executed whose first number is not the next.
    SkipGap = 7,
    /// A boot opens a session although it has one.
    ReopenSession = 8,
    /// A read sees a command of which only some keys are written.
    ReadWithinCommand = 9,
    /// A node refuses growth by the memory that it takes itself, saved entries of a snapshot included.
    RefuseByLocalMemory = 10,
    /// At the memory cap only the steps of a transaction that may grow are refused.
    TearAtCap = 11,
    /// A key is charged its deadline when it first gets one, and never given it back.
    CostByHistory = 12,
    /// While a node builds a snapshot, it evicts the keys with the most distant deadlines.
    EvictByLocalOrder = 13,
    /// A group is refused for its principals before its numbers are looked up among those executed.
    RefuseBeforeDedup = 20,
    /// A command is executed although the credential that it was judged by is gone.
    IgnoreCredential = 21,
}

static ACTIVE: AtomicU8 = AtomicU8::new(0);

/// Switches one bug on, or all off.
pub fn set(bug: Option<Bug>) {
    ACTIVE.store(bug.map_or(0, |bug| bug as u8), Ordering::SeqCst);
}

/// Whether `bug` is switched on.
pub fn active(bug: Bug) -> bool {
    ACTIVE.load(Ordering::SeqCst) == bug as u8
}

/// An effect that one store has and others have not. No client sees it: the history checker would find
/// such a read, but the comparison of stores is to find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Deviate {
    /// A session remembers another answer than it gave.
    Reply = 1,
    /// One more key, in the last database.
    Key = 2,
}

/// The deviation that the next store of this process to execute a command will have.
static ORDERED: AtomicU8 = AtomicU8::new(0);

/// Orders one deviation of this name for the store of the process that executes the next command; returns
/// whether there is one of this name.
pub fn order_difference(name: &str) -> bool {
    let how = match name {
        "reply" => Deviate::Reply,
        "key" => Deviate::Key,
        _ => return false,
    };
    ORDERED.store(how as u8, Ordering::SeqCst);
    true
}

/// The deviation that was ordered for a store, once.
#[derive(Debug, Default)]
pub(crate) struct Deviation(AtomicU8);

impl Deviation {
    const HAPPENED: u8 = 255;

    pub(crate) fn order(&self, how: Option<Deviate>) {
        self.0
            .store(how.map_or(0, |how| how as u8), Ordering::SeqCst);
    }

    pub(crate) fn has_happened(&self) -> bool {
        self.0.load(Ordering::SeqCst) == Self::HAPPENED
    }

    /// Changes the answer that a store keeps, or makes another effect of a command.
    pub(crate) fn apply(&self, reply: Reply, keys: &mut Keyspace) -> Reply {
        let ordered = match ORDERED.swap(0, Ordering::SeqCst) {
            0 => self.0.load(Ordering::SeqCst),
            ordered => ordered,
        };
        if ordered == 0 || ordered == Self::HAPPENED {
            return reply;
        }
        self.0.store(Self::HAPPENED, Ordering::SeqCst);
        if ordered == Deviate::Reply as u8 {
            let value = ReplyValue::Integer(-1);
            return Reply { value, ..reply };
        }
        let record = Record {
            parts: &[b"deviant"],
            key_len: b"deviant".len(),
            deadline_ms: None,
            shared: None,
        };
        keys.put(DATABASES - 1, &record, reply.revision);
        reply
    }
}
