//! The names of commands, for logs and metrics. Nothing depends on them.

use super::Command;

impl Command {
    /// The command's name in lower case, for logs and metrics: Redis's, where one fits.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Noop => "noop",
            Command::Set { .. } | Command::SetWith { .. } => "set",
            Command::Del { .. } => "del",
            Command::SetMany { .. } => "mset",
            Command::DelIf { .. } => "delex",
            Command::GetDel { .. } => "getdel",
            Command::GetEx { .. } => "getex",
            Command::IncrBy { .. } => "incrby",
            Command::IncrByFloat { .. } => "incrbyfloat",
            Command::Append { .. } => "append",
            Command::SetRange { .. } => "setrange",
            Command::Expire { .. } | Command::Prolong { .. } => "expire",
            Command::Persist { .. } => "persist",
            Command::Rename { .. } => "rename",
            Command::Copy { .. } => "copy",
            Command::FlushAll => "flushall",
            Command::FlushDatabase => "flushdb",
            Command::CompareAndSet { .. } => "cas",
            Command::DelRevision { .. } => "delrev",
            Command::Announce { .. } | Command::SetMemory { .. } => "config",
            Command::SetUser { .. } => "acl|setuser",
            Command::DelUsers { .. } => "acl|deluser",
            Command::InitUsers { .. } => "acl|init",
            Command::Tick => "tick",
            #[cfg(memkv_bugs)]
            Command::OfNextLevel => "next",
            Command::Transaction { .. } => "exec",
            Command::InDatabase { command, .. } => command.name(),
        }
    }
}
