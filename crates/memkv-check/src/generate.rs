//! Histories made from a seed: clients that use an atomic store with random delays, and
//! alterations that no store could have produced. They are what the checkers themselves are
//! tested and measured with.
//! Never calls a checker; the same seed gives the same history with the same version of `rand`.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::history::{Operation, Outcome};
use crate::model::{KeyValue, Model, Op, Reply, Value};

/// What the clients do.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Everything random follows from it.
    pub seed: u64,
    /// Clients, each with one operation at a time.
    pub clients: u64,
    /// Operations in all.
    pub operations: u64,
    /// Keys, chosen evenly.
    pub keys: u64,
    /// Which operations are drawn.
    pub mix: Mix,
    /// Of a thousand operations, how many end with an unknown outcome (half of them executed,
    /// some of those long after), and as many again that are refused.
    pub faults_per_thousand: u32,
}

/// Which operations are drawn. Half are reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// SET of unique values and GET.
    Register,
    /// The same with DEL and EXISTS.
    Deletions,
    /// INCR and GET.
    Counter,
    /// APPEND and GET.
    List,
    /// All operations, on the same keys.
    Everything,
}

/// An operation on its way: when its client sent it, and when the store gets to it.
struct Sent {
    process: u64,
    key: u64,
    op: Op,
    invoked_at: u64,
    executed_at: u64,
    returned_at: u64,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Refused,
    Lost,
    LateReply,
}

/// The mean delay of a request or a reply, in ticks of the history's clock.
const DELAY: u64 = 50;

/// A linearizable history with revisions, in the order of invocation.
pub fn valid(workload: &Workload) -> Vec<Operation> {
    let mut sent = send(workload);
    sent.sort_by_key(|request| (request.executed_at, request.process, request.invoked_at));
    let mut state = BTreeMap::new();
    let mut revision = 0;
    let mut history: Vec<Operation> = sent
        .into_iter()
        .map(|request| {
            let outcome = execute(&request, &mut state, &mut revision);
            let Sent {
                process,
                key,
                op,
                invoked_at,
                ..
            } = request;
            Operation {
                process,
                key: format!("key-{key}"),
                op,
                invoked_at,
                outcome,
            }
        })
        .collect();
    history.sort_by_key(|operation| (operation.invoked_at, operation.process));
    history
}

/// Lets every client send its operations, one after the other.
fn send(workload: &Workload) -> Vec<Sent> {
    let mut rng = StdRng::seed_from_u64(workload.seed);
    let mut free_at = vec![0; usize::try_from(workload.clients).unwrap_or(1).max(1)];
    (0..workload.operations)
        .map(|id| {
            let (client, free) = free_at
                .iter_mut()
                .enumerate()
                .min_by_key(|(_, at)| **at)
                .expect("never empty");
            let invoked_at = *free + rng.random_range(1..=DELAY / 5);
            let mut executed_at = invoked_at + rng.random_range(0..=2 * DELAY);
            let returned_at = executed_at + rng.random_range(0..=2 * DELAY);
            let fault = fault(&mut rng, workload.faults_per_thousand);
            if fault == Some(Fault::LateReply) && rng.random_bool(0.5) {
                executed_at += rng.random_range(0..=100 * DELAY);
            }
            *free = returned_at;
            let key = rng.random_range(0..workload.keys.max(1));
            let op = draw(&mut rng, workload.mix, id + 1);
            let process = client as u64;
            Sent {
                process,
                key,
                op,
                invoked_at,
                executed_at,
                returned_at,
                fault,
            }
        })
        .collect()
}

fn fault(rng: &mut StdRng, per_thousand: u32) -> Option<Fault> {
    match rng.random_range(0..1_000) {
        n if n < per_thousand / 2 => Some(Fault::LateReply),
        n if n < per_thousand => Some(Fault::Lost),
        n if n < 2 * per_thousand => Some(Fault::Refused),
        _ => None,
    }
}

fn draw(rng: &mut StdRng, mix: Mix, id: u64) -> Op {
    let asks_existence = matches!(mix, Mix::Deletions | Mix::Everything) && rng.random_bool(0.5);
    if rng.random_bool(0.5) {
        return if asks_existence { Op::Exist } else { Op::Get };
    }
    match (mix, rng.random_range(0..8)) {
        (Mix::Deletions | Mix::Everything, 0 | 1) => Op::Del,
        (Mix::Everything, 2 | 3) | (Mix::List, _) => Op::Append(id),
        (Mix::Everything, 4 | 5) | (Mix::Counter, _) => Op::Incr(id.cast_signed() % 3 + 1),
        _ => Op::Set(id),
    }
}

fn execute(
    request: &Sent,
    state: &mut BTreeMap<u64, <KeyValue as Model>::State>,
    revision: &mut u64,
) -> Outcome {
    match request.fault {
        Some(Fault::Refused) => return Outcome::NotExecuted,
        Some(Fault::Lost) => return Outcome::Unknown,
        Some(Fault::LateReply) | None => {}
    }
    let held = state.entry(request.key).or_default();
    let Some((reply, next)) = answer(held, &request.op) else {
        return Outcome::NotExecuted;
    };
    *held = next;
    *revision += u64::from(KeyValue.is_write(&request.op, Some(&reply)));
    match request.fault {
        Some(_) => Outcome::Unknown,
        None => Outcome::Ok {
            reply,
            returned_at: request.returned_at,
            revision: Some(*revision),
        },
    }
}

/// The store's reply and its state afterwards; `None` if the operation is an error.
fn answer(
    state: &<KeyValue as Model>::State,
    op: &Op,
) -> Option<(Reply, <KeyValue as Model>::State)> {
    let next = KeyValue.step(state, op, None)?;
    let reply = match op {
        Op::Set(_) => Reply::Done,
        Op::Get => Reply::Value(*state),
        Op::Del => Reply::Removed(state.is_some()),
        Op::Exist => Reply::Exists(state.is_some()),
        Op::Append(_) => Reply::Parts(next.map_or(0, |value| value.parts)),
        Op::Incr(_) => Reply::Number(next?.number()?),
    };
    Some((reply, next))
}

/// A way to break a history that is valid and has unique values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alteration {
    /// A read returns a value that no operation wrote.
    Phantom,
    /// A read returns a value that was overwritten before it was invoked.
    Stale,
    /// A read returns a value whose write was invoked after the read had returned.
    Early,
    /// A read returns a value whose write was reported as not executed.
    Refused,
    /// The write of a value that was read is reported as not executed.
    Denied,
    /// A read says that a key is absent which was written before and never deleted.
    Lost,
}

impl Alteration {
    /// All of them.
    pub const ALL: [Alteration; 6] = [
        Alteration::Phantom,
        Alteration::Stale,
        Alteration::Early,
        Alteration::Refused,
        Alteration::Denied,
        Alteration::Lost,
    ];

    /// Changes one operation so that the history is certainly not linearizable any more, and
    /// returns its position; `None` if no operation of the history allows it. Needs [`Mix::Register`].
    pub fn apply(self, history: &mut [Operation], seed: u64) -> Option<usize> {
        let mut rng = StdRng::seed_from_u64(seed);
        let candidates: Vec<(usize, Outcome)> = (0..history.len())
            .filter_map(|at| Some((at, self.altered(history, at)?)))
            .collect();
        if candidates.is_empty() {
            return None;
        }
        let (at, outcome) = candidates[rng.random_range(0..candidates.len())].clone();
        history[at].outcome = outcome;
        Some(at)
    }

    fn altered(self, history: &[Operation], at: usize) -> Option<Outcome> {
        let target = &history[at];
        let same_key = || history.iter().filter(|other| other.key == target.key);
        let writes = || same_key().filter_map(|other| Some((other, written(other)?)));
        if self == Alteration::Denied {
            let value = written(target)?;
            let read = Reply::Value(Some(Value::new(value)));
            return same_key()
                .any(|other| other.reply() == Some(&read))
                .then_some(Outcome::NotExecuted);
        }
        let Outcome::Ok {
            reply: Reply::Value(_),
            returned_at,
            revision,
        } = target.outcome
        else {
            return None;
        };
        let before = |other: &Operation, invoked_at: u64| {
            other
                .returned_at()
                .is_some_and(|returned_at| returned_at < invoked_at)
        };
        let value = match self {
            Alteration::Phantom => Some(u64::MAX),
            Alteration::Stale => {
                let newest = writes()
                    .filter(|(write, _)| before(write, target.invoked_at))
                    .max_by_key(|(write, _)| write.invoked_at)?
                    .0;
                Some(
                    writes()
                        .find(|(write, _)| before(write, newest.invoked_at))?
                        .1,
                )
            }
            Alteration::Early => Some(writes().find(|(w, _)| w.invoked_at > returned_at)?.1),
            Alteration::Refused => Some(
                writes()
                    .find(|(write, _)| write.outcome == Outcome::NotExecuted)?
                    .1,
            ),
            Alteration::Lost => {
                writes().find(|(write, _)| before(write, target.invoked_at))?;
                None
            }
            Alteration::Denied => return None,
        };
        Some(Outcome::Ok {
            reply: Reply::Value(value.map(Value::new)),
            returned_at,
            revision,
        })
    }
}

fn written(operation: &Operation) -> Option<u64> {
    match operation.op {
        Op::Set(id) => Some(id),
        _ => None,
    }
}
