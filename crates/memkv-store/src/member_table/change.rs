//! How members change, from [`MEMBERS_LEVEL`](crate::MEMBERS_LEVEL) on: admission of new names, roles, leaving.
//!
//! Decides from the table alone. Invariants: a table has a member that is to vote; at most [`MAX_VOTERS`] are
//! to vote; a node goes from the table only after it was leaving; a removed name comes back only when it is
//! expected.

use super::{MAX_EXPECTED, MAX_MEMBERS, MAX_VOTERS, MemberRecord, MemberState, MemberTable, Role};
use crate::member_change::MemberChange;
use crate::{MEMBERS_LEVEL, Member, Refusal, SystemOutcome};

impl MemberTable {
    /// Executes a change in the entry `index`.
    pub(crate) fn change(
        &mut self,
        index: u64,
        change: MemberChange,
    ) -> Result<SystemOutcome, Refusal> {
        if self.cluster.is_none() {
            return Err(Refusal::NotFormed);
        }
        let done = match change {
            MemberChange::Admit {
                name,
                addr,
                nonce,
                highest,
                role,
                listed,
            } => {
                self.check_not_too_old(highest)?;
                let member = Member {
                    id: index,
                    name,
                    addr,
                    pending: true,
                };
                let id = self.admit_new(member, nonce, role, listed)?;
                return Ok(SystemOutcome::NodeAdmitted { id });
            }
            MemberChange::Settle { node } => self.settle(node),
            MemberChange::SetRole { node, role } => self.set_role(node, role),
            MemberChange::Leave { node } => self.leave(node),
            MemberChange::HandOver { old, new } => self.hand_over(old, new),
            MemberChange::Expect { name, role } => self.expect(name, role),
            MemberChange::Forget { name } => match self.expected.remove(&name) {
                Some(_) => Ok(()),
                None => Err(Refusal::UnknownName { name }),
            },
        };
        done.map(|()| SystemOutcome::Done)
    }

    /// Whether the next entry could make this change, as far as this table knows.
    ///
    /// # Errors
    ///
    /// The refusal that the change would meet.
    pub fn would_accept(&self, change: &MemberChange) -> Result<(), Refusal> {
        let mut copy = self.clone();
        copy.change(self.highest_id.saturating_add(1), change.clone())
            .map(drop)
    }

    fn admit_new(
        &mut self,
        member: Member,
        nonce: u64,
        proposed: Role,
        listed: bool,
    ) -> Result<u64, Refusal> {
        let (id, name) = (member.id, member.name.clone());
        let mut same_name = self.seats.values().filter(|seat| seat.member.name == name);
        if let Some(seat) = same_name
            .clone()
            .find(|seat| seat.nonce == Some(nonce) && !seat.leaving)
        {
            return Ok(seat.member.id);
        }
        if let Some(seat) = same_name.find(|seat| !seat.member.pending) {
            let by = seat.member.id;
            return Err(Refusal::NameTaken { by });
        }
        if self.removed.contains_key(&name) {
            return Err(Refusal::NameRemoved { name });
        }
        let expected = self.expected.get(&name).copied();
        let joins = self.pending_by_name(&name).map(|member| member.id);
        if listed && expected.is_none() && joins.is_none() {
            return Err(Refusal::NotExpected { name });
        }
        if id <= self.highest_id {
            return Err(Refusal::Retry);
        }
        if self.seats.len() >= MAX_MEMBERS {
            return Err(Refusal::TableFull);
        }
        let joined_as = joins
            .and_then(|id| self.seats.get(&id))
            .map(|seat| seat.role);
        let mut role = expected.or(joined_as).unwrap_or(proposed);
        if let Some(seat) = joins.and_then(|id| self.seats.get_mut(&id)) {
            seat.leaving = true;
        }
        if self.to_vote() >= MAX_VOTERS {
            role = Role::Replica;
        }
        self.expected.remove(&name);
        let seat = MemberRecord {
            nonce: Some(nonce),
            role,
            ..MemberRecord::new(member)
        };
        self.seats.insert(id, seat);
        self.highest_id = id;
        Ok(id)
    }

    fn settle(&mut self, node: u64) -> Result<(), Refusal> {
        let seat = self.seats.get(&node);
        let seat = seat.ok_or(Refusal::UnknownNode { node })?;
        if seat.leaving {
            return Err(Refusal::NotSettled { node });
        }
        let name = &seat.member.name;
        if let Some(other) = self.named(name, false).filter(|other| other.id != node) {
            return Err(Refusal::NameTaken { by: other.id });
        }
        if let Some(seat) = self.seats.get_mut(&node) {
            seat.member.pending = false;
        }
        Ok(())
    }

    fn set_role(&mut self, node: u64, role: Role) -> Result<(), Refusal> {
        let seat = self.settled(node)?;
        if seat.role == role {
            return Ok(());
        }
        match role {
            Role::Replica => self.check_not_last_voter(node)?,
            Role::Voter if self.to_vote() >= MAX_VOTERS => return Err(Refusal::TooManyVoters),
            Role::Voter => {}
        }
        if let Some(seat) = self.seats.get_mut(&node) {
            seat.role = role;
        }
        Ok(())
    }

    /// A node that is joining may always leave, and so may a replica.
    fn leave(&mut self, node: u64) -> Result<(), Refusal> {
        let seat = self.seats.get(&node).ok_or(Refusal::UnknownNode { node })?;
        if !seat.member.pending && seat.role == Role::Voter && !seat.leaving {
            self.check_not_last_voter(node)?;
        }
        if let Some(seat) = self.seats.get_mut(&node) {
            seat.leaving = true;
        }
        Ok(())
    }

    fn hand_over(&mut self, old: u64, new: u64) -> Result<(), Refusal> {
        let role = self.settled(old)?.role;
        self.settled(new)?;
        if old == new {
            return Err(Refusal::NotSettled { node: new });
        }
        if let Some(heir) = self.seats.get_mut(&new) {
            heir.role = role.max(heir.role);
        }
        if let Some(seat) = self.seats.get_mut(&old) {
            seat.leaving = true;
        }
        Ok(())
    }

    fn expect(&mut self, name: String, role: Role) -> Result<(), Refusal> {
        let taken = self.seats.values().find(|seat| {
            let stays = !seat.member.pending || !seat.leaving;
            seat.member.name == name && stays
        });
        if let Some(seat) = taken {
            let by = seat.member.id;
            return Err(Refusal::NameTaken { by });
        }
        if self.expected.len() >= MAX_EXPECTED && !self.expected.contains_key(&name) {
            return Err(Refusal::TooManyExpected);
        }
        self.removed.remove(&name);
        self.expected.insert(name, role);
        Ok(())
    }

    /// Takes a node that leaves out. A member's name is remembered as that of a removed one: its machine may
    /// come back with an empty directory, and must not come in again by itself.
    pub(crate) fn take_out(&mut self, index: u64, node: u64) -> Result<(), Refusal> {
        let seat = self.seats.get(&node).ok_or(Refusal::UnknownNode { node })?;
        if !seat.leaving {
            return Err(Refusal::NotLeaving { node });
        }
        let (name, was_member) = (seat.member.name.clone(), !seat.member.pending);
        self.seats.remove(&node);
        let is_used = self.seats.values().any(|seat| seat.member.name == name);
        if was_member && !is_used {
            self.removed.insert(name, index);
        }
        if self.removed.len() > MAX_EXPECTED {
            let oldest = self.removed.iter().min_by_key(|(_, index)| **index);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.removed.remove(&oldest);
            }
        }
        Ok(())
    }

    /// Whether members join, leave and have roles.
    pub(crate) fn has_roles(&self) -> bool {
        self.level >= MEMBERS_LEVEL
    }

    /// The number of nodes that vote or are to vote.
    fn to_vote(&self) -> usize {
        let votes = |seat: &&MemberRecord| seat.role == Role::Voter && !seat.leaving;
        self.seats.values().filter(votes).count()
    }

    fn settled(&self, node: u64) -> Result<&MemberRecord, Refusal> {
        let seat = self.seats.get(&node).ok_or(Refusal::UnknownNode { node })?;
        match seat.state() {
            MemberState::Member => Ok(seat),
            MemberState::Joining | MemberState::Leaving => Err(Refusal::NotSettled { node }),
        }
    }

    fn check_not_last_voter(&self, node: u64) -> Result<(), Refusal> {
        let votes = |seat: &MemberRecord| {
            seat.role == Role::Voter
                && seat.state() == MemberState::Member
                && seat.member.id != node
        };
        match self.seats.values().any(votes) {
            true => Ok(()),
            false => Err(Refusal::LastVoter { node }),
        }
    }
}
