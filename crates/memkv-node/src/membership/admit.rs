//! How a leader gives an empty node a seat in its cluster.
//!
//! A node of a member's name gets that member's seat (`seats` says when); a node of a new name joins, if it asks
//! for that. Invariants: the id is the index of the log entry that admits the node, so it was never used; a
//! member that answers loses its seat to no node that takes its name.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use memkv_store::{
    MEMBERS_LEVEL, MemberChange, MemberState, Refusal, Role, SystemOp, SystemOutcome,
};

use crate::Frame;
use crate::engine::handle::EngineSlot;
use crate::leadership::known::Leadership;
use crate::membership::backoff::Backoff;
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
    /// Only nodes that the operator expects are admitted under new names.
    pub(crate) expected_only: bool,
    pub(crate) backoff: Backoff,
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
    /// The role that it proposes if it asks to join under a new name. Older builds ask for seats only.
    joins: Option<Role>,
}

/// The seat that an applicant gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grant {
    /// That of this member.
    Of(u64),
    /// A new one.
    New(Role),
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
                message::read_join_role(body)?,
            ))
        })();
        let (addr, sync, nonce, highest, joins) = match fields {
            Ok(fields) => fields,
            Err(error) => return Box::pin(ready(message::refused(&error.to_string()))),
        };
        let applicant = Applicant {
            name: envelope.name,
            addr,
            sync,
            nonce,
            highest,
            joins,
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
        let seat = self.check(&applicant, &identity, level)?;
        let (name, nonce) = (applicant.name.clone(), applicant.nonce);
        let (addr, highest) = (applicant.addr.clone(), applicant.highest);
        let op = match seat {
            Grant::Of(_) => SystemOp::AdmitNode {
                name,
                addr,
                nonce,
                highest,
            },
            Grant::New(role) => {
                self.backoff.check(&name, nonce)?;
                SystemOp::Members(MemberChange::Admit {
                    name,
                    addr,
                    nonce,
                    highest,
                    role,
                    listed: self.expected_only,
                })
            }
        };
        let outcome = self.batcher.propose_system(op).await;
        match outcome.map_err(|_| "the node is stopping".to_owned())? {
            Ok(SystemOutcome::NodeAdmitted { id }) => {
                Ok(self.identify(applicant, identity, (id, seat), level))
            }
            Ok(SystemOutcome::Refused { why }) => Err(why.to_string()),
            Ok(other) => Err(format!("unexpected outcome {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether the applicant fits the cluster; the seat that it gets.
    fn check(
        &self,
        applicant: &Applicant,
        identity: &Identity,
        level: u32,
    ) -> Result<Grant, String> {
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
        let table = self.replica.member_table();
        let current = table.by_name(name).filter(|member| !member.pending);
        let Some(listed) = current.cloned() else {
            return self.check_new(applicant, level);
        };
        if listed.addr != *addr {
            return Err(format!(
                "this cluster knows {name} at {}, not at {addr}: a node keeps its address when it is \
                 replaced. If {name} is gone for good, remove it with `memkv_client member remove {name}`; \
                 `member add {name}` then lets this node come, with `join` in its configuration",
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
            None => Ok(Grant::Of(listed.id)),
            Some(silent) => Err(format!(
                "the {name} that this cluster knows was heard {} s ago; it is replaced after {} s of \
                 silence",
                silent.as_secs(),
                self.replace_after.as_secs(),
            )),
        }
    }

    /// The same for a node of a name that no member has.
    fn check_new(&self, applicant: &Applicant, level: u32) -> Result<Grant, String> {
        let Applicant { name, addr, .. } = applicant;
        let role = applicant.joins.ok_or_else(|| {
            format!(
                "this cluster has no member named {name}: start that node with `join` to add it to the cluster"
            )
        })?;
        let table = self.replica.member_table();
        if level < MEMBERS_LEVEL {
            return Err(format!(
                "a node of a new name needs feature level {MEMBERS_LEVEL}, and the cluster is at level \
                 {level}: {}",
                levels::behind(&table, MEMBERS_LEVEL),
            ));
        }
        let leader = &self.peers.me.addr;
        if is_loopback(leader) && !is_loopback(addr) {
            return Err(format!(
                "this cluster's leader is known at {leader}, which {name} at {addr} cannot reach: give every \
                 node an address that all others reach (node_addr)"
            ));
        }
        let has_address = |member: &&memkv_store::Member| {
            member.addr == *addr
                && member.name != *name
                && table
                    .row(member.id)
                    .is_some_and(|it| it.state != MemberState::Leaving)
        };
        if let Some(other) = table.members().find(has_address) {
            return Err(format!(
                "this cluster has {} at {addr}: give {name} an address of its own",
                other.name
            ));
        }
        let pending = table.pending_by_name(name);
        let acked = pending.and_then(|it| self.engine.get()?.acked_ago(it.id));
        match acked.filter(|ago| *ago < self.replace_after) {
            Some(_) if !self.backoff.is_known(name, applicant.nonce) => Err(format!(
                "another node named {name} is joining and answers: give each node a name of its own"
            )),
            _ => Ok(Grant::New(role)),
        }
    }

    /// The identity of an admitted node, by its id and the seat that it gets.
    fn identify(
        &self,
        applicant: Applicant,
        leader: Identity,
        (id, seat): (u64, Grant),
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
                %name, id, ?seat, left_out,
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

/// Whether an address is one of its machine alone.
pub(crate) fn is_loopback(addr: &str) -> bool {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip: Option<core::net::IpAddr> = host.parse().ok();
    ip.map_or(host == "localhost", |ip| ip.is_loopback())
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
            expected_only: false,
            backoff: Backoff::default(),
        }
    }

    fn applicant() -> Applicant {
        Applicant {
            name: "n3".to_owned(),
            addr: "h:3".to_owned(),
            sync: true,
            nonce: 1,
            highest: 1,
            joins: None,
        }
    }

    #[tokio::test]
    async fn only_an_empty_node_that_fits_its_seat_is_admitted() {
        let admission = admission();
        let check = |applicant: Applicant| admission.check(&applicant, &identity(), 1);
        assert_eq!(check(applicant()), Ok(Grant::Of(3)));
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
        let joins = |it: &mut Applicant| {
            it.name = "n4".to_owned();
            it.joins = Some(Role::Replica);
        };
        refused(
            joins,
            "needs feature level 3, and the cluster is at level 1",
        );
        let check = |change: fn(&mut Applicant)| {
            let mut applicant = applicant();
            joins(&mut applicant);
            change(&mut applicant);
            admission.check_new(&applicant, MEMBERS_LEVEL)
        };
        assert_eq!(
            check(|_| {}),
            Err("this cluster has n3 at h:3: give n4 an address of its own".to_owned())
        );
        assert_eq!(
            check(|it| it.addr = "h:4".to_owned()),
            Ok(Grant::New(Role::Replica))
        );
    }

    #[test]
    fn loopback_addresses_are_told_from_others() {
        for addr in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "localhost:1"] {
            assert!(is_loopback(addr), "{addr}");
        }
        for addr in [
            "10.0.0.1:1",
            "[::2]:1",
            "localhost.example.org:1",
            "h:1",
            "",
        ] {
            assert!(!is_loopback(addr), "{addr}");
        }
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
