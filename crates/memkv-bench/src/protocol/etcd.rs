//! etcd's gRPC, as far as `Put` and a linearizable `Range` of one key need it: HTTP/2 (RFC 9113)
//! with the same header block for every request, and protobuf made by hand.
//!
//! A reply is a success if its stream carries a message before it ends: gRPC sends none with an
//! error. So no header of the server needs to be decoded. Flow control is answered and watched;
//! requests are small enough never to fill a window.

use std::collections::VecDeque;

use super::{Broken, Client, Complaint, KEY_BYTES, Key, value};

/// Frame types and flags of RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

const FRAME_HEAD: usize = 9;
/// A gRPC message's own head: not compressed, and its length.
const MESSAGE_HEAD: usize = 5;

/// Bytes that HTTP/2 lets a side send before the other one extends its window.
const FIRST_WINDOW: i64 = 65_535;
/// The window of the server on the connection: the largest one, extended in large steps.
const OWN_WINDOW: u32 = (1 << 31) - 1;

/// One connection with any number of streams.
pub(crate) struct EtcdClient {
    put: Request,
    range: Request,
    next: u64,
    /// For each stream in flight, from `first` on: whether a message has come; `None` if it ended.
    streams: VecDeque<Option<bool>>,
    first: u64,
    /// Bytes that the server takes.
    window: i64,
    /// Bytes that the server has used up of ours.
    used: u32,
    complaint: Complaint,
}

/// Header block and message of one method, with the position of the key.
struct Request {
    headers: Vec<u8>,
    message: Vec<u8>,
    key_at: usize,
}

impl EtcdClient {
    /// Values of that size.
    pub(crate) fn new(value_bytes: usize) -> EtcdClient {
        EtcdClient {
            put: Request::new("Put", &[(1, &[0; KEY_BYTES]), (2, &value(value_bytes))]),
            range: Request::new("Range", &[(1, &[0; KEY_BYTES])]),
            next: 0,
            streams: VecDeque::new(),
            first: 0,
            window: FIRST_WINDOW,
            used: 0,
            complaint: Complaint::default(),
        }
    }

    /// The state of a stream in flight.
    fn stream(&mut self, id: u32) -> Option<(u64, &mut Option<bool>)> {
        let number = u64::from(id.checked_sub(1)? / 2);
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        Some((number, self.streams.get_mut(index)?))
    }

    /// Takes a stream off, and returns whether it had a message.
    fn end(&mut self, id: u32) -> Option<(u64, bool)> {
        let (number, state) = self.stream(id)?;
        let good = state.take()?;
        while let Some(None) = self.streams.front() {
            self.streams.pop_front();
            self.first += 1;
        }
        Some((number, good))
    }

    fn frame(
        &mut self,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
        done: &mut impl FnMut(u64, bool),
    ) -> Result<(), Broken> {
        match frame.kind {
            DATA => {
                self.used += frame.payload.len() as u32;
                if let Some((_, Some(message))) = self.stream(frame.stream) {
                    *message |= frame.payload.len() >= MESSAGE_HEAD;
                }
            }
            SETTINGS if frame.flags & ACK == 0 => head(out, 0, SETTINGS, ACK, 0),
            PING if frame.flags & ACK == 0 => {
                head(out, frame.payload.len(), PING, ACK, 0);
                out.extend_from_slice(frame.payload);
            }
            WINDOW_UPDATE if frame.stream == 0 => {
                let more = frame
                    .payload
                    .first_chunk()
                    .map(|more| u32::from_be_bytes(*more));
                self.window += i64::from(more.unwrap_or(0));
            }
            RST_STREAM | GOAWAY => {
                return Err(Broken(format!("it gave up (HTTP/2 frame {})", frame.kind)));
            }
            _ => {}
        }
        let ends = matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
        if ends {
            let ended = self.end(frame.stream);
            let (number, good) =
                ended.ok_or_else(|| Broken("the end of a stream that is not open".into()))?;
            if !good {
                self.complaint.note(b"a gRPC status without a message");
            }
            done(number, good);
        }
        Ok(())
    }
}

impl Client for EtcdClient {
    fn hello(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        head(out, 0, SETTINGS, 0, 0);
        give(out, OWN_WINDOW - FIRST_WINDOW as u32);
    }

    fn request(&mut self, write: bool, key: &Key, out: &mut Vec<u8>) {
        let request = if write { &self.put } else { &self.range };
        // Odd numbers from 1 on are the client's; 2^30 of them last for any run.
        let stream = (self.next * 2 + 1) as u32;
        head(out, request.headers.len(), HEADERS, END_HEADERS, stream);
        out.extend_from_slice(&request.headers);
        head(out, request.message.len(), DATA, END_STREAM, stream);
        let begin = out.len();
        out.extend_from_slice(&request.message);
        let key_at = begin + request.key_at;
        out[key_at..key_at + KEY_BYTES].copy_from_slice(key);
        self.window -= request.message.len() as i64;
        self.streams.push_back(Some(false));
        self.next += 1;
    }

    fn complaint(&self) -> Option<&str> {
        self.complaint.text()
    }

    fn replies(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        done: &mut impl FnMut(u64, bool),
    ) -> Result<usize, Broken> {
        let mut taken = 0;
        while let Some(frame) = Frame::read(&bytes[taken..]) {
            self.frame(&frame, out, done)?;
            taken += FRAME_HEAD + frame.payload.len();
        }
        if self.window < 0 {
            return Err(Broken(
                "more was sent than its window takes: use less in flight".into(),
            ));
        }
        if self.used > OWN_WINDOW / 2 {
            give(out, self.used);
            self.used = 0;
        }
        Ok(taken)
    }
}

impl Request {
    fn new(method: &str, fields: &[(u8, &[u8])]) -> Request {
        let mut body = Vec::new();
        for (number, bytes) in fields {
            field(&mut body, *number, bytes);
        }
        let mut message = vec![0];
        message.extend_from_slice(&(body.len() as u32).to_be_bytes());
        message.extend_from_slice(&body);
        Request {
            headers: header_block(method),
            // The key is the first field: one byte of tag, one of length.
            key_at: MESSAGE_HEAD + 2,
            message,
        }
    }
}

/// A protobuf field of bytes.
fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    const LENGTH_DELIMITED: u8 = 2;
    out.push(number << 3 | LENGTH_DELIMITED);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

/// The headers of a request in HPACK (RFC 7541): two from its static table, the others as literals
/// that the server's table does not keep, so that the same bytes are right in every request.
fn header_block(method: &str) -> Vec<u8> {
    const METHOD_POST: u8 = 0x83;
    const SCHEME_HTTP: u8 = 0x86;
    let mut block = vec![METHOD_POST, SCHEME_HTTP];
    for (name, value) in [
        (":path", format!("/etcdserverpb.KV/{method}").as_str()),
        (":authority", "etcd"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        // Literal, not indexed, new name; both texts are shorter than 127 bytes.
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The head of a frame.
fn head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

/// Lets the server send so much more.
fn give(out: &mut Vec<u8>, bytes: u32) {
    head(out, 4, WINDOW_UPDATE, 0, 0);
    out.extend_from_slice(&bytes.to_be_bytes());
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the start of `bytes`, if it is whole.
    fn read(bytes: &'a [u8]) -> Option<Frame<'a>> {
        let (head, rest) = bytes.split_first_chunk::<FRAME_HEAD>()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
            payload: rest.get(..length as usize)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{ACK, DATA, END_STREAM, EtcdClient, Frame, GOAWAY, HEADERS, PING, field, head};
    use crate::protocol::{Client, key};

    /// A frame as the server sends it.
    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        head(&mut bytes, payload.len(), kind, flags, stream);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn asked(count: usize) -> EtcdClient {
        let mut client = EtcdClient::new(300);
        for _ in 0..count {
            client.request(true, &key(5), &mut Vec::new());
        }
        client
    }

    #[test]
    fn lengths_are_varints() {
        let mut out = Vec::new();
        field(&mut out, 2, &[7; 300]);
        assert_eq!(out[..3], [0x12, 0xac, 0x02]);
        assert_eq!(out.len(), 303);
    }

    #[test]
    fn a_put_is_headers_and_one_message() {
        let mut out = Vec::new();
        EtcdClient::new(300).request(true, &key(5), &mut out);
        let headers = Frame::read(&out).unwrap();
        assert_eq!((headers.kind, headers.stream), (HEADERS, 1));
        let text = String::from_utf8_lossy(headers.payload).into_owned();
        assert!(text.contains("\u{14}/etcdserverpb.KV/Put"), "{text:?}");
        let data = Frame::read(&out[9 + headers.payload.len()..]).unwrap();
        assert_eq!((data.kind, data.flags, data.stream), (DATA, END_STREAM, 1));
        assert_eq!(data.payload[..5], [0, 0, 0, 1, 0x41], "321 bytes follow");
        assert_eq!(data.payload.len(), 5 + 321);
        assert_eq!(data.payload[5..7], [0x0a, 16]);
        assert_eq!(data.payload[7..23], key(5));
    }

    #[test]
    fn a_stream_with_a_message_is_a_success_and_one_without_is_not() {
        let mut client = asked(2);
        let bytes = [
            frame(HEADERS, 4, 3, b""),
            frame(DATA, 0, 3, &[0, 0, 0, 0, 1, 9]),
            frame(HEADERS, 4 | END_STREAM, 3, b""),
            frame(HEADERS, 4 | END_STREAM, 1, b""),
            frame(DATA, 0, 5, b"cut")[..11].to_vec(),
        ]
        .concat();
        let mut done = Vec::new();
        let taken = client.replies(&bytes, &mut Vec::new(), &mut |number, ok| {
            done.push((number, ok));
        });
        assert_eq!(done, [(1, true), (0, false)]);
        assert_eq!(taken.unwrap(), bytes.len() - 11);
        assert!(client.complaint().is_some());
    }

    #[test]
    fn a_ping_is_answered_and_a_closing_server_is_an_error() {
        let mut client = asked(1);
        let mut out = Vec::new();
        let ping = frame(PING, 0, 0, b"12345678");
        let taken = client.replies(&ping, &mut out, &mut |_, _| {});
        assert_eq!(taken.unwrap(), ping.len());
        assert_eq!(out, frame(PING, ACK, 0, b"12345678"));
        for bytes in [frame(GOAWAY, 0, 0, &[0; 8]), frame(HEADERS, 5, 9, b"")] {
            assert!(client.replies(&bytes, &mut out, &mut |_, _| {}).is_err());
        }
    }

    #[test]
    fn more_than_the_window_is_an_error() {
        let mut client = asked(300);
        assert!(
            client
                .replies(b"", &mut Vec::new(), &mut |_, _| {})
                .is_err()
        );
    }
}
