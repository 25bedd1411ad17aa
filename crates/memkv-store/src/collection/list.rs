//! A list: elements by position.

use bytes::Bytes;

use crate::tree::{Item, Shape, Tree, Walk};

/// Elements have no order but that of their positions.
#[derive(Debug)]
pub struct Elements;

impl Shape for Elements {
    type Key = ();
}

/// See the top of this file.
#[derive(Debug, Clone, Default)]
pub struct List {
    elements: Tree<Elements>,
}

impl List {
    /// The number of elements.
    pub fn len(&self) -> u64 {
        self.elements.len()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The sum of the lengths of all elements.
    pub fn bytes(&self) -> u64 {
        self.elements.content_bytes()
    }

    /// The element at a position.
    pub fn get(&self, at: u64) -> Option<Item<'_, Elements>> {
        self.elements.get(at)
    }

    /// The elements from a position on.
    pub fn walk(&self, from: u64) -> Walk<'_, Elements> {
        self.elements.walk(from)
    }

    /// The elements before a position, the last one first.
    pub fn walk_back(&self, before: u64) -> Walk<'_, Elements> {
        self.elements.walk_back(before)
    }

    /// Puts an element before all others.
    pub fn push_front(&mut self, element: &[u8]) {
        self.elements.insert_at(0, element);
    }

    /// Puts an element behind all others.
    pub fn push_back(&mut self, element: &[u8]) {
        self.elements.insert_at(u64::MAX, element);
    }

    /// Puts an element before the one at a position, or behind all others.
    pub fn insert(&mut self, at: u64, element: &[u8]) {
        self.elements.insert_at(at, element);
    }

    /// Takes the element at a position out.
    pub fn take(&mut self, at: u64) -> Option<Bytes> {
        let element = self.elements.get(at)?.to_bytes();
        self.elements.remove(at);
        Some(element)
    }

    /// Removes the element at a position, if there is one.
    pub fn remove(&mut self, at: u64) {
        self.elements.remove(at);
    }

    /// Puts an element in the place of another; whether there was one.
    pub fn set(&mut self, at: u64, element: &[u8]) -> bool {
        let is_there = at < self.len();
        if is_there {
            self.elements.replace(at, (), element);
        }
        is_there
    }

    /// Keeps the elements from a position on up to another one, and returns those before and those behind, which take
    /// long to free if they are many.
    #[must_use]
    pub fn keep(&mut self, from: u64, to: u64) -> [List; 2] {
        let behind = self.elements.split_off(to);
        let kept = self.elements.split_off(from);
        let before = std::mem::replace(&mut self.elements, kept);
        [before, behind].map(|elements| List { elements })
    }
}
