//! What a connection has read and not yet executed: consecutive writes, which are submitted
//! together, or consecutive reads, which share one look at the store. Never both: a read sees the
//! writes before it and not those behind it.

use std::collections::VecDeque;

use bytes::BytesMut;
use memkv_store::{Command, Query, ReplyError, ReplyValue, Store};

use super::publish::Receivers;
use super::transaction::Plan;
use crate::backend::{MAX_MANY_BYTES, bytes_of};
use crate::commands::ReplyFormat;

/// A look at the store ends after so many bytes of values (1 MiB): it holds up writes, and what it
/// has found waits for the client.
const READ_BATCH_BYTES: usize = 1024 * 1024;

/// Keys that one look at the store looks at, about: some tenths of a millisecond. A query of more is
/// answered in pieces.
const READ_BATCH_KEYS: u64 = 1024;

/// Commands per segment that answer with a value: their answers are held all at once.
const MAX_VALUES: usize = 32;

/// Slots whose memory a connection keeps between segments (1 KiB): more than most pipelines.
const KEPT_SLOTS: usize = 16;

/// Where one answer comes from.
pub(super) enum Slot {
    /// So many bytes of `ready`.
    Ready(usize),
    /// The next outcome.
    Op {
        name: &'static str,
        format: ReplyFormat,
        silent: bool,
    },
    /// The next outcome, of a whole transaction.
    Exec { plan: Plan, silent: bool },
    /// A message that has been sent, and its count.
    Published { receivers: Receivers, silent: bool },
}

/// See the module's documentation. Invariant: `commands` or `queries` is empty, and the other has
/// one element for each `Op` or `Exec` among the slots.
#[derive(Default)]
pub(super) struct PipelineBatch {
    pub(super) slots: Vec<Slot>,
    pub(super) commands: Vec<Command>,
    pub(super) queries: VecDeque<Query>,
    /// Answers that came up in between.
    pub(super) ready: BytesMut,
    /// What looks have found and is not written yet.
    pub(super) found: VecDeque<ReplyValue>,
    /// What it takes to encode the commands.
    pub(super) steps: usize,
    values: usize,
}

impl PipelineBatch {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Empties it, and keeps what the next ones of most connections need of its memory.
    pub(super) fn recycle(&mut self) {
        if self.slots.capacity() > KEPT_SLOTS {
            return *self = Self::default();
        }
        self.slots.clear();
        self.commands.clear();
        self.queries.clear();
        self.ready.clear();
        self.found.clear();
        self.steps = 0;
        self.values = 0;
    }

    /// Whether the store must be asked before it can be answered.
    pub(super) fn waits_for_store(&self) -> bool {
        !self.commands.is_empty() || !self.queries.is_empty()
    }

    /// Whether a write may join.
    pub(super) fn takes_write(&self, command: &Command) -> bool {
        self.queries.is_empty() && (self.values < MAX_VALUES || !answers_value(command))
    }

    /// Whether a read may join.
    pub(super) fn takes_read(&self) -> bool {
        self.commands.is_empty()
    }

    /// Takes a command that is encoded in so many steps.
    pub(super) fn write(&mut self, command: Command, steps: usize, slot: Slot) {
        self.steps += steps;
        self.values += usize::from(answers_value(&command));
        self.commands.push(command);
        self.slots.push(slot);
    }

    pub(super) fn read(&mut self, query: Query, slot: Slot) {
        self.queries.push_back(query);
        self.slots.push(slot);
    }
}

fn answers_value(command: &Command) -> bool {
    match command {
        Command::SetWith { get, .. } => *get,
        Command::GetDel { .. } | Command::GetEx { .. } | Command::Transaction { .. } => true,
        Command::InDatabase { command, .. } => answers_value(command),
        _ => false,
    }
}

/// What a look has found, and what it has not come to.
pub(super) type Found = (VecDeque<ReplyValue>, VecDeque<Query>);

/// Answers queries in order behind `values`, at least one, until there is enough to send. Most need
/// not know what time it is, and then nobody asks.
pub(super) fn read_batch(
    store: &Store,
    mut queries: VecDeque<Query>,
    mut values: VecDeque<ReplyValue>,
    now_ms: impl Fn() -> u64,
) -> Found {
    let mut now = None;
    let (mut bytes, mut keys) = (0, 0);
    while bytes < READ_BATCH_BYTES
        && keys < READ_BATCH_KEYS
        && !queries.front().is_some_and(is_long)
        && let Some(query) = queries.pop_front()
    {
        keys += query.looks_at();
        let value = if is_too_large(store, 0, &query) {
            ReplyValue::Error(ReplyError::ReplyTooLong)
        } else {
            let now = query.asks_time().then(|| *now.get_or_insert_with(&now_ms));
            store.query(&query, now.unwrap_or(0))
        };
        bytes += bytes_of(&value);
        values.push_back(value);
    }
    (values, queries)
}

/// Whether it looks at so many keys that it is answered in pieces.
pub(super) fn is_long(query: &Query) -> bool {
    query.looks_at() > READ_BATCH_KEYS
}

fn is_too_large(store: &Store, database: u8, query: &Query) -> bool {
    match query {
        Query::InDatabase { database, query } => is_too_large(store, *database, query),
        Query::GetMany { keys } => {
            let length = |key: &bytes::Bytes| {
                store
                    .get_in(database, key)
                    .map_or(0, |found| found.value.len())
            };
            keys.iter().map(length).sum::<usize>() > MAX_MANY_BYTES
        }
        _ => false,
    }
}
