//! A proxy that keeps all bytes that pass, in both directions.
//! Never changes one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A proxy before one address, which keeps what passes in both directions.
pub struct Wiretap {
    /// Where it listens.
    pub addr: String,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Wiretap {
    /// A proxy to `target`; it lives as long as the test's process.
    pub fn new(target: &str) -> Wiretap {
        let listener = TcpListener::bind(("127.0.0.1", crate::free_port())).unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (target, kept) = (target.to_owned(), Arc::clone(&seen));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A target that is down ends the connection, as without a proxy.
                let Ok(server) = TcpStream::connect(&target) else {
                    continue;
                };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let kept = Arc::clone(&kept);
                    thread::spawn(move || pass(&from, &to, &kept));
                }
            }
        });
        Wiretap { addr, seen }
    }

    /// Forgets what has passed.
    pub fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    /// How many bytes have passed.
    pub fn bytes(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Whether these bytes have passed in clear.
    pub fn saw(&self, bytes: &[u8]) -> bool {
        let seen = self.seen.lock().unwrap();
        seen.windows(bytes.len()).any(|window| window == bytes)
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, kept: &Mutex<Vec<u8>>) {
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut chunk) {
        kept.lock().unwrap().extend_from_slice(&chunk[..read]);
        if to.write_all(&chunk[..read]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        // It may have ended already.
        drop(stream.shutdown(Shutdown::Both));
    }
}
