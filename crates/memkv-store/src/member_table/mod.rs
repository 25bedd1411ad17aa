//! The member table: the nodes with their ids, names and addresses, the cluster's agreements at formation,
//! and its feature level with the level that each node announces.
//!
//! It is not the engine's membership: that decides which nodes vote, and this table does not know it.
//! From [`MEMBERS_LEVEL`](crate::MEMBERS_LEVEL) on it says which nodes are *to* vote, and `change` has the rules.
//!
//! Invariants: ids are unique and never come back, because every new one is above `highest_id`;
//! at most one current member and one pending node have the same name, nodes that leave not counted; a formed
//! table has a current member; the level never falls, and is raised only to one that every node in the table
//! announces.

mod change;
mod role;

use std::collections::BTreeMap;

pub use role::{MemberState, Role, Row};

use crate::{FIRST_LEVEL, Member, Refusal};

/// The most nodes a table holds, pending ones included: far above any sensible cluster, and a bound on its
/// growth by requests to join.
pub const MAX_MEMBERS: usize = 64;

/// The most nodes that vote: a write waits for a majority of them, and seven survive the loss of three.
pub const MAX_VOTERS: usize = 7;

/// The most names that a table expects, and the most removed names that it remembers.
pub const MAX_EXPECTED: usize = MAX_MEMBERS;

/// A member, and the nonce that its request to join carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberRecord {
    pub(crate) member: Member,
    /// None for a founder.
    pub(crate) nonce: Option<u64>,
    /// None until its first session is open.
    pub(crate) advertised: Option<Advertised>,
    /// None until it has announced it.
    pub(crate) memory: Option<AnnouncedMemory>,
    /// The role that it is to have.
    pub(crate) role: Role,
    /// It is to go.
    pub(crate) leaving: bool,
}

impl MemberRecord {
    /// A node that is to vote, as every one is below [`MEMBERS_LEVEL`](crate::MEMBERS_LEVEL).
    pub(crate) fn new(member: Member) -> MemberRecord {
        MemberRecord {
            member,
            nonce: None,
            advertised: None,
            memory: None,
            role: Role::Voter,
            leaving: false,
        }
    }

    pub(crate) fn state(&self) -> MemberState {
        match (self.leaving, self.member.pending) {
            (true, _) => MemberState::Leaving,
            (false, true) => MemberState::Joining,
            (false, false) => MemberState::Member,
        }
    }
}

/// How much memory for keys a node has, as it has announced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnouncedMemory {
    /// The boot that announced it.
    pub boot: u64,
    /// Bytes, as [`Memory::cost`](crate::Memory::cost) counts them.
    pub bytes: u64,
}

/// The level that a node has announced, with its latest boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertised {
    /// The boot.
    pub boot: u64,
    /// The highest feature level.
    pub highest: u32,
}

/// The member table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberTable {
    pub(crate) cluster: Option<[u8; 16]>,
    pub(crate) durability_sync: bool,
    pub(crate) level: u32,
    pub(crate) seats: BTreeMap<u64, MemberRecord>,
    pub(crate) highest_id: u64,
    /// Names of nodes that may come, with the roles that they are to have.
    pub(crate) expected: BTreeMap<String, Role>,
    /// Names of members that were removed, each with the entry that did it. The oldest are forgotten.
    pub(crate) removed: BTreeMap<String, u64>,
}

impl Default for MemberTable {
    fn default() -> MemberTable {
        MemberTable {
            cluster: None,
            durability_sync: true,
            level: FIRST_LEVEL,
            seats: BTreeMap::new(),
            highest_id: 0,
            expected: BTreeMap::new(),
            removed: BTreeMap::new(),
        }
    }
}

impl MemberTable {
    /// The cluster's UUID; none before formation.
    pub fn cluster(&self) -> Option<[u8; 16]> {
        self.cluster
    }

    /// Whether the cluster agreed that an acknowledged write is on disks; true before formation.
    pub fn durability_sync(&self) -> bool {
        self.durability_sync
    }

    /// The cluster's feature level; the first one before formation.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The level that this node has announced with its latest boot, once its session is open.
    pub fn advertised(&self, id: u64) -> Option<Advertised> {
        self.seats.get(&id)?.advertised
    }

    /// How much memory for keys this node has announced.
    pub fn announced_memory(&self, id: u64) -> Option<AnnouncedMemory> {
        self.seats.get(&id)?.memory
    }

    /// The nodes that have not announced a level, by ascending id.
    pub fn behind(&self, level: u32) -> impl Iterator<Item = &Member> {
        let knows = move |seat: &&MemberRecord| seat.advertised.is_none_or(|it| it.highest < level);
        self.seats.values().filter(knows).map(|seat| &seat.member)
    }

    /// All nodes of the table, pending ones included, by ascending id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.seats.values().map(|seat| &seat.member)
    }

    /// The same with their roles and states.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.seats.values().map(|seat| Row {
            member: &seat.member,
            role: seat.role,
            state: seat.state(),
        })
    }

    /// The node with this id, with its role and state.
    pub fn row(&self, id: u64) -> Option<Row<'_>> {
        self.rows().find(|row| row.member.id == id)
    }

    /// The names of nodes that are expected to come, with the roles that they are to have.
    pub fn expected(&self) -> impl Iterator<Item = (&str, Role)> {
        self.expected.iter().map(|(name, role)| (&**name, *role))
    }

    /// Whether a node with this id was in the table and was taken out: the id never comes back.
    pub fn was_removed(&self, id: u64) -> bool {
        id != 0 && id <= self.highest_id && !self.seats.contains_key(&id)
    }

    /// The highest id that any node ever had. A node whose id is not above it and not in the table was
    /// removed for ever.
    pub fn highest_id(&self) -> u64 {
        self.highest_id
    }

    /// The node with this id.
    pub fn member(&self, id: u64) -> Option<&Member> {
        self.seats.get(&id).map(|seat| &seat.member)
    }

    /// The current member with this name; failing that, the pending node of this name.
    pub fn by_name(&self, name: &str) -> Option<&Member> {
        self.named(name, false).or_else(|| self.named(name, true))
    }

    /// The pending node with this name.
    pub fn pending_by_name(&self, name: &str) -> Option<&Member> {
        self.named(name, true)
    }

    fn named(&self, name: &str, pending: bool) -> Option<&Member> {
        let mut staying = self.seats.values().filter(|seat| !seat.leaving);
        let found = staying.find(|seat| seat.member.pending == pending && seat.member.name == name);
        found.map(|seat| &seat.member)
    }

    fn records(&self) -> usize {
        self.members().filter(|member| !member.pending).count()
    }

    pub(crate) fn form(
        &mut self,
        cluster: [u8; 16],
        durability_sync: bool,
        level: u32,
        members: Vec<Member>,
    ) -> Result<(), Refusal> {
        if self.cluster.is_some() {
            return Err(Refusal::AlreadyFormed);
        }
        if members.iter().any(|member| member.pending) {
            return Err(Refusal::InvalidMembers {
                why: "none may be pending at formation",
            });
        }
        let seats = members.into_iter().map(MemberRecord::new);
        *self = MemberTable::with_seats(cluster, durability_sync, level, seats)
            .map_err(|why| Refusal::InvalidMembers { why })?;
        Ok(())
    }

    /// A formed table; the error names the invariant that the seats would break.
    pub(crate) fn with_seats(
        cluster: [u8; 16],
        durability_sync: bool,
        level: u32,
        seats: impl Iterator<Item = MemberRecord>,
    ) -> Result<MemberTable, &'static str> {
        let mut table = MemberTable {
            cluster: Some(cluster),
            durability_sync,
            level,
            ..MemberTable::default()
        };
        for seat in seats {
            let Member {
                id, name, pending, ..
            } = &seat.member;
            if *id == 0 || table.seats.contains_key(id) {
                return Err("ids must be unique and above 0");
            }
            if !seat.leaving && table.named(name, *pending).is_some() {
                return Err("names must be unique");
            }
            table.highest_id = table.highest_id.max(*id);
            table.seats.insert(*id, seat);
        }
        if table.seats.len() > MAX_MEMBERS {
            return Err("there are too many");
        }
        if table.records() == 0 {
            return Err("there must be a current member");
        }
        Ok(table)
    }

    /// Admits a newcomer under id `index`, or finds its earlier admission. Also returns the node that lost
    /// its pending seat to it.
    pub(crate) fn admit(
        &mut self,
        index: u64,
        name: String,
        addr: String,
        nonce: u64,
        highest: u32,
    ) -> Result<(u64, Option<u64>), Refusal> {
        if self.cluster.is_none() {
            return Err(Refusal::NotFormed);
        }
        self.check_not_too_old(highest)?;
        let same = |seat: &&MemberRecord| {
            seat.nonce == Some(nonce) && seat.member.name == name && !seat.leaving
        };
        if let Some(seat) = self.seats.values().find(same) {
            return Ok((seat.member.id, None));
        }
        // An index that is not above every id ever given might bring one of them back.
        if index <= self.highest_id && !admits_known_id() {
            return Err(Refusal::Retry);
        }
        let mut replaced = self.pending_by_name(&name).map(|member| member.id);
        if self.has_roles() {
            // It keeps its seat until the engine's membership does not hold it.
            if self.seats.len() >= MAX_MEMBERS {
                return Err(Refusal::TableFull);
            }
            let superseded = replaced.take().and_then(|id| self.seats.get_mut(&id));
            superseded.into_iter().for_each(|seat| seat.leaving = true);
        } else if let Some(id) = replaced {
            self.seats.remove(&id);
        } else if self.seats.len() >= MAX_MEMBERS {
            return Err(Refusal::TableFull);
        }
        let current = self.named(&name, false).map(|member| member.id);
        let current = current.and_then(|id| self.seats.get(&id));
        let role = current.map_or(Role::Voter, |seat| seat.role);
        let member = Member {
            id: index,
            name,
            addr,
            pending: true,
        };
        let seat = MemberRecord {
            nonce: Some(nonce),
            role,
            ..MemberRecord::new(member)
        };
        self.seats.insert(index, seat);
        self.highest_id = index;
        Ok((index, replaced))
    }

    /// Swaps the pending `new` for the current member `old`. Repeating it is no error.
    pub(crate) fn replace(&mut self, old: u64, new: u64) -> Result<(), Refusal> {
        let member = self.member(new).ok_or(Refusal::UnknownNode { node: new })?;
        if self.seats.get(&new).is_some_and(|seat| seat.leaving) {
            return Err(Refusal::NotSettled { node: new });
        }
        let Some(leaving) = self.member(old) else {
            return if member.pending {
                Err(Refusal::UnknownNode { node: old })
            } else {
                Ok(())
            };
        };
        if leaving.pending {
            return Err(Refusal::WrongStanding { node: old });
        }
        if !member.pending {
            return Err(Refusal::WrongStanding { node: new });
        }
        if let Some(other) = self
            .named(&member.name, false)
            .filter(|other| other.id != old)
        {
            return Err(Refusal::NameTaken { by: other.id });
        }
        let gone = self.seats.remove(&old);
        if let Some(seat) = self.seats.get_mut(&new) {
            seat.member.pending = false;
            seat.role = gone.map_or(seat.role, |gone| gone.role);
        }
        Ok(())
    }

    /// Takes a pending newcomer out. From [`MEMBERS_LEVEL`](crate::MEMBERS_LEVEL) on it leaves.
    pub(crate) fn give_up(&mut self, node: u64) -> Result<(), Refusal> {
        let has_roles = self.has_roles();
        let member = self.member(node).ok_or(Refusal::UnknownNode { node })?;
        if !member.pending {
            return Err(Refusal::WrongStanding { node });
        }
        match self.seats.get_mut(&node).filter(|_| has_roles) {
            Some(seat) => seat.leaving = true,
            None => drop(self.seats.remove(&node)),
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, index: u64, node: u64) -> Result<(), Refusal> {
        if self.has_roles() {
            return self.take_out(index, node);
        }
        let member = self.member(node).ok_or(Refusal::UnknownNode { node })?;
        if !member.pending && self.records() == 1 {
            return Err(Refusal::LastMember { node });
        }
        self.seats.remove(&node);
        Ok(())
    }

    pub(crate) fn set_address(&mut self, node: u64, addr: String) -> Result<(), Refusal> {
        let seat = self
            .seats
            .get_mut(&node)
            .ok_or(Refusal::UnknownNode { node })?;
        seat.member.addr = addr;
        Ok(())
    }

    /// Whether a node whose build knows this level may take part.
    pub(crate) fn check_not_too_old(&self, highest: u32) -> Result<(), Refusal> {
        let level = self.level;
        if highest < level {
            return Err(Refusal::TooOld { level, highest });
        }
        Ok(())
    }

    /// The announcement of a new boot replaces that of the boot before.
    pub(crate) fn advertise(&mut self, node: u64, advertised: Advertised) {
        if let Some(seat) = self.seats.get_mut(&node) {
            seat.advertised = Some(advertised);
        }
    }

    /// A later announcement replaces the one before.
    pub(crate) fn announce_memory(
        &mut self,
        node: u64,
        announced: AnnouncedMemory,
    ) -> Result<(), Refusal> {
        let seat = self.seats.get_mut(&node);
        seat.ok_or(Refusal::UnknownNode { node })?.memory = Some(announced);
        Ok(())
    }

    /// Raises the level, if these are all nodes of the table and each has announced it.
    pub(crate) fn raise(&mut self, to: u32, ids: &[u64]) -> Result<(), Refusal> {
        if self.cluster.is_none() {
            return Err(Refusal::NotFormed);
        }
        if to <= self.level {
            return Err(Refusal::LevelNotHigher { level: self.level });
        }
        if !self.seats.keys().eq(ids) {
            return Err(Refusal::OtherMembers);
        }
        #[cfg(memkv_bugs)]
        if crate::bugs::active(crate::bugs::Bug::RaiseUnasked) {
            self.level = to;
            return Ok(());
        }
        if let Some(member) = self.behind(to).next() {
            let node = member.id;
            let advertised = self.advertised(node).map_or(0, |it| it.highest);
            return Err(Refusal::NotAdvertised { node, advertised });
        }
        self.level = to;
        Ok(())
    }
}

#[cfg(memkv_bugs)]
fn admits_known_id() -> bool {
    crate::bugs::active(crate::bugs::Bug::AdmitKnownId)
}

#[cfg(not(memkv_bugs))]
const fn admits_known_id() -> bool {
    false
}

#[cfg(test)]
mod tests;
