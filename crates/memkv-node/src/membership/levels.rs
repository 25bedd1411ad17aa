//! The feature level at this node: what its build knows, what it advertises, and what is in use here.
//!
//! The cluster's level is replicated state. It is *in use* at a node once the node has written it down
//! beside its identity (`life.rs`): only then does the node take, propose and send what belongs to it, and with each
//! request it sends the level that it uses. So whatever an older build could not read lies only in
//! directories whose identity's record tells that build to stop, before it reads anything else.
//!
//! The leader raises the level when every node of the member table, newcomers included, has advertised
//! a higher one with its present boot for some time. A node that learns that its cluster is above what
//! its build knows stops with words, however it learns it: at its start, by a peer's request, or by
//! applying the raise itself, which a node may come to that was put back to an older build meanwhile.
//!
//! Invariants: what is in use is durable and never falls; nothing above what the build knows is
//! acknowledged or applied.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use memkv_store::{Command, FIRST_LEVEL, SystemOp, SystemOutcome};
use tokio::time::Instant;

use crate::membership::life::State;
use crate::node::Inner;
use crate::{NodeConfig, RequestError, StartError};

/// How often the table is looked at. A level is raised once in months, so this needs no bell.
const INTERVAL: Duration = Duration::from_millis(250);

/// The cluster is at a level that this build does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster of this node is at feature level {level}, and memkv {} knows levels up to {highest}: \
     start this node with the version that the other nodes run. A level never falls. Nothing that was \
     acknowledged is lost",
    env!("CARGO_PKG_VERSION")
)]
pub struct TooOld {
    /// The cluster's level.
    pub level: u32,
    /// The highest that this build knows.
    pub highest: u32,
}

/// The levels of one process.
#[derive(Debug)]
pub(crate) struct Levels {
    /// The highest that the build knows.
    pub(crate) highest: u32,
    /// The highest that it may advertise.
    limit: u32,
    in_use: AtomicU32,
    /// Held while another level is written down.
    writing: tokio::sync::Mutex<()>,
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

    /// What is in use here.
    pub(crate) fn in_use(&self) -> u32 {
        self.in_use.load(Ordering::Acquire)
    }

    /// This level is written down, durably.
    pub(crate) fn persisted(&self, level: u32) {
        self.in_use.fetch_max(level, Ordering::AcqRel);
    }

    /// What this node advertises. A limit below what the cluster uses already holds nothing back.
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
}

#[cfg(test)]
impl Default for Levels {
    fn default() -> Self {
        let layout = memkv_disk::Layout::under(std::path::Path::new("/node"));
        let (name, addr) = ("n1".to_owned(), "h:1".to_owned());
        Self::new(&NodeConfig::new(crate::Peer { name, addr }, layout))
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

impl Inner {
    pub(crate) fn levels(&self) -> &Arc<Levels> {
        &self.peers.levels
    }

    /// Whether a command may get a number: what belongs to a level that is not in use here is refused.
    pub(crate) fn check_level(&self, command: &Command) -> Result<(), RequestError> {
        let (needs, level) = (command.level(), self.levels().in_use());
        if needs <= level {
            return Ok(());
        }
        let waits_for = self.behind(needs);
        Err(RequestError::NeedsLevel {
            needs,
            level,
            waits_for,
        })
    }

    /// Which nodes hold the cluster back from a level, in words.
    fn behind(&self, level: u32) -> String {
        let table = self.replica.member_table();
        let one = |member: &memkv_store::Member| match table.advertised(member.id) {
            Some(advertised) => format!("{} advertises level {}", member.name, advertised.highest),
            None => format!("{} has advertised none yet", member.name),
        };
        let behind: Vec<String> = table.behind(level).map(one).collect();
        if behind.is_empty() {
            return "every node knows it, and the leader raises the level in time".to_owned();
        }
        behind.join(", ")
    }

    /// Makes a level of the cluster one that is in use here: writes it down first.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) async fn use_level(&self, level: u32) -> Result<(), StartError> {
        if self.levels().in_use() >= level {
            return Ok(());
        }
        let _one = self.levels().writing.lock().await;
        let state = self.life.state();
        if self.levels().in_use() >= level || !matches!(state, State::Running(_)) {
            return Ok(());
        }
        self.life.level.fetch_max(level, Ordering::AcqRel);
        self.save(&state).await?;
        self.levels().persisted(level);
        tracing::info!(node = %self.peers.me.name, level, "the cluster's feature level is in use here");
        Ok(())
    }
}

/// What the leader waits for: this level, advertised by everyone since then.
type Waits = Option<(u32, Instant)>;

/// Uses the cluster's level once it is applied, and raises it while this node leads.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut waits: Waits = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let level = inner.replica.member_table().level();
        // A node whose build does not know it has stopped.
        if inner.levels().check(level).is_ok()
            && let Err(error) = inner.use_level(level).await
        {
            return inner.fail(crate::FatalError::Disk(error.to_string()));
        }
        waits = agreed(&inner).map(|to| match waits {
            Some((before, since)) if before == to => (to, since),
            _ => (to, Instant::now()),
        });
        if let Some((to, since)) = waits
            && since.elapsed() >= inner.config.raise_level_after
        {
            raise(&inner, to).await;
        }
    }
}

/// The level that the whole cluster may be raised to, if this node leads: everyone in the table has
/// advertised it, with the latest boot that this node has heard of.
fn agreed(inner: &Inner) -> Option<u32> {
    if !inner.leads() {
        return None;
    }
    let table = inner.replica.member_table();
    let mut to = None;
    for member in table.members() {
        let advertised = table.advertised(member.id)?;
        let heard = inner.memory.recall(member.id).map_or(0, |heard| heard.boot);
        if advertised.boot < heard {
            // It has started again, perhaps with another build, and not said yet what that knows.
            return None;
        }
        to = Some(advertised.highest.min(to.unwrap_or(u32::MAX)));
    }
    #[cfg(memkv_bugs)]
    if memkv_store::bugs::active(memkv_store::bugs::Bug::RaiseUnasked) {
        to = Some(inner.levels().highest);
    }
    to.filter(|to| *to > table.level() && *to <= inner.levels().highest)
}

async fn raise(inner: &Inner, to: u32) {
    let ids = inner
        .replica
        .member_table()
        .members()
        .map(|it| it.id)
        .collect();
    let op = SystemOp::RaiseLevel { to, ids };
    match inner.batcher.propose_system(op).await {
        Ok(Ok(SystemOutcome::Done)) => {
            tracing::info!(level = to, "raised the cluster's feature level");
        }
        Ok(Ok(outcome)) => {
            if let Some(left_out) = inner.lines.level_waits.say() {
                tracing::info!(
                    level = to,
                    ?outcome,
                    left_out,
                    "raising the level has to wait"
                );
            }
        }
        Ok(Err(error)) => tracing::debug!(%error, "raising the level has to wait"),
        // The node is stopping.
        Err(_) => {}
    }
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
