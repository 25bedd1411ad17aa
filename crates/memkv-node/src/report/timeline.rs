//! A node's timeline: its last events, in memory, numbered and with the time of the wall clock.
//!
//! Never waits for anything and never fills: the oldest event goes when there are [`MAX_EVENTS`]. Invariants:
//! numbers grow by one from 1 in each process; a text has at most [`MAX_TEXT_BYTES`].

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use crate::report::event::Event;
use crate::sync::lock::Mutex;

/// Events that are kept. A healthy node notes some a day, and one that loses its leader every two seconds three
/// each time, so this is ten minutes of the worst and months of the usual. With their texts they take half a
/// megabyte at most.
pub const MAX_EVENTS: usize = 1024;

/// Longest text of an event: seven names of the longest kind. What is longer is cut.
pub const MAX_TEXT_BYTES: usize = 512;

/// An event as it was noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Its number in this process, from 1.
    pub seq: u64,
    /// Milliseconds since the Unix epoch, by this node's wall clock.
    pub at_ms: u64,
    /// See [`Event::kind`].
    pub kind: &'static str,
    /// See [`Event::warns`].
    pub warns: bool,
    /// Words for people.
    pub text: Box<str>,
}

type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The last events of a node.
#[derive(Default)]
pub struct Timeline {
    start: OnceLock<Start>,
    ring: Mutex<Ring>,
}

/// What a process knows once it has opened its directory.
struct Start {
    wall_clock_ms: WallClock,
    boot: u64,
    /// The last entry of the log at that moment: what is applied up to it is no news.
    old_through: u64,
}

#[derive(Default)]
struct Ring {
    last: u64,
    events: VecDeque<Noted>,
}

impl Timeline {
    /// From now on events are noted, with the time of this clock. `boot` counts the starts of the node, and what
    /// is applied up to the entry `old_through` was there before. A second call has no effect.
    pub fn begin(&self, wall_clock_ms: WallClock, boot: u64, old_through: u64) {
        let _ = self.start.set(Start {
            wall_clock_ms,
            boot,
            old_through,
        });
    }

    /// Whether what this entry has changed is news, and not replayed.
    pub(crate) fn is_news(&self, index: u64) -> bool {
        self.start
            .get()
            .is_some_and(|start| index > start.old_through)
    }

    /// Notes an event, with the time. Before the beginning it is lost.
    pub fn note(&self, event: &Event) {
        let Some(start) = self.start.get() else {
            return;
        };
        let mut text = event.to_string();
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        let mut ring = self.ring.lock();
        ring.last += 1;
        let noted = Noted {
            seq: ring.last,
            // Under the lock, so that later numbers have later times while the clock only runs.
            at_ms: (start.wall_clock_ms)(),
            kind: event.kind(),
            warns: event.warns(),
            text: text.into(),
        };
        if ring.events.len() == MAX_EVENTS {
            ring.events.pop_front();
        }
        ring.events.push_back(noted);
    }

    /// The events behind number `seq` that are still there, in order; 0 for all.
    pub fn since(&self, seq: u64) -> Vec<Noted> {
        let ring = self.ring.lock();
        let behind = ring.events.iter().filter(|noted| noted.seq > seq);
        behind.cloned().collect()
    }

    /// How often a process has opened the directory: numbers begin anew with each.
    pub fn boot(&self) -> u64 {
        self.start.get().map_or(0, |start| start.boot)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn timeline() -> Timeline {
        let timeline = Timeline::default();
        let clock = AtomicU64::new(0);
        timeline.begin(
            Arc::new(move || clock.fetch_add(1, Ordering::Relaxed)),
            3,
            9,
        );
        timeline
    }

    #[test]
    fn the_oldest_events_go_and_the_numbers_stay() {
        let timeline = timeline();
        let many = 3 * MAX_EVENTS as u64 + 7;
        for level in 0..many {
            timeline.note(&Event::Level {
                level: u32::try_from(level).unwrap(),
            });
        }
        let all = timeline.since(0);
        assert_eq!(all.len(), MAX_EVENTS);
        let seqs: Vec<u64> = all.iter().map(|noted| noted.seq).collect();
        let expected: Vec<u64> = (many - MAX_EVENTS as u64 + 1..=many).collect();
        assert_eq!(seqs, expected);
        assert!(all.iter().all(|noted| noted.at_ms + 1 == noted.seq));
        assert_eq!(timeline.since(many - 2).len(), 2);
        assert_eq!(timeline.since(many), []);
        assert_eq!(timeline.since(u64::MAX), []);
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let timeline = timeline();
        let why = "ü".repeat(MAX_TEXT_BYTES);
        timeline.note(&Event::NoLeader { why });
        let text = &timeline.since(0)[0].text;
        assert!(text.len() <= MAX_TEXT_BYTES && text.len() > MAX_TEXT_BYTES - 2);
        assert!(text.ends_with('ü'));
    }

    #[test]
    fn nothing_is_noted_before_the_beginning_and_nothing_replayed_is_news() {
        let early = Timeline::default();
        early.note(&Event::Converged);
        assert_eq!(early.since(0), []);
        assert!(!early.is_news(u64::MAX));
        let timeline = timeline();
        assert!(!timeline.is_news(9) && timeline.is_news(10));
        timeline.begin(Arc::new(|| 0), 4, 99);
        assert_eq!(timeline.boot(), 3, "there is one beginning");
    }
}
