//! Judges commands again that were judged before a right was taken away: the node asks here, with the table
//! that the command meets. Runs on the thread of consensus, so it never waits, and remembers the last user.
//!
//! A command of the log has one name, whichever command of Redis it came from: `SETEX` is judged as `set`,
//! `INCR` as `incrby`, a transaction by all its steps. Invariant: judging a command takes a bounded time; one that
//! would take longer is refused, which the window does only to a user that has lost a right.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use memkv_node::Judge;
use memkv_node::lock::Mutex;
use memkv_store::{Command, Principal, Query, Step, Touched, UserTable};

use super::user::User;
use super::{Attempt, Rules, Touches, decide};
use crate::commands::find;

/// Most steps of a command, about ten milliseconds: an election begins after some hundred.
const MAX_STEPS: usize = 16 * 1024 * 1024;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct JudgeAgain {
    last: Mutex<Option<Arc<User>>>,
}

impl JudgeAgain {
    /// The user as it is in the table.
    fn user(&self, users: &UserTable, id: u64) -> Option<Arc<User>> {
        let user = users.by_id(id)?;
        let is_it = |known: &&Arc<User>| known.id == id && known.changed_at == user.changed_at;
        let last = self.last.lock().clone();
        if let Some(known) = last.as_ref().filter(is_it) {
            return Some(known.clone());
        }
        let compiled = Arc::new(User::of(user));
        *self.last.lock() = Some(compiled.clone());
        Some(compiled)
    }
}

impl Judge for JudgeAgain {
    fn judge(&self, users: &Arc<UserTable>, principal: &Principal, command: &Bytes) -> bool {
        let user = self.user(users, principal.user);
        user.is_some_and(|user| {
            user.is_all
                || Command::decode(command).is_ok_and(|command| {
                    let rules = Bounded::new(&user.rules);
                    allows(&rules, &command)
                })
        })
    }
}

/// Rules, and the steps that are left.
struct Bounded<'a> {
    rules: &'a Rules,
    left: Cell<usize>,
}

impl<'a> Bounded<'a> {
    fn new(rules: &'a Rules) -> Self {
        Self {
            rules,
            left: Cell::new(MAX_STEPS),
        }
    }

    /// Takes the steps that it takes to judge a call; whether there were as many.
    fn take(&self, touches: Touches<'_, '_>) -> bool {
        let (mut names, mut bytes) = (0, 0);
        touches(&mut |touch| {
            if let Touched::Key { key, .. } = touch.what {
                names += 1;
                bytes += key.len();
            }
        });
        let left = self.left.get().checked_sub(self.rules.steps(names, bytes));
        self.left.set(left.unwrap_or_default());
        left.is_some()
    }
}

fn allows(rules: &Bounded<'_>, command: &Command) -> bool {
    match command {
        Command::InDatabase { command, .. } => allows(rules, command),
        Command::Transaction {
            guards,
            operations,
            otherwise,
        } => {
            let of_step = |step: &Step| match step {
                Step::Write(command) => allows(rules, command),
                Step::Read(query) => {
                    let name = name_of(query);
                    allows_call(rules, name, &|visit| query.touches(visit))
                }
            };
            guards
                .iter()
                .all(|guard| allows_call(rules, "get", &|visit| guard.touches(visit)))
                && operations.iter().chain(otherwise).all(of_step)
        }
        command => allows_call(rules, command.name(), &|visit| command.touches(visit)),
    }
}

fn allows_call<'a>(rules: &Bounded<'_>, name: &str, touches: Touches<'a, '_>) -> bool {
    let name = match name {
        "cas" => "memkv.cas",
        "delrev" => "memkv.delrev",
        "config" => "config|set",
        "acl|init" => "memkv.users|init",
        name => name,
    };
    let decided = |spec| decide(rules.rules, &Attempt::command(spec), touches).is_ok();
    rules.take(touches) && find(name.as_bytes()).is_some_and(decided)
}

fn name_of(query: &Query) -> &'static str {
    match query {
        Query::InDatabase { query, .. } => name_of(query),
        Query::Get { .. } | Query::Meta { .. } => "get",
        Query::GetMany { .. } => "mget",
        Query::GetRange { .. } => "getrange",
        Query::Exists { .. } => "exists",
        Query::StrLen { .. } => "strlen",
        Query::Ttl { .. } => "pttl",
        Query::Range { .. } => "memkv.range",
        Query::Scan { .. } => "scan",
        Query::RandomKey { .. } => "randomkey",
        Query::DbSize => "dbsize",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::tests::replicated;

    #[test]
    fn a_command_that_takes_long_to_judge_is_refused() {
        let slow = (0..64).map(|at| format!("~*a*{at}*b"));
        let ops: Vec<String> = ["on", "nopass", "+@all", "~*a"].map(str::to_owned).into();
        let ops: Vec<String> = ops.into_iter().chain(slow.skip(1)).collect();
        let ops: Vec<&str> = ops.iter().map(String::as_str).collect();
        let users = Arc::new(replicated(&[("ann", &ops)]));
        let principal = Principal {
            user: users.get(b"ann").unwrap().id,
            credential: memkv_store::NO_CREDENTIAL,
            revision: 1,
        };
        let judge = JudgeAgain::default();
        let del = |count: usize| {
            let key = Bytes::from(vec![b'a'; 64 * 1024]);
            Command::Del {
                keys: vec![key; count],
            }
        };
        assert!(judge.judge(&users, &principal, &del(1).encode()));
        assert!(judge.judge(&users, &principal, &del(3).encode()));
        assert!(!judge.judge(&users, &principal, &del(5).encode()));
        // A transaction is bounded with all its steps.
        let steps = (0..5).map(|_| Step::Write(del(1)));
        let all = Command::Transaction {
            guards: Vec::new(),
            operations: steps.collect(),
            otherwise: Vec::new(),
        };
        assert!(!judge.judge(&users, &principal, &all.encode()));
    }

    #[test]
    fn a_command_is_judged_by_the_table_that_it_meets() {
        let key = Bytes::from_static(b"a1");
        let set = Command::Set {
            key: key.clone(),
            value: key.clone(),
        };
        let read = Step::Read(Query::Get { key }.in_database(3));
        let both = Command::Transaction {
            guards: Vec::new(),
            operations: vec![Step::Write(set.clone())],
            otherwise: vec![read],
        };
        let judge = JudgeAgain::default();
        for (ops, of_set, of_both) in [
            (&["on", "nopass", "+@all", "~*"][..], true, true),
            (&["on", "nopass", "+set", "~a*"], true, false),
            (&["on", "nopass", "+set", "+get", "~a*"], true, true),
            (&["on", "nopass", "+@all", "~b*"], false, false),
        ] {
            let users = Arc::new(replicated(&[("ann", ops)]));
            let principal = Principal {
                user: users.get(b"ann").unwrap().id,
                credential: memkv_store::NO_CREDENTIAL,
                revision: 1,
            };
            // A fresh judge for each: these tables are not changes of one another.
            let judge_one = JudgeAgain::default();
            assert_eq!(
                judge_one.judge(&users, &principal, &set.encode()),
                of_set,
                "{ops:?}"
            );
            assert_eq!(
                judge_one.judge(&users, &principal, &both.encode()),
                of_both,
                "{ops:?}"
            );
        }
        let users = Arc::new(replicated(&[]));
        let gone = Principal {
            user: 99,
            credential: memkv_store::NO_CREDENTIAL,
            revision: 1,
        };
        assert!(!judge.judge(&users, &gone, &set.encode()));
    }
}
