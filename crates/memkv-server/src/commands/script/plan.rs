//! The recognised scripts in commands. Each is one command or one transaction, decided by guards when
//! it is applied: nothing is read before it is written.
//!
//! Never executes anything. Invariant: the answer is the one that Redis gives when it runs the script,
//! but for the exceptions that are named here.

use bytes::Bytes;
use memkv_resp::parse_integer;
use memkv_store::{
    Command, Compare, Condition, ExpireIf, Expiry, Guard, Query, ReplyValue, SetIf, Step,
};

use super::known::Known;
use crate::commands::{ErrorReply, Op, ReplyFormat};

/// The keys and arguments of a call.
pub(super) struct Call {
    pub(super) keys: Vec<Bytes>,
    pub(super) args: Vec<Bytes>,
    pub(super) db: u8,
}

impl Call {
    fn key(&self) -> Result<Bytes, ErrorReply> {
        Self::needed(&self.keys, 0)
    }

    /// A key or argument that the script needs.
    fn needed(list: &[Bytes], at: usize) -> Result<Bytes, ErrorReply> {
        let missing = ErrorReply::new("ERR the script needs more keys or arguments");
        list.get(at).cloned().ok_or(missing)
    }

    fn number(&self, at: usize) -> Result<i64, ErrorReply> {
        let number = parse_integer(&Self::needed(&self.args, at)?);
        number.ok_or(ErrorReply::NOT_AN_INTEGER)
    }

    fn write(&self, command: Command) -> Step {
        Step::Write(command.in_database(self.db))
    }

    fn read(&self, query: Query) -> Step {
        Step::Read(query.in_database(self.db))
    }

    fn add(&self, key: &Bytes, by: i64) -> Step {
        let key = key.clone();
        self.write(Command::IncrBy { key, by })
    }

    fn expire(&self, key: &Bytes, ms: i64) -> Step {
        self.write(Command::Expire {
            key: key.clone(),
            expiry: Expiry::In { ms },
            condition: ExpireIf::Always,
        })
    }

    /// Reads the milliseconds that are left of a key.
    fn left(&self, key: &Bytes) -> Step {
        self.read(Query::Ttl {
            key: key.clone(),
            seconds: false,
            absolute: false,
        })
    }

    /// Steps that set all keys to the first argument, to expire after the second one's milliseconds;
    /// and that argument.
    fn set_all(&self) -> Result<(Vec<Step>, Bytes), ErrorReply> {
        let value = Self::needed(&self.args, 0)?;
        let expiry = Expiry::In {
            ms: self.number(1)?,
        };
        let set = |key: &Bytes| {
            self.write(Command::SetWith {
                key: key.clone(),
                value: value.clone(),
                condition: SetIf::Always,
                expiry,
                get: false,
            })
        };
        Ok((self.keys.iter().map(set).collect(), value))
    }

    fn guard(&self, key: &Bytes, holds: Condition) -> Guard {
        Guard {
            database: self.db,
            key: key.clone(),
            holds,
        }
    }
}

/// What the call of a script executes.
pub(super) fn plan(script: Known, call: &Call) -> Result<Op, ErrorReply> {
    // Without a first key all of them fail.
    let key = call.key()?;
    match script {
        Known::DeleteIfEqual => delete_if_equal(call, key),
        Known::ExpireIfEqual => expire_if_equal(call, &key),
        Known::ExtendIfEqual => extend_if_equal(call, &key),
        Known::CountInWindow => count_in_window(call, &key),
        Known::CountIfPresent => count_if_present(call, &key),
        Known::HitsAndTime => hits_and_time(call, &key),
        Known::ReadHitsAndTime => Ok(read_hits_and_time(call, key)),
        Known::LockAll => lock_all(call),
        Known::ExtendAll => extend_all(call),
        Known::ReleaseAll => release_all(call),
    }
}

/// A transaction whose answer is turned into the script's.
fn transaction(
    guards: Vec<Guard>,
    operations: Vec<Step>,
    otherwise: Vec<Step>,
    result: fn(&ReplyValue) -> ReplyValue,
) -> Op {
    let command = Command::Transaction {
        guards,
        operations,
        otherwise,
    };
    Op::Write(command, ReplyFormat::Script(result))
}

fn equal(value: Bytes) -> Condition {
    Condition::Value(Compare::Equal, value)
}

fn delete_if_equal(call: &Call, key: Bytes) -> Result<Op, ErrorReply> {
    let condition = SetIf::Equal(Call::needed(&call.args, 0)?);
    let command = Command::DelIf { key, condition };
    Ok(Op::Write(command, ReplyFormat::Plain))
}

fn expire_if_equal(call: &Call, key: &Bytes) -> Result<Op, ErrorReply> {
    let holds = equal(Call::needed(&call.args, 0)?);
    let expire = call.expire(key, call.number(1)?);
    let guards = vec![call.guard(key, holds)];
    Ok(transaction(guards, vec![expire], Vec::new(), last_or_zero))
}

fn extend_if_equal(call: &Call, key: &Bytes) -> Result<Op, ErrorReply> {
    let holds = equal(Call::needed(&call.args, 0)?);
    let ms = call.number(1)?;
    let adds = call.args.get(2).is_some_and(|arg| arg == "0");
    let extend = if adds {
        Command::Prolong {
            key: key.clone(),
            by_ms: ms,
        }
    } else {
        Command::Expire {
            key: key.clone(),
            expiry: Expiry::In { ms },
            condition: ExpireIf::HasDeadline,
        }
    };
    let guards = vec![call.guard(key, holds)];
    let extend = vec![call.write(extend)];
    Ok(transaction(guards, extend, Vec::new(), last_or_zero))
}

/// A window begins with the key. In the script a key that was there and held 0 also begins one, but
/// such a key has a window already.
fn count_in_window(call: &Call, key: &Bytes) -> Result<Op, ErrorReply> {
    let seconds = call.number(0)?;
    let by = call.number(1)?;
    let ms = seconds.checked_mul(1000);
    let ms = ms.ok_or(ErrorReply::NOT_AN_INTEGER)?;
    let guards = vec![call.guard(key, Condition::Exists(false))];
    let first = vec![call.add(key, by), call.expire(key, ms)];
    let later = vec![call.add(key, by)];
    Ok(transaction(guards, first, later, first_of))
}

fn count_if_present(call: &Call, key: &Bytes) -> Result<Op, ErrorReply> {
    let guards = vec![call.guard(key, Condition::Exists(true))];
    let count = vec![call.add(key, call.number(0)?)];
    Ok(transaction(guards, count, Vec::new(), first_of))
}

/// A key that counts without a window, as after PERSIST, begins one.
fn hits_and_time(call: &Call, key: &Bytes) -> Result<Op, ErrorReply> {
    let resets = call.args.first().is_some_and(|arg| arg == "1");
    let ms = call.number(1)?;
    let guards = vec![call.guard(key, Condition::HasDeadline(true))];
    let mut count = vec![call.add(key, 1), call.left(key)];
    if resets {
        count.insert(1, call.expire(key, ms));
    }
    let begin = call.write(Command::SetWith {
        key: key.clone(),
        value: Bytes::from_static(b"1"),
        condition: SetIf::Always,
        expiry: Expiry::In { ms },
        get: false,
    });
    let begin = vec![begin, call.left(key)];
    Ok(transaction(guards, count, begin, hits_and_left))
}

fn read_hits_and_time(call: &Call, key: Bytes) -> Op {
    let left = call.left(&key);
    let command = Command::Transaction {
        guards: Vec::new(),
        operations: vec![call.read(Query::Get { key }), left],
        otherwise: Vec::new(),
    };
    Op::Write(command, ReplyFormat::Plain)
}

fn lock_all(call: &Call) -> Result<Op, ErrorReply> {
    let (locks, _) = call.set_all()?;
    let absent = |key| call.guard(key, Condition::Exists(false));
    let guards = call.keys.iter().map(absent).collect();
    Ok(transaction(guards, locks, Vec::new(), count_of))
}

fn extend_all(call: &Call) -> Result<Op, ErrorReply> {
    let (locks, value) = call.set_all()?;
    let held = |key| call.guard(key, equal(value.clone()));
    let guards = call.keys.iter().map(held).collect();
    Ok(transaction(guards, locks, Vec::new(), count_of))
}

fn release_all(call: &Call) -> Result<Op, ErrorReply> {
    let value = Call::needed(&call.args, 0)?;
    let release = |key: &Bytes| {
        call.write(Command::DelIf {
            key: key.clone(),
            condition: SetIf::Equal(value.clone()),
        })
    };
    let releases = call.keys.iter().map(release).collect();
    Ok(transaction(Vec::new(), releases, Vec::new(), sum_of))
}

/// The last step's answer; 0 where the guard did not hold.
fn last_or_zero(value: &ReplyValue) -> ReplyValue {
    match value {
        ReplyValue::Array(values) => values.last().cloned().unwrap_or(ReplyValue::Nil),
        _ => ReplyValue::Integer(0),
    }
}

/// The first step's answer; nothing where the guard did not hold.
fn first_of(value: &ReplyValue) -> ReplyValue {
    match value {
        ReplyValue::Array(values) => values.first().cloned().unwrap_or(ReplyValue::Nil),
        _ => ReplyValue::Nil,
    }
}

/// The count, which is 1 where a window has begun, and what is left of the window.
fn hits_and_left(value: &ReplyValue) -> ReplyValue {
    let ReplyValue::Array(values) = value else {
        return ReplyValue::Nil;
    };
    let hits = match values.first() {
        Some(ReplyValue::Ok) | None => ReplyValue::Integer(1),
        Some(error @ ReplyValue::Error(_)) => return error.clone(),
        Some(hits) => hits.clone(),
    };
    ReplyValue::Array(vec![hits, last_or_zero(value)])
}

/// How many locks were taken.
fn count_of(value: &ReplyValue) -> ReplyValue {
    match value {
        ReplyValue::Array(values) => values
            .iter()
            .find(|value| matches!(value, ReplyValue::Error(_)))
            .cloned()
            .unwrap_or(ReplyValue::Integer(
                i64::try_from(values.len()).unwrap_or(i64::MAX),
            )),
        _ => ReplyValue::Integer(0),
    }
}

/// What the steps have counted together.
fn sum_of(value: &ReplyValue) -> ReplyValue {
    let ReplyValue::Array(values) = value else {
        return ReplyValue::Nil;
    };
    let counts = values.iter().map(|value| match value {
        ReplyValue::Integer(count) => *count,
        _ => 0,
    });
    ReplyValue::Integer(counts.sum())
}
