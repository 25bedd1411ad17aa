//! Users as replicated state: the commands that change the table, the limits, and the way of the table
//! through snapshots.

use bytes::Bytes;
use memkv_store::{
    BY_CERTIFICATE, BatchBuilder, Command, EDGE_LEVEL, FIRST_LEVEL, GroupRights, LoadError,
    MAX_PASSWORD_BYTES, MAX_RULES_BYTES, MAX_SECRETS, MAX_USER_NAME_BYTES, MAX_USERS, Member,
    Principal, Rejected, Reply, ReplyError, ReplyValue, Secret, SecretKind, SessionId, Store,
    SystemOp, UserSpec, check_command, encode_group_of,
};

use crate::support::{Event, apply, load, open, set, snapshot, system};

pub(crate) fn name(name: &str) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

pub(crate) fn secret(number: u8) -> Secret {
    Secret::new(SecretKind::Sha256([number; 32]))
}

pub(crate) fn spec(secrets: &[u8]) -> UserSpec {
    UserSpec {
        enabled: true,
        nopass: secrets.is_empty(),
        secrets: secrets.iter().map(|number| secret(*number)).collect(),
        rules: Bytes::from_static(b"~* &* +@all"),
    }
}

fn form(level: u32, users: &[(&str, UserSpec)]) -> SystemOp {
    let users = users.iter().map(|(of, user)| (name(of), user.clone()));
    SystemOp::Form {
        cluster: [7; 16],
        durability_sync: true,
        level,
        members: vec![Member {
            id: 1,
            name: "n1".to_owned(),
            addr: "h:1".to_owned(),
            pending: false,
        }],
        users: users.collect(),
    }
}

pub(crate) struct Cluster {
    pub(crate) store: Store,
    pub(crate) session: SessionId,
}

impl Cluster {
    pub(crate) fn new(level: u32, users: &[(&str, UserSpec)]) -> Cluster {
        let mut store = Store::new();
        apply(&mut store, &system(&[form(level, users)]));
        let mut batch = BatchBuilder::new(0);
        batch.system(&SystemOp::OpenSession {
            node: 1,
            boot: 1,
            highest: 9,
        });
        apply(&mut store, &batch.finish());
        let session = store.session_of_node(1).expect("a session");
        Cluster { store, session }
    }

    pub(crate) fn with_users() -> Cluster {
        Cluster::new(
            EDGE_LEVEL,
            &[("default", spec(&[])), ("ada", spec(&[1, 2]))],
        )
    }

    pub(crate) fn next(&self) -> u64 {
        self.store
            .session(self.session)
            .map_or(0, |it| it.last_seq())
            + 1
    }

    /// Executes a command, for `default` by its certificate if there are users.
    pub(crate) fn run(&mut self, command: Command) -> ReplyValue {
        assert_eq!(check_command(&command.encode()), Ok(()), "{command:?}");
        let default = self
            .store
            .users()
            .map(|_| self.principal("default", BY_CERTIFICATE));
        let first = self.next();
        match &self.send(first, default.as_slice(), &[command.encode()])[..] {
            [Event::Reply(_, _, Reply { value, .. })] => value.clone(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn set_user(&mut self, of: &str, user: UserSpec, narrows: bool) -> ReplyValue {
        let expected = self
            .store
            .users()
            .and_then(|users| users.get(of.as_bytes()));
        let expected = expected.map_or(0, |user| user.changed_at);
        self.run(Command::SetUser {
            name: name(of),
            expected,
            user,
            narrows,
        })
    }

    pub(crate) fn del(&mut self, of: &[&str]) -> ReplyValue {
        let names = of.iter().map(|of| name(of)).collect();
        self.run(Command::DelUsers { names })
    }

    pub(crate) fn revision(&self) -> u64 {
        self.store.users_revision()
    }

    pub(crate) fn principal(&self, of: &str, credential: u64) -> Principal {
        let users = self.store.users().expect("a table");
        Principal {
            user: users.get(of.as_bytes()).expect("the user").id,
            credential,
            revision: users.revision(),
        }
    }

    pub(crate) fn send(&mut self, first: u64, of: &[Principal], commands: &[Bytes]) -> Vec<Event> {
        let mut rights = GroupRights::default();
        of.iter()
            .for_each(|principal| assert!(rights.add(*principal)));
        let group = encode_group_of(self.session, first, 0, &rights, commands.iter());
        let mut batch = BatchBuilder::new(0);
        batch.raw_group(&group);
        apply(&mut self.store, &batch.finish())
    }

    /// Whether a command of this principal is executed.
    pub(crate) fn allows(&mut self, of: Principal) -> bool {
        let first = self.next();
        match &self.send(first, &[of], &[set(b"k", b"v")])[..] {
            [Event::Reply(..)] => true,
            [Event::Rejected(_, from, 1, Rejected::Rights { revision })] => {
                assert_eq!((*from, *revision), (first, self.revision()));
                assert_eq!(self.next(), first, "no number is used up");
                false
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn integer(number: u64) -> ReplyValue {
    ReplyValue::Integer(number.cast_signed())
}

fn error(error: ReplyError) -> ReplyValue {
    ReplyValue::Error(error)
}

#[test]
fn the_first_entry_carries_the_first_users() {
    let cluster = Cluster::with_users();
    let users = cluster.store.users().expect("a table");
    let names: Vec<_> = users.users().map(|user| user.name.clone()).collect();
    assert_eq!(names, ["ada", "default"]);
    assert_eq!(users.revision(), 2);
    assert!(Cluster::new(EDGE_LEVEL, &[]).store.users().is_none());
    // Below the level there are none, whatever the founder was given.
    let old = Cluster::new(FIRST_LEVEL, &[("default", spec(&[]))]);
    assert!(old.store.users().is_none());
}

#[test]
fn a_table_is_initialised_once() {
    let mut cluster = Cluster::new(EDGE_LEVEL, &[]);
    assert_eq!(cluster.revision(), 0);
    assert_eq!(
        cluster.set_user("ada", spec(&[1]), false),
        error(ReplyError::NoUsers)
    );
    assert_eq!(cluster.del(&["ada"]), error(ReplyError::NoUsers));
    let users = vec![(name("default"), spec(&[]))];
    let init = Command::InitUsers { users };
    assert_eq!(cluster.run(init.clone()), integer(1));
    assert_eq!(cluster.run(init), integer(0));
    assert_eq!(cluster.revision(), 1);
    assert_eq!(cluster.set_user("ada", spec(&[1]), false), integer(2));
}

#[test]
fn a_user_is_replaced_only_if_it_is_the_expected_one() {
    let mut cluster = Cluster::with_users();
    let write = |expected| Command::SetUser {
        name: name("ada"),
        expected,
        user: spec(&[3]),
        narrows: false,
    };
    let before = cluster.store.digest();
    for expected in [0, 1, 3] {
        assert_eq!(cluster.run(write(expected)), ReplyValue::Nil);
    }
    assert_eq!(cluster.revision(), 2);
    assert_ne!(cluster.store.digest(), before, "only the session went on");
    assert_eq!(cluster.run(write(2)), integer(3));
    assert_eq!(cluster.run(write(2)), ReplyValue::Nil);
}

#[test]
fn an_id_is_never_given_twice_and_default_stays() {
    let mut cluster = Cluster::with_users();
    let first = cluster.principal("ada", secret(1).id());
    assert_eq!(
        cluster.del(&["ada", "ada", "nobody", "default"]),
        integer(1)
    );
    assert_eq!(cluster.revision(), 3);
    assert_eq!(cluster.del(&["nobody"]), integer(0));
    assert_eq!(cluster.revision(), 3);
    assert_eq!(cluster.set_user("ada", spec(&[1]), false), integer(4));
    let again = cluster.principal("ada", secret(1).id());
    assert_ne!(first.user, again.user);
    assert!(!cluster.allows(first) && cluster.allows(again));
    let users = cluster.store.users().expect("a table");
    assert!(users.get(b"default").is_some());
}

#[test]
fn the_commands_of_users_are_pinned_and_refuse_cut_input() {
    let user = UserSpec {
        enabled: true,
        nopass: false,
        secrets: vec![
            Secret::new(SecretKind::Password(Bytes::from_static(b"$a"))),
            Secret::new(SecretKind::Token {
                sha256: [9; 32],
                expires_at_ms: 5,
            }),
        ],
        rules: Bytes::from_static(b"~*"),
    };
    let spec = [&[1, 0, 2, 0, 2][..], b"$a", &[2], &[9; 32], &[5, 2], b"~*"].concat();
    let cases = [
        (
            Command::SetUser {
                name: name("ada"),
                expected: 7,
                user: user.clone(),
                narrows: true,
            },
            [&b"\x20\x03ada\x07\x01"[..], &spec].concat(),
        ),
        (
            Command::DelUsers {
                names: vec![name("a"), name("b")],
            },
            b"\x21\x02\x01a\x01b".to_vec(),
        ),
        (
            Command::InitUsers {
                users: vec![(name("default"), user)],
            },
            [&b"\x22\x01\x07default"[..], &spec].concat(),
        ),
    ];
    for (command, bytes) in cases {
        assert_eq!(command.level(), EDGE_LEVEL);
        let encoded = command.encode();
        assert_eq!(encoded, bytes);
        for len in 0..encoded.len() {
            assert!(
                Command::decode(&encoded.slice(..len)).is_err(),
                "cut at {len}"
            );
        }
        assert_eq!(Command::decode(&encoded), Ok(command.clone()));
        // Only on its own.
        assert!(Command::decode(&command.clone().in_database(2).encode()).is_err());
        let step = memkv_store::Step::Write(command.clone());
        let transaction = Command::Transaction {
            guards: vec![],
            operations: vec![step],
            otherwise: vec![],
        };
        assert!(Command::decode(&transaction.encode()).is_err());
        assert_eq!(
            transaction.check_limits(),
            Err(ReplyError::TransactionTooLong)
        );
        assert_eq!(command.check_limits(), Ok(()));
    }
}

#[test]
fn users_are_bounded() {
    let over = |change: &dyn Fn(&mut Bytes, &mut UserSpec)| {
        let (mut name, mut user) = (name("ada"), spec(&[1]));
        change(&mut name, &mut user);
        let command = Command::SetUser {
            name,
            expected: 0,
            user,
            narrows: false,
        };
        let checked = command.check_limits().is_ok();
        assert_eq!(
            check_command(&command.encode()).is_ok(),
            checked,
            "{command:?}"
        );
        !checked
    };
    assert!(!over(&|_, _| {}));
    let text = |len| Bytes::from(vec![b'x'; len]);
    assert!(over(&|name, _| *name = Bytes::new()));
    assert!(!over(&|name, _| *name = text(MAX_USER_NAME_BYTES)));
    assert!(over(&|name, _| *name = text(MAX_USER_NAME_BYTES + 1)));
    assert!(!over(&|_, user| user.rules = text(MAX_RULES_BYTES)));
    assert!(over(&|_, user| user.rules = text(MAX_RULES_BYTES + 1)));
    let secrets = |count: usize| (0..count).map(|number| secret(number as u8)).collect();
    assert!(!over(&|_, user| user.secrets = secrets(MAX_SECRETS)));
    assert!(over(&|_, user| user.secrets = secrets(MAX_SECRETS + 1)));
    let password = |len| vec![Secret::new(SecretKind::Password(text(len)))];
    assert!(!over(&|_, user| user.secrets = password(MAX_PASSWORD_BYTES)));
    assert!(over(
        &|_, user| user.secrets = password(MAX_PASSWORD_BYTES + 1)
    ));

    let first = |names: &[&str]| Command::InitUsers {
        users: names.iter().map(|of| (name(of), spec(&[]))).collect(),
    };
    assert!(check_command(&first(&["default", "ada"]).encode()).is_ok());
    for wrong in [&["ada"][..], &["default", "default"]] {
        assert!(check_command(&first(wrong).encode()).is_err());
    }
}

#[test]
fn a_table_takes_no_more_users_or_bytes_than_it_may() {
    let mut cluster = Cluster::new(EDGE_LEVEL, &[("default", spec(&[]))]);
    for number in 1..MAX_USERS {
        let of = format!("user{number}");
        assert_eq!(
            cluster.set_user(&of, spec(&[]), false),
            integer(number as u64 + 1)
        );
    }
    let before = cluster.revision();
    let full = error(ReplyError::TooManyUsers);
    assert_eq!(cluster.set_user("more", spec(&[]), false), full);
    assert_eq!(cluster.revision(), before);
    assert_eq!(
        cluster.set_user("user1", spec(&[1]), false),
        integer(before + 1)
    );
    let mut large = spec(&[]);
    large.rules = Bytes::from(vec![b'x'; MAX_RULES_BYTES]);
    let refused = (1..MAX_USERS)
        .find(|number| cluster.set_user(&format!("user{number}"), large.clone(), false) == full);
    // Four mebibytes of rules of sixteen kibibytes.
    assert!(
        (200..256).contains(&refused.expect("a limit")),
        "{refused:?}"
    );
    let blocks = snapshot(&mut cluster.store, 1 << 20);
    assert_eq!(
        load(&blocks).expect("a snapshot").digest(),
        cluster.store.digest()
    );
}

#[test]
fn a_snapshot_carries_the_users() {
    let mut cluster = Cluster::with_users();
    let without = Cluster::new(EDGE_LEVEL, &[]);
    cluster.set_user("bob", spec(&[3]), true);
    let blocks = snapshot(&mut cluster.store, 1 << 20);
    let loaded = load(&blocks).expect("a snapshot");
    assert_eq!(loaded.users(), cluster.store.users());
    assert_eq!(loaded.digest(), cluster.store.digest());
    assert_eq!(loaded.effects(), cluster.store.effects());
    assert!(without.store.users().is_none());
    for len in 0..blocks[0].len() {
        let cut = [&blocks[0][..len]];
        assert!(
            matches!(load(&cut), Err(LoadError::Decode(_))),
            "cut at {len}"
        );
    }
}

#[test]
fn a_snapshot_of_the_first_level_has_no_section_of_users() {
    let head = |level| {
        let mut cluster = Cluster::new(level, &[]);
        snapshot(&mut cluster.store, 1 << 20).remove(0)
    };
    // One byte says that there is no table.
    let (mut old, new) = (head(FIRST_LEVEL), head(EDGE_LEVEL));
    assert!(load(&[&old]).is_ok() && load(&[&new]).is_ok());
    assert!(load(&[&new[..new.len() - 1]]).is_err());
    old.push(0);
    assert!(load(&[&old]).is_err());
}

#[test]
fn every_change_of_users_shows_in_digest_and_effects() {
    let states = |change: &dyn Fn(&mut Cluster)| {
        let mut cluster = Cluster::with_users();
        change(&mut cluster);
        (cluster.store.digest(), cluster.store.effects())
    };
    let changed = [
        states(&|cluster| drop(cluster.set_user("ada", spec(&[1, 2]), false))),
        states(&|cluster| drop(cluster.set_user("ada", spec(&[1, 2]), true))),
        states(&|cluster| drop(cluster.set_user("ada", spec(&[1, 3]), false))),
        states(&|cluster| drop(cluster.set_user("bob", spec(&[1, 2]), false))),
        states(&|cluster| drop(cluster.del(&["ada"]))),
        states(&|cluster| drop(cluster.run(Command::Noop))),
    ];
    for (at, one) in changed.iter().enumerate() {
        for other in &changed[at + 1..] {
            assert!(one.0 != other.0 && one.1 != other.1, "{at}");
        }
    }
}

#[test]
fn a_cluster_below_the_level_refuses_users_and_principals() {
    let mut store = Store::new();
    let session = open(&mut store, 1, 1);
    let mut batch = BatchBuilder::new(0);
    let names = vec![name("ada")];
    batch.group(session, 1, 0, [Command::DelUsers { names }.encode()].iter());
    assert_eq!(apply(&mut store, &batch.finish()), [Event::Malformed]);
    let mut rights = GroupRights::default();
    assert!(rights.add(Principal {
        user: 1,
        credential: 0,
        revision: 1
    }));
    let noop = Command::Noop.encode();
    let mut batch = BatchBuilder::new(0);
    batch.raw_group(&encode_group_of(
        session,
        1,
        0,
        &rights,
        [&noop].into_iter(),
    ));
    assert_eq!(apply(&mut store, &batch.finish()), [Event::Malformed]);
}
