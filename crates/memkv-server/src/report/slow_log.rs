//! The last commands that took long, for `SLOWLOG` and `MEMKV.SLOWLOG`.
//!
//! Never holds more than [`MAX_LEN`] entries, each of at most 32 words of about 128 bytes: some megabytes. What is
//! executed together, such as a pipeline's reads, is one entry: its first command, and how many were with it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use memkv_node::Stages;
use memkv_node::lock::Mutex;

/// As in Redis: ten milliseconds.
const LEAST_MICROS: i64 = 10_000;

/// As in Redis.
const LEN: usize = 128;

/// Most entries, whatever `slowlog-max-len` asks for: with the longest words they take 6 MiB.
pub(crate) const MAX_LEN: usize = 1024;

/// A slow command.
#[derive(Debug, Clone)]
pub(crate) struct Slow {
    /// Seconds since the Unix epoch, by the wall clock, when it was answered.
    pub(crate) at: u64,
    /// From its arrival until its answer was written.
    pub(crate) took: Duration,
    /// As an operator may see it.
    pub(crate) words: Vec<Box<[u8]>>,
    /// Commands that were executed together with it.
    pub(crate) more: usize,
    pub(crate) client: SocketAddr,
    /// What `CLIENT SETNAME` has set.
    pub(crate) client_name: Box<[u8]>,
    pub(crate) user: Bytes,
    /// Where the time went, of a write whose entry is still known.
    pub(crate) stages: Option<Stages>,
    /// Until the client's socket had taken the answer.
    pub(crate) send: Duration,
}

/// The last slow commands.
pub(crate) struct SlowLog {
    /// What took so many microseconds is slow; negative: nothing is.
    least_micros: AtomicI64,
    max_len: AtomicUsize,
    ring: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    next: u64,
    entries: VecDeque<(u64, Arc<Slow>)>,
}

impl Default for SlowLog {
    fn default() -> Self {
        Self {
            least_micros: AtomicI64::new(LEAST_MICROS),
            max_len: AtomicUsize::new(LEN),
            ring: Mutex::default(),
        }
    }
}

impl SlowLog {
    /// Whether what took so long belongs here.
    #[inline]
    pub(crate) fn takes(&self, took: Duration) -> bool {
        let least = u64::try_from(self.least_micros());
        least.is_ok_and(|least| took >= Duration::from_micros(least))
    }

    pub(crate) fn least_micros(&self) -> i64 {
        self.least_micros.load(Ordering::Relaxed)
    }

    pub(crate) fn set_least_micros(&self, micros: i64) {
        self.least_micros.store(micros, Ordering::Relaxed);
    }

    pub(crate) fn max_len(&self) -> usize {
        self.max_len.load(Ordering::Relaxed)
    }

    /// Forgets the oldest entries above that number.
    pub(crate) fn set_max_len(&self, len: usize) {
        let len = len.min(MAX_LEN);
        let mut ring = self.ring.lock();
        self.max_len.store(len, Ordering::Relaxed);
        let above = ring.entries.len().saturating_sub(len);
        ring.entries.drain(..above);
        ring.entries.shrink_to_fit();
    }

    /// Takes an entry; the oldest one goes if there is no room.
    pub(crate) fn add(&self, slow: Slow) {
        let mut ring = self.ring.lock();
        let most = self.max_len();
        let id = ring.next;
        ring.next += 1;
        if most == 0 {
            return;
        }
        if ring.entries.len() >= most {
            ring.entries.pop_front();
        }
        ring.entries.push_back((id, Arc::new(slow)));
    }

    /// The last entries with their numbers, the newest first.
    pub(crate) fn last(&self, count: usize) -> Vec<(u64, Arc<Slow>)> {
        let ring = self.ring.lock();
        ring.entries.iter().rev().take(count).cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.ring.lock().entries.len()
    }

    /// Forgets the entries; numbers go on.
    pub(crate) fn reset(&self) {
        self.ring.lock().entries = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(at: u64) -> Slow {
        Slow {
            at,
            took: Duration::from_millis(20),
            words: Vec::new(),
            more: 0,
            client: SocketAddr::from(([127, 0, 0, 1], 1)),
            client_name: Box::default(),
            user: Bytes::new(),
            stages: None,
            send: Duration::ZERO,
        }
    }

    fn ids(log: &SlowLog) -> Vec<u64> {
        log.last(usize::MAX).into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn only_what_is_slow_is_taken() {
        let log = SlowLog::default();
        let micros = Duration::from_micros;
        assert!(!log.takes(micros(9_999)) && log.takes(micros(10_000)));
        log.set_least_micros(0);
        assert!(log.takes(Duration::ZERO));
        log.set_least_micros(-1);
        assert!(!log.takes(Duration::MAX));
    }

    #[test]
    fn the_newest_entries_stay_and_there_is_a_bound() {
        let log = SlowLog::default();
        for at in 0..300 {
            log.add(slow(at));
        }
        assert_eq!((log.len(), log.last(1)[0].0), (128, 299));
        log.set_max_len(2);
        assert_eq!(ids(&log), [299, 298]);
        log.reset();
        log.add(slow(300));
        assert_eq!(ids(&log), [300], "numbers go on");
        log.set_max_len(0);
        log.add(slow(301));
        assert_eq!(log.len(), 0);
        log.set_max_len(usize::MAX);
        for at in 0..3 * MAX_LEN as u64 {
            log.add(slow(at));
        }
        assert_eq!(log.len(), MAX_LEN);
    }
}
