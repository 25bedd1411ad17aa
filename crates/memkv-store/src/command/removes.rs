//! Which commands only remove: they may run while disk space is low, because they make the next snapshot
//! smaller. Never executes anything. The match is exhaustive, so that each new command must be
//! classified.

use super::{Command, Expiry, Step};

impl Command {
    /// Whether the command, executed at log time `now_ms` or later, adds nothing to any data set.
    pub fn only_removes(&self, now_ms: u64) -> bool {
        match self {
            Command::Noop
            | Command::Tick
            | Command::Del { .. }
            | Command::DelIf { .. }
            | Command::DelRevision { .. }
            | Command::GetDel { .. }
            | Command::FlushAll
            | Command::FlushDatabase
            | Command::SetMemory { .. }
            | Command::DelUsers { .. } => true,
            // Taking rights away must go on.
            Command::SetUser { narrows, .. } => *narrows,
            #[cfg(memkv_bugs)]
            Command::OfNextLevel => true,
            Command::Expire { expiry, .. } => expiry.has_passed(now_ms),
            Command::Transaction {
                guards: _,
                operations,
                otherwise,
            } => operations.iter().chain(otherwise).all(|step| match step {
                Step::Read(_) => true,
                Step::Write(command) => command.only_removes(now_ms),
            }),
            Command::InDatabase {
                database: _,
                command,
            } => command.only_removes(now_ms),
            Command::Set { .. }
            | Command::SetWith { .. }
            | Command::SetMany { .. }
            | Command::GetEx { .. }
            | Command::IncrBy { .. }
            | Command::IncrByFloat { .. }
            | Command::Append { .. }
            | Command::SetRange { .. }
            | Command::Prolong { .. }
            | Command::Persist { .. }
            | Command::Rename { .. }
            | Command::Copy { .. }
            | Command::CompareAndSet { .. }
            | Command::Announce { .. }
            | Command::InitUsers { .. } => false,
        }
    }
}

impl Expiry {
    /// Whether this deadline is at or before `now_ms`, or would be whenever it is set.
    fn has_passed(self, now_ms: u64) -> bool {
        match self {
            Expiry::None | Expiry::Keep => false,
            Expiry::In { ms } => ms <= 0,
            Expiry::At { ms } => u64::try_from(ms).map_or(true, |ms| ms <= now_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{ExpireIf, Query, SetIf};

    const NOW_MS: u64 = 1_000;

    fn expire(expiry: Expiry) -> Command {
        Command::Expire {
            key: Bytes::new(),
            expiry,
            condition: ExpireIf::Always,
        }
    }

    fn transaction(operations: Vec<Command>, otherwise: Vec<Command>) -> Command {
        let steps = |commands: Vec<Command>| {
            let writes = commands.into_iter().map(Step::Write);
            writes.chain([Step::Read(Query::DbSize)]).collect()
        };
        Command::Transaction {
            guards: vec![],
            operations: steps(operations),
            otherwise: steps(otherwise),
        }
    }

    #[test]
    fn commands_that_only_remove_are_told_from_others() {
        let key = Bytes::new;
        let set = Command::Set {
            key: key(),
            value: key(),
        };
        let del = Command::Del { keys: vec![key()] };
        let removes = [
            Command::Noop,
            Command::Tick,
            del.clone(),
            del.clone().in_database(3),
            Command::GetDel { key: key() },
            Command::DelIf {
                key: key(),
                condition: SetIf::Present,
            },
            Command::DelRevision {
                key: key(),
                revision: 1,
            },
            Command::FlushAll,
            Command::FlushDatabase.in_database(1),
            expire(Expiry::In { ms: 0 }),
            expire(Expiry::In { ms: i64::MIN }),
            expire(Expiry::At { ms: 1_000 }),
            expire(Expiry::At { ms: -1 }),
            transaction(vec![del.clone(), Command::FlushAll], vec![del.clone()]),
        ];
        for command in removes {
            assert!(command.only_removes(NOW_MS), "{command:?}");
        }
        let may_add = [
            set.clone(),
            set.clone().in_database(3),
            expire(Expiry::In { ms: 1 }),
            expire(Expiry::At { ms: 1_001 }),
            expire(Expiry::Keep),
            expire(Expiry::None),
            Command::Persist { key: key() },
            Command::Prolong {
                key: key(),
                by_ms: -1,
            },
            transaction(vec![del.clone(), set.clone()], vec![]),
            transaction(vec![del], vec![set.in_database(1)]),
        ];
        for command in may_add {
            assert!(!command.only_removes(NOW_MS), "{command:?}");
        }
    }
}
