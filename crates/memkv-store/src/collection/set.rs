//! A set: members in the order of their hashes.

use super::{is_integer, tag};
use crate::tree::{Item, Shape, Tree, Walk};

/// Members are sorted by hash, then by themselves.
#[derive(Debug)]
pub struct Members;

impl Shape for Members {
    type Key = u32;
}

/// See the top of this file.
#[derive(Debug, Clone)]
pub struct Set {
    seed: u64,
    members: Tree<Members>,
    /// Members that are no integers.
    texts: u64,
}

impl Set {
    /// An empty one, whose members are hashed by this seed.
    pub fn new(seed: u64) -> Set {
        Set {
            seed,
            members: Tree::default(),
            texts: 0,
        }
    }

    /// The number of members.
    pub fn len(&self) -> u64 {
        self.members.len()
    }

    /// Whether it has no member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The sum of the lengths of all members.
    pub fn bytes(&self) -> u64 {
        self.members.content_bytes()
    }

    /// Whether all members are integers as Redis writes them.
    pub fn is_of_integers(&self) -> bool {
        self.texts == 0
    }

    /// Whether this is a member.
    pub fn contains(&self, member: &[u8]) -> bool {
        self.members.find(tag(self.seed, member), member).is_ok()
    }

    /// The member at a position in the order of hashes: what chance chooses from.
    pub fn get(&self, at: u64) -> Option<Item<'_, Members>> {
        self.members.get(at)
    }

    /// All members from the one at a position on.
    pub fn walk(&self, from: u64) -> Walk<'_, Members> {
        self.members.walk(from)
    }

    /// The members from a hash on: where a scan goes on.
    pub fn scan(&self, from: u32) -> Walk<'_, Members> {
        self.walk(lower_bound(&self.members, from))
    }

    /// Adds a member; whether it was none.
    pub fn insert(&mut self, member: &[u8]) -> bool {
        let tag = tag(self.seed, member);
        let is_new = self.members.find(tag, member).is_err();
        if is_new {
            self.members.insert(tag, member);
            self.texts += u64::from(!is_integer(member));
        }
        is_new
    }

    /// Removes a member; whether it was one.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        let Ok((at, _)) = self.members.find(tag(self.seed, member), member) else {
            return false;
        };
        self.members.remove(at);
        self.texts -= u64::from(!is_integer(member));
        true
    }

    /// Adds a member that comes behind all others.
    pub(super) fn push(&mut self, member: &[u8]) {
        self.members.push(tag(self.seed, member), member);
        self.texts += u64::from(!is_integer(member));
    }
}

/// The position of the first item whose hash is not below this one.
pub(super) fn lower_bound<S: Shape<Key = u32>>(tree: &Tree<S>, from: u32) -> u64 {
    tree.find(from, &[]).map_or_else(|at| at, |(at, _)| at)
}
