//! Makes a failing context small by leaving parts out, as in delta debugging (Zeller and
//! Hildebrandt, 2002). Never changes the last part, and never the order.

use std::time::{Duration, Instant};

/// Time for trials: a mismatch may be a reply that never arrives.
const LIMIT: Duration = Duration::from_secs(120);

/// The smallest list found, within the time limit, of which `fails` still holds; the whole one where
/// it does not fail a second time.
pub(crate) fn shrink<T: Clone>(parts: Vec<T>, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let deadline = Instant::now() + LIMIT;
    if !fails(&parts) {
        return parts;
    }
    let mut kept = parts;
    let mut chunk = kept.len().div_ceil(2);
    loop {
        let before = kept.len();
        let mut start = 0;
        while start < kept.len() && Instant::now() < deadline {
            let end = kept.len().min(start + chunk);
            let trial = [&kept[..start], &kept[end..]].concat();
            if !trial.is_empty() && fails(&trial) {
                kept = trial;
            } else {
                start = end;
            }
        }
        let removed_nothing = kept.len() == before;
        if Instant::now() >= deadline || (chunk == 1 && removed_nothing) {
            return kept;
        }
        chunk = chunk.div_ceil(2);
    }
}

#[cfg(test)]
mod tests {
    use super::shrink;

    #[test]
    fn only_what_is_needed_stays() {
        let parts: Vec<u32> = (0..1000).collect();
        let needed = [17, 400, 401, 999];
        let fails = |trial: &[u32]| needed.iter().all(|part| trial.contains(part));
        assert_eq!(shrink(parts, fails), needed);
    }

    #[test]
    fn what_does_not_fail_again_stays_whole() {
        assert_eq!(shrink(vec![1, 2, 3], |_| false), [1, 2, 3]);
    }
}
