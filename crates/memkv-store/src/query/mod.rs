//! Reads: their kinds, and their encoding inside a transaction.
//!
//! A query never changes anything and never enters the log by itself. Its answer depends on
//! the state and `now_ms` alone, never on the order of a hash table, because inside a transaction
//! its answer becomes part of the state (a cached reply). Invariant: an opcode is never reused for
//! another meaning.

mod answer;
mod pieces;
mod scan;

pub use self::pieces::{Reading, Readings};

use bytes::{BufMut, Bytes, BytesMut};

use crate::ReplyError;
use crate::command::{check_count, key_count, read_database};
use crate::encoding::{
    DecodeError, Reader, put_length, put_prefixed, put_varint, unzigzag, zigzag,
};

/// A read. Answers are [`ReplyValue`](crate::ReplyValue)s; a key longer than the limit is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// `Bulk`, or `Nil` if absent.
    Get {
        /// The key.
        key: Bytes,
    },
    /// `Array` of what [`Query::Get`] answers for each.
    GetMany {
        /// The keys.
        keys: Vec<Bytes>,
    },
    /// `Integer`: the number of present keys; one that is named twice counts twice.
    Exists {
        /// The keys.
        keys: Vec<Bytes>,
    },
    /// `Integer`: the value's length in bytes, 0 if absent.
    StrLen {
        /// The key.
        key: Bytes,
    },
    /// `Bulk`: the bytes from `start` to `end`, both included; negative ones count from the end.
    GetRange {
        /// The key.
        key: Bytes,
        /// The first byte.
        start: i64,
        /// The last byte.
        end: i64,
    },
    /// `Integer`: time to live or deadline; -2 if absent, -1 without a deadline.
    Ttl {
        /// The key.
        key: Bytes,
        /// In seconds, rounded to the nearest, instead of milliseconds.
        seconds: bool,
        /// The deadline since the epoch instead of the time until it.
        absolute: bool,
    },
    /// `Array` of the value (`Nil` unless `value`), creation revision, modification revision, and
    /// deadline in milliseconds since the epoch or -1; `Nil` if absent.
    Meta {
        /// The key.
        key: Bytes,
        /// Whether the value is wanted.
        value: bool,
    },
    /// `Array` of the next cursor (`Integer`, 0 at the end) and an `Array` of keys: whole hash
    /// shards until `count` keys are reached. The same cursor on every node.
    Scan {
        /// 0, or the cursor of the previous answer; any other number ends at once.
        cursor: u64,
        /// How many keys to aim for, at least 1.
        count: u64,
    },
    /// `Array` of an `Array` of items in byte order, and an `Integer`: 1 if more follow, else 0.
    /// An item is the key's `Bulk` with `keys_only`; else an `Array` of key, value, creation
    /// revision, modification revision, and deadline or -1. Ends early, with 1, after
    /// [`RANGE_BYTES`](crate::RANGE_BYTES) of keys and values.
    Range {
        /// The first key.
        start: Bytes,
        /// The key before which it ends; none is the end of the keyspace.
        end: Option<Bytes>,
        /// The most items.
        limit: u64,
        /// Whether values and revisions are left out.
        keys_only: bool,
    },
    /// `Bulk`: some key; `Nil` if there is none.
    RandomKey {
        /// A random number, drawn by the caller.
        nonce: u64,
    },
    /// `Integer`: the number of keys in the database. As in Redis it counts keys past their
    /// deadline that are not yet removed.
    DbSize,
    /// The query, answered for another database than 0.
    InDatabase {
        /// 0 to 15.
        database: u8,
        /// Any query but this one.
        query: Box<Query>,
    },
}

const GET: u8 = 0;
const GET_MANY: u8 = 1;
const EXISTS: u8 = 2;
const STR_LEN: u8 = 3;
const GET_RANGE: u8 = 4;
const TTL: u8 = 5;
const META: u8 = 6;
const SCAN: u8 = 7;
const RANGE: u8 = 8;
const RANDOM_KEY: u8 = 9;
const DB_SIZE: u8 = 10;
const IN_DATABASE: u8 = 11;

impl Query {
    /// The range of the keys that start with `prefix`, from the one after `after` on.
    pub fn prefix(prefix: &[u8], after: Option<&[u8]>, limit: u64, keys_only: bool) -> Query {
        // The smallest key above `after` is `after` and a zero byte.
        let next = after.map(|after| [after, &[0]].concat());
        let start = next.unwrap_or_default().max(prefix.to_vec());
        // The first key above all with the prefix: the last byte that can be raised is raised, and the
        // bytes behind it are cut off.
        let end = prefix.iter().rposition(|byte| *byte < u8::MAX).map(|last| {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            Bytes::from(end)
        });
        Query::Range {
            start: Bytes::from(start),
            end,
            limit,
            keys_only,
        }
    }

    /// Whether the answer depends on the time, and not only on the keys.
    #[must_use]
    pub fn asks_time(&self) -> bool {
        match self {
            Query::InDatabase { query, .. } => query.asks_time(),
            Query::Ttl { .. } => true,
            // A deliberate bug lets keys expire by the reader's clock.
            _ => cfg!(memkv_bugs),
        }
    }

    /// Whether it names no more keys than it may.
    ///
    /// # Errors
    ///
    /// `TooManyKeys` above [`MAX_COMMAND_KEYS`](crate::MAX_COMMAND_KEYS).
    pub fn check_limits(&self) -> Result<(), ReplyError> {
        check_count(self.key_count())
    }

    /// The number of keys that it names.
    pub fn key_count(&self) -> usize {
        match self {
            Query::GetMany { keys } | Query::Exists { keys } => keys.len(),
            Query::InDatabase { query, .. } => query.key_count(),
            _ => 1,
        }
    }

    /// The most keys that it reads.
    #[must_use]
    pub fn looks_at(&self) -> u64 {
        match self {
            Query::InDatabase { query, .. } => query.looks_at(),
            Query::Range { limit, .. } => *limit,
            Query::Scan { count, .. } => *count,
            other => other.key_count() as u64,
        }
    }

    /// The same query for `database`; 0 needs no wrapping.
    #[must_use]
    pub fn in_database(self, database: u8) -> Query {
        match database {
            0 => self,
            _ => Query::InDatabase {
                database,
                query: Box::new(self),
            },
        }
    }

    /// The query's bytes inside a transaction.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.write(&mut out);
        out.freeze()
    }

    /// Reads one query, which must fill `input`; keys share `input`'s memory.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the bytes are no query, or more than one.
    pub fn decode(input: &Bytes) -> Result<Query, DecodeError> {
        Query::read(input, &|part| input.slice_ref(part))
    }

    fn write(&self, out: &mut BytesMut) {
        match self {
            Query::Get { key } => put_key(out, GET, key),
            Query::GetMany { keys } => put_keys(out, GET_MANY, keys),
            Query::Exists { keys } => put_keys(out, EXISTS, keys),
            Query::StrLen { key } => put_key(out, STR_LEN, key),
            Query::GetRange { key, start, end } => {
                put_key(out, GET_RANGE, key);
                put_varint(out, zigzag(*start));
                put_varint(out, zigzag(*end));
            }
            Query::Ttl {
                key,
                seconds,
                absolute,
            } => {
                put_key(out, TTL, key);
                out.put_u8(u8::from(*seconds));
                out.put_u8(u8::from(*absolute));
            }
            Query::Meta { key, value } => {
                put_key(out, META, key);
                out.put_u8(u8::from(*value));
            }
            Query::Scan { cursor, count } => {
                out.put_u8(SCAN);
                put_varint(out, *cursor);
                put_varint(out, *count);
            }
            Query::Range {
                start,
                end,
                limit,
                keys_only,
            } => {
                put_key(out, RANGE, start);
                out.put_u8(u8::from(end.is_some()));
                end.iter().for_each(|end| put_prefixed(out, end));
                put_varint(out, *limit);
                out.put_u8(u8::from(*keys_only));
            }
            Query::RandomKey { nonce } => {
                out.put_u8(RANDOM_KEY);
                put_varint(out, *nonce);
            }
            Query::DbSize => out.put_u8(DB_SIZE),
            Query::InDatabase { database, query } => {
                out.put_u8(IN_DATABASE);
                out.put_u8(*database);
                query.write(out);
            }
        }
    }

    /// Reads a query up to the end; `own` makes the kept copy of a key.
    pub(crate) fn read(input: &[u8], own: &dyn Fn(&[u8]) -> Bytes) -> Result<Query, DecodeError> {
        let mut reader = Reader::new(input);
        let opcode = reader.u8("query")?;
        if opcode != IN_DATABASE {
            return Query::read_plain(opcode, reader, own);
        }
        let database = read_database(&mut reader)?;
        let opcode = reader.u8("query")?;
        let query = Box::new(Query::read_plain(opcode, reader, own)?);
        Ok(Query::InDatabase { database, query })
    }

    fn read_plain(
        opcode: u8,
        mut reader: Reader<'_>,
        own: &dyn Fn(&[u8]) -> Bytes,
    ) -> Result<Query, DecodeError> {
        let body = &mut reader;
        let query = match opcode {
            GET => Query::Get {
                key: own(body.prefixed("key")?),
            },
            GET_MANY => Query::GetMany {
                keys: read_keys(body, own)?,
            },
            EXISTS => Query::Exists {
                keys: read_keys(body, own)?,
            },
            STR_LEN => Query::StrLen {
                key: own(body.prefixed("key")?),
            },
            GET_RANGE => Query::GetRange {
                key: own(body.prefixed("key")?),
                start: unzigzag(body.varint("start")?),
                end: unzigzag(body.varint("end")?),
            },
            TTL => Query::Ttl {
                key: own(body.prefixed("key")?),
                seconds: body.bool("unit")?,
                absolute: body.bool("whether absolute")?,
            },
            META => Query::Meta {
                key: own(body.prefixed("key")?),
                value: body.bool("whether with value")?,
            },
            SCAN => Query::Scan {
                cursor: body.varint("cursor")?,
                count: body.varint("count")?,
            },
            RANGE => {
                let start = own(body.prefixed("start")?);
                let bounded = body.bool("whether an end follows")?;
                let end = bounded.then(|| body.prefixed("end").map(own)).transpose()?;
                Query::Range {
                    start,
                    end,
                    limit: body.varint("limit")?,
                    keys_only: body.bool("whether keys only")?,
                }
            }
            RANDOM_KEY => Query::RandomKey {
                nonce: body.varint("nonce")?,
            },
            DB_SIZE => Query::DbSize,
            tag => return Err(DecodeError::UnknownTag { what: "query", tag }),
        };
        reader.finish("query")?;
        Ok(query)
    }
}

fn put_key(out: &mut BytesMut, opcode: u8, key: &Bytes) {
    out.put_u8(opcode);
    put_prefixed(out, key);
}

fn put_keys(out: &mut BytesMut, opcode: u8, keys: &[Bytes]) {
    out.put_u8(opcode);
    put_length(out, keys.len());
    keys.iter().for_each(|key| put_prefixed(out, key));
}

fn read_keys(
    reader: &mut Reader<'_>,
    own: &dyn Fn(&[u8]) -> Bytes,
) -> Result<Vec<Bytes>, DecodeError> {
    let count = key_count(reader, "number of keys")?;
    (0..count)
        .map(|_| reader.prefixed("key").map(own))
        .collect()
}
