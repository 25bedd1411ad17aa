//! The authorisation matrix: every line of the command table and every route, times users, times the places
//! where a call can stand. What is expected follows from `statement`, which is written by hand after Redis's
//! documentation, and from the few lines of [`User::may`]: no code of the decision has a part in it.
//!
//! Invariants: a command or a route without a statement fails the test; what is refused changes nothing.

mod http;
mod statement;

use std::collections::BTreeSet;

use super::*;
use crate::backend::Backend as _;
use crate::commands::{Handler, TABLE};
use statement::{CALLS, Call, Use};

/// A user, by what the statement knows: categories and commands, patterns of keys, and channels.
struct User {
    name: &'static str,
    /// Redis's grammar, without keys and channels.
    commands: &'static str,
    /// The beginnings of keys, each with whether they may be read and written.
    keys: &'static [(&'static str, bool, bool)],
    /// The beginning of channels.
    channels: Option<&'static str>,
}

const ALL_KEYS: &[(&str, bool, bool)] = &[("", true, true)];

/// The users of the matrix: those of the documentation, one for each kind of pattern, and one for each category,
/// so that no command changes its class unseen.
const USERS: &[User] = &[
    of(
        "readonly",
        "+@read +@connection +@transaction +@pubsub +info",
        ALL_KEYS,
        Some(""),
    ),
    of(
        "readwrite",
        "+@all -@admin -@dangerous +info",
        ALL_KEYS,
        Some(""),
    ),
    of("admin", "+@all", ALL_KEYS, Some("")),
    of("fits", "+@all", &[("a", true, true)], Some("news")),
    of("misses", "+@all", &[("c", true, true)], Some("else")),
    of("reads", "+@all", &[("a", true, false)], Some("")),
    of("writes", "+@all", &[("a", false, true)], Some("")),
    of("listens", "+@pubsub +multi +exec", &[], Some("news")),
    of("deaf", "+@all", ALL_KEYS, None),
    of("of_read", "+@read +multi +exec", ALL_KEYS, Some("")),
    of("of_write", "+@write +multi +exec", ALL_KEYS, Some("")),
    of("of_admin", "+@admin +multi +exec", ALL_KEYS, Some("")),
    of(
        "of_dangerous",
        "+@dangerous +multi +exec",
        ALL_KEYS,
        Some(""),
    ),
    of(
        "of_connection",
        "+@connection +multi +exec",
        ALL_KEYS,
        Some(""),
    ),
    of("of_transaction", "+@transaction", ALL_KEYS, Some("")),
    of("of_pubsub", "+@pubsub +multi +exec", ALL_KEYS, Some("")),
    of(
        "of_scripting",
        "+@scripting +multi +exec",
        ALL_KEYS,
        Some(""),
    ),
    of("nobody", "-@all", ALL_KEYS, Some("")),
];

const fn of(
    name: &'static str,
    commands: &'static str,
    keys: &'static [(&'static str, bool, bool)],
    channels: Option<&'static str>,
) -> User {
    User {
        name,
        commands,
        keys,
        channels,
    }
}

impl User {
    /// The line that makes it.
    fn line(&self) -> String {
        let mut line = format!("ACL SETUSER {} on nopass {}", self.name, self.commands);
        for (begin, reads, writes) in self.keys {
            let grant = match (reads, writes) {
                (true, false) => "%R~",
                (false, true) => "%W~",
                _ => "~",
            };
            line += &format!(" {grant}{begin}*");
        }
        if let Some(channels) = self.channels {
            line += &format!(" &{channels}*");
        }
        line
    }

    /// Whether it may use a command of these categories at all.
    fn may_name(&self, name: &str, categories: &[&str]) -> bool {
        let mut may = false;
        for word in self.commands.split(' ') {
            let (sign, rule) = word.split_at(1);
            let applies = match rule.strip_prefix('@') {
                Some("all") => true,
                Some(category) => categories.contains(&category),
                None => rule == name || name.starts_with(&format!("{rule}|")),
            };
            if applies {
                may = sign == "+";
            }
        }
        may
    }

    fn may_use(&self, key: &str, how: Use) -> bool {
        self.keys.iter().any(|(begin, reads, writes)| {
            key.starts_with(begin) && (*reads || !how.reads()) && (*writes || !how.writes())
        })
    }

    fn may_channel(&self, channel: &str, is_pattern: bool) -> bool {
        self.channels.is_some_and(|begin| match is_pattern {
            // A pattern must be granted letter by letter, or everything must be.
            true => begin.is_empty() || channel == format!("{begin}*"),
            false => channel.starts_with(begin),
        })
    }

    /// What the statement lets it do.
    fn may(&self, call: &Call) -> bool {
        let keys = || call.keys().all(|(key, how)| self.may_use(key, how));
        let channels = || {
            let mut channels = call.channels();
            channels.all(|(name, is_pattern)| self.may_channel(name, is_pattern))
        };
        let named = call.is_open() || self.may_name(&call.name(), &call.categories());
        named && keys() && channels()
    }

    /// The same of a script with these keys, which calls these commands.
    fn may_script(&self, script: &Call, called: &[String]) -> bool {
        self.may(script)
            && called.iter().all(|name| {
                let call = CALLS.iter().find(|call| call.name() == *name);
                let call = call.expect("what scripts call has a statement");
                let how = call.keys().next().expect("it has a key").1;
                self.may_name(name, &call.categories())
                    && script.keys().all(|(key, _)| self.may_use(key, how))
            })
    }
}

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Location {
    Resp2,
    Resp3,
    Multi,
}

/// The commands that execute scripts: they have a matrix of their own.
const SCRIPTS: [&str; 4] = ["eval", "evalsha", "eval_ro", "evalsha_ro"];

const LOCATIONS: [Location; 3] = [Location::Resp2, Location::Resp3, Location::Multi];

/// How a call was answered, as far as rights go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allowed,
    /// NOPERM.
    Denied,
    /// NOAUTH.
    Stranger,
    /// No user may, whatever its rights are.
    Forbidden,
}

fn verdict(reply: &str) -> Verdict {
    if reply.contains("NOPERM ") {
        Verdict::Denied
    } else if reply.contains("NOAUTH ") {
        Verdict::Stranger
    } else if reply.starts_with("-ERR DEBUG command not allowed") {
        Verdict::Forbidden
    } else {
        Verdict::Allowed
    }
}

/// A server with the users of the matrix; the user `default` needs no password, or has one.
async fn server(default: &str) -> TestServer {
    let server = start_with(Some(Fake::at_edge_level()), resp_settings()).await;
    let mut admin = server.client().await;
    assert_eq!(admin.ask("MEMKV.USERS INIT").await, "+OK");
    for user in USERS {
        assert_eq!(admin.ask(&user.line()).await, "+OK", "{}", user.name);
    }
    for line in ["SET a1 v", "SET a2 v", "SET b1 v", default] {
        assert_eq!(admin.ask(line).await, "+OK", "{line}");
    }
    server
}

impl TestServer {
    /// How this call of a user, or of one that has shown nothing, is answered there.
    async fn call(&self, user: Option<&User>, location: Location, words: &[String]) -> Verdict {
        let mut client = self.client().await;
        let protocol = if location == Location::Resp3 { 3 } else { 2 };
        if let Some(user) = user {
            client
                .send(&format!("HELLO {protocol} AUTH {} any", user.name))
                .await;
            assert!(!client.shown().await.starts_with('-'), "{}", user.name);
        } else if protocol == 3 {
            // A stranger whose user `default` is open says so; another one is told NOAUTH.
            client.ask("HELLO 3").await;
        }
        if location == Location::Multi {
            client.ask("MULTI").await;
        }
        client.send_args(words).await;
        let reply = client.shown().await;
        if location == Location::Multi && reply == "+QUEUED" {
            // It is judged again when it is executed.
            return verdict(&client.ask("EXEC").await);
        }
        verdict(&reply)
    }

    fn index(&self) -> u64 {
        self.resp.service.backend().unwrap().status().applied_index
    }
}

/// What was asked, and what was answered otherwise than expected.
#[derive(Default)]
struct Findings {
    checked: usize,
    wrong: Vec<String>,
}

impl Findings {
    fn note(&mut self, asked: impl FnOnce() -> String, found: Verdict, expected: Verdict) {
        self.checked += 1;
        if found != expected {
            let line = format!("{}: {found:?}, not {expected:?}", asked());
            self.wrong.push(line);
        }
    }

    /// Everything was as expected, and at least so much was asked.
    #[track_caller]
    fn check(&self, what: &str, floor: usize) {
        eprintln!("{} {what} of the matrix", self.checked);
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
        assert!(self.checked >= floor, "{} of {floor}", self.checked);
    }
}

/// Calls the whole matrix of one user, or of a stranger.
async fn check(
    findings: &mut Findings,
    server: &TestServer,
    user: Option<&User>,
    expected: impl Fn(&Call) -> Verdict,
) {
    for call in CALLS.iter() {
        let expected = expected(call);
        for location in LOCATIONS {
            let before = server.index();
            let found = server.call(user, location, &call.words()).await;
            let asked = || {
                let name = user.map_or("(nobody)", |user| user.name);
                format!("{name} {location:?}: {}", call.text)
            };
            findings.note(asked, found, expected);
            if matches!(found, Verdict::Denied | Verdict::Stranger) {
                assert_eq!(server.index(), before, "{}", asked());
            }
        }
    }
}

#[test]
fn every_line_of_the_table_has_a_statement() {
    let stated: BTreeSet<String> = CALLS.iter().map(Call::name).collect();
    let executed = TABLE
        .iter()
        .filter(|spec| !matches!(spec.handler, Handler::Container));
    let table: BTreeSet<String> = executed
        .map(|spec| spec.name.to_owned())
        .filter(|name| !SCRIPTS.contains(&&name[..]))
        .collect();
    assert_eq!(table, stated, "left: the table; right: statement.rs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_is_allowed_to_whom_the_statement_allows_it() {
    let open = server("SELECT 0").await;
    let mut findings = Findings::default();
    for user in USERS {
        let expected = |call: &Call| match user.may(call) {
            _ if call.is_forbidden() => Verdict::Forbidden,
            true => Verdict::Allowed,
            false => Verdict::Denied,
        };
        check(&mut findings, &open, Some(user), expected).await;
    }
    // The user `default` without a password may do everything.
    let expected = |call: &Call| match call.is_forbidden() {
        true => Verdict::Forbidden,
        false => Verdict::Allowed,
    };
    check(&mut findings, &open, None, expected).await;
    let closed = server("ACL SETUSER default resetpass >pw").await;
    let expected = |call: &Call| match call.is_open() {
        _ if call.is_forbidden() => Verdict::Forbidden,
        true => Verdict::Allowed,
        false => Verdict::Stranger,
    };
    check(&mut findings, &closed, None, expected).await;
    let executed = TABLE
        .iter()
        .filter(|spec| !matches!(spec.handler, Handler::Container));
    // The scripts have a matrix of their own.
    let floor = (executed.count() - SCRIPTS.len()) * (USERS.len() + 2) * LOCATIONS.len();
    findings.check("calls", floor);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_script_is_allowed_to_whom_its_text_allows_it() {
    let open = server("SELECT 0").await;
    let closed = server("ACL SETUSER default resetpass >pw").await;
    let mut admin = open.client().await;
    let mut findings = Findings::default();
    for text in crate::commands::script_texts() {
        let called = called_by(text);
        assert!(!called.is_empty(), "{text}");
        admin.send_args(&["SCRIPT", "LOAD", text]).await;
        let hash = admin.shown().await;
        let hash = hash.strip_prefix('$').unwrap();
        for name in SCRIPTS {
            let script = if name.contains("sha") { hash } else { text };
            // As in Redis, its keys may be for reading and writing, whatever it does with them.
            let how = if name.ends_with("_ro") { "r" } else { "rw" };
            let call = Call::of(format!("{name} (script) 1 a1:{how}"), "s");
            let words = [name, script, "1", "a1", "1", "1", "1"];
            let words: Vec<String> = words.map(str::to_owned).into();
            for location in LOCATIONS {
                let asked = |who: &str| format!("{who} {location:?}: {name} {text}");
                for user in USERS {
                    let expected = match user.may_script(&call, &called) {
                        true => Verdict::Allowed,
                        false => Verdict::Denied,
                    };
                    let found = open.call(Some(user), location, &words).await;
                    findings.note(|| asked(user.name), found, expected);
                }
                let found = open.call(None, location, &words).await;
                findings.note(|| asked("(default)"), found, Verdict::Allowed);
                let found = closed.call(None, location, &words).await;
                findings.note(|| asked("(nobody)"), found, Verdict::Stranger);
            }
        }
    }
    let scripts = crate::commands::script_texts().count() * SCRIPTS.len();
    let floor = scripts * LOCATIONS.len() * (USERS.len() + 2);
    findings.check("calls of scripts", floor);
}

/// The commands that the text of a script calls.
fn called_by(text: &str) -> Vec<String> {
    let calls = text.split("redis.call('").skip(1);
    calls
        .map(|rest| {
            rest.split('\'')
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase()
        })
        .collect()
}
