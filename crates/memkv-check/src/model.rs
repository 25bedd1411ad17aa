//! What a single key would do if one client at a time used it: the specification that histories
//! are held against.
//! Never looks at time or at other keys; a model is a pure function of state and operation.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use crate::history::Operation;

/// A sequential specification of one key.
pub trait Model {
    /// What a client can ask for. Equal operations must be interchangeable.
    type Op: Clone + Eq + Hash + Debug;
    /// What the store can answer.
    type Reply: Debug;
    /// What the key holds.
    type State: Clone + Eq + Hash + Debug;

    /// What a key that was never touched holds.
    fn initial(&self) -> Self::State;

    /// The state after `op`, or `None` if `reply` cannot be the answer in this state.
    /// Without a reply (outcome unknown) only an operation that cannot succeed returns `None`.
    fn step(
        &self,
        state: &Self::State,
        op: &Self::Op,
        reply: Option<&Self::Reply>,
    ) -> Option<Self::State>;

    /// Whether the operation changed the key (and so has a revision of its own), or, without a
    /// reply, might have. An operation for which this is false must leave every state as it is.
    fn is_write(&self, op: &Self::Op, reply: Option<&Self::Reply>) -> bool;

    /// The only state in which the operation can give this reply; `None` if there are several.
    /// A hint that makes the search look ahead.
    fn requires(&self, _op: &Self::Op, _reply: &Self::Reply) -> Option<Self::State> {
        None
    }

    /// The state that the operation leaves whenever it fits; `None` if that depends on the state
    /// before. A hint like [`Model::requires`], and useless without it; asked of writes only.
    fn leaves(&self, _op: &Self::Op, _reply: Option<&Self::Reply>) -> Option<Self::State> {
        None
    }

    /// The same operations on one key, with differences removed that no reply shows; equal
    /// operations spare the search most of its work.
    fn simplified(&self, operations: &[&Operation<Self::Op, Self::Reply>]) -> Vec<Self::Op> {
        operations
            .iter()
            .map(|operation| operation.op.clone())
            .collect()
    }

    /// A quick proof that no order explains these operations on one key (all outcomes are
    /// included); `None` if there is no *quick* one. The search decides the rest.
    fn refute(&self, _operations: &[&Operation<Self::Op, Self::Reply>]) -> Option<Refutation> {
        None
    }
}

/// Why a few operations contradict each other, independently of all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refutation {
    /// The rule that they break, as a sentence without its full stop.
    pub why: String,
    /// Positions in the slice that was judged.
    pub operations: Vec<usize>,
}

/// Operations of [`KeyValue`]. A value is named by an integer, its id; what bytes stand for it
/// is the client's affair (for [`Op::Incr`] it is the decimal text of the id).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Store the value. Ids that are unique per key make checks fast and failures readable.
    Set(u64),
    /// Read the value.
    Get,
    /// Remove the key.
    Del,
    /// Ask whether the key is there.
    Exist,
    /// Add a part to the value, see [`Value::joined`].
    Append(u64),
    /// Add to the number; an absent key counts as 0, and a value of several parts is none.
    Incr(i64),
}

/// Answers of [`KeyValue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Op::Set`].
    Done,
    /// To [`Op::Get`]; `None` for an absent key.
    Value(Option<Value>),
    /// To [`Op::Del`]: whether there was something to remove.
    Removed(bool),
    /// To [`Op::Exist`].
    Exists(bool),
    /// To [`Op::Append`]: the number of parts afterwards (length by width of a part).
    Parts(u64),
    /// To [`Op::Incr`]: the number afterwards.
    Number(i64),
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Value {
    /// The value's id; for a value of several parts the digest of theirs, in order.
    pub id: u64,
    /// How many parts it was put together from; 1 unless [`Op::Append`] was used.
    pub parts: u64,
}

impl Value {
    /// A value of one part.
    pub fn new(id: u64) -> Value {
        Value { id, parts: 1 }
    }

    fn from_number(number: i64) -> Value {
        Value::new(number.cast_unsigned())
    }

    /// The number that [`Op::Incr`] adds to; `None` if there are several parts.
    pub(crate) fn number(self) -> Option<i64> {
        (self.parts == 1).then_some(self.id.cast_signed())
    }

    /// The value that [`Op::Append`] of `id` makes of this one. A client that reads a value of
    /// several parts names it by folding this over their ids. The digest is a bijection of each
    /// argument (multiplication by an odd constant), so that two lists that differ in one part
    /// never meet, and others do with a probability of 2^-64.
    pub fn joined(self, id: u64) -> Value {
        // 2^64 / golden ratio, made odd: the usual multiplicative hash (Knuth, vol. 3, 6.4).
        const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
        let mixed = (self.id.rotate_left(29) ^ id).wrapping_mul(SPREAD);
        Value {
            id: mixed ^ (mixed >> 32),
            parts: self.parts.saturating_add(1),
        }
    }
}

/// One key of memkv: Redis's SET, GET, DEL, EXISTS, APPEND and INCRBY.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyValue;

impl Model for KeyValue {
    type Op = Op;
    type Reply = Reply;
    type State = Option<Value>;

    fn initial(&self) -> Option<Value> {
        None
    }

    fn step(&self, state: &Option<Value>, op: &Op, reply: Option<&Reply>) -> Option<Option<Value>> {
        let (next, answer) = match *op {
            Op::Set(id) => (Some(Value::new(id)), Reply::Done),
            Op::Get => (*state, Reply::Value(*state)),
            Op::Del => (None, Reply::Removed(state.is_some())),
            Op::Exist => (*state, Reply::Exists(state.is_some())),
            Op::Append(id) => {
                let next = state.map_or(Value::new(id), |value| value.joined(id));
                (Some(next), Reply::Parts(next.parts))
            }
            Op::Incr(delta) => {
                let held = state.unwrap_or(Value::from_number(0)).number()?;
                let number = held.checked_add(delta)?;
                (Some(Value::from_number(number)), Reply::Number(number))
            }
        };
        reply.is_none_or(|reply| *reply == answer).then_some(next)
    }

    fn is_write(&self, op: &Op, reply: Option<&Reply>) -> bool {
        match op {
            Op::Set(_) | Op::Append(_) | Op::Incr(_) => true,
            Op::Del => reply != Some(&Reply::Removed(false)),
            Op::Get | Op::Exist => false,
        }
    }

    fn requires(&self, op: &Op, reply: &Reply) -> Option<Option<Value>> {
        match (op, reply) {
            (_, Reply::Value(value)) => Some(*value),
            (_, Reply::Exists(false) | Reply::Removed(false)) => Some(None),
            // 0 may also have been an absent key.
            (Op::Incr(delta), Reply::Number(number)) if number != delta => {
                Some(Some(Value::from_number(number.checked_sub(*delta)?)))
            }
            _ => None,
        }
    }

    fn leaves(&self, op: &Op, reply: Option<&Reply>) -> Option<Option<Value>> {
        match (op, reply) {
            (Op::Set(id), _) => Some(Some(Value::new(*id))),
            (Op::Del, _) => Some(None),
            (Op::Incr(_), Some(Reply::Number(number))) => Some(Some(Value::from_number(*number))),
            _ => None,
        }
    }

    /// All values that are never read become the same one.
    fn simplified(&self, operations: &[&Operation]) -> Vec<Op> {
        let ops = || operations.iter().map(|operation| operation.op);
        if ops().any(|op| matches!(op, Op::Append(_) | Op::Incr(_))) {
            return ops().collect();
        }
        let reads = operations
            .iter()
            .filter_map(|operation| match operation.reply()? {
                Reply::Value(value) => value.map(|value| value.id),
                _ => None,
            });
        let read: HashSet<u64> = reads.collect();
        let is_unread = |op: &Op| matches!(op, Op::Set(id) if !read.contains(id));
        let stand_in = ops().find(is_unread);
        let simplify = |op| stand_in.filter(|_| is_unread(&op)).unwrap_or(op);
        ops().map(simplify).collect()
    }

    fn refute(&self, operations: &[&Operation]) -> Option<Refutation> {
        crate::zones::refute(operations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs operations in order and compares every answer.
    fn run(steps: &[(Op, Reply)]) -> Option<Option<Value>> {
        let start = KeyValue.initial();
        steps.iter().try_fold(start, |state, (op, reply)| {
            KeyValue.step(&state, op, Some(reply))
        })
    }

    #[test]
    fn answers_follow_from_the_state() {
        let steps = [
            (Op::Get, Reply::Value(None)),
            (Op::Del, Reply::Removed(false)),
            (Op::Set(5), Reply::Done),
            (Op::Exist, Reply::Exists(true)),
            (Op::Incr(-7), Reply::Number(-2)),
            (Op::Get, Reply::Value(Some(Value::from_number(-2)))),
            (Op::Append(9), Reply::Parts(2)),
            (Op::Del, Reply::Removed(true)),
            (Op::Exist, Reply::Exists(false)),
            (Op::Append(9), Reply::Parts(1)),
            (Op::Get, Reply::Value(Some(Value::new(9)))),
        ];
        assert_eq!(run(&steps), Some(Some(Value::new(9))));
        for wrong in [
            Reply::Done,
            Reply::Value(Some(Value::new(1))),
            Reply::Removed(true),
        ] {
            assert_eq!(run(&[(Op::Get, wrong)]), None);
        }
    }

    #[test]
    fn the_digest_keeps_order_and_count() {
        let list = |ids: &[u64]| {
            ids.iter()
                .fold(Value::new(1), |value, id| value.joined(*id))
        };
        assert_eq!(list(&[2, 3]), Value::new(1).joined(2).joined(3));
        assert_ne!(list(&[2, 3]).id, list(&[3, 2]).id);
        assert_ne!(list(&[2, 2]).id, list(&[2]).id);
    }

    #[test]
    fn an_increment_that_is_an_error_cannot_have_run() {
        for held in [Value::from_number(i64::MAX), Value::new(1).joined(2)] {
            assert_eq!(KeyValue.step(&Some(held), &Op::Incr(1), None), None);
        }
    }
}
