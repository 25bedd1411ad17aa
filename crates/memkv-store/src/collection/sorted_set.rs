//! A sorted set: members in the order of their scores, and then of themselves.
//!
//! One tree has the members in that order, the other one finds a member's score by the member's hash. Two members
//! may have the same hash: the tree of scores tells which one is there. Invariants: both trees have the same scores;
//! no score is NaN, and zero has no sign.

use std::ops::Range;

use super::{is_long, tag};
use crate::tree::{Item, Shape, Tree, Walk};

/// The upper bit, which is the sign of a number.
const SIGN: u64 = 1 << (u64::BITS - 1);

/// Members by score, then by themselves.
#[derive(Debug)]
pub struct ByScore;

impl Shape for ByScore {
    /// See [`ordered`].
    type Key = u64;
}

/// Scores by the member's hash.
#[derive(Debug)]
struct ByMember;

impl Shape for ByMember {
    type Key = (u32, u64);
    const HAS_CONTENT: bool = false;
}

/// See the top of this file.
#[derive(Debug, Clone)]
pub struct SortedSet {
    seed: u64,
    scores: Tree<ByScore>,
    members: Tree<ByMember>,
    /// Members that Redis would not keep in its small encoding.
    long: u64,
}

/// A member and its score.
#[derive(Debug, Clone, Copy)]
pub struct Scored<'a> {
    item: Item<'a, ByScore>,
}

impl<'a> Scored<'a> {
    /// The member.
    pub fn member(&self) -> &'a [u8] {
        self.item.content()
    }

    /// Its score.
    pub fn score(&self) -> f64 {
        score(self.item.key)
    }
}

/// Where a range of scores or of names ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound<T> {
    /// Beyond everything.
    Open,
    /// With this one.
    With(T),
    /// Before this one, or behind it.
    Without(T),
}

/// A number whose order is that of the scores.
fn ordered(score: f64) -> u64 {
    // There is one zero.
    let bits = (score + 0.0).to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

fn score(ordered: u64) -> f64 {
    f64::from_bits(if ordered & SIGN == 0 {
        !ordered
    } else {
        ordered & !SIGN
    })
}

/// Reading.
impl SortedSet {
    /// An empty one, whose members are hashed by this seed.
    pub fn new(seed: u64) -> SortedSet {
        SortedSet {
            seed,
            scores: Tree::default(),
            members: Tree::default(),
            long: 0,
        }
    }

    /// The number of members.
    pub fn len(&self) -> u64 {
        self.scores.len()
    }

    /// Whether it has no member.
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// The sum of the lengths of all members.
    pub fn bytes(&self) -> u64 {
        self.scores.content_bytes()
    }

    /// Whether a member is longer than Redis keeps in its small encoding.
    pub fn has_long(&self) -> bool {
        self.long > 0
    }

    /// The score of a member.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.locate(member).map(|found| score(found.score))
    }

    /// How many members come before this one.
    pub fn rank(&self, member: &[u8]) -> Option<u64> {
        self.locate(member).map(|found| found.rank)
    }

    /// The member at a rank.
    pub fn get(&self, rank: u64) -> Option<Scored<'_>> {
        self.scores.get(rank).map(|item| Scored { item })
    }

    /// The members from a rank on.
    pub fn walk(&self, from: u64) -> impl Iterator<Item = Scored<'_>> {
        let items: Walk<'_, ByScore> = self.scores.walk(from);
        items.map(|item| Scored { item })
    }

    /// The members before a rank, the last one first.
    pub fn walk_back(&self, before: u64) -> impl Iterator<Item = Scored<'_>> {
        self.scores.walk_back(before).map(|item| Scored { item })
    }

    /// The ranks of the scores from one on up to another.
    pub fn ranks_of_scores(&self, from: Bound<f64>, to: Bound<f64>) -> Range<u64> {
        let first = |at: u64| self.rank_of(at, &[]);
        let from = match from {
            Bound::Open => 0,
            Bound::With(score) => first(ordered(score)),
            Bound::Without(score) => first(ordered(score) + 1),
        };
        let to = match to {
            Bound::Open => self.len(),
            Bound::With(score) => first(ordered(score) + 1),
            Bound::Without(score) => first(ordered(score)),
        };
        from..to.max(from)
    }

    /// The ranks of the members from one on up to another, where all have one score.
    pub fn ranks_of_names(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Range<u64> {
        let Some(first) = self.scores.get(0) else {
            return 0..0;
        };
        let before = |name: &[u8]| self.rank_of(first.key, name);
        let behind = |name: &[u8]| match self.scores.find(first.key, name) {
            Ok((at, _)) => at + 1,
            Err(at) => at,
        };
        let from = match from {
            Bound::Open => 0,
            Bound::With(name) => before(name),
            Bound::Without(name) => behind(name),
        };
        let to = match to {
            Bound::Open => self.len(),
            Bound::With(name) => behind(name),
            Bound::Without(name) => before(name),
        };
        from..to.max(from)
    }

    /// The rank that such a member has, or would have.
    fn rank_of(&self, ordered: u64, name: &[u8]) -> u64 {
        self.scores
            .find(ordered, name)
            .map_or_else(|at| at, |(at, _)| at)
    }

    /// Where a member is.
    fn locate(&self, member: &[u8]) -> Option<Located> {
        let tag = tag(self.seed, member);
        let from = self
            .members
            .find((tag, 0), &[])
            .map_or_else(|at| at, |(at, _)| at);
        let alike = self.members.walk(from).take_while(|item| item.key.0 == tag);
        let mut alike = (from..).zip(alike);
        alike.find_map(|(at, item)| {
            let (rank, _) = self.scores.find(item.key.1, member).ok()?;
            Some(Located {
                at,
                tag,
                score: item.key.1,
                rank,
            })
        })
    }
}

/// The position of a member in both trees.
struct Located {
    /// Among the members.
    at: u64,
    tag: u32,
    score: u64,
    rank: u64,
}

/// Writing.
impl SortedSet {
    /// Gives a member a score, which is no NaN; returns the one that it had.
    pub fn insert(&mut self, member: &[u8], new: f64) -> Option<f64> {
        let new = ordered(new);
        let found = self.locate(member);
        match &found {
            Some(found) if found.score == new => {}
            Some(found) => {
                self.scores.remove(found.rank);
                self.members.remove(found.at);
                self.put(found.tag, new, member);
            }
            None => {
                self.put(tag(self.seed, member), new, member);
                self.long += u64::from(is_long(member));
            }
        }
        found.map(|found| score(found.score))
    }

    /// Removes a member; returns its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let found = self.locate(member)?;
        self.scores.remove(found.rank);
        self.members.remove(found.at);
        self.long -= u64::from(is_long(member));
        Some(score(found.score))
    }

    /// Adds a member that comes behind all others.
    pub(super) fn push(&mut self, member: &[u8], score: f64) {
        let (tag, score) = (tag(self.seed, member), ordered(score));
        self.scores.push(score, member);
        self.members.insert((tag, score), &[]);
        self.long += u64::from(is_long(member));
    }

    fn put(&mut self, tag: u32, score: u64, member: &[u8]) {
        self.scores.insert(score, member);
        self.members.insert((tag, score), &[]);
    }
}
