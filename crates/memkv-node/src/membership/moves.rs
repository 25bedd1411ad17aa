//! Members that move to another address: each tells its own until the member table has it.
//!
//! A member whose address is another one than the table's tells all others once a second, at the addresses that it
//! knows of them: those that they have told, the table's, and the configuration's, `join` included. In return it
//! learns where the others are, so that all may move at once over a restart: what has been told, and from a node
//! that serves its table as well, since those that moved first are in that already, and tell nothing any more. The
//! leader dials the told address and the table's, and changes the table if the member answers at the first and not
//! at the second.
//!
//! Never lets a node in: only a member of this cluster is listened to, in its newest life. Invariant: a told
//! address is where calls are tried first; an identity is never taken from it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures_util::future::join_all;
use memkv_store::{MAX_ADDR_BYTES, MemberTable};

use crate::disk::memory::Memory;
use crate::group::Group;
use crate::lifecycle::Lifecycle;
use crate::membership::greet::{HELLO_TIMEOUT, call_peer, greet_addresses, peer_of};
use crate::membership::identity::uuid_text;
use crate::peer::addresses::Told;
use crate::peer::client::{PeerError, Peers};
use crate::peer::encoding::{DecodeError, Reader, len32, put_blob};
use crate::peer::message::{self, Envelope, Kind, MemberInfo};
use crate::replica::Replica;
use crate::{Frame, NodeConfig, Peer, Phase};

/// How often a node that has moved tells it: once for each heartbeat of ten, and as soon as a peer may have started.
const INTERVAL: Duration = Duration::from_secs(1);

/// A node's part in moves.
pub(crate) struct Mover {
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) lifecycle: Arc<Lifecycle>,
}

impl Mover {
    /// Tells the others as long as the table has another address, and saves what this node's next process has to
    /// know. Runs from the moment on from which the node has its identity.
    pub(crate) async fn run(self) {
        let keep = async {
            loop {
                let newest = |id| self.memory.recall(id).map_or(0, |of| of.boot);
                self.peers
                    .addresses
                    .tidy(&self.replica.member_table(), newest);
                // Before that, the table may be an old one.
                if self.lifecycle.phase().0 == Phase::Serving {
                    self.peers.addresses.trust_table();
                    self.remember();
                }
                tokio::time::sleep(INTERVAL).await;
            }
        };
        // Apart: nodes that are gone are waited for.
        let tell = async {
            loop {
                if self.has_moved() {
                    self.tell().await;
                }
                tokio::time::sleep(INTERVAL).await;
            }
        };
        let ((), ()) = tokio::join!(keep, tell);
    }

    /// Goes on with the addresses that an earlier process has known. Comes before anything asks the others.
    pub(crate) fn recall(&self) {
        for MemberInfo { id, addr, .. } in self.memory.members() {
            self.peers.addresses.hear(id, addr);
        }
    }

    /// Saves the members that this node's next process would not know, or not find.
    fn remember(&self) {
        let Some(identity) = self.peers.identity() else {
            return;
        };
        let members = self.peers.members().into_iter();
        let is_new = |member: &MemberInfo| {
            member.id != identity.node_id && !identity.members.contains(member)
        };
        self.memory.note_members(members.filter(is_new).collect());
    }

    /// Whether this node is elsewhere than the table says, or the list of its admission.
    fn has_moved(&self) -> bool {
        let me = self.peers.my_id();
        let table = self.replica.member_table();
        if let Some(seat) = table.member(me) {
            return seat.addr != self.peers.me.addr;
        }
        let members = self.peers.identity().map(|identity| identity.members);
        let mut members = members.unwrap_or_default().into_iter();
        members.any(|member| member.id == me && member.addr != self.peers.me.addr)
    }

    /// Tells the members that it knows, and the nodes of the configuration, whatever they are.
    async fn tell(&self) {
        let mine = self.peers.my_id();
        let members = self.peers.members().into_iter();
        let ids: Vec<u64> = members.map(|member| member.id).collect();
        let others = ids.into_iter().filter(|id| *id != mine);
        let located: Vec<_> = others.filter_map(|id| self.peers.locate(id)).collect();
        let is_known = |addr: &str| located.iter().any(|(member, _)| member.addr == addr);
        let configured = self.config.peers.iter().cloned();
        let join = self.config.join.iter().map(|addr| Peer {
            name: String::new(),
            addr: addr.clone(),
        });
        let strangers: Vec<Peer> = configured
            .chain(join)
            .filter(|peer| peer.addr != self.peers.me.addr && !is_known(&peer.addr))
            .collect();
        let to_members = located.iter().map(|located| async move {
            let (member, _) = located;
            let told = self.tell_one(&peer_of(member)).await;
            if told.is_err_and(|error| error.is_undelivered()) {
                self.peers.addresses.failed(located);
            }
        });
        let to_strangers = strangers.iter().map(|peer| async move {
            if let Err(error) = self.tell_one(peer).await {
                tracing::debug!(addr = %peer.addr, %error, "could not tell this node's address");
            }
        });
        tokio::join!(join_all(to_members), join_all(to_strangers));
    }

    /// Tells one node, and notes where it says that others are.
    async fn tell_one(&self, peer: &Peer) -> Result<(), PeerError> {
        let told = call_peer(&self.peers, peer, Kind::Moved, HELLO_TIMEOUT, |out| {
            put_blob(out, self.peers.me.addr.as_bytes());
        });
        let mut body = told.await?;
        match read_told(&mut body) {
            Ok(known) => self.learn(known),
            Err(error) => tracing::debug!(%error, "an unreadable answer to this node's address"),
        }
        Ok(())
    }

    /// Notes where others are, as a member knows it.
    fn learn(&self, known: Known) {
        for (id, told) in known.told {
            note(&self.peers, &self.replica, &self.memory, id, told);
        }
        for (id, addr) in known.table {
            let is_other = id != self.peers.my_id() && self.peers.member(id).is_some();
            if is_other && fits(&addr) {
                self.peers.addresses.hear(id, addr);
            }
        }
    }
}

/// Notes where a member is, if it is one and that is its newest life. Whether it is a member.
fn note(peers: &Peers, replica: &Replica, memory: &Memory, id: u64, told: Told) -> bool {
    let is_me = id == peers.my_id();
    let name = match peers.member(id) {
        Some(member) if fits(&told.addr) && !is_me => member.name,
        _ => return false,
    };
    #[cfg(memkv_bugs)]
    if crate::bugs::active(crate::bugs::Bug::IgnoreMoves) {
        return true;
    }
    let newest = memory.recall(id).map_or(0, |of| of.boot);
    if told.boot < newest {
        return false;
    }
    let table = replica.member_table();
    let is_settled = table.member(id).is_some_and(|seat| seat.addr == told.addr);
    let addr = told.addr.clone();
    if peers.addresses.note(id, told) && !is_settled {
        tracing::info!(%name, id, %addr, "a member tells that it has moved");
    }
    true
}

fn fits(addr: &str) -> bool {
    !addr.is_empty() && addr.len() <= MAX_ADDR_BYTES
}

/// Answers a member that tells its address: with those that this node and others have told.
pub(crate) fn receive(group: &Group, envelope: &Envelope, mut body: Reader) -> Frame {
    let peers = &group.process.peers;
    let addr = match body.text("address") {
        Ok(addr) => addr,
        Err(error) => return message::refused(&error.to_string()),
    };
    match peers.cluster() {
        Some(cluster) if cluster == envelope.cluster => {}
        Some(cluster) => {
            return message::refused(&format!(
                "this node belongs to cluster {}, and the one that has moved to {}",
                uuid_text(&cluster),
                uuid_text(&envelope.cluster)
            ));
        }
        None => return message::refused("this node belongs to no cluster yet"),
    }
    let told = Told {
        addr,
        boot: envelope.boot,
    };
    if !note(peers, &group.replica, &group.memory, envelope.from, told) {
        return message::refused("this node knows no such member, or one that has started since");
    }
    let mut told = peers.addresses.told();
    told.retain(|(id, _)| *id != envelope.from);
    told.push((
        peers.my_id(),
        Told {
            addr: peers.me.addr.clone(),
            boot: peers.boot,
        },
    ));
    let mut table = Vec::new();
    if peers.addresses.trusts_table() {
        let seats = group.replica.member_table();
        let others = seats.members().filter(|seat| seat.id != envelope.from);
        table.extend(others.map(|seat| (seat.id, seat.addr.clone())));
    }
    message::ok(|out| put_told(out, &Known { told, table }))
}

/// Where a member knows others to be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    /// What members have told of themselves.
    told: Vec<(u64, Told)>,
    /// What the table says, from a node that serves.
    table: Vec<(u64, String)>,
}

fn put_told(out: &mut BytesMut, known: &Known) {
    out.put_u32_le(len32(known.told.len()));
    for (id, told) in &known.told {
        out.put_u64_le(*id);
        out.put_u64_le(told.boot);
        put_blob(out, told.addr.as_bytes());
    }
    out.put_u32_le(len32(known.table.len()));
    for (id, addr) in &known.table {
        out.put_u64_le(*id);
        put_blob(out, addr.as_bytes());
    }
}

fn read_told(body: &mut Reader) -> Result<Known, DecodeError> {
    let told = body.list("told addresses", |reader| {
        let id = reader.u64("member id")?;
        let boot = reader.u64("boot")?;
        let addr = reader.text("address")?;
        Ok((id, Told { addr, boot }))
    })?;
    let table = body.list("addresses", |reader| {
        Ok((reader.u64("member id")?, reader.text("address")?))
    })?;
    Ok(Known { told, table })
}

/// A member that the leader may write down at another address, if it answers there: its id, the table's address
/// and the new one. The leader itself is the first of them, since it is told nothing of itself.
pub(crate) fn next(peers: &Peers, table: &MemberTable) -> Option<(u64, String, String)> {
    let me = table.member(peers.my_id());
    let mine = me
        .filter(|me| me.addr != peers.me.addr)
        .map(|me| (me.id, me.addr.clone(), peers.me.addr.clone()));
    let mut moved: Vec<_> = mine.into_iter().collect();
    moved.extend(peers.addresses.moved(table));
    let at = peers.addresses.turn(moved.len())?;
    moved.into_iter().nth(at)
}

/// What a leader finds that dials both addresses of a member.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is at the new one and not at the old one.
    Moved,
    /// It does not answer at the new one, for this reason.
    Unreachable(String),
    /// It answers at both: two processes have its id.
    Twice,
}

/// Dials both addresses of a member.
pub(crate) async fn look(peers: &Peers, id: u64, old: &str, new: &str) -> Found {
    let asked = [old.to_owned(), new.to_owned()];
    let cluster = peers.cluster();
    let answers = greet_addresses(peers, &asked).await;
    let is_it = |at: usize| match answers.get(at) {
        Some((_, Ok(reply))) if reply.id == id && reply.cluster == cluster => Ok(()),
        Some((_, Ok(reply))) => Err(format!("{} answers there", reply.name)),
        Some((_, Err(why))) => Err(why.clone()),
        None => Err("it was not asked".to_owned()),
    };
    match (is_it(0), is_it(1)) {
        (Ok(()), Ok(())) => Found::Twice,
        (_, Ok(())) => Found::Moved,
        (_, Err(why)) => Found::Unreachable(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_addresses_survive_the_wire_and_any_cut_is_refused() {
        let told = vec![
            (
                3,
                Told {
                    addr: "h:3".to_owned(),
                    boot: 7,
                },
            ),
            (
                9,
                Told {
                    addr: String::new(),
                    boot: u64::MAX,
                },
            ),
        ];
        let table = vec![(4, "h:4".to_owned()), (7, "h:7".to_owned())];
        let known = Known { told, table };
        let mut out = BytesMut::new();
        put_told(&mut out, &known);
        let whole = out.freeze();
        assert_eq!(read_told(&mut Reader(whole.clone())), Ok(known));
        for len in 0..whole.len() {
            assert!(read_told(&mut Reader(whole.slice(..len))).is_err());
        }
    }
}
