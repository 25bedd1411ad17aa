//! Who has failed to authenticate waits before its next attempt, by address: guessing is slow. Never
//! waits itself.
//!
//! Every attempt from the address waits, also one that will succeed, so that the time tells nothing; attempts
//! wait side by side, so that nobody behind the same address is locked out. Invariant: what is kept is
//! bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use memkv_node::lock::Mutex;
use tokio::time::Instant;

/// The wait after the first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(5);

/// An address that has not failed for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Addresses that are kept; with more, the one that has failed the longest ago is forgotten.
const MAX_ADDRESSES: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    fn delay(&self) -> Duration {
        let doublings = self.count.saturating_sub(1).min(16);
        (FIRST * (1 << doublings)).min(LONGEST)
    }

    fn is_forgotten(&self) -> bool {
        self.last.elapsed() >= FORGOTTEN_AFTER
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

impl Backoff {
    /// How long an attempt from this address waits.
    pub(super) fn delay(&self, addr: IpAddr) -> Duration {
        let failures = self.failures.lock();
        match failures.get(&network(addr)) {
            Some(failures) if !failures.is_forgotten() => failures.delay(),
            _ => Duration::ZERO,
        }
    }

    /// Notes a failure.
    pub(super) fn failed(&self, addr: IpAddr) {
        let mut failures = self.failures.lock();
        let addr = network(addr);
        if failures.len() >= MAX_ADDRESSES && !failures.contains_key(&addr) {
            failures.retain(|_, failures| !failures.is_forgotten());
            let oldest = failures.iter().min_by_key(|(_, failures)| failures.last);
            let oldest = oldest.map(|(addr, _)| *addr);
            if let Some(oldest) = oldest.filter(|_| failures.len() >= MAX_ADDRESSES) {
                failures.remove(&oldest);
            }
        }
        let now = Instant::now();
        let failures = failures.entry(addr).or_insert(Failures {
            count: 0,
            last: now,
        });
        if failures.is_forgotten() {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
    }
}

/// What one attacker has for itself: an address, of IPv6 the network of 64 bits.
fn network(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(addr) => {
            let [a, b, c, d, ..] = addr.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        addr => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wait_doubles_up_to_a_limit_and_ends_with_time() {
        let backoff = Backoff::default();
        let addr = "10.0.0.1".parse().unwrap();
        assert_eq!(backoff.delay(addr), Duration::ZERO);
        let mut delays = Vec::new();
        for _ in 0..8 {
            backoff.failed(addr);
            delays.push(backoff.delay(addr).as_millis());
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.delay("10.0.0.2".parse().unwrap()), Duration::ZERO);
        tokio::time::advance(FORGOTTEN_AFTER).await;
        assert_eq!(backoff.delay(addr), Duration::ZERO);
        backoff.failed(addr);
        assert_eq!(backoff.delay(addr), FIRST);
    }

    #[tokio::test]
    async fn loopback_waits_too_and_a_network_of_ipv6_is_one_address() {
        let backoff = Backoff::default();
        for (failed, waits) in [
            ("127.0.0.1", "::ffff:127.0.0.1"),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::7"),
        ] {
            backoff.failed(failed.parse().unwrap());
            assert_eq!(backoff.delay(waits.parse().unwrap()), FIRST, "{waits}");
        }
        let other = "2001:db8:1:3::1".parse().unwrap();
        assert_eq!(backoff.delay(other), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_bounded() {
        let backoff = Backoff::default();
        for at in 0..MAX_ADDRESSES as u32 + 10 {
            backoff.failed(IpAddr::from(at.to_be_bytes()));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(backoff.failures.lock().len(), MAX_ADDRESSES);
        assert_eq!(backoff.delay(IpAddr::from([0; 4])), Duration::ZERO);
    }
}
