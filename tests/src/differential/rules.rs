//! The differences from Redis that are meant, read from the table in `docs/differences.md`: what is
//! not listed there is a fault.
//!
//! A row of the table is `| way | commands | ... |`: a way of comparing, and the commands, each in
//! backquotes, whose replies are compared in that way.

use std::collections::BTreeMap;

use crate::resp::Frame;

/// How replies are compared that need not have equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The same elements in any order.
    Set,
    /// A cursor and some keys; whole iterations are compared as sets.
    Iteration,
    /// Any key that exists, or none on both sides.
    Member,
    /// The same types and lengths at every depth.
    Shape,
    /// The same type.
    Type,
    /// A time that is one second away at most.
    About,
    /// memkv refuses what Redis has.
    Refused,
    /// memkv executes what Redis refuses.
    Accepted,
}

const WAYS: &[(&str, Way)] = &[
    ("set", Way::Set),
    ("iteration", Way::Iteration),
    ("member", Way::Member),
    ("shape", Way::Shape),
    ("type", Way::Type),
    ("about", Way::About),
    ("refused", Way::Refused),
    ("accepted", Way::Accepted),
];

/// The table.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    ways: BTreeMap<String, Way>,
}

impl Rules {
    /// Reads the table of a page; an error says what is wrong with it.
    pub fn parse(page: &str) -> Result<Rules, String> {
        let mut ways = BTreeMap::new();
        for line in page.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [way, commands, ..] = cells[..] else {
                return Err(format!("not a row of the table: {line}"));
            };
            let known = WAYS.iter().find(|(name, _)| *name == way.trim_matches('`'));
            let Some((_, way)) = known else {
                return Err(format!("{way} is not a way of comparing"));
            };
            // Every second piece stands between backquotes.
            let names: Vec<&str> = commands.split('`').skip(1).step_by(2).collect();
            if names.is_empty() {
                return Err(format!("a row without a command: {line}"));
            }
            for name in names {
                if ways.insert(name.to_owned(), *way).is_some() {
                    return Err(format!("`{name}` stands in the table twice"));
                }
            }
        }
        if ways.is_empty() {
            return Err("the page has no table of differences".to_owned());
        }
        Ok(Rules { ways })
    }

    /// Commands that the table lists.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.ways.keys().map(String::as_str)
    }

    /// The row for a command, by its name and subcommand or by its name. The name alone of a
    /// command of which the table lists a subcommand stands for the name alone.
    pub(crate) fn find(&self, arguments: &[Vec<u8>]) -> Option<(&str, Way)> {
        let word = |place: usize| {
            let word = arguments.get(place)?;
            Some(String::from_utf8_lossy(word).to_ascii_uppercase())
        };
        let name = word(0)?;
        let both = word(1).map(|second| format!("{name} {second}"));
        let found = both.and_then(|both| self.ways.get_key_value(&both));
        let has_parts = || {
            let first_of = |listed: &str| listed.strip_prefix(&name)?.strip_prefix(' ').map(drop);
            self.names().any(|listed| first_of(listed).is_some())
        };
        let alone = || {
            let row = self.ways.get_key_value(&name)?;
            (arguments.len() == 1 || !has_parts()).then_some(row)
        };
        let (name, way) = found.or_else(alone)?;
        Some((name, *way))
    }
}

impl Way {
    /// Whether two replies that are not equal are alike in this way.
    pub(crate) fn excuses(self, name: &str, ours: &Frame, oracle: &Frame) -> bool {
        match self {
            Way::Refused => return ours.is_error(),
            Way::Accepted => return oracle.is_error() && !ours.is_error(),
            _ => {}
        }
        if self == Way::Accepted {
            return oracle.is_error();
        }
        if ours.is_error() || oracle.is_error() {
            return false;
        }
        match self {
            Way::Set => {
                let sorted = |frame: &Frame| {
                    let mut texts: Vec<Vec<u8>> = frame
                        .items
                        .iter()
                        .map(|item| item.text().to_vec())
                        .collect();
                    texts.sort();
                    texts
                };
                same_shape(ours, oracle) && sorted(ours) == sorted(oracle)
            }
            Way::Iteration => {
                let is_one = |frame: &Frame| {
                    matches!(&frame.items[..], [cursor, keys]
                        if cursor.kind == b'$'
                            && cursor.data.iter().all(u8::is_ascii_digit)
                            && keys.kind == b'*'
                            && keys.items.iter().all(|key| key.kind == b'$'))
                };
                ours.kind == oracle.kind && is_one(ours) && is_one(oracle)
            }
            Way::Member => ours.kind == oracle.kind && ours.is_null() == oracle.is_null(),
            Way::Shape => same_shape(ours, oracle),
            Way::Type => ours.kind == oracle.kind && ours.is_null() == oracle.is_null(),
            Way::About => {
                let second = if name.starts_with('P') { 1_000 } else { 1 };
                let both = ours.integer().zip(oracle.integer());
                // -1 and -2 are no times.
                both.is_some_and(|(ours, oracle)| {
                    ours >= 0 && oracle >= 0 && ours.abs_diff(oracle) <= second
                })
            }
            Way::Refused | Way::Accepted => unreachable!("decided above"),
        }
    }
}

fn same_shape(ours: &Frame, oracle: &Frame) -> bool {
    ours.kind == oracle.kind
        && ours.is_null() == oracle.is_null()
        && ours.items.len() == oracle.items.len()
        && ours
            .items
            .iter()
            .zip(&oracle.items)
            .all(|(ours, oracle)| same_shape(ours, oracle))
}

#[cfg(test)]
mod tests {
    use super::{Rules, Way};
    use crate::resp::Frame;

    fn excused(way: Way, name: &str, ours: &str, oracle: &str) -> bool {
        way.excuses(
            name,
            &Frame::of(ours.as_bytes()),
            &Frame::of(oracle.as_bytes()),
        )
    }

    #[test]
    fn a_table_is_read_and_a_wrong_one_is_refused() {
        let table = "# Head\n| `type` | `INFO`, `CLIENT`, `CLIENT LIST` | why |\n";
        let rules = Rules::parse(table).unwrap();
        let find = |words: &[&[u8]]| {
            let words: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
            rules.find(&words).map(|(name, _)| name.to_owned())
        };
        assert_eq!(find(&[b"info", b"all"]).as_deref(), Some("INFO"));
        assert_eq!(find(&[b"client", b"list"]).as_deref(), Some("CLIENT LIST"));
        assert_eq!(find(&[b"client", b"id"]), None);
        assert_eq!(find(&[b"client"]).as_deref(), Some("CLIENT"));
        for wrong in [
            "",
            "| `nosuch` | `INFO` | |",
            "| `type` | INFO | |",
            "| `set` | `A`, `A` | |",
        ] {
            assert!(Rules::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_way_excuses_what_it_says_and_no_more() {
        let two = "*2\r\n$1\r\na\r\n$1\r\nb\r\n";
        let turned = "*2\r\n$1\r\nb\r\n$1\r\na\r\n";
        let doubled = "*2\r\n$1\r\na\r\n$1\r\na\r\n";
        assert!(excused(Way::Set, "KEYS", turned, two));
        assert!(!excused(Way::Set, "KEYS", doubled, two));
        assert!(!excused(Way::Set, "KEYS", "*1\r\n$1\r\na\r\n", two));

        let step = "*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n";
        assert!(excused(
            Way::Iteration,
            "SCAN",
            "*2\r\n$2\r\n17\r\n*0\r\n",
            step
        ));
        assert!(!excused(
            Way::Iteration,
            "SCAN",
            "*2\r\n$2\r\n-1\r\n*0\r\n",
            step
        ));
        assert!(!excused(
            Way::Iteration,
            "SCAN",
            "*2\r\n:17\r\n*0\r\n",
            step
        ));

        assert!(excused(
            Way::Member,
            "RANDOMKEY",
            "$1\r\na\r\n",
            "$1\r\nb\r\n"
        ));
        assert!(!excused(Way::Member, "RANDOMKEY", "$-1\r\n", "$1\r\nb\r\n"));

        assert!(excused(Way::Shape, "TIME", doubled, two));
        assert!(!excused(Way::Shape, "TIME", "*2\r\n$1\r\na\r\n:1\r\n", two));
        assert!(excused(Way::Type, "INFO", "$1\r\na\r\n", "$0\r\n\r\n"));
        assert!(!excused(Way::Type, "INFO", "+a\r\n", "$0\r\n\r\n"));

        assert!(excused(Way::About, "TTL", ":9\r\n", ":10\r\n"));
        assert!(!excused(Way::About, "TTL", ":8\r\n", ":10\r\n"));
        assert!(!excused(Way::About, "TTL", ":-1\r\n", ":0\r\n"));
        assert!(excused(Way::About, "PTTL", ":9000\r\n", ":10000\r\n"));
        assert!(!excused(Way::About, "PTTL", ":8999\r\n", ":10000\r\n"));

        assert!(excused(Way::Refused, "LLEN", "-ERR unknown\r\n", ":0\r\n"));
        assert!(!excused(Way::Refused, "LLEN", ":1\r\n", ":0\r\n"));

        assert!(excused(Way::Accepted, "READONLY", "+OK\r\n", "-ERR no\r\n"));
        assert!(!excused(
            Way::Accepted,
            "READONLY",
            "-ERR a\r\n",
            "-ERR no\r\n"
        ));
        assert!(!excused(Way::Accepted, "READONLY", "+OK\r\n", "+Ok\r\n"));
    }

    #[test]
    fn no_way_but_refusal_excuses_an_error() {
        for way in [
            Way::Set,
            Way::Iteration,
            Way::Member,
            Way::Shape,
            Way::Type,
            Way::About,
        ] {
            assert!(!excused(way, "X", "-ERR a\r\n", "-ERR b\r\n"), "{way:?}");
            assert!(!excused(way, "X", "-ERR a\r\n", "+OK\r\n"), "{way:?}");
        }
    }
}
