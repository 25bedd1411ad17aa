//! Kept-alive HTTP/1.1 connections, and one exchange over one of them.
//!
//! Never decides whether a request may be repeated: it reports whether any byte of it may have
//! left this machine. Invariant: a connection is in the pool only while no request is on it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use memkv_proto::limits::MAX_VALUE_BYTES_CEILING;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::tls::{Tls, is_refusal, server_name, tls_failure};

/// A connection that idled longer is not used again: the original closes after 30 s, and a request
/// that crosses the close on the wire would have an unknown outcome.
const MAX_IDLE: Duration = Duration::from_secs(10);

/// Idle connections kept per endpoint; more only cost file descriptors.
const MAX_IDLE_CONNECTIONS: usize = 64;

/// A host that does not answer within this is taken for dead while others can be tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest answer: JSON may write each byte of the largest value as six, and keys and the rest of a
/// page are short beside it.
const MAX_ANSWER_BYTES: usize = 7 * MAX_VALUE_BYTES_CEILING;

/// A request, independent of the endpoint it goes to.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    /// A request with neither header fields of its own nor a body.
    pub(crate) fn new(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }
}

/// A complete response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An exchange that brought no response.
#[derive(Debug)]
pub(crate) struct Failed {
    /// Whether a part of the request may have reached the endpoint.
    pub(crate) sent: bool,
    /// Why, as text.
    pub(crate) reason: String,
}

impl Failed {
    fn unsent(reason: impl fmt::Display) -> Self {
        Self {
            sent: false,
            reason: reason.to_string(),
        }
    }

    fn sent(reason: impl fmt::Display) -> Self {
        Self {
            sent: true,
            reason: reason.to_string(),
        }
    }
}

pub(crate) type Sender = SendRequest<Full<Bytes>>;

struct Idle {
    sender: Sender,
    since: Instant,
}

/// The idle connections of one client, by endpoint.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<HashMap<String, Vec<Idle>>>,
    /// What every request shows, if the cluster has a password.
    pub(crate) authorization: Option<HeaderValue>,
    /// How connections are made, if that is over TLS.
    pub(crate) tls: Option<Tls>,
    /// Endpoints were named with `https://`: without [`Pool::tls`] nothing is sent.
    pub(crate) only_tls: bool,
}

impl Pool {
    /// One without connections.
    pub(crate) fn new(only_tls: bool) -> Self {
        Self {
            only_tls,
            ..Self::default()
        }
    }

    /// One without connections, for the same cluster.
    pub(crate) fn anew(&self) -> Self {
        Self {
            idle: Mutex::default(),
            authorization: self.authorization.clone(),
            tls: self.tls.clone(),
            only_tls: self.only_tls,
        }
    }

    /// Sends `call` to `addr` and reads the whole response, until `deadline`.
    pub(crate) async fn exchange(
        &self,
        addr: &str,
        call: &Call,
        deadline: Instant,
    ) -> Result<Reply, Failed> {
        let started = Instant::now();
        while let Some(mut sender) = self.take(addr) {
            match self.send(&mut sender, addr, call, started, deadline).await {
                Ok(reply) => return Ok(self.put(addr, sender, reply)),
                // It was closed while it idled: nothing was sent, so another one may.
                Err(failed) if !failed.sent => {}
                Err(failed) => return Err(failed),
            }
        }
        let mut sender = self.connect(addr, started, deadline).await?;
        let reply = self
            .send(&mut sender, addr, call, started, deadline)
            .await?;
        Ok(self.put(addr, sender, reply))
    }

    /// Sends `call` to `addr` on a connection of its own, and reads the head of the response: connected
    /// until `deadline`, and answered `within` that time from then on.
    pub(crate) async fn begin(
        &self,
        addr: &str,
        call: &Call,
        deadline: Instant,
        within: Duration,
    ) -> Result<(Sender, Response<Incoming>), Failed> {
        let mut sender = self.connect(addr, Instant::now(), deadline).await?;
        let started = Instant::now();
        let request = self.request(&mut sender, addr, call, started, started + within);
        let response = request.await?;
        Ok((sender, response))
    }

    /// One exchange over a connection on which nothing else is.
    async fn send(
        &self,
        sender: &mut Sender,
        addr: &str,
        call: &Call,
        started: Instant,
        deadline: Instant,
    ) -> Result<Reply, Failed> {
        let response = self.request(sender, addr, call, started, deadline).await?;
        whole(response, started, deadline).await
    }

    /// Sends a request and reads the head of its response.
    async fn request(
        &self,
        sender: &mut Sender,
        addr: &str,
        call: &Call,
        started: Instant,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Failed> {
        let mut request = Request::builder()
            .method(&call.method)
            .uri(&call.path)
            .header(HOST, addr)
            .body(Full::new(call.body.clone()))
            .map_err(Failed::unsent)?;
        request.headers_mut().extend(call.headers.clone());
        if let Some(field) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, field.clone());
        }
        match timeout_at(deadline, sender.ready()).await {
            Ok(Ok(())) => {}
            Ok(Err(err)) => return Err(Failed::unsent(lost(&err))),
            Err(_) => return Err(Failed::unsent(late(started).reason)),
        }
        match timeout_at(deadline, sender.try_send_request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(mut err)) => {
                // Refused in the handshake, the node has read nothing.
                let sent =
                    err.take_message().is_none() && !cause(err.error()).is_some_and(is_refusal);
                Err(Failed {
                    sent,
                    reason: lost(err.error()),
                })
            }
            Err(_) => Err(late(started)),
        }
    }

    /// Makes sure that `addr` accepts connections, and keeps one.
    pub(crate) async fn probe(&self, addr: &str, deadline: Instant) -> Result<(), Failed> {
        let sender = self.connect(addr, Instant::now(), deadline).await?;
        self.keep(addr, sender);
        Ok(())
    }

    /// An idle connection that is still open; older ones are dropped.
    fn take(&self, addr: &str) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.get_mut(addr)?;
        while let Some(Idle { sender, since }) = connections.pop() {
            if since.elapsed() < MAX_IDLE && !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn put(&self, addr: &str, sender: Sender, reply: Reply) -> Reply {
        self.keep(addr, sender);
        reply
    }

    fn keep(&self, addr: &str, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.entry(addr.to_owned()).or_default();
        if connections.len() < MAX_IDLE_CONNECTIONS {
            connections.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }
}

impl Pool {
    /// Opens a connection. Nothing of any request is sent.
    async fn connect(
        &self,
        addr: &str,
        started: Instant,
        deadline: Instant,
    ) -> Result<Sender, Failed> {
        if self.only_tls && self.tls.is_none() {
            let why = "the endpoint is https:// and the client has no TLS settings: give it some (with_tls)";
            return Err(Failed::unsent(why));
        }
        let deadline = deadline.min(Instant::now() + CONNECT_TIMEOUT);
        let connecting = async {
            let stream = TcpStream::connect(addr)
                .await
                .map_err(|err| Failed::unsent(words(&err)))?;
            // A request is one write and waits for its answer: delaying it gains nothing.
            stream.set_nodelay(true).map_err(Failed::unsent)?;
            let Some(tls) = &self.tls else {
                return speak(stream).await;
            };
            let name = server_name(addr).map_err(Failed::unsent)?;
            let connecting = TlsConnector::from(tls.config()).connect(name, stream);
            let stream = connecting
                .await
                .map_err(|err| Failed::unsent(words(&err)))?;
            speak(stream).await
        };
        timeout_at(deadline, connecting)
            .await
            .map_err(|_| Failed::unsent(format!("no connection within {}", since(started))))?
    }
}

/// Reads the whole of a response until `deadline`.
pub(crate) async fn whole(
    response: Response<Incoming>,
    started: Instant,
    deadline: Instant,
) -> Result<Reply, Failed> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect();
    let body = match timeout_at(deadline, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(err)) => return Err(Failed::sent(format!("the answer broke off: {err}"))),
        Err(_) => return Err(late(started)),
    };
    Ok(Reply {
        status: head.status,
        headers: head.headers,
        body,
    })
}

fn late(started: Instant) -> Failed {
    Failed::sent(format!("no answer within {}", since(started)))
}

/// Begins with HTTP on a connection.
async fn speak<S>(stream: S) -> Result<Sender, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(Failed::unsent)?;
    // Ends when the sender is dropped or the peer closes; each request is told of failures itself.
    tokio::spawn(connection);
    Ok(sender)
}

/// The end of a connection, as text for an operator.
fn lost(err: &hyper::Error) -> String {
    if err.is_parse() {
        return "the answer is not HTTP".to_owned();
    }
    match cause(err) {
        Some(err) => words(err),
        None => "the connection was closed without an answer".to_owned(),
    }
}

/// What the connection below HTTP says.
fn cause(err: &hyper::Error) -> Option<&std::io::Error> {
    std::error::Error::source(err)?.downcast_ref()
}

fn words(err: &std::io::Error) -> String {
    if let Some(sentence) = tls_failure(err) {
        return sentence;
    }
    match err.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => err.to_string(),
    }
}

/// How long ago, in tenths of a second.
fn since(started: Instant) -> String {
    format!("{:.1} s", started.elapsed().as_secs_f64())
}
