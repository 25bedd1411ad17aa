//! A node's timeline: its last events, in memory, numbered and with the time of the wall clock.
//!
//! Never waits for anything and never fills: where there are [`MAX_EVENTS`], the oldest of the kind that has most
//! goes, so that a slow disk does not displace the elections that it has caused. Invariants: numbers grow by one from
//! 1 in each process; a text has at most [`MAX_TEXT_BYTES`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::report::event::Event;
use crate::sync::lock::Mutex;

/// Events that are kept. A healthy node notes some a day, and one that loses its leader every two seconds three
/// each time, so this is ten minutes of the worst and months of the usual. With their texts they take half a
/// megabyte at most.
pub const MAX_EVENTS: usize = 1024;

/// An entry that is applied so long after its time was not applied when it was new.
const LATE: Duration = Duration::from_secs(5);

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
    /// It has happened while the node was away, at a time that the node does not know.
    pub late: bool,
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
    /// By the wall clock.
    at_ms: u64,
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
            at_ms: wall_clock_ms(),
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

    /// Whether something of that time, by the cluster's log, has happened while this node was away.
    pub(crate) fn is_late(&self, at_ms: u64) -> bool {
        self.start.get().is_some_and(|start| {
            let ago_ms = (start.wall_clock_ms)().saturating_sub(at_ms);
            at_ms > 0 && Duration::from_millis(ago_ms) > LATE
        })
    }

    /// Notes an event, with the time. Before the beginning it is lost.
    pub fn note(&self, event: &Event) {
        self.note_as(event, false);
    }

    /// The same of one that this node has missed, and found when it caught up.
    pub(crate) fn note_late(&self, event: &Event) {
        self.note_as(event, true);
    }

    fn note_as(&self, event: &Event, late: bool) {
        let Some(start) = self.start.get() else {
            return;
        };
        let mut text = event.to_string();
        if late {
            text.push_str(" (while this node was away)");
        }
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        let mut ring = self.ring.lock();
        ring.last += 1;
        let noted = Noted {
            seq: ring.last,
            // Under the lock, so that later numbers have later times while the clock only runs.
            at_ms: (start.wall_clock_ms)(),
            kind: event.kind(),
            warns: event.warns(),
            late,
            text: text.into(),
        };
        if ring.events.len() == MAX_EVENTS {
            ring.make_room();
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

    /// When the process began, in milliseconds since the Unix epoch, by its wall clock. With [`Timeline::boot`] it
    /// tells this process from one of an emptied directory, which counts its starts anew.
    pub fn began_at_ms(&self) -> u64 {
        self.start.get().map_or(0, |start| start.at_ms)
    }
}

impl Ring {
    /// Forgets the oldest event of the kind that has most.
    fn make_room(&mut self) {
        let mut kinds = BTreeMap::<&str, (usize, usize)>::new();
        for (at, noted) in self.events.iter().enumerate() {
            let (count, _first) = kinds.entry(noted.kind).or_insert((0, at));
            *count += 1;
        }
        let most = kinds
            .into_values()
            .max_by_key(|(count, first)| (*count, std::cmp::Reverse(*first)));
        if let Some((_, first)) = most {
            self.events.remove(first);
        }
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
        assert!(all.iter().all(|noted| noted.at_ms == noted.seq));
        assert_eq!(timeline.since(many - 2).len(), 2);
        assert_eq!(timeline.since(many), []);
        assert_eq!(timeline.since(u64::MAX), []);
    }

    #[test]
    fn a_frequent_kind_does_not_displace_the_others() {
        let timeline = timeline();
        let leads = |term| Event::Leads {
            term,
            why: String::new(),
        };
        let stepped = Event::ClockStepped { by_ms: 700 };
        for term in 0..3 {
            timeline.note(&leads(term));
            for _ in 0..2 * MAX_EVENTS {
                timeline.note(&stepped);
            }
        }
        timeline.note(&Event::Converged);
        let all = timeline.since(0);
        assert_eq!(all.len(), MAX_EVENTS);
        let count = |kind: &str| all.iter().filter(|noted| noted.kind == kind).count();
        assert_eq!(
            (count("leader"), count("converged"), count("clock_step")),
            (3, 1, MAX_EVENTS - 4)
        );
        assert!(all.is_sorted_by_key(|noted| noted.seq));
        assert_eq!(all.last().map(|noted| noted.kind), Some("converged"));
    }

    #[test]
    fn what_a_node_has_missed_is_marked() {
        let timeline = Timeline::default();
        assert!(!timeline.is_late(1));
        timeline.begin(Arc::new(|| 100_000), 1, 0);
        assert!(timeline.is_late(94_999) && !timeline.is_late(95_000));
        assert!(!timeline.is_late(200_000) && !timeline.is_late(0));
        let name = "n4".to_owned();
        timeline.note_late(&Event::Removed { name });
        let noted = &timeline.since(0)[0];
        assert!(noted.late);
        assert_eq!(&*noted.text, "n4 has left (while this node was away)");
        assert_eq!(timeline.began_at_ms(), 100_000);
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
