//! A node that speaks Redis's protocol as a test wants and remembers what it was asked.
//! Knows only `COMMAND`, with a read and a write; the test knows the rest.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::BytesMut;
use memkv_resp::{Frame, FrameParser};

/// `get`, which reads, and `set`, which writes.
const COMMANDS: &str = "*2\r\n\
    *6\r\n$3\r\nget\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n\
    *6\r\n$3\r\nset\r\n:-3\r\n*1\r\n+write\r\n:1\r\n:1\r\n:1\r\n";
const DOCS: &str = "*2\r\n$3\r\nget\r\n*2\r\n$7\r\nsummary\r\n$8\r\nReads k.\r\n";

/// The state of an open connection in `/proc/net/tcp`.
const ESTABLISHED: &str = "01";

/// What to do with a command.
pub(crate) enum Act {
    Answer(&'static str),
    /// Answer, and close the connection.
    Last(&'static str),
    /// Close the connection without an answer.
    Close,
}

/// A node on a port of its own. Its threads end with the test process.
pub(crate) struct FakeRedis {
    pub(crate) addr: String,
    seen: Arc<Mutex<Vec<String>>>,
    closed: Receiver<()>,
}

impl FakeRedis {
    pub(crate) fn start(act: impl Fn(&str) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (closes, closed) = channel();
        let (log, act) = (seen.clone(), Arc::new(act));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, act, closes) = (log.clone(), act.clone(), closes.clone());
                thread::spawn(move || serve(stream.unwrap(), &log, &*act, &closes));
            }
        });
        Self { addr, seen, closed }
    }

    /// The commands that are the test's, their words separated by spaces.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until a connection was closed from this side, and the other side could know it: on a busy machine, the
    /// kernel delivers what was sent to the same machine later.
    pub(crate) fn wait_closed(&self) {
        self.closed.recv().unwrap();
        let port = self.addr.rsplit(':').next().unwrap();
        let remote = format!("0100007F:{:04X}", port.parse::<u16>().unwrap());
        let is_open = |row: &str| {
            let mut fields = row.split_whitespace().skip(2);
            fields.next() == Some(&remote) && fields.next() == Some(ESTABLISHED)
        };
        while fs::read_to_string("/proc/net/tcp")
            .unwrap()
            .lines()
            .any(is_open)
        {
            thread::yield_now();
        }
    }
}

fn serve(
    mut stream: TcpStream,
    log: &Mutex<Vec<String>>,
    act: &dyn Fn(&str) -> Act,
    closes: &Sender<()>,
) {
    let (mut parser, mut buf) = (FrameParser::new(), BytesMut::new());
    let mut chunk = [0; 1024];
    loop {
        while let Some(Frame::Array(words)) = parser.parse(&mut buf).unwrap() {
            let words: Vec<_> = words.iter().map(word).collect();
            let command = words.join(" ");
            let act = match &*command {
                "COMMAND" => Act::Answer(COMMANDS),
                "COMMAND DOCS" => Act::Answer(DOCS),
                _ => {
                    log.lock().unwrap().push(command.clone());
                    act(&command)
                }
            };
            let (answer, last) = match act {
                Act::Answer(answer) => (answer, false),
                Act::Last(answer) => (answer, true),
                Act::Close => ("", true),
            };
            // The client may be gone already.
            let _ = stream.write_all(answer.as_bytes());
            if last {
                drop(stream);
                let _ = closes.send(());
                return;
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(read) => buf.extend_from_slice(&chunk[..read]),
        }
    }
}

fn word(frame: &Frame) -> String {
    let Frame::Bulk(bytes) = frame else {
        panic!("{frame:?}")
    };
    String::from_utf8_lossy(bytes).into_owned()
}
