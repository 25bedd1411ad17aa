//! A walk over the items of a tree, in either direction.
//!
//! It holds the way from the root to a leaf, so that the next item costs some nanoseconds.

use super::leaf::Leaf;
use super::node::{Inner, Node};
use super::{Item, Shape};

/// Items one after the other.
pub struct Walk<'a, S: Shape> {
    /// The inner nodes above the leaf, each with the number of the child on the way.
    above: Vec<(&'a Inner<S>, usize)>,
    leaf: &'a Leaf<S>,
    /// The position of the next item in the leaf. Walking back it counts from behind it.
    at: usize,
    left: u64,
    is_back: bool,
}

impl<'a, S: Shape> Walk<'a, S> {
    /// From the item at a position on, over so many items; the position must be there if there are any.
    pub(super) fn new(root: &'a Node<S>, mut from: u64, left: u64, is_back: bool) -> Walk<'a, S> {
        let mut above = Vec::new();
        let mut node = root;
        let leaf = loop {
            match node {
                Node::Leaf(leaf) => break leaf,
                Node::Inner(inner) => {
                    let (child, within) = inner.child_at(from);
                    above.push((inner, child));
                    (node, from) = (&inner.children[child].node, within);
                }
            }
        };
        Walk {
            above,
            leaf,
            at: from as usize + usize::from(is_back),
            left,
            is_back,
        }
    }

    /// Goes to the leaf beside this one.
    fn turn(&mut self) -> Option<()> {
        let mut node = loop {
            let (inner, child) = self.above.last_mut()?;
            let next = match self.is_back {
                false => *child + 1,
                true => child.wrapping_sub(1),
            };
            match inner.children.get(next) {
                Some(found) => {
                    *child = next;
                    break &*found.node;
                }
                None => {
                    self.above.pop();
                }
            }
        };
        loop {
            match node {
                Node::Leaf(leaf) => {
                    self.leaf = leaf;
                    self.at = if self.is_back { leaf.len() } else { 0 };
                    return Some(());
                }
                Node::Inner(inner) => {
                    let child = if self.is_back {
                        inner.children.len() - 1
                    } else {
                        0
                    };
                    self.above.push((inner, child));
                    node = &inner.children[child].node;
                }
            }
        }
    }
}

impl<'a, S: Shape> Iterator for Walk<'a, S> {
    type Item = Item<'a, S>;

    fn next(&mut self) -> Option<Item<'a, S>> {
        self.left = self.left.checked_sub(1)?;
        if self.is_back {
            if self.at == 0 {
                self.turn()?;
            }
            self.at -= 1;
            return Some(self.leaf.item(self.at));
        }
        if self.at == self.leaf.len() {
            self.turn()?;
        }
        let item = self.leaf.item(self.at);
        self.at += 1;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        (left, Some(left))
    }
}
