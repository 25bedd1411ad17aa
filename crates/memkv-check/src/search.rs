//! Depth-first search for a linearization of the operations on one key: Wing and Gong, "Testing
//! and verifying concurrent objects" (1993), with Lowe's cache of configurations ("Testing for
//! linearizability", 2017). Never recurses and never looks at more than one key.
//!
//! Completed operations stand in a [`Timeline`]; the ones before its first return are the
//! candidates for being next. Operations of unknown outcome are optional, may come at any time
//! after their invocation, and would double the search each. They are therefore used as late as
//! possible: only once no candidate fits, and only if they make a difference to the next one.
//!
//! Invariant (why that is complete): let a *chain* be unknown operations in a row, after the
//! state `base`. If the operation after a chain leaves the same state without it, dropping the
//! chain leaves a valid order; if it reads both states, it may go before the chain. Either makes
//! the order smaller by a well-founded measure (unknown operations used, then how early), as does
//! taking the older of two equal unknown operations first, and taking an operation that only
//! reads as soon as it fits. So if there is any valid order, there is one in which none of this is
//! possible, and the search leaves out only the others.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::time::{Duration, Instant};

use crate::lookahead::Lookahead;
use crate::model::Model;
use crate::timeline::{Bits, Node, Timeline};

/// How much search a check may do before it answers "undecided".
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Steps per key. A step takes some 100 ns, and at most 150 bytes until the key is decided.
    pub steps: u64,
    /// Time for the whole check; `None` (the default) keeps verdicts reproducible.
    pub time: Option<Duration>,
}

impl Default for Budget {
    /// Ten million steps: at most a few seconds and 1.5 GB, and a hundred times what a healthy
    /// history of 10,000 operations on one key needs.
    fn default() -> Self {
        Budget {
            steps: 10_000_000,
            time: None,
        }
    }
}

/// An operation as the search sees it. Without `returned_at` it is of unknown outcome.
pub(crate) struct Span<'a, M: Model> {
    pub(crate) op: &'a M::Op,
    pub(crate) reply: Option<&'a M::Reply>,
    pub(crate) invoked_at: u64,
    pub(crate) returned_at: Option<u64>,
}

/// The result of the search; operations are given as positions in its input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Linearizable,
    Stuck(Stuck),
    OutOfBudget,
}

/// The furthest point that any order reaches.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stuck {
    /// The operation whose return no order gets past.
    pub(crate) failing: usize,
    /// The last operations of one order that gets that far (at most [`EXPLAINED`]).
    pub(crate) explained: Vec<usize>,
    /// The key's state at that point.
    pub(crate) state: String,
}

/// How many operations of a partial order are kept for the report: enough to see what led to the
/// state, and little to copy whenever the search gets further.
const EXPLAINED: usize = 8;

/// How many steps lie between two looks at the clock (a look costs as much as a step).
const STEPS_PER_LOOK: u64 = 1_024;

/// How long chains may be, in rounds: one or two unknown operations in a row explain nearly
/// everything, and looking for longer chains first would mean to try all of their permutations.
const CHAIN_LIMITS: [usize; 4] = [1, 2, 4, usize::MAX];

/// Searches for a valid order. Returns also the number of steps taken.
pub(crate) fn search<M: Model>(
    model: &M,
    spans: &[Span<'_, M>],
    steps: u64,
    deadline: Option<Instant>,
) -> (Found, u64) {
    let mut taken = 0;
    let mut limits = CHAIN_LIMITS.into_iter();
    loop {
        let chain_limit = limits.next().expect("the last limit is never met");
        let mut search = Search::new(model, spans, chain_limit);
        let found = search.run(steps - taken, deadline);
        taken += search.steps;
        if !(search.met_limit && matches!(found, Found::Stuck(_))) {
            return (found, taken);
        }
    }
}

struct Search<'a, 'm, M: Model> {
    model: &'m M,
    spans: &'a [Span<'a, M>],
    /// Positions of completed operations, by invocation.
    completed: Vec<usize>,
    /// Which of `completed` changed nothing.
    only_reads: Vec<bool>,
    timeline: Timeline,
    /// Positions of operations of unknown outcome, by invocation.
    unknown: Vec<usize>,
    /// For each of `unknown`, the latest older one with the same operation.
    twin: Vec<Option<usize>>,
    /// The linearized operations, as indices into `completed` and `unknown`.
    done: Bits,
    used: Bits,
    lookahead: Lookahead<M::State>,
    /// How many completed operations are not linearized yet.
    open: usize,
    state: M::State,
    /// The state before the chain, while in one.
    base: Option<M::State>,
    stack: Vec<Frame<M::State>>,
    seen: HashSet<Configuration<M::State>>,
    steps: u64,
    chain_limit: usize,
    /// Whether a chain was cut short.
    met_limit: bool,
    furthest: Option<(Node, Stuck)>,
}

/// The configuration: it determines everything that can follow.
#[derive(PartialEq, Eq, Hash)]
struct Configuration<S> {
    linearized: Box<[u64]>,
    state: S,
    base: Option<S>,
}

/// A choice that can be taken back, with the state that it replaced.
struct Frame<S> {
    choice: Choice,
    state: S,
    base: Option<S>,
}

/// The operation to linearize next: indices into `completed` or `unknown`.
#[derive(Clone, Copy)]
enum Choice {
    /// Has no alternatives.
    Read(usize),
    Write(usize),
    Unknown {
        index: usize,
        barrier: Node,
    },
}

/// The next candidates to try.
#[derive(Clone, Copy)]
enum Cursor {
    Reads(Node),
    /// No candidate that only reads fits.
    Writes(Node),
    /// No candidate before the return at `barrier` leads on.
    Unknown {
        index: usize,
        barrier: Node,
    },
}

impl<'a, 'm, M: Model> Search<'a, 'm, M> {
    fn new(model: &'m M, spans: &'a [Span<'a, M>], chain_limit: usize) -> Self {
        let mut by_invocation: Vec<usize> = (0..spans.len()).collect();
        by_invocation.sort_by_key(|position| spans[*position].invoked_at);
        let (completed, unknown): (Vec<usize>, Vec<usize>) = by_invocation
            .into_iter()
            .partition(|at| spans[*at].returned_at.is_some());
        let times = completed.iter().filter_map(|position| {
            let span = &spans[*position];
            span.returned_at
                .map(|returned_at| (span.invoked_at, returned_at))
        });
        let timeline = Timeline::new(times);
        let is_read = |at: &usize| !model.is_write(spans[*at].op, spans[*at].reply);
        let mut latest = HashMap::new();
        let twin = unknown.iter().enumerate();
        let twin = twin
            .map(|(index, at)| latest.insert(spans[*at].op, index))
            .collect();
        Search {
            model,
            spans,
            only_reads: completed.iter().map(is_read).collect(),
            timeline,
            twin,
            done: Bits::new(completed.len()),
            used: Bits::new(unknown.len()),
            lookahead: Lookahead::new(model, spans),
            open: completed.len(),
            completed,
            unknown,
            state: model.initial(),
            base: None,
            stack: Vec::new(),
            seen: HashSet::new(),
            steps: 0,
            chain_limit,
            met_limit: false,
            furthest: None,
        }
    }

    fn run(&mut self, steps: u64, deadline: Option<Instant>) -> Found {
        let mut cursor = Some(self.fresh());
        while self.open > 0 {
            let look = self.steps.is_multiple_of(STEPS_PER_LOOK);
            if self.steps == steps || (look && deadline.is_some_and(|at| Instant::now() >= at)) {
                return Found::OutOfBudget;
            }
            self.steps += 1;
            cursor = match cursor {
                Some(cursor) => self.advance(cursor),
                None if self.stack.is_empty() => return self.stuck(),
                None => self.take_back(),
            };
        }
        Found::Linearizable
    }

    /// Where to begin after a choice.
    fn fresh(&self) -> Cursor {
        Cursor::Reads(self.timeline.first())
    }

    /// Tries one thing; `None` if there is nothing left to try here.
    fn advance(&mut self, cursor: Cursor) -> Option<Cursor> {
        let (chosen, next) = match cursor {
            Cursor::Reads(node) => match self.timeline.call_at(node) {
                Some(index) => (
                    self.try_read(index),
                    Cursor::Reads(self.timeline.after(node)),
                ),
                None => (false, Cursor::Writes(self.timeline.first())),
            },
            Cursor::Writes(node) => match self.timeline.call_at(node) {
                Some(index) => (
                    self.try_write(index),
                    Cursor::Writes(self.timeline.after(node)),
                ),
                None => {
                    self.note(node);
                    (
                        false,
                        Cursor::Unknown {
                            index: 0,
                            barrier: node,
                        },
                    )
                }
            },
            Cursor::Unknown { index, barrier } => {
                let invoked_at = self.spans[*self.unknown.get(index)?].invoked_at;
                if invoked_at > self.timeline.time(barrier) {
                    return None;
                }
                let choice = Choice::Unknown { index, barrier };
                let next = Cursor::Unknown {
                    index: index + 1,
                    barrier,
                };
                (self.try_unknown(index, choice), next)
            }
        };
        Some(if chosen { self.fresh() } else { next })
    }

    /// Takes a candidate that only reads, if it fits.
    fn try_read(&mut self, index: usize) -> bool {
        self.only_reads[index]
            && self
                .after(index)
                .is_some_and(|next| self.choose(Choice::Read(index), next, None))
    }

    /// Takes a candidate that writes, if it fits.
    fn try_write(&mut self, index: usize) -> bool {
        !self.only_reads[index]
            && self
                .after(index)
                .is_some_and(|next| self.choose(Choice::Write(index), next, None))
    }

    /// The state after a candidate; `None` if it does not fit, or if the chain makes no
    /// difference to it.
    fn after(&self, index: usize) -> Option<M::State> {
        let span = &self.spans[self.completed[index]];
        let step = |state: &M::State| self.model.step(state, span.op, span.reply);
        let next = step(&self.state)?;
        if let Some(base) = &self.base
            && let Some(without_chain) = step(base)
            && (without_chain == next || (without_chain == *base && next == self.state))
        {
            return None;
        }
        Some(next)
    }

    /// Makes an unknown operation the next one of a chain, if that can be of use.
    fn try_unknown(&mut self, index: usize, choice: Choice) -> bool {
        if self.used.get(index) || self.twin[index].is_some_and(|twin| !self.used.get(twin)) {
            return false;
        }
        let op = self.spans[self.unknown[index]].op;
        let Some(next) = self.model.step(&self.state, op, None) else {
            return false;
        };
        let base = self.base.as_ref().unwrap_or(&self.state);
        let makes_chain_idle =
            self.base.is_some() && self.model.step(base, op, None).as_ref() == Some(&next);
        if next == self.state || next == *base || makes_chain_idle {
            return false;
        }
        let in_chain = |frame: &&Frame<_>| matches!(frame.choice, Choice::Unknown { .. });
        if self.stack.iter().rev().take_while(in_chain).count() >= self.chain_limit {
            self.met_limit = true;
            return false;
        }
        let base = base.clone();
        self.choose(choice, next, Some(base))
    }

    /// Makes a choice, unless it leads nowhere or to a configuration that the search has visited.
    fn choose(&mut self, choice: Choice, next: M::State, base: Option<M::State>) -> bool {
        self.linearize(choice);
        let leaves_for_good = next != self.state && self.lookahead.is_last_chance(&self.state);
        // A read needs no place in the cache: what comes after it has one.
        let is_read = matches!(choice, Choice::Read(_));
        if leaves_for_good || !(is_read || self.is_new(&next, base.as_ref())) {
            self.undo(choice);
            return false;
        }
        let state = mem::replace(&mut self.state, next);
        let base = mem::replace(&mut self.base, base);
        self.stack.push(Frame {
            choice,
            state,
            base,
        });
        true
    }

    /// Undoes the last choice and points behind it; `None` if it had no alternatives.
    fn take_back(&mut self) -> Option<Cursor> {
        let Frame {
            choice,
            state,
            base,
        } = self.stack.pop()?;
        self.state = state;
        self.base = base;
        self.undo(choice)
    }

    fn linearize(&mut self, choice: Choice) {
        self.lookahead.take(self.position(choice));
        match choice {
            Choice::Read(index) | Choice::Write(index) => {
                self.done.set(index);
                self.timeline.lift(index);
                self.open -= 1;
            }
            Choice::Unknown { index, .. } => self.used.set(index),
        }
    }

    fn undo(&mut self, choice: Choice) -> Option<Cursor> {
        self.lookahead.put_back(self.position(choice));
        match choice {
            Choice::Read(index) | Choice::Write(index) => {
                self.done.clear(index);
                self.open += 1;
                let after = self.timeline.unlift(index);
                matches!(choice, Choice::Write(_)).then_some(Cursor::Writes(after))
            }
            Choice::Unknown { index, barrier } => {
                self.used.clear(index);
                Some(Cursor::Unknown {
                    index: index + 1,
                    barrier,
                })
            }
        }
    }

    /// The operation's position in the input.
    fn position(&self, choice: Choice) -> usize {
        match choice {
            Choice::Read(index) | Choice::Write(index) => self.completed[index],
            Choice::Unknown { index, .. } => self.unknown[index],
        }
    }

    /// Whether the configuration that `done` and `used` make with these states is met for the
    /// first time; the cache remembers it.
    fn is_new(&mut self, state: &M::State, base: Option<&M::State>) -> bool {
        let mut linearized = Vec::with_capacity(self.done.key_len() + self.used.key_len());
        self.done.write_key(&mut linearized);
        self.used.write_key(&mut linearized);
        let linearized = linearized.into_boxed_slice();
        self.seen.insert(Configuration {
            linearized,
            state: state.clone(),
            base: base.cloned(),
        })
    }

    /// Remembers how the search got to this return, if it never got as far.
    fn note(&mut self, barrier: Node) {
        if self
            .furthest
            .as_ref()
            .is_some_and(|(node, _)| *node >= barrier)
        {
            return;
        }
        let last = &self.stack[self.stack.len().saturating_sub(EXPLAINED)..];
        let stuck = Stuck {
            failing: self.completed[self.timeline.owner(barrier)],
            explained: last
                .iter()
                .map(|frame| self.position(frame.choice))
                .collect(),
            state: format!("{:?}", self.state),
        };
        self.furthest = Some((barrier, stuck));
    }

    fn stuck(&mut self) -> Found {
        let (_, stuck) = self
            .furthest
            .take()
            .expect("a search that fails has met a return");
        Found::Stuck(stuck)
    }
}
