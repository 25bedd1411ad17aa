//! The part of a protocol that the load generator needs: requests, and the ends of replies.
//!
//! Each one writes requests from bytes made once (only the key differs), and reads only so much of a
//! reply as tells its end and whether it is a success: the generator shares the machine with the
//! servers, and must cost about the same for all of them.

mod etcd;
mod http;
mod resp;

use clap::ValueEnum;

pub(crate) use etcd::EtcdClient;
pub(crate) use http::{HttpClient, Interface, content_length};
pub(crate) use resp::RespClient;

/// The protocol of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// Redis's protocol: `SET`, `GET`.
    Resp,
    /// The original's JSON over HTTP: `set`, `get`.
    Compat,
    /// The REST interface over HTTP: `PUT`, `GET`.
    Rest,
    /// etcd's gRPC: `Put`, linearizable `Range`.
    Etcd,
}

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 16;

/// A key: `k` and its number in decimal.
pub(crate) type Key = [u8; KEY_BYTES];

/// The key of that number.
pub(crate) fn key(mut number: u64) -> Key {
    let mut key = [b'0'; KEY_BYTES];
    key[0] = b'k';
    for digit in key[1..].iter_mut().rev() {
        if number == 0 {
            break;
        }
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    key
}

/// The server broke the protocol; the text tells how.
#[derive(Debug, thiserror::Error)]
#[error("the server broke the protocol: {0}")]
pub(crate) struct Broken(pub(crate) String);

/// One connection's side of a protocol. Requests are numbered from 0 in the order in which they are
/// written; replies name the number.
pub(crate) trait Client {
    /// The bytes before the first request.
    fn hello(&mut self, _out: &mut Vec<u8>) {}

    /// Writes one request.
    fn request(&mut self, write: bool, key: &Key, out: &mut Vec<u8>);

    /// The first error that the server answered.
    fn complaint(&self) -> Option<&str>;

    /// Called after the requests that go out together.
    fn end_batch(&mut self, _out: &mut Vec<u8>) {}

    /// Reads the replies at the start of `bytes`, passes `done` the number of each and whether it is
    /// a success, and returns how many bytes they had. Bytes with which the protocol itself must
    /// answer go to `out`.
    fn replies(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        done: &mut impl FnMut(u64, bool),
    ) -> Result<usize, Broken>;
}

/// The first error that the server replied, unchanged.
#[derive(Default)]
pub(crate) struct Complaint(Option<String>);

impl Complaint {
    /// Takes a reply that is no success; only the first is kept.
    fn note(&mut self, reply: &[u8]) {
        let text = || String::from_utf8_lossy(reply).trim_end().to_owned();
        self.0.get_or_insert_with(text);
    }

    fn text(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// A request in which only the key differs.
pub(crate) struct Template {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Template {
    /// `before`, a key, `after`.
    pub(crate) fn new(before: impl Into<Vec<u8>>, after: impl Into<Vec<u8>>) -> Template {
        Template {
            before: before.into(),
            after: after.into(),
        }
    }

    /// Appends the request for this key.
    pub(crate) fn write(&self, key: &Key, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.before);
        out.extend_from_slice(key);
        out.extend_from_slice(&self.after);
    }
}

/// A value of this many bytes that does not compress to nothing.
pub(crate) fn value(bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|index| b'a' + (index * 7 % 26) as u8)
        .collect()
}

/// Where `needle` begins.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn keys_have_sixteen_bytes_and_differ() {
        assert_eq!(&key(0), b"k000000000000000");
        assert_eq!(&key(19_999), b"k000000000019999");
        assert_ne!(key(1), key(10));
    }
}
