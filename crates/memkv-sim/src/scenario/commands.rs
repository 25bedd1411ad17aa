//! What each command of a script does.
//!
//! | Command | Effect |
//! |---|---|
//! | `A: SET k v` | a client's request, and its answer; `@7` is the store's revision |
//! | `A: SET k v &`, `answers` | the same in the background, and the answers of all such requests |
//! | `50 times A: SET k v` | one after the other; shows one answer if all are the same |
//! | `wait ...` | see `waits`; `wait leader L followers A B` names nodes by their parts |
//! | `show A`, `show why A`, `show seat A`, `show clusters`, `show event E` | the state of a node or run |
//! | `advance 3s` | lets simulated time pass |
//! | `cut A \| B C`, `cut A -> B but Read`, `heal` | links, in both directions or one, of all lanes or some |
//! | `refuse A -> B`, `accept A -> B` | a firewall between two nodes |
//! | `haunt 6s` | what was on a broken connection arrives this much later |
//! | `start A`, `kill A`, `power-cut A`, `stop A` | processes and machines; `all` is every node |
//! | `list A = n1 n2`, `clock A +60` | the configured list of the next start; a wall clock |
//! | `wipe A`, `other-disk A` | an emptied directory; an empty disk, and the next time the own one |
//! | `copy-disk A`, `restore-disk A` | an old copy of a disk |
//! | `fill A 1000`, `empty A` | bytes that stay free on a disk besides the reserve |
//! | `deviate A` | the next command has another effect in this store |
//!
//! Invariant: what a command does to disks and processes is what `host` and `nemesis` do to them, so
//! every invariant of the simulator holds in scenarios too.

use std::sync::Arc;

use memkv_disk::disk::guard;
use memkv_node::{Lane, Phase};

use super::Stage;
use super::request::{self, Request};
use super::waits::time;
use crate::disk::{self, SimDisk};
use crate::host::Death;
use crate::nemesis::false_start::{Kept, swap};
use crate::nemesis::stores;
use crate::net::Cuts;

type Output = Result<Vec<String>, String>;

/// Nothing to show.
const QUIET: Output = Ok(Vec::new());

impl Stage {
    /// Executes a line; gives what it shows.
    pub(super) async fn command(&mut self, line: &str) -> Output {
        if let Some((target, request)) = line.split_once(": ") {
            return self.request(target, request).await;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, rest) = words.split_first().ok_or("empty")?;
        match (*verb, rest) {
            ("wait", what) => self.wait(what).await,
            ("advance", [by]) => {
                tokio::time::sleep(time(by)?).await;
                QUIET
            }
            ("answers", []) => self.answers().await,
            ("cut", links) => self.cut_links(links),
            ("heal", []) => {
                self.cut(None);
                QUIET
            }
            ("show", what) => self.show(what),
            (verb, rest) => self.fault(verb, rest).await,
        }
    }

    async fn request(&mut self, target: &str, request: &str) -> Output {
        let (times, part) = match target.split_once(" times ") {
            Some((times, part)) => (times.parse().map_err(|_| "a number of times")?, part),
            None => (1, target),
        };
        let slot = self.slot(part)?;
        if let Some(request) = request.strip_suffix(" &") {
            let asked = request::parse(request)?;
            let answer = tokio::spawn(request::send(self.cluster.node(slot), asked));
            let label = format!("{part}: {request}");
            self.pending.push((label, answer));
            return QUIET;
        }
        let request = request::parse(request)?;
        let mut answers: Vec<String> = Vec::new();
        for _ in 0..times {
            let answer = self.ask(slot, request.clone()).await;
            answers.push(answer);
        }
        let outcome = |answer: &String| answer.split(" @").next().unwrap_or("").to_owned();
        let first = answers.first().map(outcome).unwrap_or_default();
        Ok(match answers.len() {
            0 | 1 => answers,
            times if answers.iter().all(|answer| outcome(answer) == first) => {
                vec![format!("{first}, {times} times")]
            }
            _ => answers,
        })
    }

    async fn ask(&self, slot: usize, request: Request) -> String {
        request::send(self.cluster.node(slot), request).await
    }

    async fn answers(&mut self) -> Output {
        let mut shown = Vec::new();
        for (label, answer) in std::mem::take(&mut self.pending) {
            let answer = answer.await.map_err(|error| error.to_string())?;
            shown.push(format!("{label} -> {answer}"));
        }
        Ok(shown)
    }

    /// `cut A B | C` in both directions, `cut A -> B C` in one; `but Read` spares a lane, `only Append`
    /// cuts one. What was cut before is whole again.
    fn cut_links(&self, words: &[&str]) -> Output {
        let (links, lanes) = match words {
            [links @ .., how @ ("but" | "only"), lane] => (links, Some((*how, *lane))),
            links => (links, None),
        };
        let at = links.iter().position(|word| matches!(*word, "|" | "->"));
        let at = at.ok_or("cut A | B, or cut A -> B")?;
        let both = links[at] == "|";
        let (from, to) = (self.slots(&links[..at])?, self.slots(&links[at + 1..])?);
        let mut cuts = Cuts::none(self.cluster.nodes());
        for a in &from {
            for b in to.iter().filter(|b| *b != a) {
                cuts.set(*a, *b, true);
                if both {
                    cuts.set(*b, *a, true);
                }
            }
        }
        let cuts = match lanes {
            None => cuts,
            Some((how, named)) => {
                let lane = Lane::ALL.into_iter();
                let lane = lane.clone().find(|lane| format!("{lane:?}") == named);
                let lane = lane.ok_or_else(|| format!("no lane is called {named}"))?;
                match how {
                    "but" => cuts.sparing(lane),
                    _ => cuts.only(lane),
                }
            }
        };
        self.cut(Some(cuts));
        QUIET
    }

    fn show(&self, what: &[&str]) -> Output {
        let shown = match what {
            ["seat", part] => self.seat(self.slot(part)?),
            ["clusters"] => {
                let nodes = self.cluster.live();
                let serves = nodes.iter().map(|(_, node)| node.status());
                let mut clusters: Vec<_> = serves
                    .filter(|status| status.phase == Phase::Serving)
                    .map(|status| status.cluster)
                    .collect();
                let members = clusters.len();
                clusters.sort_unstable();
                clusters.dedup();
                format!("{} of {members} serving nodes", clusters.len())
            }
            [part] => self.standing(self.slot(part)?),
            ["why", part] => {
                let node = self.cluster.node(self.slot(part)?);
                let message = node.map(|node| node.status().message);
                self.shown(&message.unwrap_or_default())
            }
            ["event", event @ ..] => {
                let times = self.cluster.trace.times(&event.join(" "));
                (if times > 0 { "it happened" } else { "never" }).to_owned()
            }
            _ => return Err("show A, why A, seat A, clusters, or event E".to_owned()),
        };
        Ok(vec![shown])
    }

    /// What a node does.
    fn standing(&self, slot: usize) -> String {
        let Some(node) = self.cluster.node(slot) else {
            return "no process".to_owned();
        };
        if node.inspect().is_some_and(|now| now.leads.is_some()) {
            return "leads".to_owned();
        }
        let status = node.status();
        match (status.phase, status.leader) {
            (Phase::Forming, _) => "forms a cluster".to_owned(),
            (Phase::Joining, _) => "asks for a seat".to_owned(),
            (Phase::Stopped, _) => "has stopped".to_owned(),
            (Phase::Serving, None) => "knows no leader".to_owned(),
            (Phase::Serving, Some(leader)) => format!("follows {}", self.shown(&leader)),
        }
    }

    /// What happens to processes, machines and disks.
    async fn fault(&mut self, verb: &str, rest: &[&str]) -> Output {
        let cluster = &self.cluster;
        match (verb, rest) {
            ("start", parts) => self.each(parts, |slot| cluster.start(slot)),
            // The system of a killed process refuses connections; a machine without power says nothing.
            ("kill", parts) => self.each(parts, |slot| {
                cluster.kill(slot, Death::Process, "killed");
                cluster.net.answer_for_dead(slot, true);
            }),
            ("power-cut", parts) => self.each(parts, |slot| {
                cluster.kill(slot, Death::Power, "its power is cut");
                cluster.net.answer_for_dead(slot, false);
            }),
            ("stop", [part]) => {
                let slot = self.slot(part)?;
                cluster.stop(slot).await;
                QUIET
            }
            ("wipe", [part]) => {
                cluster.wipe(self.slot(part)?);
                QUIET
            }
            ("refuse" | "accept", [from, "->", to]) => {
                let (from, to) = (self.slot(from)?, self.slot(to)?);
                cluster.net.refuse(from, to, verb == "refuse");
                QUIET
            }
            ("haunt", [late]) => {
                cluster.net.haunt(time(late)?);
                QUIET
            }
            ("list", [part, "=", list @ ..]) => {
                let list = self.slots(list)?;
                cluster.lists.give(self.slot(part)?, list);
                QUIET
            }
            ("clock", [part, by]) => {
                let seconds: i64 = by.parse().map_err(|_| "seconds, as +60 or -60")?;
                let slot = self.slot(part)?;
                cluster.hosts[slot].lock().skew_ms = seconds.saturating_mul(1_000);
                QUIET
            }
            _ => self.disk(verb, rest),
        }
    }

    fn each(&self, parts: &[&str], mut act: impl FnMut(usize)) -> Output {
        self.slots(parts)?.into_iter().for_each(&mut act);
        QUIET
    }

    fn disk(&mut self, verb: &str, rest: &[&str]) -> Output {
        let cluster = self.cluster.clone();
        let disk_of = |slot: usize| cluster.hosts[slot].lock().disk.clone();
        match (verb, rest) {
            ("fill", [part, free]) => {
                let free: u64 = free.parse().map_err(|_| "how many bytes stay free")?;
                disk::fill(&disk_of(self.slot(part)?), free);
            }
            ("empty", parts) => return self.each(parts, |slot| disk::empty(&disk_of(slot))),
            ("copy-disk", [part]) => {
                let slot = self.slot(part)?;
                let image = guard::allow(|| disk_of(slot).image());
                self.copies.insert(slot, image);
            }
            ("restore-disk", [part]) => {
                let slot = self.slot(part)?;
                let image = self.copies.remove(&slot).ok_or("copy it first")?;
                cluster.put_back(slot, image);
            }
            ("other-disk", [part]) => {
                let slot = self.slot(part)?;
                let empty = || Kept {
                    disk: Arc::new(SimDisk::new(cluster.rng.next())),
                    quarantines: 0,
                };
                // What is taken out comes back with the next such command.
                let (next, lost) = match self.kept.remove(&slot) {
                    Some(own) => (own, None),
                    None => (empty(), Some(cluster.invariants.node_id(slot))),
                };
                let taken = swap(&cluster, slot, next, lost);
                if lost.is_some() {
                    self.kept.insert(slot, taken);
                }
            }
            ("deviate", [part]) => {
                let slot = self.slot(part)?;
                if !stores::order_of(&cluster, slot) {
                    return Err("this build has no deliberate bugs".to_owned());
                }
            }
            _ => return Err("this is no command".to_owned()),
        }
        QUIET
    }
}
