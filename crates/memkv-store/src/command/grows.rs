//! Which commands may grow what the keys cost: they are refused at the memory cap. Never executes
//! anything. The match is exhaustive, so that each new command must be classified; a test of memkv-server
//! compares it with the flag `denyoom` of its table of commands.

use super::{Command, Step};

impl Command {
    /// Whether the command may raise the cost of the keys. A transaction may if any of its steps may, on
    /// either branch; `apply` looks at the branch that it takes.
    ///
    /// A RENAME to a longer name grows by the difference. Deadlines cost nothing, since each key is
    /// charged one from the start.
    pub fn may_grow(&self) -> bool {
        match self {
            Command::Set { .. }
            | Command::SetWith { .. }
            | Command::SetMany { .. }
            | Command::IncrBy { .. }
            | Command::IncrByFloat { .. }
            | Command::Append { .. }
            | Command::SetRange { .. }
            | Command::Copy { .. }
            | Command::CompareAndSet { .. } => true,
            Command::Rename { from, to, .. } => to.len() > from.len(),
            Command::Transaction {
                guards: _,
                operations,
                otherwise,
            } => steps_may_grow(operations) || steps_may_grow(otherwise),
            Command::InDatabase {
                database: _,
                command,
            } => command.may_grow(),
            Command::Noop
            | Command::Tick
            | Command::Del { .. }
            | Command::DelIf { .. }
            | Command::DelRevision { .. }
            | Command::GetDel { .. }
            | Command::GetEx { .. }
            | Command::Expire { .. }
            | Command::Prolong { .. }
            | Command::Persist { .. }
            | Command::FlushAll
            | Command::FlushDatabase
            | Command::Announce { .. }
            | Command::SetMemory { .. }
            // The table of users has limits of its own.
            | Command::SetUser { .. }
            | Command::DelUsers { .. }
            | Command::InitUsers { .. } => false,
            #[cfg(memkv_bugs)]
            Command::OfNextLevel => false,
        }
    }
}

/// Whether one of the steps may.
pub(super) fn steps_may_grow(steps: &[Step]) -> bool {
    steps.iter().any(|step| match step {
        Step::Read(_) => false,
        Step::Write(command) => command.may_grow(),
    })
}
