//! RESP end to end over loopback sockets: a real store without a cluster behind it.

mod answers;
mod commands;
mod connection;
mod dialogues;
mod drain;
mod failures;
mod ledger;
mod limits;
mod matrix;
mod observe;
mod pubsub;
mod scripts;
mod transactions;
mod turns;
mod users;

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use memkv_resp::{Frame, FrameParser, encode_command};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

use super::{Resp, RespSettings};
use crate::admission::{Admission, AdmissionSettings};
use crate::http::{Api, ApiSettings, Limits};
use crate::ledger::Ledger;
use crate::listener::Listener;
use crate::peer::Trust;
use crate::rights::Rights;
use crate::service::Service;
use crate::testing::{Fake, resp_settings};

/// A server on an address for Redis clients alone.
struct TestServer {
    addr: String,
    resp: Arc<Resp<Fake>>,
    /// Of all protocols, for a test that gives it another socket.
    listener: Arc<Listener<Fake>>,
}

/// Serves with a backend; without one it is loading.
async fn start_with(backend: Option<Fake>, settings: RespSettings) -> TestServer {
    start_counted(backend, settings, Ledger::default()).await
}

/// The same, with an account of its clients' memory.
async fn start_counted(
    backend: Option<Fake>,
    settings: RespSettings,
    ledger: Ledger,
) -> TestServer {
    start_on(
        backend,
        settings,
        Service::new(Duration::from_millis(500)).with_ledger(ledger),
    )
    .await
}

/// The same, with users.
async fn start_for(backend: Option<Fake>, settings: RespSettings, rights: Rights) -> TestServer {
    let service = Service::with_rights(Duration::from_millis(500), rights);
    start_on(backend, settings, service).await
}

async fn start_on(
    backend: Option<Fake>,
    settings: RespSettings,
    service: Service<Fake>,
) -> TestServer {
    let service = Arc::new(service);
    let http = ApiSettings {
        name: "n1".to_owned(),
        names: vec!["n1".to_owned()],
        max_value_bytes: settings.max_value_bytes,
        trust: Trust::Everybody,
        metrics_public: false,
        peers_need_tls: false,
        allowed_hosts: Vec::new(),
    };
    let api = Arc::new(Api::new(service.clone(), http));
    let resp = Arc::new(Resp::new(service.clone(), settings));
    if let Some(backend) = backend {
        resp.attach(backend.clone());
        service.attach(backend);
    }
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    let open = AdmissionSettings::open(100);
    let admission = Admission::new(open, service.ledger().clone(), resp.counts().clone());
    let listener = Listener::new(
        api,
        resp.clone(),
        Limits {
            drain: service.drain().clone(),
            ..Limits::default()
        },
        admission,
        Handle::current(),
    );
    let listener = Arc::new(listener);
    tokio::spawn(listener.clone().accept_resp(socket));
    TestServer {
        addr,
        resp,
        listener,
    }
}

async fn start() -> TestServer {
    start_with(Some(Fake::working()), resp_settings()).await
}

impl TestServer {
    async fn client(&self) -> TestClient {
        TestClient {
            stream: TcpStream::connect(&self.addr).await.unwrap(),
            input: BytesMut::new(),
        }
    }
}

/// A client that shows answers as text: `:1`, `$value`, `[$a :1]`, `-ERR ...`.
struct TestClient {
    stream: TcpStream,
    input: BytesMut,
}

impl TestClient {
    /// Sends a command of words without spaces; `''` is an empty one.
    async fn send(&mut self, line: &str) {
        let words: Vec<_> = line
            .split(' ')
            .map(|word| word.trim_matches('\''))
            .collect();
        self.send_args(&words).await;
    }

    async fn send_args(&mut self, args: &[impl AsRef<[u8]>]) {
        let mut out = BytesMut::new();
        encode_command(&mut out, args);
        self.send_raw(&out).await;
    }

    async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next answer; nothing once the connection has ended.
    async fn answer(&mut self) -> Option<Frame> {
        let mut parser = FrameParser::new();
        loop {
            if let Some(frame) = parser.parse(&mut self.input).unwrap() {
                return Some(frame);
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(1..) => {}
                _ => return None,
            }
        }
    }

    async fn shown(&mut self) -> String {
        self.answer()
            .await
            .map_or_else(|| "(closed)".to_owned(), |frame| show(&frame))
    }

    async fn ask(&mut self, line: &str) -> String {
        self.send(line).await;
        self.shown().await
    }

    /// Commands and their answers, one after the other.
    async fn dialogue(&mut self, lines: &[(&str, &str)]) {
        for (line, answer) in lines {
            assert_eq!(self.ask(line).await, *answer, "{line}");
        }
    }
}

fn show(frame: &Frame) -> String {
    let text = |mark: &str, bytes: &[u8]| format!("{mark}{}", String::from_utf8_lossy(bytes));
    let list = |mark: &str, frames: &[Frame]| {
        let shown: Vec<_> = frames.iter().map(show).collect();
        format!("{mark}[{}]", shown.join(" "))
    };
    match frame {
        Frame::Simple(bytes) => text("+", bytes),
        Frame::Error(bytes) | Frame::BulkError(bytes) => text("-", bytes),
        Frame::Integer(number) => format!(":{number}"),
        Frame::Bulk(bytes) => text("$", bytes),
        Frame::Verbatim(_, bytes) => text("=", bytes),
        Frame::BigNumber(bytes) => text("(", bytes),
        Frame::Double(number) => format!(",{number}"),
        Frame::Boolean(value) => format!("#{value}"),
        Frame::Null => "_".to_owned(),
        Frame::NullBulk => "$-1".to_owned(),
        Frame::NullArray => "*-1".to_owned(),
        Frame::Array(frames) => list("", frames),
        Frame::Set(frames) => list("~", frames),
        Frame::Push(frames) => list(">", frames),
        Frame::Map(pairs) => {
            let mut shown = "%{".to_owned();
            for (key, value) in pairs {
                let _ = write!(shown, "{}={} ", show(key), show(value));
            }
            shown.trim_end().to_owned() + "}"
        }
        Frame::Attributed(_, frame) => show(frame),
    }
}
