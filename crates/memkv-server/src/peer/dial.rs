//! Opens a peer connection: TCP, the HTTP/1.1 upgrade (RFC 9110, section 7.8), and the handshake where
//! there is a cluster secret. All of it inside TLS if the node dials so: then there is no way without.
//! Never sends a frame.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use memkv_node::Lane;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::handshake::{HandshakeError, Trust, prove};
use super::secret::{Meeting, random_hex};
use super::{PROTOCOL, lane_name, socket};
use crate::http::trimmed;
use crate::tls::{DialFailed, Stream, Tls};

/// TCP and upgrade together. A lost SYN is sent again after one second; a second one is a cut-off
/// peer, and the next attempt comes soon enough.
const DIAL_MAX: Duration = Duration::from_secs(2);

/// Longest answer to the upgrade: a status line, a few headers and an explanation.
const ANSWER_MAX: usize = 8 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer within {} s", DIAL_MAX.as_secs())]
    Timeout,
    #[error("it is not a memkv node, or of another version: it answered {0:?}")]
    NotAPeer(String),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(
        "it wants a proof of the cluster secret, and this node has none: give all nodes the same \
         cluster_secret_file"
    )]
    NoSecret,
    #[error(
        "this node speaks to peers only if they prove that they know the cluster secret, and has \
         none: give all nodes the same cluster_secret_file"
    )]
    TrustsNobody,
    #[error("no TLS: {0}")]
    Tls(String),
    #[error("it refused with HTTP status {status}: {detail}")]
    Refused { status: u16, detail: String },
}

impl DialError {
    /// Whether the peer's system says that no process listens there.
    pub(super) fn is_no_listener(&self) -> bool {
        matches!(self, DialError::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

impl From<DialFailed> for DialError {
    fn from(failed: DialFailed) -> Self {
        match failed {
            DialFailed::Io(error) => Self::Io(error),
            DialFailed::Tls(why) => Self::Tls(why),
        }
    }
}

/// A connection and what has been read behind the upgrade's answer.
pub(super) type Dialled = (Stream, BytesMut);

/// How a node proves itself to those that it dials.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) trust: Trust,
    pub(super) tls: Option<Arc<Tls>>,
}

impl Credentials {
    /// What makes the connections, if that is TLS.
    fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref().filter(|tls| tls.dials())
    }
}

/// Connects to the node named `name` at `addr`.
pub(super) async fn dial(
    me: &str,
    name: &str,
    addr: &str,
    lane: Lane,
    credentials: &Credentials,
) -> Result<Dialled, DialError> {
    let (trust, tls) = (&credentials.trust, credentials.tls());
    // Both certificates are as good as a secret.
    if *trust == Trust::Nobody && tls.is_none() {
        return Err(DialError::TrustsNobody);
    }
    tokio::time::timeout(DIAL_MAX, async {
        let mut stream = match tls {
            Some(tls) => Box::pin(tls.dial(name, addr)).await?,
            None => Stream::Plain(TcpStream::connect(addr).await?),
        };
        socket::tune(&stream);
        let me = memkv_proto::encode_key_path(me.as_bytes());
        let to = memkv_proto::encode_key_path(name.as_bytes());
        let asked = random_hex();
        let request = format!(
            "GET /memkv{to}/raft/{lane} HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\n\
             Upgrade: {PROTOCOL}\r\nX-Memkv-From: {me}\r\nX-Memkv-Nonce: {asked}\r\n\r\n",
            lane = lane_name(lane),
        );
        stream.write_all(request.as_bytes()).await?;
        // TLS keeps what the socket does not take at once.
        stream.flush().await?;
        let mut answer = read_answer(&mut stream).await?;
        if let Trust::Secret(secret) = trust {
            let facts = stream.facts();
            let channel = facts.as_ref().map_or("", |facts| &facts.channel);
            let meeting = Meeting {
                from: &me,
                to: &to,
                lane: lane_name(lane),
                asked: &asked,
                answered: &answer.nonce,
                channel,
            };
            prove(&mut stream, &mut answer.leftover, secret, meeting).await?;
        } else if !answer.nonce.is_empty() {
            return Err(DialError::NoSecret);
        }
        Ok((stream, answer.leftover))
    })
    .await
    .unwrap_or(Err(DialError::Timeout))
}

/// What came with the upgrade.
struct Answer {
    /// Empty from a node without a secret.
    nonce: String,
    leftover: BytesMut,
}

async fn read_answer(stream: &mut Stream) -> Result<Answer, DialError> {
    let mut buffer = BytesMut::with_capacity(1024);
    loop {
        let open = stream.read_buf(&mut buffer).await? > 0;
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let head = match response.parse(&buffer) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if open && buffer.len() < ANSWER_MAX => continue,
            Ok(httparse::Status::Partial) if buffer.is_empty() => {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            _ => return Err(DialError::NotAPeer(start(&buffer))),
        };
        let status = response.code.unwrap_or_default();
        let length = content_length(response.headers).min(ANSWER_MAX);
        let nonce = field(response.headers, "x-memkv-nonce").unwrap_or_default();
        let nonce = nonce.to_owned();
        let mut rest = buffer.split_off(head);
        if status == 101 {
            return Ok(Answer {
                nonce,
                leftover: rest,
            });
        }
        // The text is worth waiting for, but its end is not: the part that has come will do.
        while rest.len() < length && stream.read_buf(&mut rest).await.is_ok_and(|read| read > 0) {}
        return Err(DialError::Refused {
            status,
            detail: start(&rest),
        });
    }
}

/// Without a length the body ends with the connection.
fn content_length(headers: &[httparse::Header<'_>]) -> usize {
    field(headers, "content-length")
        .and_then(|value| value.parse().ok())
        .unwrap_or(usize::MAX)
}

fn field<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let field = headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(field.value).ok().map(trimmed)
}

/// Enough of an unexpected answer to recognise what sent it.
fn start(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(512)])
        .trim()
        .to_owned()
}
