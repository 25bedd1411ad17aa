//! Changes of members: which nodes the cluster is to have, and in which roles. Their encoding.
//!
//! Never says which nodes vote: the leader brings the engine's membership to what the table says, and that
//! takes time. `member_table/change.rs` executes them. Invariant: a tag is never reused for another meaning.

use bytes::{BufMut, BytesMut};

use crate::Role;
use crate::encoding::{DecodeError, Reader, put_prefixed, put_varint};
use crate::system::{read_addr, read_name};

/// A change of the members. Refused below [`MEMBERS_LEVEL`](crate::MEMBERS_LEVEL).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// Admits a node of a name that no member has, under a node id that is the entry's index. The same name
    /// and nonce get the same id again; with another nonce, the node that was joining under this name leaves.
    Admit {
        /// The node's name.
        name: String,
        /// Its address.
        addr: String,
        /// Drawn by the node once per process, to recognise its own request.
        nonce: u64,
        /// The highest feature level that its build knows; at least the cluster's.
        highest: u32,
        /// The role that its configuration proposes. An expectation of its name overrides it.
        role: Role,
        /// Whether only expected names are admitted.
        listed: bool,
    },
    /// A node that was joining has caught up, and is a member from now on. No effect on a member.
    Settle {
        /// The node.
        node: u64,
    },
    /// Sets the role that a node is to have.
    SetRole {
        /// The node.
        node: u64,
        /// The role.
        role: Role,
    },
    /// Lets a node leave. It keeps its seat until the engine's membership holds it no more.
    Leave {
        /// The node.
        node: u64,
    },
    /// Lets a member leave, and gives its role to another one.
    HandOver {
        /// The member that leaves.
        old: u64,
        /// The member that gets its role.
        new: u64,
    },
    /// Expects a node of this name, or lets a removed one come back.
    Expect {
        /// The name; no node of the table has it.
        name: String,
        /// The role that it is to have.
        role: Role,
    },
    /// Expects it no more.
    Forget {
        /// The name.
        name: String,
    },
}

const ADMIT: u8 = 1;
const SETTLE: u8 = 2;
const SET_ROLE: u8 = 3;
const LEAVE: u8 = 4;
const HAND_OVER: u8 = 5;
const EXPECT: u8 = 6;
const FORGET: u8 = 7;

impl MemberChange {
    pub(crate) fn write(&self, out: &mut BytesMut) {
        match self {
            MemberChange::Admit {
                name,
                addr,
                nonce,
                highest,
                role,
                listed,
            } => {
                put_numbers(out, ADMIT, &[*nonce, u64::from(*highest)]);
                put_prefixed(out, name.as_bytes());
                put_prefixed(out, addr.as_bytes());
                role.write(out);
                out.put_u8(u8::from(*listed));
            }
            MemberChange::Settle { node } => put_numbers(out, SETTLE, &[*node]),
            MemberChange::SetRole { node, role } => {
                put_numbers(out, SET_ROLE, &[*node]);
                role.write(out);
            }
            MemberChange::Leave { node } => put_numbers(out, LEAVE, &[*node]),
            MemberChange::HandOver { old, new } => put_numbers(out, HAND_OVER, &[*old, *new]),
            MemberChange::Expect { name, role } => {
                out.put_u8(EXPECT);
                put_prefixed(out, name.as_bytes());
                role.write(out);
            }
            MemberChange::Forget { name } => {
                out.put_u8(FORGET);
                put_prefixed(out, name.as_bytes());
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<MemberChange, DecodeError> {
        Ok(match reader.u8("change of members")? {
            ADMIT => {
                let nonce = reader.varint("nonce")?;
                let highest = reader.level()?;
                MemberChange::Admit {
                    name: read_name(reader)?,
                    addr: read_addr(reader)?,
                    nonce,
                    highest,
                    role: Role::read(reader)?,
                    listed: reader.bool("whether only expected names are admitted")?,
                }
            }
            SETTLE => MemberChange::Settle {
                node: reader.varint("node id")?,
            },
            SET_ROLE => MemberChange::SetRole {
                node: reader.varint("node id")?,
                role: Role::read(reader)?,
            },
            LEAVE => MemberChange::Leave {
                node: reader.varint("node id")?,
            },
            HAND_OVER => MemberChange::HandOver {
                old: reader.varint("node id")?,
                new: reader.varint("node id")?,
            },
            EXPECT => MemberChange::Expect {
                name: read_name(reader)?,
                role: Role::read(reader)?,
            },
            FORGET => MemberChange::Forget {
                name: read_name(reader)?,
            },
            tag => {
                return Err(DecodeError::UnknownTag {
                    what: "change of members",
                    tag,
                });
            }
        })
    }
}

fn put_numbers(out: &mut BytesMut, tag: u8, numbers: &[u64]) {
    out.put_u8(tag);
    numbers.iter().for_each(|number| put_varint(out, *number));
}

/// One of each, for the tests of the encoding.
#[cfg(test)]
pub(crate) fn samples() -> impl Iterator<Item = MemberChange> {
    let name = || "n4".to_owned();
    [
        MemberChange::Admit {
            name: name(),
            addr: "h:4".to_owned(),
            nonce: u64::MAX,
            highest: 3,
            role: Role::Replica,
            listed: true,
        },
        MemberChange::Settle { node: 300 },
        MemberChange::SetRole {
            node: 1,
            role: Role::Voter,
        },
        MemberChange::Leave { node: 0 },
        MemberChange::HandOver { old: 3, new: 300 },
        MemberChange::Expect {
            name: name(),
            role: Role::Voter,
        },
        MemberChange::Forget { name: name() },
    ]
    .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes in the logs of clusters: they never change.
    #[test]
    fn the_encoding_is_that_of_the_logs_that_exist() {
        let golden: [&[u8]; 7] = [
            b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x03\x02n4\x03h:4\x00\x01",
            b"\x02\xac\x02",
            b"\x03\x01\x01",
            b"\x04\x00",
            b"\x05\x03\xac\x02",
            b"\x06\x02n4\x01",
            b"\x07\x02n4",
        ];
        for (change, golden) in samples().zip(golden) {
            let mut out = BytesMut::new();
            change.write(&mut out);
            assert_eq!(out, golden, "{change:?}");
        }
    }

    #[test]
    fn what_is_no_role_is_refused() {
        let mut reader = Reader::new(b"\x03\x01\x02");
        assert_eq!(
            MemberChange::read(&mut reader),
            Err(DecodeError::Invalid { what: "role" })
        );
    }
}
