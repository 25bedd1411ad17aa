//! Replies as a server writes them, in the protocol that the connection chose with `HELLO`. Never
//! writes a line that the client could read as two.

use bytes::{BufMut, Bytes};

use crate::number::{NumberLine, format_double};

/// The version of the protocol that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// The protocol at the start of every connection.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// The output to which replies are appended.
pub trait Output {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);

    /// Appends shared bytes; large ones need not be copied.
    fn put_shared(&mut self, bytes: &Bytes) {
        self.put(bytes);
    }
}

/// A buffer that grows, such as a `BytesMut` or a `Vec<u8>`.
impl<B: BufMut> Output for B {
    fn put(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }
}

/// Appends replies to an output. One call is one reply, or the head of an aggregate whose elements the
/// next calls write.
///
/// Where RESP2 has no such type, the nearest is written, as in Redis: a map is a flat array, a set
/// and a push are arrays, a boolean is an integer, and a double, a big number and a verbatim string
/// are bulk strings.
#[derive(Debug)]
pub struct ReplyWriter<'a, B: ?Sized> {
    out: &'a mut B,
    protocol: Protocol,
}

impl<'a, B: Output + ?Sized> ReplyWriter<'a, B> {
    /// A writer that appends to `out`.
    pub fn new(out: &'a mut B, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// The protocol in which this writes.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.out.put(b"+OK\r\n");
    }

    /// A simple string, or status; CR and LF become spaces.
    pub fn simple(&mut self, text: &[u8]) {
        self.line(b'+', text);
    }

    /// An error, its code first: `ERR syntax error`. CR and LF at its ends are dropped, and within
    /// it become spaces.
    pub fn error(&mut self, text: &[u8]) {
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let start = text.iter().position(|byte| !is_end(byte));
        let end = text.iter().rposition(|byte| !is_end(byte));
        let trimmed = match (start, end) {
            (Some(start), Some(end)) => &text[start..=end],
            _ => &[],
        };
        self.line(b'-', trimmed);
    }

    /// An integer.
    pub fn integer(&mut self, value: i64) {
        self.put(&NumberLine::signed(b':', value));
    }

    /// A bulk string: any bytes.
    pub fn bulk(&mut self, data: &[u8]) {
        self.put(&NumberLine::length(b'$', data.len()));
        self.out.put(data);
        self.out.put(b"\r\n");
    }

    /// The same for shared bytes, which are not copied if they are large and the output can send them in
    /// place.
    pub fn bulk_shared(&mut self, data: &Bytes) {
        self.put(&NumberLine::length(b'$', data.len()));
        self.out.put_shared(data);
        self.out.put(b"\r\n");
    }

    /// No value: `$-1`, in RESP3 `_`.
    pub fn null(&mut self) {
        self.either(b"$-1\r\n", b"_\r\n");
    }

    /// No array, as from an `EXEC` that did not run: `*-1`, in RESP3 `_`.
    pub fn null_array(&mut self) {
        self.either(b"*-1\r\n", b"_\r\n");
    }

    /// The head of an array; `len` elements follow.
    pub fn array(&mut self, len: usize) {
        self.put(&NumberLine::length(b'*', len));
    }

    /// The head of a map; `len` keys follow, each before its value.
    pub fn map(&mut self, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(2 * len),
            Protocol::Resp3 => self.put(&NumberLine::length(b'%', len)),
        }
    }

    /// The head of a set; `len` elements follow.
    pub fn set(&mut self, len: usize) {
        self.aggregate(b'~', len);
    }

    /// The head of a push; `len` elements follow, the first being its kind. In RESP3 it answers no
    /// request.
    pub fn push(&mut self, len: usize) {
        self.aggregate(b'>', len);
    }

    /// A double, with 17 significant digits as `%.17g` writes them.
    pub fn double(&mut self, value: f64) {
        self.line_or_bulk(b',', format_double(value).as_bytes());
    }

    /// A truth value: `:1` or `:0`, in RESP3 `#t` or `#f`.
    pub fn boolean(&mut self, value: bool) {
        if value {
            self.either(b":1\r\n", b"#t\r\n");
        } else {
            self.either(b":0\r\n", b"#f\r\n");
        }
    }

    /// A text to be shown unchanged; `format` is `txt` or `mkd`, and not sent in RESP2.
    pub fn verbatim(&mut self, format: &[u8; 3], text: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => {
                self.put(&NumberLine::length(b'=', text.len() + format.len() + 1));
                self.out.put(format);
                self.out.put(b":");
                self.out.put(text);
                self.out.put(b"\r\n");
            }
        }
    }

    /// An integer of any size, in decimal.
    pub fn big_number(&mut self, digits: &[u8]) {
        self.line_or_bulk(b'(', digits);
    }

    fn put(&mut self, line: &NumberLine) {
        self.out.put(line.as_bytes());
    }

    fn either(&mut self, resp2: &[u8], resp3: &[u8]) {
        self.out.put(match self.protocol {
            Protocol::Resp2 => resp2,
            Protocol::Resp3 => resp3,
        });
    }

    fn aggregate(&mut self, kind: u8, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(len),
            Protocol::Resp3 => self.put(&NumberLine::length(kind, len)),
        }
    }

    fn line_or_bulk(&mut self, kind: u8, text: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => self.line(kind, text),
        }
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.put(&[kind]);
        let mut pieces = text.split(|byte| matches!(byte, b'\r' | b'\n'));
        self.out.put(pieces.next().unwrap_or_default());
        for piece in pieces {
            self.out.put(b" ");
            self.out.put(piece);
        }
        self.out.put(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::{Protocol, ReplyWriter};

    /// A reply's bytes in RESP2 and in RESP3.
    fn both(reply: impl Fn(&mut ReplyWriter<'_, Vec<u8>>)) -> (String, String) {
        let wire = |protocol| {
            let mut out = Vec::new();
            reply(&mut ReplyWriter::new(&mut out, protocol));
            String::from_utf8(out).unwrap()
        };
        (wire(Protocol::Resp2), wire(Protocol::Resp3))
    }

    #[test]
    fn every_type_is_written_as_redis_does() {
        type Reply = fn(&mut ReplyWriter<'_, Vec<u8>>);
        let replies: &[(Reply, &str, &str)] = &[
            (|w| w.ok(), "+OK\r\n", "+OK\r\n"),
            (|w| w.simple(b"PONG"), "+PONG\r\n", "+PONG\r\n"),
            (|w| w.error(b"ERR no"), "-ERR no\r\n", "-ERR no\r\n"),
            (|w| w.integer(-7), ":-7\r\n", ":-7\r\n"),
            (
                |w| w.bulk(b"a\r\nb"),
                "$4\r\na\r\nb\r\n",
                "$4\r\na\r\nb\r\n",
            ),
            (|w| w.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n"),
            (|w| w.null(), "$-1\r\n", "_\r\n"),
            (|w| w.null_array(), "*-1\r\n", "_\r\n"),
            (|w| w.array(0), "*0\r\n", "*0\r\n"),
            (|w| w.map(3), "*6\r\n", "%3\r\n"),
            (|w| w.set(3), "*3\r\n", "~3\r\n"),
            (|w| w.push(3), "*3\r\n", ">3\r\n"),
            (|w| w.double(0.5), "$3\r\n0.5\r\n", ",0.5\r\n"),
            (
                |w| w.double(f64::NEG_INFINITY),
                "$4\r\n-inf\r\n",
                ",-inf\r\n",
            ),
            (|w| w.boolean(true), ":1\r\n", "#t\r\n"),
            (|w| w.boolean(false), ":0\r\n", "#f\r\n"),
            (
                |w| w.verbatim(b"txt", b"a\nb"),
                "$3\r\na\nb\r\n",
                "=7\r\ntxt:a\nb\r\n",
            ),
            (|w| w.big_number(b"-12"), "$3\r\n-12\r\n", "(-12\r\n"),
        ];
        for (reply, resp2, resp3) in replies {
            let (two, three) = both(reply);
            assert_eq!(two, *resp2);
            assert_eq!(three, *resp3);
        }
    }

    #[test]
    fn one_line_stays_one_line() {
        assert_eq!(both(|w| w.simple(b"\na\r\nb")).0, "+ a  b\r\n");
        assert_eq!(both(|w| w.error(b"\r\nERR a\r\nb\n")).0, "-ERR a  b\r\n");
        assert_eq!(both(|w| w.error(b"\r\n")).0, "-\r\n");
        assert_eq!(both(|w| w.big_number(b"1\r\n:2")).1, "(1  :2\r\n");
    }
}
