//! A counted tree of byte strings that can be copied at no cost: the large form of every collection.
//!
//! It is a B+tree. An item has a sort key of fixed size and a content; [`Shape`] says which, and in which order
//! items are. Items are found by position and, where they are sorted, by sort key and name. A copy shares all
//! nodes, and a write copies those on its way that are shared (`Arc::make_mut`), so a reader or a snapshot that
//! holds a copy sees one state for as long as it likes.
//!
//! It knows no commands and no kinds, and never decides whether a collection is large. Invariants: all leaves are
//! at the same depth; no node but the root of an empty tree is empty; counts and sums of an inner node are those of
//! its leaves; for sorted shapes items ascend, and none is there twice; a node's size is bounded by
//! [`leaf::MAX_WEIGHT`] or [`node::MAX_CHILDREN`].

mod leaf;
mod node;
#[cfg(test)]
mod tests;
mod walk;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;

use self::node::{Edges, Node, Target};
pub use self::walk::Walk;

/// What the items of a tree are, and their order.
pub trait Shape: 'static {
    /// What items are sorted by first; `()` where positions are all there is.
    type Key: Copy + Ord + fmt::Debug + Send + Sync;

    /// Whether items have a content.
    const HAS_CONTENT: bool = true;

    /// The part of a content by which items of equal sort keys are sorted and found.
    fn name(content: &[u8]) -> &[u8] {
        content
    }
}

/// An item of a tree.
pub struct Item<'a, S: Shape> {
    /// Its sort key.
    pub key: S::Key,
    content: &'a [u8],
    apart: Option<&'a Bytes>,
}

impl<'a, S: Shape> Item<'a, S> {
    fn packed(key: S::Key, content: &'a [u8]) -> Item<'a, S> {
        Item {
            key,
            content,
            apart: None,
        }
    }

    fn apart(key: S::Key, content: &'a Bytes) -> Item<'a, S> {
        Item {
            key,
            content,
            apart: Some(content),
        }
    }

    /// Its content.
    pub fn content(&self) -> &'a [u8] {
        self.content
    }

    /// Whether its content has memory of its own.
    pub fn is_apart(&self) -> bool {
        self.apart.is_some()
    }

    /// Its content to keep: a reference if that is cheaper than a copy.
    pub fn to_bytes(&self) -> Bytes {
        match self.apart {
            Some(content) => content.clone(),
            None => Bytes::copy_from_slice(self.content),
        }
    }
}

impl<S: Shape> Clone for Item<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Shape> Copy for Item<'_, S> {}

impl<S: Shape> fmt::Debug for Item<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = self.content.escape_ascii();
        write!(f, "{:?} \"{content}\"", self.key)
    }
}

/// See the top of this file.
pub struct Tree<S: Shape> {
    root: Arc<Node<S>>,
    len: u64,
    content_bytes: u64,
    shape: PhantomData<S>,
}

impl<S: Shape> Clone for Tree<S> {
    fn clone(&self) -> Tree<S> {
        Tree {
            root: Arc::clone(&self.root),
            ..*self
        }
    }
}

impl<S: Shape> Default for Tree<S> {
    fn default() -> Tree<S> {
        Tree {
            root: Arc::default(),
            len: 0,
            content_bytes: 0,
            shape: PhantomData,
        }
    }
}

impl<S: Shape> fmt::Debug for Tree<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.walk(0)).finish()
    }
}

/// Reading.
impl<S: Shape> Tree<S> {
    /// The number of items.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The sum of the lengths of all contents.
    pub fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// The item at a position.
    pub fn get(&self, at: u64) -> Option<Item<'_, S>> {
        (at < self.len).then(|| self.root.get(at))
    }

    /// The position and the item of this sort key and name; else the position that it would have. For sorted
    /// shapes only.
    ///
    /// # Errors
    /// That position.
    pub fn find(&self, key: S::Key, name: &[u8]) -> Result<(u64, Item<'_, S>), u64> {
        self.root.find(key, name)
    }

    /// The items from a position on.
    pub fn walk(&self, from: u64) -> Walk<'_, S> {
        Walk::new(&self.root, from, self.len.saturating_sub(from), false)
    }

    /// The items before a position, the last one first.
    pub fn walk_back(&self, before: u64) -> Walk<'_, S> {
        let before = before.min(self.len);
        Walk::new(&self.root, before.saturating_sub(1), before, true)
    }
}

/// Writing.
impl<S: Shape> Tree<S> {
    /// Inserts an item that is not there, where its order wants it. For sorted shapes only.
    pub fn insert(&mut self, key: S::Key, content: &[u8]) {
        self.put(Target::Item(key, S::name(content)), key, content);
    }

    /// Adds an item behind all others, where the caller knows that its order wants it.
    pub fn push(&mut self, key: S::Key, content: &[u8]) {
        self.put(Target::Position(self.len), key, content);
    }

    /// Replaces the item at a position, which must be below [`Tree::len`], by one of the same sort key and name.
    pub fn replace(&mut self, at: u64, key: S::Key, content: &[u8]) {
        let (old, split) = Node::replace(&mut self.root, at, key, content);
        self.content_bytes = self.content_bytes - old + content.len() as u64;
        self.grow(split);
    }

    /// Removes the item at a position, if there is one.
    pub fn remove(&mut self, at: u64) {
        if at < self.len {
            self.content_bytes -= Node::remove(&mut self.root, at);
            self.len -= 1;
            Node::collapse(&mut self.root);
        }
    }

    /// Takes the items from a position on into a tree of their own, in a time that their number hardly changes.
    #[must_use]
    pub fn split_off(&mut self, at: u64) -> Tree<S> {
        let all = std::mem::take(self);
        let [left, right] = Node::split(all.root, at.min(all.len));
        *self = Tree::of(left);
        Tree::of(right)
    }

    fn of(root: Option<Arc<Node<S>>>) -> Tree<S> {
        let Some(mut root) = root else {
            return Tree::default();
        };
        Node::collapse(&mut root);
        let (len, content_bytes) = root.sums();
        Tree {
            root,
            len,
            content_bytes,
            shape: PhantomData,
        }
    }

    fn put(&mut self, target: Target<'_, S>, key: S::Key, content: &[u8]) {
        let split = Node::insert(&mut self.root, target, Edges::ROOT, key, content);
        self.len += 1;
        self.content_bytes += content.len() as u64;
        self.grow(split);
    }

    /// Puts a root above the root, if that was split.
    fn grow(&mut self, split: Option<node::Child<S>>) {
        if let Some(right) = split {
            Node::grow(&mut self.root, right);
        }
    }
}

impl<S: Shape<Key = ()>> Tree<S> {
    /// Inserts an item at a position up to [`Tree::len`]. For shapes where positions are all there is.
    pub fn insert_at(&mut self, at: u64, content: &[u8]) {
        self.put(Target::Position(at.min(self.len)), (), content);
    }
}
