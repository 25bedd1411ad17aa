//! The event loop against the bare server and against servers that misbehave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use memkv_black_box::free_port;

use super::{Keys, LoadError, Measured, Pace, Work, run};
use crate::bare;
use crate::protocol::{HttpClient, Interface, RespClient};

const CONNECTIONS: usize = 3;

/// The bare server, for as long as this process lives.
fn bare_server() -> SocketAddr {
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    thread::spawn(move || bare::serve(addr));
    while std::net::TcpStream::connect(addr).is_err() {
        thread::yield_now();
    }
    addr
}

/// A server of one connection that answers the first bytes; without an answer it closes.
fn server_saying(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 8]).unwrap();
        if !answer.is_empty() {
            stream.write_all(answer).unwrap();
            std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        }
    });
    addr
}

fn work(addr: SocketAddr, pace: Pace, keys: Keys) -> Work {
    Work {
        targets: vec![addr],
        connections: CONNECTIONS,
        depth: 4,
        pace,
        keys,
        reads_percent: 0,
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(200),
    }
}

fn http(work: &Work) -> Measured {
    let client = || HttpClient::new(&Interface::Compat("1".to_owned()), 10);
    let mut marks = 0;
    let measured = run(work, client, || marks += 1).unwrap();
    assert_eq!(marks, 2, "the measured time begins and ends once");
    assert_eq!((measured.failed, measured.unanswered), (0, 0));
    measured
}

#[test]
fn every_key_is_asked_for_once() {
    let addr = bare_server();
    for pace in [Pace::Batch, Pace::Window] {
        let measured = http(&work(addr, pace, Keys::Each(1001)));
        assert_eq!(measured.writes.count(), 1001);
    }
}

#[test]
fn reads_and_writes_are_counted_apart() {
    let mut work = work(bare_server(), Pace::Batch, Keys::Each(1000));
    work.reads_percent = 90;
    let measured = http(&work);
    let (writes, reads) = (measured.writes.count(), measured.reads.count());
    assert_eq!(writes + reads, 1000);
    assert!((50..200).contains(&writes), "{writes} of a thousand");
}

#[test]
fn a_rate_is_kept_and_everything_that_was_due_counts() {
    let rate = Pace::Rate(1000.0);
    let measured = http(&work(bare_server(), rate, Keys::Random(10)));
    // 200 ms at one in a millisecond, however late they were sent or answered.
    assert!((199..=201).contains(&measured.writes.count()));
}

#[test]
fn latency_counts_from_when_a_request_was_due() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // Connects, because the kernel accepts for it, but nothing ever answers.
    let mut work = work(addr, Pace::Rate(100.0), Keys::Random(10));
    work.connections = 1;
    work.depth = 1;
    let began = Instant::now();
    let measured = run(&work, || RespClient::new(10, None), || {}).unwrap();
    // One was sent; the others waited for it, and count too.
    assert!((19..=21).contains(&measured.unanswered));
    assert_eq!(measured.writes.count(), measured.unanswered);
    assert!(measured.writes.quantile(0.0) > Duration::from_millis(1500));
    assert!(measured.writes.quantile(1.0) <= began.elapsed().mul_f64(1.01));
    drop(listener);
}

#[test]
fn a_server_that_goes_or_talks_nonsense_ends_the_run() {
    let mut closing = work(server_saying(b""), Pace::Batch, Keys::Random(10));
    closing.connections = 1;
    let client = || RespClient::new(10, None);
    let outcome = run(&closing, client, || {});
    assert!(
        matches!(
            outcome,
            Err(LoadError::Closed { .. } | LoadError::Socket { .. })
        ),
        "{outcome:?}"
    );
    let mut nonsense = closing.clone();
    nonsense.targets = vec![server_saying(b"HTTP/1.1 400\r\n")];
    let outcome = run(&nonsense, client, || {});
    assert!(
        matches!(outcome, Err(LoadError::Broken { .. })),
        "{outcome:?}"
    );
    let free = SocketAddr::from(([127, 0, 0, 1], free_port()));
    nonsense.targets = vec![free];
    let outcome = run(&nonsense, client, || {});
    assert!(
        matches!(outcome, Err(LoadError::Connect { .. })),
        "{outcome:?}"
    );
}

#[test]
fn failures_are_counted_and_the_first_is_kept() {
    let mut refused = work(server_saying(b"-ERR no\r\n"), Pace::Batch, Keys::Each(1));
    refused.connections = 1;
    let measured = run(&refused, || RespClient::new(10, None), || {}).unwrap();
    assert_eq!((measured.failed, measured.writes.count()), (1, 0));
    assert_eq!(measured.complaint.as_deref(), Some("-ERR no"));
}
