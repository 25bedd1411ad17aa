//! The account of what clients were promised, held against what the store has in the end: for
//! runs of any length, without a history in memory.
//! Never looks at reads or at real time; the other checkers do.
//!
//! Needs a revision with every acknowledged write, values that are unique per key (a client that
//! tries again after an unknown outcome uses a new one), no expiry, and the final content of the
//! store with each key's modification revision, read after all writers stopped.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Operation, Outcome};
use crate::model::{Op, Reply};

/// What a key held when the writers had stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Final {
    /// The key.
    pub key: String,
    /// The value's id.
    pub value: u64,
    /// The revision of the write that the store says it came from.
    pub revision: u64,
}

/// Counts of an account that agrees, so that an empty one can be told from a real one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Writes of unknown outcome.
    pub unknown: u64,
    /// Keys in the account.
    pub keys: usize,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Discrepancy {
    /// The store's content is older than the last acknowledged write, or something else.
    #[error(
        "an acknowledged write was lost: {key:?} was {promised} at revision {revision}, but holds \
         {found}"
    )]
    Lost {
        /// The key.
        key: String,
        /// What the last acknowledged write made of it.
        promised: String,
        /// That write's revision.
        revision: u64,
        /// What it holds.
        found: String,
    },
    /// An acknowledged write was executed a second time.
    #[error(
        "a write was applied twice: {key:?} was set to {value} at revision {acknowledged} and \
         again at revision {again}"
    )]
    AppliedTwice {
        /// The key.
        key: String,
        /// The value's id.
        value: u64,
        /// Where it was acknowledged.
        acknowledged: u64,
        /// Where it was found.
        again: u64,
    },
    /// A value that no write of the account can have put there.
    #[error("a value appeared from nowhere: {key:?} holds {value} of revision {revision}")]
    Invented {
        /// The key.
        key: String,
        /// The value's id.
        value: u64,
        /// The revision that the store gives for it.
        revision: u64,
    },
    /// The store refused a write and executed it all the same.
    #[error("a write that was reported as not executed has run: {key:?} holds {value}")]
    RefusedButRun {
        /// The key.
        key: String,
        /// The value's id.
        value: u64,
    },
    /// Two acknowledged writes have one revision: one of them is not in the order.
    #[error("two acknowledged writes, the second on {key:?}, have revision {revision}")]
    SharedRevision {
        /// The revision.
        revision: u64,
        /// The key of one of them.
        key: String,
    },
    /// The store has executed more, or fewer, writes than were sent.
    #[error(
        "{counted} writes were executed, but {acknowledged} were acknowledged and {unknown} may \
         have run"
    )]
    Count {
        /// By the store's revisions.
        counted: u64,
        /// In the account.
        acknowledged: u64,
        /// In the account.
        unknown: u64,
    },
}

/// The account. It takes 16 bytes per acknowledged write, and more only per key and per write
/// that was not acknowledged.
#[derive(Debug, Default)]
pub struct Ledger {
    keys: BTreeMap<String, Account>,
    acknowledged: u64,
    unknown: u64,
}

/// What was promised about one key.
#[derive(Debug, Default)]
struct Account {
    /// The latest acknowledged write: its revision and the value that it left.
    last: Option<(u64, Left)>,
    /// Values and revisions of acknowledged writes.
    values: Vec<(u64, u64)>,
    /// Revisions of acknowledged deletions, and of writes whose result has no name here.
    unnamed: Vec<u64>,
    unknown_values: BTreeSet<u64>,
    refused_values: BTreeSet<u64>,
    unknown_deletion: bool,
    /// Whether the value also depends on operations that leave something unnamed.
    is_opaque: bool,
}

/// What a write left in its key.
#[derive(Clone, Copy, Debug)]
enum Left {
    Value(u64),
    Nothing,
    /// Something, but the account has no name for it.
    Unnamed,
}

impl From<Option<u64>> for Left {
    fn from(value: Option<u64>) -> Left {
        value.map_or(Left::Nothing, Left::Value)
    }
}

impl Ledger {
    /// An empty account, for a key space that has no other writer.
    pub fn new() -> Ledger {
        Ledger::default()
    }

    /// Books a write that was acknowledged with this revision; `None` is a deletion that removed
    /// something.
    pub fn acknowledged(&mut self, key: &str, value: Option<u64>, revision: u64) {
        self.book(key, value.into(), revision);
    }

    fn book(&mut self, key: &str, left: Left, revision: u64) {
        self.acknowledged += 1;
        let account = self.account(key);
        match left {
            Left::Value(value) => account.values.push((value, revision)),
            Left::Nothing | Left::Unnamed => account.unnamed.push(revision),
        }
        if account.last.is_none_or(|(last, _)| revision > last) {
            account.last = Some((revision, left));
        }
    }

    /// Books a write that may have run.
    pub fn unknown(&mut self, key: &str, value: Option<u64>) {
        self.book_unknown(key, value.into());
    }

    fn book_unknown(&mut self, key: &str, left: Left) {
        self.unknown += 1;
        let account = self.account(key);
        match left {
            Left::Value(value) => drop(account.unknown_values.insert(value)),
            Left::Nothing => account.unknown_deletion = true,
            Left::Unnamed => {}
        }
    }

    /// Books a write that the store says it did not execute.
    pub fn not_executed(&mut self, key: &str, value: Option<u64>) {
        self.account(key).refused_values.extend(value);
    }

    /// Books one operation of a history; reads, and writes without a revision, change nothing.
    /// Keys that see an APPEND or an INCR are only held to their last revision.
    pub fn record(&mut self, operation: &Operation) {
        let key = &operation.key;
        let left = match operation.op {
            Op::Set(value) => Left::Value(value),
            Op::Del => Left::Nothing,
            Op::Append(_) | Op::Incr(_) => {
                self.account(key).is_opaque = true;
                Left::Unnamed
            }
            Op::Get | Op::Exist => return,
        };
        match operation.outcome {
            Outcome::Ok {
                reply: Reply::Removed(false),
                ..
            } => {}
            Outcome::Ok { revision, .. } => {
                if let Some(revision) = revision {
                    self.book(key, left, revision);
                }
            }
            Outcome::Unknown => self.book_unknown(key, left),
            Outcome::NotExecuted => {
                if let Left::Value(value) = left {
                    self.not_executed(key, Some(value));
                }
            }
        }
    }

    fn account(&mut self, key: &str) -> &mut Account {
        // Most keys are there already, and `entry` would copy the key each time.
        if !self.keys.contains_key(key) {
            self.keys.insert(key.to_owned(), Account::default());
        }
        self.keys.get_mut(key).expect("the key was just inserted")
    }

    /// Compares the account with the whole content of the store. `counted` is by how much the
    /// store's revision grew since the account was opened, where every executed write (and
    /// nothing else) takes one revision: it also finds writes that ran twice and left no trace.
    pub fn audit(
        &self,
        content: impl IntoIterator<Item = Final>,
        counted: Option<u64>,
    ) -> Result<Audit, Discrepancy> {
        let (acknowledged, unknown) = (self.acknowledged, self.unknown);
        if let Some(counted) = counted
            && !(acknowledged..=acknowledged + unknown).contains(&counted)
        {
            return Err(Discrepancy::Count {
                counted,
                acknowledged,
                unknown,
            });
        }
        self.revisions_are_unique()?;
        let mut seen = BTreeSet::new();
        for held in content {
            match self.keys.get(&held.key) {
                Some(account) => account.compare(&held)?,
                None => return Err(held.invented()),
            }
            seen.insert(held.key);
        }
        for (key, account) in &self.keys {
            if !seen.contains(key) {
                account.compare_absent(key)?;
            }
        }
        Ok(Audit {
            acknowledged,
            unknown,
            keys: self.keys.len(),
        })
    }

    fn revisions_are_unique(&self) -> Result<(), Discrepancy> {
        let mut revisions: Vec<(u64, &str)> = Vec::new();
        for (key, account) in &self.keys {
            let named = account.values.iter().map(|(_, revision)| *revision);
            let all = named.chain(account.unnamed.iter().copied());
            revisions.extend(all.map(|revision| (revision, key.as_str())));
        }
        revisions.sort_unstable();
        match revisions.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            None => Ok(()),
            Some(pair) => {
                let (revision, key) = (pair[1].0, pair[1].1.to_owned());
                Err(Discrepancy::SharedRevision { revision, key })
            }
        }
    }
}

impl Final {
    fn invented(&self) -> Discrepancy {
        let Final {
            key,
            value,
            revision,
        } = self.clone();
        Discrepancy::Invented {
            key,
            value,
            revision,
        }
    }
}

impl Account {
    fn compare(&self, held: &Final) -> Result<(), Discrepancy> {
        let Final {
            key,
            value,
            revision,
        } = held;
        let last = self.last.map_or(0, |(last, _)| last);
        if self.refused_values.contains(value) {
            return Err(Discrepancy::RefusedButRun {
                key: key.clone(),
                value: *value,
            });
        }
        if *revision < last {
            return Err(self.lost(key, format!("{value} of revision {revision}")));
        }
        if self.is_opaque {
            return Ok(());
        }
        let acknowledged = self
            .values
            .iter()
            .find(|(acknowledged, _)| acknowledged == value);
        match acknowledged {
            Some((_, at)) if at == revision => Ok(()),
            Some((_, at)) => Err(Discrepancy::AppliedTwice {
                key: key.clone(),
                value: *value,
                acknowledged: *at,
                again: *revision,
            }),
            None if *revision == last && self.last.is_some() => {
                Err(self.lost(key, format!("{value} of revision {revision}")))
            }
            None if self.unknown_values.contains(value) => Ok(()),
            None => Err(held.invented()),
        }
    }

    fn compare_absent(&self, key: &str) -> Result<(), Discrepancy> {
        match self.last {
            Some((_, Left::Value(_) | Left::Unnamed)) if !self.unknown_deletion => {
                Err(self.lost(key, "nothing".into()))
            }
            _ => Ok(()),
        }
    }

    fn lost(&self, key: &str, found: String) -> Discrepancy {
        let (revision, left) = self.last.unwrap_or((0, Left::Nothing));
        let promised = match left {
            Left::Value(value) => format!("set to {value}"),
            Left::Nothing => "deleted".into(),
            Left::Unnamed => "written".into(),
        };
        Discrepancy::Lost {
            key: key.into(),
            promised,
            revision,
            found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(key: &str, value: u64, revision: u64) -> Final {
        Final {
            key: key.into(),
            value,
            revision,
        }
    }

    /// a: 1, then 2; b: 3, then deleted; c: perhaps 4; d: 5 refused; e: 6, perhaps deleted.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new();
        ledger.acknowledged("a", Some(1), 10);
        ledger.acknowledged("a", Some(2), 12);
        ledger.acknowledged("b", Some(3), 11);
        ledger.acknowledged("b", None, 14);
        ledger.unknown("c", Some(4));
        ledger.not_executed("d", Some(5));
        ledger.acknowledged("e", Some(6), 13);
        ledger.unknown("e", None);
        ledger
    }

    fn audit(content: &[Final], counted: Option<u64>) -> Result<Audit, Discrepancy> {
        ledger().audit(content.iter().cloned(), counted)
    }

    #[test]
    fn what_was_promised_is_accepted_with_and_without_unknown_writes() {
        let expected = Audit {
            acknowledged: 5,
            unknown: 2,
            keys: 5,
        };
        let without = [held("a", 2, 12), held("e", 6, 13)];
        assert_eq!(audit(&without, Some(5)), Ok(expected));
        assert_eq!(
            audit(&[held("a", 2, 12), held("c", 4, 15)], Some(7)),
            Ok(expected)
        );
    }

    #[test]
    fn lost_writes_are_found() {
        let lost =
            |content: &[Final]| matches!(audit(content, None), Err(Discrepancy::Lost { .. }));
        assert!(lost(&[]));
        assert!(lost(&[held("a", 1, 10)]));
        assert!(lost(&[held("a", 9, 12)]));
        assert!(lost(&[held("a", 2, 12), held("b", 3, 11)]));
    }

    #[test]
    fn doubled_invented_and_refused_writes_are_found() {
        let twice = audit(&[held("a", 1, 16)], None);
        assert!(matches!(
            twice,
            Err(Discrepancy::AppliedTwice {
                acknowledged: 10,
                again: 16,
                ..
            })
        ));
        let invented = audit(&[held("a", 9, 16)], None);
        assert!(matches!(
            invented,
            Err(Discrepancy::Invented { value: 9, .. })
        ));
        let stranger = audit(&[held("z", 1, 16)], None);
        assert!(matches!(stranger, Err(Discrepancy::Invented { .. })));
        let refused = audit(&[held("a", 2, 12), held("d", 5, 15)], None);
        assert!(matches!(
            refused,
            Err(Discrepancy::RefusedButRun { value: 5, .. })
        ));
    }

    #[test]
    fn revisions_and_their_number_must_agree() {
        let content = [held("a", 2, 12), held("e", 6, 13)];
        for counted in [4, 8] {
            assert!(matches!(
                audit(&content, Some(counted)),
                Err(Discrepancy::Count { .. })
            ));
        }
        let mut shared = ledger();
        shared.acknowledged("f", Some(7), 12);
        let result = shared.audit(content, None);
        assert!(matches!(
            result,
            Err(Discrepancy::SharedRevision { revision: 12, .. })
        ));
    }

    #[test]
    fn counters_are_held_to_their_last_revision() {
        let increment = |revision| Operation {
            process: 0,
            key: "n".into(),
            op: Op::Incr(1),
            invoked_at: 0,
            outcome: Outcome::Ok {
                reply: Reply::Number(1),
                returned_at: 1,
                revision,
            },
        };
        let mut ledger = Ledger::new();
        [Some(1), Some(2)]
            .into_iter()
            .for_each(|at| ledger.record(&increment(at)));
        assert!(ledger.audit([held("n", 2, 2)], Some(2)).is_ok());
        for lost in [vec![held("n", 1, 1)], vec![]] {
            assert!(matches!(
                ledger.audit(lost, None),
                Err(Discrepancy::Lost { .. })
            ));
        }
    }
}
