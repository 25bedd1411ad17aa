//! The words of the scripts: commands, guards, queries and system operations, and how answers are shown.
//! Commands are Redis's where Redis has them; `@3` before a command or query names its database.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use bytes::Bytes;
use memkv_store::{
    Command, Compare, Condition, ExpireIf, Expiry, Guard, KeyEventClasses, Member, MemberChange,
    Query, ReplyValue, Role, Seen, SessionId, SetIf, Step, SystemOp,
};

/// Bytes of a value from which an answer shows only how many they are.
const LONG: usize = 40;

/// Words between blanks; `;`, `,`, `{` and `}` are words of their own.
pub(crate) fn tokens(text: &str) -> Vec<String> {
    let mut spaced = String::new();
    for character in text.chars() {
        match character {
            ';' | ',' | '{' | '}' => spaced.extend([' ', character, ' ']),
            other => spaced.push(other),
        }
    }
    spaced.split_whitespace().map(str::to_owned).collect()
}

/// The lists of words between separators.
pub(crate) fn split(words: &[String], separator: &str) -> Vec<Vec<String>> {
    // A transaction's own separators are within braces.
    let (mut lists, mut depth) = (vec![Vec::new()], 0);
    for word in words {
        depth += i32::from(word == "{") - i32::from(word == "}");
        match word == separator && depth == 0 {
            true => lists.push(Vec::new()),
            false => lists.last_mut().unwrap().push(word.clone()),
        }
    }
    lists
}

pub(crate) fn millis(text: &str) -> Option<u64> {
    match text.strip_suffix('s') {
        Some(seconds) => seconds.parse::<u64>().ok()?.checked_mul(1000),
        None => text.parse().ok(),
    }
}

pub(crate) fn show(value: &ReplyValue) -> String {
    match value {
        ReplyValue::Ok => "+OK".to_owned(),
        ReplyValue::Nil => "nil".to_owned(),
        ReplyValue::Integer(number) => format!(":{number}"),
        ReplyValue::Bulk(bytes) if bytes.len() > LONG => format!("<{} bytes>", bytes.len()),
        ReplyValue::Bulk(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        ReplyValue::Array(items) => {
            let items: Vec<_> = items.iter().map(show).collect();
            format!("[{}]", items.join(", "))
        }
        ReplyValue::Aborted => "aborted".to_owned(),
        ReplyValue::Error(error) => format!("-{error:?}"),
    }
}

/// Takes words off the front. Everything answers none for words that it cannot read.
pub(crate) struct Words<'a> {
    words: &'a [String],
    seen: &'a BTreeMap<String, Seen>,
}

impl<'a> Words<'a> {
    pub(crate) fn new(words: &'a [String], seen: &'a BTreeMap<String, Seen>) -> Self {
        Self { words, seen }
    }

    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    /// Takes the next word if it is this one.
    fn take(&mut self, word: &str) -> bool {
        let is_next = self.words.first().is_some_and(|next| next == word);
        if is_next {
            self.next();
        }
        is_next
    }

    /// A key or a value: `""` is empty, and `x*9` is nine of them.
    fn bytes(&mut self) -> Option<Bytes> {
        let word = self.next()?;
        Some(match word.split_once('*') {
            Some((part, times)) => part.repeat(times.parse().ok()?).into(),
            None if word == "\"\"" => Bytes::new(),
            None => Bytes::copy_from_slice(word.as_bytes()),
        })
    }

    fn all(&mut self) -> Option<Vec<Bytes>> {
        let mut all = Vec::new();
        while !self.words.is_empty() {
            all.push(self.bytes()?);
        }
        Some(all)
    }

    fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.next()?.parse().ok()
    }

    fn done<T>(&self, value: T) -> Option<T> {
        self.words.is_empty().then_some(value)
    }

    fn database(&mut self) -> Option<u8> {
        match self.words.first().and_then(|word| word.strip_prefix('@')) {
            Some(database) => {
                self.next();
                database.parse().ok()
            }
            None => Some(0),
        }
    }

    fn expiry(&mut self) -> Option<Expiry> {
        Some(match () {
            () if self.take("PX") => Expiry::In { ms: self.number()? },
            () if self.take("PXAT") => Expiry::At { ms: self.number()? },
            () if self.take("KEEPTTL") => Expiry::Keep,
            () => Expiry::None,
        })
    }

    fn set_if(&mut self) -> Option<SetIf> {
        Some(match () {
            () if self.take("NX") => SetIf::Absent,
            () if self.take("XX") => SetIf::Present,
            () if self.take("IFEQ") => SetIf::Equal(self.bytes()?),
            () if self.take("IFNE") => SetIf::Differs(self.bytes()?),
            () => SetIf::Always,
        })
    }

    /// `SET key value [condition] [expiry] [GET]`; plain SET has an encoding of its own.
    fn set(&mut self) -> Option<Command> {
        let (key, value) = (self.bytes()?, self.bytes()?);
        if self.words.is_empty() {
            return Some(Command::Set { key, value });
        }
        Some(Command::SetWith {
            key,
            value,
            condition: self.set_if()?,
            expiry: self.expiry()?,
            get: self.take("GET"),
        })
    }

    fn expire(&mut self, at: bool) -> Option<Command> {
        let (key, ms) = (self.bytes()?, self.number()?);
        let condition = match () {
            () if self.take("NX") => ExpireIf::NoDeadline,
            () if self.take("XX") => ExpireIf::HasDeadline,
            () if self.take("GT") => ExpireIf::Later,
            () if self.take("LT") => ExpireIf::Sooner,
            () => ExpireIf::Always,
        };
        let expiry = match at {
            true => Expiry::At { ms },
            false => Expiry::In { ms },
        };
        Some(Command::Expire {
            key,
            expiry,
            condition,
        })
    }

    pub(crate) fn command(&mut self) -> Option<Command> {
        let database = self.database()?;
        let verb = self.next()?;
        let command = match verb {
            "NOOP" => Command::Noop,
            "SET" => self.set()?,
            "DEL" => Command::Del { keys: self.all()? },
            "MSET" | "MSETNX" => {
                let words = self.all()?;
                let pairs = words.chunks_exact(2);
                Command::SetMany {
                    pairs: pairs
                        .map(|pair| (pair[0].clone(), pair[1].clone()))
                        .collect(),
                    if_none_exists: verb == "MSETNX",
                }
            }
            "DELEX" => Command::DelIf {
                key: self.bytes()?,
                condition: self.set_if()?,
            },
            "GETDEL" => Command::GetDel { key: self.bytes()? },
            "GETEX" => Command::GetEx {
                key: self.bytes()?,
                expiry: self.expiry()?,
            },
            "INCRBY" => Command::IncrBy {
                key: self.bytes()?,
                by: self.number()?,
            },
            "APPEND" => Command::Append {
                key: self.bytes()?,
                suffix: self.bytes()?,
            },
            "PEXPIRE" | "PEXPIREAT" => self.expire(verb == "PEXPIREAT")?,
            "PROLONG" => Command::Prolong {
                key: self.bytes()?,
                by_ms: self.number()?,
            },
            "PERSIST" => Command::Persist { key: self.bytes()? },
            "RENAME" | "RENAMENX" => Command::Rename {
                from: self.bytes()?,
                to: self.bytes()?,
                if_absent: verb == "RENAMENX",
            },
            "COPY" => Command::Copy {
                from: self.bytes()?,
                to: self.bytes()?,
                to_database: self.database()?,
                replace: self.take("REPLACE"),
            },
            "FLUSHALL" => Command::FlushAll,
            "FLUSHDB" => Command::FlushDatabase,
            "CAS" => Command::CompareAndSet {
                key: self.bytes()?,
                revision: self.number()?,
                value: self.bytes()?,
                expiry: self.expiry()?,
            },
            "DELREV" => Command::DelRevision {
                key: self.bytes()?,
                revision: self.number()?,
            },
            "ANNOUNCE" => Command::Announce {
                classes: KeyEventClasses::parse(&self.bytes()?)?,
            },
            "EXEC" => self.transaction()?,
            _ => return None,
        };
        self.done(command.in_database(database))
    }

    /// `EXEC guard, guard { step, step } else { step }`.
    fn transaction(&mut self) -> Option<Command> {
        let open = self.words.iter().position(|word| word == "{")?;
        let (guards, rest) = self.words.split_at(open);
        self.words = rest;
        let guards = split(guards, ",");
        let guards = guards.iter().filter(|words| !words.is_empty());
        let guards = guards.map(|words| Words::new(words, self.seen).guard());
        let guards = guards.collect::<Option<_>>()?;
        let operations = self.block()?;
        let otherwise = match self.take("else") {
            true => self.block()?,
            false => vec![],
        };
        Some(Command::Transaction {
            guards,
            operations,
            otherwise,
        })
    }

    fn block(&mut self) -> Option<Vec<Step>> {
        let close = self.words.iter().position(|word| word == "}")?;
        let steps = split(self.words.get(1..close)?, ",");
        self.words = self.words.get(close + 1..)?;
        let step = |words: &Vec<String>| {
            let command = Words::new(words, self.seen).command().map(Step::Write);
            command.or_else(|| Words::new(words, self.seen).query().map(Step::Read))
        };
        steps
            .iter()
            .filter(|words| !words.is_empty())
            .map(step)
            .collect()
    }

    fn guard(&mut self) -> Option<Guard> {
        let database = self.database()?;
        let verb = self.next()?;
        let seen = match verb {
            "unchanged" => Some(*self.seen.get(self.next()?)?),
            _ => None,
        };
        let key = self.bytes()?;
        let compare = |word: &str| {
            Some(match word {
                "=" => Compare::Equal,
                "!=" => Compare::NotEqual,
                "<" => Compare::Less,
                ">" => Compare::Greater,
                _ => return None,
            })
        };
        let holds = match verb {
            "unchanged" => Condition::Unchanged(seen?),
            "exists" => Condition::Exists(true),
            "absent" => Condition::Exists(false),
            "deadline" => Condition::HasDeadline(true),
            "value" => Condition::Value(compare(self.next()?)?, self.bytes()?),
            "modified" => Condition::ModRevision(compare(self.next()?)?, self.number()?),
            "created" => Condition::CreateRevision(compare(self.next()?)?, self.number()?),
            _ => return None,
        };
        self.done(Guard {
            database,
            key,
            holds,
        })
    }

    pub(crate) fn query(&mut self) -> Option<Query> {
        let database = self.database()?;
        let verb = self.next()?;
        let query = match verb {
            "GET" => Query::Get { key: self.bytes()? },
            "MGET" => Query::GetMany { keys: self.all()? },
            "EXISTS" => Query::Exists { keys: self.all()? },
            "STRLEN" => Query::StrLen { key: self.bytes()? },
            "TTL" | "PTTL" | "PEXPIRETIME" => Query::Ttl {
                key: self.bytes()?,
                seconds: verb == "TTL",
                absolute: verb == "PEXPIRETIME",
            },
            "DBSIZE" => Query::DbSize,
            _ => return None,
        };
        self.done(query.in_database(database))
    }

    /// A node or a session: its number, or the name of its session.
    fn id(&mut self, sessions: &BTreeMap<String, SessionId>) -> Option<u64> {
        let word = self.next()?;
        sessions.get(word).copied().or_else(|| word.parse().ok())
    }

    fn role(&mut self) -> Option<Role> {
        let word = self.next()?;
        [Role::Voter, Role::Replica]
            .into_iter()
            .find(|role| role.name() == word)
    }

    pub(crate) fn system(&mut self, sessions: &BTreeMap<String, SessionId>) -> Option<SystemOp> {
        let operation = match self.next()? {
            // Names and levels; ids are counted from 1.
            "form" => {
                let level = self.number()?;
                let names = (1..).zip(self.words);
                let members = names.map(|(id, name)| Member {
                    id,
                    name: name.clone(),
                    addr: format!("{name}:1"),
                    pending: false,
                });
                let members = members.collect();
                self.words = &[];
                SystemOp::Form {
                    cluster: [9; 16],
                    durability_sync: true,
                    level,
                    members,
                    users: vec![],
                }
            }
            "open" => {
                let (node, boot, highest) = (self.number()?, self.number()?, self.number()?);
                if self.take("as") {
                    self.next()?;
                }
                SystemOp::OpenSession {
                    node,
                    boot,
                    highest,
                }
            }
            "close" => SystemOp::CloseSession {
                session: self.id(sessions)?,
            },
            "admit" => SystemOp::AdmitNode {
                name: self.next()?.to_owned(),
                addr: self.next()?.to_owned(),
                nonce: self.number()?,
                highest: self.number()?,
            },
            "replace" => SystemOp::ReplaceNode {
                old: self.number()?,
                new: self.number()?,
            },
            "remove" => SystemOp::RemoveNode {
                node: self.number()?,
            },
            "give-up" => SystemOp::GiveUpSeat {
                node: self.number()?,
            },
            "join" => SystemOp::Members(MemberChange::Admit {
                name: self.next()?.to_owned(),
                addr: self.next()?.to_owned(),
                nonce: self.number()?,
                highest: self.number()?,
                role: self.role()?,
                listed: self.take("listed"),
            }),
            "settle" => SystemOp::Members(MemberChange::Settle {
                node: self.number()?,
            }),
            "role" => SystemOp::Members(MemberChange::SetRole {
                node: self.number()?,
                role: self.role()?,
            }),
            "leave" => SystemOp::Members(MemberChange::Leave {
                node: self.number()?,
            }),
            "hand-over" => SystemOp::Members(MemberChange::HandOver {
                old: self.number()?,
                new: self.number()?,
            }),
            "expect" => SystemOp::Members(MemberChange::Expect {
                name: self.next()?.to_owned(),
                role: self.role()?,
            }),
            "forget" => SystemOp::Members(MemberChange::Forget {
                name: self.next()?.to_owned(),
            }),
            "address" => SystemOp::SetAddress {
                node: self.number()?,
                addr: self.next()?.to_owned(),
            },
            "raise" => {
                let to = self.number()?;
                let ids: Option<Vec<u64>> = self.words.iter().map(|id| id.parse().ok()).collect();
                self.words = &[];
                SystemOp::RaiseLevel { to, ids: ids? }
            }
            _ => return None,
        };
        self.done(operation)
    }
}
