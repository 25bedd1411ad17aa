//! The raise of the cluster's feature level by its leader, and its first use at this node.
//!
//! Never lowers a level. Invariant: a level is proposed only once every node of the member table has
//! advertised it with its present boot, for as long as the configuration says.

use std::sync::Arc;
use std::time::Duration;

use memkv_store::{SystemOp, SystemOutcome};
use tokio::time::Instant;

use crate::FatalError;
use crate::disk::memory::Memory;
use crate::engine::handle::Engine;
use crate::lifecycle::Lifecycle;
use crate::membership::levels::Levels;
use crate::membership::record::Record;
use crate::replica::Replica;
use crate::report::seldom::Lines;
use crate::write::batcher::Batcher;

/// How often the table is looked at. A level is raised once in months, so polling is enough.
const INTERVAL: Duration = Duration::from_millis(250);

/// Raises the cluster's feature level.
pub(crate) struct Raiser {
    /// For how long all members must have advertised a level before it is raised.
    pub(crate) after: Duration,
    pub(crate) levels: Arc<Levels>,
    pub(crate) record: Arc<Record>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) batcher: Arc<Batcher>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) lines: Arc<Lines>,
}

/// What the leader waits for: this level, advertised by every node since then.
type Waits = Option<(u32, Instant)>;

/// Uses the cluster's level once it is applied, and raises it while this node leads.
pub(crate) async fn run(raiser: Raiser, engine: Engine) {
    let mut waits: Waits = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let level = raiser.replica.member_table().level();
        // A node whose build does not know it has stopped.
        if raiser.levels.check(level).is_ok()
            && let Err(error) = raiser.record.use_level(level).await
        {
            return raiser.lifecycle.fail(FatalError::Disk(error.to_string()));
        }
        let leads = engine.is_leader();
        let agreed = leads.then(|| raiser.agreed()).flatten();
        waits = agreed.map(|to| match waits {
            Some((before, since)) if before == to => (to, since),
            _ => (to, Instant::now()),
        });
        if let Some((to, since)) = waits
            && since.elapsed() >= raiser.after
        {
            raiser.raise(to).await;
        }
    }
}

impl Raiser {
    /// The level that the whole cluster may be raised to: every node of the table has advertised it, with
    /// the latest boot that this node knows of.
    fn agreed(&self) -> Option<u32> {
        let table = self.replica.member_table();
        let mut to = None;
        for member in table.members() {
            let advertised = table.advertised(member.id)?;
            let heard = self.memory.recall(member.id).map_or(0, |heard| heard.boot);
            if advertised.boot < heard {
                // It has started again, perhaps with another build, and not said yet what that knows.
                return None;
            }
            to = Some(advertised.highest.min(to.unwrap_or(u32::MAX)));
        }
        #[cfg(memkv_bugs)]
        if memkv_store::bugs::active(memkv_store::bugs::Bug::RaiseUnasked) {
            to = Some(self.levels.highest);
        }
        to.filter(|to| *to > table.level() && *to <= self.levels.highest)
    }

    async fn raise(&self, to: u32) {
        let ids = self
            .replica
            .member_table()
            .members()
            .map(|it| it.id)
            .collect();
        let op = SystemOp::RaiseLevel { to, ids };
        match self.batcher.propose_system(op).await {
            Ok(Ok(SystemOutcome::Done)) => {
                tracing::info!(level = to, "raised the cluster's feature level");
            }
            Ok(Ok(outcome)) => {
                if let Some(left_out) = self.lines.level_waits.say() {
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
}
