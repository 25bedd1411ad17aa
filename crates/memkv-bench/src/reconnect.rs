//! All clients at once: thousands of connections are closed, connect again and authenticate, while one other client
//! reads. How long that takes, and what it costs the other client.
//!
//! The connections are opened from one thread that never blocks. One that the node closes or refuses is opened again,
//! and counted.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use memkv_black_box::allow_files;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::load::Histogram;
use crate::run::positive;
use crate::statistics::Spread;
use crate::system::Memkv;

const AUTH: &[u8] = b"*3\r\n$4\r\nAUTH\r\n$6\r\nclient\r\n$6\r\nsecret\r\n";
const SET_USER: &[u8] =
    b"*7\r\n$3\r\nACL\r\n$7\r\nSETUSER\r\n$6\r\nclient\r\n$2\r\non\r\n$7\r\n>secret\r\n$2\r\n~*\r\n$5\r\n+@all\r\n";
/// From now on a connection is none of a client's before it has authenticated.
const SET_PASSWORD: &[u8] =
    b"*5\r\n$3\r\nACL\r\n$7\r\nSETUSER\r\n$7\r\ndefault\r\n$9\r\nresetpass\r\n$7\r\n>others\r\n";
const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
const OK: &[u8] = b"+OK\r\n";
const NIL: &[u8] = b"$-1\r\n";

/// The time of the other client alone.
const ALONE: Duration = Duration::from_secs(2);
/// Longer than the connections take on a slow machine.
const LIMIT: Duration = Duration::from_secs(120);
/// Descriptors for everything else.
const SPARE: u64 = 200;

#[derive(Args)]
pub(crate) struct Options {
    /// Connections. With the other client and an operator they are all that a node admits by default.
    #[arg(long, default_value_t = 9_998, value_parser = positive)]
    connections: usize,
    /// Rounds, after a first one that does not count.
    #[arg(long, default_value_t = 3, value_parser = positive)]
    times: usize,
}

/// Prints a line for each round, and the medians.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    // The node has as many as this process.
    let descriptors = options.connections as u64 + SPARE;
    if !allow_files(descriptors) {
        return Err(format!(
            "this needs {descriptors} descriptors, and fewer are allowed"
        ));
    }
    let system = Memkv::start(1, "sync");
    let addr = system.addr(0);
    let failed = |error: std::io::Error| format!("{addr}: {error}");
    let mut operator = connect(addr).map_err(failed)?;
    for request in [SET_USER, SET_PASSWORD] {
        ask(&mut operator, request, OK).map_err(failed)?;
    }
    let mut open = reconnect(addr, options.connections)?.open;
    let (mut times, mut alone, mut beside) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.times {
        let before = reads(addr, || std::thread::sleep(ALONE)).map_err(failed)?.0;
        open.clear();
        let (during, again) =
            reads(addr, || reconnect(addr, options.connections)).map_err(failed)?;
        let again = again?;
        println!(
            "{} connections in {:.2} s, opened again {} times; GET of another client, p50 and p99: \
             {:.3} and {:.3} ms alone, {:.3} and {:.3} ms meanwhile",
            options.connections,
            again.took.as_secs_f64(),
            again.closed,
            millis(&before, 0.5),
            millis(&before, 0.99),
            millis(&during, 0.5),
            millis(&during, 0.99),
        );
        times.push(again.took.as_secs_f64());
        alone.push(millis(&before, 0.99));
        beside.push(millis(&during, 0.99));
        open = again.open;
    }
    let median = |all: &[f64]| Spread::of(all).median;
    println!(
        "medians: {:.2} s; p99 {:.3} ms meanwhile, {:.1} times that of the client alone",
        median(&times),
        median(&beside),
        median(&beside) / median(&alone)
    );
    Ok(())
}

fn millis(latencies: &Histogram, share: f64) -> f64 {
    latencies.quantile(share).as_secs_f64() * 1e3
}

fn connect(addr: SocketAddr) -> std::io::Result<std::net::TcpStream> {
    let stream = std::net::TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

fn ask(stream: &mut std::net::TcpStream, request: &[u8], wanted: &[u8]) -> std::io::Result<()> {
    stream.write_all(request)?;
    let mut reply = vec![0; wanted.len()];
    stream.read_exact(&mut reply)?;
    match reply == wanted {
        true => Ok(()),
        false => Err(std::io::Error::other(
            String::from_utf8_lossy(&reply).into_owned(),
        )),
    }
}

/// The latencies of one client's reads while something else happens.
fn reads<T>(addr: SocketAddr, meanwhile: impl FnOnce() -> T) -> std::io::Result<(Histogram, T)> {
    let mut stream = connect(addr)?;
    ask(&mut stream, AUTH, OK)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut latencies = Histogram::default();
            while !stop.load(Ordering::Relaxed) {
                let sent = Instant::now();
                ask(&mut stream, GET, NIL)?;
                latencies.add(sent.elapsed());
            }
            Ok(latencies)
        });
        let result = meanwhile();
        stop.store(true, Ordering::Relaxed);
        let latencies = reader
            .join()
            .map_err(|_| std::io::Error::other("the reader panicked"))?;
        latencies.map(|latencies: Histogram| (latencies, result))
    })
}

/// Connections that are open and authenticated.
struct Again {
    open: Vec<TcpStream>,
    took: Duration,
    closed: usize,
}

/// Opens so many connections, all at once, and authenticates each.
fn reconnect(addr: SocketAddr, connections: usize) -> Result<Again, String> {
    let failed = |error: std::io::Error| format!("{addr}: {error}");
    let mut poll = Poll::new().map_err(failed)?;
    let begun = Instant::now();
    let start = |poll: &Poll, number: usize| {
        let mut stream = TcpStream::connect(addr)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(&mut stream, Token(number), interest)?;
        Ok(stream)
    };
    let all = (0..connections).map(|number| start(&poll, number));
    let mut open: Vec<TcpStream> = all.collect::<std::io::Result<_>>().map_err(failed)?;
    let mut asked = vec![false; connections];
    let (mut left, mut closed, mut complaint) = (connections, 0, String::new());
    let mut events = Events::with_capacity(1024);
    while left > 0 {
        poll.poll(&mut events, Some(LIMIT)).map_err(failed)?;
        if begun.elapsed() > LIMIT {
            return Err(format!(
                "{left} of {connections} connections are not open after {LIMIT:?}; {complaint}"
            ));
        }
        for event in &events {
            let Token(number) = event.token();
            match step(&mut open[number], &mut asked[number]) {
                Ok(is_done) => left -= usize::from(is_done),
                Err(error) => {
                    (closed, complaint) = (closed + 1, error.to_string());
                    asked[number] = false;
                    open[number] = start(&poll, number).map_err(failed)?;
                }
            }
        }
    }
    Ok(Again {
        open,
        took: begun.elapsed(),
        closed,
    })
}

/// Sends the request once the connection is open, and reads the answer; whether that has come.
fn step(stream: &mut TcpStream, asked: &mut bool) -> std::io::Result<bool> {
    let wait = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::NotConnected => Ok(false),
        _ => Err(error),
    };
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    if !*asked {
        match stream.write(AUTH) {
            Ok(written) if written == AUTH.len() => *asked = true,
            Ok(_) => return Err(std::io::Error::other("the request was sent in part")),
            Err(error) => return wait(error),
        }
    }
    let mut reply = [0; 64];
    match stream.read(&mut reply) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(read) if reply.get(..read) == Some(OK) => Ok(true),
        Ok(read) => {
            let text = String::from_utf8_lossy(reply.get(..read).unwrap_or_default()).into_owned();
            Err(std::io::Error::other(text))
        }
        Err(error) => wait(error),
    }
}
