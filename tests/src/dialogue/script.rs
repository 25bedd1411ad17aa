//! The text of a dialogue: read into steps, held against replies, and written with other replies.

use std::collections::BTreeMap;

use super::Side;

/// In an expected line: any text.
const ANY: &str = "<any>";

/// An expected line: any number of lines.
const MORE: &str = "<more>";

/// A part of a file.
#[derive(Debug)]
pub(super) enum Piece {
    /// A comment or an empty line.
    Text(String),
    Step(Step),
}

/// What is asked on a connection, and what comes back.
#[derive(Debug)]
pub(super) struct Step {
    /// Its line in the file.
    pub(super) line: usize,
    /// The line itself.
    pub(super) source: String,
    pub(super) connection: String,
    pub(super) ask: Ask,
    redis: Vec<String>,
    /// Where memkv differs: words of docs/differences.md, and memkv's reply.
    pub(super) memkv: Option<(String, Vec<String>)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Command(Vec<Vec<u8>>),
    /// A frame comes by itself.
    Nothing,
}

impl Piece {
    pub(super) fn step(&self) -> Option<&Step> {
        match self {
            Piece::Text(_) => None,
            Piece::Step(step) => Some(step),
        }
    }
}

impl Step {
    /// The lines that this side replies.
    pub(super) fn expected(&self, side: Side) -> &[String] {
        match (&self.memkv, side) {
            (Some((_, lines)), Side::Memkv) => lines,
            _ => &self.redis,
        }
    }
}

/// Reads a file; an error names the line that is not written as it must be.
pub(super) fn parse(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    // Whether the line before belongs to a step.
    let mut open = false;
    for (line, source) in (1..).zip(text.lines()) {
        let last = match pieces.last_mut() {
            Some(Piece::Step(step)) if open => Some(step),
            _ => None,
        };
        if source.is_empty() || source.starts_with('#') {
            open = false;
            pieces.push(Piece::Text(source.to_owned()));
        } else if let Some((connection, ask)) = prompt(source) {
            let ask = ask.map_err(|error| format!("line {line}: {error}"))?;
            open = true;
            pieces.push(Piece::Step(Step {
                line,
                source: source.to_owned(),
                connection: connection.to_owned(),
                ask,
                redis: Vec::new(),
                memkv: None,
            }));
        } else {
            let step = last.ok_or_else(|| format!("line {line}: a reply without a command"))?;
            match (source.strip_prefix("! "), &mut step.memkv) {
                (Some(pointer), None) => step.memkv = Some((pointer.to_owned(), Vec::new())),
                (Some(_), Some(_)) => return Err(format!("line {line}: memkv replies once")),
                (None, Some((_, lines))) => lines.push(source.to_owned()),
                (None, None) => step.redis.push(source.to_owned()),
            }
        }
    }
    Ok(pieces)
}

/// `name> command` or `name<`; a name has lower-case letters, or none.
fn prompt(line: &str) -> Option<(&str, Result<Ask, String>)> {
    let end = line.find(|one: char| !one.is_ascii_lowercase())?;
    let (name, rest) = line.split_at(end);
    match rest.strip_prefix("> ") {
        Some(command) => Some((name, words(command).map(Ask::Command))),
        None => (rest == "<").then_some((name, Ok(Ask::Nothing))),
    }
}

/// The words of a command: between spaces, or in double quotes with `\"`, `\\`, `\n`, `\r` and `\xHH`.
fn words(command: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut rest = command.trim();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (word, left) = quoted_word(quoted)?;
            words.push(word);
            rest = left;
        } else {
            let (word, left) = rest.split_once(' ').unwrap_or((rest, ""));
            words.push(word.as_bytes().to_vec());
            rest = left;
        }
        rest = rest.trim_start();
    }
    if words.is_empty() {
        return Err("no command".to_owned());
    }
    Ok(words)
}

/// A word up to its closing quote, and what follows.
fn quoted_word(text: &str) -> Result<(Vec<u8>, &str), String> {
    let mut word = Vec::new();
    let mut rest = text;
    loop {
        let first = rest.chars().next().ok_or("a quote is not closed")?;
        rest = &rest[first.len_utf8()..];
        match first {
            '"' => return Ok((word, rest)),
            '\\' => {
                let (byte, length) = match rest.as_bytes() {
                    [b'n', ..] => (b'\n', 1),
                    [b'r', ..] => (b'\r', 1),
                    [one @ (b'"' | b'\\'), ..] => (*one, 1),
                    [b'x', ..] => {
                        let digits = rest.get(1..3).ok_or("\\x needs two digits")?;
                        let byte = u8::from_str_radix(digits, 16);
                        (byte.map_err(|_| format!("\\x{digits} is no byte"))?, 3)
                    }
                    _ => return Err(format!("\\ before {rest:?}")),
                };
                word.push(byte);
                rest = &rest[length..];
            }
            other => word.extend(other.to_string().into_bytes()),
        }
    }
}

/// Whether a reply is the expected one.
pub(super) fn matches(expected: &[String], actual: &[String]) -> bool {
    let Some((first, rest)) = expected.split_first() else {
        return actual.is_empty();
    };
    if first == MORE {
        return (0..=actual.len()).any(|from| matches(rest, &actual[from..]));
    }
    let fits = actual.first().is_some_and(|line| line_matches(first, line));
    fits && matches(rest, &actual[1..])
}

fn line_matches(expected: &str, actual: &str) -> bool {
    let Some((before, after)) = expected.split_once(ANY) else {
        return expected == actual;
    };
    let Some(rest) = actual.strip_prefix(before) else {
        return false;
    };
    let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    ends.into_iter().any(|at| line_matches(after, &rest[at..]))
}

/// The file with other replies of redis-server, by the line of their step.
pub(super) fn write(pieces: &[Piece], replies: &BTreeMap<usize, Vec<String>>) -> String {
    let mut lines: Vec<&str> = Vec::new();
    let mut pointers = Vec::new();
    for piece in pieces {
        pointers.push(match piece.step().and_then(|step| step.memkv.as_ref()) {
            Some((pointer, _)) => format!("! {pointer}"),
            None => String::new(),
        });
    }
    for (piece, pointer) in pieces.iter().zip(&pointers) {
        match piece {
            Piece::Text(line) => lines.push(line),
            Piece::Step(step) => {
                lines.push(&step.source);
                let redis = replies.get(&step.line).unwrap_or(&step.redis);
                lines.extend(redis.iter().map(String::as_str));
                if let Some((_, memkv)) = &step.memkv {
                    lines.push(pointer);
                    lines.extend(memkv.iter().map(String::as_str));
                }
            }
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Ask, Side, matches, parse, words, write};

    const TEXT: &str = "# head\n\n> SET k \"a b\"\nOK\nb<\n1) \"x\"\n! words\n(nil)\n";

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_file_is_read_into_steps() {
        let pieces = parse(TEXT).unwrap();
        let steps: Vec<_> = pieces.iter().filter_map(super::Piece::step).collect();
        let [set, comes] = steps[..] else {
            panic!("{steps:?}");
        };
        let words = ["SET", "k", "a b"].map(|word| word.as_bytes().to_vec());
        assert_eq!(set.ask, Ask::Command(words.to_vec()));
        assert_eq!((set.line, set.expected(Side::Memkv)), (3, &lines("OK")[..]));
        assert_eq!(
            (comes.connection.as_str(), &comes.ask),
            ("b", &Ask::Nothing)
        );
        assert_eq!(comes.expected(Side::Redis), lines("1) \"x\""));
        assert_eq!(comes.expected(Side::Memkv), lines("(nil)"));
    }

    #[test]
    fn what_is_not_a_dialogue_is_refused() {
        for bad in [
            "OK\n",
            "# head\nOK\n",
            "> \"a\n",
            "> SET \\\n\nOK\n",
            "> A\n! x\n! y\n",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn words_are_quoted_as_in_redis_cli() {
        let found = words(r#"a  "" "\x00\n\"\\" é"#).unwrap();
        assert_eq!(found, [&b"a"[..], b"", b"\0\n\"\\", "é".as_bytes()]);
        for bad in [r#""\q""#, r#""\x0"#, r#""open"#, ""] {
            assert!(words(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_is_left_open_may_differ() {
        let fits = |expected: &str, actual: &str| matches(&lines(expected), &lines(actual));
        assert!(fits("a\nb", "a\nb"));
        assert!(!fits("a\nb", "a"));
        assert!(!fits("a", "a\nb"));
        assert!(!fits("a", "b"));
        assert!(!fits("", "a"));
        assert!(fits("(integer) <any>", "(integer) 7"));
        assert!(fits("a<any>b<any>", "a1b2"));
        assert!(!fits("(integer) <any>", "\"7\""));
        assert!(!fits("a<any>b", "a1"));
        assert!(fits("a\n<more>\nd\n<more>", "a\nb\nc\nd"));
        assert!(!fits("a\n<more>\nd", "a\nb"));
    }

    #[test]
    fn only_replies_are_written_anew() {
        let pieces = parse(TEXT).unwrap();
        assert_eq!(write(&pieces, &BTreeMap::new()), TEXT);
        let replies = BTreeMap::from([(5, lines("1) \"y\""))]);
        assert_eq!(write(&pieces, &replies), TEXT.replace("\"x\"", "\"y\""));
    }
}
