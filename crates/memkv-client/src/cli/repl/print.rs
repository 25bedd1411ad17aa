//! Replies as text: as redis-cli prints them on a terminal, byte for byte, or as JSON.
//! Never lets a reply's bytes control a terminal, except in raw, which is asked for.

use memkv_proto::json_bytes;
use memkv_resp::Frame;
use serde_json::{Map, Value, json};

use super::super::args::Format;

/// One reply to the command `words`, with its line end.
pub(super) fn text(words: &[Vec<u8>], frame: &Frame, format: Format) -> Vec<u8> {
    match (format, frame) {
        (Format::Table, Frame::Bulk(text)) if is_report(words) => {
            let end: &[u8] = if text.ends_with(b"\n") { b"" } else { b"\n" };
            [&visible(text)[..], end].concat()
        }
        _ => plain(frame, format),
    }
}

/// A text for people with its lines, and every other control character escaped: a terminal must not
/// obey what a node says.
fn visible(text: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() && !matches!(c, '\n' | '\r' | '\t') {
                shown.extend(c.escape_default().map(|c| c as u8));
            } else {
                shown.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        shown.extend(chunk.invalid().escape_ascii());
    }
    shown
}

/// Commands whose reply is a text for people, which no quotes help to read.
fn is_report(words: &[Vec<u8>]) -> bool {
    const REPORTS: [&[&str]; 6] = [
        &["info"],
        &["lolwut"],
        &["client", "list"],
        &["client", "info"],
        &["memory", "doctor"],
        &["latency", "doctor"],
    ];
    REPORTS.iter().any(|report| {
        let same = |(word, name): (&Vec<u8>, &&str)| word.eq_ignore_ascii_case(name.as_bytes());
        words.len() >= report.len() && words.iter().zip(report.iter()).all(same)
    })
}

fn plain(frame: &Frame, format: Format) -> Vec<u8> {
    match format {
        Format::Table => formatted(frame, ""),
        Format::Raw => {
            let mut line = raw(frame);
            line.push(b'\n');
            line
        }
        Format::Json => format!("{}\n", json_of(frame)).into_bytes(),
    }
}

/// As redis-cli does it; `indent` stands before every line but the first.
fn formatted(frame: &Frame, indent: &str) -> Vec<u8> {
    let line = match frame {
        Frame::Error(text) | Frame::BulkError(text) => format!("(error) {}", printable(text)),
        Frame::Simple(text) => printable(text),
        // A text for people, which may have lines.
        Frame::Verbatim(_, text) => return [&visible(text)[..], b"\n"].concat(),
        Frame::Integer(number) => format!("(integer) {number}"),
        Frame::Double(number) => format!("(double) {}", double(*number)),
        Frame::BigNumber(digits) => format!("(big number) {}", printable(digits)),
        Frame::Bulk(bytes) => quoted(bytes),
        Frame::Boolean(true) => "(true)".to_owned(),
        Frame::Boolean(false) => "(false)".to_owned(),
        Frame::Null | Frame::NullBulk | Frame::NullArray => "(nil)".to_owned(),
        Frame::Attributed(_, frame) => return formatted(frame, indent),
        Frame::Array(items) => return aggregate(items, ')', "array", indent),
        Frame::Set(items) => return aggregate(items, '~', "set", indent),
        Frame::Push(items) => return aggregate(items, '>', "push", indent),
        Frame::Map(pairs) => return map(pairs, indent),
    };
    format!("{line}\n").into_bytes()
}

fn aggregate(items: &[Frame], mark: char, what: &str, indent: &str) -> Vec<u8> {
    if items.is_empty() {
        return format!("(empty {what})\n").into_bytes();
    }
    let width = items.len().to_string().len();
    let inner = format!("{indent}{}", " ".repeat(width + 2));
    let mut text = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let indent = if at == 0 { "" } else { indent };
        text.extend_from_slice(format!("{indent}{:>width$}{mark} ", at + 1).as_bytes());
        text.extend(formatted(item, &inner));
    }
    text
}

fn map(pairs: &[(Frame, Frame)], indent: &str) -> Vec<u8> {
    if pairs.is_empty() {
        return b"(empty hash)\n".to_vec();
    }
    let width = pairs.len().to_string().len();
    let inner = format!("{indent}{}", " ".repeat(width + 2));
    let mut text = Vec::new();
    for (at, (key, value)) in pairs.iter().enumerate() {
        let indent = if at == 0 { "" } else { indent };
        text.extend_from_slice(format!("{indent}{:>width$}# ", at + 1).as_bytes());
        text.extend(formatted(key, &inner));
        text.pop();
        text.extend_from_slice(b" => ");
        if has_lines(value) {
            text.push(b'\n');
            text.extend_from_slice(inner.as_bytes());
        }
        text.extend(formatted(value, &inner));
    }
    text
}

/// Whether elements of it take a line each.
fn has_lines(frame: &Frame) -> bool {
    match frame {
        Frame::Array(items) | Frame::Set(items) | Frame::Push(items) => !items.is_empty(),
        Frame::Map(pairs) => !pairs.is_empty(),
        Frame::Attributed(_, frame) => has_lines(frame),
        _ => false,
    }
}

/// The bytes of strings as they are, and a line for each element.
fn raw(frame: &Frame) -> Vec<u8> {
    match frame {
        Frame::Error(text)
        | Frame::BulkError(text)
        | Frame::Simple(text)
        | Frame::Bulk(text)
        | Frame::Verbatim(_, text)
        | Frame::BigNumber(text) => text.clone(),
        Frame::Integer(number) => number.to_string().into_bytes(),
        Frame::Double(number) => double(*number).into_bytes(),
        Frame::Boolean(truth) => truth.to_string().into_bytes(),
        Frame::Null | Frame::NullBulk | Frame::NullArray => Vec::new(),
        Frame::Attributed(_, frame) => raw(frame),
        Frame::Array(items) | Frame::Set(items) | Frame::Push(items) => {
            let lines: Vec<_> = items.iter().map(raw).collect();
            lines.join(&b'\n')
        }
        Frame::Map(pairs) => {
            let lines: Vec<_> = pairs
                .iter()
                .map(|(key, value)| [raw(key), raw(value)].join(&b' '))
                .collect();
            lines.join(&b'\n')
        }
    }
}

/// Strings that are not UTF-8 become `{"base64": ...}`, errors `{"error": ...}`.
fn json_of(frame: &Frame) -> Value {
    match frame {
        Frame::Error(text) | Frame::BulkError(text) => {
            json!({ "error": String::from_utf8_lossy(text) })
        }
        Frame::Simple(text) | Frame::Bulk(text) | Frame::Verbatim(_, text) => string(text),
        Frame::BigNumber(digits) => String::from_utf8_lossy(digits).into(),
        Frame::Integer(number) => (*number).into(),
        // JSON has no infinities.
        Frame::Double(number) if !number.is_finite() => double(*number).into(),
        Frame::Double(number) => (*number).into(),
        Frame::Boolean(truth) => (*truth).into(),
        Frame::Null | Frame::NullBulk | Frame::NullArray => Value::Null,
        Frame::Attributed(_, frame) => json_of(frame),
        Frame::Array(items) | Frame::Set(items) | Frame::Push(items) => {
            items.iter().map(json_of).collect()
        }
        Frame::Map(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| {
                let key = raw(key);
                (String::from_utf8_lossy(&key).into_owned(), json_of(value))
            });
            Value::Object(pairs.collect())
        }
    }
}

fn string(bytes: &[u8]) -> Value {
    let mut object = Map::new();
    json_bytes::put(&mut object, "", bytes);
    match object.remove("") {
        Some(text) => text,
        None => json!({ "base64": object.remove("_base64") }),
    }
}

fn double(number: f64) -> String {
    if number.is_nan() {
        "nan".to_owned()
    } else {
        number.to_string()
    }
}

/// In double quotes, with the escapes that a line of input takes back.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(byte)]),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x07 => text.push_str("\\a"),
            0x08 => text.push_str("\\b"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push('"');
    text
}

/// What a line of the protocol holds, without what would control a terminal.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Frame {
        Frame::Bulk(text.into())
    }

    fn table(frame: &Frame) -> String {
        String::from_utf8(plain(frame, Format::Table)).unwrap()
    }

    #[test]
    fn a_text_for_people_keeps_its_lines_and_commands_no_terminal() {
        let words = vec![b"INFO".to_vec()];
        let evil = b"a\r\nb\t\x1b[2J\xff".to_vec();
        let shown = b"a\r\nb\t\\u{1b}[2J\\xff\n";
        for frame in [
            Frame::Bulk(evil.clone()),
            Frame::Verbatim(*b"txt", evil.clone()),
        ] {
            assert_eq!(text(&words, &frame, Format::Table), shown);
        }
        assert_eq!(
            text(&words, &Frame::Bulk(evil.clone()), Format::Raw),
            [&evil[..], b"\n"].concat()
        );
    }

    #[test]
    fn scalars_as_redis_cli_prints_them() {
        for (frame, line) in [
            (Frame::Simple("OK".into()), "OK\n"),
            (Frame::Error("ERR no".into()), "(error) ERR no\n"),
            (Frame::Integer(-1), "(integer) -1\n"),
            (Frame::NullBulk, "(nil)\n"),
            (Frame::Null, "(nil)\n"),
            (Frame::Boolean(true), "(true)\n"),
            (Frame::Double(0.5), "(double) 0.5\n"),
            (Frame::Double(f64::NEG_INFINITY), "(double) -inf\n"),
            (bulk(""), "\"\"\n"),
            (bulk("a\"b\\"), "\"a\\\"b\\\\\"\n"),
            (
                Frame::Bulk(b"\n\r\t\x07\x08\x1b\xc3\xa9~".to_vec()),
                "\"\\n\\r\\t\\a\\b\\x1b\\xc3\\xa9~\"\n",
            ),
            (Frame::Verbatim(*b"txt", "a\nb".into()), "a\nb\n"),
            (Frame::Array(vec![]), "(empty array)\n"),
            (Frame::Set(vec![]), "(empty set)\n"),
            (Frame::Map(vec![]), "(empty hash)\n"),
        ] {
            assert_eq!(table(&frame), line);
        }
    }

    #[test]
    fn reports_are_shown_as_they_are() {
        let shown = |line: &str, format| {
            let words: Vec<_> = line
                .split(' ')
                .map(|word| word.as_bytes().to_vec())
                .collect();
            String::from_utf8(text(&words, &bulk("# S\r\na:1"), format)).unwrap()
        };
        for report in ["INFO server", "client list", "Client List type normal"] {
            assert_eq!(shown(report, Format::Table), "# S\r\na:1\n");
        }
        for other in ["get info", "client", "client getname"] {
            assert_eq!(shown(other, Format::Table), "\"# S\\r\\na:1\"\n");
        }
        assert_eq!(shown("info", Format::Json), "\"# S\\r\\na:1\"\n");
    }

    #[test]
    fn nested_replies_line_up() {
        let ten: Vec<_> = (1..=10).map(Frame::Integer).collect();
        let frame = Frame::Array(vec![
            bulk("a"),
            Frame::Array(vec![Frame::Integer(1), Frame::Array(ten[..2].to_vec())]),
            Frame::NullArray,
        ]);
        let expected = "1) \"a\"\n2) 1) (integer) 1\n   2) 1) (integer) 1\n      2) (integer) 2\n\
                        3) (nil)\n";
        assert_eq!(table(&frame), expected);
        let lines = table(&Frame::Array(ten));
        assert!(lines.starts_with(" 1) (integer) 1\n 2)"), "{lines}");
        assert!(lines.ends_with("10) (integer) 10\n"), "{lines}");
    }

    #[test]
    fn maps_show_pairs() {
        let frame = Frame::Map(vec![
            (bulk("a"), Frame::Integer(1)),
            (bulk("b"), Frame::Set(vec![bulk("x"), bulk("y")])),
        ]);
        let expected = "1# \"a\" => (integer) 1\n2# \"b\" => \n   1~ \"x\"\n   2~ \"y\"\n";
        assert_eq!(table(&frame), expected);
    }

    #[test]
    fn raw_is_byte_for_byte_and_json_is_json() {
        let frame = Frame::Array(vec![
            Frame::Bulk(b"\xff\n".to_vec()),
            Frame::NullBulk,
            Frame::Integer(2),
            Frame::Map(vec![(bulk("k"), Frame::Error("ERR no".into()))]),
        ]);
        assert_eq!(plain(&frame, Format::Raw), b"\xff\n\n\n2\nk ERR no\n");
        let expected = "[{\"base64\":\"/wo=\"},null,2,{\"k\":{\"error\":\"ERR no\"}}]\n";
        assert_eq!(plain(&frame, Format::Json), expected.as_bytes());
    }
}
