//! Behaviour as scripts: each file of `tests/scripts/` opens with its claim, and below every input line
//! stand the store's answers, indented by four spaces.
//!
//! `MEMKV_BLESS=1` writes the present answers into the files, for review in the diff; it is refused
//! where `CI` is set. A line is one of:
//!
//! - `apply [at=TIME] [seq=N] [acked=N] SESSION: COMMAND; COMMAND` executes an entry with one group;
//!   without `seq` the numbers go on. `script_words` has the commands.
//! - `apply [at=TIME] system: OPERATION; OPERATION` executes system operations. `open` names a session
//!   with `as NAME`, which later lines use.
//! - `apply at=TIME` executes an entry without parts.
//! - `read [at=TIME] QUERY` asks the store; `at` is the reader's clock.
//! - `see NAME KEY` remembers what WATCH remembers, for the guard `unchanged NAME KEY`.
//! - `keys`, `state`, `members`, `session NAME` and `garbage` show a part of the store; `digest` says
//!   whether it is the same as at the last `digest`.
//! - `listen CLASSES` has each entry show its key events, and `listen off` ends that.
//! - `reload` goes on with the store that a snapshot of this one makes.
//!
//! Times are milliseconds, or seconds with an `s` behind.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(
    clippy::disallowed_methods,
    reason = "the runner reads and writes the scripts"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use memkv_store::{
    BatchBuilder, KeyEventClasses, MEMBERS_LEVEL, Query, ReplyValue, Row, Seen, Store,
};

use crate::script_words::{Words, millis, show, split, tokens};
use crate::support::{Event, apply, load, snapshot};

/// Fewer scripts than this means that the directory was not found as a whole.
const LEAST_SCRIPTS: usize = 12;

#[test]
fn every_script_answers_as_it_says() {
    let bless = std::env::var_os("MEMKV_BLESS").is_some_and(|set| set == "1");
    let in_ci = std::env::var_os("CI").is_some();
    assert!(!(bless && in_ci), "MEMKV_BLESS is refused where CI is set");
    let mut differences = Vec::new();
    let scripts = files();
    assert!(scripts.len() >= LEAST_SCRIPTS, "{scripts:?}");
    for path in scripts {
        let expected = std::fs::read_to_string(&path).unwrap();
        let found = run(&path, &expected);
        if bless {
            std::fs::write(&path, &found).unwrap();
        } else if let Some(difference) = difference(&expected, &found) {
            differences.push(format!("{}:{difference}", path.display()));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let entries = std::fs::read_dir(dir).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The first line in which two texts differ.
fn difference(expected: &str, found: &str) -> Option<String> {
    let (mut one, mut two) = (expected.lines(), found.lines());
    let mut number = 1;
    loop {
        match (one.next(), two.next()) {
            (None, None) => return None,
            (one, two) if one == two => number += 1,
            (one, two) => {
                let end = "(the end)";
                let (one, two) = (one.unwrap_or(end), two.unwrap_or(end));
                return Some(format!("{number}\n  expected {one}\n  found    {two}"));
            }
        }
    }
}

/// The script with the answers that the store gives now.
fn run(path: &Path, text: &str) -> String {
    assert!(text.starts_with("# "), "{}: no claim", path.display());
    let mut script = Script::default();
    let mut out = String::new();
    for line in text.lines().filter(|line| !line.starts_with(' ')) {
        out.push_str(line);
        out.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let answers = script.line(line);
        let answers = answers.unwrap_or_else(|| panic!("{}: cannot read: {line}", path.display()));
        for answer in answers {
            out.push_str("    ");
            out.push_str(&answer);
            out.push('\n');
        }
    }
    out
}

/// A store, and the names that its script has given.
#[derive(Default)]
struct Script {
    store: Store,
    sessions: BTreeMap<String, u64>,
    seen: BTreeMap<String, Seen>,
    digest: Option<u64>,
}

impl Script {
    /// Executes a line; none if it cannot be read.
    fn line(&mut self, line: &str) -> Option<Vec<String>> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let store = &mut self.store;
        Some(match verb {
            "apply" => self.apply(rest)?,
            "read" => {
                let (options, query) = options(rest);
                let at = options.get("at").map_or(Some(0), |at| millis(at))?;
                let query = Words::new(&tokens(query), &self.seen).query()?;
                vec![show(&store.query(&query, at))]
            }
            "see" => {
                let (name, key) = rest.split_once(' ')?;
                let seen = store.seen(0, key.as_bytes());
                self.seen.insert(name.to_owned(), seen);
                vec![]
            }
            "keys" => (0..16).flat_map(|database| keys(store, database)).collect(),
            "state" => vec![state(store)],
            "members" => members(store),
            "session" => vec![self.session(rest)?],
            "digest" => {
                let before = self.digest.replace(store.digest());
                vec![
                    before
                        .map_or("first", same(before == self.digest))
                        .to_owned(),
                ]
            }
            "garbage" => vec![format!("{}", store.take_garbage().is_some())],
            "listen" => {
                let wanted = rest != "off";
                let letters = if wanted { rest } else { "" };
                let classes = KeyEventClasses::parse(letters.as_bytes())?;
                store.listen(wanted, classes);
                vec![]
            }
            "reload" => {
                *store = load(&snapshot(store, 4096)).ok()?;
                vec![]
            }
            _ => return None,
        })
    }

    fn apply(&mut self, rest: &str) -> Option<Vec<String>> {
        let (options, parts) = options(rest);
        let number = |name: &str| options.get(name).map(|value| value.parse().ok());
        let mut batch = BatchBuilder::new(options.get("at").map_or(Some(0), |at| millis(at))?);
        let mut named = Vec::new();
        if let Some((sender, text)) = parts.split_once(':') {
            let listed = split(&tokens(text), ";");
            let words = listed.iter().filter(|words| !words.is_empty());
            if sender == "system" {
                for words in words {
                    batch.system(&Words::new(words, &self.seen).system(&self.sessions)?);
                    named.extend(words.windows(2).filter(|pair| pair[0] == "as"));
                }
            } else {
                let id = self.id(sender)?;
                let last = self.store.session(id).map_or(0, |open| open.last_seq());
                let first = number("seq").unwrap_or(Some(last + 1))?;
                let command = |words: &Vec<String>| Words::new(words, &self.seen).command();
                let commands: Option<Vec<_>> = words.map(command).collect();
                let encoded: Vec<_> = commands?.iter().map(|command| command.encode()).collect();
                batch.group(
                    id,
                    first,
                    number("acked").unwrap_or(Some(0))?,
                    encoded.iter(),
                );
            }
            for pair in named {
                let id = self.store.applied_index() + 1;
                self.sessions.insert(pair[1].clone(), id);
            }
        } else if !parts.is_empty() {
            return None;
        }
        let events = apply(&mut self.store, &batch.finish());
        let mut answers: Vec<_> = events.iter().map(|event| self.event(event)).collect();
        answers.extend(self.store.take_key_events().into_iter().map(|event| {
            let key = event.key.escape_ascii();
            format!("event {} {} {key}", event.database, event.event)
        }));
        Some(answers)
    }

    /// A session by its name, or by its number where no session has it.
    fn id(&self, name: &str) -> Option<u64> {
        let number = || name.strip_prefix('#')?.parse().ok();
        self.sessions.get(name).copied().or_else(number)
    }

    fn name(&self, id: u64) -> String {
        let mut names = self.sessions.iter();
        let known = names.find(|(_, known)| **known == id);
        known.map_or_else(|| format!("#{id}"), |(name, _)| name.clone())
    }

    fn event(&self, event: &Event) -> String {
        match event {
            Event::Reply(id, seq, reply) => {
                let (revision, value) = (reply.revision, show(&reply.value));
                format!("{}#{seq} rev={revision} {value}", self.name(*id))
            }
            Event::Duplicate(id, seq, reply) => {
                let again = reply.as_ref().map_or_else(
                    || "forgotten".to_owned(),
                    |reply| format!("rev={} {}", reply.revision, show(&reply.value)),
                );
                format!("{}#{seq} again: {again}", self.name(*id))
            }
            Event::Rejected(id, first, count, why) => {
                format!(
                    "{}#{first} and {count} in all rejected: {why}",
                    self.name(*id)
                )
            }
            Event::System(ordinal, outcome) => format!("system#{ordinal} {outcome:?}"),
            Event::Malformed => "malformed".to_owned(),
        }
    }

    fn session(&self, name: &str) -> Option<String> {
        let id = self.id(name)?;
        let Some(open) = self.store.session(id) else {
            return Some("not open".to_owned());
        };
        let last = open.last_seq();
        let cached: Vec<_> = (1..=last)
            .filter(|seq| open.reply(*seq).is_some())
            .collect();
        let (node, boot) = (open.node(), open.boot());
        Some(format!(
            "id={id} node={node} boot={boot} last={last} replies={cached:?}"
        ))
    }
}

fn same(is_same: bool) -> impl FnOnce(u64) -> &'static str {
    move |_| if is_same { "same" } else { "changed" }
}

/// The words `NAME=VALUE` at the beginning, and the rest.
fn options(text: &str) -> (BTreeMap<&str, &str>, &str) {
    let (mut options, mut rest) = (BTreeMap::new(), text);
    loop {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        match word.split_once('=') {
            Some((name, value)) if !word.contains(':') => {
                options.insert(name, value);
                rest = after;
            }
            _ => return (options, rest),
        }
    }
}

fn keys(store: &Store, database: u8) -> Vec<String> {
    let all = Query::prefix(b"", None, 1000, false).in_database(database);
    let ReplyValue::Array(answer) = store.query(&all, 0) else {
        return vec!["no listing".to_owned()];
    };
    let Some(ReplyValue::Array(items)) = answer.first() else {
        return vec!["no items".to_owned()];
    };
    let line = |item: &ReplyValue| match item {
        ReplyValue::Array(fields) => {
            let fields: Vec<_> = fields.iter().map(show).collect();
            let [key, value, created, modified, deadline] = &fields[..] else {
                return "no item".to_owned();
            };
            format!(
                "{database} {key} = {value} created{created} modified{modified} deadline{deadline}"
            )
        }
        other => show(other),
    };
    items.iter().map(line).collect()
}

fn state(store: &Store) -> String {
    format!(
        "rev={} time={} index={} keys={} expired={} next={:?} announced={:?}",
        store.revision(),
        store.stamp_ms(),
        store.applied_index(),
        store.len(),
        store.expired_total(),
        store.next_deadline(),
        store.announced().map(KeyEventClasses::letters),
    )
}

fn members(store: &Store) -> Vec<String> {
    let table = store.member_table();
    let cluster = table.cluster().map_or(0, |uuid| uuid[0]);
    let head = format!("cluster={cluster} level={}", table.level());
    let line = |row: Row<'_>| {
        let member = row.member;
        let standing = match (table.level() >= MEMBERS_LEVEL, member.pending) {
            (true, _) => format!(" {} {}", row.state.name(), row.role.name()),
            (false, true) => " pending".to_owned(),
            (false, false) => String::new(),
        };
        format!("{} {} {}{standing}", member.id, member.name, member.addr)
    };
    let expected = table
        .expected()
        .map(|(name, role)| format!("expected: {name} {}", role.name()));
    std::iter::once(head)
        .chain(table.rows().map(line))
        .chain(expected)
        .collect()
}
