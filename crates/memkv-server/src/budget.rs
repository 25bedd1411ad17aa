//! Memory for request bodies, shared by all connections: thousands of them may each send a value
//! at once. Counts what has arrived, not what was announced, so that announcing a length
//! takes nothing from others.
//!
//! Invariant: the bytes that are held never exceed the maximum.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bodies up to this size are not counted: ten thousand connections hold 160 MB of them.
const FREE_BYTES: usize = 16 * 1024;

/// The shared account.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    used: Arc<AtomicUsize>,
    max: usize,
}

/// The bytes of one body; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            used: Arc::default(),
            max,
        }
    }

    /// A body of which nothing has arrived.
    pub(crate) fn hold(&self) -> Held {
        Held {
            budget: self.clone(),
            bytes: 0,
        }
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }
}

impl Held {
    /// Makes room for a body of `length` bytes so far; `false` if there is none.
    pub(crate) fn grow_to(&mut self, length: usize) -> bool {
        let more = length.saturating_sub(FREE_BYTES).saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        let before = self.budget.used.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > self.budget.max {
            self.budget.used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes += more;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_comes_back() {
        let budget = Budget::new(1000);
        let mut first = budget.hold();
        assert!(first.grow_to(FREE_BYTES) && first.grow_to(FREE_BYTES + 600));
        let mut second = budget.hold();
        assert!(second.grow_to(FREE_BYTES + 400) && !second.grow_to(FREE_BYTES + 401));
        assert!(!first.grow_to(FREE_BYTES + 601));
        drop(first);
        assert!(second.grow_to(FREE_BYTES + 1000) && !second.grow_to(FREE_BYTES + 1001));
        drop(second);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
