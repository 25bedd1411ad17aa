//! The raise of the cluster's feature level by its leader, and its first use at this node.
//!
//! Never lowers a level. Invariant: a level is proposed only once every node of the member table has
//! advertised it with its present boot, for as long as the configuration says.

use std::sync::Arc;
use std::time::Duration;

use memkv_store::{MemberTable, SystemOp, SystemOutcome};
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

/// The level that the leader is about to raise to, and since when every node advertises it.
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
        let boot_of = |id| self.memory.recall(id).map_or(0, |heard| heard.boot);
        let to = highest_of_all(&table, boot_of);
        #[cfg(memkv_bugs)]
        let to = match memkv_store::bugs::active(memkv_store::bugs::Bug::RaiseUnasked) {
            true => Some(self.levels.highest),
            false => to,
        };
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

/// The highest level that all nodes of the table have advertised, each with the boot that is known of it or
/// a later one. A node that has started again since may be another build.
fn highest_of_all(table: &MemberTable, boot_of: impl Fn(u64) -> u64) -> Option<u32> {
    let mut to = None;
    for member in table.members() {
        let advertised = table.advertised(member.id)?;
        if advertised.boot < boot_of(member.id) {
            return None;
        }
        to = Some(advertised.highest.min(to.unwrap_or(u32::MAX)));
    }
    to
}

#[cfg(test)]
mod tests {
    use memkv_store::{BatchBuilder, Store};

    use super::*;
    use crate::peer::fake::form;

    /// A store whose nodes 1 and 2 have opened their sessions as told: boot and highest level.
    fn table(advertised: &[(u64, u64, u32)]) -> MemberTable {
        let opened = advertised
            .iter()
            .map(|(node, boot, highest)| SystemOp::OpenSession {
                node: *node,
                boot: *boot,
                highest: *highest,
            });
        let mut store = Store::new();
        for (index, op) in (1..).zip([form(2)].into_iter().chain(opened)) {
            let mut batch = BatchBuilder::new(5);
            batch.system(&op);
            store.apply(index, &batch.finish(), &mut ());
        }
        store.member_table().clone()
    }

    #[test]
    fn the_level_is_that_of_the_oldest_build_that_has_said_what_it_knows() {
        let first_boot = |_| 1;
        let both = table(&[(1, 1, 3), (2, 1, 2)]);
        assert_eq!(highest_of_all(&both, first_boot), Some(2));
        let one = table(&[(1, 1, 3)]);
        assert_eq!(highest_of_all(&one, first_boot), None, "2 has not said it");
        let restarted = |id| if id == 2 { 2 } else { 1 };
        assert_eq!(
            highest_of_all(&both, restarted),
            None,
            "2 may be another build"
        );
        let again = table(&[(1, 1, 3), (2, 1, 2), (2, 2, 3)]);
        assert_eq!(highest_of_all(&again, restarted), Some(3));
    }
}
