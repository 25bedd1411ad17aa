//! Requests made by hand, so that the load generator costs little beside what it measures, and the
//! reading of their responses. Understands what the server sends (a Content-Length, or no body) and
//! nothing else.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Keys that requests are spread over, as in the figures of the original.
const KEYS: u64 = 10_000;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `POST /memkv{id}/store/set`.
    SeedSet,
    /// `PUT /v1/kv/{key}`.
    RestPut,
    /// `POST /memkv{id}/store/get`.
    SeedGet,
}

impl Kind {
    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::SeedSet => "seed set",
            Kind::RestPut => "REST put",
            Kind::SeedGet => "seed get",
        }
    }

    /// The bytes of the request number `number` to node `id`.
    pub(crate) fn request(self, id: &str, number: u64, value: &str) -> String {
        // Fibonacci hashing: spreads consecutive numbers over the keys without a random generator.
        let key = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % KEYS;
        let (line, kind, body) = match self {
            Kind::SeedSet => (
                format!("POST /memkv{id}/store/set"),
                "application/json",
                format!(r#"{{"key":"key{key}","value":"{value}"}}"#),
            ),
            Kind::RestPut => (
                format!("PUT /v1/kv/key{key}"),
                "application/octet-stream",
                value.to_owned(),
            ),
            Kind::SeedGet => (
                format!("POST /memkv{id}/store/get"),
                "application/json",
                format!(r#"{{"key":"key{key}"}}"#),
            ),
        };
        format!(
            "{line} HTTP/1.1\r\nHost: memkv\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
             Connection: Keep-Alive\r\n\r\n{body}",
            body.len()
        )
    }

    /// Whether a response says that the request was done.
    pub(crate) fn succeeded(self, response: &[u8]) -> bool {
        let good = response.get(9) == Some(&b'2');
        let body: &[&[u8]] = match self {
            Kind::SeedSet => &[b"{\"status\":\"ok\"}"],
            Kind::RestPut => return good,
            Kind::SeedGet => &[b"{\"status\":\"ok\"", b"{\"status\":\"not found\""],
        };
        good && body.iter().any(|body| find(response, body).is_some())
    }
}

/// Reads one response into `buffer`, which then holds nothing else.
pub(crate) async fn read_response(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(length) = response_length(buffer)
            && buffer.len() >= length
        {
            return Ok(());
        }
    }
}

/// Length of the response that begins in `bytes`, once its head is there.
fn response_length(bytes: &[u8]) -> Option<usize> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    Some(
        head + length
            .and_then(|length| length.trim().parse().ok())
            .unwrap_or(0),
    )
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::{Kind, response_length};

    #[test]
    fn a_response_ends_where_its_length_says() {
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"status\":\"ok\"}";
        assert_eq!(response_length(response), Some(response.len()));
        assert_eq!(response_length(&response[..20]), None);
        assert_eq!(
            response_length(b"HTTP/1.1 204 No Content\r\n\r\n"),
            Some(27)
        );
    }

    #[test]
    fn a_refused_write_is_not_counted() {
        assert!(Kind::SeedSet.succeeded(b"HTTP/1.1 200 OK\r\n\r\n{\"status\":\"ok\"}"));
        assert!(!Kind::SeedSet.succeeded(b"HTTP/1.1 200 OK\r\n\r\n{\"status\":\"no leader\"}"));
        assert!(!Kind::RestPut.succeeded(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"));
    }
}
