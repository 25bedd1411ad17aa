//! Free TCP ports on the loopback address.
//!
//! A port must stay the same over a node's restarts, so it is taken from below the range that the
//! kernel hands to outgoing connections: nothing takes it while the node is down.

use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports that the kernel never picks by itself on Linux (its range starts at 32768).
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

/// A port without a listener now, which no other call in this process returns.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Test processes that run at the same time start at different numbers.
    let start = process::id().wrapping_mul(101) % COUNT;
    for _ in 0..COUNT {
        let offset = TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + (start + offset) % COUNT).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port between {FIRST} and {} is free", FIRST + COUNT);
}
