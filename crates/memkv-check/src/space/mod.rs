//! What many keys would do if one client at a time used them, with revisions, deadlines and
//! transactions: the specification that [`crate::order`] holds a cluster's log against.
//!
//! It is written from the documentation of the commands and shares nothing with the store. It never
//! looks at a clock: time is what [`Space::advance`] is told. Values are text.
//! Invariants: every change of a key takes a revision of its own, except that a `Del`, a `SetMany`
//! and an expiry change several keys at one; a command that fails changes nothing.

mod execute;

use std::collections::BTreeMap;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// A command that goes through the log.
    Write(Command),
    /// Reads, all of one state.
    Read(Vec<Query>),
}

/// A command that may change something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// `SET` and its options.
    Set {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// When it is set.
        condition: If,
        /// What becomes of the deadline.
        expiry: Expiry,
        /// Whether the old value is answered.
        get: bool,
    },
    /// `MSET`, or `MSETNX`: all or none.
    SetMany {
        /// Keys and values.
        pairs: Vec<(String, String)>,
        /// Whether all keys must be absent.
        if_none_exists: bool,
    },
    /// `DEL`. It takes a revision even if it removes nothing.
    Del {
        /// The keys.
        keys: Vec<String>,
    },
    /// `GETDEL`.
    GetDel {
        /// The key.
        key: String,
    },
    /// `GETEX` with an option.
    GetEx {
        /// The key.
        key: String,
        /// What becomes of the deadline.
        expiry: Expiry,
    },
    /// `INCRBY`.
    IncrBy {
        /// The key.
        key: String,
        /// The increment.
        by: i64,
    },
    /// `APPEND` of something that is not empty.
    Append {
        /// The key.
        key: String,
        /// The suffix.
        suffix: String,
    },
    /// `PEXPIRE`.
    Expire {
        /// The key.
        key: String,
        /// Milliseconds from now, above 0.
        ms: u64,
    },
    /// `PERSIST`.
    Persist {
        /// The key.
        key: String,
    },
    /// `RENAME`.
    Rename {
        /// The key that goes.
        from: String,
        /// The key that comes.
        to: String,
    },
    /// `COPY` with `REPLACE`: the value and its deadline.
    Copy {
        /// The key that stays.
        from: String,
        /// The key that comes.
        to: String,
    },
    /// `CONFIG SET maxmemory`. It takes no revision.
    SetCap {
        /// The most that keys may cost; 0 for no cap.
        cap: u64,
    },
    /// `MULTI`, `EXEC`; never in another.
    Transaction {
        /// What must hold.
        guards: Vec<Guard>,
        /// The steps if all guards hold.
        steps: Vec<Step>,
        /// The steps otherwise.
        otherwise: Vec<Step>,
    },
}

/// On which condition a key is set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum If {
    /// On none.
    Always,
    /// `NX`.
    Absent,
    /// `XX`.
    Present,
    /// `IFEQ`.
    Equal(String),
}

/// What becomes of a key's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expiry {
    /// There is none afterwards.
    None,
    /// It stays.
    Keep,
    /// So many milliseconds from now, above 0.
    In(u64),
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Guard {
    /// The key.
    pub key: String,
    /// What must hold for it.
    pub holds: Holds,
}

/// What a guard asks of its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holds {
    /// It is there and was last written at this revision: `WATCH` of a key that was there.
    WrittenAt(u64),
    /// It was absent ever since this revision: `WATCH` of a key that was absent. The store
    /// remembers deletions by hash, so it may also fail after the deletion of another key.
    AbsentSince(u64),
    /// Whether it is there.
    Exists(bool),
    /// It is there with this value.
    Value(String),
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A command, but no transaction.
    Write(Command),
    /// A read.
    Read(Query),
}

/// A read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Query {
    /// `GET`: `Text` or `Nil`.
    Get {
        /// The key.
        key: String,
    },
    /// `MGET`: a `List` of what [`Query::Get`] answers.
    GetMany {
        /// The keys.
        keys: Vec<String>,
    },
    /// `EXISTS`: how many.
    Exists {
        /// The keys.
        keys: Vec<String>,
    },
    /// `PEXPIRETIME`: the deadline in log time, -1 without one, -2 for an absent key.
    Deadline {
        /// The key.
        key: String,
    },
    /// `PTTL`: milliseconds left, at least 1; -1 and -2 as above. Outside of a transaction it
    /// depends on a clock, and only its bounds are known.
    TimeLeft {
        /// The key.
        key: String,
    },
}

/// An answer of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Done.
    Ok,
    /// Nothing there, or nothing done.
    Nil,
    /// A number.
    Number(i64),
    /// A value.
    Text(String),
    /// Several answers.
    List(Vec<Answer>),
    /// A guard did not hold.
    Aborted,
    /// It failed and changed nothing.
    Error(Error),
}

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Error {
    /// The value is no decimal 64-bit integer.
    NotAnInteger,
    /// The sum does not fit 64 bits.
    Overflow,
    /// There is no such key.
    NoSuchKey,
    /// The keys take as much memory as they may.
    OutOfMemory,
    /// Another one, which no command of this specification gives.
    Other,
}

/// The content of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its value.
    pub value: String,
    /// The revision of its last change.
    pub revision: u64,
    /// When it expires, and which command set that.
    pub deadline: Option<Deadline>,
}

/// When a key expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// In log time, milliseconds.
    pub at_ms: u64,
    /// How long after the command that set it.
    pub ttl_ms: u64,
    /// That command's number, as the caller of [`Space::execute`] counts.
    pub set_by: usize,
}

/// A key that reached its deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The key.
    pub key: String,
    /// Its deadline.
    pub deadline: Deadline,
    /// The revision at which it went.
    pub revision: u64,
}

/// All keys.
#[derive(Clone, Debug, Default)]
pub struct Space {
    keys: BTreeMap<String, Held>,
    revision: u64,
    now_ms: u64,
    /// By key: the revision of its last removal.
    removed: BTreeMap<String, u64>,
    /// How many keys have a deadline; most advances find none.
    with_deadline: usize,
    /// The memory cap; 0 for none.
    cap: u64,
    /// Transactions that gave up although their guards held, because of a hash.
    pub false_aborts: u64,
}

impl Space {
    /// The content of a key.
    pub fn get(&self, key: &str) -> Option<&Held> {
        self.keys.get(key)
    }

    /// All keys with their contents.
    pub fn keys(&self) -> impl Iterator<Item = (&String, &Held)> {
        self.keys.iter()
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Log time, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Advances log time to this stamp, and removes the keys whose deadlines it reaches, all at one
    /// revision.
    pub fn advance(&mut self, stamp_ms: u64) -> Vec<Expired> {
        self.now_ms = self.now_ms.max(stamp_ms);
        if self.with_deadline == 0 {
            return Vec::new();
        }
        let now_ms = self.now_ms;
        let revision = self.revision + 1;
        let due = |held: &Held| held.deadline.filter(|deadline| deadline.at_ms <= now_ms);
        let expired: Vec<Expired> = self
            .keys
            .iter()
            .filter_map(|(key, held)| {
                Some(Expired {
                    key: key.clone(),
                    deadline: due(held)?,
                    revision,
                })
            })
            .collect();
        for Expired { key, .. } in &expired {
            self.remove(key, revision);
        }
        self.revision += u64::from(!expired.is_empty());
        expired
    }

    fn put(&mut self, key: &str, value: String, deadline: Option<Deadline>, revision: u64) {
        let held = Held {
            value,
            revision,
            deadline,
        };
        self.with_deadline += usize::from(deadline.is_some());
        if let Some(old) = self.keys.insert(key.to_owned(), held) {
            self.with_deadline -= usize::from(old.deadline.is_some());
        }
    }

    fn set_deadline(&mut self, key: &str, deadline: Option<Deadline>, revision: u64) {
        if let Some(held) = self.keys.get(key).cloned() {
            self.put(key, held.value, deadline, revision);
        }
    }

    fn remove(&mut self, key: &str, revision: u64) -> Option<Held> {
        let held = self.keys.remove(key)?;
        self.with_deadline -= usize::from(held.deadline.is_some());
        self.removed.insert(key.to_owned(), revision);
        Some(held)
    }
}
