//! The rows that are times and not rates: failover, restart, a wiped follower.

use serde_json::{Value, json};

use super::Options;
use crate::failover::{self, Failover};
use crate::restart;
use crate::statistics::Spread;

/// A time that was measured several times.
pub(super) struct Timed {
    pub(super) title: &'static str,
    pub(super) system: &'static str,
    pub(super) seconds: Vec<f64>,
    /// The most that the median, and every single one, may be.
    pub(super) median_most: Option<f64>,
    pub(super) each_most: Option<f64>,
}

impl Timed {
    pub(super) fn spread(&self) -> Spread {
        Spread::of(&self.seconds)
    }

    /// Whether it is within its limits; `None` if it has none.
    pub(super) fn holds(&self) -> Option<bool> {
        let spread = self.spread();
        let within = |value: f64, most: Option<f64>| most.is_none_or(|most| value <= most);
        (self.median_most.is_some() || self.each_most.is_some())
            .then(|| within(spread.median, self.median_most) && within(spread.high, self.each_most))
    }

    pub(super) fn json(&self) -> Value {
        json!({ "title": self.title, "system": self.system, "seconds": self.seconds })
    }
}

const FAILOVER: &str = "kill -9 of the leader to the first acknowledged write, defaults";
const RESTART: &str = "restart of a follower with a million keys, to serving";
const RESTART_ALL: &str = "restart of all three nodes with a million keys, to serving";
const WIPED: &str = "wiped follower with a million keys, from its admission to in sync";

/// Measures those that are wanted.
pub(super) fn measure(
    options: &Options,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Timed>, String> {
    let mut times = Vec::new();
    if wanted(FAILOVER) {
        println!("\n{FAILOVER}");
        for (which, system, median_most, each_most) in [
            (Failover::Memkv, "memkv", Some(0.7), Some(1.5)),
            (Failover::Etcd, "etcd", None, None),
        ] {
            times.push(Timed {
                title: FAILOVER,
                system,
                seconds: failover::trials(which, options.trials)?,
                median_most,
                each_most,
            });
        }
    }
    if [RESTART, RESTART_ALL, WIPED]
        .iter()
        .any(|title| wanted(title))
    {
        println!("\n{RESTART}; of all; {WIPED}");
        let found = restart::trials(options.keys, options.times)?;
        for (title, seconds, most) in [
            (RESTART, found.follower, 0.7),
            (RESTART_ALL, found.cluster, 0.7),
            (WIPED, found.wiped, 1.5),
        ] {
            times.push(Timed {
                title,
                system: "memkv",
                seconds,
                median_most: Some(most),
                each_most: None,
            });
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::Timed;

    #[test]
    fn limits_are_of_the_median_and_of_each() {
        let mut timed = Timed {
            title: "",
            system: "",
            seconds: vec![0.5, 0.6, 1.4],
            median_most: Some(0.7),
            each_most: Some(1.5),
        };
        assert_eq!(timed.holds(), Some(true));
        timed.each_most = Some(1.3);
        assert_eq!(timed.holds(), Some(false));
        (timed.median_most, timed.each_most) = (None, None);
        assert_eq!(timed.holds(), None);
    }
}
