//! When something took long, for `LATENCY`: of each kind of event the last samples, one for a second.
//!
//! Never holds more than [`MAX_SAMPLES`] of each kind.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memkv_node::lock::Mutex;

/// Samples of each kind, as in Redis.
pub(crate) const MAX_SAMPLES: usize = 160;

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A command, from its arrival to its answer.
    Command,
    /// The same, of one that is always short.
    FastCommand,
    /// One call that makes the log durable.
    Fsync,
    /// Applying one run of entries.
    Apply,
    /// A time in which this node knew no leader.
    Election,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Command,
        Self::FastCommand,
        Self::Fsync,
        Self::Apply,
        Self::Election,
    ];

    /// Its name, Redis's where Redis has the kind.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::FastCommand => "fast-command",
            Self::Fsync => "fsync",
            Self::Apply => "apply",
            Self::Election => "election",
        }
    }

    /// The kind of this name.
    pub(crate) fn named(name: &[u8]) -> Option<Self> {
        let is = |kind: &Self| kind.name().as_bytes() == name;
        Self::ALL.into_iter().find(is)
    }
}

/// The longest of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Seconds since the Unix epoch, by the wall clock.
    pub(crate) at: u64,
    pub(crate) ms: u64,
}

/// The samples of a kind, and the longest since it was reset.
#[derive(Default)]
struct Series {
    samples: VecDeque<Sample>,
    longest_ms: u64,
}

/// The spikes of all kinds.
#[derive(Default)]
pub(crate) struct Spikes {
    /// What takes so many milliseconds is one; 0: nothing is.
    least_ms: AtomicU64,
    series: [Mutex<Series>; Kind::ALL.len()],
}

impl Spikes {
    pub(crate) fn least_ms(&self) -> u64 {
        self.least_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn set_least_ms(&self, ms: u64) {
        self.least_ms.store(ms, Ordering::Relaxed);
    }

    /// Whether what took so long is a spike.
    #[inline]
    pub(crate) fn takes(&self, took: Duration) -> bool {
        let least = self.least_ms();
        least > 0 && took >= Duration::from_millis(least)
    }

    /// Takes what is a spike.
    pub(crate) fn add(&self, kind: Kind, at: u64, took: Duration) {
        if !self.takes(took) {
            return;
        }
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let mut series = self.series[kind as usize].lock();
        series.longest_ms = series.longest_ms.max(ms);
        if let Some(last) = series.samples.back_mut().filter(|last| last.at == at) {
            last.ms = last.ms.max(ms);
            return;
        }
        if series.samples.len() == MAX_SAMPLES {
            series.samples.pop_front();
        }
        series.samples.push_back(Sample { at, ms });
    }

    /// The samples of a kind, the oldest first, and the longest ever.
    pub(crate) fn of(&self, kind: Kind) -> (Vec<Sample>, u64) {
        let series = self.series[kind as usize].lock();
        (series.samples.iter().copied().collect(), series.longest_ms)
    }

    /// Forgets the samples of a kind; whether there were any.
    pub(crate) fn reset(&self, kind: Kind) -> bool {
        let series = std::mem::take(&mut *self.series[kind as usize].lock());
        !series.samples.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_of_each_second_is_kept_and_there_is_a_bound() {
        let spikes = Spikes::default();
        let ms = Duration::from_millis;
        spikes.add(Kind::Fsync, 1, ms(500));
        assert_eq!(spikes.of(Kind::Fsync), (Vec::new(), 0), "off");
        spikes.set_least_ms(100);
        for (at, took) in [(1, 99), (2, 100), (2, 300), (2, 200), (3, 150)] {
            spikes.add(Kind::Fsync, at, ms(took));
        }
        let samples = [Sample { at: 2, ms: 300 }, Sample { at: 3, ms: 150 }];
        assert_eq!(spikes.of(Kind::Fsync), (samples.to_vec(), 300));
        for at in 4..1_000 {
            spikes.add(Kind::Fsync, at, ms(100));
        }
        let (samples, longest) = spikes.of(Kind::Fsync);
        assert_eq!((samples.len(), longest), (MAX_SAMPLES, 300));
        assert!(spikes.reset(Kind::Fsync) && !spikes.reset(Kind::Fsync));
        assert!(!spikes.reset(Kind::Command));
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.name().as_bytes()), Some(kind));
        }
    }
}
