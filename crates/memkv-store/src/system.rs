//! System operations: log entries that change the cluster's own records instead of keys, such as
//! sessions and the member table.
//!
//! This file holds their encoding and their outcomes; `member_table` and `session` execute them, and
//! `refusal` has the reasons not to. They take no revision. Invariant: the tag of an operation is never reused for another meaning.

use bytes::{BufMut, Bytes, BytesMut};

use crate::encoding::{DecodeError, Reader, put_length, put_prefixed, put_varint};
use crate::member_change::MemberChange;
use crate::member_table::MAX_MEMBERS;
use crate::{EDGE_LEVEL, Refusal, SessionId, UserSpec, rights};

/// The longest node name, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// The longest address, in bytes: a DNS name (RFC 1035: 255), a colon and a port.
pub const MAX_ADDR_BYTES: usize = 261;

/// A node in the member table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The node id, never reused.
    pub id: u64,
    /// The node's name: the original's `id`.
    pub name: String,
    /// The address at which its peers reach it, `host:port`.
    pub addr: String,
    /// Whether it was admitted but is not a current member yet.
    pub pending: bool,
}

/// A change of the cluster's own records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SystemOp {
    /// Makes an empty store that of a cluster: the first entry of its log.
    Form {
        /// The cluster's UUID.
        cluster: [u8; 16],
        /// Whether an acknowledged write is on the disks (`sync`) or in the page caches (`os`).
        durability_sync: bool,
        /// The feature level that it begins with: one that all members know.
        level: u32,
        /// The members at formation; none of them is pending.
        members: Vec<Member>,
        /// The first users, `default` among them; none for a cluster without a table of users, which is every one below
        /// [`EDGE_LEVEL`](crate::EDGE_LEVEL).
        users: Vec<(Bytes, UserSpec)>,
    },
    /// Opens a session whose id is the entry's index, in place of the one that an earlier boot of
    /// the same node has. One entry opens at most one.
    OpenSession {
        /// The node that will send the commands.
        node: u64,
        /// Its boot counter, higher than that of its open session.
        boot: u64,
        /// The highest feature level that it announces in this boot; at least the cluster's.
        highest: u32,
    },
    /// Ends a session: its commands are no longer executed, its replies are forgotten.
    CloseSession {
        /// The session to end.
        session: SessionId,
    },
    /// Admits a newcomer as pending, under a node id that is the entry's index. The same name and
    /// nonce get the same id again; another nonce replaces the pending newcomer of that name.
    AdmitNode {
        /// The newcomer's name.
        name: String,
        /// Its address.
        addr: String,
        /// Drawn by the newcomer once per data directory, to recognise its own request.
        nonce: u64,
        /// The highest feature level that its build knows; at least the cluster's.
        highest: u32,
    },
    /// Takes a member out, with its session, and makes a pending one a current member.
    ReplaceNode {
        /// The current member that leaves.
        old: u64,
        /// The pending node that takes its seat.
        new: u64,
    },
    /// Takes a node out of the table, with its session. From [`MEMBERS_LEVEL`](crate::MEMBERS_LEVEL) on, only
    /// one that leaves.
    RemoveNode {
        /// The node that leaves.
        node: u64,
    },
    /// Takes a pending newcomer out of the table, with its session. No effect on a current member.
    GiveUpSeat {
        /// The newcomer.
        node: u64,
    },
    /// Records a node's new address.
    SetAddress {
        /// The node that moved.
        node: u64,
        /// Where it is now.
        addr: String,
    },
    /// Raises the cluster's feature level, for ever. Refused unless the table holds exactly these nodes
    /// and each has advertised that it knows the level.
    RaiseLevel {
        /// The new level, above the present one.
        to: u32,
        /// All nodes of the table, pending ones included, by ascending id.
        ids: Vec<u64>,
    },
    /// Records how much memory for keys a node has. Refused unless this boot has the node's session.
    AnnounceMemory {
        /// The node.
        node: u64,
        /// Its boot counter.
        boot: u64,
        /// Bytes.
        bytes: u64,
    },
    /// Sets the cap that follows from the nodes' announcements; never below the present cost of the keys.
    SetCap {
        /// Bytes.
        bytes: u64,
    },
    /// Changes which nodes the cluster is to have, in which roles.
    Members(MemberChange),
}

/// The outcome of a system operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SystemOutcome {
    /// The session is open.
    SessionOpened {
        /// Its id.
        id: SessionId,
    },
    /// The newcomer is in the table.
    NodeAdmitted {
        /// Its node id.
        id: u64,
    },
    /// Done.
    Done,
    /// Nothing was changed.
    Refused {
        /// Why.
        why: Refusal,
    },
}

const FORM: u8 = 1;
const OPEN_SESSION: u8 = 2;
const CLOSE_SESSION: u8 = 3;
const ADMIT_NODE: u8 = 4;
const REPLACE_NODE: u8 = 5;
const REMOVE_NODE: u8 = 6;
const SET_ADDRESS: u8 = 7;
const GIVE_UP_SEAT: u8 = 8;
const RAISE_LEVEL: u8 = 9;
const ANNOUNCE_MEMORY: u8 = 10;
const SET_CAP: u8 = 11;
const MEMBERS: u8 = 12;

impl SystemOp {
    /// The operation's bytes, as a node sends them to the one that proposes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode_into(&mut out);
        out.freeze()
    }

    /// Reads one operation, which must fill `input`.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the bytes are no operation, or a name or address is too long: such an
    /// operation must not be proposed, since it would make its batch malformed.
    pub fn decode(input: &[u8]) -> Result<SystemOp, DecodeError> {
        let mut reader = Reader::new(input);
        let op = SystemOp::read(&mut reader)?;
        reader.finish("system operation")?;
        Ok(op)
    }

    /// Appends the encoding to `out`.
    pub(crate) fn encode_into(&self, out: &mut BytesMut) {
        match self {
            SystemOp::Form {
                cluster,
                durability_sync,
                level,
                members,
                users,
            } => {
                out.put_u8(FORM);
                out.put_slice(cluster);
                out.put_u8(u8::from(*durability_sync));
                put_varint(out, u64::from(*level));
                put_length(out, members.len());
                members.iter().for_each(|member| member.write(out));
                if *level >= EDGE_LEVEL {
                    rights::put_users(out, users);
                }
            }
            SystemOp::OpenSession {
                node,
                boot,
                highest,
            } => put_numbers(out, OPEN_SESSION, &[*node, *boot, u64::from(*highest)]),
            SystemOp::CloseSession { session } => put_numbers(out, CLOSE_SESSION, &[*session]),
            SystemOp::AdmitNode {
                name,
                addr,
                nonce,
                highest,
            } => {
                put_numbers(out, ADMIT_NODE, &[*nonce, u64::from(*highest)]);
                put_prefixed(out, name.as_bytes());
                put_prefixed(out, addr.as_bytes());
            }
            SystemOp::ReplaceNode { old, new } => put_numbers(out, REPLACE_NODE, &[*old, *new]),
            SystemOp::RemoveNode { node } => put_numbers(out, REMOVE_NODE, &[*node]),
            SystemOp::GiveUpSeat { node } => put_numbers(out, GIVE_UP_SEAT, &[*node]),
            SystemOp::SetAddress { node, addr } => {
                put_numbers(out, SET_ADDRESS, &[*node]);
                put_prefixed(out, addr.as_bytes());
            }
            SystemOp::RaiseLevel { to, ids } => {
                put_numbers(out, RAISE_LEVEL, &[u64::from(*to)]);
                put_length(out, ids.len());
                ids.iter().for_each(|id| put_varint(out, *id));
            }
            SystemOp::AnnounceMemory { node, boot, bytes } => {
                put_numbers(out, ANNOUNCE_MEMORY, &[*node, *boot, *bytes]);
            }
            SystemOp::SetCap { bytes } => put_numbers(out, SET_CAP, &[*bytes]),
            SystemOp::Members(change) => {
                out.put_u8(MEMBERS);
                change.write(out);
            }
        }
    }

    /// Reads one operation.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<SystemOp, DecodeError> {
        Ok(match reader.u8("system operation")? {
            FORM => {
                let cluster = reader.array("cluster id")?;
                let durability_sync = reader.bool("durability")?;
                let level = reader.level()?;
                SystemOp::Form {
                    cluster,
                    durability_sync,
                    level,
                    members: read_members(reader)?,
                    users: match level >= EDGE_LEVEL {
                        true => rights::read_users(reader)?,
                        false => Vec::new(),
                    },
                }
            }
            OPEN_SESSION => SystemOp::OpenSession {
                node: reader.varint("node id")?,
                boot: reader.varint("boot counter")?,
                highest: reader.level()?,
            },
            CLOSE_SESSION => SystemOp::CloseSession {
                session: reader.varint("session")?,
            },
            ADMIT_NODE => {
                let nonce = reader.varint("nonce")?;
                let highest = reader.level()?;
                SystemOp::AdmitNode {
                    name: read_name(reader)?,
                    addr: read_addr(reader)?,
                    nonce,
                    highest,
                }
            }
            REPLACE_NODE => SystemOp::ReplaceNode {
                old: reader.varint("node id")?,
                new: reader.varint("node id")?,
            },
            REMOVE_NODE => SystemOp::RemoveNode {
                node: reader.varint("node id")?,
            },
            GIVE_UP_SEAT => SystemOp::GiveUpSeat {
                node: reader.varint("node id")?,
            },
            SET_ADDRESS => SystemOp::SetAddress {
                node: reader.varint("node id")?,
                addr: read_addr(reader)?,
            },
            RAISE_LEVEL => SystemOp::RaiseLevel {
                to: reader.level()?,
                ids: read_ids(reader)?,
            },
            ANNOUNCE_MEMORY => SystemOp::AnnounceMemory {
                node: reader.varint("node id")?,
                boot: reader.varint("boot counter")?,
                bytes: reader.varint("bytes of memory")?,
            },
            SET_CAP => SystemOp::SetCap {
                bytes: reader.varint("memory cap")?,
            },
            MEMBERS => SystemOp::Members(MemberChange::read(reader)?),
            tag => {
                return Err(DecodeError::UnknownTag {
                    what: "system operation",
                    tag,
                });
            }
        })
    }
}

impl Member {
    pub(crate) fn write(&self, out: &mut impl BufMut) {
        put_varint(out, self.id);
        put_prefixed(out, self.name.as_bytes());
        put_prefixed(out, self.addr.as_bytes());
        out.put_u8(u8::from(self.pending));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Member, DecodeError> {
        Ok(Member {
            id: reader.varint("node id")?,
            name: read_name(reader)?,
            addr: read_addr(reader)?,
            pending: reader.bool("pending")?,
        })
    }
}

fn read_members(reader: &mut Reader<'_>) -> Result<Vec<Member>, DecodeError> {
    let count = read_count(reader)?;
    (0..count).map(|_| Member::read(reader)).collect()
}

fn read_ids(reader: &mut Reader<'_>) -> Result<Vec<u64>, DecodeError> {
    let count = read_count(reader)?;
    (0..count).map(|_| reader.varint("node id")).collect()
}

/// The number of members that follow: no more than a table holds.
fn read_count(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    let count = reader.length("members")?;
    if count > MAX_MEMBERS {
        return Err(DecodeError::Invalid {
            what: "number of members",
        });
    }
    Ok(count)
}

pub(crate) fn read_name(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    reader.text(MAX_NAME_BYTES, "node name").map(str::to_owned)
}

pub(crate) fn read_addr(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    reader
        .text(MAX_ADDR_BYTES, "node address")
        .map(str::to_owned)
}

fn put_numbers(out: &mut BytesMut, tag: u8, numbers: &[u64]) {
    out.put_u8(tag);
    numbers.iter().for_each(|number| put_varint(out, *number));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<SystemOp> {
        let member = |id, name: &str, pending| Member {
            id,
            name: name.to_owned(),
            addr: format!("host-{name}:1"),
            pending,
        };
        let text = |len| "x".repeat(len);
        [
            SystemOp::Form {
                cluster: *b"0123456789abcdef",
                durability_sync: true,
                level: u32::MAX,
                members: vec![member(1, "a", false), member(u64::MAX, "ä", true)],
                users: vec![(Bytes::from_static(b"default"), UserSpec::default())],
            },
            SystemOp::Form {
                cluster: [0; 16],
                durability_sync: false,
                level: 1,
                members: vec![],
                users: vec![],
            },
            SystemOp::Form {
                cluster: [0; 16],
                durability_sync: false,
                level: EDGE_LEVEL,
                members: vec![],
                users: vec![],
            },
            SystemOp::OpenSession {
                node: 1,
                boot: u64::MAX,
                highest: 300,
            },
            SystemOp::CloseSession { session: 300 },
            SystemOp::AdmitNode {
                name: text(MAX_NAME_BYTES),
                addr: text(MAX_ADDR_BYTES),
                nonce: 7,
                highest: 1,
            },
            SystemOp::ReplaceNode {
                old: 1,
                new: 1 << 40,
            },
            SystemOp::RemoveNode { node: 0 },
            SystemOp::GiveUpSeat { node: 1 << 40 },
            SystemOp::SetAddress {
                node: 2,
                addr: String::new(),
            },
            SystemOp::RaiseLevel {
                to: 2,
                ids: vec![1, 300],
            },
            SystemOp::AnnounceMemory {
                node: 3,
                boot: 300,
                bytes: u64::MAX,
            },
            SystemOp::SetCap { bytes: 0 },
        ]
        .into_iter()
        .chain(crate::member_change::samples().map(SystemOp::Members))
        .collect()
    }

    #[test]
    fn operations_round_trip_and_a_cut_one_is_refused() {
        for op in samples() {
            let encoded = op.encode();
            for len in 0..encoded.len() {
                assert!(
                    SystemOp::decode(&encoded[..len]).is_err(),
                    "{op:?} cut at {len}"
                );
            }
            assert_eq!(SystemOp::decode(&encoded), Ok(op));
        }
    }

    #[test]
    fn names_addresses_and_member_lists_are_bounded() {
        let decode = |op: SystemOp| SystemOp::decode(&op.encode()).map(drop);
        let name = "x".repeat(MAX_NAME_BYTES + 1);
        let admit = SystemOp::AdmitNode {
            name,
            addr: String::new(),
            nonce: 0,
            highest: 1,
        };
        assert!(matches!(decode(admit), Err(DecodeError::TooLong { .. })));
        let addr = "x".repeat(MAX_ADDR_BYTES + 1);
        let moved = SystemOp::SetAddress { node: 1, addr };
        assert!(matches!(decode(moved), Err(DecodeError::TooLong { .. })));
        let member = |id| Member {
            id,
            name: String::new(),
            addr: String::new(),
            pending: false,
        };
        let members = (0..=MAX_MEMBERS as u64).map(member).collect();
        let form = SystemOp::Form {
            cluster: [0; 16],
            durability_sync: true,
            level: 1,
            members,
            users: vec![],
        };
        let raise = SystemOp::RaiseLevel {
            to: 2,
            ids: vec![1; MAX_MEMBERS + 1],
        };
        for op in [form, raise] {
            assert_eq!(
                decode(op),
                Err(DecodeError::Invalid {
                    what: "number of members"
                })
            );
        }
    }

    #[test]
    fn level_0_and_what_is_no_level_are_refused() {
        let invalid = Err(DecodeError::Invalid {
            what: "feature level",
        });
        let zero = SystemOp::RaiseLevel { to: 0, ids: vec![] };
        assert_eq!(SystemOp::decode(&zero.encode()), invalid);
        let mut beyond = BytesMut::new();
        put_numbers(&mut beyond, OPEN_SESSION, &[1, 1, 1 << 32]);
        assert_eq!(SystemOp::decode(&beyond), invalid);
    }
}
