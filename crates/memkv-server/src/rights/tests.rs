//! Tests of the decision and of authentication, over tables that are made of modifiers.

use std::net::IpAddr;

use bytes::Bytes;
use memkv_store::{Command, Query, UserSpec, UserTable};

use super::*;
use crate::commands::find;

/// A table of users, each with modifiers.
pub(crate) fn replicated(users: &[(&str, &[&str])]) -> UserTable {
    let mut all: Vec<(Bytes, UserSpec)> = Vec::new();
    let default: (&str, &[&str]) = (
        "default",
        &["on", "nopass", "allkeys", "allchannels", "+@all"],
    );
    let has_default = users.iter().any(|(name, _)| *name == "default");
    let users = users.iter().chain((!has_default).then_some(&default));
    for (name, ops) in users {
        let mut draft = Draft::default();
        for op in *ops {
            draft.modify(op.as_bytes()).unwrap();
        }
        all.push((
            Bytes::copy_from_slice(name.as_bytes()),
            draft.spec().unwrap(),
        ));
    }
    UserTable::first(&all).unwrap()
}

/// The same, compiled.
pub(crate) fn table(users: &[(&str, &[&str])]) -> Table {
    Table::of(&replicated(users), &Table::alone(None))
}

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn shown<'a>(user: &'a str, secret: &'a str) -> Shown<'a> {
    Shown {
        user: Some(user.as_bytes()),
        secret: secret.as_bytes(),
    }
}

/// What is decided about one command.
fn decided<'a>(ops: &[&str], command: &str, touches: Touches<'a, '_>) -> String {
    let table = table(&[("ann", ops)]);
    let spec = find(command.as_bytes()).unwrap();
    match decide(
        &table.get(b"ann").unwrap().rules,
        &Attempt::command(spec),
        touches,
    ) {
        Ok(()) => "ok".to_owned(),
        Err(denied) => format!(
            "{} {}",
            denied.reason(),
            String::from_utf8_lossy(denied.object())
        ),
    }
}

fn key(key: &'static str) -> Bytes {
    Bytes::from_static(key.as_bytes())
}

#[test]
fn a_key_needs_a_pattern_with_the_access() {
    let get = Query::Get { key: key("a1") };
    let set = Command::Set {
        key: key("a1"),
        value: key("v"),
    };
    let length = Query::StrLen { key: key("a1") };
    for (ops, of_get, of_set, of_length) in [
        (&["+@all", "~*"][..], "ok", "ok", "ok"),
        (&["+@all", "~a*"], "ok", "ok", "ok"),
        (&["+@all", "%R~a*"], "ok", "key a1", "ok"),
        (&["+@all", "%W~a*"], "key a1", "ok", "ok"),
        (&["+@all", "~b*"], "key a1", "key a1", "key a1"),
        (&["+@all"], "key a1", "key a1", "key a1"),
        (&["~*"], "command get", "command set", "command strlen"),
        (&["+get", "(+set ~a*)"], "key a1", "ok", "command strlen"),
        (
            &["+get", "~b*", "(+get ~a*)"],
            "ok",
            "command set",
            "command strlen",
        ),
    ] {
        assert_eq!(
            decided(ops, "get", &|visit| get.touches(visit)),
            of_get,
            "{ops:?}"
        );
        assert_eq!(
            decided(ops, "set", &|visit| set.touches(visit)),
            of_set,
            "{ops:?}"
        );
        let shown = decided(ops, "strlen", &|visit| length.touches(visit));
        assert_eq!(shown, of_length, "{ops:?}");
    }
}

#[test]
fn a_range_needs_a_pattern_that_holds_it_and_a_database_none() {
    let range = |prefix: &str| Query::prefix(prefix.as_bytes(), None, 10, false);
    let of = |ops: &[&str], prefix: &str| {
        let range = range(prefix);
        decided(ops, "memkv.range", &|visit| range.touches(visit))
    };
    assert_eq!(of(&["+@all", "~a*"], "ab"), "ok");
    assert_eq!(of(&["+@all", "~a*"], "a"), "ok");
    assert_eq!(of(&["+@all", "~a*"], ""), "key ");
    assert_eq!(of(&["+@all", "~a*b"], "a"), "key ");
    assert_eq!(of(&["+@all", "~*"], ""), "ok");
    let flush = Command::FlushAll;
    assert_eq!(
        decided(&["+@all"], "flushall", &|visit| flush.touches(visit)),
        "ok"
    );
}

#[test]
fn channels_are_matched_and_patterns_of_channels_are_compared() {
    let table = table(&[("ann", &["+@all", "&news.*"])]);
    let of = |name: &str, channel: &'static str, are_patterns| {
        let channels = [key(channel)];
        let asked = Attempt {
            channels: &channels,
            are_patterns,
            ..Attempt::command(find(name.as_bytes()).unwrap())
        };
        decide(&table.get(b"ann").unwrap().rules, &asked, &|_| {}).is_ok()
    };
    assert!(of("publish", "news.a", false) && !of("publish", "new", false));
    assert!(of("psubscribe", "news.*", true) && !of("psubscribe", "news.a*", true));
}

#[test]
fn what_ends_and_begins_a_session_is_always_allowed() {
    for name in ["hello", "auth", "quit", "reset"] {
        assert_eq!(decided(&[], name, &|_| {}), "ok");
    }
    assert_eq!(decided(&[], "ping", &|_| {}), "command ping");
}

#[tokio::test]
async fn passwords_tokens_and_users_without_one() {
    let rights = Rights::default();
    let (token, kept) = new_token(1000);
    let mut users: Vec<_> = replicated(&[
        ("ann", &["on", ">secret"]),
        ("off", &["off", ">secret"]),
        ("open", &["on", "nopass"]),
    ])
    .users()
    .map(|user| (user.name.clone(), user.spec()))
    .collect();
    for (name, user) in &mut users {
        if name == "ann" {
            user.secrets.push(kept.clone());
        }
    }
    assert!(rights.follow(&UserTable::first(&users).unwrap()));
    let there: IpAddr = "10.0.0.1".parse().unwrap();
    let ask = async |addr, shown: Shown<'_>, now| {
        let result = rights.authenticate(addr, &shown, now).await;
        result.map(|identity| String::from_utf8_lossy(&identity.user.name).into_owned())
    };
    let ann = Ok("ann".to_owned());
    assert_eq!(ask(HERE, shown("ann", "secret"), 0).await, ann);
    assert_eq!(ask(HERE, shown("ann", &token), 999).await, ann);
    let bearer = Shown {
        user: None,
        secret: token.as_bytes(),
    };
    assert_eq!(ask(HERE, bearer, 999).await, ann);
    assert_eq!(
        ask(there, shown("open", "any"), 0).await,
        Err(AuthError::Exposed)
    );
    assert_eq!(
        ask(HERE, shown("open", "any"), 0).await,
        Ok("open".to_owned())
    );
    for (user, secret, now) in [
        ("ann", "wrong", 0),
        ("ann", &token[..], 1000),
        ("off", "secret", 0),
        ("nosuch", "secret", 0),
    ] {
        let result = ask(HERE, shown(user, secret), now).await;
        assert_eq!(result, Err(AuthError::Wrong), "{user}");
    }
    assert_eq!(rights.counted(), [4, 0]);
    assert!(rights.stranger(HERE).is_some() && rights.stranger(there).is_none());
}

#[test]
fn an_identity_ends_with_its_user_and_its_credential() {
    let first = table(&[("ann", &["on", ">a"]), ("bob", &["on", ">a"])]);
    let ann = first.get(b"ann").unwrap();
    let identity = Identity {
        user: ann.clone(),
        credential: ann.secrets[0].id(),
    };
    assert!(identity.renewed(&first).is_some());
    assert_eq!(identity.principal(7).user, ann.id);
    for ops in [&["on", ">b"][..], &["off", ">a"], &["on", "nopass"]] {
        let next = table(&[("ann", ops), ("bob", &["on", ">a"])]);
        assert!(identity.renewed(&next).is_none(), "{ops:?}");
    }
    assert!(
        identity
            .renewed(&table(&[("bob", &["on", ">a"])]))
            .is_none()
    );
}
