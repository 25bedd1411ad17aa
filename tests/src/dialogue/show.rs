//! A reply as text, as redis-cli shows it. Unlike there, the nulls of the two protocols differ:
//! `(nil)` is the null string, `(nil array)` the null array, and `(null)` RESP3's null.

use crate::resp::Frame;

/// The lines of a reply.
pub(super) fn lines(frame: &Frame) -> Vec<String> {
    let text = || String::from_utf8_lossy(frame.text()).into_owned();
    let line = match frame.kind {
        b'$' | b'*' if frame.is_null() => match frame.kind {
            b'$' => "(nil)".to_owned(),
            _ => "(nil array)".to_owned(),
        },
        b'+' => text(),
        b'-' | b'!' => format!("(error) {}", text()),
        b':' => format!("(integer) {}", text()),
        b'$' => quoted(&frame.data),
        b'_' => "(null)".to_owned(),
        b',' => format!("(double) {}", text()),
        b'#' => format!("({})", if frame.line == b"t" { "true" } else { "false" }),
        b'(' => format!("(big number) {}", text()),
        b'=' => format!("(verbatim) {}", quoted(&frame.data)),
        _ => return items(frame),
    };
    vec![line]
}

/// `1) ` before the elements of an array, `1~ ` of a set, `1> ` of a push, `1# key => ` of a map.
fn items(frame: &Frame) -> Vec<String> {
    let (mark, name) = match frame.kind {
        b'~' => ('~', "set"),
        b'>' => ('>', "push"),
        b'%' => ('#', "map"),
        _ => (')', "array"),
    };
    if frame.items.is_empty() {
        return vec![format!("(empty {name})")];
    }
    let mut shown = Vec::new();
    let width = if frame.kind == b'%' { 2 } else { 1 };
    for (index, item) in frame.items.chunks(width).enumerate() {
        let head = match item {
            [key, _] => format!("{}{mark} {} => ", index + 1, lines(key).join(" ")),
            _ => format!("{}{mark} ", index + 1),
        };
        let value = item.last().map(lines).unwrap_or_default();
        for (number, line) in value.into_iter().enumerate() {
            let before = match number {
                0 => head.clone(),
                _ => " ".repeat(if width == 2 { 3 } else { head.len() }),
            };
            shown.push(format!("{before}{line}"));
        }
    }
    shown
}

/// In double quotes, with what cannot be seen escaped.
fn quoted(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.as_bytes() == bytes && !text.contains(char::is_control) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        format!("\"{}\"", bytes.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::lines;
    use crate::resp::Frame;

    #[test]
    fn replies_are_shown_as_in_redis_cli() {
        for (bytes, shown) in [
            (&b"+OK\r\n"[..], &["OK"][..]),
            (b"-ERR no\r\n", &["(error) ERR no"]),
            (b":-7\r\n", &["(integer) -7"]),
            (b"$4\r\na\"\\\n\r\n", &["\"a\\\"\\\\\\n\""]),
            (b"$-1\r\n", &["(nil)"]),
            (b"*-1\r\n", &["(nil array)"]),
            (b"_\r\n", &["(null)"]),
            (b"*0\r\n", &["(empty array)"]),
            (b"%0\r\n", &["(empty map)"]),
            (
                b"*2\r\n*2\r\n:1\r\n$-1\r\n+b\r\n",
                &["1) 1) (integer) 1", "   2) (nil)", "2) b"],
            ),
            (
                b"%1\r\n$1\r\na\r\n*2\r\n:1\r\n#t\r\n",
                &["1# \"a\" => 1) (integer) 1", "   2) (true)"],
            ),
            (b"~1\r\n,1.5\r\n", &["1~ (double) 1.5"]),
            (b">1\r\n(12\r\n", &["1> (big number) 12"]),
            (b"=7\r\ntxt:a\r\n\r\n", &["(verbatim) \"txt:a\\r\\n\""]),
        ] {
            assert_eq!(lines(&Frame::of(bytes)), shown, "{}", bytes.escape_ascii());
        }
    }
}
