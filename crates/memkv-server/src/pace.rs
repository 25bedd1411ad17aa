//! How slowly a client may send a request and take its reply: at least [`BYTES_PER_SECOND`], whatever
//! the protocol. Never waits by itself and holds no timer.

use std::time::Duration;

use tokio::time::Instant;

/// The slowest client that is served (1 KiB/s): a modem is faster.
pub(crate) const BYTES_PER_SECOND: u64 = 1024;

/// A request may take so long before its pace counts: a packet that was lost twice is sent again by then.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// A request that came fast at first may then be silent for so long, and no longer: it holds memory that
/// others need.
const MOST_SILENCE: Duration = Duration::from_secs(30);

/// A request that has arrived in part.
#[derive(Debug)]
pub(crate) struct Arrival {
    start: Instant,
    received: u64,
    /// When it last came at its pace for a whole silence, and how much has come since.
    last: Instant,
    since: u64,
}

impl Arrival {
    /// One that begins now.
    pub(crate) fn begin() -> Self {
        let now = Instant::now();
        Self {
            start: now,
            received: 0,
            last: now,
            since: 0,
        }
    }

    /// More of it has arrived.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.received = self.received.saturating_add(bytes as u64);
        self.since = self.since.saturating_add(bytes as u64);
        // A byte now and then gains nothing.
        if self.since >= MOST_SILENCE.as_secs() * BYTES_PER_SECOND {
            (self.last, self.since) = (Instant::now(), 0);
        }
    }

    /// Until when more must arrive.
    pub(crate) fn deadline(&self, grace: Duration, bytes_per_second: u64) -> Instant {
        let earned = Duration::from_secs(self.received / bytes_per_second.max(1));
        let silent = grace.max(MOST_SILENCE) + Duration::from_secs(self.since / BYTES_PER_SECOND);
        (self.start + grace + earned).min(self.last + silent)
    }
}

/// Output that waits for its reader.
#[derive(Debug)]
pub(crate) struct Departure {
    window: Duration,
    since: Instant,
    taken: u64,
}

impl Departure {
    /// Waits from now on. In each `window` the reader must take its bytes.
    pub(crate) fn begin(window: Duration) -> Self {
        Self {
            window,
            since: Instant::now(),
            taken: 0,
        }
    }

    /// The reader has taken something.
    pub(crate) fn took(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes as u64);
        let enough = self.window.as_millis() * u128::from(BYTES_PER_SECOND) / 1000;
        if u128::from(self.taken) >= enough {
            *self = Self::begin(self.window);
        }
    }

    /// When the reader is too slow.
    pub(crate) fn deadline(&self) -> Instant {
        self.since + self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_request_earns_its_time_by_bytes() {
        let mut arrival = Arrival::begin();
        let start = Instant::now();
        let deadline = |arrival: &Arrival| arrival.deadline(GRACE, BYTES_PER_SECOND) - start;
        assert_eq!(deadline(&arrival), GRACE);
        arrival.received(1023);
        assert_eq!(deadline(&arrival), GRACE);
        arrival.received(1025);
        assert_eq!(deadline(&arrival), GRACE + Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_came_fast_may_not_be_silent_for_ever() {
        let mut arrival = Arrival::begin();
        let start = Instant::now();
        arrival.received(64 * 1024 * 1024);
        let deadline = |arrival: &Arrival| arrival.deadline(GRACE, BYTES_PER_SECOND) - start;
        assert_eq!(deadline(&arrival), MOST_SILENCE);
        tokio::time::advance(MOST_SILENCE / 2).await;
        arrival.received(1);
        assert_eq!(deadline(&arrival), MOST_SILENCE);
        arrival.received(30 * 1024);
        assert_eq!(deadline(&arrival), MOST_SILENCE / 2 + MOST_SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_a_byte_now_and_then_gains_no_time() {
        let mut departure = Departure::begin(WINDOW);
        let start = Instant::now();
        tokio::time::advance(WINDOW / 2).await;
        departure.took(1);
        assert_eq!(departure.deadline() - start, WINDOW);
        departure.took(10 * 1024 - 2);
        assert_eq!(departure.deadline() - start, WINDOW);
        departure.took(1);
        assert_eq!(departure.deadline() - start, WINDOW / 2 + WINDOW);
    }
}
