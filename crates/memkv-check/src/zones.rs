//! Quick proofs against registers whose writes have unique values: each breaks a rule that needs
//! no search, in O(n log n) (the zones of Gibbons and Korach, "Testing shared memories", 1997).
//! Never claims that a history is linearizable, and has no opinion on keys with repeated values
//! or with operations other than SET, GET, DEL and EXISTS.
//!
//! The *cluster* of a value is its write and all reads of it. If one of its operations returned
//! before another was invoked, the key must have held the value from that return to that
//! invocation (the last one): its *hold*. Two holds cannot overlap, and nothing that shows
//! another content can lie within one.

use std::collections::HashMap;

use crate::history::{Operation, Outcome};
use crate::model::{Op, Refutation, Reply};

/// Looks for a broken rule among the operations on one key.
pub(crate) fn refute(operations: &[&Operation]) -> Option<Refutation> {
    let register = Register::of(operations)?;
    register.unwritten_read().or_else(|| register.torn_hold())
}

/// A moment in the history's clock; -1 is before everything.
type Time = i128;

/// The operations on one key, sorted into clusters.
struct Register<'a> {
    operations: &'a [&'a Operation],
    /// By value; `None` is the absence before the first write, which only counts as one value if
    /// nothing ever deletes the key.
    clusters: Vec<Cluster>,
    /// Reads of a value that no operation in the history writes.
    orphans: Vec<usize>,
    /// Answered operations that show an absent key, or make it one, where deletions exist.
    absences: Vec<usize>,
}

/// A value's write and reads. Positions may be absent: the initial absence has no write.
struct Cluster {
    write: Option<usize>,
    reads: Vec<usize>,
    first_return: (Time, Option<usize>),
    last_invocation: (Time, Option<usize>),
}

impl Cluster {
    /// A cluster that exists without any operation, before the history.
    fn initial() -> Cluster {
        Cluster {
            write: None,
            reads: Vec::new(),
            first_return: (-1, None),
            last_invocation: (-1, None),
        }
    }

    fn written(at: usize, operation: &Operation) -> Cluster {
        let returned_at = operation.returned_at().map_or(Time::MAX, Time::from);
        Cluster {
            write: Some(at),
            reads: Vec::new(),
            first_return: (returned_at, Some(at)),
            last_invocation: (operation.invoked_at.into(), Some(at)),
        }
    }

    fn add_read(&mut self, at: usize, operation: &Operation) {
        let (invoked_at, returned_at) = interval(operation);
        self.reads.push(at);
        if returned_at < self.first_return.0 {
            self.first_return = (returned_at, Some(at));
        }
        if invoked_at > self.last_invocation.0 {
            self.last_invocation = (invoked_at, Some(at));
        }
    }

    fn is_hold(&self) -> bool {
        self.first_return.0 < self.last_invocation.0
    }

    fn ends(&self) -> impl Iterator<Item = usize> {
        self.first_return
            .1
            .into_iter()
            .chain(self.last_invocation.1)
    }
}

fn interval(operation: &Operation) -> (Time, Time) {
    let returned_at = operation.returned_at().map_or(Time::MAX, Time::from);
    (operation.invoked_at.into(), returned_at)
}

impl<'a> Register<'a> {
    /// `None` if the rules do not apply.
    fn of(operations: &'a [&'a Operation]) -> Option<Register<'a>> {
        let mut clusters = vec![Cluster::initial()];
        let mut of_value = HashMap::new();
        let mut deletes = false;
        for (at, operation) in operations.iter().enumerate() {
            match operation.op {
                Op::Append(_) | Op::Incr(_) => return None,
                Op::Set(id) if of_value.insert(id, clusters.len()).is_some() => return None,
                Op::Set(_) => clusters.push(Cluster::written(at, operation)),
                Op::Del => deletes |= operation.outcome != Outcome::NotExecuted,
                Op::Get | Op::Exist => {}
            }
        }
        let (mut orphans, mut absences) = (Vec::new(), Vec::new());
        for (at, operation) in operations.iter().enumerate() {
            match operation.reply() {
                Some(Reply::Value(Some(value))) => match of_value.get(&value.id) {
                    Some(cluster) => clusters[*cluster].add_read(at, operation),
                    None => orphans.push(at),
                },
                Some(Reply::Value(None) | Reply::Exists(false)) if !deletes => {
                    clusters[0].add_read(at, operation);
                }
                Some(Reply::Value(None) | Reply::Exists(false) | Reply::Removed(_)) => {
                    absences.push(at);
                }
                _ => {}
            }
        }
        Some(Register {
            operations,
            clusters,
            orphans,
            absences,
        })
    }

    /// A read of a value that was never written, never executed, or not yet invoked.
    fn unwritten_read(&self) -> Option<Refutation> {
        if let Some(read) = self.orphans.first() {
            let why = "a value was read that no operation ever wrote".into();
            return Some(Refutation {
                why,
                operations: vec![*read],
            });
        }
        self.clusters.iter().find_map(|cluster| {
            let write = cluster.write?;
            let read = *cluster
                .reads
                .iter()
                .min_by_key(|at| interval(self.operations[**at]).1)?;
            let why = if self.operations[write].outcome == Outcome::NotExecuted {
                "a value was read whose write was reported as not executed"
            } else if interval(self.operations[read]).1 < interval(self.operations[write]).0 {
                "a value was read before its write was invoked"
            } else {
                return None;
            };
            Some(Refutation {
                why: why.into(),
                operations: vec![write, read],
            })
        })
    }

    /// Something that shows another content while the key must have held one value.
    fn torn_hold(&self) -> Option<Refutation> {
        let mut holds: Vec<&Cluster> = self.clusters.iter().filter(|c| c.is_hold()).collect();
        holds.sort_by_key(|hold| (hold.first_return.0, hold.last_invocation.0));
        for pair in holds.windows(2) {
            if pair[1].first_return.0 < pair[0].last_invocation.0 {
                let why = "two values were each held while the other one was".into();
                let writes = [pair[0].write, pair[1].write].into_iter().flatten();
                let operations = writes.chain(pair[0].ends()).chain(pair[1].ends());
                return Some(self.refutation(why, operations));
            }
        }
        let others = self.clusters.iter().filter(|cluster| !cluster.is_hold());
        let spans = others.map(|cluster| {
            (
                cluster.last_invocation.0,
                cluster.first_return.0,
                cluster.ends().collect(),
            )
        });
        let absences = self.absences.iter().map(|at| {
            let (invoked_at, returned_at) = interval(self.operations[*at]);
            (invoked_at, returned_at, vec![*at])
        });
        for (from, to, shown_by) in spans.chain(absences) {
            let before = holds.partition_point(|hold| hold.first_return.0 < from);
            let Some(hold) = before.checked_sub(1).map(|last| holds[last]) else {
                continue;
            };
            if to < hold.last_invocation.0 {
                let why = "the key showed something else while it held a value".into();
                let operations = hold.write.into_iter().chain(hold.ends()).chain(shown_by);
                return Some(self.refutation(why, operations));
            }
        }
        None
    }

    fn refutation(&self, why: String, operations: impl Iterator<Item = usize>) -> Refutation {
        let mut operations: Vec<usize> = operations.collect();
        operations.sort_by_key(|at| (self.operations[*at].invoked_at, *at));
        operations.dedup();
        Refutation { why, operations }
    }
}
