//! The guard of memory that one holder has taken from the ledger. Small amounts are part of a
//! connection's basic cost and touch nothing that is shared; larger ones are charged in steps.
//! Never waits.
//!
//! Invariant: what is charged is given back when this is dropped.

use super::{Class, Ledger};

/// Of each class, so much of a connection's memory is part of its basic cost: the buffers that most
/// pipelines need.
const FREE_BYTES: usize = 8 * 1024;

/// Memory is charged in steps, so that slow growth seldom touches the shared account.
const STEP_BYTES: usize = 4 * 1024;

/// See the module's documentation. The default has no account and is never refused.
#[derive(Debug, Default)]
pub(crate) struct Held {
    account: Option<(Ledger, Class)>,
    charged: usize,
}

impl Held {
    pub(super) fn new(ledger: Ledger, class: Class) -> Self {
        Self {
            account: Some((ledger, class)),
            charged: 0,
        }
    }

    /// A guard of the same class that holds nothing.
    pub(crate) fn another(&self) -> Self {
        Self {
            account: self.account.clone(),
            charged: 0,
        }
    }

    /// What is charged now.
    pub(crate) fn charged(&self) -> usize {
        self.charged
    }

    /// Holds so many bytes from now on; `false`, and as many as before, if there is no room for more.
    pub(crate) fn try_set(&mut self, bytes: usize) -> bool {
        let Some((ledger, class)) = &self.account else {
            return true;
        };
        let wanted = charge_of(*class, bytes);
        if wanted > self.charged {
            if !ledger.try_charge(*class, wanted - self.charged) {
                return false;
            }
            self.charged = wanted;
            return true;
        }
        self.set(bytes);
        true
    }

    /// Holds so many bytes from now on, whether there is room or not.
    pub(crate) fn set(&mut self, bytes: usize) {
        let Some((ledger, class)) = &self.account else {
            return;
        };
        let wanted = charge_of(*class, bytes);
        if wanted > self.charged {
            ledger.charge(*class, wanted - self.charged);
        } else if wanted < self.charged {
            ledger.give_back(*class, self.charged - wanted);
        }
        self.charged = wanted;
    }

    /// Holds as much as there is room for, `most` bytes and what one connection may have at most; returns
    /// how much. That is never less than `least`, which is taken even if there is no room.
    pub(crate) fn take_up_to(&mut self, most: usize, least: usize) -> usize {
        let Some((ledger, class)) = &self.account else {
            return most;
        };
        let most = most.min(ledger.most_of_one(*class));
        let taken = most.min(ledger.room(*class)).max(least);
        self.set(taken);
        taken
    }

    /// The most that it may hold at once: what is held, and the room that is left for one connection.
    pub(crate) fn most(&self) -> usize {
        let account = self.account.as_ref();
        account.map_or(usize::MAX, |(ledger, class)| {
            let room = self.charged.saturating_add(ledger.room(*class));
            room.min(ledger.most_of_one(*class))
        })
    }

    /// Whether there is no room for more.
    pub(crate) fn is_full(&self) -> bool {
        let account = self.account.as_ref();
        account.is_some_and(|(ledger, class)| ledger.is_full(*class))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.charged > 0 {
            self.set(0);
        }
    }
}

/// What is charged for so many bytes.
fn charge_of(class: Class, bytes: usize) -> usize {
    match class {
        Class::Connections | Class::Unproven | Class::Subscriptions => bytes,
        Class::Input | Class::Queued | Class::Output => bytes
            .saturating_sub(FREE_BYTES)
            .checked_next_multiple_of(STEP_BYTES)
            .unwrap_or(usize::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_amounts_cost_nothing_and_large_ones_come_back() {
        let ledger = Ledger::small(400_000);
        let mut held = ledger.hold(Class::Input);
        assert!(held.try_set(FREE_BYTES) && ledger.used(Class::Input) == 0);
        assert!(held.try_set(FREE_BYTES + 1));
        assert_eq!(ledger.used(Class::Input), STEP_BYTES);
        assert!(held.try_set(200_000) && !held.try_set(300_000));
        let mut other = held.another();
        assert!(other.try_set(FREE_BYTES) && !other.try_set(50_000));
        assert!(held.try_set(100_000) && other.try_set(50_000));
        held.set(0);
        assert_eq!(ledger.used(Class::Input), other.charged());
        drop((held, other));
        assert_eq!(ledger.used_in_all(), 0);
    }

    #[test]
    fn what_cannot_be_refused_overdraws() {
        let ledger = Ledger::small(400_000);
        let mut held = ledger.hold(Class::Output);
        assert_eq!(held.take_up_to(1_000_000, 10), 50_000);
        held.set(1_000_000);
        assert!(held.is_full() && ledger.used(Class::Output) >= 990_000);
        let mut other = held.another();
        assert_eq!(other.take_up_to(1_000_000, 20_000), 20_000);
        assert!(!other.try_set(30_000));
        drop(held);
        assert!(other.try_set(30_000));
    }

    #[test]
    fn a_guard_without_an_account_takes_anything() {
        let mut held = Held::default();
        assert!(held.try_set(usize::MAX) && !held.is_full());
        assert_eq!(held.take_up_to(7, 1), 7);
        held.set(usize::MAX);
    }
}
