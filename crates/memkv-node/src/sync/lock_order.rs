//! The order of the two locks that apply and clients share: the machine's ([`Root`]) before the
//! session's window ([`Leaf`]), never the other way round.
//!
//! Apply holds the machine while it tells the session what a snapshot or an entry did to it; a client's
//! command takes the window alone. Invariant: no thread takes a `Root` while it holds a `Leaf`, which
//! debug builds check at each taking. Never waits for anything else.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::sync::lock::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[cfg(debug_assertions)]
thread_local! {
    static LEAVES_HELD: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A lock that is taken first.
#[derive(Default)]
pub(crate) struct Root<T>(RwLock<T>);

impl<T> Root<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(RwLock::new(value))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        check();
        self.0.read()
    }

    /// Waits at most so long.
    pub(crate) fn try_write_for(&self, within: Duration) -> Option<RwLockWriteGuard<'_, T>> {
        check();
        self.0.try_write_for(within)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        check();
        self.0.write()
    }
}

#[inline]
fn check() {
    #[cfg(debug_assertions)]
    assert_eq!(
        LEAVES_HELD.get(),
        0,
        "the machine's lock is taken under the window's"
    );
}

/// A lock under which no [`Root`] is taken.
pub(crate) struct Leaf<T>(Mutex<T>);

impl<T> Leaf<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> LeafGuard<'_, T> {
        let guard = self.0.lock();
        #[cfg(debug_assertions)]
        LEAVES_HELD.set(LEAVES_HELD.get() + 1);
        LeafGuard(guard)
    }
}

/// A [`Leaf`] that is held.
pub(crate) struct LeafGuard<'a, T>(MutexGuard<'a, T>);

impl<T> Deref for LeafGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for LeafGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

#[cfg(debug_assertions)]
impl<T> Drop for LeafGuard<'_, T> {
    fn drop(&mut self) {
        LEAVES_HELD.set(LEAVES_HELD.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_may_be_held_when_the_window_is_taken() {
        let (root, leaf) = (Root::new(1), Leaf::new(2));
        let machine = root.write();
        drop(leaf.lock());
        drop(machine);
        assert_eq!(*root.read() + *leaf.lock(), 3);
    }

    #[test]
    #[should_panic(expected = "under the window's")]
    fn the_other_way_round_is_noticed() {
        let (root, leaf) = (Root::new(1), Leaf::new(2));
        let _window = leaf.lock();
        drop(root.read());
    }
}
