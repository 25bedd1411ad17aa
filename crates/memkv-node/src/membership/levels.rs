//! The feature level at this node: what its build knows, what it advertises, and what is in use here.
//!
//! The cluster's level is replicated state. It is *in use* at a node once the node has written it down
//! beside its identity (`life.rs`): only then does the node take, propose and send what belongs to it, and with each
//! request it sends the level that it uses. So data that an older build could not read lies only in
//! directories whose identity's record tells that build to stop, before it reads anything else.
//!
//! The leader raises the level when every node of the member table, newcomers included, has advertised
//! a higher one with its present boot for some time. A node that learns that its cluster is above what
//! its build knows stops with the reason, however it learns it: at its start, by a peer's request, or by
//! applying the raise itself, which a node may come to that was put back to an older build meanwhile.
//!
//! Invariants: what is in use is durable and never falls; nothing above what the build knows is
//! acknowledged or applied.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use memkv_store::{Command, FIRST_LEVEL, Member, MemberTable};

use crate::error::TooOld;
use crate::{NodeConfig, RequestError};

/// The levels of one process.
#[derive(Debug)]
pub(crate) struct Levels {
    /// The highest that the build knows.
    pub(crate) highest: u32,
    /// The highest that it may advertise.
    limit: u32,
    in_use: AtomicU32,
    /// Held while another level is written down.
    pub(crate) writing: tokio::sync::Mutex<()>,
}

impl Levels {
    pub(crate) fn new(config: &NodeConfig) -> Self {
        Self {
            highest: config.highest_level,
            limit: config.max_feature_level.unwrap_or(u32::MAX),
            in_use: AtomicU32::new(FIRST_LEVEL),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// The level in use here.
    pub(crate) fn in_use(&self) -> u32 {
        self.in_use.load(Ordering::Acquire)
    }

    /// This level is written down, durably.
    pub(crate) fn persisted(&self, level: u32) {
        self.in_use.fetch_max(level, Ordering::AcqRel);
    }

    /// The level that this node advertises. A limit below what the cluster uses already holds nothing back.
    pub(crate) fn advertised(&self) -> u32 {
        self.limit.max(self.in_use()).min(self.highest)
    }

    /// Whether this build knows a level.
    ///
    /// # Errors
    ///
    /// [`TooOld`] if it does not: the node must not take part.
    pub(crate) fn check(&self, level: u32) -> Result<(), TooOld> {
        check(level, self.highest)
    }

    /// Whether a command may get a number.
    ///
    /// # Errors
    ///
    /// [`RequestError::NeedsLevel`] for a command of a level that is not in use here, with the members
    /// of `table` that hold it back.
    pub(crate) fn check_command(
        &self,
        command: &Command,
        table: impl FnOnce() -> Arc<MemberTable>,
    ) -> Result<(), RequestError> {
        let (needs, level) = (command.level(), self.in_use());
        if needs <= level {
            return Ok(());
        }
        Err(RequestError::NeedsLevel {
            needs,
            level,
            waits_for: behind(&table(), needs),
        })
    }
}

/// Names the nodes that hold the cluster back from a level.
pub(crate) fn behind(table: &MemberTable, level: u32) -> String {
    let one = |member: &Member| match table.advertised(member.id) {
        Some(advertised) => format!("{} advertises level {}", member.name, advertised.highest),
        None => format!("{} has advertised none yet", member.name),
    };
    let behind: Vec<String> = table.behind(level).map(one).collect();
    if behind.is_empty() {
        return "every node knows it, and the leader raises the level in time".to_owned();
    }
    behind.join(", ")
}

#[cfg(test)]
impl Default for Levels {
    fn default() -> Self {
        Self::new(&crate::peer::fake::config())
    }
}

/// Whether a build that knows levels up to `highest` may take part in a cluster at `level`.
pub(crate) fn check(level: u32, highest: u32) -> Result<(), TooOld> {
    #[cfg(memkv_bugs)]
    if crate::bugs::active(crate::bugs::Bug::IgnoreLevel) {
        return Ok(());
    }
    if level > highest {
        return Err(TooOld { level, highest });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(highest: u32, limit: Option<u32>) -> Levels {
        Levels {
            highest,
            limit: limit.unwrap_or(u32::MAX),
            ..Levels::default()
        }
    }

    #[test]
    fn a_limit_lowers_what_is_announced_but_never_below_what_is_in_use() {
        assert_eq!(levels(3, None).advertised(), 3);
        assert_eq!(levels(3, Some(9)).advertised(), 3);
        let limited = levels(3, Some(1));
        assert_eq!((limited.advertised(), limited.in_use()), (1, FIRST_LEVEL));
        limited.persisted(2);
        limited.persisted(1);
        assert_eq!((limited.advertised(), limited.in_use()), (2, 2));
    }

    #[test]
    fn a_build_that_is_too_old_is_told_what_to_start() {
        let levels = levels(1, None);
        assert_eq!(levels.check(1), Ok(()));
        let words = levels.check(2).unwrap_err().to_string();
        let version = env!("CARGO_PKG_VERSION");
        for part in ["level 2", "up to 1", version, "the other nodes run"] {
            assert!(words.contains(part), "{words}");
        }
    }
}
