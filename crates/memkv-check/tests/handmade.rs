//! Verdicts on histories small enough to be judged by eye.

mod common;

use common::SearchOnly;
use memkv_check::{
    Budget, Coverage, Failure, KeyValue, Op, Operation, Outcome, Reply, Value, revision, wgl,
};

/// An answered operation on key "k", invoked and returned at these times.
fn ok(from: u64, to: u64, op: Op, reply: Reply) -> Operation {
    let outcome = Outcome::Ok {
        reply,
        returned_at: to,
        revision: None,
    };
    Operation {
        process: from,
        key: "k".into(),
        op,
        invoked_at: from,
        outcome,
    }
}

fn set(from: u64, to: u64, id: u64) -> Operation {
    ok(from, to, Op::Set(id), Reply::Done)
}

fn get(from: u64, to: u64, id: impl Into<Option<u64>>) -> Operation {
    ok(from, to, Op::Get, Reply::Value(id.into().map(Value::new)))
}

fn unknown(from: u64, op: Op) -> Operation {
    let outcome = Outcome::Unknown;
    Operation {
        process: from,
        key: "k".into(),
        op,
        invoked_at: from,
        outcome,
    }
}

fn refused(from: u64, op: Op) -> Operation {
    Operation {
        outcome: Outcome::NotExecuted,
        ..unknown(from, op)
    }
}

/// Gives the answered operations these revisions, in the order of the list.
fn at(revisions: &[u64], mut history: Vec<Operation>) -> Vec<Operation> {
    let mut given = revisions.iter().copied();
    for operation in &mut history {
        if let Outcome::Ok { revision, .. } = &mut operation.outcome {
            *revision = given.next();
        }
    }
    history
}

fn by_search(history: &[Operation]) -> Result<Coverage, Failure> {
    let verdict = wgl::check(&KeyValue, history, &Budget::default());
    let alone = wgl::check(&SearchOnly, history, &Budget::default());
    assert_eq!(verdict.is_ok(), alone.is_ok(), "{verdict:?}\n{alone:?}");
    verdict
}

fn by_revision(history: &[Operation]) -> Result<Coverage, Failure> {
    revision::check(&KeyValue, history, &Budget::default())
}

fn is_violation(verdict: &Result<Coverage, Failure>) -> bool {
    matches!(verdict, Err(Failure::NotLinearizable(_)))
}

#[track_caller]
fn accepted(history: &[Operation]) {
    assert!(by_search(history).is_ok(), "{:?}", by_search(history));
}

/// Rejected, with this in the first line of the report.
#[track_caller]
fn rejected(history: &[Operation], why: &str) {
    let report = by_search(history)
        .expect_err("the history is wrong")
        .to_string();
    let first = report.lines().next().unwrap_or_default();
    assert!(first.contains(why), "{report}");
}

#[test]
fn concurrent_operations_may_take_either_order() {
    accepted(&[set(1, 10, 1), set(2, 9, 2), get(11, 12, 1)]);
    accepted(&[set(1, 10, 1), set(2, 9, 2), get(11, 12, 2)]);
    accepted(&[set(1, 10, 1), get(2, 3, None), get(4, 5, 1)]);
    accepted(&[set(1, 5, 1), get(5, 6, None)]);
}

#[test]
fn a_stale_read_is_rejected() {
    rejected(&[set(1, 2, 1), set(3, 4, 2), get(5, 6, 1)], "held");
    rejected(&[set(1, 2, 1), get(3, 4, None)], "held");
}

#[test]
fn reads_never_go_back() {
    accepted(&[set(1, 9, 1), get(2, 3, None), get(4, 5, 1), get(6, 7, 1)]);
    rejected(&[set(1, 9, 1), get(2, 3, 1), get(4, 5, None)], "held");
}

#[test]
fn a_lost_write_is_rejected() {
    let lost = [set(1, 2, 1), set(3, 4, 2), get(5, 6, 1), get(7, 8, 1)];
    rejected(&lost, "held");
    let lost = [set(1, 2, 1), ok(3, 4, Op::Del, Reply::Removed(false))];
    rejected(&lost, "explains it");
}

#[test]
fn writes_seen_in_two_orders_are_rejected() {
    let reads = [get(11, 12, 1), get(13, 14, 2), get(15, 16, 1)];
    rejected(
        &[&[set(1, 10, 1), set(2, 9, 2)][..], &reads].concat(),
        "held",
    );
}

#[test]
fn a_write_that_is_applied_twice_is_rejected() {
    rejected(
        &[
            set(1, 2, 1),
            get(3, 4, 1),
            set(5, 6, 2),
            get(7, 8, 2),
            get(9, 10, 1),
        ],
        "held",
    );
    let counted = |second| {
        [
            ok(1, 2, Op::Incr(1), Reply::Number(1)),
            ok(3, 4, Op::Incr(1), Reply::Number(second)),
        ]
    };
    accepted(&counted(2));
    rejected(&counted(3), "explains it");
    let list = Value::new(7).joined(7);
    rejected(
        &[
            ok(1, 2, Op::Append(7), Reply::Parts(1)),
            ok(3, 4, Op::Get, Reply::Value(Some(list))),
        ],
        "explains it",
    );
}

#[test]
fn a_read_from_nowhere_or_from_the_future_is_rejected() {
    rejected(&[set(1, 2, 1), get(3, 4, 9)], "no operation ever wrote");
    rejected(
        &[get(1, 2, 1), set(3, 4, 1)],
        "before its write was invoked",
    );
}

#[test]
fn an_unknown_write_may_take_effect_at_any_later_time() {
    let write = unknown(1, Op::Set(1));
    accepted(&[write.clone(), get(2, 3, 1)]);
    accepted(&[
        write.clone(),
        set(10, 11, 2),
        get(12, 13, 2),
        get(14, 15, 1),
    ]);
    rejected(&[write, get(2, 3, 1), set(4, 5, 2), get(6, 7, 1)], "held");
    rejected(
        &[get(1, 2, 1), unknown(3, Op::Set(1))],
        "before its write was invoked",
    );
}

#[test]
fn an_unknown_write_may_never_take_effect() {
    accepted(&[
        set(1, 2, 1),
        unknown(3, Op::Set(2)),
        unknown(4, Op::Del),
        get(20, 21, 1),
    ]);
    accepted(&[
        unknown(1, Op::Incr(1)),
        ok(2, 3, Op::Incr(5), Reply::Number(5)),
    ]);
}

#[test]
fn unknown_increments_are_used_at_most_once_each() {
    let history = |number| {
        [
            unknown(1, Op::Incr(2)),
            unknown(2, Op::Incr(2)),
            ok(3, 4, Op::Incr(1), Reply::Number(number)),
        ]
    };
    for number in [1, 3, 5] {
        accepted(&history(number));
    }
    for number in [2, 4, 7] {
        rejected(&history(number), "explains it");
    }
}

#[test]
fn what_was_not_executed_must_not_show() {
    accepted(&[refused(1, Op::Set(1)), get(2, 3, None)]);
    rejected(&[refused(1, Op::Set(1)), get(2, 3, 1)], "not executed");
    rejected(
        &[set(1, 2, 1), refused(3, Op::Del), get(4, 5, None)],
        "held",
    );
    let refused = refused(1, Op::Incr(1));
    rejected(
        &[refused, ok(2, 3, Op::Incr(1), Reply::Number(2))],
        "explains it",
    );
}

#[test]
fn keys_are_judged_by_themselves_and_named() {
    let other = |operation: Operation| Operation {
        key: "other".into(),
        ..operation
    };
    let mut history = vec![set(1, 2, 1), other(set(1, 2, 5)), get(3, 4, 1)];
    let coverage = by_search(&history).unwrap();
    assert_eq!((coverage.keys, coverage.answered), (2, 3));
    history.push(other(get(6, 7, 1)));
    let Err(Failure::NotLinearizable(witness)) = by_search(&history) else {
        panic!("accepted")
    };
    assert_eq!(
        (witness.key.as_str(), &witness.operations[..]),
        ("other", &[3][..])
    );
}

#[test]
fn the_witness_is_the_shortest_failing_prefix() {
    let number = |from, to, number| ok(from, to, Op::Incr(1), Reply::Number(number));
    let history = [
        number(1, 2, 1),
        number(3, 6, 2),
        number(4, 5, 4),
        number(9, 10, 3),
    ];
    let Err(Failure::NotLinearizable(witness)) = by_search(&history) else {
        panic!("accepted")
    };
    assert_eq!(witness.operations, [0, 1, 2]);
    let second_line = witness.text.lines().nth(1).unwrap_or_default();
    assert!(
        second_line.contains("[4..5]") && witness.text.contains("leaves Some"),
        "{witness}"
    );
}

#[test]
fn a_return_before_its_invocation_is_the_recorders_fault() {
    for verdict in [
        by_search(&[set(2, 1, 1)]),
        by_revision(&at(&[1], vec![set(2, 1, 1)])),
    ] {
        assert!(matches!(verdict, Err(Failure::Malformed { .. })));
    }
    assert!(matches!(
        by_revision(&[set(1, 2, 1)]),
        Err(Failure::Malformed { .. })
    ));
}

#[test]
fn an_exhausted_budget_is_a_failure() {
    let history: Vec<Operation> = (1..50).map(|id| set(id, 100 + id, id)).collect();
    let steps = Budget {
        steps: 10,
        time: None,
    };
    let time = Budget {
        time: Some(std::time::Duration::ZERO),
        ..Budget::default()
    };
    for budget in [steps, time] {
        let verdict = wgl::check(&KeyValue, &history, &budget);
        assert!(
            matches!(verdict, Err(Failure::Undecided { .. })),
            "{verdict:?}"
        );
    }
}

#[test]
fn a_violation_is_reported_even_if_another_key_is_undecided() {
    let mut history: Vec<Operation> = (1..50).map(|id| set(id, 100 + id, id)).collect();
    history.push(Operation {
        key: "later".into(),
        ..get(1, 2, 9)
    });
    let verdict = wgl::check(
        &KeyValue,
        &history,
        &Budget {
            steps: 10,
            time: None,
        },
    );
    assert!(is_violation(&verdict), "{verdict:?}");
}

#[test]
fn revisions_that_agree_are_accepted() {
    let history = vec![
        set(1, 9, 1),
        set(2, 8, 2),
        get(3, 12, 1),
        get(13, 14, 1),
        get(15, 16, 1),
    ];
    assert!(by_revision(&at(&[5, 4, 5, 5, 7], history.clone())).is_ok());
    let wrong = by_revision(&at(&[4, 5, 5, 5, 7], history));
    assert!(is_violation(&wrong), "{wrong:?}");
}

#[test]
fn a_revision_belongs_to_one_write() {
    let other = Operation {
        key: "other".into(),
        ..set(1, 9, 2)
    };
    let verdict = by_revision(&at(&[4, 4], vec![set(1, 9, 1), other]));
    assert!(
        matches!(verdict, Err(Failure::SharedRevision { revision: 4, .. })),
        "{verdict:?}"
    );
}

#[test]
fn revisions_agree_with_real_time_across_keys() {
    let other = |operation: Operation| Operation {
        key: "other".into(),
        ..operation
    };
    let order = |history: Vec<Operation>| {
        matches!(by_revision(&history), Err(Failure::RevisionOrder { .. }))
    };
    assert!(order(at(&[4, 3], vec![set(1, 2, 1), other(set(3, 4, 2))])));
    assert!(order(at(
        &[4, 3],
        vec![set(1, 2, 1), other(get(3, 4, None))]
    )));
    assert!(order(at(
        &[4, 4],
        vec![get(1, 2, None), other(set(3, 4, 2))]
    )));
    assert!(!order(at(
        &[4, 4],
        vec![set(1, 2, 1), other(get(3, 4, None))]
    )));
    assert!(!order(at(&[4, 3], vec![set(1, 3, 1), other(set(3, 4, 2))])));
}

#[test]
fn a_removal_of_nothing_is_a_read() {
    let nothing = |from, to| ok(from, to, Op::Del, Reply::Removed(false));
    let history = vec![nothing(1, 2), set(3, 4, 1), nothing(5, 6)];
    assert!(by_revision(&at(&[0, 1], history[..2].to_vec())).is_ok());
    assert!(is_violation(&by_revision(&at(&[0, 1, 1], history))));
}

#[test]
fn unknown_writes_fit_between_revisions_once_and_in_time() {
    let history = |second_read| {
        vec![
            unknown(1, Op::Set(1)),
            set(2, 3, 2),
            get(4, 5, 1),
            set(6, 7, 3),
            second_read,
        ]
    };
    assert!(by_revision(&at(&[4, 5, 6, 6], history(get(8, 9, 3)))).is_ok());
    assert!(is_violation(&by_revision(&at(
        &[4, 5, 6, 7],
        history(get(8, 9, 1))
    ))));
    // There is no room for another write within one revision.
    let together = vec![
        unknown(1, Op::Set(1)),
        set(2, 3, 2),
        get(4, 5, 2),
        get(6, 7, 1),
    ];
    assert!(by_revision(&at(&[4, 4, 5], together.clone())).is_ok());
    assert!(is_violation(&by_revision(&at(&[4, 4, 4], together))));
    // It was invoked after something later in revision order had returned.
    let late = vec![get(1, 9, 1), get(2, 3, 1), unknown(5, Op::Set(1))];
    assert!(is_violation(&by_revision(&at(&[4, 5], late))));
}
