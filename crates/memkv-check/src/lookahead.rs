//! Looks ahead for the search: some replies are possible in one state only, and a state that is
//! left for good makes those that still wait for it impossible.
//! Never decides more than that; without hints from the model it decides nothing.

use std::collections::HashMap;

use crate::model::Model;
use crate::search::Span;

/// For each state that a reply depends on, how many operations that are not linearized yet need
/// it, and how many can bring it about.
pub(crate) struct Lookahead<S> {
    slots: HashMap<S, usize>,
    needed: Vec<u32>,
    supplied: Vec<u32>,
    /// Operations that may leave any state.
    unforeseeable: u32,
    /// By position in the search's input.
    roles: Vec<Role>,
}

/// The relation of an operation to the states.
#[derive(Clone, Copy)]
struct Role {
    requires: Option<usize>,
    leaves: Leaves,
}

#[derive(Clone, Copy)]
enum Leaves {
    /// No state that anything depends on.
    Nothing,
    State(usize),
    Anything,
}

impl<S: Clone + Eq + std::hash::Hash> Lookahead<S> {
    pub(crate) fn new<M: Model<State = S>>(model: &M, spans: &[Span<'_, M>]) -> Lookahead<S> {
        let mut slots = HashMap::new();
        let requires: Vec<Option<usize>> = spans
            .iter()
            .map(|span| {
                let state = model.requires(span.op, span.reply?)?;
                let next = slots.len();
                Some(*slots.entry(state).or_insert(next))
            })
            .collect();
        let leaves = |span: &Span<'_, M>| {
            if !model.is_write(span.op, span.reply) {
                return Leaves::Nothing;
            }
            match model.leaves(span.op, span.reply) {
                None => Leaves::Anything,
                Some(state) => slots
                    .get(&state)
                    .map_or(Leaves::Nothing, |at| Leaves::State(*at)),
            }
        };
        let leaves: Vec<Leaves> = spans.iter().map(leaves).collect();
        let roles = requires.into_iter().zip(leaves);
        let mut lookahead = Lookahead {
            needed: vec![0; slots.len()],
            supplied: vec![0; slots.len()],
            unforeseeable: 0,
            roles: roles
                .map(|(requires, leaves)| Role { requires, leaves })
                .collect(),
            slots,
        };
        (0..spans.len()).for_each(|position| lookahead.put_back(position));
        lookahead
    }

    /// The operation is linearized.
    pub(crate) fn take(&mut self, position: usize) {
        let Role { requires, leaves } = self.roles[position];
        if let Some(slot) = requires {
            self.needed[slot] -= 1;
        }
        match leaves {
            Leaves::Nothing => {}
            Leaves::State(slot) => self.supplied[slot] -= 1,
            Leaves::Anything => self.unforeseeable -= 1,
        }
    }

    /// The operation is not linearized any more.
    pub(crate) fn put_back(&mut self, position: usize) {
        let Role { requires, leaves } = self.roles[position];
        if let Some(slot) = requires {
            self.needed[slot] += 1;
        }
        match leaves {
            Leaves::Nothing => {}
            Leaves::State(slot) => self.supplied[slot] += 1,
            Leaves::Anything => self.unforeseeable += 1,
        }
    }

    /// Whether an operation that is not linearized needs this state, and none can bring it back.
    pub(crate) fn is_last_chance(&self, state: &S) -> bool {
        let slot = || self.slots.get(state);
        self.unforeseeable == 0
            && slot().is_some_and(|at| self.needed[*at] > 0 && self.supplied[*at] == 0)
    }
}
