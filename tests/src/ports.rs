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

/// Which part of the ports this process may use, and of how many: `0/2`. Programs that run beside each other get
/// one each, so that none takes the port of a node that is down.
const SHARE: &str = "MEMKV_PORTS_SHARE";

/// A port without a listener now, which no other call in this process returns.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let (share, of) = match std::env::var(SHARE) {
        Ok(text) => {
            let (share, of) = text.split_once('/').expect("share/of");
            (share.parse().unwrap(), of.parse().unwrap())
        }
        Err(_) => (0, 1),
    };
    let count = COUNT / of;
    // Processes without a share that run at the same time start at different numbers.
    let start = process::id().wrapping_mul(101) % count;
    for _ in 0..count {
        let offset = TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + share * count + (start + offset) % count;
        let port = u16::try_from(port).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!(
        "no port of share {share} of {of} from {FIRST} to {} is free",
        FIRST + COUNT
    );
}
