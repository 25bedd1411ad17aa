//! The ledger: one account of all memory that clients cause, by class. `held` is the guard that takes
//! from it and gives back when it is dropped.
//!
//! A class has a cap, and all classes together have the total; both follow from one number. Growth that
//! can still be refused is refused at either of them. The reply to a command that was executed is never
//! refused: it overdraws, and what comes behind it has to wait or is refused. No caller waits for
//! memory while it holds some. The basic cost of connections is bounded by their number and is counted
//! apart from the total.
//!
//! Invariant: a class is charged exactly what its guards hold.

mod held;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub(crate) use held::Held;

const MIB: usize = 1024 * 1024;

/// The part of the memory limit that is for clients.
const SHARE: u64 = 10;

/// The smallest total (64 MiB): some of the largest default values, and what a thousand small clients
/// need.
const MIN_TOTAL: usize = 64 * MIB;

/// The total is at least so many of the largest values, so that one always arrives and leaves: half of the total
/// takes one with what comes beside it. A node with little memory has none to spare for more.
const LARGEST_VALUES: usize = 3;

/// Without a memory limit that the system tells (1 GiB).
const UNKNOWN_TOTAL: usize = 1024 * MIB;

/// The most that one reply may hold, however large the total is (256 MiB).
const MOST_REPLY: usize = 256 * MIB;

/// The most that one connection's transaction may hold, however large the total is (128 MiB).
const MOST_QUEUED: usize = 128 * MIB;

/// The most that unproven connections may hold, however large the total is (16 MiB): the basic cost of as
/// many as there may be, and some room for their first requests. With what the system and the allocator
/// take for them a flood stays below 64 MiB.
const MOST_UNPROVEN: usize = 16 * MIB;

/// Memory of a connection beside what it has under way: its task, its first buffers and its place in
/// the registry. A test of the real binary measures it.
pub(crate) const CONNECTION_BYTES: usize = 16 * 1024;

/// Memory of TLS beside that of its connection (16 KiB): the session's state and keys, certificates, and the buffers
/// of a record in either direction that a connection keeps which is used now and then. A test of the real binary
/// measures it. Not counted are up to 64 KiB of records on their way to a reader that is slow, for as long as one
/// may be.
const TLS_BYTES: usize = 16 * 1024;

/// What clients' memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The basic cost of connections, [`CONNECTION_BYTES`] each, and [`TLS_BYTES`] more with TLS.
    Connections,
    /// Connections that have not authenticated, and their first requests.
    Unproven,
    /// Requests that arrive or are executed.
    Input,
    /// Commands that MULTI has queued, and watched keys.
    Queued,
    /// Replies and messages that have not been sent.
    Output,
    /// Channels and patterns that connections listen to.
    Subscriptions,
}

impl Class {
    /// All of them, in the order of the documentation.
    pub(crate) const ALL: [Self; 6] = [
        Self::Connections,
        Self::Unproven,
        Self::Input,
        Self::Queued,
        Self::Output,
        Self::Subscriptions,
    ];

    /// Its label in the metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Unproven => "unproven",
            Self::Input => "input",
            Self::Queued => "queued",
            Self::Output => "output",
            Self::Subscriptions => "subscriptions",
        }
    }

    /// Its part of the total, as a divisor. The parts overlap: the total binds as well.
    fn cap(self, total: usize) -> usize {
        match self {
            Self::Connections => usize::MAX,
            Self::Unproven => (total / 8).min(MOST_UNPROVEN),
            Self::Input | Self::Output => total / 2,
            Self::Queued | Self::Subscriptions => total / 4,
        }
    }

    /// Whether the total counts it.
    fn is_in_total(self) -> bool {
        self != Self::Connections
    }
}

/// The shared account; a clone is the same one.
#[derive(Debug, Clone)]
pub struct Ledger(Arc<Account>);

#[derive(Debug)]
struct Account {
    total: usize,
    largest_value: usize,
    used: [AtomicUsize; Class::ALL.len()],
    /// Of the classes in the total.
    used_in_all: AtomicUsize,
    refused: [AtomicU64; Class::ALL.len()],
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(UNKNOWN_TOTAL, 0)
    }
}

impl Ledger {
    /// An account of `total` bytes where values have at most `largest_value`; more if that were too few.
    #[must_use]
    pub fn new(total: usize, largest_value: usize) -> Self {
        let least = MIN_TOTAL.max(LARGEST_VALUES.saturating_mul(largest_value));
        Self::of(total.max(least), largest_value)
    }

    /// A tenth of the memory that this process may use, if the system tells how much that is.
    #[must_use]
    pub fn for_memory(limit: Option<u64>, largest_value: usize) -> Self {
        let share = limit.map(|limit| usize::try_from(limit / SHARE).unwrap_or(usize::MAX));
        Self::new(share.unwrap_or(UNKNOWN_TOTAL), largest_value)
    }

    fn of(total: usize, largest_value: usize) -> Self {
        Self(Arc::new(Account {
            total,
            largest_value,
            used: Default::default(),
            used_in_all: AtomicUsize::new(0),
            refused: Default::default(),
        }))
    }

    /// An account of so many bytes, however few.
    #[cfg(test)]
    pub(crate) fn small(total: usize) -> Self {
        Self::of(total, 0)
    }

    /// A guard that holds nothing.
    pub(crate) fn hold(&self, class: Class) -> Held {
        Held::new(self.clone(), class)
    }

    /// The guard of one connection's basic cost.
    pub(crate) fn connection(&self) -> Held {
        let mut held = self.hold(Class::Connections);
        held.set(CONNECTION_BYTES);
        held
    }

    /// What TLS takes besides, until it ends.
    pub(crate) fn tls(&self) -> Held {
        let mut held = self.hold(Class::Connections);
        held.set(TLS_BYTES);
        held
    }

    pub(crate) fn total(&self) -> usize {
        self.0.total
    }

    /// The most that a class may hold; none for connections, which `max_connections` bounds.
    pub(crate) fn cap(&self, class: Class) -> Option<usize> {
        class.is_in_total().then(|| class.cap(self.0.total))
    }

    pub(crate) fn used(&self, class: Class) -> usize {
        self.0.used[class as usize].load(Ordering::Relaxed)
    }

    /// Everything that clients cause, the basic cost of connections included.
    pub(crate) fn used_in_all(&self) -> usize {
        let counted = self.0.used_in_all.load(Ordering::Relaxed);
        counted.saturating_add(self.used(Class::Connections))
    }

    /// How often growth was refused.
    pub(crate) fn refused(&self, class: Class) -> u64 {
        self.0.refused[class as usize].load(Ordering::Relaxed)
    }

    /// How much a class may grow.
    pub(crate) fn room(&self, class: Class) -> usize {
        let of_class = class.cap(self.0.total).saturating_sub(self.used(class));
        let in_all = self.0.used_in_all.load(Ordering::Relaxed);
        of_class.min(self.0.total.saturating_sub(in_all))
    }

    /// Whether a class must not grow.
    pub(crate) fn is_full(&self, class: Class) -> bool {
        self.room(class) == 0
    }

    /// The most that one connection may hold of a class: an eighth of the total, but two of the largest
    /// values.
    pub(crate) fn most_of_one(&self, class: Class) -> usize {
        let share = (self.0.total / 8).max(2 * self.0.largest_value);
        match class {
            Class::Output => share.min(MOST_REPLY),
            Class::Queued => share.min(MOST_QUEUED),
            Class::Subscriptions => class.cap(self.0.total) / 4,
            Class::Connections | Class::Unproven | Class::Input => class.cap(self.0.total),
        }
    }

    /// Charges growth; `false` and nothing charged if it would exceed the class or the total.
    fn try_charge(&self, class: Class, bytes: usize) -> bool {
        let account = &*self.0;
        let of_class = account.used[class as usize].fetch_add(bytes, Ordering::Relaxed);
        let in_all = match class.is_in_total() {
            true => account.used_in_all.fetch_add(bytes, Ordering::Relaxed),
            false => 0,
        };
        let fits = of_class.saturating_add(bytes) <= class.cap(account.total)
            && in_all.saturating_add(bytes) <= account.total;
        if !fits {
            self.give_back(class, bytes);
            account.refused[class as usize].fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    /// Charges growth that cannot be refused.
    fn charge(&self, class: Class, bytes: usize) {
        self.0.used[class as usize].fetch_add(bytes, Ordering::Relaxed);
        if class.is_in_total() {
            self.0.used_in_all.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn give_back(&self, class: Class, bytes: usize) {
        self.0.used[class as usize].fetch_sub(bytes, Ordering::Relaxed);
        if class.is_in_total() {
            self.0.used_in_all.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_follows_from_the_memory_limit_and_is_never_too_small() {
        let total = |limit, value| Ledger::for_memory(limit, value).total();
        assert_eq!(total(Some(10 << 30), 8 * MIB), 1 << 30);
        assert_eq!(total(Some(512 << 20), 8 * MIB), MIN_TOTAL);
        assert_eq!(total(Some(512 << 20), 64 * MIB), 192 * MIB);
        assert_eq!(total(None, 8 * MIB), UNKNOWN_TOTAL);
        let small = Ledger::for_memory(Some(512 << 20), 8 * MIB);
        assert_eq!(small.most_of_one(Class::Output), 16 * MIB);
        let large = Ledger::for_memory(Some(1 << 40), 8 * MIB);
        assert_eq!(large.most_of_one(Class::Output), MOST_REPLY);
    }

    #[test]
    fn all_classes_together_keep_to_the_total() {
        let ledger = Ledger::small(800_000);
        let mut input = ledger.hold(Class::Input);
        assert!(input.try_set(380_000));
        let mut output = ledger.hold(Class::Output);
        output.set(600_000);
        // The output is overdrawn, so nothing else may grow.
        let mut queued = ledger.hold(Class::Queued);
        assert!(!queued.try_set(100_000) && ledger.is_full(Class::Queued));
        assert_eq!(ledger.refused(Class::Queued), 1);
        drop(output);
        assert!(queued.try_set(100_000));
        let connection = ledger.connection();
        assert_eq!(ledger.used(Class::Connections), CONNECTION_BYTES);
        drop((input, queued, connection));
        assert_eq!(ledger.used_in_all(), 0);
    }

    #[test]
    fn memory_is_given_back_by_every_thread() {
        let ledger = Ledger::small(usize::MAX / 2);
        std::thread::scope(|scope| {
            for seed in 1..=4_usize {
                let mut held = ledger.hold(Class::ALL[seed]);
                scope.spawn(move || {
                    for step in 0..10_000 {
                        let bytes = step * seed * 7919 % 1_000_000;
                        assert!(held.try_set(bytes));
                    }
                });
            }
        });
        assert_eq!(ledger.used_in_all(), 0);
        assert!(Class::ALL.iter().all(|class| ledger.used(*class) == 0));
    }
}
