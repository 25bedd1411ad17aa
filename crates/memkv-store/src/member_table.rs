//! The member table: the nodes with their ids, names and addresses, the cluster's agreements at formation,
//! and its feature level with the level that each node announces.
//!
//! It is not the engine's membership: that decides which nodes vote, and this table does not know it.
//! Invariants: ids are unique and never come back, because every new one is above `highest_id`;
//! at most one current member and one pending node have the same name; a formed table has a
//! current member; the level never falls, and is raised only to one that every node in the table announces.

use std::collections::BTreeMap;

use crate::{FIRST_LEVEL, Member, Refusal};

/// The most nodes a table holds, pending ones included: far above any sensible cluster, and a bound on its
/// growth by requests to join.
pub const MAX_MEMBERS: usize = 64;

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
}

impl Default for MemberTable {
    fn default() -> MemberTable {
        MemberTable {
            cluster: None,
            durability_sync: true,
            level: FIRST_LEVEL,
            seats: BTreeMap::new(),
            highest_id: 0,
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
        self.members()
            .find(|member| member.pending == pending && member.name == name)
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
        let seats = members.into_iter().map(|member| MemberRecord {
            member,
            nonce: None,
            advertised: None,
            memory: None,
        });
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
            if table.named(name, *pending).is_some() {
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
        let same = |seat: &&MemberRecord| seat.nonce == Some(nonce) && seat.member.name == name;
        if let Some(seat) = self.seats.values().find(same) {
            return Ok((seat.member.id, None));
        }
        // An index that is not above every id ever given might bring one of them back.
        if index <= self.highest_id && !admits_known_id() {
            return Err(Refusal::Retry);
        }
        let replaced = self.pending_by_name(&name).map(|member| member.id);
        if let Some(id) = replaced {
            self.seats.remove(&id);
        } else if self.seats.len() >= MAX_MEMBERS {
            return Err(Refusal::TableFull);
        }
        let member = Member {
            id: index,
            name,
            addr,
            pending: true,
        };
        self.seats.insert(
            index,
            MemberRecord {
                member,
                nonce: Some(nonce),
                advertised: None,
                memory: None,
            },
        );
        self.highest_id = index;
        Ok((index, replaced))
    }

    /// Swaps the pending `new` for the current member `old`. Repeating it is no error.
    pub(crate) fn replace(&mut self, old: u64, new: u64) -> Result<(), Refusal> {
        let member = self.member(new).ok_or(Refusal::UnknownNode { node: new })?;
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
        self.seats.remove(&old);
        if let Some(seat) = self.seats.get_mut(&new) {
            seat.member.pending = false;
        }
        Ok(())
    }

    /// Takes a pending newcomer out.
    pub(crate) fn give_up(&mut self, node: u64) -> Result<(), Refusal> {
        let member = self.member(node).ok_or(Refusal::UnknownNode { node })?;
        if !member.pending {
            return Err(Refusal::WrongStanding { node });
        }
        self.seats.remove(&node);
        Ok(())
    }

    pub(crate) fn remove(&mut self, node: u64) -> Result<(), Refusal> {
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
mod tests {
    use super::*;

    fn member(id: u64, name: &str) -> Member {
        Member {
            id,
            name: name.to_owned(),
            addr: format!("{name}:1"),
            pending: false,
        }
    }

    fn formed() -> MemberTable {
        let mut table = MemberTable::default();
        let members = vec![member(3, "c"), member(1, "a"), member(2, "b")];
        assert_eq!(table.form([7; 16], false, 1, members), Ok(()));
        table
    }

    fn admit(table: &mut MemberTable, index: u64, name: &str, nonce: u64) -> Result<u64, Refusal> {
        table
            .admit(index, name.to_owned(), format!("{name}:2"), nonce, 1)
            .map(|(id, _)| id)
    }

    #[test]
    fn formation_takes_a_valid_list_once() {
        let mut table = MemberTable::default();
        let pending = Member {
            pending: true,
            ..member(2, "b")
        };
        let invalid = [
            vec![],
            vec![member(0, "a")],
            vec![member(1, "a"), member(1, "b")],
            vec![member(1, "a"), member(2, "a")],
            vec![member(1, "a"), pending],
            (1..=MAX_MEMBERS as u64 + 1)
                .map(|id| member(id, &id.to_string()))
                .collect(),
        ];
        for members in invalid {
            let refused = table.form([1; 16], true, 1, members);
            assert!(matches!(refused, Err(Refusal::InvalidMembers { .. })));
            assert_eq!(table, MemberTable::default());
        }
        let mut table = formed();
        assert_eq!(
            table.form([1; 16], true, 1, vec![member(1, "a")]),
            Err(Refusal::AlreadyFormed)
        );
        assert_eq!(
            (table.cluster(), table.durability_sync()),
            (Some([7; 16]), false)
        );
        assert_eq!(table.members().map(|m| m.id).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn admission_is_idempotent_per_name_and_nonce() {
        assert_eq!(
            admit(&mut MemberTable::default(), 9, "a", 1),
            Err(Refusal::NotFormed)
        );
        let mut table = formed();
        assert_eq!(
            admit(&mut table, 3, "a", 1),
            Err(Refusal::Retry),
            "3 was a node id"
        );
        assert_eq!(admit(&mut table, 10, "a", 1), Ok(10));
        assert_eq!(
            admit(&mut table, 10, "b", 1),
            Err(Refusal::Retry),
            "one id per entry"
        );
        assert_eq!(admit(&mut table, 11, "a", 1), Ok(10));
        assert_eq!(
            table.admit(12, "a".into(), "a:3".into(), 2, 1),
            Ok((12, Some(10)))
        );
        assert_eq!(table.member(10), None);
        assert_eq!(
            table.by_name("a").map(|m| m.id),
            Some(1),
            "the current member"
        );
        assert_eq!(table.pending_by_name("a").map(|m| m.id), Some(12));
        assert_eq!(admit(&mut table, 13, "new", 5), Ok(13));
        assert_eq!(table.by_name("new").map(|m| m.id), Some(13));
        assert_eq!(table.replace(1, 12), Ok(()));
        assert_eq!(
            admit(&mut table, 14, "a", 2),
            Ok(12),
            "also after it became a member"
        );
    }

    #[test]
    fn requests_to_join_cannot_fill_the_memory() {
        let mut table = formed();
        for index in 4..=MAX_MEMBERS as u64 {
            assert_eq!(admit(&mut table, index, &index.to_string(), 0), Ok(index));
        }
        assert_eq!(admit(&mut table, 100, "new", 0), Err(Refusal::TableFull));
        assert_eq!(
            admit(&mut table, 100, "4", 1),
            Ok(100),
            "in place of its own earlier request"
        );
        assert_eq!(table.members().count(), MAX_MEMBERS);
    }

    #[test]
    fn only_a_pending_node_replaces_a_current_member() {
        let mut table = formed();
        assert_eq!(admit(&mut table, 10, "a", 1), Ok(10));
        assert_eq!(admit(&mut table, 11, "b", 1), Ok(11));
        assert_eq!(table.replace(1, 9), Err(Refusal::UnknownNode { node: 9 }));
        assert_eq!(table.replace(9, 10), Err(Refusal::UnknownNode { node: 9 }));
        assert_eq!(table.replace(1, 2), Err(Refusal::WrongStanding { node: 2 }));
        assert_eq!(
            table.replace(11, 10),
            Err(Refusal::WrongStanding { node: 11 })
        );
        assert_eq!(table.replace(1, 11), Err(Refusal::NameTaken { by: 2 }));
        let before = table.clone();
        assert_eq!(table.replace(1, 10), Ok(()));
        assert_ne!(table, before);
        assert_eq!(table.member(1), None);
        assert_eq!(table.member(10).map(|m| m.pending), Some(false));
        let after = table.clone();
        assert_eq!(table.replace(1, 10), Ok(()), "repeated");
        assert_eq!(table, after);
    }

    #[test]
    fn only_a_pending_node_gives_its_seat_up() {
        let mut table = formed();
        assert_eq!(admit(&mut table, 10, "a", 1), Ok(10));
        assert_eq!(table.give_up(1), Err(Refusal::WrongStanding { node: 1 }));
        assert_eq!(table.give_up(11), Err(Refusal::UnknownNode { node: 11 }));
        assert_eq!(table.give_up(10), Ok(()));
        assert_eq!(table.give_up(10), Err(Refusal::UnknownNode { node: 10 }));
        assert_eq!((table.pending_by_name("a"), table.highest_id()), (None, 10));
        // The same newcomer gets another id when it asks again.
        assert_eq!(admit(&mut table, 12, "a", 1), Ok(12));
        assert_eq!(table.replace(1, 12), Ok(()));
        assert_eq!(table.give_up(12), Err(Refusal::WrongStanding { node: 12 }));
    }

    #[test]
    fn ids_never_come_back_and_the_last_member_stays() {
        let mut table = formed();
        assert_eq!(admit(&mut table, 10, "x", 1), Ok(10));
        for node in [10, 3, 2] {
            assert_eq!(table.remove(node), Ok(()));
            assert_eq!(table.remove(node), Err(Refusal::UnknownNode { node }));
        }
        assert_eq!(table.remove(1), Err(Refusal::LastMember { node: 1 }));
        assert_eq!(admit(&mut table, 10, "y", 1), Err(Refusal::Retry));
        assert_eq!(table.set_address(1, "moved:1".into()), Ok(()));
        assert_eq!(table.member(1).map(|m| m.addr.as_str()), Some("moved:1"));
        let unknown = table.set_address(2, "x".into());
        assert_eq!(unknown, Err(Refusal::UnknownNode { node: 2 }));
    }

    fn advertise(table: &mut MemberTable, node: u64, boot: u64, highest: u32) {
        table.advertise(node, Advertised { boot, highest });
    }

    #[test]
    fn the_level_is_raised_once_exactly_those_in_the_table_advertise_it() {
        let not_formed = MemberTable::default().raise(2, &[]);
        assert_eq!(not_formed, Err(Refusal::NotFormed));
        let mut table = formed();
        let refused = |table: &mut MemberTable, ids: &[u64], why| {
            let before = table.clone();
            assert_eq!(table.raise(2, ids), Err(why));
            assert_eq!(*table, before);
        };
        let silent = |node| Refusal::NotAdvertised {
            node,
            advertised: 0,
        };
        refused(&mut table, &[1, 2, 3], silent(1));
        (1..=3).for_each(|node| advertise(&mut table, node, 1, 2));
        for ids in [&[1, 2][..], &[1, 2, 3, 4], &[3, 2, 1], &[1, 1, 2, 3]] {
            refused(&mut table, ids, Refusal::OtherMembers);
        }
        // It came back with an older build.
        advertise(&mut table, 2, 2, 1);
        let older = Refusal::NotAdvertised {
            node: 2,
            advertised: 1,
        };
        refused(&mut table, &[1, 2, 3], older);
        advertise(&mut table, 2, 3, 3);
        assert_eq!(admit(&mut table, 10, "a", 1), Ok(10));
        refused(&mut table, &[1, 2, 3], Refusal::OtherMembers);
        refused(&mut table, &[1, 2, 3, 10], silent(10));
        advertise(&mut table, 10, 1, 2);
        assert_eq!(table.raise(2, &[1, 2, 3, 10]), Ok(()));
        assert_eq!(table.level(), 2);
        for to in [1, 2] {
            let refused = table.raise(to, &[1, 2, 3, 10]);
            assert_eq!(refused, Err(Refusal::LevelNotHigher { level: 2 }));
        }
    }

    #[test]
    fn an_older_build_is_not_admitted() {
        let mut table = formed();
        (1..=3).for_each(|node| advertise(&mut table, node, 1, 2));
        assert_eq!(table.raise(2, &[1, 2, 3]), Ok(()));
        let refused = admit(&mut table, 10, "a", 1);
        let too_old = Refusal::TooOld {
            level: 2,
            highest: 1,
        };
        assert_eq!(refused, Err(too_old));
        assert_eq!(
            table.admit(10, "a".into(), "a:1".into(), 1, 2),
            Ok((10, None))
        );
    }
}
