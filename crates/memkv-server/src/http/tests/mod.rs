//! The HTTP listener over an in-memory connection, byte by byte: `api` and `rest` hold the routes
//! to their contract, `framing` the bounds of each request to RFC 9112 and `smuggling` to those that hyper
//! sees, `backup` a body in pieces, `sites` browsers to pages of this node, and `wire` the connection to its limits.

mod api;
mod backup;
mod cluster;
mod framing;
mod rest;
mod sites;
mod smuggling;
mod wire;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use memkv_node::RequestError;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use super::{Api, ApiSettings, End, Limits, PeerUpgrade, serve};
use crate::password::Password;
use crate::peer::Trust;
use crate::rights::Rights;
use crate::service::Service;
use crate::testing::Fake;

const MAX_VALUE_BYTES: usize = 1000;

/// Where clients come from.
const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// A client's end of a connection to a server.
struct Client {
    stream: DuplexStream,
    input: Vec<u8>,
    server: JoinHandle<End<DuplexStream, PeerUpgrade>>,
}

/// A response as it arrived.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

fn api(backend: Option<Fake>) -> Arc<Api<Fake>> {
    api_with(backend, MAX_VALUE_BYTES)
}

fn api_with(backend: Option<Fake>, max_value_bytes: usize) -> Arc<Api<Fake>> {
    api_for(backend, max_value_bytes, None)
}

fn api_for(
    backend: Option<Fake>,
    max_value_bytes: usize,
    password: Option<&str>,
) -> Arc<Api<Fake>> {
    api_on(service(backend, password), max_value_bytes)
}

fn api_on(service: Arc<Service<Fake>>, max_value_bytes: usize) -> Arc<Api<Fake>> {
    let settings = ApiSettings {
        name: "n1".to_owned(),
        names: vec!["n1".to_owned(), "n2".to_owned()],
        max_value_bytes,
        trust: Trust::Everybody,
        metrics_public: false,
        peers_need_tls: false,
        allowed_hosts: vec!["kv.example.com.".to_owned()],
    };
    Arc::new(Api::new(service, settings))
}

/// Without a backend it is loading.
fn service(backend: Option<Fake>, password: Option<&str>) -> Arc<Service<Fake>> {
    let password = password.map(Password::new);
    let rights = Rights::new(password.as_ref(), false);
    let service = Service::with_rights(Duration::from_secs(5), rights);
    if let Some(backend) = backend {
        service.attach(backend);
    }
    Arc::new(service)
}

fn connect_to(api: Arc<Api<Fake>>) -> Client {
    connect_with(api, Arc::new(Limits::default()))
}

fn connect_with(api: Arc<Api<Fake>>, limits: Arc<Limits>) -> Client {
    let (stream, far) = tokio::io::duplex(64 * 1024);
    let server =
        tokio::spawn(async move { serve(far, HERE, BytesMut::new(), &*api, limits).await });
    Client {
        stream,
        input: Vec::new(),
        server,
    }
}

fn connect() -> Client {
    connect_to(api(Some(Fake::working())))
}

fn connect_failing(error: RequestError) -> Client {
    connect_to(api(Some(Fake::failing(error))))
}

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a request and reads its answer.
    async fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.ask_with(method, path, "", body).await
    }

    async fn ask_with(&mut self, method: &str, path: &str, fields: &str, body: &[u8]) -> Answer {
        let length = body.len();
        self.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n"
        ))
        .await;
        self.send(body).await;
        self.answer(method != "HEAD").await
    }

    async fn answer(&mut self, with_body: bool) -> Answer {
        let end = loop {
            if let Some(at) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let read = self.stream.read_buf(&mut self.input).await.unwrap();
            assert!(read > 0, "closed before the answer");
        };
        let head = String::from_utf8(self.input.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer {
            status,
            head,
            body: Vec::new(),
        };
        let length = answer
            .header("content-length")
            .map_or(0, |text| text.parse().unwrap());
        while with_body && self.input.len() < length {
            let read = self.stream.read_buf(&mut self.input).await.unwrap();
            assert!(read > 0, "closed before the body");
        }
        if with_body {
            answer.body = self.input.drain(..length).collect();
        }
        answer
    }

    /// Whether the server ends the connection without another byte.
    async fn is_closed(&mut self) -> bool {
        self.input.is_empty() && self.stream.read_buf(&mut self.input).await.unwrap() == 0
    }
}
