//! HTTP/1.1: the original's JSON interface, the REST interface, and a bare `GET` for a server that does
//! nothing. Understands responses with a Content-Length or without a body, and nothing else.

use super::{Broken, Client, Complaint, Key, Template, find, value};

/// Which interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Interface {
    /// `POST /memkv{id}/store/{set,get}` of the node with this id.
    Compat(String),
    /// `PUT` and `GET /v1/kv/{key}`.
    Rest,
}

/// One connection. HTTP answers in order.
pub(crate) struct HttpClient {
    compat: bool,
    write: Template,
    read: Template,
    next: u64,
    answered: u64,
    complaint: Complaint,
}

impl HttpClient {
    /// Values of that size.
    pub(crate) fn new(interface: &Interface, value_bytes: usize) -> HttpClient {
        let value = String::from_utf8_lossy(&value(value_bytes)).into_owned();
        let (write, read) = match interface {
            Interface::Compat(id) => (
                post(id, "set", &format!(r#"","value":"{value}"}}"#)),
                post(id, "get", r#""}"#),
            ),
            Interface::Rest => (
                Template::new(
                    "PUT /v1/kv/",
                    format!(
                        " HTTP/1.1\r\nHost: localhost\r\nContent-Length: {value_bytes}\r\n\r\n{value}"
                    ),
                ),
                Template::new("GET /v1/kv/", " HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            ),
        };
        HttpClient {
            compat: matches!(interface, Interface::Compat(_)),
            write,
            read,
            next: 0,
            answered: 0,
            complaint: Complaint::default(),
        }
    }

    /// Whether a response tells that the request succeeded. An absent key is a success too.
    fn succeeded(&self, status: &[u8], body: &[u8]) -> bool {
        if !self.compat {
            return status.starts_with(b"2") || status == b"404";
        }
        status == b"200"
            && (body.starts_with(br#"{"status":"ok""#)
                || body.starts_with(br#"{"status":"not found""#))
    }
}

/// A request of the original's interface, whose body ends with `rest` after the key.
fn post(id: &str, act: &str, rest: &str) -> Template {
    let body = r#"{"key":""#;
    let length = body.len() + super::KEY_BYTES + rest.len();
    Template::new(
        format!(
            "POST /memkv{id}/store/{act} HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
        rest,
    )
}

impl Client for HttpClient {
    fn request(&mut self, write: bool, key: &Key, out: &mut Vec<u8>) {
        let template = if write { &self.write } else { &self.read };
        template.write(key, out);
        self.next += 1;
    }

    fn complaint(&self) -> Option<&str> {
        self.complaint.text()
    }

    fn replies(
        &mut self,
        bytes: &[u8],
        _out: &mut Vec<u8>,
        done: &mut impl FnMut(u64, bool),
    ) -> Result<usize, Broken> {
        let mut taken = 0;
        while let Some(response) = Response::read(&bytes[taken..])? {
            if self.answered == self.next {
                return Err(Broken("a response without a request".into()));
            }
            let good = self.succeeded(response.status, response.body);
            if !good {
                self.complaint.note(&bytes[taken..taken + response.length]);
            }
            done(self.answered, good);
            self.answered += 1;
            taken += response.length;
        }
        Ok(taken)
    }
}

/// The needed parts of a response.
struct Response<'a> {
    status: &'a [u8],
    body: &'a [u8],
    length: usize,
}

impl<'a> Response<'a> {
    /// The response at the start of `bytes`, if it is whole.
    fn read(bytes: &'a [u8]) -> Result<Option<Response<'a>>, Broken> {
        let Some(end) = find(bytes, b"\r\n\r\n") else {
            return Ok(None);
        };
        let (head, rest) = bytes.split_at(end + 4);
        let status = head
            .strip_prefix(b"HTTP/1.1 ")
            .and_then(|line| line.get(..3));
        let status = status.ok_or_else(|| Broken("a response that is not HTTP/1.1".into()))?;
        let length = content_length(head)?;
        Ok(rest.get(..length).map(|body| Response {
            status,
            body,
            length: head.len() + length,
        }))
    }
}

/// The length that a head gives; none is 0.
pub(crate) fn content_length(head: &[u8]) -> Result<usize, Broken> {
    const NAME: &[u8] = b"content-length:";
    for line in head.split(|byte| *byte == b'\n') {
        let Some((name, value)) = line.split_at_checked(NAME.len()) else {
            continue;
        };
        if name.eq_ignore_ascii_case(NAME) {
            let text = std::str::from_utf8(value).ok();
            let length = text.and_then(|text| text.trim().parse().ok());
            return length.ok_or_else(|| Broken("a Content-Length that is no number".into()));
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::{HttpClient, Interface};
    use crate::protocol::{Client, key};

    fn answer(interface: &Interface, bytes: &[u8]) -> (usize, Vec<(u64, bool)>) {
        let mut client = HttpClient::new(interface, 3);
        for write in [true, false, false] {
            client.request(write, &key(1), &mut Vec::new());
        }
        let mut done = Vec::new();
        let taken = client.replies(bytes, &mut Vec::new(), &mut |number, ok| {
            done.push((number, ok));
        });
        (taken.unwrap(), done)
    }

    #[test]
    fn the_length_in_a_request_is_that_of_its_body() {
        let mut client = HttpClient::new(&Interface::Compat("7".to_owned()), 3);
        for (write, wanted) in [
            (true, r#"{"key":"k000000000000001","value":"aho"}"#),
            (false, r#"{"key":"k000000000000001"}"#),
        ] {
            let mut out = Vec::new();
            client.request(write, &key(1), &mut out);
            let text = String::from_utf8(out).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, wanted);
            assert!(head.starts_with("POST /memkv7/store/"), "{head}");
            assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
        }
    }

    #[test]
    fn responses_end_where_their_length_says() {
        let bytes = b"HTTP/1.1 204 No Content\r\nETag: 1\r\n\r\nHTTP/1.1 200 OK\r\n\
            content-length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab";
        let (taken, done) = answer(&Interface::Rest, bytes);
        assert_eq!(done, [(0, true), (1, true)]);
        assert!(bytes[taken..].ends_with(b"Content-Length: 3\r\n\r\nab"));
    }

    #[test]
    fn a_refused_request_is_not_a_success() {
        let compat = Interface::Compat("7".to_owned());
        let refused = b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{\"status\":\"no leader\"}";
        assert_eq!(answer(&compat, refused).1, [(0, false)]);
        let good = b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"status\":\"ok\"}";
        assert_eq!(answer(&compat, good).1, [(0, true)]);
        let busy = b"HTTP/1.1 503 Service Unavailable\r\n\r\n";
        assert_eq!(answer(&Interface::Rest, busy).1, [(0, false)]);
    }

    #[test]
    fn nonsense_is_an_error() {
        let mut client = HttpClient::new(&Interface::Rest, 3);
        client.request(true, &key(1), &mut Vec::new());
        for bytes in [
            &b"+OK\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        ] {
            let done = &mut |_, _| {};
            assert!(client.replies(bytes, &mut Vec::new(), done).is_err());
        }
    }
}
