//! Group commit: when the next group is sent, once none is in flight: at once, or a moment later with more
//! commands.
//! Never touches the commands; [`Window`](super::window::Window) holds and counts them.
//!
//! On three nodes, an entry costs as much CPU time by itself as fifty commands. Clients that have just
//! been answered send their next commands within a fraction of the time that an entry takes, so a group
//! that is sent at once misses them, and the clients split into three sets: in flight, queued, and
//! answered. A group that waits for most of the other two merges them into one or two, which is both
//! faster and cheaper.
//!
//! Invariants: a single client never waits; no command waits longer than the last group took, or
//! [`MOST_WAIT`].

use std::time::Duration;

use tokio::time::Instant;

/// A group is sent with three quarters of the commands that were in flight or queued behind them. With a
/// half, clients that come at a steady rate would not wait at all, and the three sets would not merge; with
/// all of them, commands and disks would take turns. Measured with 1 to 1024 clients: between 60 % and 90 %
/// makes little difference to writes alone; where nine of ten commands read, 75 % is a tenth faster than
/// 60 %.
const SHARE: (usize, usize) = (3, 4);

/// The next commands of clients that are near enough have arrived by then.
const MOST_WAIT: Duration = Duration::from_millis(1);

/// The state of the last group and of the next one.
#[derive(Default)]
pub(super) struct GroupCommit {
    /// The number of commands of the last group and the time when it was sent, until it took effect.
    on_its_way: Option<(usize, Instant)>,
    /// The number of commands that are enough for the next group,
    enough: usize,
    /// and the time at which it is sent with fewer.
    until: Option<Instant>,
}

impl GroupCommit {
    /// A group was sent.
    pub(super) fn sent(&mut self, commands: usize, now: Instant) {
        *self = Self {
            on_its_way: Some((commands, now)),
            ..Self::default()
        };
    }

    /// All groups took effect, and so many commands are queued.
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

    /// Whether a group of so many commands is sent now.
    pub(super) fn is_enough(&self, waiting: usize, now: Instant) -> bool {
        waiting >= self.enough || self.until.is_none_or(|until| now >= until)
    }

    /// When a group of any number is sent, if that is not now.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_micros(400);

    /// The state after a group of `commands`, and the time of its effect.
    async fn after(commands: usize, waiting: usize, took: Duration) -> (GroupCommit, Instant) {
        let mut group_commit = GroupCommit::default();
        let left = Instant::now();
        assert!(
            group_commit.is_enough(1, left),
            "the first group does not wait"
        );
        group_commit.sent(commands, left);
        group_commit.took_effect(waiting, left + took);
        (group_commit, left + took)
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_never_waits() {
        let (group_commit, now) = after(1, 0, TOOK).await;
        assert!(group_commit.is_enough(1, now));
        assert_eq!(group_commit.until(now), None, "and sets no timer");
    }

    #[tokio::test(start_paused = true)]
    async fn two_clients_come_together() {
        let (group_commit, now) = after(1, 1, TOOK).await;
        assert!(!group_commit.is_enough(1, now));
        assert!(group_commit.is_enough(2, now));
    }

    #[tokio::test(start_paused = true)]
    async fn most_of_what_was_under_way_is_enough() {
        let (group_commit, now) = after(20, 20, TOOK).await;
        assert!(!group_commit.is_enough(29, now));
        assert!(group_commit.is_enough(30, now));
    }

    #[tokio::test(start_paused = true)]
    async fn no_command_waits_longer_than_the_last_group_took() {
        let (group_commit, now) = after(20, 20, TOOK).await;
        assert_eq!(group_commit.until(now), Some(now + TOOK));
        assert!(!group_commit.is_enough(20, now + TOOK - Duration::from_micros(1)));
        assert!(group_commit.is_enough(1, now + TOOK));
        assert_eq!(group_commit.until(now + TOOK), None);
        let (group_commit, now) = after(20, 20, Duration::from_secs(1)).await;
        assert!(group_commit.is_enough(1, now + MOST_WAIT));
    }
}
