//! Answers to nodes without a common cluster: what this node is, whether it agrees to a proposed cluster,
//! and, as a leader, whether it gives an empty node a seat.
//!
//! Never changes this node's state of life: `form` decides about a proposal that fits. Invariant: a
//! proposal that differs from this node's configuration is rejected with the difference.

use std::future::ready;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::leadership::known::Leadership;
use crate::membership::admit::Admission;
use crate::membership::identity::Identity;
use crate::membership::life::Agreement;
#[cfg(memkv_bugs)]
use crate::membership::life::Stage;
use crate::membership::list::{configured_members, durability, names, set_aside};
use crate::membership::record::Record;
use crate::peer::client::Peers;
use crate::peer::encoding::Reader;
use crate::peer::message::{self, Envelope, HelloReply, Kind, MemberInfo, read_members};
use crate::replica::Replica;
use crate::{Frame, NodeConfig};

/// A proposal to form a cluster, or the news that it was carried out, and the receiver of the answer.
pub(crate) struct Prepare {
    pub(super) agreement: Agreement,
    pub(super) carried_out: bool,
    pub(super) answer: Promise,
}

pub(crate) type Promise = oneshot::Sender<Result<(), String>>;

type Answer = BoxFuture<'static, Frame>;

fn answer(frame: Frame) -> Answer {
    Box::pin(ready(frame))
}

/// Introduces this node to others.
pub(crate) struct Introducer {
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) record: Arc<Record>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) admission: Arc<Admission>,
    /// Where damaged data of this node lies. Such a node may join a cluster that exists, but never
    /// found one: others may wait for the data that it can no longer read.
    pub(crate) quarantined: Option<PathBuf>,
    /// Proposals that fit go here.
    pub(crate) prepares: mpsc::UnboundedSender<Prepare>,
}

impl Introducer {
    /// Answers what nodes without a common cluster may say to each other.
    pub(crate) fn answer(&self, envelope: Envelope, mut body: Reader) -> Answer {
        match envelope.kind {
            Kind::Prepare => self.prepare(&mut body),
            Kind::Join => self.admission.clone().join(envelope, &mut body),
            _ => answer(match self.hello() {
                Some(reply) => message::ok(|out| reply.put(out)),
                None => message::refused("the node is stopping"),
            }),
        }
    }

    /// This node as its directory tells it, whether or not its engine is up.
    fn hello(&self) -> Option<HelloReply> {
        let (stage, cluster) = self.record.life.stage()?;
        // Before the members: an id that it covers and that they lack is gone for good.
        let highest_id = self.replica.member_table().highest_id();
        #[cfg(memkv_bugs)]
        let stage = match stage {
            Stage::Running if agrees_still(&self.replica) => Stage::Prepared,
            stage => stage,
        };
        Some(HelloReply {
            name: self.peers.me.name.clone(),
            id: self.peers.my_id(),
            directory: self.record.life.directory,
            stage,
            cluster,
            highest_level: self.peers.levels.advertised(),
            leader: self.leadership.leader_id(),
            members: self.peers.members(),
            highest_id,
        })
    }

    fn prepare(&self, body: &mut Reader) -> Answer {
        let fields = (|| {
            Ok::<_, crate::peer::encoding::DecodeError>((
                body.array("cluster")?,
                body.bool("durability")?,
                body.u32("feature level")?,
                read_members(body)?,
                body.array("proposer")?,
                body.bool("carried out")?,
            ))
        })();
        let (cluster, sync, level, members, proposer, carried_out) = match fields {
            Ok(fields) => fields,
            Err(error) => return answer(message::refused(&error.to_string())),
        };
        let proposal = match self.acceptable((cluster, sync, level), members, carried_out) {
            Ok(proposal) => proposal,
            Err(why) => return answer(message::refused(&why)),
        };
        let (tx, rx) = oneshot::channel();
        let sent = self.prepares.send(Prepare {
            agreement: Agreement { proposal, proposer },
            carried_out,
            answer: tx,
        });
        Box::pin(async move {
            if sent.is_err() {
                return message::refused("the node is stopping");
            }
            match rx.await {
                Ok(Ok(())) => message::ok(|_| {}),
                Ok(Err(why)) => message::refused(&why),
                Err(_) => message::refused("the node is stopping"),
            }
        })
    }

    /// The identity of this node in the proposed cluster, if the proposal fits its configuration. A proposal that was
    /// carried out is compared with the agreement instead.
    fn acceptable(
        &self,
        (cluster, sync, level): ([u8; 16], bool, u32),
        members: Vec<MemberInfo>,
        carried_out: bool,
    ) -> Result<Identity, String> {
        let my_name = &self.peers.me.name;
        self.peers
            .levels
            .check(level)
            .map_err(|too_old| too_old.to_string())?;
        if !carried_out {
            if self.config.founds_none() {
                return Err(format!(
                    "{my_name} waits for a cluster that exists (join, or found is \"never\"), and founds none"
                ));
            }
            let mine = configured_members(&self.config);
            if members != mine {
                return Err(format!(
                    "the lists of nodes differ: {my_name} has [{}], the proposer has [{}]; give all \
                 nodes the same list",
                    names(&mine),
                    names(&members),
                ));
            }
            if let Some(path) = &self.quarantined {
                return Err(set_aside(my_name, path));
            }
            if sync != self.config.sync {
                return Err(format!(
                    "durability differs: {my_name} is set to \"{}\", the proposer to \"{}\"; give all \
                 nodes the same",
                    durability(self.config.sync),
                    durability(sync),
                ));
            }
        }
        let me = members.iter().find(|member| member.name == *my_name);
        let me = me.ok_or("the list does not name this node")?;
        if me.id == 1 {
            return Err(format!("{my_name} is the one that proposes this list"));
        }
        Ok(Identity {
            cluster,
            node_id: me.id,
            name: me.name.clone(),
            sync,
            members,
            founder: true,
            level,
        })
    }
}

/// Whether a node that runs changes its mind, as a bug.
#[cfg(memkv_bugs)]
pub(super) fn agrees_still(replica: &Replica) -> bool {
    crate::bugs::active(crate::bugs::Bug::AgreeWhileRunning) && !replica.is_formed()
}
