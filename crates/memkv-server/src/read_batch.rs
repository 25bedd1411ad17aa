//! Queries of one request or of one pipeline, which share one hold of the store's lock.
//! Never waits, and never changes anything.
//!
//! Invariants: answers are in the order of the queries; what was answered together is of one state;
//! the lock is held for a bounded time.

use std::collections::VecDeque;

use memkv_store::{Query, ReplyError, ReplyValue, Revision, Store};

use crate::backend::bytes_of;
use crate::ledger::Held;
use crate::service::{LEAST_REPLY_BYTES, memory_of};

/// Bytes of values after which the lock is released (1 MiB): it holds up writes, and the values wait
/// for the client.
const READ_BATCH_BYTES: usize = 1024 * 1024;

/// Keys that are looked up under one hold of the lock, about: some tenths of a millisecond. A query
/// of more is answered in pieces.
const READ_BATCH_KEYS: u64 = 1024;

/// Queries and the answers to those before them.
#[derive(Debug, Default)]
pub struct ReadBatch {
    /// Queries that are not answered yet.
    pub queries: VecDeque<Query>,
    /// Answers.
    pub values: VecDeque<ReplyValue>,
    /// The store's revision when it was asked last.
    pub revision: Revision,
    /// The revision of the table of users then; 0 without one. Answers that were judged under another
    /// one must not be given out before they are judged again.
    pub users_revision: u64,
    /// What the answers hold until the batch is over, sent or not.
    pub(crate) memory: Held,
}

impl From<Query> for ReadBatch {
    fn from(query: Query) -> Self {
        Self {
            queries: VecDeque::from([query]),
            ..Self::default()
        }
    }
}

impl ReadBatch {
    /// The same batch, whose answers are counted by this guard.
    pub(crate) fn counted(mut self, memory: Held) -> Self {
        self.memory = memory;
        self
    }

    /// Answers queries in order until there is enough to send: at least one, unless it is of so many
    /// keys that it is answered in pieces. `now_ms` is called at most once, and only for a query
    /// whose answer depends on the time.
    pub fn answer(&mut self, store: &Store, now_ms: impl Fn() -> u64) {
        self.revision = store.revision();
        self.users_revision = store.users_revision();
        let mut now = None;
        let (mut bytes, mut keys) = (0, 0);
        // Where the clients' replies take all they may, each gets as little at once as is sent at once.
        let most = match self.memory.is_full() {
            true => LEAST_REPLY_BYTES,
            false => READ_BATCH_BYTES,
        };
        while bytes < most
            && keys < READ_BATCH_KEYS
            && !self.starts_long()
            && let Some(query) = self.queries.pop_front()
        {
            keys += query.looks_at();
            let value = if is_too_large(store, 0, &query, &mut self.memory) {
                ReplyValue::Error(ReplyError::ReplyTooLong)
            } else {
                let now = query.asks_time().then(|| *now.get_or_insert_with(&now_ms));
                store.query(&query, now.unwrap_or(0))
            };
            bytes += bytes_of(&value);
            self.values.push_back(value);
        }
        if bytes >= LEAST_REPLY_BYTES {
            self.memory.set(self.values.iter().map(memory_of).sum());
        }
    }

    /// Whether the next query is of so many keys that it is answered in pieces, by itself.
    pub(crate) fn starts_long(&self) -> bool {
        let is_long = |query: &Query| query.looks_at() > READ_BATCH_KEYS;
        self.queries.front().is_some_and(is_long)
    }

    /// Forgets everything but the memory.
    pub(crate) fn clear(&mut self) {
        self.queries.clear();
        self.values.clear();
        self.memory.set(0);
    }
}

/// Whether the answer would be longer than one may be, or than there is room for.
fn is_too_large(store: &Store, database: u8, query: &Query, memory: &mut Held) -> bool {
    match query {
        Query::InDatabase { database, query } => is_too_large(store, *database, query, memory),
        Query::GetMany { keys } => {
            let length = |key: &bytes::Bytes| {
                store
                    .get_in(database, key)
                    .map_or(0, |found| found.value.len())
            };
            let bytes = keys.iter().map(length).sum::<usize>();
            bytes > LEAST_REPLY_BYTES && bytes > memory.most()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn get(key: &'static str) -> Query {
        let key = Bytes::from_static(key.as_bytes());
        Query::Get { key }
    }

    #[test]
    fn queries_are_answered_up_to_the_limit_of_keys() {
        let store = Store::new();
        let half = Query::Exists {
            keys: vec![Bytes::new(); READ_BATCH_KEYS as usize / 2],
        };
        let mut batch = ReadBatch {
            queries: [half.clone(), half.clone(), half].into(),
            ..ReadBatch::default()
        };
        batch.answer(&store, || 0);
        assert_eq!((batch.values.len(), batch.queries.len()), (2, 1));
    }

    #[test]
    fn a_query_of_many_keys_is_left_at_the_front() {
        let store = Store::new();
        let long = Query::prefix(b"", None, READ_BATCH_KEYS + 1, true);
        let mut batch = ReadBatch {
            queries: [get("a"), long].into(),
            ..ReadBatch::default()
        };
        batch.answer(&store, || 0);
        assert!(batch.starts_long());
        assert_eq!(batch.values, [ReplyValue::Nil]);
    }

    #[test]
    fn only_a_query_about_time_asks_for_the_time() {
        let store = Store::new();
        let asked = std::cell::Cell::new(0);
        let now = || {
            asked.set(asked.get() + 1);
            7
        };
        let mut batch = ReadBatch::from(get("a"));
        batch.answer(&store, now);
        assert_eq!(asked.get(), u32::from(cfg!(memkv_bugs)));
        let ttl = Query::Ttl {
            key: Bytes::from_static(b"a"),
            seconds: false,
            absolute: false,
        };
        batch.queries.extend([ttl.clone(), ttl]);
        asked.set(0);
        batch.answer(&store, now);
        assert_eq!((asked.get(), batch.values.len()), (1, 3));
    }
}
