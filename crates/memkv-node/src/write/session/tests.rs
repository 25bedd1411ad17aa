//! The session's promises, one by one: what is answered, when, and what may be sent again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use memkv_store::{
    BatchBuilder, Command, Rejected, Reply, ReplyValue, Store, SystemOp, check_group,
};

use super::{
    COMMAND_OVERHEAD, COPIED_IN_WINDOW_BYTES, Event, GROWTH_REFUSED_FOR, GroupOutcome,
    LARGE_COMMAND, OUTCOME_GRACE, RESEND_AFTER, Session,
};
use crate::RequestError;

/// Of the sessions here.
const PENDING_BYTES: usize = 64 << 20;

const HOLD: Duration = Duration::from_secs(3);
const ID: u64 = 7;

fn no_leader() -> String {
    "no leader".to_owned()
}

type Waiting = tokio::sync::oneshot::Receiver<Result<Reply, RequestError>>;

fn open() -> Arc<Session> {
    let session = Arc::new(Session::new(1, PENDING_BYTES));
    session.on_applied(vec![Event::Opened(ID)]);
    session
}

fn submit(session: &Arc<Session>, key: &'static str) -> Waiting {
    let command = Command::Set {
        key: Bytes::from(key),
        value: Bytes::from_static(b"v"),
    };
    session
        .submit_as(command.encode(), None, HOLD)
        .unwrap()
        .receiver
}

fn executed(seq: u64) -> Event {
    Event::Executed {
        seq,
        reply: Reply {
            revision: seq,
            value: ReplyValue::Ok,
        },
    }
}

fn answer(waiting: &mut Waiting) -> Option<Result<Reply, RequestError>> {
    waiting.try_recv().ok()
}

fn is_not_executed(answer: Option<Result<Reply, RequestError>>) -> bool {
    matches!(answer, Some(Err(RequestError::NoLeader { .. })))
}

fn is_unknown(answer: Option<Result<Reply, RequestError>>) -> bool {
    matches!(answer, Some(Err(RequestError::Unknown { .. })))
}

#[tokio::test(start_paused = true)]
async fn replies_come_from_apply_in_order() {
    let session = open();
    let (mut first, mut second) = (submit(&session, "a"), submit(&session, "b"));
    let group = session.next_group().unwrap();
    assert_eq!((group.first_seq, group.count), (1, 2));
    assert!(
        session.next_group().is_none(),
        "nothing is sent twice without a reason"
    );
    session.on_applied(vec![executed(1)]);
    assert_eq!(answer(&mut first).unwrap().unwrap().revision, 1);
    assert!(answer(&mut second).is_none());
    session.on_applied(vec![executed(2)]);
    assert_eq!(answer(&mut second).unwrap().unwrap().revision, 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_before_the_session_is_open() {
    let session = Arc::new(Session::new(1, PENDING_BYTES));
    let _waiting = submit(&session, "a");
    assert!(session.next_group().is_none());
    session.on_applied(vec![Event::Opened(ID)]);
    assert!(session.next_group().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_was_not_executed() {
    let session = open();
    let mut waiting = submit(&session, "a");
    tokio::time::advance(HOLD).await;
    session.expire(no_leader);
    assert!(is_not_executed(answer(&mut waiting)));
    assert!(session.next_group().is_none(), "and never will be");
}

#[tokio::test(start_paused = true)]
async fn what_every_leader_refused_was_not_executed() {
    let session = open();
    let mut waiting = submit(&session, "a");
    for _ in 0..3 {
        let group = session.next_group().unwrap();
        session.settle(
            ID,
            group.first_seq,
            group.count,
            GroupOutcome::NotAppended,
            0,
        );
    }
    tokio::time::advance(HOLD).await;
    session.expire(no_leader);
    assert!(is_not_executed(answer(&mut waiting)));
    assert!(session.next_group().is_none(), "its number is given back");
}

#[tokio::test(start_paused = true)]
async fn one_attempt_in_doubt_makes_the_outcome_unknown_for_good() {
    let session = open();
    let mut waiting = submit(&session, "a");
    let group = session.next_group().unwrap();
    session.settle(ID, group.first_seq, group.count, GroupOutcome::Unknown, 0);
    let again = session.next_group().unwrap();
    session.settle(
        ID,
        again.first_seq,
        again.count,
        GroupOutcome::NotAppended,
        0,
    );
    tokio::time::advance(HOLD).await;
    session.expire(no_leader);
    assert!(is_unknown(answer(&mut waiting)));
    let filler = session.next_group().unwrap();
    assert_eq!(
        (filler.first_seq, filler.count),
        (1, 1),
        "its number must still be filled"
    );
    let noop_bytes = Command::Noop.encode().len();
    assert!(
        filler.encoded.len() < group.encoded.len() + noop_bytes,
        "but not with the command"
    );
}

#[tokio::test(start_paused = true)]
async fn a_command_in_a_leaders_hands_waits_a_little_for_a_better_answer() {
    let session = open();
    let mut waiting = submit(&session, "a");
    let group = session.next_group().unwrap();
    tokio::time::advance(HOLD).await;
    session.expire(no_leader);
    assert!(answer(&mut waiting).is_none());
    session.settle(
        ID,
        group.first_seq,
        group.count,
        GroupOutcome::NotAppended,
        0,
    );
    session.expire(no_leader);
    assert!(is_not_executed(answer(&mut waiting)));

    let mut waiting = submit(&session, "b");
    session.next_group().unwrap();
    tokio::time::advance(HOLD + OUTCOME_GRACE).await;
    session.expire(no_leader);
    assert!(is_unknown(answer(&mut waiting)));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_leader_sends_everything_in_doubt_again_and_keeps_the_numbers() {
    let session = open();
    let _waiting = [submit(&session, "a"), submit(&session, "b")];
    session.next_group().unwrap();
    session.on_applied(vec![executed(1)]);
    session.rewind();
    let again = session.next_group().unwrap();
    assert_eq!((again.first_seq, again.count), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_closed_from_where_it_begins() {
    let session = open();
    let _waiting = [
        submit(&session, "a"),
        submit(&session, "b"),
        submit(&session, "c"),
    ];
    session.next_group().unwrap();
    let gap = Event::Rejected {
        first_seq: 3,
        count: 1,
        why: Rejected::Gap { expected: 2 },
    };
    session.on_applied(vec![executed(1), gap]);
    let again = session.next_group().unwrap();
    assert_eq!((again.first_seq, again.count), (2, 2));
}

/// Whether the task that sends was woken since this was asked last.
fn is_woken(session: &Session) -> bool {
    use futures_util::FutureExt;
    session.wakeup.notified().now_or_never().is_some()
}

#[tokio::test(start_paused = true)]
async fn a_little_waits_for_what_is_on_its_way_and_much_does_not() {
    let session = open();
    let _first = submit(&session, "a");
    assert!(is_woken(&session));
    session.next_group().unwrap();
    let _second = submit(&session, "b");
    assert!(!is_woken(&session), "the effect of the first will wake it");
    assert!(session.next_group().is_none());
    session.on_applied(vec![executed(1)]);
    assert!(is_woken(&session));
    assert_eq!(session.next_group().unwrap().first_seq, 2);
    let large = Command::Set {
        key: Bytes::from_static(b"c"),
        value: Bytes::from(vec![0; super::EAGER_BYTES]),
    };
    let _third = session.submit_as(large.encode(), None, HOLD).unwrap();
    assert!(is_woken(&session));
    assert_eq!(session.next_group().unwrap().first_seq, 3);
}

#[tokio::test(start_paused = true)]
async fn a_window_without_progress_is_sent_again() {
    let session = open();
    let _waiting = submit(&session, "a");
    session.next_group().unwrap();
    tokio::time::advance(RESEND_AFTER).await;
    session.expire(no_leader);
    assert_eq!(session.next_group().unwrap().first_seq, 1);
}

#[tokio::test(start_paused = true)]
async fn a_closed_session_executes_nothing_more_and_says_so() {
    let session = open();
    let mut waiting = submit(&session, "a");
    let group = session.next_group().unwrap();
    session.on_applied(vec![Event::Rejected {
        first_seq: 1,
        count: 1,
        why: Rejected::UnknownSession,
    }]);
    assert!(is_not_executed(answer(&mut waiting)));
    session.on_applied(vec![Event::Opened(ID + 1)]);
    let _next = submit(&session, "b");
    assert_eq!(
        session.next_group().unwrap().first_seq,
        1,
        "numbers begin anew"
    );
    // The old group's outcome must not touch the new window.
    session.settle(
        ID,
        group.first_seq,
        group.count,
        GroupOutcome::NotAppended,
        0,
    );
    assert!(session.next_group().is_none());
}

/// A store whose log holds these operations, as a snapshot would bring it.
fn store_after(ops: &[SystemOp]) -> Store {
    let mut store = Store::default();
    for (op, index) in ops.iter().zip(ID..) {
        let mut batch = BatchBuilder::new(0);
        batch.system(op);
        store.apply(index, &batch.finish(), &mut ());
    }
    store
}

#[tokio::test(start_paused = true)]
async fn what_a_session_executed_behind_a_snapshot_is_unknown() {
    let open_session = SystemOp::OpenSession {
        node: 1,
        boot: 1,
        highest: 1,
    };
    let close = SystemOp::CloseSession { session: ID };
    // Closed, and closed and opened again by a request that came twice.
    for ops in [
        vec![open_session.clone(), close.clone()],
        vec![open_session.clone(), close, open_session],
    ] {
        let session = open();
        session.identify(1);
        let mut sent = submit(&session, "a");
        session.next_group().unwrap();
        let mut refused = submit(&session, "b");
        session.rewind();
        let group = session.next_group().unwrap();
        assert_eq!(group.count, 2);
        session.settle(ID, 2, 1, GroupOutcome::NotAppended, 0);
        session.on_snapshot(&store_after(&ops));
        assert!(is_unknown(answer(&mut sent)));
        assert!(is_not_executed(answer(&mut refused)));
        assert_eq!(session.id(), (ops.len() == 3).then_some(ID + 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_another_one_follows_was_closed() {
    let session = open();
    let mut waiting = submit(&session, "a");
    session.next_group().unwrap();
    session.on_applied(vec![executed(1)]);
    assert!(answer(&mut waiting).unwrap().is_ok());
    let mut waiting = submit(&session, "b");
    session.next_group().unwrap();
    session.on_applied(vec![Event::Opened(ID + 1)]);
    assert!(is_not_executed(answer(&mut waiting)));
    let _next = submit(&session, "c");
    assert_eq!(session.next_group().unwrap().first_seq, 1);
}

#[tokio::test(start_paused = true)]
async fn low_disks_refuse_at_once_and_leave_nothing_behind() {
    let session = open();
    let mut waiting = submit(&session, "a");
    let group = session.next_group().unwrap();
    session.settle(ID, group.first_seq, group.count, GroupOutcome::DiskLow, 0);
    assert_eq!(answer(&mut waiting), Some(Err(RequestError::DiskFull)));
    assert!(session.next_group().is_none());
    let _later = submit(&session, "b");
    assert_eq!(
        session.next_group().unwrap().first_seq,
        1,
        "the number was never used"
    );
}

#[tokio::test(start_paused = true)]
async fn low_disks_let_pass_what_only_removes() {
    let session = open();
    let del = Command::Del {
        keys: vec![Bytes::from_static(b"a")],
    };
    let submit_del = || {
        session
            .submit_as(del.encode(), None, HOLD)
            .unwrap()
            .receiver
    };
    let (mut set, mut removed) = (submit(&session, "a"), submit_del());
    let group = session.next_group().unwrap();
    assert!(!memkv_store::only_removes(&group.encoded, 0));
    session.settle(ID, 1, 2, GroupOutcome::DiskLow, 0);
    assert_eq!(answer(&mut set), Some(Err(RequestError::DiskFull)));
    assert!(answer(&mut removed).is_none());
    let again = session.next_group().unwrap();
    assert_eq!((again.first_seq, again.count), (1, 2));
    assert!(memkv_store::only_removes(&again.encoded, 0));
    session.settle(ID, 1, 2, GroupOutcome::DiskExhausted, 0);
    let refused = Some(Err(RequestError::DiskExhausted));
    assert_eq!(answer(&mut removed), refused, "the reserve is in danger");
    assert!(session.next_group().is_none());
}

#[tokio::test(start_paused = true)]
async fn short_memory_refuses_what_may_grow_the_keys_and_lets_the_rest_pass() {
    let session = open();
    let expire = Command::Persist {
        key: Bytes::from_static(b"a"),
    };
    let (mut set, mut persist) = (
        submit(&session, "a"),
        session
            .submit_as(expire.encode(), None, HOLD)
            .unwrap()
            .receiver,
    );
    let group = session.next_group().unwrap();
    assert!(memkv_store::may_grow(&group.encoded));
    session.settle(ID, 1, 2, GroupOutcome::MemoryLow, 0);
    assert_eq!(answer(&mut set), Some(Err(RequestError::OutOfMemory)));
    assert!(answer(&mut persist).is_none());
    let again = session.next_group().unwrap();
    assert_eq!((again.first_seq, again.count), (1, 2));
    assert!(!memkv_store::may_grow(&again.encoded));

    // For a moment growth is refused without a way to the leader, and without a number.
    let set = Command::Set {
        key: Bytes::from_static(b"c"),
        value: Bytes::new(),
    };
    let grow = || session.submit_as(set.encode(), None, HOLD);
    assert!(matches!(grow(), Err(RequestError::OutOfMemory)));
    assert!(session.submit_as(expire.encode(), None, HOLD).is_ok());
    tokio::time::advance(GROWTH_REFUSED_FOR).await;
    assert!(grow().is_ok(), "the leader is asked again");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_finishes_takes_nothing_more_and_sends_what_it_has() {
    let session = open();
    let mut taken = submit(&session, "a");
    session.finish();
    let late = session.submit_as(Command::Noop.encode(), None, HOLD);
    assert!(matches!(late, Err(RequestError::Stopping)));
    assert!(!session.is_idle());
    assert!(session.next_group().is_some());
    assert_eq!(answer(&mut taken), None, "it waits for its outcome");
}

#[tokio::test(start_paused = true)]
async fn a_stop_answers_everybody() {
    let session = open();
    let mut sent = submit(&session, "a");
    session.next_group().unwrap();
    let mut unsent = submit(&session, "b");
    session.close();
    assert!(is_unknown(answer(&mut sent)));
    assert_eq!(answer(&mut unsent), Some(Err(RequestError::Stopping)));
    let late = session.submit_as(Command::Noop.encode(), None, HOLD);
    assert!(matches!(late, Err(RequestError::Stopping)));
}

#[tokio::test(start_paused = true)]
async fn too_much_waiting_is_refused_before_it_is_taken() {
    let session = Arc::new(Session::new(1, PENDING_BYTES));
    let value = Bytes::from(vec![0; 8 << 20]);
    let command = Command::Set {
        key: Bytes::from_static(b"k"),
        value,
    }
    .encode();
    let mut waiting = Vec::new();
    let refused = loop {
        match session.submit_as(command.clone(), None, HOLD) {
            Ok(receiver) => waiting.push(receiver),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, RequestError::Overloaded { .. }));
    assert_eq!(
        waiting.len(),
        5,
        "three quarters of 64 MiB, of commands a little over 8 MiB each"
    );
    // The rest is for small ones.
    let small = Bytes::from(vec![0; LARGE_COMMAND - 1]);
    let mut kept = 0;
    while session.submit_as(small.clone(), None, HOLD).is_ok() {
        kept += small.len();
    }
    assert!(kept >= PENDING_BYTES / 4, "{kept}");
}

#[tokio::test(start_paused = true)]
async fn the_smallest_commands_are_counted_by_what_they_take() {
    let session = Arc::new(Session::new(1, PENDING_BYTES));
    let mut waiting = Vec::new();
    let refused = loop {
        match session.submit_as(Command::Noop.encode(), None, HOLD) {
            Ok(receiver) => waiting.push(receiver),
            Err(error) => break error,
        }
        assert!(waiting.len() <= PENDING_BYTES / COMMAND_OVERHEAD);
    };
    assert!(matches!(refused, RequestError::Overloaded { .. }));
}

/// Queued commands are answered with a reason that needs the machine, which apply holds while it takes the
/// window.
#[tokio::test(start_paused = true)]
async fn the_window_is_free_while_the_machine_is_looked_at() {
    let session = open();
    let mut waiting = submit(&session, "a");
    tokio::time::advance(HOLD).await;
    let machine = crate::sync::lock_order::Root::new("no leader");
    session.expire(|| machine.read().to_string());
    assert!(is_not_executed(answer(&mut waiting)));
}

#[tokio::test(start_paused = true)]
async fn the_largest_value_alone_is_taken() {
    let session = Arc::new(Session::new(1, PENDING_BYTES));
    let value = Bytes::from(vec![0; memkv_store::MAX_VALUE_BYTES_CEILING]);
    let key = Bytes::from(vec![0; memkv_store::MAX_KEY_BYTES]);
    let command = Command::Set { key, value }.encode();
    assert!(session.submit_as(command, None, HOLD).is_ok());
}

#[tokio::test(start_paused = true)]
async fn groups_are_what_the_store_reads() {
    let session = open();
    let _waiting = [submit(&session, "a"), submit(&session, "b")];
    session.next_group().unwrap();
    session.on_applied(vec![executed(1)]);
    session.rewind();
    let group = session.next_group().unwrap();
    let info = check_group(&group.encoded).unwrap();
    assert_eq!((info.session, info.first_seq, info.count), (ID, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_group_waits_for_most_clients_of_the_last_one() {
    let session = open();
    let _first = [submit(&session, "a"), submit(&session, "b")];
    let left = session.next_group().unwrap();
    assert_eq!(left.count, 2);
    let took = Duration::from_micros(300);
    tokio::time::advance(took).await;
    session.on_applied(vec![executed(1), executed(2)]);
    // Two fifths are missing, so the alarm must be set although nothing waits.
    assert!(session.waits_for_more_until().is_some());
    let alone = session
        .submit_as(Command::Noop.encode(), None, HOLD)
        .unwrap();
    assert!(alone.wake.is_none(), "it wakes no task");
    assert!(session.next_group().is_none());
    tokio::time::advance(took).await;
    assert_eq!(session.waits_for_more_until(), None, "it waits no longer");
    assert_eq!(session.next_group().map(|group| group.count), Some(1));
}

#[tokio::test(start_paused = true)]
async fn the_command_that_makes_a_group_enough_takes_it_along() {
    let session = open();
    let _first = [submit(&session, "a"), submit(&session, "b")];
    assert!(session.next_group().is_some());
    tokio::time::advance(Duration::from_micros(300)).await;
    session.on_applied(vec![executed(1), executed(2)]);
    let third = session
        .submit_as(Command::Noop.encode(), None, HOLD)
        .unwrap();
    let fourth = session
        .submit_as(Command::Noop.encode(), None, HOLD)
        .unwrap();
    assert!(third.wake.is_none() && fourth.wake.is_some());
    assert_eq!(session.next_group().map(|group| group.count), Some(2));
}

#[tokio::test]
async fn a_group_is_the_same_whether_it_was_copied_in_the_window_or_not() {
    for length in [1, COPIED_IN_WINDOW_BYTES] {
        let session = open();
        let commands = [length, 1].map(|length| {
            let command = Command::Set {
                key: Bytes::from_static(b"k"),
                value: Bytes::from(vec![b'v'; length]),
            };
            command.encode()
        });
        for command in &commands {
            session.submit_as(command.clone(), None, HOLD).unwrap();
        }
        let group = session.next_group().unwrap();
        let alike = memkv_store::encode_group(ID, 1, 0, commands.iter());
        assert!(group.encoded == alike, "{length}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_closing_session_has_refused_is_never_sent() {
    let session = open();
    let mut refused = submit(&session, "a");
    let group = session.next_group().unwrap();
    // It was not appended, so it is to be sent again.
    session.settle(
        ID,
        group.first_seq,
        group.count,
        GroupOutcome::NotAppended,
        0,
    );
    let mut unsent = submit(&session, "b");
    session.close();
    for waiting in [&mut refused, &mut unsent] {
        assert_eq!(answer(waiting), Some(Err(RequestError::Stopping)));
    }
    assert!(
        session.next_group().is_none(),
        "nothing was executed, they were told"
    );
}
