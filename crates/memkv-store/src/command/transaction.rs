//! Transactions: guards that must hold, and the steps that are then executed with nothing in between.
//!
//! A step that fails answers its error and the others are executed, as in Redis: nothing is rolled back.
//! The bytes that all of them would answer or copy are estimated before the first one (`estimate`): a
//! transaction above the limits is refused as a whole. So is one whose branch may grow at the memory cap.
//! Invariant: no transaction is nested in another.

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{Within, read_database};
use super::grows::steps_may_grow;
use super::{Command, Part, estimate, visit_inner};
use crate::encoding::{DecodeError, Reader, put_prefixed, put_varint};
use crate::keyspace::Keyspace;
use crate::query::Query;
use crate::reply::ELEMENT_OVERHEAD_BYTES;
use crate::{MAX_WRITE_REPLY_BYTES, ReplyError, ReplyValue, Revision};

/// The most guards that a transaction may have, and the most steps on either branch: it is one
/// entry and one uninterrupted piece of work, so it stays below some milliseconds.
pub const MAX_TRANSACTION_STEPS: usize = 1024;

/// A condition on a key that must hold when the transaction is executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The key's database, 0 to 15.
    pub database: u8,
    /// The key.
    pub key: Bytes,
    /// The condition that must hold for it.
    pub holds: Condition,
}

/// The condition of a guard. An absent key has the revisions 0 and no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing has touched the key since it was seen: `WATCH`.
    Unchanged(Seen),
    /// The key is present, or absent.
    Exists(bool),
    /// The key is present and has a deadline; or it is absent or has none.
    HasDeadline(bool),
    /// The key is present and its value compares like this, byte by byte, with the given one.
    Value(Compare, Bytes),
    /// The revision that last wrote the key compares like this with the given one.
    ModRevision(Compare, Revision),
    /// The revision that created the key compares like this with the given one.
    CreateRevision(Compare, Revision),
}

/// The state of a key when it was watched; see [`Store::seen`](crate::Store::seen).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The key was present.
    Present {
        /// The revision that had last written it.
        mod_revision: Revision,
    },
    /// The key was absent.
    Absent {
        /// The store's revision at that moment.
        at: Revision,
    },
}

/// How the present value or revision compares with the guard's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// It is the same.
    Equal,
    /// It is another.
    NotEqual,
    /// It is smaller.
    Less,
    /// It is greater.
    Greater,
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A write; never a transaction.
    Write(Command),
    /// A read.
    Read(Query),
}

const UNCHANGED_PRESENT: u8 = 0;
const UNCHANGED_ABSENT: u8 = 1;
const EXISTS: u8 = 2;
const VALUE: u8 = 3;
const MOD_REVISION: u8 = 4;
const CREATE_REVISION: u8 = 5;
const HAS_DEADLINE: u8 = 6;

const WRITE: u8 = 0;
const READ: u8 = 1;

/// Every comparison, at the place of its code.
const COMPARE: [Compare; 4] = [
    Compare::Equal,
    Compare::NotEqual,
    Compare::Less,
    Compare::Greater,
];

impl Guard {
    pub(super) fn write(&self, out: &mut BytesMut) {
        out.put_u8(self.database);
        put_prefixed(out, &self.key);
        match &self.holds {
            Condition::Unchanged(Seen::Present { mod_revision }) => {
                out.put_u8(UNCHANGED_PRESENT);
                put_varint(out, *mod_revision);
            }
            Condition::Unchanged(Seen::Absent { at }) => {
                out.put_u8(UNCHANGED_ABSENT);
                put_varint(out, *at);
            }
            Condition::Exists(exists) => {
                out.put_u8(EXISTS);
                out.put_u8(u8::from(*exists));
            }
            Condition::HasDeadline(has) => {
                out.put_u8(HAS_DEADLINE);
                out.put_u8(u8::from(*has));
            }
            Condition::Value(compare, value) => {
                out.put_u8(VALUE);
                compare.write(out);
                put_prefixed(out, value);
            }
            Condition::ModRevision(compare, revision) => {
                out.put_u8(MOD_REVISION);
                compare.write(out);
                put_varint(out, *revision);
            }
            Condition::CreateRevision(compare, revision) => {
                out.put_u8(CREATE_REVISION);
                compare.write(out);
                put_varint(out, *revision);
            }
        }
    }

    fn read(reader: &mut Reader<'_>, own: &dyn Fn(&[u8]) -> Bytes) -> Result<Guard, DecodeError> {
        let database = read_database(reader)?;
        let key = own(reader.prefixed("guard key")?);
        let what = "guard";
        let holds = match reader.u8(what)? {
            UNCHANGED_PRESENT => Condition::Unchanged(Seen::Present {
                mod_revision: reader.varint(what)?,
            }),
            UNCHANGED_ABSENT => Condition::Unchanged(Seen::Absent {
                at: reader.varint(what)?,
            }),
            EXISTS => Condition::Exists(reader.bool(what)?),
            HAS_DEADLINE => Condition::HasDeadline(reader.bool(what)?),
            VALUE => Condition::Value(Compare::read(reader)?, own(reader.prefixed(what)?)),
            MOD_REVISION => Condition::ModRevision(Compare::read(reader)?, reader.varint(what)?),
            CREATE_REVISION => {
                Condition::CreateRevision(Compare::read(reader)?, reader.varint(what)?)
            }
            tag => return Err(DecodeError::UnknownTag { what, tag }),
        };
        Ok(Guard {
            database,
            key,
            holds,
        })
    }

    pub(super) fn read_all(
        reader: &mut Reader<'_>,
        own: &dyn Fn(&[u8]) -> Bytes,
    ) -> Result<Vec<Guard>, DecodeError> {
        let count = count(reader, "number of guards")?;
        (0..count).map(|_| Guard::read(reader, own)).collect()
    }
}

impl Compare {
    fn write(self, out: &mut BytesMut) {
        let code = COMPARE.iter().position(|compare| *compare == self);
        put_varint(out, code.unwrap_or(0) as u64);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Compare, DecodeError> {
        let what = "comparison";
        let tag = reader.u8(what)?;
        let compare = COMPARE.get(usize::from(tag)).copied();
        compare.ok_or(DecodeError::UnknownTag { what, tag })
    }
}

impl Step {
    pub(super) fn write(&self, out: &mut BytesMut) {
        match self {
            Step::Write(command) => {
                out.put_u8(WRITE);
                put_prefixed(out, &command.encode());
            }
            Step::Read(query) => {
                out.put_u8(READ);
                put_prefixed(out, &query.encode());
            }
        }
    }

    fn read(reader: &mut Reader<'_>, own: &dyn Fn(&[u8]) -> Bytes) -> Result<Step, DecodeError> {
        let what = "step";
        match reader.u8(what)? {
            WRITE => {
                Command::read(reader.prefixed(what)?, Within::Transaction, own).map(Step::Write)
            }
            READ => Query::read(reader.prefixed(what)?, own).map(Step::Read),
            tag => Err(DecodeError::UnknownTag { what, tag }),
        }
    }

    pub(super) fn read_all(
        reader: &mut Reader<'_>,
        own: &dyn Fn(&[u8]) -> Bytes,
    ) -> Result<Vec<Step>, DecodeError> {
        let count = count(reader, "number of steps")?;
        (0..count).map(|_| Step::read(reader, own)).collect()
    }
}

fn count(reader: &mut Reader<'_>, what: &'static str) -> Result<usize, DecodeError> {
    let count = reader.length(what)?;
    if count > MAX_TRANSACTION_STEPS {
        return Err(DecodeError::Invalid { what });
    }
    Ok(count)
}

/// Hands every key and value of the guards and the writes to `f`. A read has no limits: a key that
/// is too long is absent.
pub(super) fn visit<'a>(
    guards: &'a [Guard],
    steps: impl Iterator<Item = &'a Step>,
    f: &mut dyn FnMut(Part<'a>),
) {
    for guard in guards {
        f(Part::Key(&guard.key));
        if let Condition::Value(_, value) = &guard.holds {
            f(Part::Value(value));
        }
    }
    for step in steps {
        if let Step::Write(command) = step {
            visit_inner(command, f);
        }
    }
}

/// Executes a transaction; `last` is the store's revision.
pub(super) fn execute(
    keys: &mut Keyspace,
    last: &mut Revision,
    guards: &[Guard],
    operations: &[Step],
    otherwise: &[Step],
) -> ReplyValue {
    let (steps, mark) = if guards.iter().all(|guard| guard.holds_in(keys)) {
        (operations, None)
    } else if otherwise.is_empty() {
        return ReplyValue::Aborted;
    } else {
        (otherwise, Some(ReplyValue::Aborted))
    };
    if keys.is_at_cap() && steps_may_grow(steps) && !tears_transactions() {
        return ReplyValue::Error(ReplyError::OutOfMemory);
    }
    if let Err(error) = estimate::check(keys, steps) {
        return ReplyValue::Error(error);
    }
    let mut room = MAX_WRITE_REPLY_BYTES;
    let answers = steps.iter().map(|step| {
        let answer = match step {
            #[cfg(memkv_bugs)]
            Step::Write(command)
                if tears_transactions() && keys.is_at_cap() && command.may_grow() =>
            {
                ReplyValue::Error(ReplyError::OutOfMemory)
            }
            Step::Write(command) => command.execute_within(keys, last, room),
            Step::Read(query) => read(keys, query, room),
        };
        room = room.saturating_sub(ELEMENT_OVERHEAD_BYTES + answer.bulk_len());
        answer
    });
    ReplyValue::Array(mark.into_iter().chain(answers).collect())
}

#[cfg(memkv_bugs)]
fn tears_transactions() -> bool {
    crate::bugs::active(crate::bugs::Bug::TearAtCap)
}

#[cfg(not(memkv_bugs))]
const fn tears_transactions() -> bool {
    false
}

/// Measures before it copies: values that earlier steps have changed may be longer than estimated.
fn read(keys: &Keyspace, query: &Query, room: usize) -> ReplyValue {
    let len_of = |database, key: &[u8]| Some(keys.get(database, key)?.value.len());
    if query.answer_len(keys.into(), &len_of, room) > room {
        return ReplyValue::Error(ReplyError::ReplyTooLong);
    }
    query.answer(keys.into(), keys.now_ms)
}

impl Guard {
    fn holds_in(&self, keys: &Keyspace) -> bool {
        let found = keys.get(self.database, &self.key);
        #[cfg(memkv_bugs)]
        if matches!(self.holds, Condition::Unchanged(_))
            && crate::bugs::active(crate::bugs::Bug::IgnoreWatch)
        {
            return true;
        }
        match &self.holds {
            Condition::Unchanged(Seen::Present { mod_revision }) => {
                found.is_some_and(|found| found.mod_revision == *mod_revision)
            }
            Condition::Unchanged(Seen::Absent { at }) => {
                keys.absent_since(self.database, &self.key, *at)
            }
            Condition::Exists(exists) => found.is_some() == *exists,
            Condition::HasDeadline(has) => {
                found.is_some_and(|found| found.deadline_ms.is_some()) == *has
            }
            Condition::Value(compare, value) => {
                found.is_some_and(|found| compare.holds(&found.value, &&value[..]))
            }
            Condition::ModRevision(compare, revision) => {
                compare.holds(&found.map_or(0, |found| found.mod_revision), revision)
            }
            Condition::CreateRevision(compare, revision) => {
                compare.holds(&found.map_or(0, |found| found.create_revision), revision)
            }
        }
    }
}

impl Compare {
    fn holds<T: Ord>(self, found: &T, given: &T) -> bool {
        match self {
            Compare::Equal => found == given,
            Compare::NotEqual => found != given,
            Compare::Less => found < given,
            Compare::Greater => found > given,
        }
    }
}
