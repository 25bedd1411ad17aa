//! The network between the nodes of a cluster, under a test's control: the traffic of the peers goes
//! through small TCP proxies. A client reaches the node itself.
//!
//! A node that is cut off is as one whose cable was pulled: no byte passes in either direction, no
//! connection is made, none ends. The kernel still acknowledges sent bytes, so no node learns of it
//! but by waiting for answers.
//!
//! Never reads the traffic, but for the name of the node that opens a connection.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// The header with a node's name when it opens a connection to a peer.
const FROM: &str = "x-memkv-from:";

/// Longer than the head of any request between peers.
const HEAD_MAX: usize = 16 * 1024;

/// Bytes that are taken from a connection at once.
const CHUNK: usize = 64 * 1024;

/// Treatment of the bytes that were in flight when a node was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delayed {
    /// They arrive, late, and their connections go on.
    Arrive,
    /// They are lost, and their connections end: the kernel gave up sending them again.
    Lost,
}

/// The proxies, and the nodes that are cut off.
#[derive(Default)]
pub struct Partition {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Ids of nodes.
    cut_off: BTreeSet<String>,
    /// Pairs of ids, each in order.
    apart: BTreeSet<[String; 2]>,
    /// How often bytes in flight were lost.
    losses: u64,
}

impl Partition {
    /// Opens a proxy for the node that listens on `addr`; where its peers reach it. The proxy lives
    /// as long as the test's process.
    pub fn proxy(&self, id: &str, addr: &str) -> String {
        let listener = TcpListener::bind(("127.0.0.1", crate::free_port())).unwrap();
        let told = listener.local_addr().unwrap().to_string();
        let (shared, id, addr) = (Arc::clone(&self.shared), id.to_owned(), addr.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, id, addr) = (Arc::clone(&shared), id.clone(), addr.clone());
                // A connection that fails is one that ends.
                thread::spawn(move || connect(&shared, &stream.ok()?, &id, &addr));
            }
        });
        told
    }

    /// From now on nothing passes between this node and its peers.
    pub fn cut_off(&self, id: &str) {
        self.shared
            .state
            .lock()
            .unwrap()
            .cut_off
            .insert(id.to_owned());
    }

    /// From now on nothing passes between these two, while others reach both.
    pub fn part(&self, one: &str, other: &str) {
        self.shared
            .state
            .lock()
            .unwrap()
            .apart
            .insert(pair(one, other));
    }

    /// They reach each other again; bytes in flight arrive.
    pub fn join(&self, one: &str, other: &str) {
        let mut state = self.shared.state.lock().unwrap();
        state.apart.remove(&pair(one, other));
        self.shared.changed.notify_all();
    }

    /// The cable is back.
    pub fn heal(&self, id: &str, delayed: Delayed) {
        let mut state = self.shared.state.lock().unwrap();
        state.cut_off.remove(id);
        state.losses += u64::from(delayed == Delayed::Lost);
        self.shared.changed.notify_all();
    }
}

fn pair(one: &str, other: &str) -> [String; 2] {
    let mut pair = [one.to_owned(), other.to_owned()];
    pair.sort();
    pair
}

impl State {
    fn holds_back(&self, ends: &[String; 2]) -> bool {
        ends.iter().any(|id| self.cut_off.contains(id))
            || self.apart.contains(&pair(&ends[0], &ends[1]))
    }
}

impl Shared {
    /// Waits while one of the two nodes is cut off; whether the connection between them lives on.
    fn passes(&self, ends: &[String; 2]) -> bool {
        let mut state = self.state.lock().unwrap();
        let losses = state.losses;
        while state.holds_back(ends) {
            state = self.changed.wait(state).unwrap();
        }
        state.losses == losses
    }
}

/// Carries a connection to the node `id` at `addr` until it ends; nothing if it cannot be made.
fn connect(shared: &Shared, dialler: &TcpStream, id: &str, addr: &str) -> Option<()> {
    let head = read_head(dialler)?;
    let ends = [sender(&head)?, id.to_owned()];
    if !shared.passes(&ends) {
        return None;
    }
    let node = TcpStream::connect(addr).ok()?;
    for stream in [dialler, &node] {
        stream.set_nodelay(true).ok()?;
    }
    (&node).write_all(&head).ok()?;
    thread::scope(|both| {
        both.spawn(|| pass(shared, &node, dialler, &ends));
        pass(shared, dialler, &node, &ends);
    });
    Some(())
}

/// Carries one direction, and ends both when it ends: a node closes its connections whole.
fn pass(shared: &Shared, mut from: &TcpStream, mut to: &TcpStream, ends: &[String; 2]) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).unwrap_or(0);
        if !shared.passes(ends) || read == 0 || to.write_all(&chunk[..read]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        // It may have ended already.
        drop(stream.shutdown(Shutdown::Both));
    }
}

/// A request's head, up to and with its empty line.
fn read_head(mut stream: &TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
        if head.len() > HEAD_MAX {
            return None;
        }
    }
    Some(head)
}

/// The node that sends it.
fn sender(head: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    head.lines().find_map(|line| {
        let (name, value) = line.split_at_checked(FROM.len())?;
        let says = name.eq_ignore_ascii_case(FROM);
        says.then(|| value.trim().to_owned())
    })
}
