//! The messages between nodes: an envelope with sender and recipient, a kind, and a body.
//!
//! Every request carries the cluster, the sender's id, name and boot, and the id that it is meant
//! for; a node rejects requests addressed elsewhere, with a reason. So neither a copied configuration nor
//! an address that now belongs to another node can mix two clusters or two lives of one node.

use bytes::{BufMut, Bytes, BytesMut};

use memkv_store::Role;

use crate::Frame;
use crate::membership::life::{Directory, Stage};
use crate::peer::encoding::{DecodeError, Reader, put_blob, put_option};
use crate::time::log_clock::Reading;

/// Version of everything that nodes say to each other. A node refuses any other. Version 4 had no group.
pub(crate) const WIRE_VERSION: u8 = 5;

/// The Raft group that every request is for. The field is reserved for several groups; a node refuses
/// any other.
const GROUP: u32 = 0;

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// AppendEntries (Raft paper, section 5.3).
    Append = 1,
    /// RequestVote (section 5.2).
    Vote = 2,
    /// The same before the term is raised (dissertation, section 9.6).
    PreVote = 3,
    /// TimeoutNow (dissertation, section 3.10).
    TransferLeader = 4,
    /// A piece of a snapshot (section 7).
    SnapshotChunk = 5,
    /// All pieces were sent: install.
    SnapshotInstall = 6,
    /// A group of commands for the leader.
    Propose = 7,
    /// The sender's session, please, for the boot that the envelope names.
    OpenSession = 8,
    /// The commit index, confirmed after the request arrived.
    ReadIndex = 9,
    /// Asks for the identity of the node.
    Hello = 10,
    /// Formation: agree to this list under this UUID; or word that all have agreed.
    Prepare = 11,
    /// An empty node asks for a seat.
    Join = 12,
    /// A message for the listeners of its channel.
    Publish = 13,
    /// Answered when the recipient does not lead, or no more.
    Attend = 14,
    /// Have you voted for this leader last?
    Confirm = 15,
    /// Asks for the memory of the sender.
    Recall = 16,
    /// How far do the members' logs agree with yours?
    Matched = 17,
    /// Asks for the checkpoints of the store.
    Checkpoints = 24,
    /// How much memory for keys the sender has, for the leader's log.
    AnnounceMemory = 25,
    /// An operator's verb for members, for the leader.
    Administer = 26,
    /// Asks the leader for the members as it sees them.
    Members = 27,
    /// A member tells its address.
    Moved = 28,
}

impl Kind {
    fn from_u8(value: u8) -> Result<Self, DecodeError> {
        const ALL: [Kind; 22] = [
            Kind::Append,
            Kind::Vote,
            Kind::PreVote,
            Kind::TransferLeader,
            Kind::SnapshotChunk,
            Kind::SnapshotInstall,
            Kind::Propose,
            Kind::OpenSession,
            Kind::ReadIndex,
            Kind::Hello,
            Kind::Prepare,
            Kind::Join,
            Kind::Publish,
            Kind::Attend,
            Kind::Confirm,
            Kind::Recall,
            Kind::Matched,
            Kind::Checkpoints,
            Kind::AnnounceMemory,
            Kind::Administer,
            Kind::Members,
            Kind::Moved,
        ];
        ALL.into_iter()
            .find(|kind| *kind as u8 == value)
            .ok_or(DecodeError::Bad {
                what: "request kind",
                value: u64::from(value),
            })
    }

    /// Whether clients of the sender wait until it has applied what comes of it.
    pub(crate) fn is_for_clients(self) -> bool {
        matches!(self, Kind::Propose | Kind::OpenSession | Kind::ReadIndex)
    }

    /// Whether nodes may exchange it that have no common cluster, or do not know each other's ids yet.
    pub(crate) fn is_open(self) -> bool {
        let introduces = matches!(self, Kind::Hello | Kind::Prepare | Kind::Join);
        introduces || matches!(self, Kind::Recall | Kind::Moved)
    }
}

/// Sender and recipient of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) kind: Kind,
    /// All zero: the sender belongs to no cluster.
    pub(crate) cluster: [u8; 16],
    /// Sender's id, 0 for none.
    pub(crate) from: u64,
    /// Which life of the sender: grows with each start on its directory. A later issue's memory of
    /// peers compares it.
    pub(crate) boot: u64,
    /// The recipient, 0 for any node at that address.
    pub(crate) to: u64,
    /// The reading of the sender's log clock.
    pub(crate) clock: Reading,
    /// The cluster's feature level, as the sender uses it.
    pub(crate) level: u32,
    /// Sender's name.
    pub(crate) name: String,
}

impl Envelope {
    /// Starts a request; the body follows.
    pub(crate) fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(128);
        out.put_u8(WIRE_VERSION);
        out.put_u8(self.kind as u8);
        out.put_u32_le(GROUP);
        out.put_slice(&self.cluster);
        out.put_u64_le(self.from);
        out.put_u64_le(self.boot);
        out.put_u64_le(self.to);
        put_clock(&mut out, self.clock);
        out.put_u32_le(self.level);
        put_blob(&mut out, self.name.as_bytes());
        out
    }

    /// Splits a request into its envelope and its body.
    pub(crate) fn decode(request: Bytes) -> Result<(Self, Reader), DecodeError> {
        let mut reader = Reader(request);
        let version = reader.u8("wire version")?;
        if version != WIRE_VERSION {
            return Err(DecodeError::Bad {
                what: "wire version",
                value: u64::from(version),
            });
        }
        let kind = Kind::from_u8(reader.u8("request kind")?)?;
        let group = reader.u32("Raft group")?;
        if group != GROUP {
            return Err(DecodeError::Bad {
                what: "Raft group (this node knows group 0 only)",
                value: u64::from(group),
            });
        }
        let envelope = Self {
            kind,
            cluster: reader.array("cluster")?,
            from: reader.u64("sender")?,
            boot: reader.u64("boot")?,
            to: reader.u64("recipient")?,
            clock: read_clock(&mut reader)?,
            level: reader.u32("feature level")?,
            name: reader.text("sender's name")?,
        };
        Ok((envelope, reader))
    }
}

pub(crate) fn put_clock(out: &mut BytesMut, clock: Reading) {
    out.put_u64_le(clock.log_ms);
    out.put_u8(u8::from(clock.synchronized));
}

pub(crate) fn read_clock(reader: &mut Reader) -> Result<Reading, DecodeError> {
    Ok(Reading {
        log_ms: reader.u64("log time")?,
        synchronized: reader.bool("log time is synchronized")?,
    })
}

/// A response that carries `body`.
pub(crate) fn ok(body: impl FnOnce(&mut BytesMut)) -> Frame {
    let mut out = BytesMut::new();
    out.put_u8(0);
    body(&mut out);
    Frame(vec![out.freeze()])
}

/// A response that says why not.
pub(crate) fn refused(why: &str) -> Frame {
    let mut out = BytesMut::new();
    out.put_u8(1);
    put_blob(&mut out, why.as_bytes());
    Frame(vec![out.freeze()])
}

/// The body of a response, or the refusal's words.
pub(crate) fn response(bytes: Bytes) -> Result<Result<Reader, String>, DecodeError> {
    let mut reader = Reader(bytes);
    match reader.u8("response")? {
        0 => Ok(Ok(reader)),
        1 => Ok(Err(reader.text("refusal")?)),
        value => Err(DecodeError::Bad {
            what: "response",
            value: u64::from(value),
        }),
    }
}

/// A member as nodes tell each other about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberInfo {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) addr: String,
}

impl MemberInfo {
    pub(crate) fn put(&self, out: &mut BytesMut) {
        out.put_u64_le(self.id);
        put_blob(out, self.name.as_bytes());
        put_blob(out, self.addr.as_bytes());
    }

    pub(crate) fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            id: reader.u64("member id")?,
            name: reader.text("member name")?,
            addr: reader.text("member address")?,
        })
    }
}

pub(crate) fn put_members(out: &mut BytesMut, members: &[MemberInfo]) {
    out.put_u32_le(crate::peer::encoding::len32(members.len()));
    members.iter().for_each(|member| member.put(out));
}

pub(crate) fn read_members(reader: &mut Reader) -> Result<Vec<MemberInfo>, DecodeError> {
    reader.list("members", MemberInfo::read)
}

/// The role that a node proposes which joins under a new name, at the end of [`Kind::Join`]. Older leaders do not
/// read it.
pub(crate) fn put_join_role(out: &mut BytesMut, role: Option<Role>) {
    put_option(out, role, |out, role| {
        out.put_u8(u8::from(role == Role::Voter));
    });
}

/// The same; older nodes do not send it.
pub(crate) fn read_join_role(reader: &mut Reader) -> Result<Option<Role>, DecodeError> {
    if reader.0.is_empty() {
        return Ok(None);
    }
    reader.option("role", |reader| {
        Ok(match reader.bool("whether it is to vote")? {
            true => Role::Voter,
            false => Role::Replica,
        })
    })
}

/// Answer to [`Kind::Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HelloReply {
    pub(crate) name: String,
    pub(crate) id: u64,
    /// The number of its directory.
    pub(crate) directory: Directory,
    /// Where in its life it is, as its directory has it.
    pub(crate) stage: Stage,
    /// The cluster that it belongs to, proposes, or has agreed to form.
    pub(crate) cluster: Option<[u8; 16]>,
    /// The highest feature level that it announces.
    pub(crate) highest_level: u32,
    /// The leader that it follows or is.
    pub(crate) leader: Option<u64>,
    /// Members as it knows them, pending ones included.
    pub(crate) members: Vec<MemberInfo>,
    /// The highest id that any member ever had, as far as it knows.
    pub(crate) highest_id: u64,
}

impl HelloReply {
    /// Whether the cluster that it names exists.
    pub(crate) fn is_formed(&self) -> bool {
        self.stage == Stage::Running
    }

    pub(crate) fn put(&self, out: &mut BytesMut) {
        put_blob(out, self.name.as_bytes());
        out.put_u64_le(self.id);
        out.put_slice(&self.directory);
        out.put_u8(self.stage as u8);
        put_option(out, self.cluster, |out, cluster| out.put_slice(&cluster));
        out.put_u32_le(self.highest_level);
        put_option(out, self.leader, BytesMut::put_u64_le);
        put_members(out, &self.members);
        out.put_u64_le(self.highest_id);
    }

    pub(crate) fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            name: reader.text("name")?,
            id: reader.u64("id")?,
            directory: reader.array("directory")?,
            stage: Stage::read(reader)?,
            cluster: reader.option("cluster", |reader| reader.array("cluster"))?,
            highest_level: reader.u32("highest level")?,
            leader: reader.option("leader", |reader| reader.u64("leader"))?,
            members: read_members(reader)?,
            highest_id: reader.u64("highest id")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_survives_the_wire_and_any_cut_is_refused() {
        let envelope = Envelope {
            kind: Kind::Join,
            cluster: [7; 16],
            from: 3,
            boot: 2,
            to: 1,
            clock: Reading {
                log_ms: 12,
                synchronized: true,
            },
            level: 4,
            name: "n3".to_owned(),
        };
        let whole = envelope.encode().freeze();
        let (read, body) = Envelope::decode(whole.clone()).unwrap();
        assert_eq!(read, envelope);
        assert!(body.0.is_empty());
        for len in 0..whole.len() {
            assert!(Envelope::decode(whole.slice(..len)).is_err());
        }
    }

    #[test]
    fn another_group_is_refused_by_name() {
        let envelope = Envelope {
            kind: Kind::Vote,
            cluster: [7; 16],
            from: 3,
            boot: 2,
            to: 1,
            clock: Reading {
                log_ms: 12,
                synchronized: false,
            },
            level: 1,
            name: "n3".to_owned(),
        };
        let mut bytes = envelope.encode();
        // Behind version and kind.
        bytes[2..6].copy_from_slice(&9u32.to_le_bytes());
        let refused = Envelope::decode(bytes.freeze()).err().unwrap();
        assert_eq!(
            refused.to_string(),
            "bad Raft group (this node knows group 0 only): 9"
        );
    }

    #[test]
    fn another_wire_version_is_refused() {
        let mut bytes = refused("x").into_bytes().to_vec();
        bytes[0] = WIRE_VERSION + 1;
        assert_eq!(
            Envelope::decode(Bytes::from(bytes)).err(),
            Some(DecodeError::Bad {
                what: "wire version",
                value: u64::from(WIRE_VERSION) + 1
            })
        );
    }
}
