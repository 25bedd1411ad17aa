//! Roles and states of the nodes in the member table. Decides nothing.

use bytes::BufMut;

use crate::Member;
use crate::encoding::{DecodeError, Reader};

/// The part of a node in the cluster, as the table wants it. The engine's membership follows in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Role {
    /// It has the data and no vote.
    Replica,
    /// It votes: acknowledged writes are on the disks of a majority of the voters.
    #[default]
    Voter,
}

impl Role {
    /// Its name: `replica` or `voter`.
    pub fn name(self) -> &'static str {
        match self {
            Role::Replica => "replica",
            Role::Voter => "voter",
        }
    }

    pub(crate) fn write(self, out: &mut impl BufMut) {
        out.put_u8(match self {
            Role::Replica => 0,
            Role::Voter => 1,
        });
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Role, DecodeError> {
        match reader.u8("role")? {
            0 => Ok(Role::Replica),
            1 => Ok(Role::Voter),
            _ => Err(DecodeError::Invalid { what: "role" }),
        }
    }
}

/// Where a node is between its admission and its removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// It was admitted and has not caught up yet.
    Joining,
    /// It belongs to the cluster.
    Member,
    /// It is to go: it gets no new work, and its seat goes with it.
    Leaving,
}

impl MemberState {
    /// Its name: `joining`, `member` or `leaving`.
    pub fn name(self) -> &'static str {
        match self {
            MemberState::Joining => "joining",
            MemberState::Member => "member",
            MemberState::Leaving => "leaving",
        }
    }
}

/// A node of the table with its role and state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// The node.
    pub member: &'a Member,
    /// The role that it is to have.
    pub role: Role,
    /// Where it is.
    pub state: MemberState,
}
