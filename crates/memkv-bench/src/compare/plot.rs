//! A plot of the page: throughput against latency, a line of medians and one of 99th percentiles
//! for each system.

use super::rows::{Figure, Plot};
use super::svg::{Chart, Series};
use super::{Measures, SWEEP};

/// Colours that differ for colour-blind readers too (Okabe and Ito's palette).
const COLOURS: [&str; 3] = ["#0072b2", "#d55e00", "#009e73"];

/// The picture.
pub(super) fn draw(plot: &Plot, points: &[(usize, Measures)]) -> String {
    let mut series = Vec::new();
    for (run, colour) in plot.runs.iter().zip(COLOURS) {
        for (figure, name, dashed) in [(Figure::P50, "p50", false), (Figure::P99, "p99", true)] {
            let all = points.iter().map(|(_, measures)| {
                let median = |figure| measures.spread(run.label, figure).median;
                (median(Figure::Rate), median(figure))
            });
            series.push(Series {
                name: format!("{}, {name}", run.label),
                colour,
                dashed,
                points: all
                    .filter(|(rate, latency)| *rate > 0.0 && *latency > 0.0)
                    .collect(),
            });
        }
    }
    let connections: Vec<String> = SWEEP.iter().map(usize::to_string).collect();
    Chart {
        title: plot.title.to_owned(),
        x: format!(
            "operations per second, with {} connections",
            connections.join(", ")
        ),
        y: "latency, ms".to_owned(),
        series,
    }
    .svg()
}
