//! The linearizability check of a whole history, key by key (linearizability is a property of
//! each key by itself: Herlihy and Wing, 1990, theorem 1).
//! Never needs revisions or the store's help; see `search.rs` for the search.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::failure::{Coverage, Failure, Witness, quote};
use crate::history::{Operation, Outcome};
use crate::model::{Model, Refutation};
use crate::search::{Budget, Found, Span, Stuck, search};

/// Decides whether the history is linearizable with respect to `model`.
///
/// Operations that were not executed are left out, so that a reply which shows their effect
/// cannot be explained. The first key (in byte order) with a proven violation is reported;
/// [`Failure::Undecided`] only if no key has one.
pub fn check<M: Model>(
    model: &M,
    history: &[Operation<M::Op, M::Reply>],
    budget: &Budget,
) -> Result<Coverage, Failure> {
    let mut coverage = survey(history)?;
    let deadline = budget.time.map(|time| Instant::now() + time);
    let mut undecided = None;
    let keys = partition(history);
    coverage.keys = keys.len();
    for (key, positions) in keys {
        let of_key = OfKey {
            model,
            history,
            key,
            positions,
        };
        let (result, steps) = of_key.check(budget.steps, deadline);
        coverage.steps += steps;
        match result {
            Err(failure @ Failure::Undecided { .. }) => undecided = undecided.or(Some(failure)),
            result => result?,
        }
    }
    undecided.map_or(Ok(coverage), Err)
}

/// Counts the outcomes and rejects operations that cannot have been recorded.
pub(crate) fn survey<O: std::fmt::Debug, R: std::fmt::Debug>(
    history: &[Operation<O, R>],
) -> Result<Coverage, Failure> {
    let mut coverage = Coverage::default();
    for operation in history {
        match operation.outcome {
            Outcome::Ok { returned_at, .. } if returned_at < operation.invoked_at => {
                let problem = format!("{operation} returned before it was invoked");
                return Err(Failure::Malformed { problem });
            }
            Outcome::Ok { .. } => coverage.answered += 1,
            Outcome::Unknown => coverage.unknown += 1,
            Outcome::NotExecuted => coverage.not_executed += 1,
        }
    }
    Ok(coverage)
}

/// The positions of each key's operations.
fn partition<O, R>(history: &[Operation<O, R>]) -> BTreeMap<&str, Vec<usize>> {
    let mut keys: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (position, operation) in history.iter().enumerate() {
        keys.entry(&operation.key).or_default().push(position);
    }
    keys
}

struct OfKey<'a, M: Model> {
    model: &'a M,
    history: &'a [Operation<M::Op, M::Reply>],
    key: &'a str,
    positions: Vec<usize>,
}

impl<M: Model> OfKey<'_, M> {
    fn check(&self, steps: u64, deadline: Option<Instant>) -> (Result<(), Failure>, u64) {
        let operations: Vec<_> = self.positions.iter().map(|at| &self.history[*at]).collect();
        if let Some(refutation) = self.model.refute(&operations) {
            return (Err(self.refuted(&refutation)), 0);
        }
        let ops = self.model.simplified(&operations);
        let relevant = self.positions.iter().zip(&ops);
        let (positions, spans): (Vec<usize>, Vec<Span<'_, M>>) = relevant
            .filter_map(|(at, op)| Some((*at, self.span(*at, op)?)))
            .unzip();
        let (found, steps) = search(self.model, &spans, steps, deadline);
        let result = match found {
            Found::Linearizable => Ok(()),
            Found::OutOfBudget => Err(Failure::Undecided {
                key: self.key.into(),
                steps,
            }),
            Found::Stuck(stuck) => Err(self.stuck(&positions, &stuck)),
        };
        (result, steps)
    }

    /// The operation as the search sees it; `None` if it can have had no effect.
    fn span<'s>(&'s self, position: usize, op: &'s M::Op) -> Option<Span<'s, M>> {
        let Operation {
            invoked_at,
            outcome,
            ..
        } = &self.history[position];
        let (reply, returned_at) = match outcome {
            Outcome::Ok {
                reply, returned_at, ..
            } => (Some(reply), Some(*returned_at)),
            Outcome::Unknown if self.model.is_write(op, None) => (None, None),
            Outcome::Unknown | Outcome::NotExecuted => return None,
        };
        Some(Span {
            op,
            reply,
            invoked_at: *invoked_at,
            returned_at,
        })
    }

    fn quoted(&self, positions: &[usize]) -> Vec<String> {
        positions
            .iter()
            .map(|at| self.history[*at].to_string())
            .collect()
    }

    fn refuted(&self, refutation: &Refutation) -> Failure {
        let operations: Vec<usize> = refutation
            .operations
            .iter()
            .map(|at| self.positions[*at])
            .collect();
        let mut text = format!("key {:?} is not linearizable: {}", self.key, refutation.why);
        quote(&mut text, &self.quoted(&operations), usize::MAX);
        Failure::NotLinearizable(Box::new(Witness {
            key: self.key.into(),
            operations,
            text,
        }))
    }

    /// The shortest failing prefix: the operations that were invoked before the return that no order
    /// gets past.
    fn stuck(&self, positions: &[usize], stuck: &Stuck) -> Failure {
        let failing_at = positions[stuck.failing];
        let failing = &self.history[failing_at];
        let explained: Vec<usize> = stuck.explained.iter().map(|at| positions[*at]).collect();
        let mut operations: Vec<usize> = positions.to_vec();
        operations.retain(|at| Some(self.history[*at].invoked_at) <= failing.returned_at());
        operations.sort_by_key(|at| self.history[*at].invoked_at);

        let mut text = format!(
            "key {:?} is not linearizable: no order of the {} operations invoked before this \
             reply explains it\n  {failing}\nan order that explains the others ends with",
            self.key,
            operations.len(),
        );
        quote(&mut text, &self.quoted(&explained), usize::MAX);
        text.push_str(&format!(
            "\nand leaves {}; in flight with the failing one were",
            stuck.state
        ));
        let in_flight = |at: &usize| {
            let other = &self.history[*at];
            *at != failing_at
                && other
                    .returned_at()
                    .is_none_or(|end| end >= failing.invoked_at)
        };
        let in_flight: Vec<usize> = operations.iter().copied().filter(in_flight).collect();
        quote(&mut text, &self.quoted(&in_flight), IN_FLIGHT_SHOWN);
        Failure::NotLinearizable(Box::new(Witness {
            key: self.key.into(),
            operations,
            text,
        }))
    }
}

/// Concurrent operations shown in a report; a failure with more clients is read from the dump.
const IN_FLIGHT_SHOWN: usize = 16;
