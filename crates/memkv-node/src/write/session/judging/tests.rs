//! What becomes of the commands in a window whose users lose rights.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use memkv_store::{
    BatchBuilder, Command, DEFAULT_USER, EDGE_LEVEL, GroupRights, Member, NO_CREDENTIAL, Principal,
    Rejected, Reply, ReplyValue, SessionId, Sink, Store, SystemOp, SystemOutcome, UserSpec,
    UserTable, check_group,
};
use tokio::sync::{oneshot, watch};

use super::super::{Event, Session};
use super::Judge;
use crate::RequestError;

const HOLD: Duration = Duration::from_secs(3);

type Waiting = oneshot::Receiver<Result<Reply, RequestError>>;

/// Allows a command or not, whatever it is, and notes what it was asked.
struct Fixed {
    allows: bool,
    asked: Arc<Mutex<Vec<(u64, Principal)>>>,
}

impl Judge for Fixed {
    fn judge(&self, users: &Arc<UserTable>, principal: &Principal, _: &Bytes) -> bool {
        let asked = (users.revision(), *principal);
        self.asked.lock().expect("no panic").push(asked);
        self.allows
    }
}

/// A store, and the session of its node, which sees what the store applies.
struct Node {
    store: Store,
    session: Arc<Session>,
    users: watch::Sender<Option<Arc<UserTable>>>,
    asked: Arc<Mutex<Vec<(u64, Principal)>>>,
    other: SessionId,
    others: u64,
}

struct Events {
    of: SessionId,
    events: Vec<Event>,
}

impl Sink for Events {
    fn reply(&mut self, session: SessionId, seq: u64, reply: &Reply) {
        if session == self.of {
            let reply = reply.clone();
            self.events.push(Event::Executed { seq, reply });
        }
    }
    fn duplicate(&mut self, _: SessionId, _: u64, _: Option<&Reply>) {}
    fn rejected(&mut self, session: SessionId, first_seq: u64, count: u64, why: Rejected) {
        if session == self.of {
            self.events.push(Event::Rejected {
                first_seq,
                count,
                why,
            });
        }
    }
    fn system(&mut self, _: usize, _: &SystemOutcome) {}
    fn malformed(&mut self, why: &memkv_store::DecodeError) {
        panic!("{why}");
    }
}

fn user(nopass: bool) -> UserSpec {
    UserSpec {
        enabled: true,
        nopass,
        ..UserSpec::default()
    }
}

impl Node {
    fn new(allows: bool) -> Node {
        Self::with(allows, &[DEFAULT_USER, b"ada", b"bob"])
    }

    /// Without names, a cluster that has no table of users yet.
    fn with(allows: bool, names: &[&'static [u8]]) -> Node {
        let member = |id: u64| Member {
            id,
            name: format!("n{id}"),
            addr: format!("h:{id}"),
            pending: false,
        };
        let mut store = Store::new();
        let form = SystemOp::Form {
            cluster: [7; 16],
            durability_sync: true,
            level: EDGE_LEVEL,
            members: vec![member(1), member(2)],
            users: names
                .iter()
                .map(|name| (Bytes::from_static(name), user(true)))
                .collect(),
        };
        let open = |node| SystemOp::OpenSession {
            node,
            boot: 1,
            highest: EDGE_LEVEL,
        };
        for (index, op) in [(1, form), (2, open(1)), (3, open(2))] {
            let mut batch = BatchBuilder::new(0);
            batch.system(&op);
            store.apply(index, &batch.finish(), &mut ());
        }
        let session = Arc::new(Session::new(1, 64 << 20));
        let users = watch::Sender::new(store.users().cloned());
        let asked = Arc::default();
        session.follow_users(users.subscribe());
        session.judge_by(Box::new(Fixed {
            allows,
            asked: Arc::clone(&asked),
        }));
        session.on_applied(vec![Event::Opened(2)]);
        Node {
            store,
            session,
            users,
            asked,
            other: 3,
            others: 0,
        }
    }

    fn principal(&self, of: &[u8]) -> Principal {
        let users = self.store.users().expect("a table");
        Principal {
            user: users.get(of).expect("the user").id,
            credential: NO_CREDENTIAL,
            revision: users.revision(),
        }
    }

    fn submit(&self, of: &[u8], key: &'static str) -> Waiting {
        let command = Command::Set {
            key: Bytes::from(key),
            value: Bytes::from_static(b"v"),
        };
        let principal = Some(self.principal(of));
        let submitted = self.session.submit_as(command.encode(), principal, HOLD);
        submitted.expect("there is room").receiver
    }

    fn group(&self) -> Bytes {
        self.session
            .next_group()
            .expect("something to send")
            .encoded
    }

    /// Applies a group as the next entry.
    fn apply(&mut self, group: &Bytes) {
        let mut batch = BatchBuilder::new(0);
        batch.raw_group(group);
        let mut events = Events {
            of: 2,
            events: Vec::new(),
        };
        let index = self.store.applied_index() + 1;
        self.store.apply(index, &batch.finish(), &mut events);
        self.users.send_replace(self.store.users().cloned());
        self.session.on_applied(events.events);
    }

    /// Another node changes the users.
    fn change(&mut self, command: Command) {
        self.others += 1;
        let encoded = [command.encode()];
        let mut rights = GroupRights::default();
        if self.store.users().is_some() {
            assert!(rights.add(self.principal(DEFAULT_USER)));
        }
        let (other, others) = (self.other, self.others);
        let group = memkv_store::encode_group_of(other, others, 0, &rights, encoded.iter());
        self.apply(&group);
    }

    fn narrow(&mut self, of: &'static [u8]) {
        let expected = self.store.users().expect("a table").get(of);
        self.change(Command::SetUser {
            name: Bytes::from_static(of),
            expected: expected.expect("the user").changed_at,
            user: user(true),
            narrows: true,
        });
    }

    fn remove(&mut self, of: &'static [u8]) {
        let names = vec![Bytes::from_static(of)];
        self.change(Command::DelUsers { names });
    }

    fn last_seq(&self) -> u64 {
        self.store
            .session(2)
            .map_or(0, |session| session.last_seq())
    }
}

fn answer(waiting: &mut Waiting) -> Option<Result<ReplyValue, RequestError>> {
    let answer = waiting.try_recv().ok()?;
    Some(answer.map(|reply| reply.value))
}

const NO_PERMISSION: Option<Result<ReplyValue, RequestError>> =
    Some(Err(RequestError::NoPermission));
const DONE: Option<Result<ReplyValue, RequestError>> = Some(Ok(ReplyValue::Ok));

#[tokio::test(start_paused = true)]
async fn a_command_of_a_user_who_is_gone_is_refused_and_the_others_keep_their_numbers() {
    let mut node = Node::new(true);
    let mut before = node.submit(b"ada", "a");
    let mut gone = node.submit(b"bob", "b");
    let mut after = node.submit(b"ada", "c");
    let group = node.group();
    node.remove(b"bob");
    node.apply(&group);
    assert_eq!(answer(&mut gone), NO_PERMISSION);
    assert!(answer(&mut before).is_none() && answer(&mut after).is_none());
    assert_eq!(node.last_seq(), 0, "no number is used up");
    let again = node.group();
    let info = check_group(&again).expect("a group");
    assert_eq!((info.first_seq, info.count), (1, 3));
    node.apply(&again);
    assert_eq!((answer(&mut before), answer(&mut after)), (DONE, DONE));
    assert!(node.store.exists(b"a") && node.store.exists(b"c"));
    assert!(!node.store.exists(b"b"));
    assert!(
        node.asked.lock().expect("no panic").is_empty(),
        "nothing was in doubt"
    );
}

#[tokio::test(start_paused = true)]
async fn the_judge_decides_for_a_user_who_was_narrowed() {
    for allows in [true, false] {
        let mut node = Node::new(allows);
        let mut waiting = node.submit(b"ada", "a");
        let old = node.principal(b"ada");
        let group = node.group();
        node.narrow(b"ada");
        node.apply(&group);
        let revision = node.store.users_revision();
        assert_eq!(*node.asked.lock().expect("no panic"), [(revision, old)]);
        let again = node.group();
        node.apply(&again);
        let expected = if allows { DONE } else { NO_PERMISSION };
        assert_eq!(answer(&mut waiting), expected);
        assert_eq!((node.last_seq(), node.store.exists(b"a")), (1, allows));
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_a_leader_still_has_is_never_executed_after_the_refusal() {
    let mut node = Node::new(false);
    let mut waiting = node.submit(b"ada", "a");
    let copy = node.group();
    node.narrow(b"ada");
    node.apply(&copy);
    assert_eq!(answer(&mut waiting), NO_PERMISSION);
    // The user gets everything back, and the copy comes by another leader.
    node.narrow(b"ada");
    node.apply(&copy);
    assert!(!node.store.exists(b"a"));
    let filler = node.group();
    node.apply(&filler);
    assert_eq!((node.last_seq(), node.store.exists(b"a")), (1, false));
}

#[tokio::test(start_paused = true)]
async fn what_was_executed_before_is_not_judged_again() {
    let mut node = Node::new(false);
    let mut first = node.submit(b"ada", "a");
    let group = node.group();
    node.apply(&group);
    assert_eq!(answer(&mut first), DONE);
    let mut second = node.submit(b"ada", "b");
    node.narrow(b"ada");
    // A leader has both in one group, although the first was executed.
    let encoded = [set("a"), set("b")];
    let mut rights = memkv_store::GroupRights::default();
    let old = Principal {
        revision: 3,
        ..node.principal(b"ada")
    };
    assert!(rights.add(old));
    let _sent = node.group();
    let both = memkv_store::encode_group_of(2, 1, 0, &rights, encoded.iter());
    node.apply(&both);
    assert_eq!(answer(&mut second), NO_PERMISSION);
    assert_eq!(node.last_seq(), 1);
}

fn set(key: &'static str) -> Bytes {
    let command = Command::Set {
        key: Bytes::from(key),
        value: Bytes::from_static(b"v"),
    };
    command.encode()
}

#[tokio::test(start_paused = true)]
async fn a_group_carries_the_smallest_revision_of_its_commands() {
    let mut node = Node::new(false);
    let mut old = node.submit(b"ada", "a");
    node.narrow(b"ada");
    // Judged anew, and sent together with the old one.
    let mut new = node.submit(b"ada", "b");
    let group = node.group();
    node.apply(&group);
    assert_eq!(answer(&mut old), NO_PERMISSION);
    assert!(answer(&mut new).is_none());
    let again = node.group();
    node.apply(&again);
    assert_eq!(answer(&mut new), DONE);
    assert!(!node.store.exists(b"a") && node.store.exists(b"b"));
}

/// The node has not applied the entry by which the cluster got its users, or lost a right of `default`.
#[tokio::test(start_paused = true)]
async fn a_command_that_was_judged_without_a_table_is_judged_by_it_once_there_is_one() {
    for (open, allows) in [(true, true), (true, false), (false, true)] {
        let mut node = Node::with(allows, &[]);
        let submitted = node.session.submit_as(set("a"), None, HOLD);
        let mut before = submitted.expect("there is room").receiver;
        let group = node.group();
        let users = vec![(Bytes::from_static(DEFAULT_USER), user(open))];
        node.change(Command::InitUsers { users });
        node.apply(&group);
        assert!(!node.store.exists(b"a"), "executed with all rights");
        // A group has no commands of both kinds.
        let ada = Principal {
            user: node.principal(DEFAULT_USER).user,
            ..node.principal(DEFAULT_USER)
        };
        let submitted = node.session.submit_as(set("b"), None, HOLD);
        let mut unjudged = submitted.expect("there is room").receiver;
        let submitted = node.session.submit_as(set("c"), Some(ada), HOLD);
        let mut judged = submitted.expect("there is room").receiver;
        for _ in 0..4 {
            if let Some(group) = node.session.next_group() {
                node.apply(&group.encoded);
            }
        }
        let expected = if open && allows { DONE } else { NO_PERMISSION };
        assert_eq!(answer(&mut before), expected, "{open} {allows}");
        assert_eq!(answer(&mut unjudged), expected, "{open} {allows}");
        if open {
            assert_eq!(answer(&mut judged), DONE);
        }
        let may = open && allows;
        assert_eq!(
            (node.store.exists(b"a"), node.store.exists(b"b")),
            (may, may)
        );
    }
}

/// A group is judged by the table that is there when it begins.
#[tokio::test(start_paused = true)]
async fn a_command_behind_a_change_of_users_is_judged_by_the_new_table() {
    let mut node = Node::new(false);
    let ada = node.store.users().expect("a table").get(b"ada").cloned();
    let change = Command::SetUser {
        name: Bytes::from_static(b"ada"),
        expected: ada.expect("the user").changed_at,
        user: user(true),
        narrows: true,
    };
    let default = node.principal(DEFAULT_USER);
    let submitted = node.session.submit_as(change.encode(), Some(default), HOLD);
    let mut changed = submitted.expect("there is room").receiver;
    let mut behind = node.submit(b"ada", "a");
    for _ in 0..4 {
        if let Some(group) = node.session.next_group() {
            node.apply(&group.encoded);
        }
    }
    assert!(matches!(
        answer(&mut changed),
        Some(Ok(ReplyValue::Integer(_)))
    ));
    assert_eq!(answer(&mut behind), NO_PERMISSION);
    assert!(!node.store.exists(b"a"));
}
