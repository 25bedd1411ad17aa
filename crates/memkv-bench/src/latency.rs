//! Latencies of one run, kept whole: a run has at most some millions, and sorting them once is
//! exact where buckets would round.

use std::time::Duration;

/// Latencies in microseconds.
#[derive(Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    /// Adds one.
    pub(crate) fn add(&mut self, latency: Duration) {
        self.0
            .push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    /// Adds those of another connection.
    pub(crate) fn merge(&mut self, other: Latencies) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Sorts; [`Latencies::quantile_ms`] is right after this only.
    pub(crate) fn sort(&mut self) {
        self.0.sort_unstable();
    }

    /// The latency in milliseconds below which a share of all lies; 0 if there are none.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let place = (self.0.len() as f64 * share) as usize;
        let micros = self.0.get(place.min(self.0.len().saturating_sub(1)));
        micros.map_or(0.0, |micros| f64::from(*micros) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Latencies;
    use std::time::Duration;

    #[test]
    fn quantiles_are_those_of_the_sorted_list() {
        let mut latencies = Latencies::default();
        for micros in (1..=1000).rev() {
            latencies.add(Duration::from_micros(micros));
        }
        latencies.sort();
        assert!((latencies.quantile_ms(0.5) - 0.501).abs() < 1e-9);
        assert!((latencies.quantile_ms(0.99) - 0.991).abs() < 1e-9);
        assert!((latencies.quantile_ms(1.0) - 1.0).abs() < 1e-9);
        assert!(Latencies::default().quantile_ms(0.5).abs() < 1e-9);
    }
}
