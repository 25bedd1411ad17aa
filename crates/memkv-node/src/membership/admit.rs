//! How a leader gives an empty node a seat in its cluster.
//!
//! Invariants: the id is the index of the log entry that admits the node, so it was never used; a
//! member that answers loses its seat to no node that takes its name.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use memkv_store::{Refusal, SystemOp, SystemOutcome};

use crate::Frame;
use crate::engine::handle::EngineSlot;
use crate::leadership::known::Leadership;
use crate::membership::identity::Identity;
use crate::membership::levels;
use crate::membership::list::durability;
use crate::peer::client::Peers;
use crate::peer::encoding::{Reader, put_blob};
use crate::peer::message::{self, Envelope, MemberInfo};
use crate::replica::Replica;
use crate::report::seldom::Lines;
use crate::write::batcher::Batcher;

type Answer = BoxFuture<'static, Frame>;

/// Admits empty nodes while this node leads.
pub(crate) struct Admission {
    /// How long a member must have been silent before it may be replaced.
    pub(crate) replace_after: Duration,
    pub(crate) peers: Arc<Peers>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) batcher: Arc<Batcher>,
    pub(crate) engine: EngineSlot,
    pub(crate) lines: Arc<Lines>,
}

/// An empty node that asks for a seat.
struct Applicant {
    name: String,
    addr: String,
    sync: bool,
    /// Drawn once per process: the leader recognises a repeated request by it.
    nonce: u64,
    /// The highest feature level that its build knows.
    highest: u32,
}

impl Admission {
    /// Answers an empty node that asks for a seat.
    pub(crate) fn join(self: Arc<Self>, envelope: Envelope, body: &mut Reader) -> Answer {
        let fields = (|| {
            Ok::<_, crate::peer::encoding::DecodeError>((
                body.text("address")?,
                body.bool("durability")?,
                body.u64("nonce")?,
                body.u32("highest level")?,
            ))
        })();
        let (addr, sync, nonce, highest) = match fields {
            Ok(fields) => fields,
            Err(error) => return Box::pin(ready(message::refused(&error.to_string()))),
        };
        let applicant = Applicant {
            name: envelope.name,
            addr,
            sync,
            nonce,
            highest,
        };
        Box::pin(async move {
            match self.admit(applicant).await {
                Ok(identity) => message::ok(|out| put_blob(out, &identity.encode())),
                Err(why) => message::refused(&why),
            }
        })
    }

    /// Gives an empty node of a known name and address a new id. Only the leader does; the member that
    /// it will replace must have been silent, so that a copied configuration evicts no node.
    async fn admit(&self, applicant: Applicant) -> Result<Identity, String> {
        let identity = self.peers.identity().ok_or("this node is empty itself")?;
        if !self.engine.leads() {
            return Err("this node does not lead".to_owned());
        }
        let level = self.peers.levels.in_use();
        let replaced = self.check(&applicant, &identity, level)?;
        let op = SystemOp::AdmitNode {
            name: applicant.name.clone(),
            addr: applicant.addr.clone(),
            nonce: applicant.nonce,
            highest: applicant.highest,
        };
        let outcome = self.batcher.propose_system(op).await;
        match outcome.map_err(|_| "the node is stopping".to_owned())? {
            Ok(SystemOutcome::NodeAdmitted { id }) => {
                let node = (id, replaced);
                Ok(self.identify(applicant, identity, node, level))
            }
            Ok(SystemOutcome::Refused { why }) => Err(why.to_string()),
            Ok(other) => Err(format!("unexpected outcome {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether the applicant fits the cluster; the id of the member that it will replace.
    fn check(&self, applicant: &Applicant, identity: &Identity, level: u32) -> Result<u64, String> {
        let Applicant {
            name,
            addr,
            sync,
            highest,
            ..
        } = applicant;
        if *sync != identity.sync {
            return Err(format!(
                "this cluster's durability is \"{}\", {name} is set to \"{}\"",
                durability(identity.sync),
                durability(*sync),
            ));
        }
        let highest = *highest;
        levels::check(level, highest)
            .map_err(|_| Refusal::TooOld { level, highest }.to_string())?;
        let listed = self.replica.member_table().by_name(name).cloned();
        let listed = listed.ok_or_else(|| {
            format!("this cluster has no member named {name}: adding one needs the operator")
        })?;
        if listed.addr != *addr {
            return Err(format!(
                "this cluster knows {name} at {}, not at {addr}: a node keeps its address when it is \
                 replaced",
                listed.addr,
            ));
        }
        // A newcomer that takes this seat already must be silent, too: it may have the vote before the
        // table says so, and a request that comes late must not evict it.
        let newcomer = {
            let table = self.replica.member_table();
            let pending = table.pending_by_name(name);
            pending.map(|pending| pending.id)
        };
        let silences = [Some(listed.id), newcomer].into_iter().flatten();
        let (engine, me) = (self.engine.get(), self.peers.my_id());
        let silent = silences
            .map(|id| self.leadership.silent_for(engine, me, id))
            .min();
        match silent.filter(|silent| *silent < self.replace_after) {
            None => Ok(listed.id),
            Some(silent) => Err(format!(
                "the {name} that this cluster knows was heard {} s ago; it is replaced after {} s of \
                 silence",
                silent.as_secs(),
                self.replace_after.as_secs(),
            )),
        }
    }

    /// The identity of an admitted node, by its id and that of the member that it replaces.
    fn identify(
        &self,
        applicant: Applicant,
        leader: Identity,
        (id, replaces): (u64, u64),
        level: u32,
    ) -> Identity {
        let Applicant {
            name, addr, sync, ..
        } = applicant;
        let mut members = self.peers.members();
        if !members.iter().any(|member| member.id == id) {
            members.push(MemberInfo {
                id,
                name: name.clone(),
                addr,
            });
        }
        if let Some(left_out) = self.lines.admitted.say() {
            tracing::info!(
                %name, id, replaces, left_out,
                "admitted a node with an empty directory"
            );
        }
        Identity {
            cluster: leader.cluster,
            node_id: id,
            name,
            sync,
            members,
            founder: false,
            level,
        }
    }
}

#[cfg(test)]
mod tests {
    use memkv_store::BatchBuilder;

    use super::*;
    use crate::Env;
    use crate::peer::fake::{Fakes, Script, config, form, identity};
    use crate::time::log_clock::LogClock;
    use crate::write::batcher::Shortages;

    fn admission() -> Admission {
        let fakes = Fakes::new(Script::Silence);
        let mut batch = BatchBuilder::new(5);
        batch.system(&form(3));
        {
            let mut machine = fakes.replica.machine.write();
            machine.store.apply(1, &batch.finish(), &mut ());
            machine.note_member_table();
            fakes.replica.publish(&machine);
        }
        let (env, config) = (Env::real(), config());
        let clock = LogClock::resume(env.clone(), None, None);
        let levels = fakes.peers.levels.clone();
        let batcher = Batcher::new(Arc::new(clock), Shortages::default(), env, levels, 1 << 20);
        Admission {
            // No member counts as silent here, and none needs to be.
            replace_after: Duration::ZERO,
            peers: fakes.peers,
            replica: fakes.replica,
            leadership: Arc::new(Leadership::new(&config)),
            batcher: Arc::new(batcher),
            engine: EngineSlot::default(),
            lines: Arc::default(),
        }
    }

    fn applicant() -> Applicant {
        Applicant {
            name: "n3".to_owned(),
            addr: "h:3".to_owned(),
            sync: true,
            nonce: 1,
            highest: 1,
        }
    }

    #[tokio::test]
    async fn only_an_empty_node_that_fits_its_seat_is_admitted() {
        let admission = admission();
        let check = |applicant: Applicant| admission.check(&applicant, &identity(), 1);
        assert_eq!(check(applicant()), Ok(3));
        let refused = |change: fn(&mut Applicant), why: &str| {
            let mut applicant = applicant();
            change(&mut applicant);
            let said = check(applicant).unwrap_err();
            assert!(said.contains(why), "{said}");
        };
        refused(
            |it| it.sync = false,
            "durability is \"sync\", n3 is set to \"os\"",
        );
        refused(|it| it.name = "n4".to_owned(), "no member named n4");
        refused(
            |it| it.addr = "h:4".to_owned(),
            "knows n3 at h:3, not at h:4",
        );
        refused(|it| it.highest = 0, "level");
    }

    #[tokio::test]
    async fn a_member_that_may_be_alive_keeps_its_seat() {
        let admission = Admission {
            replace_after: Duration::from_secs(10),
            ..admission()
        };
        let said = admission.check(&applicant(), &identity(), 1).unwrap_err();
        assert!(
            said.contains("it is replaced after 10 s of silence"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn a_node_that_does_not_lead_admits_no_node() {
        let said = admission().admit(applicant()).await.unwrap_err();
        assert_eq!(said, "this node does not lead");
    }
}
