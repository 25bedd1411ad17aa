//! A command of many keys that is executed piece by piece: MSET, MSETNX and DEL, in any database.
//!
//! It is read in place from the log. `keyspace::before` hides its parts from readers. Invariant: for any
//! pieces, its changes and its answer are those of execution at once (see `set::SetMany` and
//! `del::Del`).

use bytes::{Buf, Bytes};

use super::codec::{IN_DATABASE, read_database};
use super::work::{KEY, copied};
use super::{Context, check_key, check_value, del, key_count, set};
use crate::encoding::Reader;
use crate::keyspace::Keyspace;
use crate::{ReplyError, ReplyValue, Revision};

/// Keys between two checks of the remaining room: some microseconds.
const AT_ONCE: usize = if cfg!(memkv_bugs) { 2 } else { 64 };

#[derive(Debug)]
pub(crate) struct Many {
    database: u8,
    what: What,
    count: usize,
    /// The remaining keys or pairs.
    rest: Bytes,
    /// The revision that it makes, once it has begun.
    revision: Revision,
    changed: bool,
    removed: i64,
    /// It began at the memory cap, and sets keys.
    is_refused: bool,
}

#[derive(Debug)]
enum What {
    /// The first pass of MSETNX: none of the keys may exist. Then come all of its pairs.
    Look {
        pairs: Bytes,
    },
    Set {
        if_none_exists: bool,
    },
    Del,
}

/// One of its keys, with a value where it sets.
struct Next<'a> {
    key: &'a [u8],
    value: &'a [u8],
}

impl Many {
    /// Reads a command of the log that can be executed in pieces. Nothing for another one, or one that is
    /// beyond its limits, which changes nothing.
    pub(crate) fn read(command: &Bytes) -> Option<Many> {
        let mut body = Reader::new(command);
        let mut opcode = body.u8("command").ok()?;
        let mut database = 0;
        if opcode == IN_DATABASE {
            database = read_database(&mut body).ok()?;
            opcode = body.u8("command").ok()?;
        }
        let what = match opcode {
            set::MANY_OPCODE => What::Set {
                if_none_exists: body.bool("whether none may exist").ok()?,
            },
            del::OPCODE => What::Del,
            _ => return None,
        };
        let count = key_count(&mut body, "number of keys").ok()?;
        let rest = command.slice_ref(body.rest());
        let what = match what {
            What::Set {
                if_none_exists: true,
            } => What::Look {
                pairs: rest.clone(),
            },
            what => what,
        };
        // A DEL takes a revision even if none of its keys existed.
        let changed = matches!(what, What::Del);
        let mut all = Reader::new(&rest);
        while let Some(Next { key, value }) = what.next(&mut all) {
            check_key(key).and_then(|()| check_value(value)).ok()?;
        }
        Some(Many {
            database,
            what,
            count,
            rest,
            revision: 0,
            changed,
            removed: 0,
            is_refused: false,
        })
    }

    /// Begins it in a store of revision `last`, whose readers see the state before it from now on.
    pub(crate) fn begin(&mut self, keys: &mut Keyspace, last: Revision) {
        self.revision = last + 1;
        self.is_refused = keys.is_at_cap() && self.may_grow();
        keys.begin_pieces(last, self.count);
    }

    /// Whether it may raise the cost of the keys.
    pub(crate) fn may_grow(&self) -> bool {
        !matches!(self.what, What::Del)
    }

    /// The revision of the store, now that it is done.
    pub(crate) fn revision(&self, last: Revision) -> Revision {
        match self.changed {
            true => self.revision,
            false => last,
        }
    }

    /// Executes some of it, at least a few keys, and subtracts their work from `room`, in units of `work`.
    /// Returns its answer once it is complete.
    pub(crate) fn go_on(&mut self, keys: &mut Keyspace, room: &mut u64) -> Option<ReplyValue> {
        if self.is_refused {
            return Some(ReplyValue::Error(ReplyError::OutOfMemory));
        }
        loop {
            let mut work = 0;
            let mut rest = Reader::new(&self.rest);
            let mut context = Context::of(keys, self.database, self.revision);
            let mut is_refused = false;
            for _ in 0..AT_ONCE {
                let Some(Next { key, value }) = self.what.next(&mut rest) else {
                    break;
                };
                work += KEY + copied(value.len());
                match self.what {
                    What::Look { .. } => is_refused |= context.get(key).is_some(),
                    What::Set { .. } => set::one_of_many(&mut context, key, value),
                    What::Del => self.removed += i64::from(del::del(&mut context, key)),
                }
            }
            self.changed |= context.changed;
            let left = rest.rest().len();
            self.rest.advance(self.rest.len() - left);
            *room = room.saturating_sub(work);
            if is_refused {
                return Some(ReplyValue::Integer(0));
            }
            if left == 0 {
                match &self.what {
                    What::Look { pairs } => {
                        self.rest = pairs.clone();
                        self.what = What::Set {
                            if_none_exists: true,
                        };
                    }
                    What::Set { if_none_exists } => return Some(set::answer(*if_none_exists)),
                    What::Del => return Some(ReplyValue::Integer(self.removed)),
                }
            }
            if *room == 0 && !keys.must_end() {
                return None;
            }
        }
    }
}

impl What {
    fn next<'a>(&self, rest: &mut Reader<'a>) -> Option<Next<'a>> {
        let key = rest.prefixed("key").ok()?;
        let value = match self {
            What::Del => &[],
            What::Look { .. } | What::Set { .. } => rest.prefixed("value").ok()?,
        };
        Some(Next { key, value })
    }
}
