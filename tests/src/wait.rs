//! Waiting for conditions. A test never sleeps and hopes: it checks until the condition holds or the
//! deadline has passed, and then it fails with what it waited for.

use std::thread;
use std::time::{Duration, Instant};

/// Interval between two checks of a condition: short against anything that a cluster does, long against
/// the cost of a check.
const POLL: Duration = Duration::from_millis(20);

/// Asks `condition` until it gives a value, and panics with `what` when `limit` has passed.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, condition: impl FnMut() -> Option<T>) -> T {
    match poll(limit, condition) {
        Some(value) => value,
        None => panic!("not within {limit:?}: {what}"),
    }
}

/// Asks `condition` until it gives a value; `None` when `limit` has passed.
pub(crate) fn poll<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(POLL);
    }
}

/// Runs `act` and panics if it took longer than `limit`.
#[track_caller]
pub fn within<T>(what: &str, limit: Duration, act: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let value = act();
    let took = started.elapsed();
    assert!(
        took <= limit,
        "{what} took {took:?}, the limit is {limit:?}"
    );
    value
}
