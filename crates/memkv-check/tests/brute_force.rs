//! The checkers against exhaustive enumeration, on small random histories: every subset of the
//! unknown operations in every order that real time (and revisions) allow.
//! Never uses unique values only: repeated ones are what makes the search work.

mod common;

use std::collections::BTreeMap;

use common::SearchOnly;
use memkv_check::generate::{Mix, Workload, valid};
use memkv_check::{
    Budget, Failure, KeyValue, Model, Op, Operation, Outcome, Reply, Value, revision, wgl,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Whether some order of all answered and some unknown operations explains the replies.
fn is_linearizable<M: Model>(model: &M, history: &[Operation<M::Op, M::Reply>]) -> bool {
    let relevant: Vec<_> = history
        .iter()
        .filter(|operation| !matches!(operation.outcome, Outcome::NotExecuted))
        .collect();
    extend(
        model,
        &relevant,
        &mut vec![false; relevant.len()],
        &model.initial(),
    )
}

fn extend<M: Model>(
    model: &M,
    operations: &[&Operation<M::Op, M::Reply>],
    taken: &mut [bool],
    state: &M::State,
) -> bool {
    let open = |at: &usize, taken: &[bool]| !taken[*at] && operations[*at].returned_at().is_some();
    let first_return = (0..operations.len())
        .filter(|at| open(at, taken))
        .filter_map(|at| operations[at].returned_at())
        .min();
    let Some(first_return) = first_return else {
        return true;
    };
    for at in 0..operations.len() {
        if taken[at] || operations[at].invoked_at > first_return {
            continue;
        }
        let next = model.step(state, &operations[at].op, operations[at].reply());
        if let Some(next) = next {
            taken[at] = true;
            let found = extend(model, operations, taken, &next);
            taken[at] = false;
            if found {
                return true;
            }
        }
    }
    false
}

/// A few clients' operations with replies that may or may not fit, from very few values.
fn random_history(rng: &mut StdRng, ops: &[fn(&mut StdRng) -> Op]) -> Vec<Operation> {
    let count = rng.random_range(1..=7);
    let unknown = rng.random_range(0..=4);
    (0..count)
        .map(|process| {
            let op = ops[rng.random_range(0..ops.len())](rng);
            let invoked_at = rng.random_range(0..12);
            let outcome = match rng.random_range(0..10) {
                n if n < unknown => Outcome::Unknown,
                9 => Outcome::NotExecuted,
                _ => Outcome::Ok {
                    reply: random_reply(rng, op),
                    returned_at: invoked_at + rng.random_range(0..8),
                    revision: None,
                },
            };
            Operation {
                process,
                key: "k".into(),
                op,
                invoked_at,
                outcome,
            }
        })
        .collect()
}

fn random_reply(rng: &mut StdRng, op: Op) -> Reply {
    match op {
        Op::Set(_) => Reply::Done,
        Op::Get => Reply::Value(
            rng.random_bool(0.8)
                .then(|| Value::new(rng.random_range(1..4))),
        ),
        Op::Del => Reply::Removed(rng.random_bool(0.7)),
        Op::Exist => Reply::Exists(rng.random_bool(0.7)),
        Op::Append(_) => Reply::Parts(rng.random_range(1..3)),
        Op::Incr(_) => Reply::Number(rng.random_range(1..5)),
    }
}

const SET: fn(&mut StdRng) -> Op = |rng| Op::Set(rng.random_range(1..4));
const GET: fn(&mut StdRng) -> Op = |_| Op::Get;
const DEL: fn(&mut StdRng) -> Op = |_| Op::Del;
const EXIST: fn(&mut StdRng) -> Op = |_| Op::Exist;
const APPEND: fn(&mut StdRng) -> Op = |rng| Op::Append(rng.random_range(1..3));
const INCR: fn(&mut StdRng) -> Op = |rng| Op::Incr(rng.random_range(1..3));

/// Compares verdicts on `count` histories and checks that both verdicts were common.
fn compare(seed: u64, count: usize, ops: &[fn(&mut StdRng) -> Op]) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..count {
        let history = random_history(&mut rng, ops);
        let expected = is_linearizable(&KeyValue, &history);
        *(if expected { &mut good } else { &mut bad }) += 1;
        for verdict in [
            wgl::check(&KeyValue, &history, &Budget::default()),
            wgl::check(&SearchOnly, &history, &Budget::default()),
        ] {
            assert!(!matches!(
                verdict,
                Err(Failure::Undecided { .. } | Failure::Malformed { .. })
            ));
            assert_eq!(verdict.is_ok(), expected, "{history:#?}\n{verdict:?}");
        }
    }
    assert!(
        good.min(bad) >= count / 10,
        "{good} good and {bad} bad histories prove little"
    );
}

#[test]
fn registers() {
    compare(1, 4_000, &[SET, GET]);
}

#[test]
fn registers_with_deletions() {
    compare(2, 6_000, &[SET, SET, GET, DEL, EXIST]);
}

#[test]
fn counters() {
    compare(3, 4_000, &[INCR, INCR, GET, DEL]);
}

#[test]
fn everything_on_one_key() {
    compare(4, 10_000, &[SET, SET, GET, GET, DEL, EXIST, APPEND, INCR]);
}

/// Whether unknown operations can be put between the answered ones, which are in revision order
/// from `next` on, so that the model explains all of them.
fn is_explained(
    ordered: &[&Operation],
    next: usize,
    unknown: &[&Operation],
    states: &BTreeMap<String, <KeyValue as Model>::State>,
) -> bool {
    let after = |operation: &Operation| {
        let state = states.get(&operation.key).copied().unwrap_or_default();
        let state = KeyValue.step(&state, &operation.op, operation.reply())?;
        let mut states = states.clone();
        states.insert(operation.key.clone(), state);
        Some(states)
    };
    let Some(operation) = ordered.get(next) else {
        return true;
    };
    if after(operation).is_some_and(|states| is_explained(ordered, next + 1, unknown, &states)) {
        return true;
    }
    if next > 0 && ordered[next - 1].revision() == operation.revision() {
        return false;
    }
    (0..unknown.len()).any(|at| {
        let in_time = |later: &&Operation| later.returned_at() >= Some(unknown[at].invoked_at);
        let mut others = unknown.to_vec();
        let chosen = others.remove(at);
        ordered[next..].iter().all(in_time)
            && after(chosen).is_some_and(|states| is_explained(ordered, next, &others, &states))
    })
}

fn is_as_revisions_say(history: &[Operation]) -> bool {
    let is_write = |operation: &Operation| KeyValue.is_write(&operation.op, operation.reply());
    let mut ordered: Vec<_> = history.iter().filter(|o| o.reply().is_some()).collect();
    ordered.sort_by_key(|operation| (operation.revision(), !is_write(operation)));
    let in_order = |at: usize| {
        ordered[at + 1..].iter().all(|later| {
            let shared = ordered[at].revision() == later.revision();
            let turned = later.returned_at() < Some(ordered[at].invoked_at);
            !(shared && is_write(later)) && !(turned && (!shared || is_write(ordered[at])))
        })
    };
    let unknown: Vec<_> = history
        .iter()
        .filter(|o| o.outcome == Outcome::Unknown)
        .collect();
    (0..ordered.len()).all(in_order) && is_explained(&ordered, 0, &unknown, &BTreeMap::new())
}

/// Changes a revision, or lets two operations swap what they did, or forgets an outcome.
fn disturb(rng: &mut StdRng, history: &mut [Operation]) {
    let (at, other) = (
        rng.random_range(0..history.len()),
        rng.random_range(0..history.len()),
    );
    match (rng.random_range(0..5), &mut history[at].outcome) {
        (
            0 | 1,
            Outcome::Ok {
                revision: Some(revision),
                ..
            },
        ) => {
            *revision = (*revision + rng.random_range(0..3)).saturating_sub(1);
        }
        (2 | 3, _) => {
            let ops = (history[at].op, history[other].op);
            (history[at].op, history[other].op) = (ops.1, ops.0);
            let outcome = history[at].outcome.clone();
            history[at].outcome = std::mem::replace(&mut history[other].outcome, outcome);
            for index in [at, other] {
                let invoked_at = history[index].invoked_at;
                if let Outcome::Ok { returned_at, .. } = &mut history[index].outcome {
                    *returned_at = (*returned_at).max(invoked_at);
                }
            }
        }
        (_, outcome) => *outcome = Outcome::Unknown,
    }
}

#[test]
fn revisions() {
    let mut rng = StdRng::seed_from_u64(5);
    let (mut good, mut bad) = (0, 0);
    for seed in 0..10_000 {
        let mut history = valid(&Workload {
            seed,
            clients: 4,
            operations: rng.random_range(2..=8),
            keys: 1 + seed % 2,
            mix: [Mix::Deletions, Mix::Counter, Mix::List, Mix::Everything][seed as usize % 4],
            faults_per_thousand: 200,
        });
        for _ in 0..rng.random_range(0..8) {
            disturb(&mut rng, &mut history);
        }
        let expected = is_as_revisions_say(&history);
        *(if expected { &mut good } else { &mut bad }) += 1;
        let verdict = revision::check(&KeyValue, &history, &Budget::default());
        assert_eq!(verdict.is_ok(), expected, "{history:#?}\n{verdict:?}");
    }
    assert!(
        good.min(bad) >= 1_000,
        "{good} good and {bad} bad histories prove little"
    );
}
