//! The deterministic replicated state machine of memkv: commands and queries over sixteen databases
//! of keys, revisions, deadlines in log time, transactions, sessions with exactly-once execution,
//! the member table, and snapshots taken while writes go on.
//!
//! It never does I/O, reads a clock, draws a random number, starts a thread or takes a lock, and
//! the order of a hash table never shows in an effect. All of its state came through [`Store::apply`], in
//! log order, or through a [`Loader`]; so two stores that applied the same log are equal, which
//! [`Store::digest`] shows.
//!
//! Use, in call order:
//!
//! 1. An interface turns a request into a [`Command`] and encodes it, or into a [`Query`].
//! 2. The proposer puts encoded commands into a [`BatchBuilder`]; the bytes are what one log entry
//!    carries, encoded once and shared by the disk, the peers and `apply`.
//! 3. Every node calls [`Store::apply`] with the committed bytes; a [`Sink`] receives the effects, and
//!    [`Store::take_garbage`] returns flushed data, to be dropped elsewhere.
//! 4. [`Store::query`] answers queries, and [`Store::next_deadline`] returns when an entry is due even
//!    without writes.
//!    A [`Reading`] does so piece by piece, on a view ([`Store::begin_view`]) of one revision.
//! 5. [`Store::begin_snapshot`] and [`Store::next_shard`] copy the state at one revision piece by piece;
//!    [`Loader`] puts it together again elsewhere.
//!
//! Modules: write commands are in `command/`, a file for each family, with transactions among them; reads in
//! `query/`. `memory` is the memory cap and the cost of keys. A [`SystemOp`] is a change by an administrator or the consensus layer. `batch` is the log
//! format; `key_event` the events that are announced of keys; `keyspace/` the data; `float` the arithmetic
//! of INCRBYFLOAT; `collection/` has lists, hashes, sets and sorted sets as data, which no command uses yet, and `tree/` what
//! they are made of; `session` the exactly-once table; `rights/` the users, and what a command touches; `member_table/` the members, their addresses and roles, and the
//! feature level, which `level` explains; `member_change` how members change; `snapshot/` the walk, the block format and the loader.

#![forbid(unsafe_code)]

#[cfg(test)]
extern crate self as memkv_store;

mod applying;
mod batch;
#[cfg(memkv_bugs)]
pub mod bugs;
pub mod collection;
mod command;
mod digest;
mod effects;
mod encoding;
mod float;
mod key_event;
mod keyspace;
mod level;
mod member_change;
mod member_table;
mod memory;
mod query;
mod refusal;
mod reply;
mod rights;
mod session;
mod sink;
mod snapshot;
mod store;
mod system;
pub mod tree;

pub use applying::{Applying, Checked, Progress};
pub use batch::{
    BatchBuilder, GroupInfo, check_command, check_group, encode_group, encode_group_of, may_grow,
    only_removes,
};
#[doc(hidden)]
pub use batch::{Logged, read_batch, read_system};
pub use command::{
    Command, Compare, Condition, ExpireIf, Expiry, Guard, MAX_TRANSACTION_STEPS, Seen, SetIf, Step,
    changes_users, check_steps,
};
pub use encoding::DecodeError;
pub use key_event::{KeyEvent, KeyEventClasses};
pub use keyspace::{Garbage, MAX_VIEWS, Value, ViewId, Work};
pub use level::{EDGE_LEVEL, FIRST_LEVEL, HIGHEST_LEVEL, MEMBERS_LEVEL};
pub use member_change::MemberChange;
pub use member_table::{
    Advertised, AnnouncedMemory, MAX_EXPECTED, MAX_MEMBERS, MAX_VOTERS, MemberState, MemberTable,
    Role, Row,
};
pub use memory::{CAP_OVERRUN_BYTES, EVICTED_PER_ENTRY, EvictionPolicy, Memory};
pub use query::{Query, Reading, Readings};
pub use refusal::Refusal;
pub use reply::{Reply, ReplyError, ReplyValue};
pub use rights::{
    Access, BY_CERTIFICATE, DEFAULT_USER, GroupRights, MAX_GROUP_PRINCIPALS, MAX_PASSWORD_BYTES,
    MAX_RULES_BYTES, MAX_SECRETS, MAX_USER_NAME_BYTES, MAX_USER_TABLE_BYTES, MAX_USERS,
    NO_CREDENTIAL, NO_TABLE, Principal, Secret, SecretKind, Standing, Touch, Touched, User,
    UserSpec, UserTable,
};
pub use session::{REPLY_CACHE_BYTES, Session};
pub use sink::{Rejected, Sink};
pub use snapshot::{
    BlockLocation, LoadError, Loader, Refounding, ShardImage, SnapshotBusy, SnapshotHead,
};
pub use store::Store;
pub use system::{MAX_ADDR_BYTES, MAX_NAME_BYTES, Member, SystemOp, SystemOutcome};

/// Counts the write operations that the cluster has executed: the first one makes revision 1.
pub type Revision = u64;

/// Names a forwarding session: the index of the log entry that opened it; 0 is no session.
pub type SessionId = u64;

/// The longest key, in bytes. Keys are hashed and compared on every access, so they stay small.
pub const MAX_KEY_BYTES: usize = 64 * 1024;

/// The longest value that any configuration may allow, in bytes: one value is one log entry, and
/// is held in memory several times while it travels.
pub const MAX_VALUE_BYTES_CEILING: usize = 64 * 1024 * 1024;

/// The most bytes of values and elements that the answer of a write may have, that of a transaction
/// with its reads included: it is kept for as long as its origin may ask for it again, on every node,
/// and is half of what a session may keep.
pub const MAX_WRITE_REPLY_BYTES: usize = 8 * 1024 * 1024;

/// The most bytes of values that a transaction may write anew one after another with APPEND and
/// SETRANGE: some tenths of a second of work.
pub const MAX_COPIED_BYTES: usize = 1024 * 1024 * 1024;

/// The most keys that a command or query may name; a transaction with all its steps counts as one. Looking
/// up or writing that many takes some hundredths of a second in one piece.
pub const MAX_COMMAND_KEYS: usize = 131_072;

/// Number of databases: what `SELECT` chooses from, 0 to 15, as in Redis's default configuration.
pub const DATABASES: u8 = 16;

/// A range query ends after this many bytes of keys and values, so that one answer is bounded for values of
/// any size; at least one item is answered.
pub const RANGE_BYTES: usize = 16 * 1024 * 1024;
