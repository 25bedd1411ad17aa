//! Shared by several tests: a model whose histories only the search can check.

use memkv_check::{KeyValue, Model, Op, Reply};

/// [`KeyValue`] without its quick refutation and its simplification.
pub(crate) struct SearchOnly;

impl Model for SearchOnly {
    type Op = Op;
    type Reply = Reply;
    type State = <KeyValue as Model>::State;

    fn initial(&self) -> Self::State {
        KeyValue.initial()
    }

    fn step(&self, state: &Self::State, op: &Op, reply: Option<&Reply>) -> Option<Self::State> {
        KeyValue.step(state, op, reply)
    }

    fn is_write(&self, op: &Op, reply: Option<&Reply>) -> bool {
        KeyValue.is_write(op, reply)
    }

    fn requires(&self, op: &Op, reply: &Reply) -> Option<Self::State> {
        KeyValue.requires(op, reply)
    }

    fn leaves(&self, op: &Op, reply: Option<&Reply>) -> Option<Self::State> {
        KeyValue.leaves(op, reply)
    }
}
