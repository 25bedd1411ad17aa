//! A line chart with two logarithmic axes as SVG. Independent of the data that it shows.

/// Size of the picture and of the room around the plot.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 92.0;
const BOTTOM: f64 = 56.0;

/// A chart.
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x: String,
    pub(super) y: String,
    pub(super) series: Vec<Series>,
}

/// One line, and how it looks.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) colour: &'static str,
    pub(super) dashed: bool,
    /// Values are positive.
    pub(super) points: Vec<(f64, f64)>,
}

/// A logarithmic axis from one tick to another.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    low: f64,
    high: f64,
    /// Where these are in the picture.
    from: f64,
    to: f64,
}

impl Scale {
    /// The narrowest one from tick to tick that holds all values.
    fn around(values: impl Iterator<Item = f64> + Clone, (from, to): (f64, f64)) -> Scale {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(0.0, f64::max);
        let (least, most) = if least <= most {
            (least, most)
        } else {
            (1.0, 10.0)
        };
        let low = ticks_from(least / 10.0).take_while(|tick| *tick <= least * (1.0 + 1e-9));
        let low = low.last().unwrap_or(least);
        let above = low * (1.0 + 1e-9);
        let high = ticks_from(most).find(|tick| *tick >= most * (1.0 - 1e-9) && *tick > above);
        Scale {
            low,
            high: high.unwrap_or(most),
            from,
            to,
        }
    }

    fn position(&self, value: f64) -> f64 {
        let share = (value / self.low).ln() / (self.high / self.low).ln();
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        let high = self.high * (1.0 + 1e-9);
        let low = self.low * (1.0 - 1e-9);
        let ticks = ticks_from(self.low).take_while(|tick| *tick <= high);
        ticks.filter(|tick| *tick >= low).collect()
    }
}

/// 1, 2 and 5 times the powers of ten, from the power below `value` on.
fn ticks_from(value: f64) -> impl Iterator<Item = f64> {
    let power = value.log10().floor() as i32;
    (power..).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
}

/// A tick's number: `0.5`, `20`, `50k`, `1M`.
fn label(value: f64) -> String {
    let shown = |value: f64| {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match value {
        _ if value >= 1e6 => format!("{}M", shown(value / 1e6)),
        _ if value >= 1e3 => format!("{}k", shown(value / 1e3)),
        _ => shown(value),
    }
}

impl Chart {
    /// The picture.
    pub(super) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| series.points.iter());
        let x = Scale::around(points().map(|point| point.0), (LEFT, WIDTH - RIGHT));
        let y = Scale::around(points().map(|point| point.1), (HEIGHT - BOTTOM, TOP));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#333\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
        );
        self.frame(&mut svg, &x, &y);
        self.legend(&mut svg);
        for series in &self.series {
            line(&mut svg, series, &x, &y);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn frame(&self, svg: &mut String, x: &Scale, y: &Scale) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        text(
            svg,
            (LEFT, 28.0),
            "start",
            "font-size=\"17\" font-weight=\"600\"",
            &self.title,
        );
        for tick in x.ticks() {
            let at = x.position(tick);
            rule(svg, (at, TOP), (at, bottom));
            text(svg, (at, bottom + 20.0), "middle", "", &label(tick));
        }
        for tick in y.ticks() {
            let at = y.position(tick);
            rule(svg, (LEFT, at), (right, at));
            text(svg, (LEFT - 8.0, at + 4.5), "end", "", &label(tick));
        }
        let middle = (LEFT + right) / 2.0;
        text(svg, (middle, HEIGHT - 12.0), "middle", "", &self.x);
        let middle = (TOP + bottom) / 2.0;
        let turned = format!("transform=\"rotate(-90 16 {middle})\"");
        text(svg, (16.0, middle), "middle", &turned, &self.y);
    }

    /// Names beside a piece of each line, in rows of three below the title.
    fn legend(&self, svg: &mut String) {
        let column = (WIDTH - LEFT - RIGHT) / 3.0;
        let rows = self.series.len().div_ceil(3).max(1);
        for (index, series) in self.series.iter().enumerate() {
            let at = LEFT + column * (index / rows) as f64;
            let down = 50.0 + 20.0 * (index % rows) as f64;
            stroke(svg, series, &format!("M{at:.1} {:.1}h28", down - 4.5));
            text(svg, (at + 36.0, down), "start", "", &series.name);
        }
    }
}

fn line(svg: &mut String, series: &Series, x: &Scale, y: &Scale) {
    let mut path = String::new();
    for (index, point) in series.points.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        let (at, down) = (x.position(point.0), y.position(point.1));
        path.push_str(&format!("{command}{at:.1} {down:.1}"));
    }
    stroke(svg, series, &path);
    for point in &series.points {
        let (at, down) = (x.position(point.0), y.position(point.1));
        let colour = series.colour;
        let fill = if series.dashed { "#fff" } else { colour };
        svg.push_str(&format!(
            "<circle cx=\"{at:.1}\" cy=\"{down:.1}\" r=\"3.5\" fill=\"{fill}\" stroke=\"{colour}\" \
             stroke-width=\"1.5\"/>\n"
        ));
    }
}

fn stroke(svg: &mut String, series: &Series, path: &str) {
    let dash = if series.dashed {
        " stroke-dasharray=\"6 4\""
    } else {
        ""
    };
    svg.push_str(&format!(
        "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"{dash}/>\n",
        series.colour
    ));
}

fn rule(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    svg.push_str(&format!(
        "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"#e2e2e2\"/>\n",
        from.0, from.1, to.0, to.1
    ));
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, more: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    svg.push_str(&format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" {more}>{words}</text>\n",
        at.0, at.1
    ));
}

#[cfg(test)]
mod tests {
    use super::{Chart, Scale, Series, label};

    fn scale(values: &[f64]) -> Scale {
        Scale::around(values.iter().copied(), (0.0, 100.0))
    }

    #[test]
    fn a_scale_goes_from_tick_to_tick_around_its_values() {
        let found = scale(&[3.0, 700.0]);
        assert!((found.low - 2.0).abs() < 1e-9 && (found.high - 1000.0).abs() < 1e-9);
        let wanted = [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
        let ticks = found.ticks();
        assert_eq!(ticks.len(), wanted.len(), "{ticks:?}");
        for (tick, wanted) in ticks.iter().zip(wanted) {
            assert!((tick / wanted - 1.0).abs() < 1e-9, "{ticks:?}");
        }
    }

    #[test]
    fn positions_are_logarithmic() {
        let found = scale(&[1.0, 10_000.0]);
        for (value, index) in [(1.0, 0.0), (100.0, 50.0), (10_000.0, 100.0)] {
            assert!((found.position(value) - index).abs() < 1e-6);
        }
    }

    #[test]
    fn values_on_ticks_and_single_values_have_a_scale_too() {
        for values in [&[0.5][..], &[10.0], &[0.2, 0.2], &[]] {
            let found = scale(values);
            assert!(
                found.low < found.high && found.high.is_finite(),
                "{found:?}"
            );
            for value in values {
                assert!(
                    (-1e-6..=100.0 + 1e-6).contains(&found.position(*value)),
                    "{found:?}"
                );
            }
        }
    }

    #[test]
    fn labels_are_short() {
        for (value, wanted) in [(0.05, "0.05"), (20.0, "20"), (5_000.0, "5k"), (2e6, "2M")] {
            assert_eq!(label(value), wanted);
        }
    }

    #[test]
    fn every_point_is_drawn_inside_the_picture() {
        let chart = Chart {
            title: "a < b".to_owned(),
            x: "x".to_owned(),
            y: "y".to_owned(),
            series: vec![Series {
                name: "one".to_owned(),
                colour: "#000",
                dashed: false,
                points: vec![(10.0, 0.3), (2_000.0, 7.0)],
            }],
        };
        let svg = chart.svg();
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("a &lt; b") && svg.ends_with("</svg>\n"));
    }
}
