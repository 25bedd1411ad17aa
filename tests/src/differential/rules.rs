//! The intended differences from Redis, read from the table in `docs/differences.md`: any other one is
//! a fault.
//!
//! A row of the table is `| way | commands | ... |`: a way of comparing, and the commands, each in
//! backquotes, whose replies are compared in that way.

use std::collections::BTreeMap;
use std::time::Duration;

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
    /// A number on both sides; Redis may have one of a key that has expired, too.
    Estimate,
    /// A text with the fields or sections that Redis's has; more may be there.
    Fields,
    /// The same type.
    Type,
    /// A time that is one second away at most, and the time that a pipeline took.
    About,
    /// Descriptions of commands, apart from subcommands and remarks on keys.
    Described,
    /// An encoding, or one that Redis gives to the same value if other commands made it.
    Encoding,
    /// memkv refuses a command that Redis has.
    Refused,
    /// memkv executes a command that Redis refuses.
    Accepted,
}

const WAYS: &[(&str, Way)] = &[
    ("set", Way::Set),
    ("iteration", Way::Iteration),
    ("member", Way::Member),
    ("shape", Way::Shape),
    ("estimate", Way::Estimate),
    ("fields", Way::Fields),
    ("type", Way::Type),
    ("about", Way::About),
    ("described", Way::Described),
    ("encoding", Way::Encoding),
    ("refused", Way::Refused),
    ("accepted", Way::Accepted),
];

/// Words of the longest name in the table.
const LONGEST_NAME: usize = 3;

/// The table.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    ways: BTreeMap<String, Way>,
}

impl Rules {
    /// Reads the table of a page; an error names its fault.
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

    /// Commands that the table lists, and how their replies are compared.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&str, Way)> {
        self.ways.iter().map(|(name, way)| (name.as_str(), *way))
    }

    /// The row for a command: the longest listed name that its first words are. A name of which the
    /// table lists a longer one, such as a subcommand, stands for itself alone.
    pub(crate) fn find(&self, arguments: &[Vec<u8>]) -> Option<(&str, Way)> {
        let words: Vec<String> = arguments
            .iter()
            .take(LONGEST_NAME)
            .map(|word| String::from_utf8_lossy(word).to_ascii_uppercase())
            .collect();
        let longer_is_listed = |name: &str| {
            let is_longer = |listed: &str| {
                let rest = listed.strip_prefix(name);
                rest.is_some_and(|rest| rest.starts_with(' '))
            };
            self.ways.keys().any(|listed| is_longer(listed))
        };
        let (count, (name, way)) = (1..=words.len()).rev().find_map(|count| {
            let row = self.ways.get_key_value(&words[..count].join(" "))?;
            Some((count, row))
        })?;
        let stands = arguments.len() == count || !longer_is_listed(name);
        stands.then_some((name.as_str(), *way))
    }
}

impl Way {
    /// Whether two replies that are not equal are alike in this way. The commands were executed at
    /// times that are `apart` at most.
    pub(crate) fn excuses(self, name: &str, ours: &Frame, oracle: &Frame, apart: Duration) -> bool {
        match self {
            Way::Refused => return ours.is_error(),
            Way::Accepted => return oracle.is_error() && !ours.is_error(),
            _ => {}
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
            Way::Estimate => oracle.kind == b':' && (ours.kind == b':' || ours.is_null()),
            Way::Fields => ours.kind == oracle.kind && has_fields(name, ours, oracle),
            Way::Type => ours.kind == oracle.kind && ours.is_null() == oracle.is_null(),
            Way::About => {
                let most = apart + Duration::from_secs(1);
                let most = if name.starts_with('P') {
                    most.as_millis()
                } else {
                    u128::from(most.as_secs())
                };
                let both = ours.integer().zip(oracle.integer());
                // -1 and -2 are no times.
                both.is_some_and(|(ours, oracle)| {
                    ours >= 0 && oracle >= 0 && u128::from(ours.abs_diff(oracle)) <= most
                })
            }
            Way::Described => described(name, ours, oracle),
            Way::Encoding => {
                // From the most compact one on: memkv tells what the value allows.
                const ENCODINGS: [&[u8]; 3] = [b"int", b"embstr", b"raw"];
                let index = |frame: &Frame| ENCODINGS.iter().position(|one| *one == frame.text());
                let both = index(ours).zip(index(oracle));
                both.is_some_and(|(ours, oracle)| ours < oracle)
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

/// Sections of `INFO` with statistics that memkv does not keep.
const NO_SECTIONS: [&str; 2] = ["# CPU", "# Modules"];

/// Whether a text of `INFO` has the sections of Redis's, or a line of `CLIENT` its fields, in their
/// order.
fn has_fields(name: &str, ours: &Frame, oracle: &Frame) -> bool {
    let names = |frame: &Frame| -> Vec<String> {
        let text = String::from_utf8_lossy(frame.text()).into_owned();
        if name == "INFO" {
            let sections = text.lines().filter(|line| line.starts_with("# "));
            return sections.map(str::to_owned).collect();
        }
        let fields = text.lines().next().unwrap_or_default().split(' ');
        let field = |field: &str| field.split_once('=').map(|(name, _)| name.to_owned());
        fields.filter_map(field).collect()
    };
    let ours = names(ours);
    let mut rest = ours.iter();
    let wanted = names(oracle);
    let mut wanted = wanted
        .iter()
        .filter(|name| !NO_SECTIONS.contains(&name.as_str()));
    wanted.all(|name| rest.any(|found| found == name))
}

/// Whether the commands that both describe are described alike. `COMMAND INFO` answers in the order
/// in which it was asked.
fn described(name: &str, ours: &Frame, oracle: &Frame) -> bool {
    let is_alike = |one: &Frame, other: &Frame| one == other || alike(one, other);
    if name == "COMMAND INFO" {
        let pairs = ours.items.iter().zip(&oracle.items);
        return ours.items.len() == oracle.items.len()
            && pairs
                .into_iter()
                .all(|(ours, oracle)| is_alike(ours, oracle));
    }
    let named = |frame: &Frame| frame.items.first().map(|name| name.text().to_vec());
    let pairs = ours.items.iter().filter_map(|ours| {
        let same = |oracle: &&Frame| named(oracle) == named(ours);
        Some((ours, oracle.items.iter().find(same)?))
    });
    let pairs: Vec<_> = pairs.collect();
    !pairs.is_empty()
        && pairs
            .into_iter()
            .all(|(ours, oracle)| is_alike(ours, oracle))
}

/// Whether two descriptions of a command are equal in name, arity, flags, positions, categories and
/// tips, in what they say of the keys apart from remarks, and in the subcommands that both have.
fn alike(ours: &Frame, oracle: &Frame) -> bool {
    const KEYS: usize = 8;
    const SUBCOMMANDS: usize = 9;
    if [ours.items.len(), oracle.items.len()] != [SUBCOMMANDS + 1; 2] {
        return false;
    }
    let keys = |frame: &Frame| -> Vec<Vec<Frame>> {
        let without_remarks = |key: &Frame| -> Vec<Frame> {
            let fields = key.items.chunks(2);
            let kept = fields.filter(|field| field[0].text() != b"notes");
            kept.flatten().cloned().collect()
        };
        frame.items[KEYS]
            .items
            .iter()
            .map(without_remarks)
            .collect()
    };
    let (our_subs, oracle_subs) = (&ours.items[SUBCOMMANDS], &oracle.items[SUBCOMMANDS]);
    let subs_are_alike = our_subs.items.is_empty() == oracle_subs.items.is_empty()
        && (our_subs.items.is_empty() || described("", our_subs, oracle_subs));
    ours.items[..KEYS] == oracle.items[..KEYS] && keys(ours) == keys(oracle) && subs_are_alike
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Rules, Way};
    use crate::resp::Frame;

    fn excused(way: Way, name: &str, ours: &str, oracle: &str) -> bool {
        way.excuses(
            name,
            &Frame::of(ours.as_bytes()),
            &Frame::of(oracle.as_bytes()),
            Duration::ZERO,
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
        let rules = Rules::parse("| `type` | `A`, `A B C` | |").unwrap();
        let find = |words: &str| {
            let words: Vec<Vec<u8>> = words.split(' ').map(|word| word.into()).collect();
            rules.find(&words).map(|(name, _)| name.to_owned())
        };
        assert_eq!(find("a").as_deref(), Some("A"));
        assert_eq!(find("a b"), None);
        assert_eq!(find("a b c d").as_deref(), Some("A B C"));
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
        assert!(excused(Way::Estimate, "X", ":1\r\n", ":2\r\n"));
        assert!(excused(Way::Estimate, "X", "$-1\r\n", ":2\r\n"));
        assert!(!excused(Way::Estimate, "X", ":2\r\n", "$-1\r\n"));
        let fields = |name: &str, ours: &str, oracle: &str| {
            let frame = |text: &str| format!("${}\r\n{text}\r\n", text.len());
            excused(Way::Fields, name, &frame(ours), &frame(oracle))
        };
        assert!(fields(
            "CLIENT INFO",
            "id=1 a=x more=2 b=\n",
            "id=2 a= b=3\n"
        ));
        assert!(!fields("CLIENT INFO", "id=1 b=2\n", "id=2 a= b=3\n"));
        assert!(!fields("CLIENT INFO", "a=1 id=1\n", "id=2 a=\n"));
        let ours = "# Server\nx:1\n# Clients\n# Raft\n";
        assert!(fields("INFO", ours, "# Server\ny:2\n# CPU\n# Clients\n"));
        assert!(!fields("INFO", ours, "# Server\n# Memory\n"));
        assert!(excused(Way::Type, "INFO", "$1\r\na\r\n", "$0\r\n\r\n"));
        assert!(!excused(Way::Type, "INFO", "+a\r\n", "$0\r\n\r\n"));

        assert!(excused(Way::About, "TTL", ":9\r\n", ":10\r\n"));
        assert!(!excused(Way::About, "TTL", ":8\r\n", ":10\r\n"));
        assert!(!excused(Way::About, "TTL", ":-1\r\n", ":0\r\n"));
        assert!(excused(Way::About, "PTTL", ":9000\r\n", ":10000\r\n"));
        assert!(!excused(Way::About, "PTTL", ":8999\r\n", ":10000\r\n"));
        let apart = |name: &str, ours: &str| {
            let [ours, oracle] = [ours, ":10000\r\n"].map(|text| Frame::of(text.as_bytes()));
            Way::About.excuses(name, &ours, &oracle, Duration::from_millis(1500))
        };
        assert!(apart("PTTL", ":7500\r\n") && !apart("PTTL", ":7499\r\n"));
        assert!(apart("TTL", ":9998\r\n") && !apart("TTL", ":9997\r\n"));

        let encoding = |ours: &str, oracle: &str| {
            let frame = |text: &str| format!("${}\r\n{text}\r\n", text.len());
            excused(Way::Encoding, "X", &frame(ours), &frame(oracle))
        };
        assert!(encoding("int", "raw") && encoding("embstr", "raw") && encoding("int", "embstr"));
        assert!(!encoding("raw", "embstr") && !encoding("embstr", "int") && !encoding("int", "x"));

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
    fn descriptions_differ_in_subcommands_and_remarks_only() {
        let keys = |more: &str| {
            format!(
                "*1\r\n*{}\r\n$5\r\nflags\r\n*0\r\n{more}",
                2 + more.len().min(1) * 2
            )
        };
        let of = |arity: i32, keys: &str, subs: &str| {
            format!(
                "*10\r\n$1\r\na\r\n:{arity}\r\n*0\r\n:0\r\n:0\r\n:0\r\n*0\r\n*0\r\n{keys}{subs}"
            )
        };
        let plain = of(2, &keys(""), "*0\r\n");
        let remark = of(2, &keys("$5\r\nnotes\r\n$1\r\nx\r\n"), "*0\r\n");
        let other_key = of(2, &keys("$5\r\nother\r\n$1\r\nx\r\n"), "*0\r\n");
        let other_arity = of(3, &keys(""), "*0\r\n");
        let one = |text: &str| format!("*1\r\n{text}");
        let alike = |ours: &str, oracle: &str| {
            excused(Way::Described, "COMMAND INFO", &one(ours), &one(oracle))
        };
        assert!(alike(&plain, &remark));
        assert!(!alike(&plain, &other_key) && !alike(&plain, &other_arity));
        assert!(!alike("*-1\r\n", &plain));
        let container = |sub: &str| of(2, "*0\r\n", &one(sub));
        assert!(alike(&container(&plain), &container(&remark)));
        assert!(!alike(&container(&plain), &container(&other_arity)));
        let two = format!("*2\r\n{plain}*10\r\n$1\r\nb\r\n{}", ":1\r\n".repeat(9));
        assert!(excused(Way::Described, "COMMAND", &one(&plain), &two));
        assert!(!excused(
            Way::Described,
            "COMMAND",
            &one(&other_arity),
            &two
        ));
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
            Way::Described,
            Way::Encoding,
            Way::Estimate,
            Way::Fields,
        ] {
            assert!(!excused(way, "X", "-ERR a\r\n", "-ERR b\r\n"), "{way:?}");
            assert!(!excused(way, "X", "-ERR a\r\n", "+OK\r\n"), "{way:?}");
        }
    }
}
