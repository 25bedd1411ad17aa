//! Prometheus's text format, version 0.0.4: a line with the help, one with the type, then the
//! samples of that metric, and then the next metric.

use std::fmt::{Display, Write as _};

use memkv_metrics::Counted;

use super::Seen;
use super::table::{Metric, Samples};

/// Nanoseconds of a second.
const NANOS: f64 = 1e9;

/// All metrics with their samples. One that has no samples now is left out.
pub(super) fn write(metrics: &[Metric], seen: &Seen<'_>) -> String {
    let mut text = String::with_capacity(16 * 1024);
    for metric in metrics {
        let samples = (metric.read)(seen);
        let is_empty = match &samples {
            Samples::Each(_, each) => each.is_empty(),
            Samples::Maybe(value) => value.is_none(),
            _ => false,
        };
        if is_empty {
            continue;
        }
        let Metric { name, help, .. } = metric;
        let kind = metric.kind.name();
        put(
            &mut text,
            format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"),
        );
        write_samples(&mut text, name, samples);
    }
    text
}

fn write_samples(text: &mut String, name: &str, samples: Samples) {
    match samples {
        Samples::One(value) | Samples::Maybe(Some(value)) => {
            put(text, format_args!("{name} {value}\n"));
        }
        Samples::Maybe(None) => {}
        Samples::Each(label, each) => {
            for (of, value) in each {
                let labels = labelled(label, &of);
                put(text, format_args!("{name}{{{labels}}} {value}\n"));
            }
        }
        Samples::Seconds(counted) => histogram(text, name, "", &counted, NANOS),
        Samples::Sizes(counted) => histogram(text, name, "", &counted, 1.0),
        Samples::EachSeconds(label, each) => {
            for (of, counted) in each {
                histogram(text, name, &labelled(label, of), &counted, NANOS);
            }
        }
    }
}

fn histogram(text: &mut String, name: &str, labels: &str, counted: &Counted, unit: f64) {
    let comma = if labels.is_empty() { "" } else { "," };
    let bounds = counted.bounds.iter().map(|bound| *bound as f64 / unit);
    let bounds = bounds.map(|bound| bound.to_string());
    let bounds = bounds.chain(["+Inf".to_owned()]);
    for (bound, at_most) in bounds.zip(&counted.at_most) {
        put(
            text,
            format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {at_most}\n"),
        );
    }
    let braced = if labels.is_empty() {
        String::new()
    } else {
        format!("{{{labels}}}")
    };
    let sum = counted.sum as f64 / unit;
    let count = counted.at_most.last().copied().unwrap_or(0);
    put(
        text,
        format_args!("{name}_sum{braced} {sum}\n{name}_count{braced} {count}\n"),
    );
}

/// A label and its value, escaped.
fn labelled(label: &str, value: &str) -> String {
    let value = value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("{label}=\"{value}\"")
}

fn put(text: &mut String, what: impl Display) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use memkv_metrics::Histogram;

    #[test]
    fn samples_look_as_the_format_demands() {
        let shown = |samples| {
            let mut text = String::new();
            write_samples(&mut text, "m", samples);
            text
        };
        assert_eq!(shown(Samples::One(18_446_744.0)), "m 18446744\n");
        assert_eq!(shown(Samples::One(0.25)), "m 0.25\n");
        let each = vec![("a\"\\\n".to_owned(), 1.0)];
        assert_eq!(shown(Samples::Each("l", each)), "m{l=\"a\\\"\\\\\\n\"} 1\n");
        let durations = Histogram::of_durations();
        durations.count(20_000, 2);
        let text = shown(Samples::EachSeconds("c", vec![("r", durations.counted())]));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "m_bucket{c=\"r\",le=\"0.00001\"} 0");
        assert_eq!(lines[1], "m_bucket{c=\"r\",le=\"0.000025\"} 2");
        let end = [
            "m_bucket{c=\"r\",le=\"+Inf\"} 2",
            "m_sum{c=\"r\"} 0.00004",
            "m_count{c=\"r\"} 2",
        ];
        assert_eq!(lines[lines.len() - 3..], end);
        let sizes = Histogram::of_sizes();
        sizes.count(3, 1);
        let text = shown(Samples::Sizes(sizes.counted()));
        assert!(text.contains("m_bucket{le=\"2\"} 0\nm_bucket{le=\"4\"} 1\n"));
        assert!(text.ends_with("m_sum 3\nm_count 1\n"));
    }
}
