//! Measures when a server answers again: sends a request over a new connection each time, until one
//! reply is a success.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Time limit of an attempt: a server that drops a request which it cannot serve yet would otherwise
/// hide that it could serve the next one.
const ATTEMPT: Duration = Duration::from_millis(100);

/// Pause between two attempts, so that these do not take the machine from the server.
const PAUSE: Duration = Duration::from_millis(2);

/// Longer than any election or restart takes.
const LIMIT: Duration = Duration::from_secs(120);

/// A request, and the beginning of the reply to it if it succeeded.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) request: Vec<u8>,
    pub(crate) answer: &'static [u8],
}

impl Probe {
    /// A write over Redis's protocol.
    pub(crate) fn resp_write() -> Probe {
        Probe {
            request: b"*3\r\n$3\r\nSET\r\n$5\r\nprobe\r\n$1\r\n1\r\n".to_vec(),
            answer: b"+OK",
        }
    }

    /// A read of an absent key.
    pub(crate) fn resp_read() -> Probe {
        Probe {
            request: b"*2\r\n$3\r\nGET\r\n$6\r\nnobody\r\n".to_vec(),
            answer: b"$-1",
        }
    }

    /// A write over etcd's JSON gateway; key and value are in Base64.
    pub(crate) fn etcd_write() -> Probe {
        let body = r#"{"key":"cHJvYmU=","value":"MQ=="}"#;
        let length = body.len();
        let head =
            format!("POST /v3/kv/put HTTP/1.1\r\nHost: etcd\r\nContent-Length: {length}\r\n\r\n");
        Probe {
            request: [head.as_bytes(), body.as_bytes()].concat(),
            answer: b"HTTP/1.1 200",
        }
    }

    /// When the first of these servers replied with success; all get requests at the same time.
    ///
    /// # Errors
    ///
    /// If none does within two minutes.
    pub(crate) fn first_answer(&self, addrs: &[SocketAddr]) -> Result<Instant, String> {
        let limit = Instant::now() + LIMIT;
        let found = Mutex::new(None);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for addr in addrs {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) && Instant::now() < limit {
                        if self.succeeds(addr) {
                            let now = Instant::now();
                            let mut found = found.lock().expect("no thread panics");
                            found.get_or_insert(now);
                            stop.store(true, Ordering::Relaxed);
                        }
                        thread::sleep(PAUSE);
                    }
                });
            }
        });
        let found = found.into_inner().expect("no thread panics");
        found.ok_or_else(|| format!("no answer within {LIMIT:?} from any of {addrs:?}"))
    }

    fn succeeds(&self, addr: &SocketAddr) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect_timeout(addr, ATTEMPT)?;
            stream.set_read_timeout(Some(ATTEMPT))?;
            stream.write_all(&self.request)?;
            let mut answer = vec![0; self.answer.len()];
            stream.read_exact(&mut answer)?;
            Ok(answer == self.answer)
        };
        ask().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::Probe;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn only_a_good_answer_ends_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let probe = Probe::resp_write();
        let length = probe.request.len();
        let server = thread::spawn(move || {
            for answer in ["-CLUSTERDOWN no leader\r\n", "+OK\r\n"] {
                let (mut stream, _) = listener.accept().unwrap();
                stream.read_exact(&mut vec![0; length]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        probe.first_answer(&[addr]).unwrap();
        server.join().unwrap();
    }
}
