//! The effect and the answer of each command and query of [`Space`].
//!
//! Never looks at the store under test, but for the choices that the specification leaves open.

use super::{Answer, Command, Deadline, Error, Expiry, Guard, Holds, If, Query, Space, Step};

/// One command during its execution.
struct Run<'a> {
    space: &'a mut Space,
    /// Taken if anything changes.
    revision: u64,
    changed: bool,
    /// The command's number.
    number: usize,
}

impl Space {
    /// Executes a command, which `number` names in deadlines that it sets. `given` is what the
    /// store answered, where the specification leaves it a choice.
    pub fn execute(&mut self, command: &Command, number: usize, given: Option<&Answer>) -> Answer {
        // What the keys cost depends on padding, which is not known here: whether the cap is reached is
        // taken from the store, and that all of the command is refused then, or none of it, is not.
        if self.cap > 0
            && given == Some(&Answer::Error(Error::OutOfMemory))
            && self.may_grow(command)
        {
            return Answer::Error(Error::OutOfMemory);
        }
        let Command::Transaction {
            guards,
            steps,
            otherwise,
        } = command
        else {
            return self.execute_single(command, number);
        };
        let holds =
            guards.iter().all(|guard| self.holds(guard)) && !self.may_give_up(guards, given);
        let (steps, mark) = match holds {
            true => (steps, None),
            false if otherwise.is_empty() => return Answer::Aborted,
            false => (otherwise, Some(Answer::Aborted)),
        };
        let mut answers: Vec<Answer> = mark.into_iter().collect();
        for step in steps {
            answers.push(match step {
                Step::Write(command) => self.execute_single(command, number),
                Step::Read(query) => self.answer(query),
            });
        }
        Answer::List(answers)
    }

    /// Whether a command may grow the keys; of a transaction, the branch that it takes.
    fn may_grow(&self, command: &Command) -> bool {
        let steps_may = |steps: &[Step]| {
            steps.iter().any(|step| match step {
                Step::Write(command) => self.may_grow(command),
                Step::Read(_) => false,
            })
        };
        match command {
            Command::Set { .. }
            | Command::SetMany { .. }
            | Command::IncrBy { .. }
            | Command::Append { .. }
            | Command::Copy { .. } => true,
            Command::Rename { from, to } => to.len() > from.len(),
            Command::Transaction {
                guards,
                steps,
                otherwise,
            } => match guards.iter().all(|guard| self.holds(guard)) {
                // One that gave up for a hash took the other branch.
                true => steps_may(steps) || steps_may(otherwise),
                false => steps_may(otherwise),
            },
            Command::Del { .. }
            | Command::GetDel { .. }
            | Command::GetEx { .. }
            | Command::Expire { .. }
            | Command::Persist { .. }
            | Command::SetCap { .. } => false,
        }
    }

    fn execute_single(&mut self, command: &Command, number: usize) -> Answer {
        let revision = self.revision + 1;
        let mut run = Run {
            space: self,
            revision,
            changed: false,
            number,
        };
        let answer = run.command(command);
        if run.changed {
            self.revision = revision;
        }
        answer
    }

    fn holds(&self, guard: &Guard) -> bool {
        let held = self.keys.get(&guard.key);
        match &guard.holds {
            Holds::WrittenAt(revision) => held.is_some_and(|held| held.revision == *revision),
            Holds::AbsentSince(revision) => {
                held.is_none() && self.removed.get(&guard.key).is_none_or(|at| at <= revision)
            }
            Holds::Exists(exists) => held.is_some() == *exists,
            Holds::Value(value) => held.is_some_and(|held| held.value == *value),
        }
    }

    /// Whether the store gave up although all guards hold, and may: some key was removed since a
    /// key that is watched was seen absent, and may have its hash.
    fn may_give_up(&mut self, guards: &[Guard], given: Option<&Answer>) -> bool {
        let gave_up = match given {
            Some(Answer::Aborted) => true,
            Some(Answer::List(answers)) => answers.first() == Some(&Answer::Aborted),
            _ => false,
        };
        let last_removal = self.removed.values().max().copied().unwrap_or(0);
        let may = |guard: &Guard| match guard.holds {
            Holds::AbsentSince(revision) => last_removal > revision,
            _ => false,
        };
        let gives_up = gave_up && guards.iter().any(may);
        self.false_aborts += u64::from(gives_up);
        gives_up
    }

    /// The answer of a query now, as in a transaction.
    pub fn answer(&self, query: &Query) -> Answer {
        let get = |key: &String| match self.keys.get(key) {
            Some(held) => Answer::Text(held.value.clone()),
            None => Answer::Nil,
        };
        match query {
            Query::Get { key } => get(key),
            Query::GetMany { keys } => Answer::List(keys.iter().map(get).collect()),
            Query::Exists { keys } => {
                let present = keys.iter().filter(|key| self.keys.contains_key(*key));
                Answer::Number(number(present.count() as u64))
            }
            Query::Deadline { key } => Answer::Number(self.time(key, |at| at)),
            Query::TimeLeft { key } => {
                let now = self.now_ms;
                Answer::Number(self.time(key, |at| at.saturating_sub(now).max(1)))
            }
        }
    }

    /// Whether a read outside of a transaction may answer this. The remaining time to
    /// live has shrunk since the last stamp by an unknown amount, and is never zero.
    pub fn may_answer(&self, query: &Query, given: &Answer) -> bool {
        let exact = self.answer(query);
        match (query, &exact, given) {
            (Query::TimeLeft { .. }, Answer::Number(most @ 1..), Answer::Number(left)) => {
                (1..=*most).contains(left)
            }
            _ => exact == *given,
        }
    }

    fn time(&self, key: &str, of: impl Fn(u64) -> u64) -> i64 {
        match self.keys.get(key) {
            None => -2,
            Some(held) => held
                .deadline
                .map_or(-1, |deadline| number(of(deadline.at_ms))),
        }
    }
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn truth(holds: bool) -> Answer {
    Answer::Number(holds.into())
}

fn old(value: Option<String>) -> Answer {
    value.map_or(Answer::Nil, Answer::Text)
}

impl Run<'_> {
    fn command(&mut self, command: &Command) -> Answer {
        match command {
            Command::SetCap { cap } => {
                self.space.cap = *cap;
                Answer::Ok
            }
            Command::Set {
                key,
                value,
                condition,
                expiry,
                get,
            } => self.set(key, value, condition, *expiry, *get),
            Command::SetMany {
                pairs,
                if_none_exists,
            } => self.set_many(pairs, *if_none_exists),
            Command::Del { keys } => {
                let removed = keys.iter().filter(|key| self.remove(key)).count();
                self.changed = true;
                Answer::Number(number(removed as u64))
            }
            Command::GetDel { key } => {
                let value = self.value(key);
                self.remove(key);
                old(value)
            }
            Command::GetEx { key, expiry } => {
                let value = self.value(key);
                if value.is_some() {
                    self.change_deadline(key, *expiry);
                }
                old(value)
            }
            Command::IncrBy { key, by } => self.increment(key, *by),
            Command::Append { key, suffix } => {
                let value = self.value(key).unwrap_or_default() + suffix;
                let len = number(value.len() as u64);
                let deadline = self.deadline(key);
                self.put(key, value, deadline);
                Answer::Number(len)
            }
            Command::Expire { key, ms } => {
                let exists = self.value(key).is_some();
                if exists {
                    self.change_deadline(key, Expiry::In(*ms));
                }
                truth(exists)
            }
            Command::Persist { key } => {
                let had_deadline = self.deadline(key).is_some();
                self.change_deadline(key, Expiry::None);
                truth(had_deadline)
            }
            Command::Rename { from, to } => self.rename(from, to),
            Command::Copy { from, to } => self.copy(from, to),
            // Transactions do not nest.
            Command::Transaction { .. } => Answer::Error(Error::Other),
        }
    }

    fn set(&mut self, key: &str, value: &str, condition: &If, expiry: Expiry, get: bool) -> Answer {
        let before = self.value(key);
        let holds = match condition {
            If::Always => true,
            If::Absent => before.is_none(),
            If::Present => before.is_some(),
            If::Equal(expected) => before.as_ref() == Some(expected),
        };
        if holds {
            let deadline = self.expiry(key, expiry);
            self.put(key, value.to_owned(), deadline);
        }
        match (get, holds) {
            (true, _) => old(before),
            (false, true) => Answer::Ok,
            (false, false) => Answer::Nil,
        }
    }

    fn set_many(&mut self, pairs: &[(String, String)], if_none_exists: bool) -> Answer {
        if if_none_exists && pairs.iter().any(|(key, _)| self.value(key).is_some()) {
            return truth(false);
        }
        for (key, value) in pairs {
            self.put(key, value.clone(), None);
        }
        match if_none_exists {
            true => truth(true),
            false => Answer::Ok,
        }
    }

    fn rename(&mut self, from: &str, to: &str) -> Answer {
        let Some(value) = self.value(from) else {
            return Answer::Error(Error::NoSuchKey);
        };
        let deadline = self.deadline(from);
        self.remove(from);
        self.put(to, value, deadline);
        Answer::Ok
    }

    fn copy(&mut self, from: &str, to: &str) -> Answer {
        let (value, deadline) = (self.value(from), self.deadline(from));
        match value.filter(|_| from != to) {
            Some(value) => {
                self.put(to, value, deadline);
                truth(true)
            }
            None => truth(false),
        }
    }

    fn increment(&mut self, key: &str, by: i64) -> Answer {
        let held = match self.value(key).map_or(Ok(0), |value| value.parse::<i64>()) {
            Ok(held) => held,
            Err(_) => return Answer::Error(Error::NotAnInteger),
        };
        let Some(sum) = held.checked_add(by) else {
            return Answer::Error(Error::Overflow);
        };
        let deadline = self.deadline(key);
        self.put(key, sum.to_string(), deadline);
        Answer::Number(sum)
    }

    fn value(&self, key: &str) -> Option<String> {
        self.space.keys.get(key).map(|held| held.value.clone())
    }

    fn deadline(&self, key: &str) -> Option<Deadline> {
        self.space.keys.get(key)?.deadline
    }

    /// The deadline that a key has afterwards.
    fn expiry(&self, key: &str, expiry: Expiry) -> Option<Deadline> {
        match expiry {
            Expiry::None => None,
            Expiry::Keep => self.deadline(key),
            Expiry::In(ttl_ms) => Some(Deadline {
                at_ms: self.space.now_ms + ttl_ms,
                ttl_ms,
                set_by: self.number,
            }),
        }
    }

    /// PERSIST of a key without a deadline changes nothing.
    fn change_deadline(&mut self, key: &str, expiry: Expiry) {
        let deadline = self.expiry(key, expiry);
        if expiry == Expiry::Keep || (deadline.is_none() && self.deadline(key).is_none()) {
            return;
        }
        self.space.set_deadline(key, deadline, self.revision);
        self.changed = true;
    }

    fn put(&mut self, key: &str, value: String, deadline: Option<Deadline>) {
        self.space.put(key, value, deadline, self.revision);
        self.changed = true;
    }

    fn remove(&mut self, key: &str) -> bool {
        let removed = self.space.remove(key, self.revision).is_some();
        self.changed |= removed;
        removed
    }
}
