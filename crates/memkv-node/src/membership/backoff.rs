//! How often nodes of one new name are admitted: each admission is an entry of the log and a seat, and a node
//! that dies on its way asks again under another nonce each time.
//!
//! Never keeps the same request from being repeated. Invariant: at most [`MAX_MEMBERS`] names are remembered.

use std::collections::BTreeMap;
use std::time::Duration;

use memkv_store::MAX_MEMBERS;
use tokio::time::Instant;

use crate::sync::lock::Mutex;

/// The pause after the first admission of a name. It doubles with each one, up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause; a name that was not admitted for ten times as long begins anew.
const LONGEST: Duration = Duration::from_secs(10);

/// The last admission of a name.
#[derive(Debug, Clone, Copy)]
struct Last {
    nonce: u64,
    at: Instant,
    pause: Duration,
}

/// The last admissions by this leader.
#[derive(Debug, Default)]
pub(crate) struct Backoff(Mutex<BTreeMap<String, Last>>);

impl Backoff {
    /// Whether a node of this name may be admitted now; notes that it is.
    ///
    /// # Errors
    ///
    /// When it may be admitted.
    pub(crate) fn check(&self, name: &str, nonce: u64) -> Result<(), String> {
        let mut names = self.0.lock();
        let now = Instant::now();
        names.retain(|_, last| now.duration_since(last.at) < LONGEST * 10);
        let pause = match names.get(name) {
            Some(last) if last.nonce == nonce => return Ok(()),
            Some(last) => {
                let left = (last.at + last.pause).saturating_duration_since(now);
                if !left.is_zero() {
                    return Err(format!(
                        "a node named {name} was admitted a moment ago, and asks as another process again: it \
                         may come in {} s",
                        left.as_secs() + 1
                    ));
                }
                (last.pause * 2).min(LONGEST)
            }
            None => FIRST,
        };
        if names.len() >= MAX_MEMBERS && !names.contains_key(name) {
            let oldest = names.iter().min_by_key(|(_, last)| last.at);
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.and_then(|oldest| names.remove(&oldest));
        }
        let last = Last {
            nonce,
            at: now,
            pause,
        };
        names.insert(name.to_owned(), last);
        Ok(())
    }

    /// Whether this very process was the last one of its name to be admitted.
    pub(crate) fn is_known(&self, name: &str, nonce: u64) -> bool {
        let names = self.0.lock();
        names.get(name).is_some_and(|last| last.nonce == nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_name_is_admitted_ever_more_seldom_and_a_request_may_be_repeated() {
        let backoff = Backoff::default();
        for (nonce, pause) in (1..).zip([1u64, 2, 4, 8, 10, 10]) {
            assert_eq!(backoff.check("n4", nonce), Ok(()));
            assert_eq!(backoff.check("n4", nonce), Ok(()), "the same request");
            assert!(backoff.is_known("n4", nonce) && !backoff.is_known("n4", nonce + 1));
            tokio::time::advance(Duration::from_secs(pause) - Duration::from_millis(1)).await;
            let refused = backoff.check("n4", nonce + 1).unwrap_err();
            assert!(refused.contains("may come in 1 s"), "{refused}");
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(backoff.check("n5", 1), Ok(()), "another name");
    }

    #[tokio::test(start_paused = true)]
    async fn the_names_are_bounded() {
        let backoff = Backoff::default();
        for name in 0..MAX_MEMBERS * 2 {
            assert_eq!(backoff.check(&name.to_string(), 1), Ok(()));
        }
        assert_eq!(backoff.0.lock().len(), MAX_MEMBERS);
    }
}
