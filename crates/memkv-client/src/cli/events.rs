//! `events`: what has happened to the nodes, merged by their clocks. Never decides which clock is right.
//!
//! Invariants: each event is printed once; those of one node come in its own order where its clock only runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use memkv_client::Client;
use memkv_proto::Utc;
use memkv_proto::error::exit;
use memkv_proto::events::{Event, Events};
use tokio::task::JoinSet;

use super::args::ttl;
use super::output::{Printer, Talk};
use super::table::{WIDTH, printable, shorten};
use super::{Failure, ms, now_ms};

/// How often the nodes are asked with `--follow`.
const PAUSE: Duration = Duration::from_secs(1);

/// Columns of a node's name; a longer one loses its middle.
const NAME_WIDTH: usize = 10;

/// Which events are printed.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Wanted {
    /// Only what happened within this time, such as 10m, 12h or 7d
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    since: Option<Duration>,
    /// Goes on with what happens, until it is interrupted
    #[arg(long)]
    follow: bool,
}

/// How far a node's events were printed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Read {
    boot: u64,
    began_at_ms: u64,
    last: u64,
}

/// The events that were printed, by node.
#[derive(Default)]
struct Merge {
    read: BTreeMap<String, Read>,
}

impl Merge {
    /// The number behind which a node is asked.
    fn behind(&self, name: &str) -> u64 {
        self.read.get(name).map_or(0, |read| read.last)
    }

    /// Takes the answers of the nodes: the new events in the order of time, and whether a node must be asked
    /// again, since its numbers have begun anew.
    fn take(&mut self, answers: Vec<Events>) -> (Vec<(String, Event)>, bool) {
        let (mut merged, mut again) = (Vec::new(), false);
        for answer in answers {
            let read = self.read.entry(answer.name.clone()).or_default();
            // A node whose directory was emptied counts its starts anew, but does not begin at the same time.
            if (read.boot, read.began_at_ms) != (answer.boot, answer.began_at_ms) {
                // What it has told now is behind a number of the process before.
                let was_asked_from_0 = read.last == 0;
                *read = Read {
                    boot: answer.boot,
                    began_at_ms: answer.began_at_ms,
                    last: 0,
                };
                if !was_asked_from_0 {
                    again = true;
                    continue;
                }
            }
            for event in answer.events {
                if event.seq > read.last {
                    read.last = event.seq;
                    merged.push((answer.name.clone(), event));
                }
            }
        }
        merged.sort_by(|(a_name, a), (b_name, b)| {
            (a.at_ms, a_name, a.seq).cmp(&(b.at_ms, b_name, b.seq))
        });
        (merged, again)
    }
}

/// Prints the events of all nodes.
pub(crate) async fn show(
    client: &Client,
    printer: &Printer,
    Wanted { since, follow }: Wanted,
) -> Result<u8, Failure> {
    let from_ms = since.map_or(0, |since| now_ms().saturating_sub(ms(since)));
    let (mut merge, mut told) = (Merge::default(), BTreeSet::new());
    let mut answered = false;
    loop {
        let answers = ask(client, &merge, &mut told).await;
        answered |= !answers.is_empty();
        let (events, again) = merge.take(answers);
        for (node, event) in events.iter().filter(|(_, event)| event.at_ms >= from_ms) {
            printer.event(node, event)?;
        }
        match (again, follow) {
            (true, _) => {}
            (false, true) => tokio::time::sleep(PAUSE).await,
            (false, false) if answered => return Ok(exit::OK),
            (false, false) => return Ok(exit::UNAVAILABLE),
        }
    }
}

/// Asks all nodes that are known. What is wrong with one is told once, until it answers.
async fn ask(client: &Client, merge: &Merge, told: &mut BTreeSet<String>) -> Vec<Events> {
    let view = client.cluster().await;
    let mut asked = JoinSet::new();
    for node in view.nodes {
        let events = client.events(&node.addr, merge.behind(&node.name));
        let label = node.label().to_owned();
        asked.spawn(async move {
            let events = match node.status {
                Ok(_) => events.await,
                Err(why) => Err(why.to_string()),
            };
            (label, events)
        });
    }
    let mut answers = Vec::new();
    // A task can only fail when the runtime shuts down.
    while let Some(Ok((label, events))) = asked.join_next().await {
        match events {
            Ok(events) => {
                told.remove(&label);
                answers.push(events);
            }
            Err(why) if !told.contains(&label) => {
                Talk::new().note(&format!("{label}: {why}"));
                told.insert(label);
            }
            Err(_) => {}
        }
    }
    answers
}

/// A line for people: the time in UTC, the node, a mark if one should look, and the words. Within a terminal's
/// width if `fits`.
pub(crate) fn line(node: &str, event: &Event, fits: bool) -> String {
    let mark = if event.warns { '!' } else { ' ' };
    let node = shorten(&printable(node), NAME_WIDTH);
    let start = format!("{}  {node:<NAME_WIDTH$} {mark} ", time(event.at_ms));
    let text = printable(&event.text);
    match fits {
        true => {
            let room = WIDTH.saturating_sub(start.chars().count());
            start + &shorten(&text, room)
        }
        false => start + &text,
    }
}

/// The same for programs.
pub(crate) fn tabs(node: &str, event: &Event) -> String {
    let words = [
        printable(node),
        printable(&event.kind),
        printable(&event.text),
    ];
    let [node, kind, text] = words;
    format!("{}\t{node}\t{}\t{kind}\t{text}", event.at_ms, event.seq)
}

/// Month, day and time of day in UTC, to the millisecond.
fn time(at_ms: u64) -> String {
    let seconds = i64::try_from(at_ms / 1000).unwrap_or(i64::MAX);
    let utc = Utc::at(seconds);
    format!(
        "{:02}-{:02} {:02}:{:02}:{:02}.{:03}",
        utc.month,
        utc.day,
        utc.hour,
        utc.minute,
        utc.second,
        at_ms % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(name: &str, boot: u64, seqs: &[(u64, u64)]) -> Events {
        let event = |(seq, at_ms): &(u64, u64)| Event {
            seq: *seq,
            at_ms: *at_ms,
            kind: "leader".to_owned(),
            warns: false,
            late: false,
            text: "leads".to_owned(),
        };
        Events {
            name: name.to_owned(),
            boot,
            began_at_ms: 0,
            events: seqs.iter().map(event).collect(),
        }
    }

    fn take(merge: &mut Merge, answers: Vec<Events>) -> (Vec<String>, bool) {
        let (merged, again) = merge.take(answers);
        let merged = merged
            .iter()
            .map(|(node, event)| format!("{node}/{}", event.seq));
        (merged.collect(), again)
    }

    #[test]
    fn events_are_merged_by_time_and_told_once() {
        let mut merge = Merge::default();
        let first = vec![
            events("n1", 1, &[(1, 10), (2, 30)]),
            events("n2", 4, &[(7, 20), (8, 30)]),
        ];
        let words = ["n1/1", "n2/7", "n1/2", "n2/8"].map(str::to_owned).to_vec();
        assert_eq!(take(&mut merge, first.clone()), (words, false));
        assert_eq!(
            (merge.behind("n1"), merge.behind("n2"), merge.behind("n3")),
            (2, 8, 0)
        );
        assert_eq!(take(&mut merge, first), (vec![], false), "the same again");
        let more = vec![events("n2", 4, &[(9, 5)])];
        assert_eq!(take(&mut merge, more), (vec!["n2/9".to_owned()], false));
    }

    #[test]
    fn a_node_that_starts_again_is_asked_from_its_first_event() {
        let mut merge = Merge::default();
        take(&mut merge, vec![events("n1", 1, &[(1, 10), (2, 30)])]);
        // Asked behind 2, the new process tells of its third event only.
        let skipped = vec![events("n1", 2, &[(3, 50)])];
        assert_eq!(take(&mut merge, skipped), (vec![], true));
        assert_eq!(merge.behind("n1"), 0);
        let all = vec![events("n1", 2, &[(1, 40), (2, 45), (3, 50)])];
        let words = ["n1/1", "n1/2", "n1/3"].map(str::to_owned).to_vec();
        assert_eq!(take(&mut merge, all), (words, false));
    }

    #[test]
    fn an_emptied_node_that_has_started_as_often_is_asked_from_its_first_event() {
        let mut merge = Merge::default();
        let of = |began_at_ms, seqs: &[(u64, u64)]| Events {
            began_at_ms,
            ..events("n1", 1, seqs)
        };
        take(&mut merge, vec![of(5, &[(1, 10), (2, 30)])]);
        assert_eq!(take(&mut merge, vec![of(40, &[(3, 50)])]), (vec![], true));
        let all = vec![of(40, &[(1, 41), (2, 45), (3, 50)])];
        assert_eq!(take(&mut merge, all).0.len(), 3);
    }

    #[test]
    fn a_line_fits_a_terminal_and_commands_none() {
        let event = Event {
            seq: 1,
            at_ms: 1_796_059_971_123,
            kind: "no_leader".to_owned(),
            warns: true,
            late: false,
            text: format!("\x1b[2Jknows no leader: {}", "x".repeat(300)),
        };
        let fitting = line("a-very-long-name-of-a-node", &event, true);
        assert_eq!(fitting.chars().count(), WIDTH, "{fitting}");
        assert!(!fitting.contains('\x1b'), "{fitting}");
        let whole = line("n1", &event, false);
        assert!(
            whole.len() > 300 && whole.contains("n1         ! "),
            "{whole}"
        );
        assert!(whole.starts_with("11-30 17:32:51.123  "), "{whole}");
        let tabs = tabs("n1", &event);
        assert_eq!(tabs.split('\t').count(), 5);
    }
}
