//! A keyspace that is too simple to be wrong: one ordered map, whole values, no index, no table.
//!
//! It says what every command answers and leaves behind, and what every query finds, in the words
//! of Redis's documentation. INCRBYFLOAT it does not know: tests of its own compare with Redis.

use std::collections::BTreeMap;

use bytes::Bytes;
use memkv_store::{
    Command, Compare, Condition, ExpireIf, Expiry, Guard, Query, Reply, ReplyError, ReplyValue,
    Seen, SetIf, Step, Store,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    value: Vec<u8>,
    created: u64,
    modified: u64,
    deadline: Option<u64>,
}

type Location = (u8, Bytes);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reference {
    keys: BTreeMap<Location, Key>,
    /// When each key was last written or deleted.
    touched: BTreeMap<Location, u64>,
    flushed: [u64; 16],
    pub(crate) revision: u64,
    pub(crate) stamp: u64,
    expired: u64,
    changed: bool,
    /// 0 for none.
    cap: u64,
}

use ReplyValue::{Integer, Nil, Ok as Done};

impl Reference {
    /// A new entry: keys that are due are removed, all at one revision.
    pub(crate) fn advance(&mut self, stamp: u64) {
        self.stamp = self.stamp.max(stamp);
        let due = |key: &Key| key.deadline.is_some_and(|at| at <= self.stamp);
        let due = self.keys.iter().filter(|(_, key)| due(key));
        let due: Vec<Location> = due.map(|(location, _)| location.clone()).collect();
        self.expired += due.len() as u64;
        self.revision += u64::from(!due.is_empty());
        for location in due {
            self.keys.remove(&location);
            self.touched.insert(location, self.revision);
        }
    }

    /// What the keys cost: their lengths and 96 bytes each.
    pub(crate) fn cost(&self) -> u64 {
        let of = |((_, key), found): (&Location, &Key)| key.len() + found.value.len() + 96;
        self.keys.iter().map(of).sum::<usize>() as u64
    }

    fn is_at_cap(&self) -> bool {
        self.cap > 0 && self.cost() >= self.cap
    }

    pub(crate) fn execute(&mut self, command: &Command) -> Reply {
        let is_transaction = matches!(command, Command::Transaction { .. });
        let value = match self.is_at_cap() && command.may_grow() && !is_transaction {
            true => ReplyValue::Error(ReplyError::OutOfMemory),
            false => self.run(command),
        };
        Reply {
            revision: self.revision,
            value,
        }
    }

    fn run(&mut self, command: &Command) -> ReplyValue {
        if let Command::Transaction {
            guards,
            operations,
            otherwise,
        } = command
        {
            let (mark, steps) = match guards.iter().all(|guard| self.holds(guard)) {
                true => (None, operations),
                false if otherwise.is_empty() => return ReplyValue::Aborted,
                false => (Some(ReplyValue::Aborted), otherwise),
            };
            let may_grow = |step: &Step| matches!(step, Step::Write(write) if write.may_grow());
            if self.is_at_cap() && steps.iter().any(may_grow) {
                return ReplyValue::Error(ReplyError::OutOfMemory);
            }
            let answers = steps.iter().map(|step| match step {
                Step::Write(command) => self.run(command),
                Step::Read(query) => self.answer(query, self.stamp),
            });
            return ReplyValue::Array(mark.into_iter().chain(answers).collect());
        }
        let (db, command) = match command {
            Command::InDatabase { database, command } => (*database, &**command),
            command => (0, command),
        };
        self.changed = false;
        let result = self.write(db, command);
        self.revision += u64::from(self.changed);
        result.unwrap_or_else(ReplyValue::Error)
    }

    fn get(&self, db: u8, key: &Bytes) -> Option<&Key> {
        self.keys.get(&(db, key.clone()))
    }

    fn put(&mut self, db: u8, key: &Bytes, value: impl Into<Vec<u8>>, deadline: Option<u64>) {
        let modified = self.revision + 1;
        let new = Key {
            value: value.into(),
            created: self.get(db, key).map_or(modified, |old| old.created),
            modified,
            deadline,
        };
        self.keys.insert((db, key.clone()), new);
        self.touched.insert((db, key.clone()), modified);
        self.changed = true;
    }

    fn remove(&mut self, db: u8, key: &Bytes) -> bool {
        let there = self.keys.remove(&(db, key.clone())).is_some();
        if there {
            self.touched.insert((db, key.clone()), self.revision + 1);
            self.changed = true;
        }
        there
    }

    fn flush(&mut self, db: u8) {
        if self.keys.keys().any(|(of, _)| *of == db) {
            self.keys.retain(|(of, _), _| *of != db);
            self.flushed[usize::from(db)] = self.revision + 1;
            self.changed = true;
        }
    }

    /// Writes the value, which is gone at once if its time has passed.
    fn put_until(&mut self, db: u8, key: &Bytes, value: Vec<u8>, deadline: Option<i128>) {
        match deadline {
            Some(at) if at <= i128::from(self.stamp) => {
                self.put(db, key, value, None);
                self.remove(db, key);
            }
            at => self.put(db, key, value, at.map(|at| at as u64)),
        }
    }

    fn absolute(&self, expiry: Expiry, old: Option<u64>) -> Result<Option<i128>, ReplyError> {
        let at = match expiry {
            Expiry::None => return Ok(None),
            Expiry::Keep => return Ok(old.map(i128::from)),
            Expiry::In { ms } => i128::from(self.stamp) + i128::from(ms),
            Expiry::At { ms } => i128::from(ms),
        };
        if at > i128::from(i64::MAX) {
            return Err(ReplyError::InvalidExpireTime);
        }
        Ok(Some(at))
    }

    fn positive(&self, expiry: Expiry, old: Option<u64>) -> Result<Option<i128>, ReplyError> {
        match expiry {
            Expiry::In { ms } | Expiry::At { ms } if ms <= 0 => Err(ReplyError::InvalidExpireTime),
            expiry => self.absolute(expiry, old),
        }
    }

    fn write(&mut self, db: u8, command: &Command) -> Result<ReplyValue, ReplyError> {
        let bulk = |old: Option<Key>| old.map_or(Nil, |old| ReplyValue::Bulk(old.value.into()));
        let met = |condition: &SetIf, old: Option<&Key>| match condition {
            SetIf::Always => true,
            SetIf::Absent => old.is_none(),
            SetIf::Present => old.is_some(),
            SetIf::Equal(value) => old.is_some_and(|old| old.value == *value),
            SetIf::Differs(value) => old.is_none_or(|old| old.value != *value),
        };
        Ok(match command {
            Command::Noop | Command::Tick | Command::Announce { .. } => Done,
            Command::SetMemory { cap, .. } => {
                self.cap = cap.unwrap_or(self.cap);
                Done
            }
            Command::SetUser { .. } | Command::DelUsers { .. } | Command::InitUsers { .. } => {
                unreachable!("no test of keys changes users")
            }
            Command::Set { key, value } => {
                self.put(db, key, &value[..], None);
                Done
            }
            Command::Del { keys } => {
                let gone = keys.iter().filter(|key| self.remove(db, key)).count();
                self.changed = true;
                Integer(gone as i64)
            }
            Command::SetWith {
                key,
                value,
                condition,
                expiry,
                get,
            } => {
                let old = self.get(db, key).cloned();
                let deadline = self.positive(*expiry, old.as_ref().and_then(|old| old.deadline))?;
                let met = met(condition, old.as_ref());
                if met {
                    self.put_until(db, key, value.to_vec(), deadline);
                }
                match (get, met) {
                    (true, _) => bulk(old),
                    (false, true) => Done,
                    (false, false) => Nil,
                }
            }
            Command::SetMany {
                pairs,
                if_none_exists,
            } => {
                if *if_none_exists && pairs.iter().any(|(key, _)| self.get(db, key).is_some()) {
                    return Ok(Integer(0));
                }
                for (key, value) in pairs {
                    self.put(db, key, &value[..], None);
                }
                if *if_none_exists { Integer(1) } else { Done }
            }
            Command::DelIf { key, condition } => {
                let met = met(condition, self.get(db, key));
                Integer((met && self.remove(db, key)).into())
            }
            Command::GetDel { key } => {
                let old = self.get(db, key).cloned();
                self.remove(db, key);
                bulk(old)
            }
            Command::GetEx { key, expiry } => {
                let Some(old) = self.get(db, key).cloned() else {
                    return Ok(Nil);
                };
                let deadline = self.positive(*expiry, old.deadline)?;
                let same =
                    *expiry == Expiry::Keep || *expiry == Expiry::None && old.deadline.is_none();
                if !same {
                    self.put_until(db, key, old.value.clone(), deadline);
                }
                bulk(Some(old))
            }
            Command::IncrBy { key, by } => {
                let old = self.get(db, key).cloned();
                let text = old.as_ref().map_or("0".into(), |old| text(&old.value));
                let number: i64 = text.parse().map_err(|_| ReplyError::NotAnInteger)?;
                if number.to_string() != text {
                    return Err(ReplyError::NotAnInteger);
                }
                let sum = number.checked_add(*by).ok_or(ReplyError::Overflow)?;
                self.put(db, key, sum.to_string(), old.and_then(|old| old.deadline));
                Integer(sum)
            }
            Command::Append { key, suffix } => {
                let old = self.get(db, key).cloned();
                let deadline = old.as_ref().and_then(|old| old.deadline);
                let new = [&old.map_or(vec![], |old| old.value)[..], suffix].concat();
                self.put(db, key, new.clone(), deadline);
                Integer(new.len() as i64)
            }
            Command::SetRange { key, offset, patch } => {
                let old = self.get(db, key).cloned();
                let deadline = old.as_ref().and_then(|old| old.deadline);
                let mut value = old.map_or(vec![], |old| old.value);
                if !patch.is_empty() {
                    let end = offset.saturating_add(patch.len() as u64);
                    if end > memkv_store::MAX_VALUE_BYTES_CEILING as u64 {
                        return Err(ReplyError::StringTooLong);
                    }
                    value.resize(value.len().max(end as usize), 0);
                    value[*offset as usize..end as usize].copy_from_slice(patch);
                    self.put(db, key, value.clone(), deadline);
                }
                Integer(value.len() as i64)
            }
            Command::Expire {
                key,
                expiry,
                condition,
            } => {
                let at = self.absolute(*expiry, None)?;
                let Some(old) = self.get(db, key).cloned() else {
                    return Ok(Integer(0));
                };
                let Some(at) = at else {
                    let persists = *expiry == Expiry::None && old.deadline.is_some();
                    if persists {
                        self.put(db, key, old.value, None);
                    }
                    return Ok(Integer(persists.into()));
                };
                let infinity = i128::MAX;
                let current = old.deadline.map_or(infinity, i128::from);
                let met = match condition {
                    ExpireIf::Always => true,
                    ExpireIf::NoDeadline => current == infinity,
                    ExpireIf::HasDeadline => current != infinity,
                    ExpireIf::Later => at > current,
                    ExpireIf::Sooner => at < current,
                    ExpireIf::HasDeadlineSooner => current != infinity && at < current,
                };
                if met {
                    self.put_until(db, key, old.value, Some(at));
                }
                Integer(met.into())
            }
            Command::Prolong { key, by_ms } => {
                let Some(old) = self.get(db, key).cloned() else {
                    return Ok(Integer(0));
                };
                let Some(deadline) = old.deadline else {
                    return Ok(Integer(0));
                };
                let at = i128::from(deadline) + i128::from(*by_ms);
                if at > i128::from(i64::MAX) {
                    return Err(ReplyError::InvalidExpireTime);
                }
                self.put_until(db, key, old.value, Some(at));
                Integer(1)
            }
            Command::Persist { key } => {
                let command = Command::Expire {
                    key: key.clone(),
                    expiry: Expiry::None,
                    condition: ExpireIf::Always,
                };
                return self.write(db, &command);
            }
            Command::Rename {
                from,
                to,
                if_absent,
            } => {
                let old = self.get(db, from).cloned().ok_or(ReplyError::NoSuchKey)?;
                if *if_absent && self.get(db, to).is_some() {
                    return Ok(Integer(0));
                }
                if from != to {
                    self.remove(db, from);
                    self.put(db, to, old.value, old.deadline);
                }
                if *if_absent { Integer(1) } else { Done }
            }
            Command::Copy {
                from,
                to,
                to_database,
                replace,
            } => {
                let Some(old) = self.get(db, from).cloned() else {
                    return Ok(Integer(0));
                };
                let same = (db, from) == (*to_database, to);
                if same || !replace && self.get(*to_database, to).is_some() {
                    return Ok(Integer(0));
                }
                self.put(*to_database, to, old.value, old.deadline);
                Integer(1)
            }
            Command::FlushAll => {
                (0..16).for_each(|db| self.flush(db));
                Done
            }
            Command::FlushDatabase => {
                self.flush(db);
                Done
            }
            Command::CompareAndSet {
                key,
                revision,
                value,
                expiry,
            } => {
                let old = self.get(db, key).cloned();
                let deadline = self.positive(*expiry, old.as_ref().and_then(|old| old.deadline))?;
                if old.map_or(0, |old| old.modified) != *revision {
                    return Ok(Nil);
                }
                self.put_until(db, key, value.to_vec(), deadline);
                Integer(self.revision as i64 + 1)
            }
            Command::DelRevision { key, revision } => {
                let same = self
                    .get(db, key)
                    .is_some_and(|old| old.modified == *revision);
                Integer((same && self.remove(db, key)).into())
            }
            Command::Transaction { .. }
            | Command::InDatabase { .. }
            | Command::IncrByFloat { .. } => panic!("not here"),
        })
    }

    fn holds(&self, guard: &Guard) -> bool {
        let location = (guard.database, guard.key.clone());
        let found = self.keys.get(&location);
        let compare = |compare: Compare, order: std::cmp::Ordering| match compare {
            Compare::Equal => order.is_eq(),
            Compare::NotEqual => order.is_ne(),
            Compare::Less => order.is_lt(),
            Compare::Greater => order.is_gt(),
        };
        match &guard.holds {
            Condition::Unchanged(Seen::Present { mod_revision }) => {
                found.is_some_and(|found| found.modified == *mod_revision)
            }
            Condition::Unchanged(Seen::Absent { at }) => {
                let touched = self.touched.get(&location).copied().unwrap_or(0);
                let flushed = self.flushed[usize::from(guard.database)];
                found.is_none() && touched.max(flushed) <= *at
            }
            Condition::Exists(exists) => found.is_some() == *exists,
            Condition::HasDeadline(has) => {
                found.is_some_and(|found| found.deadline.is_some()) == *has
            }
            Condition::Value(how, value) => {
                found.is_some_and(|found| compare(*how, found.value[..].cmp(&value[..])))
            }
            Condition::ModRevision(how, revision) => {
                compare(*how, found.map_or(0, |found| found.modified).cmp(revision))
            }
            Condition::CreateRevision(how, revision) => {
                compare(*how, found.map_or(0, |found| found.created).cmp(revision))
            }
        }
    }

    /// None of the queries whose answer depends on where keys lie: SCAN and RANDOMKEY.
    pub(crate) fn answer(&self, query: &Query, now: u64) -> ReplyValue {
        let (db, query) = match query {
            Query::InDatabase { database, query } => (*database, &**query),
            query => (0, query),
        };
        let get = |key: &Bytes| self.get(db, key);
        let bulk = |key: &Bytes| {
            let value = get(key).map(|found| found.value.clone().into());
            value.map_or(Nil, ReplyValue::Bulk)
        };
        let fields = |found: &Key, value: bool| {
            let value = value.then(|| found.value.clone().into());
            vec![
                value.map_or(Nil, ReplyValue::Bulk),
                Integer(found.created as i64),
                Integer(found.modified as i64),
                Integer(found.deadline.map_or(-1, |at| at as i64)),
            ]
        };
        match query {
            Query::Get { key } => bulk(key),
            Query::GetMany { keys } => ReplyValue::Array(keys.iter().map(bulk).collect()),
            Query::Exists { keys } => {
                Integer(keys.iter().filter(|key| get(key).is_some()).count() as i64)
            }
            Query::StrLen { key } => Integer(get(key).map_or(0, |found| found.value.len() as i64)),
            Query::GetRange { key, start, end } => {
                let value = get(key).map_or(&[][..], |found| &found.value);
                let len = value.len() as i64;
                let index = |at: i64| if at < 0 { at + len } else { at };
                let inverted = *start < 0 && *end < 0 && start > end;
                let (start, end) = (index(*start).max(0), index(*end).clamp(0, (len - 1).max(0)));
                let inside = (0..len).filter(|at| !inverted && (start..=end).contains(at));
                let part: Vec<u8> = inside.map(|at| value[at as usize]).collect();
                ReplyValue::Bulk(part.into())
            }
            Query::Ttl {
                key,
                seconds,
                absolute,
            } => {
                let Some(found) = get(key) else {
                    return Integer(-2);
                };
                let Some(deadline) = found.deadline else {
                    return Integer(-1);
                };
                let left = if deadline > now { deadline - now } else { 1 };
                let ms = if *absolute { deadline } else { left };
                Integer(if *seconds {
                    ms.saturating_add(500) / 1000
                } else {
                    ms
                } as i64)
            }
            Query::Meta { key, value } => {
                get(key).map_or(Nil, |found| ReplyValue::Array(fields(found, *value)))
            }
            Query::Range {
                start,
                end,
                limit,
                keys_only,
            } => {
                let inside = |key: &Bytes| key >= start && end.as_ref().is_none_or(|end| key < end);
                let all: Vec<_> = self
                    .keys
                    .iter()
                    .filter(|((of, key), _)| *of == db && inside(key))
                    .collect();
                let items = all.iter().take(*limit as usize).map(|((_, key), found)| {
                    let name = ReplyValue::Bulk(key.clone());
                    if *keys_only {
                        return name;
                    }
                    let fields = fields(found, true);
                    ReplyValue::Array([name].into_iter().chain(fields).collect())
                });
                let more = all.len() as u64 > *limit;
                ReplyValue::Array(vec![
                    ReplyValue::Array(items.collect()),
                    Integer(more.into()),
                ])
            }
            Query::DbSize => Integer(self.keys.keys().filter(|(of, _)| *of == db).count() as i64),
            Query::Scan { .. } | Query::RandomKey { .. } | Query::InDatabase { .. } => {
                panic!("not here")
            }
        }
    }

    /// The store holds exactly these keys, by every way in.
    pub(crate) fn check(&self, store: &Store) {
        assert_eq!(store.memory().cost, self.cost());
        assert_eq!(store.revision(), self.revision);
        assert_eq!(store.stamp_ms(), self.stamp);
        assert_eq!(store.len(), self.keys.len());
        assert_eq!(store.expired_total(), self.expired);
        let deadlines = self.keys.values().filter_map(|key| key.deadline);
        assert_eq!(store.next_deadline(), deadlines.min());
        for ((db, name), key) in &self.keys {
            let found = store.get_in(*db, name).expect("the reference has the key");
            assert_eq!(found.value, key.value);
            let numbers = (found.create_revision, found.mod_revision, found.deadline_ms);
            assert_eq!(numbers, (key.created, key.modified, key.deadline));
        }
        for db in 0..16 {
            let own = |(location, _): &(&Location, &Key)| location.0 == db;
            let keys: Vec<_> = self.keys.iter().filter(own).collect();
            assert_eq!(store.database_len(db), keys.len());
            let with_deadline = keys
                .iter()
                .filter(|(_, key)| key.deadline.is_some())
                .count();
            assert_eq!(store.database_deadlines(db), with_deadline);
            let all = Query::prefix(b"", None, u64::MAX, true).in_database(db);
            assert_eq!(store.query(&all, self.stamp), self.answer(&all, self.stamp));
        }
    }

    /// Compares walks over all shards, of the databases in use and of one that is not.
    pub(crate) fn check_scans(&self, store: &Store) {
        for db in [0, 1, 2, 15] {
            let own = self.keys.keys().filter(|(of, _)| *of == db);
            let keys: Vec<_> = own.map(|(_, key)| key.clone()).collect();
            assert_eq!(scanned(store, db), keys);
            let nonce = self.revision << 32 | self.stamp;
            match store.query(&Query::RandomKey { nonce }.in_database(db), 0) {
                ReplyValue::Bulk(key) => assert!(keys.contains(&key)),
                other => assert_eq!((other, keys.len()), (Nil, 0)),
            }
        }
    }
}

/// All keys of a whole scan, sorted.
pub(crate) fn scanned(store: &Store, db: u8) -> Vec<Bytes> {
    let (mut cursor, mut found) = (0, Vec::new());
    loop {
        let query = Query::Scan { cursor, count: 3 }.in_database(db);
        let ReplyValue::Array(answer) = store.query(&query, 0) else {
            panic!("no array");
        };
        let [Integer(next), ReplyValue::Array(keys)] = &answer[..] else {
            panic!("no cursor and keys: {answer:?}");
        };
        found.extend(keys.iter().map(|key| match key {
            ReplyValue::Bulk(key) => key.clone(),
            other => panic!("no key: {other:?}"),
        }));
        cursor = *next as u64;
        if cursor == 0 {
            found.sort();
            return found;
        }
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}
