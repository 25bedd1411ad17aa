//! Verdicts on histories over several keys, against logs small enough to be judged by eye, and on
//! what a wrong store could have done to them.

use memkv_check::order::{self, Entry, Ran};
use memkv_check::space::{Answer, Command, Expiry, Guard, Holds, If, Query, Request, Space, Step};
use memkv_check::{Failure, Operation, Outcome};

type History = Vec<Operation<Request, Answer>>;

fn set(key: &str, value: &str, expiry: Expiry) -> Command {
    Command::Set {
        key: key.into(),
        value: value.into(),
        condition: If::Always,
        expiry,
        get: false,
    }
}

fn add(key: &str, by: i64) -> Command {
    Command::IncrBy {
        key: key.into(),
        by,
    }
}

/// Moves one from a to b, if a was last written at this revision.
fn transfer(watched: u64) -> Command {
    Command::Transaction {
        guards: vec![Guard {
            key: "a".into(),
            holds: Holds::WrittenAt(watched),
        }],
        steps: vec![Step::Write(add("a", -1)), Step::Write(add("b", 1))],
        otherwise: vec![],
    }
}

fn both() -> Request {
    let keys = vec!["a".into(), "b".into()];
    Request::Read(vec![Query::GetMany { keys }])
}

fn values(a: Option<&str>, b: Option<&str>) -> Answer {
    let value = |value: Option<&str>| value.map_or(Answer::Nil, |text| Answer::Text(text.into()));
    Answer::List(vec![Answer::List(vec![value(a), value(b)])])
}

fn answered(
    op: Request,
    at: (u64, u64),
    reply: Answer,
    revision: u64,
) -> Operation<Request, Answer> {
    Operation {
        process: at.0,
        key: String::new(),
        op,
        invoked_at: at.0,
        outcome: Outcome::Ok {
            reply,
            returned_at: at.1,
            revision: Some(revision),
        },
    }
}

fn ran(command: Command, answer: Answer, revision: u64) -> Ran {
    Ran {
        command,
        answer,
        revision,
    }
}

/// a counts to 5 at revision 1; a transfer of unknown outcome takes 2 and 3; another, which watched
/// revision 1, is stopped; c lives from revision 4 for 100 ms and is gone at 5.
fn log() -> Vec<Entry> {
    let numbers = |numbers: &[i64]| numbers.iter().map(|n| Answer::Number(*n)).collect();
    vec![
        Entry {
            stamp_ms: 1_000,
            ran: vec![
                ran(add("a", 5), Answer::Number(5), 1),
                ran(transfer(1), Answer::List(numbers(&[4, 1])), 3),
            ],
        },
        Entry {
            stamp_ms: 1_010,
            ran: vec![
                ran(transfer(1), Answer::Aborted, 3),
                ran(set("c", "x", Expiry::In(100)), Answer::Ok, 4),
            ],
        },
        Entry {
            stamp_ms: 1_109,
            ran: vec![],
        },
        Entry {
            stamp_ms: 1_110,
            ran: vec![],
        },
    ]
}

const ADDED: usize = 0;
const STOPPED: usize = 2;
const READ: usize = 3;
const TIMED: usize = 4;

fn history() -> History {
    let unknown = Operation {
        process: 2,
        key: String::new(),
        op: Request::Write(transfer(1)),
        invoked_at: 15,
        outcome: Outcome::Unknown,
    };
    let time = Request::Read(vec![Query::TimeLeft { key: "c".into() }]);
    let gone = Request::Read(vec![Query::Exists {
        keys: vec!["c".into()],
    }]);
    vec![
        answered(Request::Write(add("a", 5)), (10, 20), Answer::Number(5), 1),
        unknown,
        answered(Request::Write(transfer(1)), (30, 40), Answer::Aborted, 3),
        answered(both(), (35, 50), values(Some("4"), Some("1")), 3),
        answered(time, (60, 70), Answer::List(vec![Answer::Number(40)]), 4),
        answered(gone, (60, 190), Answer::List(vec![Answer::Number(0)]), 5),
        answered(
            Request::Write(set("c", "x", Expiry::In(100))),
            (55, 65),
            Answer::Ok,
            4,
        ),
    ]
}

#[test]
fn what_the_log_explains_is_accepted() {
    let verdict = order::check(&log(), &history()).unwrap();
    assert_eq!(verdict.transactions, (1, 1));
    assert_eq!(verdict.unknown_that_ran, 1);
    assert_eq!(verdict.space.revision(), 5);
    assert_eq!(verdict.space.get("b").unwrap().value, "1");
    let [expiry] = &verdict.expiries[..] else {
        panic!("{:?}", verdict.expiries);
    };
    assert_eq!(
        (expiry.what.deadline.at_ms, expiry.what.revision),
        (1_110, 5)
    );
    assert_eq!((expiry.set_in, expiry.removed_in), (1, 3));
    assert_eq!((expiry.set_invoked_at, expiry.shown_at), (55, Some(190)));
}

fn rejected(log: &[Entry], history: &History) -> String {
    match order::check(log, history) {
        Err(failure @ (Failure::NotTheLog { .. } | Failure::RevisionOrder { .. })) => {
            failure.to_string()
        }
        other => panic!("{other:?}"),
    }
}

fn reply(operation: &mut Operation<Request, Answer>, answer: Answer, at: u64) {
    let Outcome::Ok {
        reply, revision, ..
    } = &mut operation.outcome
    else {
        panic!("{operation} has no reply");
    };
    (*reply, *revision) = (answer, Some(at));
}

#[test]
fn a_read_of_half_a_transaction_is_found() {
    let mut wrong = history();
    reply(&mut wrong[READ], values(Some("4"), None), 2);
    assert!(rejected(&log(), &wrong).contains("middle of a transaction"));
    reply(&mut wrong[READ], values(Some("4"), None), 3);
    assert!(rejected(&log(), &wrong).contains("should have seen"));
}

#[test]
fn a_guard_that_was_not_checked_is_found() {
    let mut wrong = log();
    let numbers = Answer::List(vec![Answer::Number(3), Answer::Number(2)]);
    wrong[1].ran[0] = ran(transfer(1), numbers, 5);
    assert!(rejected(&wrong, &history()).contains("answers Aborted"));
}

#[test]
fn acknowledged_and_lost_or_answered_otherwise_is_found() {
    let mut lost = log();
    lost[1].ran.remove(0);
    assert!(rejected(&lost, &history()).contains("is not in the log"));
    let mut otherwise = history();
    reply(&mut otherwise[ADDED], Answer::Number(6), 1);
    assert!(rejected(&log(), &otherwise).contains("answered otherwise"));
}

#[test]
fn what_ran_twice_or_was_refused_or_invented_is_found() {
    let mut twice = log();
    twice[3].ran.push(ran(add("a", 5), Answer::Number(9), 6));
    assert!(rejected(&twice, &history()).contains("ran twice"));
    let mut refused = history();
    refused[1].outcome = Outcome::NotExecuted;
    assert!(rejected(&log(), &refused).contains("was refused"));
    let mut invented = history();
    invented.remove(1);
    assert!(rejected(&log(), &invented).contains("was invented"));
}

#[test]
fn an_order_that_real_time_contradicts_is_found_across_keys() {
    let mut stale = history();
    // c was written and acknowledged before this read of other keys began.
    stale[READ].invoked_at = 66;
    if let Outcome::Ok { returned_at, .. } = &mut stale[READ].outcome {
        *returned_at = 80;
    }
    assert!(rejected(&log(), &stale).contains("revisions went back"));
    let mut unknown = history();
    // It took effect before it was asked for.
    unknown[1].invoked_at = 41;
    assert!(rejected(&log(), &unknown).contains("revisions went back"));
}

#[test]
fn a_key_is_there_until_a_stamp_reaches_its_deadline() {
    let mut early = history();
    let gone = Request::Read(vec![Query::Exists {
        keys: vec!["c".into()],
    }]);
    early.push(answered(
        gone,
        (70, 80),
        Answer::List(vec![Answer::Number(0)]),
        4,
    ));
    assert!(rejected(&log(), &early).contains("should have seen"));
    for (left, fits) in [
        (100, true),
        (1, true),
        (0, false),
        (101, false),
        (-2, false),
    ] {
        let mut timed = history();
        reply(
            &mut timed[TIMED],
            Answer::List(vec![Answer::Number(left)]),
            4,
        );
        assert_eq!(order::check(&log(), &timed).is_ok(), fits, "{left}");
    }
}

#[test]
fn a_transaction_may_be_stopped_by_a_hash_only_after_a_removal() {
    let absent = |at| Command::Transaction {
        guards: vec![Guard {
            key: "a".into(),
            holds: Holds::AbsentSince(at),
        }],
        steps: vec![Step::Write(add("b", 1))],
        otherwise: vec![],
    };
    let mut space = Space::default();
    space.execute(&set("c", "x", Expiry::None), 0, None);
    let done = Answer::List(vec![Answer::Number(1)]);
    assert_eq!(space.execute(&absent(1), 1, Some(&Answer::Aborted)), done);
    let keys = vec!["c".into()];
    space.execute(&Command::Del { keys }, 2, None);
    assert_eq!(
        space.execute(&absent(2), 3, Some(&Answer::Aborted)),
        Answer::Aborted
    );
    assert_eq!(space.false_aborts, 1);
    assert_eq!(
        space.execute(&absent(3), 4, Some(&Answer::Aborted)),
        Answer::List(vec![Answer::Number(2)])
    );
}

#[test]
fn the_stopped_transaction_changed_nothing() {
    let history = history();
    assert_eq!(history[STOPPED].reply(), Some(&Answer::Aborted));
    let mut wrong = log();
    wrong[1].ran[0].revision = 4;
    assert!(rejected(&wrong, &history).contains("at revision 3"));
}
