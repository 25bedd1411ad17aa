//! Numbers that a test takes from its environment.

use std::time::{SystemTime, UNIX_EPOCH};

/// A variable's number; `None` where it is not set.
#[track_caller]
pub fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is not a number: {text:?}")))
}

/// The seed of a test's random choices: the variable's number, or another one in each run. It
/// is printed, so that a failing run's choices can be repeated.
#[track_caller]
pub fn seed(name: &str) -> u64 {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = setting(name).unwrap_or(u64::from(clock.subsec_nanos()));
    eprintln!("same choices again with {name}={seed}");
    seed
}
