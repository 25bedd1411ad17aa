//! Log lines that a client or a peer can cause as often as it likes: said at most so often in a
//! period, with the number of those that were left out. Never delays what the line is about, and
//! never leaves out the first one.

use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock::Mutex;

/// Time between two such lines in general: a log that grows by a line of this length every ten
/// seconds fills no disk, and an operator who follows it still sees what goes on.
pub const PERIOD: Duration = Duration::from_secs(10);

/// Lines in a [`PERIOD`] about what changes in a cluster: more than any change that ends makes.
const MOST_CHANGES: u32 = 20;

/// One kind of line.
#[derive(Debug)]
pub struct Seldom {
    most: u32,
    period: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the first line of this period was said.
    since: Option<Instant>,
    said: u32,
    left_out: u64,
}

impl Seldom {
    /// A line that comes once in a [`PERIOD`].
    pub const fn new() -> Self {
        Self::at_most(1, PERIOD)
    }

    /// A line that comes at most so many times in a period.
    pub const fn at_most(most: u32, period: Duration) -> Self {
        let state = State {
            since: None,
            said: 0,
            left_out: 0,
        };
        Self {
            most,
            period,
            state: Mutex::new(state),
        }
    }

    /// Whether to say it now: then how many were left out since it was said last.
    pub fn say(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let is_over = |since: Instant| now.saturating_duration_since(since) >= self.period;
        if state.since.is_none_or(is_over) {
            state.since = Some(now);
            state.said = 0;
        }
        if state.said >= self.most {
            state.left_out = state.left_out.saturating_add(1);
            return None;
        }
        state.said += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

/// The lines of a node that its peers can cause.
#[derive(Debug)]
pub(crate) struct Lines {
    /// Which node leads. Each change is worth a line, as long as there are few.
    pub(crate) leaders: Seldom,
    /// That a leader's process is gone.
    pub(crate) deaths: Seldom,
    /// Why there is no leader.
    pub(crate) diagnoses: Seldom,
    /// That leadership is handed over.
    pub(crate) handing_over: Seldom,
    /// That a node was admitted.
    pub(crate) admitted: Seldom,
    /// That a member has moved, or seems to.
    pub(crate) moved: Seldom,
    /// That a snapshot is installed.
    pub(crate) installing: Seldom,
    /// That the feature level cannot be raised yet.
    pub(crate) level_waits: Seldom,
    /// That a proposed cluster will not be formed.
    pub(crate) not_formed: Seldom,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            leaders: Seldom::at_most(MOST_CHANGES, PERIOD),
            deaths: Seldom::at_most(MOST_CHANGES, PERIOD),
            diagnoses: Seldom::new(),
            handing_over: Seldom::new(),
            admitted: Seldom::at_most(MOST_CHANGES, PERIOD),
            moved: Seldom::at_most(MOST_CHANGES, PERIOD),
            installing: Seldom::new(),
            level_waits: Seldom::new(),
            not_formed: Seldom::new(),
        }
    }
}

impl Default for Seldom {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_comes_once_in_a_period_with_the_number_of_those_left_out() {
        let line = Seldom::new();
        assert_eq!(line.say(), Some(0), "the first one at once");
        let said = (0..1_000_000).filter(|_| line.say().is_some()).count();
        assert_eq!(said, 0);
        tokio::time::advance(PERIOD - Duration::from_millis(1)).await;
        assert_eq!(line.say(), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(line.say(), Some(1_000_001));
        assert_eq!(line.say(), None);
        tokio::time::advance(100 * PERIOD).await;
        assert_eq!(line.say(), Some(1), "what was left out is told once");
    }

    #[tokio::test(start_paused = true)]
    async fn no_rate_of_events_makes_more_lines_than_allowed() {
        let line = Seldom::at_most(3, PERIOD);
        let (mut said, mut told, mut events) = (0, 0, 0);
        for millis in 0..200_000_u64 {
            for _ in 0..millis % 4 {
                events += 1;
                if let Some(left_out) = line.say() {
                    said += 1;
                    told += left_out + 1;
                }
            }
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(said, 3 * 20);
        assert!(events - told < events / 20 + 1, "{told} of {events}");
    }
}
