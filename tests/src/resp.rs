//! A client of the Redis protocol over a plain socket, which keeps every byte of a reply: tests must
//! see the exact reply. Written apart from the product's codec, so that one
//! mistake is not made twice. Never reconnects, never retries.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than any answer that the server promises (5 s) on a busy machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Shown of a long frame when it is printed.
const SHOWN_CHARS: usize = 800;

/// Shown of bytes that are no frame.
const SHOWN_BYTES: usize = 200;

/// One reply. Equal frames have equal bytes on the wire, because every frame is written in one way
/// only: kind, line, CR LF, and what the line announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// First byte: `+`, `-`, `:`, `$`, `*`, `_`, `%`, `~`, `>`, `,`, `#`, `(`, `=` or `!`.
    pub kind: u8,
    /// The rest of the first line.
    pub line: Vec<u8>,
    /// Content of a bulk or verbatim string; empty for others.
    pub data: Vec<u8>,
    /// Elements of an aggregate; the keys and values of a map in turns.
    pub items: Vec<Frame>,
}

impl Frame {
    /// The one that its bytes describe, for tests of the comparison.
    ///
    /// # Panics
    ///
    /// When the bytes are no frame.
    #[track_caller]
    pub fn of(bytes: &[u8]) -> Frame {
        let mut rest = bytes;
        let frame = read_frame(&mut rest).unwrap();
        assert!(rest.is_empty(), "more than one frame");
        frame
    }

    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        matches!(self.kind, b'-' | b'!')
    }

    /// Whether it is a null of either protocol.
    pub fn is_null(&self) -> bool {
        self.kind == b'_' || (matches!(self.kind, b'$' | b'*') && self.line == b"-1")
    }

    /// Whether it is an array, map, set or push, and not the null one.
    pub fn is_aggregate(&self) -> bool {
        matches!(self.kind, b'*' | b'%' | b'~' | b'>') && !self.is_null()
    }

    /// The text of a simple or bulk string, a number or an error.
    pub fn text(&self) -> &[u8] {
        match self.kind {
            b'$' | b'=' | b'!' => &self.data,
            _ => &self.line,
        }
    }

    /// Its number, if it is an integer.
    pub fn integer(&self) -> Option<i64> {
        let text = std::str::from_utf8(&self.line).ok()?;
        (self.kind == b':').then(|| text.parse().ok())?
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write_text(&mut text);
        let cut: String = text.chars().take(SHOWN_CHARS).collect();
        let more = if cut.len() < text.len() { "..." } else { "" };
        write!(f, "{cut}{more}")
    }
}

impl Frame {
    fn write_text(&self, text: &mut String) {
        text.push(char::from(self.kind));
        text.push_str(&self.line.escape_ascii().to_string());
        if !self.data.is_empty() {
            text.push_str(&format!(" \"{}\"", self.data.escape_ascii()));
        }
        for (index, item) in self.items.iter().enumerate() {
            text.push_str(if index == 0 { " [" } else { ", " });
            item.write_text(text);
        }
        if !self.items.is_empty() {
            text.push(']');
        }
    }
}

/// A connection.
pub struct Resp {
    reader: BufReader<TcpStream>,
}

impl Resp {
    /// Connects to `host:port`; the connection speaks RESP2 as every new one does.
    pub fn connect(addr: &str) -> io::Result<Resp> {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Resp {
            reader: BufReader::new(stream),
        })
    }

    /// Changes how long a read waits for an answer.
    pub fn set_timeout(&self, limit: Duration) -> io::Result<()> {
        self.reader.get_ref().set_read_timeout(Some(limit))
    }

    /// Sends a command and reads its reply.
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<Frame> {
        self.send(&encode(arguments))?;
        self.receive()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Another handle of the socket, to write while this one reads.
    pub fn writer(&self) -> io::Result<TcpStream> {
        self.reader.get_ref().try_clone()
    }

    /// Reads one frame.
    pub fn receive(&mut self) -> io::Result<Frame> {
        read_frame(&mut self.reader)
    }

    /// Whether the other side closed the connection, and sent nothing before it did.
    pub fn at_end(&mut self) -> io::Result<bool> {
        Ok(self.reader.fill_buf()?.is_empty())
    }
}

/// A command as an array of bulk strings.
pub fn encode<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        let argument = argument.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn read_frame(input: &mut impl BufRead) -> io::Result<Frame> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if !line.ends_with(b"\r\n") {
        return Err(invalid(&line));
    }
    line.truncate(line.len() - 2);
    let kind = match line.first() {
        Some(kind) => *kind,
        None => return Err(invalid(&line)),
    };
    line.remove(0);
    let mut frame = Frame {
        kind,
        line,
        data: Vec::new(),
        items: Vec::new(),
    };
    match kind {
        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => {}
        _ if frame.is_null() => {}
        b'$' | b'=' | b'!' => frame.data = read_data(input, &frame.line)?,
        b'*' | b'~' | b'>' | b'%' => {
            let pairs = if kind == b'%' { 2 } else { 1 };
            for _ in 0..number(&frame.line)? * pairs {
                frame.items.push(read_frame(input)?);
            }
        }
        _ => return Err(invalid(&frame.line)),
    }
    Ok(frame)
}

fn read_data(input: &mut impl BufRead, line: &[u8]) -> io::Result<Vec<u8>> {
    let mut data = vec![0; number(line)? + 2];
    input.read_exact(&mut data)?;
    if !data.ends_with(b"\r\n") {
        return Err(invalid(&data));
    }
    data.truncate(data.len() - 2);
    Ok(data)
}

fn number(line: &[u8]) -> io::Result<usize> {
    let text = std::str::from_utf8(line).map_err(|_| invalid(line))?;
    text.parse().map_err(|_| invalid(line))
}

fn invalid(bytes: &[u8]) -> io::Error {
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES)];
    io::Error::other(format!("not a frame: \"{}\"", shown.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::{Frame, encode, read_frame};

    #[test]
    fn frames_keep_every_byte() {
        let frame = Frame::of(b"%1\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n");
        assert_eq!((frame.kind, frame.items.len()), (b'%', 2));
        assert_eq!(frame.items[0].text(), b"a");
        assert_eq!(frame.items[1].items[0].integer(), Some(1));
        assert!(frame.items[1].items[1].is_null());
        assert_ne!(Frame::of(b":1\r\n"), Frame::of(b":01\r\n"));
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for bad in [
            &b"\r\n"[..],
            b"x\r\n",
            b"+a\n",
            b"$3\r\nabcde\r\n",
            b"*x\r\n",
        ] {
            assert!(read_frame(&mut &*bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        assert_eq!(encode(&["GET", ""]), b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n");
    }
}
