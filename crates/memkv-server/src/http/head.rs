//! Request heads: from bytes to what the routes need (RFC 9112). Strict where leniency has been
//! used to smuggle requests: bare line feeds, folded lines, ambiguous lengths are refused.
//! Never allocates more than the limits in [`limits`](super::limits).
//!
//! `httparse` parses; what the fields mean together is judged here, because the usual server's URI
//! type ends at 65,534 bytes and a percent-encoded key may be three times as long.

use std::net::SocketAddr;
use std::sync::Arc;

use memkv_proto::ErrorCode;

use super::limits::MAX_HEADER_FIELDS;
use crate::rights::Identity;
use crate::tls;

/// Request method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// Anything else: no route has it.
    Other,
}

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// `Content-Length`, or 0 without one.
    Known(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A request without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Method.
    pub method: Method,
    /// Path as it was sent: percent-encoded, without the query.
    pub path: String,
    /// The part after the `?`, as it was sent; empty without one.
    pub query: String,
    /// Host and port of a target in absolute form, which a client sends that takes this for a proxy.
    pub authority: Option<String>,
    /// `Host`, as it was sent.
    pub host: Option<String>,
    /// There is no `Host`, which HTTP/1.1 asks for (RFC 9112, section 3.2).
    pub lacks_host: bool,
    /// `Origin`: the site whose page made a browser send this.
    pub origin: Option<String>,
    /// `Sec-Fetch-Site: cross-site`: a browser sends this for a page of another site.
    pub is_cross_site: bool,
    /// Length of the body.
    pub body: BodyLength,
    /// Whether the client understands a body in chunks: HTTP/1.0 does not (RFC 9112, section 7.1).
    pub takes_chunks: bool,
    /// Whether the connection goes on after the response.
    pub keep_alive: bool,
    /// Whether the client asked for that explicitly, and expects an explicit answer.
    pub keep_alive_asked: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Media type of the body, as it was sent.
    pub content_type: Option<String>,
    /// Protocol that the client wants to change to.
    pub upgrade: Option<String>,
    /// `If-Match` (RFC 9110, section 13.1.1).
    pub if_match: Option<String>,
    /// `If-None-Match` (section 13.1.2).
    pub if_none_match: Option<String>,
    /// `Authorization` (section 11.6.2).
    pub authorization: Option<String>,
    /// Where the request comes from.
    pub(crate) client: Option<SocketAddr>,
    /// What is known of the connection, with TLS.
    pub(crate) facts: Option<Arc<tls::Facts>>,
    /// Who sends it, once that is known.
    pub(crate) identity: Option<Identity>,
    /// The mark of what this connection has shown last and was right.
    pub(crate) proven: Option<u64>,
    /// `X-Memkv-Nonce`: the peer's half of what both sides' proofs are about.
    pub nonce: Option<String>,
    /// `X-Memkv-From`: name of the peer that asks for an upgrade.
    pub from: Option<String>,
}

/// Why a request is not served; the connection ends with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Line of the error table.
    pub code: ErrorCode,
    /// What happened, and the next step.
    pub detail: String,
}

impl Refusal {
    /// A refusal with its line of the error table.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
        }
    }

    fn bad(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, detail)
    }
}

/// Parses a complete head, as [`HeadEnd`](super::end::HeadEnd) found it.
pub(super) fn parse(bytes: &[u8]) -> Result<Head, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADER_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        // Two opinions about where a head ends are how requests are smuggled.
        Ok(_) => {
            return Err(Refusal::bad(
                "the request head does not end where it seems to",
            ));
        }
        Err(httparse::Error::TooManyHeaders) => {
            let detail = format!("more than {MAX_HEADER_FIELDS} header fields, the limit");
            return Err(Refusal::new(ErrorCode::HeaderTooLarge, detail));
        }
        Err(error) => return Err(Refusal::bad(format!("not an HTTP/1.1 request: {error}"))),
    }
    let minor = request.version.unwrap_or(1);
    let mut facts = Facts::default();
    for field in request.headers.iter() {
        facts.note(field.name, field.value)?;
    }
    let body = facts.body_length(minor)?;
    let (authority, path, query) = target(request.path.unwrap_or_default())?;
    Ok(Head {
        client: None,
        facts: None,
        identity: None,
        proven: None,
        method: method(request.method.unwrap_or_default()),
        path: path.to_owned(),
        query: query.to_owned(),
        authority: authority.map(str::to_owned),
        lacks_host: minor == 1 && facts.host.is_none(),
        host: facts.host,
        origin: facts.origin,
        is_cross_site: facts.is_cross_site,
        body,
        takes_chunks: minor == 1,
        keep_alive: !facts.close && (minor == 1 || facts.keep_alive),
        keep_alive_asked: facts.keep_alive,
        // An HTTP/1.0 client does not know the interim response (RFC 9110, section 10.1.1).
        expects_continue: facts.expects_continue && minor == 1,
        content_type: facts.content_type,
        // HTTP/1.0 knows no upgrades (RFC 9110, section 7.8).
        upgrade: facts
            .upgrade
            .filter(|_| facts.connection_upgrade && minor == 1),
        if_match: facts.if_match,
        if_none_match: facts.if_none_match,
        authorization: facts.authorization,
        nonce: facts.nonce,
        from: facts.from,
    })
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        _ => Method::Other,
    }
}

/// Authority, path and query of a request target in origin form, absolute form or asterisk form (RFC 9112,
/// section 3.2). Any other target, and one with a fragment, is read in several ways and refused.
fn target(target: &str) -> Result<(Option<&str>, &str, &str), Refusal> {
    let absolute = target.split_once("://").filter(|(scheme, _)| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    });
    let (authority, origin) = match absolute {
        None => (None, target),
        Some((_, rest)) => {
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            (Some(authority), path)
        }
    };
    let (path, query) = origin.split_once('?').unwrap_or((origin, ""));
    // An empty path is the root (RFC 9110, section 4.2.3).
    let path = if path.is_empty() { "/" } else { path };
    if (!path.starts_with('/') && path != "*") || target.contains('#') {
        let detail =
            "the request target is neither a path nor a URL, or has a fragment; write # as %23";
        return Err(Refusal::bad(detail));
    }
    Ok((authority, path, query))
}

/// The header fields that matter.
#[derive(Default)]
struct Facts {
    host: Option<String>,
    origin: Option<String>,
    is_cross_site: bool,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    expects_continue: bool,
    content_type: Option<String>,
    upgrade: Option<String>,
    if_match: Option<String>,
    if_none_match: Option<String>,
    authorization: Option<String>,
    nonce: Option<String>,
    from: Option<String>,
}

impl Facts {
    fn note(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("host") {
            once(&mut self.host, name, value)?;
        } else if is("origin") {
            once(&mut self.origin, name, value)?;
        } else if is("sec-fetch-site") {
            self.is_cross_site |= text(name, value)?.eq_ignore_ascii_case("cross-site");
        } else if is("content-length") {
            let length = content_length(text(name, value)?)?;
            if self.length.is_some_and(|first| first != length) {
                return Err(Refusal::bad("two Content-Length header fields that differ"));
            }
            self.length = Some(length);
        } else if is("transfer-encoding") {
            let coding = text(name, value)?;
            if self.chunked || !coding.eq_ignore_ascii_case("chunked") {
                return Err(Refusal::bad(
                    "the only Transfer-Encoding known here is one 'chunked'",
                ));
            }
            self.chunked = true;
        } else if is("connection") {
            for token in text(name, value)?.split(',').map(trimmed) {
                self.close |= token.eq_ignore_ascii_case("close");
                self.keep_alive |= token.eq_ignore_ascii_case("keep-alive");
                self.connection_upgrade |= token.eq_ignore_ascii_case("upgrade");
            }
        } else if is("expect") {
            if !text(name, value)?.eq_ignore_ascii_case("100-continue") {
                return Err(Refusal::bad(
                    "the only expectation known here is 100-continue",
                ));
            }
            self.expects_continue = true;
        } else if is("content-type") {
            once(&mut self.content_type, name, value)?;
        } else if is("upgrade") {
            once(&mut self.upgrade, name, value)?;
        } else if is("if-match") {
            once(&mut self.if_match, name, value)?;
        } else if is("if-none-match") {
            once(&mut self.if_none_match, name, value)?;
        } else if is("authorization") {
            once(&mut self.authorization, name, value)?;
        } else if is("x-memkv-nonce") {
            once(&mut self.nonce, name, value)?;
        } else if is("x-memkv-from") {
            once(&mut self.from, name, value)?;
        }
        Ok(())
    }

    fn body_length(&self, minor: u8) -> Result<BodyLength, Refusal> {
        match (self.chunked, self.length) {
            (true, Some(_)) => {
                // The classic of request smuggling (RFC 9112, section 6.3).
                Err(Refusal::bad(
                    "both Content-Length and Transfer-Encoding; send one of them",
                ))
            }
            (true, None) if minor == 0 => Err(Refusal::bad("Transfer-Encoding needs HTTP/1.1")),
            (true, None) => Ok(BodyLength::Chunked),
            (false, length) => Ok(BodyLength::Known(length.unwrap_or(0))),
        }
    }
}

/// Keeps a field that has one value. Of two, a proxy on the way may have looked at the other one.
fn once(field: &mut Option<String>, name: &str, value: &[u8]) -> Result<(), Refusal> {
    let value = text(name, value)?.to_owned();
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::bad(format!(
            "the header field {name} occurs twice"
        ))),
    }
}

fn text<'a>(name: &str, value: &'a [u8]) -> Result<&'a str, Refusal> {
    std::str::from_utf8(value)
        .map(trimmed)
        .map_err(|_| Refusal::bad(format!("the header field {name} is not UTF-8")))
}

/// Without the white space that HTTP knows: spaces and tabs (RFC 9110, section 5.6.3). What else
/// Unicode calls white space belongs to the value, for every program on the way.
pub(crate) fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Digits only: `parse` alone would take a sign.
fn content_length(value: &str) -> Result<u64, Refusal> {
    let all_digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    all_digits
        .then(|| value.parse().ok())
        .flatten()
        .ok_or_else(|| Refusal::bad("Content-Length is not a number of bytes"))
}

#[cfg(test)]
mod tests {
    use memkv_proto::limits::MAX_KEY_BYTES;

    use super::*;
    use crate::http::end::HeadEnd;
    use crate::http::limits::{Limits, MAX_REQUEST_LINE_BYTES};

    fn head(text: &str) -> Result<Head, Refusal> {
        let length = HeadEnd::default().find(text.as_bytes(), &Limits::default())?;
        parse(&text.as_bytes()[..length.expect("the head is complete")])
    }

    fn refused(text: &str) -> ErrorCode {
        head(text).expect_err(text).code
    }

    #[test]
    fn the_original_clients_request_is_understood() {
        let head = head(
            "POST /memkvx1/store/get HTTP/1.1\r\nAccept-Encoding: gzip\r\nHost: 127.0.0.1:12081\r\n\
             Content-Type: application/json\r\nContent-Length: 12\r\nConnection: Keep-Alive\r\n\r\n",
        )
        .unwrap();
        assert_eq!(
            (head.method, head.path.as_str()),
            (Method::Post, "/memkvx1/store/get")
        );
        assert_eq!(head.body, BodyLength::Known(12));
        assert!(head.keep_alive && head.keep_alive_asked && !head.expects_continue);
        assert_eq!(head.content_type.as_deref(), Some("application/json"));
    }

    #[test]
    fn paths_lose_query_and_authority_and_nothing_else() {
        let path_of = |target: &str| {
            head(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"))
                .unwrap()
                .path
        };
        assert_eq!(path_of("/v1/kv/a%2Fb?x=1?y"), "/v1/kv/a%2Fb");
        assert_eq!(path_of("http://h:1/v1/kv/k"), "/v1/kv/k");
        assert_eq!(path_of("http://h"), "/");
        assert_eq!(path_of("HTTPS://h:1?x=/v1/kv/k"), "/");
        assert_eq!(path_of("*"), "*");
        for target in [
            "ftp://h/v1/kv/k",
            "://h/v1/kv/k",
            "h:1",
            "a",
            "/a#b",
            "http://h#b",
        ] {
            let refused = refused(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
            assert_eq!(refused, ErrorCode::BadRequest, "{target}");
        }
        assert_eq!(path_of("//memkv1/store/get"), "//memkv1/store/get");
        assert_eq!(path_of("/v1/kv/http://x"), "/v1/kv/http://x");
    }

    #[test]
    fn connections_live_as_the_version_says() {
        let keeps = |line: &str, connection: &str| {
            head(&format!("GET / {line}\r\nHost: h\r\n{connection}\r\n"))
                .unwrap()
                .keep_alive
        };
        assert!(keeps("HTTP/1.1", ""));
        assert!(!keeps("HTTP/1.1", "Connection: close\r\n"));
        assert!(!keeps("HTTP/1.0", ""));
        assert!(keeps("HTTP/1.0", "Connection: Keep-Alive\r\n"));
    }

    #[test]
    fn ambiguous_and_malformed_heads_are_refused() {
        let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 1,1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length:\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "X: a\r\n folded\r\n",
            "Host: other\r\n",
            "Host: h\r\n",
            "Origin: a\r\norigin: b\r\n",
            "If-Match: \"1\"\r\nIf-Match: \"2\"\r\n",
            "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
            "X: a\nY: b\r\n",
            "X: a\0b\r\n",
            "Expect: tea\r\n",
        ] {
            assert_eq!(refused(&with(fields)), ErrorCode::BadRequest, "{fields:?}");
        }
        assert_eq!(
            refused("GET / HTTP/2.0\r\nHost: h\r\n\r\n"),
            ErrorCode::BadRequest
        );
        assert_eq!(
            refused("GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
            ErrorCode::BadRequest
        );
        assert_eq!(refused("\0\0\r\nHost: h\r\n\r\n"), ErrorCode::BadRequest);
        assert!(head(&with("Content-Length: 5\r\nContent-Length: 5\r\n")).is_ok());
    }

    #[test]
    fn each_length_has_its_own_limit() {
        let fits = "k".repeat(3 * MAX_KEY_BYTES);
        assert!(head(&format!("GET /v1/kv/{fits} HTTP/1.1\r\nHost: h\r\n\r\n")).is_ok());
        let long = "k".repeat(MAX_REQUEST_LINE_BYTES);
        assert_eq!(
            refused(&format!("GET /v1/kv/{long}")),
            ErrorCode::KeyTooLarge
        );
        assert_eq!(refused(&format!("GET /{long}")), ErrorCode::HeaderTooLarge);
        let field = "x".repeat(Limits::default().header_bytes);
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {field}");
        assert_eq!(refused(&head), ErrorCode::HeaderTooLarge);
        let many = "X: y\r\n".repeat(MAX_HEADER_FIELDS);
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n");
        assert_eq!(refused(&head), ErrorCode::HeaderTooLarge);
    }
}
