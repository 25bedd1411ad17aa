//! A node that answers HTTP/1.1 as a test wants and remembers what it was asked.
//! Never understands a request: the test does.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use memkv_proto::{ErrorCode, HEADER_REVISION, PROBLEM_JSON, Problem};
use tokio::net::TcpSocket;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in small letters.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// Number of the connection it came on, from 0.
    pub(crate) connection: usize,
}

/// What to do with a request.
pub(crate) enum Act {
    /// Answer with this status, media type, further header lines, and body.
    Answer(u16, &'static str, String, Vec<u8>),
    /// Never answer, and keep the connection.
    Hang,
    /// Close the connection without an answer.
    Close,
}

impl Act {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        let header = format!("{HEADER_REVISION}: 42\r\nETag: \"41\"\r\n");
        Self::Answer(200, "application/octet-stream", header, body.into())
    }

    pub(crate) fn json(body: &str) -> Self {
        let header = format!("{HEADER_REVISION}: 42\r\n");
        Self::Answer(200, "application/json", header, body.into())
    }

    pub(crate) fn problem(problem: &Problem) -> Self {
        Self::Answer(
            problem.status,
            PROBLEM_JSON,
            String::new(),
            problem.to_json().into(),
        )
    }

    pub(crate) fn error(code: ErrorCode) -> Self {
        Self::problem(&Problem::new(code, "as the test says"))
    }
}

/// A node on a port of its own. Its threads end with the test process.
pub(crate) struct Fake {
    pub(crate) addr: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    pub(crate) fn start(act: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").unwrap(), act)
    }

    pub(crate) fn listen(
        listener: TcpListener,
        act: impl Fn(&Seen) -> Act + Send + Sync + 'static,
    ) -> Self {
        let addr = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, act) = (seen.clone(), Arc::new(act));
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (log, act) = (log.clone(), act.clone());
                thread::spawn(move || serve(connection, stream.unwrap(), &log, &*act));
            }
        });
        Self { addr, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// An address without a listener. It stays bound until the test process ends, so that no other
/// test gets its port.
pub(crate) fn nobody() -> String {
    let late = Late::bind();
    std::mem::forget(late.socket);
    late.addr
}

/// An address that refuses connections until a node starts there.
pub(crate) struct Late {
    pub(crate) addr: String,
    socket: TcpSocket,
}

impl Late {
    pub(crate) fn bind() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = socket.local_addr().unwrap().to_string();
        Self { addr, socket }
    }

    /// Needs a tokio runtime.
    pub(crate) fn start(self, act: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Fake {
        let listener = self.socket.listen(16).unwrap().into_std().unwrap();
        listener.set_nonblocking(false).unwrap();
        Fake::listen(listener, act)
    }
}

fn serve(connection: usize, stream: TcpStream, log: &Mutex<Vec<Seen>>, act: &dyn Fn(&Seen) -> Act) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(connection, &mut reader) {
        log.lock().unwrap().push(request.clone());
        match act(&request) {
            Act::Answer(status, media_type, headers, body) => {
                let head = format!(
                    "HTTP/1.1 {status} x\r\nContent-Type: {media_type}\r\n\
                     Content-Length: {}\r\n{headers}\r\n",
                    body.len()
                );
                let body = if request.method == "HEAD" {
                    Vec::new()
                } else {
                    body
                };
                // The client may be gone already.
                let _ = writer.write_all(&[head.into_bytes(), body].concat());
            }
            // Ends when the client gives up.
            Act::Hang => drop(reader.read(&mut [0])),
            Act::Close => return,
        }
    }
}

fn read(connection: usize, reader: &mut impl BufRead) -> Option<Seen> {
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .ok()
        .filter(|&length| length > 0)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        reader
            .read_line(&mut header)
            .ok()
            .filter(|&length| length > 2)?;
        let (name, value) = header.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        if reader.fill_buf().ok()?.starts_with(b"\r\n") {
            reader.consume(2);
            break;
        }
    }
    let length = headers.get("content-length");
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(Seen {
        method,
        path,
        headers,
        body,
        connection,
    })
}
