//! Names that the glossary replaced (`docs/glossary.md`), so that they do not come back as names of
//! files, types, functions, fields or anything else that code calls by a name.
//!
//! Looks at identifiers and paths only: a retired name may still be an ordinary word in prose, and
//! so in the name of a test, which is a sentence.

use super::Source;
use super::tokens::tokens;

/// How a retired name is recognised.
#[derive(Debug, Clone, Copy)]
enum Name {
    /// This identifier.
    Is(&'static str),
    /// An identifier with this word in it, in snake case or in camel case.
    Has(&'static str),
    /// A type, variant or constant that begins with this word.
    Begins(&'static str),
    /// A file or a folder of source code.
    File(&'static str),
}

use Name::{Begins, File, Has, Is};

/// Where a retired name is refused: everywhere, or below these folders, where it meant the thing.
type Scope = &'static [&'static str];

const ALL: Scope = &[""];
const SERVER: Scope = &["crates/memkv-server/"];
const NODE_AND_STORE: Scope = &["crates/memkv-node/", "crates/memkv-store/"];
const SIM_AND_CHECK: Scope = &["crates/memkv-sim/", "crates/memkv-check/"];

/// An identifier of more words is a sentence.
const MAX_WORDS: usize = 4;

/// Retired names, where they are refused, and their replacement.
const RETIRED: &[(&[Name], Scope, &str)] = &[
    (
        &[File("seed"), Is("seed_config"), Begins("Seed")],
        ALL,
        "`compat` for the original's interface; a seed is that of randomness or of a hash",
    ),
    (
        &[Has("attend"), Has("attended")],
        ALL,
        "failure detector, watched leader",
    ),
    (&[Has("declared")], ALL, "`Published`"),
    (&[Has("reign")], ALL, "`ConfirmedTerm`"),
    (&[Begins("Question")], ALL, "`QuorumCheck`"),
    (&[Has("askers"), Has("asks_or")], ALL, "`CommitInterest`"),
    (&[Has("gather"), Has("gathering")], ALL, "group commit"),
    (
        &[Has("parties")],
        ALL,
        "in flight, queued and answered clients",
    ),
    (
        &[File("turns"), Has("after_others")],
        ALL,
        "`yield_to_ready_tasks`",
    ),
    (&[Begins("Alarm")], ALL, "`PreciseTimer`"),
    (&[Has("bell"), Has("rung")], ALL, "`WakeFlag`, `woken`"),
    (&[Begins("Patience")], ALL, "`DeadlineTimer`"),
    (
        &[Has("led_reads"), Has("sent_reads")],
        ALL,
        "`leader_reads`, `forwarded_reads`",
    ),
    (&[Begins("Book")], ALL, "`MemberTable`"),
    (&[Is("Seat")], ALL, "`MemberRecord`"),
    (&[Has("hearsay")], ALL, "second-hand"),
    (&[Is("sure")], NODE_AND_STORE, "`synchronized`"),
    (&[Begins("Notice")], ALL, "`KeyEvent`"),
    (&[Is("Gone")], SERVER, "`Disconnected`"),
    (&[Is("Edge")], SERVER, "`Local`"),
    (&[Is("Shape")], SERVER, "`ReplyFormat`"),
    (&[Is("Flow")], SERVER, "`TransactionControl`"),
    (&[Is("Segment")], SERVER, "`PipelineBatch`"),
    (
        &[Has("place"), Has("places")],
        ALL,
        "permit, layout, slot, index, location, target or point",
    ),
    (&[Has("chronicle")], ALL, "committed log"),
    (&[Is("Asked"), File("asked")], ALL, "operations"),
    (&[Has("dice")], ALL, "rng"),
    (&[File("floors")], SIM_AND_CHECK, "coverage"),
    // The word itself is the node's, for the decision about users.
    (&[File("judge")], SIM_AND_CHECK, "checker"),
    (&[Has("demand"), File("demand")], SIM_AND_CHECK, "lookahead"),
    (
        &[File("wire")],
        NODE_AND_STORE,
        "`message` of peers, `encoding` of the log",
    ),
    (&[Has("bytes_io"), File("bytes_io")], ALL, "`encoding`"),
    (&[File("say")], ALL, "`console`"),
    (&[File("page")], ALL, "`docs`"),
    (&[File("hub"), Is("Hub")], ALL, "`subscriptions`"),
];

/// A file, a retired name, and why the name stays there.
type Exception = (&'static str, &'static str, &'static str);

const TRACE: &str = "traces print the kind of a message";
const OPEN: &str = "not renamed yet";

const EXCEPTIONS: &[Exception] = &[
    (
        "crates/memkv-node/src/leadership/failure_detector.rs",
        "Attend",
        TRACE,
    ),
    ("crates/memkv-node/src/peer/message.rs", "Attend", TRACE),
    ("crates/memkv-node/src/peer/server.rs", "Attend", TRACE),
    ("crates/memkv-node/src/report/inspect.rs", "Attend", TRACE),
    ("crates/memkv-server/src/resp/tests/turns.rs", "turns", OPEN),
    (
        "crates/memkv-server/src/aside.rs",
        "block_in_place",
        "tokio's name",
    ),
];

/// Every use of a retired name, and every exception that has become idle.
pub(crate) fn check(sources: &[Source]) -> Vec<String> {
    check_with(sources, EXCEPTIONS)
}

fn check_with(sources: &[Source], exceptions: &[Exception]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut used = Vec::new();
    for source in sources {
        for (found, line) in names(source) {
            let is_path = line == 0;
            let retired = RETIRED.iter().filter(|(names, scope, _)| {
                scope.iter().any(|dir| source.name.starts_with(dir))
                    && names.iter().any(|name| name.matches(found, is_path))
            });
            for (_, _, instead) in retired {
                let here = |one: &&Exception| one.0 == source.name && one.1 == found;
                match exceptions.iter().find(here) {
                    Some(exception) => used.push(exception),
                    None => faults.push(format!(
                        "{}:{line}: `{found}` is a retired name, the glossary has: {instead}",
                        source.name
                    )),
                }
            }
        }
    }
    for exception in exceptions.iter().filter(|one| !used.contains(one)) {
        let (file, name, _) = exception;
        faults.push(format!(
            "{file}: no longer has `{name}`, drop its exception in xtask/src/tidy/words.rs"
        ));
    }
    faults
}

/// The parts of a source file's path with line 0, then its identifiers.
fn names(source: &Source) -> impl Iterator<Item = (&str, usize)> {
    let path = source.name.trim_end_matches(".rs").split('/');
    let words = tokens(&source.text)
        .into_iter()
        .filter(|token| token.is_word());
    path.map(|part| (part, 0))
        .chain(words.map(|token| (token.text, token.line)))
}

impl Name {
    /// Whether an identifier, or a part of a path, is this name.
    fn matches(self, found: &str, is_path: bool) -> bool {
        match self {
            Is(name) => !is_path && found == name,
            Has(words) => {
                let snake = snake(found);
                let sentence = snake.matches('_').count() > MAX_WORDS + 1;
                !sentence && snake.contains(&format!("_{words}_"))
            }
            Begins(word) => {
                let next = found.strip_prefix(word).map(|rest| rest.chars().next());
                !is_path && next.is_some_and(|next| next.is_none_or(|next| !next.is_lowercase()))
            }
            File(name) => is_path && found == name,
        }
    }
}

/// `PeerTable` and `peer_table` as `_peer_table_`.
fn snake(identifier: &str) -> String {
    let mut snake = "_".to_owned();
    for one in identifier.chars() {
        if one.is_uppercase() && !snake.ends_with('_') {
            snake.push('_');
        }
        snake.extend(one.to_lowercase());
    }
    snake.push('_');
    snake
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::{Begins, File, Has, Is, RETIRED, check_with};

    fn faults(name: &str, text: &str) -> usize {
        check_with(&[Source::new(name, text)], &[]).len()
    }

    #[test]
    fn every_retired_name_is_refused() {
        for (names, scope, _) in RETIRED {
            let dir = scope[0];
            for name in *names {
                let (path, text) = match name {
                    Is(name) => ("x.rs".to_owned(), format!("struct {name};")),
                    Has(words) => ("x.rs".to_owned(), format!("fn x_{words}_y() {{}}")),
                    Begins(word) => ("x.rs".to_owned(), format!("struct {word}Table;")),
                    File(name) => (format!("x/{name}.rs"), String::new()),
                };
                assert_eq!(faults(&format!("{dir}{path}"), &text), 1, "{name:?}");
            }
        }
    }

    #[test]
    fn prose_and_other_names_are_not() {
        assert_eq!(faults("a.rs", "// the place\nlet x = \"gather\";"), 0);
        assert_eq!(faults("a.rs", "use rand::SeedableRng; fn replace() {}"), 0);
        assert_eq!(
            faults("a.rs", "fn what_is_wrong_is_said_with_its_place() {}"),
            0
        );
        assert_eq!(faults("a.rs", "struct OutOfPlace;"), 1);
    }

    #[test]
    fn an_exception_holds_for_its_file_and_must_be_needed() {
        let exceptions = [("a.rs", "place", "why")];
        let faults = |name, text| check_with(&[Source::new(name, text)], &exceptions).len();
        assert_eq!(faults("a.rs", "let place = 1;"), 0);
        assert_eq!(faults("b.rs", "let place = 1;"), 2);
        assert_eq!(faults("a.rs", ""), 1);
    }
}
