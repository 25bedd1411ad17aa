//! Requests that two parsers may read in two ways, which is how requests are smuggled past a proxy: this
//! server either refuses them or sees the same requests and bodies as hyper does.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use memkv_node::lock::Mutex;

use super::super::{Admission, App, Head, Refusal, Response};
use super::*;

/// Path with query, and body.
type Seen = Vec<(String, Vec<u8>)>;

/// The request that an attacker would hide.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";

/// Notes what it is called with.
#[derive(Default)]
struct Recorder(Mutex<Seen>);

impl App for Recorder {
    type Upgrade = ();

    async fn admit(&self, head: &mut Head) -> Admission<()> {
        if head.lacks_host {
            return Admission::Close(Response::text(400, "no host"));
        }
        Admission::Body(100_000)
    }

    async fn call(&self, head: Head, body: Bytes) -> crate::http::Answer {
        let query = match head.query.is_empty() {
            true => String::new(),
            false => format!("?{}", head.query),
        };
        let seen = (format!("{}{query}", head.path), body.to_vec());
        self.0.lock().push(seen);
        Response::text(200, "seen").into()
    }

    fn refuse(&self, _: Option<&Head>, refusal: Refusal) -> Response {
        Response::error(refusal.code, refusal.detail)
    }

    fn too_large(&self, _: &Head, _: usize) -> Refusal {
        Refusal::new(memkv_proto::ErrorCode::BodyTooLarge, "too large")
    }
}

/// Sends bytes and the end, and reads what is answered.
async fn send(mut stream: DuplexStream, bytes: &[u8]) {
    // The server may have closed by now.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

async fn by_us(bytes: &[u8]) -> Seen {
    let (stream, far) = tokio::io::duplex(1024 * 1024);
    let app = Recorder::default();
    let limits = Arc::new(Limits::default());
    let serving = async { drop(serve(far, HERE, BytesMut::new(), &app, limits).await) };
    tokio::join!(serving, send(stream, bytes));
    app.0.into_inner()
}

async fn by_hyper(bytes: &[u8]) -> Seen {
    let (stream, far) = tokio::io::duplex(1024 * 1024);
    let seen = Mutex::new(Seen::new());
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let seen = &seen;
        async move {
            let target = request.uri().path_and_query();
            let target = target.map_or("", |target| target.as_str()).to_owned();
            let mut incoming = request.into_body();
            let mut body = Vec::new();
            let mut next =
                async || poll_fn(|context| Pin::new(&mut incoming).poll_frame(context)).await;
            while let Some(frame) = next().await {
                if let Ok(data) = frame?.into_data() {
                    body.extend_from_slice(&data);
                }
            }
            seen.lock().push((target, body));
            Ok::<_, hyper::Error>(hyper::Response::new(String::from("seen")))
        }
    });
    let mut server = http1::Builder::new();
    let serving = server
        .half_close(true)
        .serve_connection(TokioIo::new(far), service);
    let _ = tokio::join!(serving, send(stream, bytes));
    seen.into_inner()
}

/// A head with these lines, a body, and the request behind it.
fn post(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /p HTTP/1.1\r\nHost: h\r\n{lines}\r\n\r\n{body}{HIDDEN}").into_bytes()
}

fn lengths() -> Vec<Vec<u8>> {
    let values = [
        "5",
        "05",
        " 5",
        "5 ",
        "+5",
        "-5",
        "5,5",
        "5, 5",
        "5, 6",
        "0x5",
        "5\t",
        "",
        " ",
        "5.0",
        "5e0",
        "5;",
        "99999999999999999999",
        "18446744073709551616",
        "18446744073709551615",
        "5\r\nContent-Length: 5",
        "5\r\nContent-Length: 6",
        "0\r\nContent-Length: 5",
        "5\r\ncontent-length: 5",
        "\u{0665}",
        "5\u{b}",
        "5\0",
        "\"5\"",
        "5\r\n 0",
        "5\r\n\t0",
        "five",
        "0",
        "00000000000000000000000005",
        "4",
        "6",
    ];
    values
        .iter()
        .map(|value| post(&format!("Content-Length: {value}"), "hello"))
        .collect()
}

fn encodings() -> Vec<Vec<u8>> {
    let values = [
        "chunked",
        "Chunked",
        "CHUNKED",
        " chunked",
        "chunked ",
        "xchunked",
        "chunkedx",
        "chunked, identity",
        "identity, chunked",
        "identity",
        "gzip, chunked",
        "gzip",
        "chunked, chunked",
        "\u{b}chunked",
        "chunked\u{b}",
        "chun ked",
        "\"chunked\"",
        "chunked;q=1",
        "chunked,",
        ",chunked",
        "",
        "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: identity",
        "identity\r\nTransfer-Encoding: chunked",
        "chunked\0",
        "\tchunked",
        "chunked\r\n ",
        "\r\n chunked",
    ];
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    let mut all = Vec::new();
    for value in values {
        let field = format!("Transfer-Encoding: {value}");
        all.push(post(&field, chunks));
        all.push(post(&format!("{field}\r\nContent-Length: 5"), chunks));
        all.push(post(&format!("Content-Length: 15\r\n{field}"), chunks));
    }
    let old = format!(
        "POST /p HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{HIDDEN}"
    );
    all.push(old.into_bytes());
    all
}

fn names() -> Vec<Vec<u8>> {
    let names = [
        "Content-Length :",
        " Content-Length:",
        "Content-Length\t:",
        "Content_Length:",
        "Content-Length\0:",
        "\0Content-Length:",
        "Content\u{b}-Length:",
        "X\r\nContent-Length:",
        "X: y\rContent-Length:",
        "X: y\nContent-Length:",
        "X: y\n\nContent-Length:",
        "X: y\r\n\tContent-Length:",
        ":",
        "Content-Length",
        "(Content-Length):",
        "\u{e9}Content-Length:",
        "Content-Length:Content-Length:",
        "X:\r\nContent-Length:",
    ];
    let chunked = [
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
        "Transfer_Encoding: chunked",
        "Transfer-Encoding\t: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "Transfer-Encoding:chunked",
        "TRANSFER-ENCODING: chunked",
        "transfer-encoding\0: chunked",
    ];
    let lengths = names.iter().map(|name| post(&format!("{name} 5"), "hello"));
    let chunks = chunked.iter().map(|field| {
        post(
            &format!("{field}\r\nContent-Length: 5"),
            "5\r\nhello\r\n0\r\n\r\n",
        )
    });
    lengths.chain(chunks).collect()
}

fn chunked_bodies() -> Vec<Vec<u8>> {
    let bodies = [
        "5\r\nhello\r\n0\r\n\r\n",
        "05\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5;a=b\r\nhello\r\n0\r\n\r\n",
        "5 ;a\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        ";\r\nhello\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\r\n\r\n",
        "5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n",
        "5\r\nhello\r\n0\r\n X: y\r\n\r\n",
        "5\r\nhello\r\n0\r\nX y\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\n\r\n",
        "5\r\nhello\r\n0\n\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n00\r\n\r\n",
        "5\r\nhello\r\n0;a\r\n\r\n",
        "5\r\nhello\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n",
        "5;\nhello\r\n0\r\n\r\n",
        "5\0\r\nhello\r\n0\r\n\r\n",
        "0\r\n\r\n",
        "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n",
    ];
    bodies
        .iter()
        .map(|body| post("Transfer-Encoding: chunked", body))
        .collect()
}

fn request_lines() -> Vec<Vec<u8>> {
    let lines = [
        "GET /a HTTP/1.1",
        "GET  /a HTTP/1.1",
        "GET /a  HTTP/1.1",
        "GET\t/a\tHTTP/1.1",
        " GET /a HTTP/1.1",
        "get /a HTTP/1.1",
        "GET /a HTTP/1.2",
        "GET /a HTTP/2.0",
        "GET /a HTTP/0.9",
        "GET /a HTTP/1.10",
        "GET /a http/1.1",
        "GET /a",
        "GET",
        "",
        "\r\nGET /a HTTP/1.1",
        "\r\n\r\nGET /a HTTP/1.1",
        "\nGET /a HTTP/1.1",
        "\rGET /a HTTP/1.1",
        "GET http://h/a HTTP/1.1",
        "GET http://other/a HTTP/1.1",
        "GET http://h@other/a HTTP/1.1",
        "GET * HTTP/1.1",
        "CONNECT h:1 HTTP/1.1",
        "GET h:1 HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET /a%00 HTTP/1.1",
        "GET /a\0 HTTP/1.1",
        "GET /a\u{e9} HTTP/1.1",
        "GET /a?b=c HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /a HTTP/1.1 x",
        "GET /a\rHTTP/1.1",
        "G\0T /a HTTP/1.1",
        "GET //a HTTP/1.1",
        "GET /../a HTTP/1.1",
        "GET a HTTP/1.1",
        "HEAD /a HTTP/1.1",
        "BREW /a HTTP/1.1",
        "PRI * HTTP/2.0",
    ];
    let ends = ["\r\n", "\n", "\r", "\r\r\n"];
    let with_end =
        |end: &str| format!("GET /a HTTP/1.1{end}Host: h{end}{end}{HIDDEN}").into_bytes();
    let fields = [
        "Host: h\r\nHost: h",
        "Host: h\r\nHost: other",
        "X: y",
        "Host:",
        "Host: h, other",
        "Host: h\0",
        "Host: h\r\nConnection: close",
        "Host: h\r\nConnection: keep-alive, close",
        "Host: h\r\nX: \u{1}",
        "Host: h\r\nX: y\0z",
        "Host: h\r\nExpect: 100-continue",
        "Host: h\r\nUpgrade: h2c",
    ];
    let lines = lines
        .iter()
        .map(|line| format!("{line}\r\nHost: h\r\n\r\n{HIDDEN}").into_bytes());
    let fields = fields
        .iter()
        .map(|fields| format!("GET /a HTTP/1.1\r\n{fields}\r\n\r\n{HIDDEN}").into_bytes());
    lines.chain(ends.map(with_end)).chain(fields).collect()
}

#[tokio::test]
async fn requests_are_refused_or_seen_as_hyper_sees_them() {
    let corpus = [
        lengths(),
        encodings(),
        names(),
        chunked_bodies(),
        request_lines(),
    ]
    .concat();
    assert!(corpus.len() >= 200, "{}", corpus.len());
    let (mut same, mut stricter, mut faults) = (0, 0, Vec::new());
    for bytes in &corpus {
        let (ours, hypers) = (by_us(bytes).await, by_hyper(bytes).await);
        if ours == hypers {
            same += 1;
        } else if ours.len() < hypers.len() && hypers.starts_with(&ours) {
            stricter += 1;
        } else {
            let shown = bytes.escape_ascii();
            faults.push(format!("{shown}\n  here:  {ours:?}\n  hyper: {hypers:?}"));
        }
    }
    eprintln!(
        "{} requests: {same} alike, {stricter} refused here only",
        corpus.len()
    );
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(same > 100, "{same} of {}", corpus.len());
    // What is plain is taken, by both.
    let plain = post("Content-Length: 5", "hello");
    let seen = by_us(&plain).await;
    let wanted = [
        ("/p".to_owned(), b"hello".to_vec()),
        ("/hidden".to_owned(), Vec::new()),
    ];
    assert_eq!(seen, wanted);
    assert_eq!(by_hyper(&plain).await, wanted);
}
