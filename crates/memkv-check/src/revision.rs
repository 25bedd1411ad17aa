//! The check of histories whose replies carry the store's revision, the cluster-wide order of
//! writes. Nothing is searched, only compared, so millions of operations can be checked,
//! and in real time across keys too.
//! Never trusts revisions: they must be unique for writes and agree with real time, and every
//! reply must be what the model answers in their order.
//!
//! An operation of unknown outcome has no revision. It may stand between any two revisions that
//! real time allows, and the search of `search.rs` finds out whether it has to; without
//! such operations the check takes O(n log n).

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use crate::failure::{Coverage, Failure, Witness, quote};
use crate::history::{Operation, Outcome};
use crate::model::Model;
use crate::search::{Budget, Found, Span, Stuck, search};
use crate::wgl::survey;

/// Decides whether the history is what a store did that executed all writes in the order of
/// their revisions, each between its invocation and its return, and answered every other
/// operation in the state at its revision.
///
/// Every answered operation must carry a revision: a write its own, any other the latest one
/// of the whole store that it saw (which may be that of a write on another key).
pub fn check<M: Model>(
    model: &M,
    history: &[Operation<M::Op, M::Reply>],
    budget: &Budget,
) -> Result<Coverage, Failure> {
    let mut coverage = survey(history)?;
    let entries = in_revision_order(model, history)?;
    writes_are_unique(history, &entries)?;
    agrees_with_real_time(history, &entries)?;
    let limits = Limits::new(&entries);

    let keys = partition(model, history, &entries);
    coverage.keys = keys.len();
    let deadline = budget.time.map(|time| Instant::now() + time);
    let mut undecided = None;
    for (key, OfKey { answered, unknown }) in keys {
        let replay = Replay {
            model,
            history,
            answered: &answered,
        };
        let (result, steps) = replay.check(key, &unknown, &limits, budget.steps, deadline);
        coverage.steps += steps;
        match result {
            Err(failure @ Failure::Undecided { .. }) => undecided = undecided.or(Some(failure)),
            result => result?,
        }
    }
    undecided.map_or(Ok(coverage), Err)
}

/// An answered operation's place in the order.
#[derive(Clone, Copy)]
struct Entry {
    revision: u64,
    is_write: bool,
    invoked_at: u64,
    returned_at: u64,
    /// In the history.
    position: usize,
}

/// The answered operations by revision; a read comes after the write that it saw.
fn in_revision_order<M: Model>(
    model: &M,
    history: &[Operation<M::Op, M::Reply>],
) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::with_capacity(history.len());
    for (position, operation) in history.iter().enumerate() {
        let Outcome::Ok {
            reply,
            returned_at,
            revision,
        } = &operation.outcome
        else {
            continue;
        };
        let Some(revision) = *revision else {
            let problem = format!("{operation} carries no revision");
            return Err(Failure::Malformed { problem });
        };
        let is_write = model.is_write(&operation.op, Some(reply));
        let (invoked_at, returned_at) = (operation.invoked_at, *returned_at);
        entries.push(Entry {
            revision,
            is_write,
            invoked_at,
            returned_at,
            position,
        });
    }
    entries.sort_unstable_by_key(|e| (e.revision, !e.is_write, e.invoked_at, e.position));
    Ok(entries)
}

fn writes_are_unique<O, R>(history: &[Operation<O, R>], entries: &[Entry]) -> Result<(), Failure>
where
    Operation<O, R>: ToString,
{
    let shared = |pair: &&[Entry]| pair[0].revision == pair[1].revision && pair[1].is_write;
    match entries.windows(2).find(shared) {
        None => Ok(()),
        Some(pair) => Err(Failure::SharedRevision {
            revision: pair[0].revision,
            first: history[pair[0].position].to_string(),
            second: history[pair[1].position].to_string(),
        }),
    }
}

/// An operation that had returned before another was invoked must come before it in the order.
fn agrees_with_real_time<O, R>(
    history: &[Operation<O, R>],
    entries: &[Entry],
) -> Result<(), Failure>
where
    Operation<O, R>: ToString,
{
    let mut by_invocation = entries.to_vec();
    by_invocation.sort_unstable_by_key(|entry| entry.invoked_at);
    let mut by_return = entries.to_vec();
    by_return.sort_unstable_by_key(|entry| entry.returned_at);

    let mut returned = by_return.into_iter().peekable();
    let mut newest: Option<Entry> = None;
    for later in by_invocation {
        while let Some(entry) = returned.next_if(|e| e.returned_at < later.invoked_at) {
            if newest.is_none_or(|newest| entry.revision > newest.revision) {
                newest = Some(entry);
            }
        }
        let Some(earlier) = newest else { continue };
        if later.revision < earlier.revision + u64::from(later.is_write) {
            return Err(Failure::RevisionOrder {
                earlier: history[earlier.position].to_string(),
                later: history[later.position].to_string(),
            });
        }
    }
    Ok(())
}

/// For each revision, when the first operation at or after it had returned: an operation that
/// was invoked later than that cannot come before the revision.
struct Limits {
    /// By revision; the earliest return from there to the end.
    earliest_return: Vec<(u64, u64)>,
}

impl Limits {
    fn new(entries: &[Entry]) -> Limits {
        let mut earliest = u64::MAX;
        let mut earliest_return: Vec<(u64, u64)> = Vec::with_capacity(entries.len());
        for entry in entries.iter().rev() {
            earliest = earliest.min(entry.returned_at);
            earliest_return.push((entry.revision, earliest));
        }
        earliest_return.reverse();
        Limits { earliest_return }
    }

    fn before(&self, revision: u64) -> u64 {
        let first = self
            .earliest_return
            .partition_point(|(at, _)| *at < revision);
        self.earliest_return
            .get(first)
            .map_or(u64::MAX, |(_, limit)| *limit)
    }
}

/// The operations on one key.
#[derive(Default)]
struct OfKey {
    /// In revision order.
    answered: Vec<Entry>,
    /// Positions of operations of unknown outcome that may have written.
    unknown: Vec<usize>,
}

fn partition<'a, M: Model>(
    model: &M,
    history: &'a [Operation<M::Op, M::Reply>],
    entries: &[Entry],
) -> BTreeMap<&'a str, OfKey> {
    let mut keys: BTreeMap<&str, OfKey> = BTreeMap::new();
    for (position, operation) in history.iter().enumerate() {
        let of_key = keys.entry(&operation.key).or_default();
        if matches!(operation.outcome, Outcome::Unknown) && model.is_write(&operation.op, None) {
            of_key.unknown.push(position);
        }
    }
    for entry in entries {
        let key = history[entry.position].key.as_str();
        keys.entry(key).or_default().answered.push(*entry);
    }
    keys
}

/// The model of the search: all operations with one revision are a single step, since no other
/// write can come between them.
struct Replay<'a, M: Model> {
    model: &'a M,
    history: &'a [Operation<M::Op, M::Reply>],
    answered: &'a [Entry],
}

/// A step of [`Replay`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// These answered operations.
    Answered { from: usize, to: usize },
    /// An operation like the one at this position of the history.
    Unknown { like: usize },
}

impl<M: Model> Model for Replay<'_, M> {
    type Op = Step;
    type Reply = ();
    type State = M::State;

    fn initial(&self) -> M::State {
        self.model.initial()
    }

    fn step(&self, state: &M::State, step: &Step, _reply: Option<&()>) -> Option<M::State> {
        match *step {
            Step::Answered { from, to } => {
                self.answered[from..to]
                    .iter()
                    .try_fold(state.clone(), |state, entry| {
                        let operation = &self.history[entry.position];
                        self.model.step(&state, &operation.op, operation.reply())
                    })
            }
            Step::Unknown { like } => self.model.step(state, &self.history[like].op, None),
        }
    }

    fn is_write(&self, _step: &Step, _reply: Option<&()>) -> bool {
        true
    }
}

impl<M: Model> Replay<'_, M> {
    fn check(
        &self,
        key: &str,
        unknown: &[usize],
        limits: &Limits,
        steps: u64,
        deadline: Option<Instant>,
    ) -> (Result<(), Failure>, u64) {
        let mut ordered = Vec::new();
        let mut group_limits = Vec::new();
        let mut from = 0;
        for group in self.answered.chunk_by(|a, b| a.revision == b.revision) {
            let to = from + group.len();
            group_limits.push(limits.before(group[0].revision));
            ordered.push(Step::Answered { from, to });
            from = to;
        }
        let mut first_like = HashMap::new();
        let optional: Vec<Step> = unknown
            .iter()
            .map(|at| Step::Unknown {
                like: *first_like.entry(&self.history[*at].op).or_insert(*at),
            })
            .collect();

        // Positions in the order stand for time; each step is over before the next one begins.
        let time_of = |at: usize| 2 * at as u64;
        let spans = ordered.iter().enumerate().map(|(at, op)| Span {
            op,
            reply: Some(&()),
            invoked_at: time_of(at),
            returned_at: Some(time_of(at) + 1),
        });
        let optional = optional.iter().zip(unknown).map(|(op, position)| {
            let invoked_at = self.history[*position].invoked_at;
            let first = group_limits.partition_point(|limit| *limit < invoked_at);
            Span {
                op,
                reply: None,
                invoked_at: time_of(first),
                returned_at: None,
            }
        });
        let spans: Vec<Span<'_, Self>> = spans.chain(optional).collect();
        let (found, steps) = search(self, &spans, steps, deadline);
        let result = match found {
            Found::Linearizable => Ok(()),
            Found::OutOfBudget => Err(Failure::Undecided {
                key: key.into(),
                steps,
            }),
            Found::Stuck(stuck) => Err(self.stuck(key, &spans, unknown, &stuck)),
        };
        (result, steps)
    }

    fn stuck(
        &self,
        key: &str,
        spans: &[Span<'_, Self>],
        unknown: &[usize],
        stuck: &Stuck,
    ) -> Failure {
        let ordered = spans.len() - unknown.len();
        let positions = |at: usize| match spans[at].op {
            Step::Answered { from, to } => self.answered[*from..*to]
                .iter()
                .map(|entry| entry.position)
                .collect(),
            Step::Unknown { .. } => vec![unknown[at - ordered]],
        };
        let quoted = |positions: &[usize]| -> Vec<String> {
            positions
                .iter()
                .map(|at| self.history[*at].to_string())
                .collect()
        };
        let mut text = format!(
            "key {key:?} is wrong: in revision order, and wherever the {} operations of unknown \
             outcome are put, nothing explains",
            unknown.len()
        );
        quote(&mut text, &quoted(&positions(stuck.failing)), SHOWN);
        text.push_str("\nafter");
        let explained: Vec<usize> = stuck
            .explained
            .iter()
            .flat_map(|at| positions(*at))
            .collect();
        quote(&mut text, &quoted(&explained), SHOWN);
        text.push_str(&format!("\nwhich leave {}", stuck.state));
        let before = (0..=stuck.failing).flat_map(positions);
        let operations = before.chain(unknown.iter().copied()).collect();
        Failure::NotLinearizable(Box::new(Witness {
            key: key.into(),
            operations,
            text,
        }))
    }
}

/// Operations quoted of each kind; one revision may have been read by any number of clients.
const SHOWN: usize = 16;
