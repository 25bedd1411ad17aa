//! Frames as a client reads them, every type of RESP2 and RESP3, and commands as it writes them.
//! Without recursion: a frame that nests deeper than a client can use is refused.
//!
//! Not supported, because Redis does not send them: streamed strings and aggregates (`$?`, `*?`).

use std::{fmt, mem};

use bytes::{Buf, BufMut, BytesMut};

use crate::number::parse_i64;
use crate::reply::{Protocol, ReplyWriter};

/// Deepest nesting: an array within an array counts 2. Redis's own replies stay below 10.
pub const MAX_FRAME_DEPTH: usize = 32;

/// Longest frame in bytes, with all that is in it (1 GiB): twice the longest bulk string of Redis.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024 * 1024;

/// Longest line in bytes (64 KiB): an error quotes only a little of the refused request.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// One reply, push or element of one. Strings of all types are bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// `+`: a simple string.
    Simple(Vec<u8>),
    /// `-`: an error, its code first.
    Error(Vec<u8>),
    /// `!`: an error that may have more than one line.
    BulkError(Vec<u8>),
    /// `:`
    Integer(i64),
    /// `$`: a bulk string.
    Bulk(Vec<u8>),
    /// `=`: a text, and its format, `txt` or `mkd`.
    Verbatim([u8; 3], Vec<u8>),
    /// `(`: an integer of any size, in decimal.
    BigNumber(Vec<u8>),
    /// `,`
    Double(f64),
    /// `#`
    Boolean(bool),
    /// `_`, RESP3's only null.
    Null,
    /// `$-1`, RESP2's null.
    NullBulk,
    /// `*-1`, RESP2's null where an array was to be.
    NullArray,
    /// `*`
    Array(Vec<Frame>),
    /// `~`
    Set(Vec<Frame>),
    /// `>`: a push, which answers no request.
    Push(Vec<Frame>),
    /// `%`, in the order in which it was sent.
    Map(Vec<(Frame, Frame)>),
    /// `|`: a frame with attributes, which a client may ignore.
    Attributed(Vec<(Frame, Frame)>, Box<Frame>),
}

impl Frame {
    /// Whether this is one of the three null values.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null | Self::NullBulk | Self::NullArray)
    }

    /// The text if this is an error of either type.
    #[must_use]
    pub fn as_error(&self) -> Option<&[u8]> {
        match self {
            Self::Error(text) | Self::BulkError(text) => Some(text),
            _ => None,
        }
    }
}

/// Why bytes are not a frame. The connection can no longer be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// No type begins with this byte.
    UnknownType(u8),
    /// The bytes behind a type's byte do not fit the type.
    Malformed {
        /// The type's byte.
        kind: u8,
    },
    /// A streamed string or aggregate, which is not supported.
    Streamed,
    /// Deeper than [`MAX_FRAME_DEPTH`].
    TooDeep,
    /// Longer than [`MAX_FRAME_BYTES`], or a line longer than 64 KiB.
    TooBig,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownType(byte) => write!(f, "no frame begins with '{}'", byte.escape_ascii()),
            Self::Malformed { kind } => write!(f, "malformed frame '{}'", kind.escape_ascii()),
            Self::Streamed => f.write_str("streamed frames are not supported"),
            Self::TooDeep => write!(f, "a frame nests deeper than {MAX_FRAME_DEPTH}"),
            Self::TooBig => write!(f, "a frame is longer than {MAX_FRAME_BYTES} bytes"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Writes a command as an array of bulk strings.
pub fn encode_command<B: BufMut, A: AsRef<[u8]>>(out: &mut B, args: &[A]) {
    let mut writer = ReplyWriter::new(out, Protocol::Resp2);
    writer.array(args.len());
    for arg in args {
        writer.bulk(arg.as_ref());
    }
}

/// Reads the frame at the beginning of `bytes` and returns it with its length, or nothing if it is
/// not complete. Starts anew with each call; for bytes that arrive in many pieces use [`FrameParser`].
///
/// # Errors
///
/// [`FrameError`] if no further bytes can make them a frame.
pub fn parse_frame(bytes: &[u8]) -> Result<Option<(Frame, usize)>, FrameError> {
    let mut parser = FrameParser::default();
    let frame = parser.advance(bytes)?;
    Ok(frame.map(|frame| (frame, parser.pos)))
}

/// Reads frames off a buffer that is filled in pieces, without looking at an element twice.
///
/// Memory: the received elements, as [`Frame`]s, and an incomplete element in the buffer; a count
/// reserves nothing.
#[derive(Debug, Default)]
pub struct FrameParser {
    /// The aggregates that are not complete, outermost first.
    open: Vec<Open>,
    /// Bytes of the buffer that were parsed.
    pos: usize,
    /// Bytes of the current frame that were parsed before this buffer.
    len: usize,
}

/// An aggregate some of whose elements have not arrived.
#[derive(Debug)]
struct Open {
    kind: u8,
    /// Elements that have not arrived, a key and its value being two; never 0 between two elements.
    missing: usize,
    elements: Vec<Frame>,
}

/// The content of one line, or of one line and a blob.
enum Token {
    Leaf(Frame),
    Head { kind: u8, elements: usize },
}

impl FrameParser {
    /// A parser at the beginning of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next frame off the front of `buf`, or returns `None` if it is not complete. Its parsed
    /// elements are taken off the buffer nevertheless.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if this is no frame; then the connection must be closed.
    pub fn parse(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let result = self.advance(buf);
        let consumed = mem::take(&mut self.pos);
        self.len += consumed;
        buf.advance(consumed);
        if matches!(result, Ok(Some(_))) {
            self.len = 0;
        }
        result
    }

    /// Reads elements until the outermost frame is complete, or the bytes end.
    fn advance(&mut self, bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        loop {
            let rest = &bytes[self.pos..];
            let room = MAX_FRAME_BYTES.saturating_sub(self.len + self.pos);
            let Some((token, len)) = token(rest, room)? else {
                return Ok(None);
            };
            self.pos += len;
            let complete = match token {
                Token::Leaf(frame) => Some(frame),
                Token::Head { kind, elements } => {
                    if self.open.len() == MAX_FRAME_DEPTH {
                        return Err(FrameError::TooDeep);
                    }
                    let open = Open {
                        kind,
                        missing: elements,
                        elements: Vec::new(),
                    };
                    self.close_or_push(open)
                }
            };
            if let Some(frame) = complete.and_then(|frame| self.attach(frame)) {
                return Ok(Some(frame));
            }
        }
    }

    /// Puts a complete frame into the aggregate that waits for it, and this one into the next if it
    /// is now complete itself. Returns the frame that nothing waits for.
    fn attach(&mut self, mut frame: Frame) -> Option<Frame> {
        while let Some(mut open) = self.open.pop() {
            open.missing -= 1;
            open.elements.push(frame);
            frame = self.close_or_push(open)?;
        }
        Some(frame)
    }

    /// The frame that an aggregate becomes when it is complete; otherwise it stays open.
    fn close_or_push(&mut self, open: Open) -> Option<Frame> {
        if open.missing > 0 {
            self.open.push(open);
            return None;
        }
        Some(open.close())
    }
}

impl Open {
    fn close(self) -> Frame {
        match self.kind {
            b'~' => Frame::Set(self.elements),
            b'>' => Frame::Push(self.elements),
            b'%' => Frame::Map(pairs(self.elements).0),
            b'|' => match pairs(self.elements) {
                (attributes, Some(frame)) => Frame::Attributed(attributes, Box::new(frame)),
                // Its head asked for one element more than twice the pairs.
                (attributes, None) => Frame::Map(attributes),
            },
            _ => Frame::Array(self.elements),
        }
    }
}

/// Elements two by two, and the last one if it has no partner.
fn pairs(elements: Vec<Frame>) -> (Vec<(Frame, Frame)>, Option<Frame>) {
    let mut pairs = Vec::with_capacity(elements.len() / 2);
    let mut elements = elements.into_iter();
    while let Some(key) = elements.next() {
        match elements.next() {
            Some(value) => pairs.push((key, value)),
            None => return (pairs, Some(key)),
        }
    }
    (pairs, None)
}

/// Reads one token and its length; `room` bounds its own length and the length that it announces.
fn token(bytes: &[u8], room: usize) -> Result<Option<(Token, usize)>, FrameError> {
    let Some((&kind, _)) = bytes.split_first() else {
        return Ok(None);
    };
    if !b"+-:_,#($!=*~>%|".contains(&kind) {
        return Err(match kind {
            b';' | b'.' => FrameError::Streamed,
            _ => FrameError::UnknownType(kind),
        });
    }
    let malformed = FrameError::Malformed { kind };
    let Some(text) = line(bytes, malformed)? else {
        return Ok(None);
    };
    let len = text.len() + 3;
    if len > room {
        return Err(FrameError::TooBig);
    }
    let frame = match kind {
        b'+' => Frame::Simple(text.to_vec()),
        b'-' => Frame::Error(text.to_vec()),
        b':' => Frame::Integer(parse_i64(text).ok_or(malformed)?),
        b',' => Frame::Double(double(text).ok_or(malformed)?),
        b'(' if is_big_number(text) => Frame::BigNumber(text.to_vec()),
        b'_' if text.is_empty() => Frame::Null,
        b'#' if text == b"t" => Frame::Boolean(true),
        b'#' if text == b"f" => Frame::Boolean(false),
        b'$' if text == b"-1" => Frame::NullBulk,
        b'*' if text == b"-1" => Frame::NullArray,
        b'$' | b'!' | b'=' => {
            let size = size(text, room - len, 1, malformed)?;
            return blob(kind, &bytes[len..], size, malformed)
                .map(|frame| frame.map(|frame| (Token::Leaf(frame), len + size + 2)));
        }
        b'*' | b'~' | b'>' | b'%' | b'|' => {
            let elements = match kind {
                b'%' => 2 * size(text, room - len, 2 * MIN_FRAME_BYTES, malformed)?,
                // The last element is the frame that the attributes are about.
                b'|' => 2 * size(text, room - len, 2 * MIN_FRAME_BYTES, malformed)? + 1,
                _ => size(text, room - len, MIN_FRAME_BYTES, malformed)?,
            };
            return Ok(Some((Token::Head { kind, elements }, len)));
        }
        _ => return Err(malformed),
    };
    Ok(Some((Token::Leaf(frame), len)))
}

/// No frame is shorter: `_`, CR, LF.
const MIN_FRAME_BYTES: usize = 3;

/// The text between a type's byte and CR LF; nothing if it is not complete.
fn line(bytes: &[u8], malformed: FrameError) -> Result<Option<&[u8]>, FrameError> {
    let window = &bytes[1..bytes.len().min(MAX_LINE_BYTES + 2)];
    let end = window.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    match end {
        None if window.len() > MAX_LINE_BYTES => Err(FrameError::TooBig),
        None => Ok(None),
        Some(end) => match bytes.get(end + 1..end + 3) {
            Some(b"\r\n") => Ok(Some(&window[..end])),
            None if window[end] == b'\r' => Ok(None),
            _ => Err(malformed),
        },
    }
}

/// A length or count, each unit of which takes at least `unit` bytes of the `room`.
fn size(text: &[u8], room: usize, unit: usize, malformed: FrameError) -> Result<usize, FrameError> {
    if text == b"?" {
        return Err(FrameError::Streamed);
    }
    let size = parse_i64(text).and_then(|size| usize::try_from(size).ok());
    let size = size.ok_or(malformed)?;
    if size > room / unit {
        return Err(FrameError::TooBig);
    }
    Ok(size)
}

/// The `size` bytes after a blob's line, with CR LF behind them.
fn blob(
    kind: u8,
    bytes: &[u8],
    size: usize,
    malformed: FrameError,
) -> Result<Option<Frame>, FrameError> {
    let (Some(data), Some(end)) = (bytes.get(..size), bytes.get(size..size + 2)) else {
        return Ok(None);
    };
    if end != b"\r\n" {
        return Err(malformed);
    }
    Ok(Some(match (kind, data) {
        (b'$', _) => Frame::Bulk(data.to_vec()),
        (b'!', _) => Frame::BulkError(data.to_vec()),
        (_, [a, b, c, b':', text @ ..]) => Frame::Verbatim([*a, *b, *c], text.to_vec()),
        _ => return Err(malformed),
    }))
}

/// RESP3's doubles; Rust would also read `infinity` and `+nan`.
fn double(text: &[u8]) -> Option<f64> {
    match text {
        b"inf" => return Some(f64::INFINITY),
        b"-inf" => return Some(f64::NEG_INFINITY),
        b"nan" | b"-nan" => return Some(f64::NAN),
        _ => {}
    }
    let numeric = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    if !text.iter().all(numeric) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn is_big_number(text: &[u8]) -> bool {
    let digits = match text {
        [b'+' | b'-', digits @ ..] => digits,
        _ => text,
    };
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}
