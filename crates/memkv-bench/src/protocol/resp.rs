//! RESP: `SET` and `GET`, and `WAIT` where a peer needs it to acknowledge only what replicas have.
//!
//! With `WAIT`, a write is done when the `WAIT` after it has counted enough replicas; a read is done
//! when it is answered.

use std::collections::VecDeque;

use super::{Broken, Client, Complaint, Key, Template, value};

/// The longest that `WAIT` waits: longer than any replica needs, short enough to show a lost one.
const WAIT_MS: u32 = 2_000;

/// The expected next reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Ok(u64),
    Value(u64),
    Replicas,
}

/// One connection.
pub(crate) struct RespClient {
    set: Template,
    get: Template,
    wait: Option<(u64, Vec<u8>)>,
    next: u64,
    expected: VecDeque<Expected>,
    /// Whether a write went out since the last `WAIT`.
    dirty: bool,
    /// Writes that were answered and wait for their `WAIT`.
    written: Vec<(u64, bool)>,
    complaint: Complaint,
}

impl RespClient {
    /// Values of that size; `wait` is the number of replicas that must have each write.
    pub(crate) fn new(value_bytes: usize, wait: Option<u64>) -> RespClient {
        let set = format!("\r\n${value_bytes}\r\n").into_bytes();
        let set = [set, value(value_bytes), b"\r\n".to_vec()].concat();
        RespClient {
            set: Template::new("*3\r\n$3\r\nSET\r\n$16\r\n", set),
            get: Template::new("*2\r\n$3\r\nGET\r\n$16\r\n", "\r\n"),
            wait: wait.map(|replicas| {
                (
                    replicas,
                    command(&["WAIT", &replicas.to_string(), &WAIT_MS.to_string()]),
                )
            }),
            next: 0,
            expected: VecDeque::new(),
            dirty: false,
            written: Vec::new(),
            complaint: Complaint::default(),
        }
    }
}

/// A command as an array of bulk strings.
fn command(words: &[&str]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    text.into_bytes()
}

impl Client for RespClient {
    fn request(&mut self, write: bool, key: &Key, out: &mut Vec<u8>) {
        let number = self.next;
        self.next += 1;
        if write {
            self.set.write(key, out);
            self.expected.push_back(Expected::Ok(number));
            self.dirty = true;
        } else {
            self.get.write(key, out);
            self.expected.push_back(Expected::Value(number));
        }
    }

    fn complaint(&self) -> Option<&str> {
        self.complaint.text()
    }

    fn end_batch(&mut self, out: &mut Vec<u8>) {
        if let Some((_, wait)) = &self.wait
            && self.dirty
        {
            out.extend_from_slice(wait);
            self.expected.push_back(Expected::Replicas);
            self.dirty = false;
        }
    }

    fn replies(
        &mut self,
        bytes: &[u8],
        _out: &mut Vec<u8>,
        done: &mut impl FnMut(u64, bool),
    ) -> Result<usize, Broken> {
        let mut taken = 0;
        while let Some(reply) = Reply::read(&bytes[taken..])? {
            let expected = self.expected.pop_front();
            let expected = expected.ok_or_else(|| Broken("a reply without a request".into()))?;
            let good = match expected {
                Expected::Value(_) => reply.kind == b'$' || reply.kind == b'_',
                Expected::Ok(_) => reply.ok,
                Expected::Replicas => {
                    let wanted = self.wait.as_ref().map_or(0, |(wanted, _)| *wanted);
                    reply.kind == b':' && u64::try_from(reply.number).is_ok_and(|got| got >= wanted)
                }
            };
            if !good {
                self.complaint.note(&bytes[taken..taken + reply.length]);
            }
            match expected {
                Expected::Ok(number) if self.wait.is_some() => self.written.push((number, good)),
                Expected::Ok(number) | Expected::Value(number) => done(number, good),
                Expected::Replicas => {
                    for (number, written) in self.written.drain(..) {
                        done(number, written && good);
                    }
                }
            }
            taken += reply.length;
        }
        Ok(taken)
    }
}

/// The needed parts of a reply.
struct Reply {
    kind: u8,
    /// Of an integer its value, of a bulk string its length.
    number: i64,
    length: usize,
    /// Whether it is `+OK`.
    ok: bool,
}

impl Reply {
    /// The reply at the start of `bytes`, if it is whole.
    fn read(bytes: &[u8]) -> Result<Option<Reply>, Broken> {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let line = bytes[..end].strip_suffix(b"\r");
        let Some((kind, text)) = line.and_then(<[u8]>::split_first) else {
            return Err(Broken("a line without an end or a type".into()));
        };
        let mut reply = Reply {
            kind: *kind,
            number: 0,
            length: end + 1,
            ok: false,
        };
        match kind {
            b'+' => reply.ok = text == b"OK",
            b'-' | b'_' => {}
            b':' | b'$' => {
                reply.number = number(text)?;
                if *kind == b'$' && reply.number >= 0 {
                    // The length is bounded by what a connection's buffer may grow to.
                    reply.length += usize::try_from(reply.number).unwrap_or(usize::MAX / 2) + 2;
                }
            }
            other => return Err(Broken(format!("a reply of type {:?}", char::from(*other)))),
        }
        Ok((bytes.len() >= reply.length).then_some(reply))
    }
}

fn number(text: &[u8]) -> Result<i64, Broken> {
    let text = std::str::from_utf8(text).ok();
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| Broken("a number that is none".into()))
}

#[cfg(test)]
mod tests {
    use super::RespClient;
    use crate::protocol::{Client, key};

    fn ask(client: &mut RespClient, writes: &[bool]) -> String {
        let mut out = Vec::new();
        for write in writes {
            client.request(*write, &key(7), &mut out);
        }
        client.end_batch(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn answer(client: &mut RespClient, bytes: &[u8]) -> (usize, Vec<(u64, bool)>) {
        let mut done = Vec::new();
        let taken = client.replies(bytes, &mut Vec::new(), &mut |number, ok| {
            done.push((number, ok))
        });
        (taken.unwrap(), done)
    }

    #[test]
    fn requests_are_whole_commands() {
        let mut client = RespClient::new(3, None);
        let sent = ask(&mut client, &[true, false]);
        assert_eq!(
            sent,
            "*3\r\n$3\r\nSET\r\n$16\r\nk000000000000007\r\n$3\r\naho\r\n*2\r\n$3\r\nGET\r\n$16\r\nk000000000000007\r\n"
        );
    }

    #[test]
    fn replies_are_counted_when_they_are_whole_and_right() {
        let mut client = RespClient::new(3, None);
        ask(&mut client, &[true, true, false, false, false]);
        let bytes = b"+OK\r\n-CLUSTERDOWN no\r\n$3\r\nabc\r\n$-1\r\n$3\r\nab";
        let (taken, done) = answer(&mut client, bytes);
        assert_eq!(taken, bytes.len() - 6);
        assert_eq!(done, [(0, true), (1, false), (2, true), (3, true)]);
        assert_eq!(
            answer(&mut client, b"+OK\r\n").1,
            [(4, false)],
            "not a value"
        );
    }

    #[test]
    fn writes_are_done_when_the_replicas_have_them() {
        let mut client = RespClient::new(3, Some(1));
        assert!(
            ask(&mut client, &[true, true])
                .ends_with("*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$4\r\n2000\r\n")
        );
        assert_eq!(answer(&mut client, b"+OK\r\n+OK\r\n").1, []);
        assert_eq!(answer(&mut client, b":1\r\n").1, [(0, true), (1, true)]);
        ask(&mut client, &[true]);
        assert_eq!(answer(&mut client, b"+OK\r\n:0\r\n").1, [(2, false)]);
        assert!(
            !ask(&mut client, &[false]).contains("WAIT"),
            "nothing to wait for"
        );
    }

    #[test]
    fn nonsense_is_an_error() {
        let mut client = RespClient::new(3, None);
        ask(&mut client, &[true]);
        for bytes in [
            &b"HTTP/1.1 400\r\n"[..],
            b"\r\n",
            b"$x\r\n",
            b"+OK\r\n+OK\r\n",
        ] {
            let done = &mut |_, _| {};
            assert!(client.replies(bytes, &mut Vec::new(), done).is_err());
        }
    }
}
