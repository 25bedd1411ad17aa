//! The scripts that memkv recognises: locks and rate limits of common libraries. Compared token by
//! token, so that comments, white space, kinds of quotes and the case of command names do not
//! matter; anything else makes it another script.
//!
//! Each is one command or one transaction, decided by guards when it is applied: nothing is read
//! before it is written.

use bytes::Bytes;
use memkv_resp::parse_integer;
use memkv_store::{
    Command, Compare, Condition, ExpireIf, Expiry, Guard, Query, ReplyValue, SetIf, Step,
};

use super::sha1;
use crate::commands::{ErrorReply, Op, ReplyFormat};

/// A script that is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Deletes a lock that one holds.
    DeleteIfEqual,
    /// Lets a lock that one holds last longer: 1 or 0.
    ExpireIfEqual,
    /// Lets a lock that one holds, and that expires, last longer by a time, or for a time given
    /// anew: 1 or 0.
    ExtendIfEqual,
    /// Counts, and begins a window with the first one.
    CountInWindow,
    /// Counts what is there already.
    CountIfPresent,
    /// Counts within a window, and tells what is left of it.
    HitsAndTime,
    /// Tells a count and what is left of its window.
    ReadHitsAndTime,
    /// Takes several locks or none.
    LockAll,
    /// Lets several locks that one holds last for a time, or none.
    ExtendAll,
    /// Deletes those of several locks that one holds.
    ReleaseAll,
}

/// Each text as the libraries have it, and what it is.
const SCRIPTS: &[(Known, &str)] = &[
    (
        Known::DeleteIfEqual,
        "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) \
         else return 0 end",
    ),
    (
        Known::DeleteIfEqual,
        "local token = redis.call('get', KEYS[1]) if not token or token ~= ARGV[1] then return 0 \
         end redis.call('del', KEYS[1]) return 1",
    ),
    (
        Known::ExpireIfEqual,
        "if redis.call('get', KEYS[1]) == ARGV[1] then \
         return redis.call('pexpire', KEYS[1], ARGV[2]) else return 0 end",
    ),
    (
        Known::ExpireIfEqual,
        "local token = redis.call('get', KEYS[1]) if not token or token ~= ARGV[1] then return 0 \
         end redis.call('pexpire', KEYS[1], ARGV[2]) return 1",
    ),
    (
        Known::ExtendIfEqual,
        "local token = redis.call('get', KEYS[1]) if not token or token ~= ARGV[1] then return 0 \
         end local expiration = redis.call('pttl', KEYS[1]) \
         if not expiration then expiration = 0 end if expiration < 0 then return 0 end \
         local newttl = ARGV[2] if ARGV[3] == '0' then newttl = ARGV[2] + expiration end \
         redis.call('pexpire', KEYS[1], newttl) return 1",
    ),
    (
        Known::CountInWindow,
        "local current local amount = tonumber(ARGV[2]) \
         current = redis.call('incrby', KEYS[1], amount) \
         if tonumber(current) == amount then redis.call('expire', KEYS[1], ARGV[1]) end \
         return current",
    ),
    (
        Known::CountIfPresent,
        "local exists = redis.call('EXISTS', KEYS[1]) \
         if (exists == 1) then return redis.call('INCRBY', KEYS[1], ARGV[1]) \
         else return false end",
    ),
    (
        Known::HitsAndTime,
        "local windowMs = tonumber(ARGV[2]) local resetOnChange = ARGV[1] == '1' \
         local timeToExpire = redis.call('PTTL', KEYS[1]) \
         if timeToExpire <= 0 then redis.call('SET', KEYS[1], 1, 'PX', windowMs) \
         return { 1, windowMs } end \
         local totalHits = redis.call('INCR', KEYS[1]) \
         if resetOnChange then redis.call('PEXPIRE', KEYS[1], windowMs) \
         timeToExpire = windowMs end \
         return { totalHits, timeToExpire }",
    ),
    (
        Known::ReadHitsAndTime,
        "local totalHits = redis.call('GET', KEYS[1]) \
         local timeToExpire = redis.call('PTTL', KEYS[1]) \
         return { totalHits, timeToExpire }",
    ),
    (
        Known::LockAll,
        "for i, key in ipairs(KEYS) do if redis.call('exists', key) == 1 then return 0 end end \
         for i, key in ipairs(KEYS) do redis.call('set', key, ARGV[1], 'PX', ARGV[2]) end \
         return #KEYS",
    ),
];

/// The same for those of node-redlock 4 and 5: the hash of their words, with a line end between two.
const HASHES: &[(Known, &str)] = &[
    (Known::ExtendAll, "7014978c03d212587caaae9073b9811612787533"),
    (
        Known::ReleaseAll,
        "35d081ad57a15445bbc90a391052066378df3f87",
    ),
];

/// Which script a text is.
pub(super) fn recognise(text: &[u8]) -> Option<Known> {
    let tokens = tokens(text)?;
    let is_it = |(_, known): &&(Known, &str)| tokens_of(known) == tokens;
    if let Some((script, _)) = SCRIPTS.iter().find(is_it) {
        return Some(*script);
    }
    let hash = sha1::hex(&tokens.join(&b'\n'));
    let is_it = |(_, known): &&(Known, &str)| *known == hash;
    HASHES.iter().find(is_it).map(|(script, _)| *script)
}

fn tokens_of(known: &str) -> Vec<Vec<u8>> {
    tokens(known.as_bytes()).unwrap_or_default()
}

/// Splits Lua into words, strings (in lower case, between double quotes) and single characters,
/// without comments. Nothing for what no script in the list has, such as escapes.
fn tokens(mut text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut tokens = Vec::new();
    while let Some(&first) = text.first() {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let length = if first.is_ascii_whitespace() || first == b';' {
            text = &text[1..];
            continue;
        } else if text.starts_with(b"--[[") {
            return None;
        } else if text.starts_with(b"--") {
            let end = text.iter().position(|byte| *byte == b'\n');
            text = &text[end.unwrap_or(text.len())..];
            continue;
        } else if is_word(&first) {
            text.iter()
                .position(|byte| !is_word(byte))
                .unwrap_or(text.len())
        } else if matches!(first, b'"' | b'\'') {
            let inner = text[1..].iter().position(|byte| *byte == first)?;
            let string = text[1..=inner].to_ascii_lowercase();
            if string.contains(&b'\\') || string.contains(&b'\n') {
                return None;
            }
            tokens.push([b"\"", &string[..], b"\""].concat());
            text = &text[inner + 2..];
            continue;
        } else {
            1
        };
        tokens.push(text[..length].to_vec());
        text = &text[length..];
    }
    Some(tokens)
}

/// The keys and arguments of a call.
pub(super) struct Call {
    pub(super) keys: Vec<Bytes>,
    pub(super) args: Vec<Bytes>,
    pub(super) db: u8,
}

impl Call {
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

    /// Steps that set all keys to the first argument for as many milliseconds as the second one says,
    /// and that value.
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

impl Known {
    /// What the call executes.
    pub(super) fn plan(self, call: &Call) -> Result<Op, ErrorReply> {
        let key = Call::needed(&call.keys, 0)?;
        let equal = |value| Condition::Value(Compare::Equal, value);
        let transaction = |guards, operations, otherwise| Command::Transaction {
            guards,
            operations,
            otherwise,
        };
        let in_ms = |ms| Expiry::In { ms };
        let expire = |expiry| Command::Expire {
            key: key.clone(),
            expiry,
            condition: ExpireIf::Always,
        };
        let add = |by| Command::IncrBy {
            key: key.clone(),
            by,
        };
        let left = || Query::Ttl {
            key: key.clone(),
            seconds: false,
            absolute: false,
        };
        Ok(match self {
            Self::DeleteIfEqual => {
                let condition = SetIf::Equal(Call::needed(&call.args, 0)?);
                Op::Write(Command::DelIf { key, condition }, ReplyFormat::Plain)
            }
            Self::ExpireIfEqual => {
                let holds = equal(Call::needed(&call.args, 0)?);
                let operation = call.write(expire(in_ms(call.number(1)?)));
                let guards = vec![call.guard(&key, holds)];
                let command = transaction(guards, vec![operation], Vec::new());
                Op::Write(command, ReplyFormat::Script(last_or_zero))
            }
            Self::ExtendIfEqual => {
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
                        expiry: in_ms(ms),
                        condition: ExpireIf::HasDeadline,
                    }
                };
                let guards = vec![call.guard(&key, holds)];
                let command = transaction(guards, vec![call.write(extend)], Vec::new());
                Op::Write(command, ReplyFormat::Script(last_or_zero))
            }
            // A window begins with the key. That a key was there and held 0 also begins one in
            // the script, but such a key has a window already.
            Self::CountInWindow => {
                let seconds = call.number(0)?;
                let by = call.number(1)?;
                let ms = seconds
                    .checked_mul(1000)
                    .ok_or(ErrorReply::NOT_AN_INTEGER)?;
                let guards = vec![call.guard(&key, Condition::Exists(false))];
                let first = vec![call.write(add(by)), call.write(expire(in_ms(ms)))];
                let later = vec![call.write(add(by))];
                Op::Write(
                    transaction(guards, first, later),
                    ReplyFormat::Script(first_of),
                )
            }
            Self::CountIfPresent => {
                let guards = vec![call.guard(&key, Condition::Exists(true))];
                let operation = call.write(add(call.number(0)?));
                let command = transaction(guards, vec![operation], Vec::new());
                Op::Write(command, ReplyFormat::Script(first_of))
            }
            // What counts without a window, as after PERSIST, begins one.
            Self::HitsAndTime => {
                let resets = call.args.first().is_some_and(|arg| arg == "1");
                let window = in_ms(call.number(1)?);
                let guards = vec![call.guard(&key, Condition::HasDeadline(true))];
                let begin = Command::SetWith {
                    key: key.clone(),
                    value: Bytes::from_static(b"1"),
                    condition: SetIf::Always,
                    expiry: window,
                    get: false,
                };
                let mut count = vec![call.write(add(1)), call.read(left())];
                if resets {
                    count.insert(1, call.write(expire(window)));
                }
                let begin = vec![call.write(begin), call.read(left())];
                Op::Write(
                    transaction(guards, count, begin),
                    ReplyFormat::Script(hits_and_time),
                )
            }
            Self::ReadHitsAndTime => {
                let get = Query::Get { key: key.clone() };
                let steps = vec![call.read(get), call.read(left())];
                let command = transaction(Vec::new(), steps, Vec::new());
                Op::Write(command, ReplyFormat::Plain)
            }
            Self::LockAll => {
                let (locks, _) = call.set_all()?;
                let absent = |key| call.guard(key, Condition::Exists(false));
                let guards = call.keys.iter().map(absent).collect();
                let command = transaction(guards, locks, Vec::new());
                Op::Write(command, ReplyFormat::Script(count_of))
            }
            Self::ExtendAll => {
                let (locks, value) = call.set_all()?;
                let held = |key| call.guard(key, equal(value.clone()));
                let guards = call.keys.iter().map(held).collect();
                let command = transaction(guards, locks, Vec::new());
                Op::Write(command, ReplyFormat::Script(count_of))
            }
            Self::ReleaseAll => {
                let value = Call::needed(&call.args, 0)?;
                let release = |key: &Bytes| {
                    call.write(Command::DelIf {
                        key: key.clone(),
                        condition: SetIf::Equal(value.clone()),
                    })
                };
                let releases = call.keys.iter().map(release).collect();
                let command = transaction(Vec::new(), releases, Vec::new());
                Op::Write(command, ReplyFormat::Script(sum_of))
            }
        })
    }
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
fn hits_and_time(value: &ReplyValue) -> ReplyValue {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_is_recognised_as_itself() {
        for (known, text) in SCRIPTS {
            assert_eq!(recognise(text.as_bytes()), Some(*known), "{text}");
        }
    }

    #[test]
    fn only_what_means_nothing_may_differ() {
        let same = "\n  if redis.call(\"GET\",KEYS[1]) == ARGV[1] then -- mine\n return \
                    redis.call(\"del\",KEYS[1]);\n else\n return 0\n end\n";
        assert_eq!(recognise(same.as_bytes()), Some(Known::DeleteIfEqual));
        for other in [
            same.replace("ARGV[1]", "ARGV[2]"),
            same.replace("return 0", "return 1"),
            same.replace("\"del\"", "\"unlink\""),
            same.replace("mine\n", "mine "),
            same.replace("\"GET\"", "\"GE\\84\""),
            format!("{same} return 2"),
            String::new(),
            "'".to_owned(),
        ] {
            assert_eq!(recognise(other.as_bytes()), None, "{other}");
        }
    }
}
