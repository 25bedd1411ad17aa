//! A node of the tree, and the way of a change through the nodes above a leaf.
//!
//! Positions count from the node's first item. Invariants: see `mod.rs`; the start of a child is above every item
//! of the children before it and not above any of its own; the first child's start means nothing.

use std::sync::Arc;

use super::leaf::{Leaf, MAX_WEIGHT};
use super::{Item, Shape};

/// The most children of an inner node: to find one by position costs less than the cache miss of going there.
pub(super) const MAX_CHILDREN: usize = 32;

/// A node that is below this part of its greatest size is joined with one beside it, if both fill at most
/// [`JOINED`] of one: so neither insertions nor removals at one spot split and join again and again.
const SMALL: (usize, usize) = (1, 3);
const JOINED: (usize, usize) = (3, 4);

pub(super) enum Node<S: Shape> {
    Leaf(Leaf<S>),
    Inner(Inner<S>),
}

pub(super) struct Inner<S: Shape> {
    pub(super) children: Vec<Child<S>>,
}

pub(super) struct Child<S: Shape> {
    start: Start<S>,
    pub(super) len: u64,
    content_bytes: u64,
    pub(super) node: Arc<Node<S>>,
}

/// Where a child begins: what no item before it reaches.
struct Start<S: Shape> {
    key: S::Key,
    /// As much of the first item's name as is needed; nothing if the sort key decides.
    name: Option<Arc<[u8]>>,
}

/// Where a change happens.
pub(super) enum Target<'t, S: Shape> {
    Position(u64),
    Item(S::Key, &'t [u8]),
}

/// Whether a node holds the first and the last items of the tree.
#[derive(Clone, Copy)]
pub(super) struct Edges {
    first: bool,
    last: bool,
}

impl Edges {
    pub(super) const ROOT: Edges = Edges {
        first: true,
        last: true,
    };

    /// Those of a child.
    fn of(self, number: usize, children: usize) -> Edges {
        Edges {
            first: self.first && number == 0,
            last: self.last && number + 1 == children,
        }
    }

    /// Where to split a node of so many parts after one was inserted at an end of the tree: beside that one, so that
    /// what is filled from an end is filled to the brim. Elsewhere it would leave nodes of one item behind.
    fn split_at(self, inserted: usize, len: usize) -> Option<usize> {
        match inserted {
            0 if self.first => Some(1),
            at if self.last && at + 1 == len => Some(at),
            _ => None,
        }
    }
}

impl<S: Shape> Clone for Target<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Shape> Copy for Target<'_, S> {}

impl<S: Shape> Default for Node<S> {
    fn default() -> Node<S> {
        Node::Leaf(Leaf::default())
    }
}

impl<S: Shape> Clone for Node<S> {
    fn clone(&self) -> Node<S> {
        match self {
            Node::Leaf(leaf) => Node::Leaf(leaf.clone()),
            Node::Inner(Inner { children }) => Node::Inner(Inner {
                children: children.iter().map(Child::share).collect(),
            }),
        }
    }
}

impl<S: Shape> Child<S> {
    fn share(&self) -> Child<S> {
        Child {
            start: Start {
                key: self.start.key,
                name: self.start.name.clone(),
            },
            len: self.len,
            content_bytes: self.content_bytes,
            node: Arc::clone(&self.node),
        }
    }

    fn of(start: Start<S>, node: Arc<Node<S>>) -> Child<S> {
        let (len, content_bytes) = node.sums();
        Child {
            start,
            len,
            content_bytes,
            node,
        }
    }

    /// A node that follows on `left`.
    fn after(left: &Node<S>, node: Node<S>) -> Child<S> {
        let start = Start::between(left.last(), node.first());
        Child::of(start, Arc::new(node))
    }
}

impl<S: Shape> Start<S> {
    fn between(last: Item<'_, S>, first: Item<'_, S>) -> Start<S> {
        let key = first.key;
        if last.key < key || !S::HAS_CONTENT || size_of::<S::Key>() == 0 {
            return Start { key, name: None };
        }
        let (last, first) = (S::name(last.content()), S::name(first.content()));
        let same = last.iter().zip(first).take_while(|(a, b)| a == b).count();
        let name = first.get(..=same).unwrap_or(first);
        Start {
            key,
            name: Some(name.into()),
        }
    }

    fn is_at_or_before(&self, key: S::Key, name: &[u8]) -> bool {
        (self.key, self.name.as_deref().unwrap_or_default()) <= (key, name)
    }
}

/// Reading.
impl<S: Shape> Node<S> {
    /// The number of items, and the sum of their contents' lengths.
    pub(super) fn sums(&self) -> (u64, u64) {
        match self {
            Node::Leaf(leaf) => (leaf.len() as u64, leaf.content_bytes()),
            Node::Inner(inner) => inner.children.iter().fold((0, 0), |(len, bytes), child| {
                (len + child.len, bytes + child.content_bytes)
            }),
        }
    }

    /// The item at a position, which must be there.
    pub(super) fn get(&self, mut at: u64) -> Item<'_, S> {
        let mut node = self;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.item(at as usize),
                Node::Inner(inner) => {
                    let (child, within) = inner.child_at(at);
                    (node, at) = (&inner.children[child].node, within);
                }
            }
        }
    }

    pub(super) fn find(&self, key: S::Key, name: &[u8]) -> Result<(u64, Item<'_, S>), u64> {
        let (mut node, mut before) = (self, 0);
        loop {
            match node {
                Node::Leaf(leaf) => {
                    let found = leaf.find(key, name);
                    let found = found.map(|at| (before + at as u64, leaf.item(at)));
                    return found.map_err(|at| before + at as u64);
                }
                Node::Inner(inner) => {
                    let child = inner.child_of(key, name);
                    before += inner.children[..child].iter().map(|it| it.len).sum::<u64>();
                    node = &inner.children[child].node;
                }
            }
        }
    }

    fn first(&self) -> Item<'_, S> {
        self.get(0)
    }

    fn last(&self) -> Item<'_, S> {
        self.get(self.sums().0 - 1)
    }

    /// What it has of what it may have: bytes or children.
    fn size(&self) -> (usize, usize) {
        match self {
            Node::Leaf(leaf) => (leaf.weight(), MAX_WEIGHT),
            Node::Inner(inner) => (inner.children.len(), MAX_CHILDREN),
        }
    }
}

impl<S: Shape> Inner<S> {
    /// The child that holds the item at a position, and the position there.
    pub(super) fn child_at(&self, mut at: u64) -> (usize, u64) {
        let last = self.children.len() - 1;
        for (number, child) in self.children[..last].iter().enumerate() {
            if at < child.len {
                return (number, at);
            }
            at -= child.len;
        }
        (last, at)
    }

    /// The child that holds such an item, or would.
    fn child_of(&self, key: S::Key, name: &[u8]) -> usize {
        let others = &self.children[1..];
        others.partition_point(|child| child.start.is_at_or_before(key, name))
    }

    /// The child where something is inserted, and where in it. Between two children it is the one before.
    fn child_for<'t>(&self, target: Target<'t, S>) -> (usize, Target<'t, S>) {
        match target {
            Target::Item(key, name) => (self.child_of(key, name), target),
            Target::Position(0) => (0, target),
            Target::Position(at) => {
                let (child, within) = self.child_at(at - 1);
                (child, Target::Position(within + 1))
            }
        }
    }
}

/// Writing. Each of these leaves nodes within their bounds; what is split off is returned for the node above.
impl<S: Shape> Node<S> {
    pub(super) fn insert(
        this: &mut Arc<Node<S>>,
        target: Target<'_, S>,
        edges: Edges,
        key: S::Key,
        content: &[u8],
    ) -> Option<Child<S>> {
        let node = Arc::make_mut(this);
        match node {
            Node::Leaf(leaf) => {
                let at = match target {
                    Target::Position(at) => at as usize,
                    Target::Item(key, name) => leaf.find(key, name).unwrap_or_else(|at| at),
                };
                leaf.insert(at, key, content);
                let beside = edges.split_at(at, leaf.len());
                node.split_full(beside)
            }
            Node::Inner(inner) => {
                let (number, target) = inner.child_for(target);
                let below = edges.of(number, inner.children.len());
                let child = &mut inner.children[number];
                child.len += 1;
                child.content_bytes += content.len() as u64;
                let split = Node::insert(&mut child.node, target, below, key, content);
                let beside = edges.split_at(number + 1, inner.children.len() + 1);
                node.take_in(number, split, beside)
            }
        }
    }

    /// Returns the length of the old content too.
    pub(super) fn replace(
        this: &mut Arc<Node<S>>,
        at: u64,
        key: S::Key,
        content: &[u8],
    ) -> (u64, Option<Child<S>>) {
        let node = Arc::make_mut(this);
        match node {
            Node::Leaf(leaf) => {
                let at = at as usize;
                let old = leaf.item(at).content().len() as u64;
                leaf.replace(at, key, content);
                (old, node.split_full(None))
            }
            Node::Inner(inner) => {
                let (number, at) = inner.child_at(at);
                let child = &mut inner.children[number];
                let (old, split) = Node::replace(&mut child.node, at, key, content);
                child.content_bytes = child.content_bytes - old + content.len() as u64;
                (old, node.take_in(number, split, None))
            }
        }
    }

    /// Removes the item at a position, which must be there, and returns the length of its content.
    pub(super) fn remove(this: &mut Arc<Node<S>>, at: u64) -> u64 {
        match Arc::make_mut(this) {
            Node::Leaf(leaf) => {
                let at = at as usize;
                let old = leaf.item(at).content().len() as u64;
                leaf.remove(at);
                old
            }
            Node::Inner(inner) => {
                let (number, at) = inner.child_at(at);
                let child = &mut inner.children[number];
                let old = Node::remove(&mut child.node, at);
                child.len -= 1;
                child.content_bytes -= old;
                inner.tidy(number);
                old
            }
        }
    }

    /// Cuts a node in two before a position. A half without items is none.
    pub(super) fn split(this: Arc<Node<S>>, at: u64) -> [Option<Arc<Node<S>>>; 2] {
        let (len, _) = this.sums();
        if at == 0 || at >= len {
            let all = Some(this).filter(|_| len > 0);
            return if at == 0 { [None, all] } else { [all, None] };
        }
        let halves = match Arc::unwrap_or_clone(this) {
            Node::Leaf(mut left) => {
                let mut right = left.split_off(at as usize);
                right.shrink();
                [Node::Leaf(left), Node::Leaf(right)]
            }
            Node::Inner(mut left) => {
                let (number, within) = left.child_at(at);
                let mut children = left.children.split_off(number);
                let cut = children.remove(0);
                let [before, behind] = Node::split(cut.node, within);
                let first = Start {
                    key: cut.start.key,
                    name: None,
                };
                left.children
                    .extend(before.map(|node| Child::of(cut.start, node)));
                children.splice(0..0, behind.map(|node| Child::of(first, node)));
                [Node::Inner(left), Node::Inner(Inner { children })]
            }
        };
        halves.map(|half| Some(Arc::new(half)))
    }

    /// Puts a node above this one, which was split.
    pub(super) fn grow(this: &mut Arc<Node<S>>, right: Child<S>) {
        let start = Start {
            key: right.start.key,
            name: None,
        };
        let left = Child::of(start, std::mem::take(this));
        let children = vec![left, right];
        *this = Arc::new(Node::Inner(Inner { children }));
    }

    /// Takes away nodes at the top that have one child.
    pub(super) fn collapse(this: &mut Arc<Node<S>>) {
        while let Node::Inner(inner) = &**this
            && let [child] = &inner.children[..]
        {
            *this = Arc::clone(&child.node);
        }
    }

    /// Takes in what was split off from a child.
    fn take_in(
        &mut self,
        number: usize,
        split: Option<Child<S>>,
        beside: Option<usize>,
    ) -> Option<Child<S>> {
        let right = split?;
        if let Node::Inner(inner) = self {
            let left = &mut inner.children[number];
            left.len -= right.len;
            left.content_bytes -= right.content_bytes;
            inner.children.insert(number + 1, right);
        }
        self.split_full(beside)
    }

    /// Splits a node that is too large, in the middle unless another place is better.
    fn split_full(&mut self, beside: Option<usize>) -> Option<Child<S>> {
        let (size, max) = self.size();
        if size <= max {
            return None;
        }
        let right = match self {
            Node::Leaf(leaf) if leaf.len() < 2 => return None,
            Node::Leaf(leaf) => {
                let at = beside.unwrap_or_else(|| leaf.middle());
                let mut right = leaf.split_off(at);
                right.shrink();
                Node::Leaf(right)
            }
            Node::Inner(inner) => {
                let at = beside.unwrap_or(inner.children.len() / 2);
                let children = inner.children.split_off(at);
                inner.children.shrink_to_fit();
                Node::Inner(Inner { children })
            }
        };
        Some(Child::after(self, right))
    }
}

impl<S: Shape> Inner<S> {
    /// Takes away a child that became empty, or joins one that became small with one beside it.
    fn tidy(&mut self, number: usize) {
        if self.children[number].len == 0 {
            self.children.remove(number);
            return;
        }
        let (size, max) = self.children[number].node.size();
        if size * SMALL.1 >= max * SMALL.0 {
            return;
        }
        let fits = |other: &Child<S>| (other.node.size().0 + size) * JOINED.1 <= max * JOINED.0;
        let left = match (number.checked_sub(1), self.children.get(number + 1)) {
            (Some(before), _) if fits(&self.children[before]) => before,
            (_, Some(behind)) if fits(behind) => number,
            _ => return,
        };
        let right = self.children.remove(left + 1);
        let child = &mut self.children[left];
        child.len += right.len;
        child.content_bytes += right.content_bytes;
        match (Arc::make_mut(&mut child.node), &*right.node) {
            (Node::Leaf(left), Node::Leaf(right)) => left.append(right),
            (Node::Inner(left), Node::Inner(other)) => {
                let mut children = other.children.iter().map(Child::share);
                let first = children.next().map(|first| Child {
                    start: right.start,
                    ..first
                });
                left.children.extend(first.into_iter().chain(children));
            }
            // All leaves are at the same depth.
            _ => {}
        }
    }
}
