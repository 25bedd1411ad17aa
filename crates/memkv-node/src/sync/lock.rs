//! Locks of what threads share. A panic must not leave anything half changed for the others, and these
//! locks know no poison: so each thread counts those that it holds for writing, and the panic hook
//! lets a task unwind only where there are none (see [`contain`](crate::sync::contain)). To hold one for
//! reading changes nothing, and counts nothing.
//!
//! Otherwise they are `parking_lot`'s. Shared state of this crate and of those above it uses no other
//! ones. Invariant: a guard is counted for exactly as long as it lives, on the thread that holds it.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

pub use parking_lot::RwLockReadGuard;

thread_local! {
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// Whether this thread may be changing what others see.
pub(crate) fn is_changing() -> bool {
    HELD.get() > 0
}

/// One lock that this thread holds for writing.
struct Held;

impl Held {
    #[inline]
    fn new() -> Self {
        HELD.set(HELD.get().wrapping_add(1));
        Self
    }
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        HELD.set(HELD.get().wrapping_sub(1));
    }
}

/// A lock that one thread holds at a time, for reading and writing.
#[derive(Debug, Default)]
pub struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    /// An open lock.
    pub const fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    /// Waits until no other thread holds it.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard {
            guard: self.0.lock(),
            _held: Held::new(),
        }
    }

    /// The value of a lock that is no longer shared.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

/// A [`Mutex`] that is held.
pub struct MutexGuard<'a, T> {
    guard: parking_lot::MutexGuard<'a, T>,
    _held: Held,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// A lock that many threads hold for reading, or one for writing.
#[derive(Debug, Default)]
pub struct RwLock<T>(parking_lot::RwLock<T>);

impl<T> RwLock<T> {
    /// An open lock.
    pub const fn new(value: T) -> Self {
        Self(parking_lot::RwLock::new(value))
    }

    /// Waits until no other thread holds it for writing.
    #[inline]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read()
    }

    /// The same, past those that wait to write: a thread may hold it for reading twice.
    #[inline]
    pub fn read_recursive(&self) -> RwLockReadGuard<'_, T> {
        self.0.read_recursive()
    }

    /// Takes it for reading if that is possible at once.
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        self.0.try_read()
    }

    /// Waits until no other thread holds it, and at most so long.
    pub fn try_write_for(&self, within: Duration) -> Option<RwLockWriteGuard<'_, T>> {
        let guard = self.0.try_write_for(within)?;
        Some(RwLockWriteGuard {
            guard,
            _held: Held::new(),
        })
    }

    /// Waits until no other thread holds it.
    #[inline]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        RwLockWriteGuard {
            guard: self.0.write(),
            _held: Held::new(),
        }
    }
}

/// A [`RwLock`] that is held for writing.
pub struct RwLockWriteGuard<'a, T> {
    guard: parking_lot::RwLockWriteGuard<'a, T>,
    _held: Held,
}

impl<T> RwLockWriteGuard<'_, T> {
    /// Hands the lock to those that wait for it: a thread that takes it again at once does not come
    /// before them, as it may otherwise.
    pub fn release(self) {
        parking_lot::RwLockWriteGuard::unlock_fair(self.guard);
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_for_writing_is_counted_and_what_is_held_for_reading_is_not() {
        let (mutex, lock) = (Mutex::new(1), RwLock::new(2));
        let read = lock.read();
        assert!(!is_changing());
        drop(read);
        let first = mutex.lock();
        let second = lock.write();
        assert!(is_changing());
        drop(first);
        assert!(is_changing());
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(!is_changing(), "another thread"));
        });
        drop(second);
        assert!(!is_changing());
        assert_eq!(mutex.into_inner(), 1);
    }

    #[test]
    fn a_panic_gives_back_what_was_counted() {
        let mutex = Mutex::new(0);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = mutex.lock();
            panic!("under the lock");
        }));
        assert!(outcome.is_err() && !is_changing());
    }
}
