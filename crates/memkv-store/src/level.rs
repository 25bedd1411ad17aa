//! Feature levels: the part of its nodes' features that a cluster may use.
//!
//! A cluster has one level, which is state ([`MemberTable::level`](crate::MemberTable::level)) and only rises. Every
//! command, query, condition and system operation belongs to a level, by the exhaustive matches below,
//! so that each new one needs a level; so does a changed effect or reply of one that exists, which `apply`
//! chooses by the level in the state and never by its build. An entry with a part above the level of the
//! state is malformed. Nothing here changes a level: `member_table` does, by
//! [`SystemOp::RaiseLevel`](crate::SystemOp::RaiseLevel). Invariant: nothing moves from a released level
//! to another.

use crate::command::Operation;
use crate::{Command, Condition, Guard, Query, Step, SystemOp};

/// The level of the first release, and of a store that belongs to no cluster.
pub const FIRST_LEVEL: u32 = 1;

/// The level of users, rights and the memory cap.
pub const EDGE_LEVEL: u32 = 2;

/// The level of members that join, leave and have roles.
pub const MEMBERS_LEVEL: u32 = 3;

/// The highest level that this build knows. The simulator's build knows one more, which holds nothing
/// but `Command::OfNextLevel`.
pub const HIGHEST_LEVEL: u32 = if cfg!(memkv_bugs) {
    MEMBERS_LEVEL + 1
} else {
    MEMBERS_LEVEL
};

impl Command {
    /// The feature level that the command belongs to, with everything in it.
    pub fn level(&self) -> u32 {
        match self {
            Command::Noop
            | Command::Set { .. }
            | Command::Del { .. }
            | Command::SetWith { .. }
            | Command::SetMany { .. }
            | Command::DelIf { .. }
            | Command::GetDel { .. }
            | Command::GetEx { .. }
            | Command::IncrBy { .. }
            | Command::IncrByFloat { .. }
            | Command::Append { .. }
            | Command::SetRange { .. }
            | Command::Expire { .. }
            | Command::Prolong { .. }
            | Command::Persist { .. }
            | Command::Rename { .. }
            | Command::Copy { .. }
            | Command::FlushAll
            | Command::FlushDatabase
            | Command::CompareAndSet { .. }
            | Command::DelRevision { .. }
            | Command::Announce { .. }
            | Command::Tick => FIRST_LEVEL,
            Command::SetMemory { .. } => EDGE_LEVEL,
            Command::Transaction {
                guards,
                operations,
                otherwise,
            } => {
                let guards = guards.iter().map(Guard::level);
                let steps = operations.iter().chain(otherwise).map(Step::level);
                guards.chain(steps).fold(FIRST_LEVEL, u32::max)
            }
            Command::InDatabase {
                database: _,
                command,
            } => command.level(),
            Command::SetUser { .. } | Command::DelUsers { .. } | Command::InitUsers { .. } => {
                EDGE_LEVEL
            }
            #[cfg(memkv_bugs)]
            Command::OfNextLevel => HIGHEST_LEVEL,
        }
    }
}

impl Operation<'_> {
    /// The same of a command as it is read from the log.
    #[inline]
    pub(crate) fn level(&self) -> u32 {
        match self {
            Operation::Noop | Operation::Set(_) | Operation::SetMany(_) | Operation::Del(_) => {
                FIRST_LEVEL
            }
            Operation::Other(command) => command.level(),
        }
    }
}

impl Step {
    fn level(&self) -> u32 {
        match self {
            Step::Write(command) => command.level(),
            Step::Read(query) => query.level(),
        }
    }
}

impl Guard {
    fn level(&self) -> u32 {
        match self.holds {
            Condition::Unchanged(_)
            | Condition::Exists(_)
            | Condition::HasDeadline(_)
            | Condition::Value(..)
            | Condition::ModRevision(..)
            | Condition::CreateRevision(..) => FIRST_LEVEL,
        }
    }
}

impl Query {
    /// Within a transaction, where the answer becomes part of the state.
    fn level(&self) -> u32 {
        match self {
            Query::Get { .. }
            | Query::GetMany { .. }
            | Query::Exists { .. }
            | Query::StrLen { .. }
            | Query::GetRange { .. }
            | Query::Ttl { .. }
            | Query::Meta { .. }
            | Query::Scan { .. }
            | Query::Range { .. }
            | Query::RandomKey { .. }
            | Query::DbSize => FIRST_LEVEL,
            Query::InDatabase { database: _, query } => query.level(),
        }
    }
}

impl SystemOp {
    /// The feature level that the operation belongs to. That of raising the level is the first one's,
    /// so that a node which knows no more can read why it must stop.
    pub fn level(&self) -> u32 {
        match self {
            SystemOp::Form { .. }
            | SystemOp::OpenSession { .. }
            | SystemOp::CloseSession { .. }
            | SystemOp::AdmitNode { .. }
            | SystemOp::ReplaceNode { .. }
            | SystemOp::RemoveNode { .. }
            | SystemOp::SetAddress { .. }
            | SystemOp::GiveUpSeat { .. }
            | SystemOp::RaiseLevel { .. } => FIRST_LEVEL,
            SystemOp::AnnounceMemory { .. } | SystemOp::SetCap { .. } => EDGE_LEVEL,
            SystemOp::Members(_) => MEMBERS_LEVEL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_commands_count_for_the_level() {
        let transaction = |step: Step| Command::Transaction {
            guards: vec![],
            operations: vec![],
            otherwise: vec![step],
        };
        let inner = Command::Noop.in_database(3);
        assert_eq!(transaction(Step::Write(inner)).level(), FIRST_LEVEL);
        #[cfg(memkv_bugs)]
        {
            let inner = Command::OfNextLevel.in_database(3);
            assert_eq!(transaction(Step::Write(inner)).level(), HIGHEST_LEVEL);
        }
    }
}
