//! The parts of the data that a command or a query touches, and how: what rights are judged by.
//!
//! The access follows the key specifications of Redis 7.0: reading the data of a value is `READ`, and what
//! shows no more than that a key exists, its type, its length or its revisions is no access at all. A
//! condition on a value reads it. Every match is exhaustive: a new kind does not compile without its
//! touches. Invariant: what an execution looks up, writes or removes is among the touches, with the
//! keys of guards and of both branches of a transaction.

use bytes::Bytes;

use crate::{Command, Condition, Guard, Query, SetIf, Step};

/// How something is touched: a set of the kinds below, as in Redis's key specifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access(u8);

impl Access {
    /// Shows that it exists, its length or its revisions, and no data.
    pub const METADATA: Access = Access(0);
    /// Shows data.
    pub const READ: Access = Access(1);
    /// Adds data, without overwriting or removing what is there.
    pub const INSERT: Access = Access(2);
    /// Changes or overwrites data.
    pub const UPDATE: Access = Access(4);
    /// Removes data.
    pub const DELETE: Access = Access(8);

    /// Both kinds.
    #[must_use]
    pub const fn and(self, other: Access) -> Access {
        Access(self.0 | other.0)
    }

    /// Whether it includes all kinds of `other`.
    pub const fn includes(self, other: Access) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether it shows data.
    pub const fn reads(self) -> bool {
        self.includes(Access::READ)
    }

    /// Whether it adds, changes or removes data.
    pub const fn writes(self) -> bool {
        self.0 & (Access::INSERT.0 | Access::UPDATE.0 | Access::DELETE.0) != 0
    }
}

/// A part of the data or of the cluster's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched<'a> {
    /// A key.
    Key {
        /// Its database.
        database: u8,
        /// The key.
        key: &'a Bytes,
    },
    /// The keys from `start` on, and below `end` if there is one.
    Range {
        /// Their database.
        database: u8,
        /// The first key.
        start: &'a Bytes,
        /// The key before which it ends.
        end: Option<&'a Bytes>,
    },
    /// A database as a whole, whichever keys it holds.
    Database {
        /// The database.
        database: u8,
    },
    /// All databases.
    Everything,
    /// The cluster's settings and users.
    Cluster,
}

/// One touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touch<'a> {
    /// What is touched.
    pub what: Touched<'a>,
    /// How.
    pub access: Access,
}

impl<'a> Touch<'a> {
    fn key(database: u8, key: &'a Bytes, access: Access) -> Touch<'a> {
        let what = Touched::Key { database, key };
        Touch { what, access }
    }

    fn database(database: u8, access: Access) -> Touch<'a> {
        let what = Touched::Database { database };
        Touch { what, access }
    }
}

const READ: Access = Access::READ;
const INSERT: Access = Access::INSERT;
const UPDATE: Access = Access::UPDATE;
const DELETE: Access = Access::DELETE;
const METADATA: Access = Access::METADATA;

impl SetIf {
    /// A condition on the value shows something of it.
    fn access(&self) -> Access {
        match self {
            SetIf::Always | SetIf::Absent | SetIf::Present => METADATA,
            SetIf::Equal(_) | SetIf::Differs(_) => READ,
        }
    }
}

impl Command {
    /// Hands everything that the command may touch to `visit`.
    pub fn touches<'a>(&'a self, visit: &mut dyn FnMut(Touch<'a>)) {
        self.touches_in(0, visit);
    }

    fn touches_in<'a>(&'a self, database: u8, visit: &mut dyn FnMut(Touch<'a>)) {
        let mut key = |key: &'a Bytes, access| visit(Touch::key(database, key, access));
        match self {
            Command::Noop | Command::Tick => {}
            #[cfg(memkv_bugs)]
            Command::OfNextLevel => {}
            Command::Set { key: k, value: _ } => key(k, UPDATE),
            Command::Del { keys } => keys.iter().for_each(|k| key(k, DELETE)),
            Command::SetWith {
                key: k,
                condition,
                get,
                ..
            } => {
                let shown = if *get { READ } else { METADATA };
                key(k, UPDATE.and(shown).and(condition.access()));
            }
            Command::SetMany {
                pairs,
                if_none_exists,
            } => {
                let access = if *if_none_exists { INSERT } else { UPDATE };
                pairs.iter().for_each(|(k, _)| key(k, access));
            }
            Command::DelIf { key: k, condition } => key(k, DELETE.and(condition.access())),
            Command::GetDel { key: k } => key(k, READ.and(DELETE)),
            Command::GetEx { key: k, expiry: _ }
            | Command::IncrBy { key: k, by: _ }
            | Command::IncrByFloat { key: k, by: _ } => key(k, READ.and(UPDATE)),
            Command::Append { key: k, suffix: _ } => key(k, INSERT),
            Command::SetRange { key: k, .. }
            | Command::Expire { key: k, .. }
            | Command::Prolong { key: k, by_ms: _ }
            | Command::Persist { key: k }
            | Command::CompareAndSet { key: k, .. } => key(k, UPDATE),
            Command::Rename { .. } | Command::Copy { .. } => self.touches_of_two(database, visit),
            Command::DelRevision {
                key: k,
                revision: _,
            } => key(k, DELETE),
            Command::FlushAll => visit(Touch {
                what: Touched::Everything,
                access: DELETE,
            }),
            Command::FlushDatabase => visit(Touch::database(database, DELETE)),
            Command::Announce { classes: _ }
            | Command::SetMemory { cap: _, policy: _ }
            | Command::SetUser { .. }
            | Command::DelUsers { names: _ }
            | Command::InitUsers { users: _ } => visit(Touch {
                what: Touched::Cluster,
                access: UPDATE,
            }),
            Command::Transaction {
                guards,
                operations,
                otherwise,
            } => {
                guards.iter().for_each(|guard| guard.touches(visit));
                let steps = operations.iter().chain(otherwise);
                steps.for_each(|step| step.touches(visit));
            }
            Command::InDatabase { database, command } => command.touches_in(*database, visit),
        }
    }
}

impl Command {
    /// Of a command that moves or copies a key.
    fn touches_of_two<'a>(&'a self, database: u8, visit: &mut dyn FnMut(Touch<'a>)) {
        match self {
            Command::Rename {
                from,
                to,
                if_absent,
            } => {
                visit(Touch::key(database, from, READ.and(DELETE)));
                let access = if *if_absent { INSERT } else { UPDATE };
                visit(Touch::key(database, to, access));
            }
            Command::Copy {
                from,
                to,
                to_database,
                replace: _,
            } => {
                visit(Touch::key(database, from, READ));
                visit(Touch::key(*to_database, to, UPDATE));
            }
            // No other command comes here.
            _ => {}
        }
    }
}

impl Step {
    fn touches<'a>(&'a self, visit: &mut dyn FnMut(Touch<'a>)) {
        match self {
            Step::Write(command) => command.touches(visit),
            Step::Read(query) => query.touches(visit),
        }
    }
}

impl Guard {
    /// Hands what the guard looks at to `visit`.
    pub fn touches<'a>(&'a self, visit: &mut dyn FnMut(Touch<'a>)) {
        let access = match &self.holds {
            Condition::Unchanged(_)
            | Condition::Exists(_)
            | Condition::HasDeadline(_)
            | Condition::ModRevision(..)
            | Condition::CreateRevision(..) => METADATA,
            Condition::Value(..) => READ,
        };
        visit(Touch::key(self.database, &self.key, access));
    }
}

impl Query {
    /// Hands everything that the query may touch to `visit`.
    pub fn touches<'a>(&'a self, visit: &mut dyn FnMut(Touch<'a>)) {
        self.touches_in(0, visit);
    }

    fn touches_in<'a>(&'a self, database: u8, visit: &mut dyn FnMut(Touch<'a>)) {
        let mut key = |key: &'a Bytes, access| visit(Touch::key(database, key, access));
        match self {
            Query::Get { key: k } | Query::GetRange { key: k, .. } => key(k, READ),
            Query::GetMany { keys } => keys.iter().for_each(|k| key(k, READ)),
            // A time to live counts as data in Redis.
            Query::Ttl { key: k, .. } => key(k, READ),
            Query::Exists { keys } => keys.iter().for_each(|k| key(k, METADATA)),
            Query::StrLen { key: k } => key(k, METADATA),
            Query::Meta { key: k, value } => key(k, if *value { READ } else { METADATA }),
            Query::Range {
                start,
                end,
                limit: _,
                keys_only,
            } => visit(Touch {
                what: Touched::Range {
                    database,
                    start,
                    end: end.as_ref(),
                },
                access: if *keys_only { METADATA } else { READ },
            }),
            Query::Scan { .. } | Query::RandomKey { .. } | Query::DbSize => {
                visit(Touch::database(database, METADATA));
            }
            Query::InDatabase { database, query } => query.touches_in(*database, visit),
        }
    }
}
