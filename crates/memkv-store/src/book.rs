//! The address book: which nodes there are, under which ids, names and addresses, and what they
//! agreed on at formation.
//!
//! It is not the engine's membership: who votes is decided there, and this never knows it.
//! Invariants: ids are unique and never come back, because every new one is above `highest_id`;
//! at most one member of record and one pending node have the same name; a formed book has a
//! member of record.

use std::collections::BTreeMap;

use crate::{Member, Refusal};

/// The most nodes a book holds, pending ones included: far above any sensible cluster, and a bound
/// on what requests to join can make of it.
pub const MAX_MEMBERS: usize = 64;

/// A member, and the nonce that its request to join carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) member: Member,
    /// None for who was there at formation.
    pub(crate) nonce: Option<u64>,
}

/// The address book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Book {
    pub(crate) cluster: Option<[u8; 16]>,
    pub(crate) durability_sync: bool,
    pub(crate) seats: BTreeMap<u64, Seat>,
    pub(crate) highest_id: u64,
}

impl Default for Book {
    fn default() -> Book {
        Book {
            cluster: None,
            durability_sync: true,
            seats: BTreeMap::new(),
            highest_id: 0,
        }
    }
}

impl Book {
    /// The cluster's UUID; none before formation.
    pub fn cluster(&self) -> Option<[u8; 16]> {
        self.cluster
    }

    /// Whether the cluster agreed that an acknowledged write is on disks; true before formation.
    pub fn durability_sync(&self) -> bool {
        self.durability_sync
    }

    /// Everyone in the book, pending ones included, by ascending id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.seats.values().map(|seat| &seat.member)
    }

    /// The highest id that any node ever had. One that is not above it and not in the book is gone for
    /// good.
    pub fn highest_id(&self) -> u64 {
        self.highest_id
    }

    /// The node with this id.
    pub fn member(&self, id: u64) -> Option<&Member> {
        self.seats.get(&id).map(|seat| &seat.member)
    }

    /// The member of record with this name; failing that, the pending node of this name.
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
        let seats = members.into_iter().map(|member| Seat {
            member,
            nonce: None,
        });
        *self = Book::with_seats(cluster, durability_sync, seats)
            .map_err(|why| Refusal::InvalidMembers { why })?;
        Ok(())
    }

    /// A formed book; the error says which invariant the seats would break.
    pub(crate) fn with_seats(
        cluster: [u8; 16],
        durability_sync: bool,
        seats: impl Iterator<Item = Seat>,
    ) -> Result<Book, &'static str> {
        let mut book = Book {
            cluster: Some(cluster),
            durability_sync,
            ..Book::default()
        };
        for seat in seats {
            let Member {
                id, name, pending, ..
            } = &seat.member;
            if *id == 0 || book.seats.contains_key(id) {
                return Err("ids must be unique and above 0");
            }
            if book.named(name, *pending).is_some() {
                return Err("names must be unique");
            }
            book.highest_id = book.highest_id.max(*id);
            book.seats.insert(*id, seat);
        }
        if book.seats.len() > MAX_MEMBERS {
            return Err("there are too many");
        }
        if book.records() == 0 {
            return Err("there must be a member of record");
        }
        Ok(book)
    }

    /// Admits a newcomer under id `index`, or finds its earlier admission. Also tells who lost the
    /// pending place to it.
    pub(crate) fn admit(
        &mut self,
        index: u64,
        name: String,
        addr: String,
        nonce: u64,
    ) -> Result<(u64, Option<u64>), Refusal> {
        if self.cluster.is_none() {
            return Err(Refusal::NotFormed);
        }
        let same = |seat: &&Seat| seat.nonce == Some(nonce) && seat.member.name == name;
        if let Some(seat) = self.seats.values().find(same) {
            return Ok((seat.member.id, None));
        }
        // An index that is not above every id ever given might bring one of them back.
        if index <= self.highest_id {
            return Err(Refusal::Retry);
        }
        let replaced = self.pending_by_name(&name).map(|member| member.id);
        if let Some(id) = replaced {
            self.seats.remove(&id);
        } else if self.seats.len() >= MAX_MEMBERS {
            return Err(Refusal::BookFull);
        }
        let member = Member {
            id: index,
            name,
            addr,
            pending: true,
        };
        self.seats.insert(
            index,
            Seat {
                member,
                nonce: Some(nonce),
            },
        );
        self.highest_id = index;
        Ok((index, replaced))
    }

    /// Swaps the pending `new` for the member of record `old`. Repeating it is no error.
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

    fn formed() -> Book {
        let mut book = Book::default();
        let members = vec![member(3, "c"), member(1, "a"), member(2, "b")];
        assert_eq!(book.form([7; 16], false, members), Ok(()));
        book
    }

    fn admit(book: &mut Book, index: u64, name: &str, nonce: u64) -> Result<u64, Refusal> {
        book.admit(index, name.to_owned(), format!("{name}:2"), nonce)
            .map(|(id, _)| id)
    }

    #[test]
    fn formation_takes_a_valid_list_once() {
        let mut book = Book::default();
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
            let refused = book.form([1; 16], true, members);
            assert!(matches!(refused, Err(Refusal::InvalidMembers { .. })));
            assert_eq!(book, Book::default());
        }
        let mut book = formed();
        assert_eq!(
            book.form([1; 16], true, vec![member(1, "a")]),
            Err(Refusal::AlreadyFormed)
        );
        assert_eq!(
            (book.cluster(), book.durability_sync()),
            (Some([7; 16]), false)
        );
        assert_eq!(book.members().map(|m| m.id).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn admission_is_idempotent_per_name_and_nonce() {
        assert_eq!(
            admit(&mut Book::default(), 9, "a", 1),
            Err(Refusal::NotFormed)
        );
        let mut book = formed();
        assert_eq!(
            admit(&mut book, 3, "a", 1),
            Err(Refusal::Retry),
            "3 was a node id"
        );
        assert_eq!(admit(&mut book, 10, "a", 1), Ok(10));
        assert_eq!(
            admit(&mut book, 10, "b", 1),
            Err(Refusal::Retry),
            "one id per entry"
        );
        assert_eq!(admit(&mut book, 11, "a", 1), Ok(10));
        assert_eq!(
            book.admit(12, "a".into(), "a:3".into(), 2),
            Ok((12, Some(10)))
        );
        assert_eq!(book.member(10), None);
        assert_eq!(
            book.by_name("a").map(|m| m.id),
            Some(1),
            "the member of record"
        );
        assert_eq!(book.pending_by_name("a").map(|m| m.id), Some(12));
        assert_eq!(admit(&mut book, 13, "new", 5), Ok(13));
        assert_eq!(book.by_name("new").map(|m| m.id), Some(13));
        assert_eq!(book.replace(1, 12), Ok(()));
        assert_eq!(
            admit(&mut book, 14, "a", 2),
            Ok(12),
            "also after it became a member"
        );
    }

    #[test]
    fn requests_to_join_cannot_fill_the_memory() {
        let mut book = formed();
        for index in 4..=MAX_MEMBERS as u64 {
            assert_eq!(admit(&mut book, index, &index.to_string(), 0), Ok(index));
        }
        assert_eq!(admit(&mut book, 100, "new", 0), Err(Refusal::BookFull));
        assert_eq!(
            admit(&mut book, 100, "4", 1),
            Ok(100),
            "in place of its own earlier request"
        );
        assert_eq!(book.members().count(), MAX_MEMBERS);
    }

    #[test]
    fn only_a_pending_node_replaces_a_member_of_record() {
        let mut book = formed();
        assert_eq!(admit(&mut book, 10, "a", 1), Ok(10));
        assert_eq!(admit(&mut book, 11, "b", 1), Ok(11));
        assert_eq!(book.replace(1, 9), Err(Refusal::UnknownNode { node: 9 }));
        assert_eq!(book.replace(9, 10), Err(Refusal::UnknownNode { node: 9 }));
        assert_eq!(book.replace(1, 2), Err(Refusal::WrongStanding { node: 2 }));
        assert_eq!(
            book.replace(11, 10),
            Err(Refusal::WrongStanding { node: 11 })
        );
        assert_eq!(book.replace(1, 11), Err(Refusal::NameTaken { by: 2 }));
        let before = book.clone();
        assert_eq!(book.replace(1, 10), Ok(()));
        assert_ne!(book, before);
        assert_eq!(book.member(1), None);
        assert_eq!(book.member(10).map(|m| m.pending), Some(false));
        let after = book.clone();
        assert_eq!(book.replace(1, 10), Ok(()), "repeated");
        assert_eq!(book, after);
    }

    #[test]
    fn only_a_pending_node_gives_its_seat_up() {
        let mut book = formed();
        assert_eq!(admit(&mut book, 10, "a", 1), Ok(10));
        assert_eq!(book.give_up(1), Err(Refusal::WrongStanding { node: 1 }));
        assert_eq!(book.give_up(11), Err(Refusal::UnknownNode { node: 11 }));
        assert_eq!(book.give_up(10), Ok(()));
        assert_eq!(book.give_up(10), Err(Refusal::UnknownNode { node: 10 }));
        assert_eq!((book.pending_by_name("a"), book.highest_id()), (None, 10));
        // The same newcomer gets another id when it asks again.
        assert_eq!(admit(&mut book, 12, "a", 1), Ok(12));
        assert_eq!(book.replace(1, 12), Ok(()));
        assert_eq!(book.give_up(12), Err(Refusal::WrongStanding { node: 12 }));
    }

    #[test]
    fn ids_never_come_back_and_the_last_member_stays() {
        let mut book = formed();
        assert_eq!(admit(&mut book, 10, "x", 1), Ok(10));
        for node in [10, 3, 2] {
            assert_eq!(book.remove(node), Ok(()));
            assert_eq!(book.remove(node), Err(Refusal::UnknownNode { node }));
        }
        assert_eq!(book.remove(1), Err(Refusal::LastMember { node: 1 }));
        assert_eq!(admit(&mut book, 10, "y", 1), Err(Refusal::Retry));
        assert_eq!(book.set_address(1, "moved:1".into()), Ok(()));
        assert_eq!(book.member(1).map(|m| m.addr.as_str()), Some("moved:1"));
        let unknown = book.set_address(2, "x".into());
        assert_eq!(unknown, Err(Refusal::UnknownNode { node: 2 }));
    }
}
