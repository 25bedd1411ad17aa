//! When the next group leaves, once nothing is on its way: at once, or a moment later with more.
//! Never touches the commands; [`Window`](super::window::Window) holds and counts them.
//!
//! An entry costs as much CPU time by itself, on three nodes, as fifty commands. The clients whose
//! answers have just left send their next commands within a fraction of the time that an entry
//! takes, so a group that leaves at once leaves them behind, and clients fall into three parties: on
//! their way, waiting, and answered. A group that waits for most of the other parties makes one or
//! two of them, which is both faster and cheaper.
//!
//! Invariants: one client alone never waits; nobody waits longer than the last group took, or
//! [`MOST_WAIT`].

use std::time::Duration;

use tokio::time::Instant;

/// A group leaves with three quarters of what was under way: the last group and what queued up behind
/// it. With a half, clients that come at a steady rate would not wait at all, and neither would the
/// three parties grow together; with all of it, commands and disks would take turns. Measured with 1
/// to 1024 clients: between 60 % and 90 % makes little difference to writes alone; where nine of ten
/// commands read, 75 % is a tenth faster than 60 %.
const SHARE: (usize, usize) = (3, 4);

/// Clients near enough to be worth waiting for have answered by then.
const MOST_WAIT: Duration = Duration::from_millis(1);

/// What is known of the last group and the next one.
#[derive(Default)]
pub(super) struct Gather {
    /// The commands of the group that left last and when that was, until it took effect.
    on_its_way: Option<(usize, Instant)>,
    /// So many commands are enough for the next group,
    enough: usize,
    /// and at this time it leaves with fewer.
    until: Option<Instant>,
}

impl Gather {
    /// A group has left.
    pub(super) fn leaves(&mut self, commands: usize, now: Instant) {
        *self = Self {
            on_its_way: Some((commands, now)),
            ..Self::default()
        };
    }

    /// Everything that had left took effect, and so many commands wait.
    pub(super) fn took_effect(&mut self, waiting: usize, now: Instant) {
        let Some((commands, left)) = self.on_its_way.take() else {
            return;
        };
        let enough = ((commands + waiting) * SHARE.0).div_ceil(SHARE.1);
        if enough > 1 {
            self.enough = enough;
            self.until = Some(now + (now - left).min(MOST_WAIT));
        }
    }

    /// Whether a group of so many commands leaves now.
    pub(super) fn is_enough(&self, waiting: usize, now: Instant) -> bool {
        waiting >= self.enough || self.until.is_none_or(|until| now >= until)
    }

    /// When a group leaves with any number, if that is not now.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_micros(400);

    /// What a group of `commands` leaves behind, and the time of its effect.
    async fn after(commands: usize, waiting: usize, took: Duration) -> (Gather, Instant) {
        let mut gather = Gather::default();
        let left = Instant::now();
        assert!(
            gather.is_enough(1, left),
            "the first group waits for nobody"
        );
        gather.leaves(commands, left);
        gather.took_effect(waiting, left + took);
        (gather, left + took)
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_never_waits() {
        let (gather, now) = after(1, 0, TOOK).await;
        assert!(gather.is_enough(1, now));
        assert_eq!(gather.until(now), None, "and sets no timer");
    }

    #[tokio::test(start_paused = true)]
    async fn two_clients_come_together() {
        let (gather, now) = after(1, 1, TOOK).await;
        assert!(!gather.is_enough(1, now));
        assert!(gather.is_enough(2, now));
    }

    #[tokio::test(start_paused = true)]
    async fn most_of_what_was_under_way_is_enough() {
        let (gather, now) = after(20, 20, TOOK).await;
        assert!(!gather.is_enough(29, now));
        assert!(gather.is_enough(30, now));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_last_group_took() {
        let (gather, now) = after(20, 20, TOOK).await;
        assert_eq!(gather.until(now), Some(now + TOOK));
        assert!(!gather.is_enough(20, now + TOOK - Duration::from_micros(1)));
        assert!(gather.is_enough(1, now + TOOK));
        assert_eq!(gather.until(now + TOOK), None);
        let (gather, now) = after(20, 20, Duration::from_secs(1)).await;
        assert!(gather.is_enough(1, now + MOST_WAIT));
    }
}
