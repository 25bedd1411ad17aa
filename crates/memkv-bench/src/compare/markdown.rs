//! The measured part of `docs/performance.md`, and the progress messages on the screen.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::rows::{Bound, Figure, Goal, Row};
use super::times::Timed;
use super::{Measures, Options, Results};
use crate::disk::sync_time;
use crate::statistics::Spread;
use crate::system::peers::version;

/// `page` with `section` between the markers of `command`; `None` if it has no markers.
pub(crate) fn replace_section(page: &str, command: &str, section: &str) -> Option<String> {
    let marker = |end| format!("<!-- measured by {command}: {end} -->\n");
    let (begin, end) = (marker("begin"), marker("end"));
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{section}\n{end}{after}"))
}

/// The machine and the programs, as lines of a list.
pub(crate) fn machine() -> Result<String, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let disk = sync_time(Duration::from_secs(2))?;
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    let date = date.map_err(|error| format!("date: {error}"))?;
    Ok(format!(
        "- {date}: {cores} cores ({model}), {gib:.0} GiB, Linux {kernel}\n\
         - `fdatasync` after an append of 4 KiB: {disk:.0} us (median)\n\
         - memkv {own}; {etcd}; {valkey}; {redis}",
        date = String::from_utf8_lossy(&date.stdout).trim(),
        gib = kib as f64 / 1048576.0,
        kernel = kernel.trim(),
        disk = disk.as_secs_f64() * 1e6,
        own = env!("CARGO_PKG_VERSION"),
        etcd = version("etcd")?,
        valkey = short(&version("valkey-server")?),
        redis = short(&version("redis-server")?),
    ))
}

/// `Redis server v=7.0.15 sha=...` cut after the version.
fn short(version: &str) -> String {
    let words = version.split_whitespace();
    words.take(3).collect::<Vec<_>>().join(" ")
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Shows what a row reached.
pub(super) fn print_goals(row: &Row, measures: &Measures) {
    for goal in row.goals {
        let reached = measures.reached(goal);
        let sign = if goal.bound.holds(reached.median) {
            "ok"
        } else {
            "--"
        };
        println!(
            "  {sign} {}: {}",
            goal_text(goal),
            reached_text(goal, reached)
        );
    }
}

/// Everything between the markers.
pub(super) fn section(machine: &str, results: &Results, options: &Options) -> String {
    let mut text = format!(
        "Written by `cargo xtask bench compare --seconds {} --times {} --trials {}`.\n\n{machine}\n\n\
         | Work | Goal | Reached | |\n|---|---|---|---|\n",
        options.seconds, options.times, options.trials
    );
    for (row, measures) in &results.rows {
        goals(&mut text, row, measures);
    }
    for timed in &results.times {
        time_goal(&mut text, timed);
    }
    text.push_str(
        "\nA ratio is that of two medians; in brackets, between what it lay in the single rounds.\n\n\
         Medians, and in brackets the least and the most of all repetitions. CPU is the time of all \
         server processes per operation; other is the largest share of the machine that something \
         else took in a sample.\n\n\
         | Work | System | Per second | p50 ms | p99 ms | CPU us | Other |\n|---|---|---|---|---|---|---|\n",
    );
    for (row, measures) in &results.rows {
        figures(&mut text, row, measures);
    }
    text.push_str("\n| Work | System | Seconds |\n|---|---|---|\n");
    let mut last = "";
    for timed in &results.times {
        let title = if timed.title == last { "" } else { timed.title };
        let spread = spread_text(timed.spread(), 2);
        line(&mut text, &[title, timed.system, &spread]);
        last = timed.title;
    }
    for (plot, _) in &results.plots {
        text.push_str(&format!(
            "\n![{}](performance/{}.svg)\n",
            plot.title, plot.file
        ));
    }
    text
}

fn goals(text: &mut String, row: &Row, measures: &Measures) {
    for (index, goal) in row.goals.iter().enumerate() {
        let reached = measures.reached(goal);
        let title = if index == 0 { row.title } else { "" };
        let cells = [
            title,
            &goal_text(goal),
            &reached_text(goal, reached),
            verdict(Some(goal.bound.holds(reached.median))),
        ];
        line(text, &cells);
    }
}

fn time_goal(text: &mut String, timed: &Timed) {
    let mut goal = Vec::new();
    goal.extend(timed.median_most.map(|most| format!("median <= {most} s")));
    goal.extend(timed.each_most.map(|most| format!("each <= {most} s")));
    if goal.is_empty() {
        return;
    }
    let spread = timed.spread();
    let reached = format!("{:.2} s, at most {:.2} s", spread.median, spread.high);
    line(
        text,
        &[
            timed.title,
            &goal.join(", "),
            &reached,
            verdict(timed.holds()),
        ],
    );
}

fn figures(text: &mut String, row: &Row, measures: &Measures) {
    for (index, run) in row.runs.iter().enumerate() {
        let title = if index == 0 { row.title } else { "" };
        let spread = |figure| measures.spread(run.label, figure);
        let bytes = spread(Figure::BytesPerKey);
        if bytes.median.is_finite() {
            let bytes = format!("{} bytes", spread_text(bytes, 0));
            line(text, &[title, run.label, &bytes, "", "", "", ""]);
            continue;
        }
        let rate = spread(Figure::Rate);
        let mut rate = format!(
            "{} ({} to {})",
            thousands(rate.median),
            thousands(rate.low),
            thousands(rate.high)
        );
        let failed = measures.failed(run.label);
        if failed > 0 {
            rate.push_str(&format!(", **{failed} failed**"));
        }
        let cells = [
            title,
            run.label,
            &rate,
            &spread_text(spread(Figure::P50), 2),
            &spread_text(spread(Figure::P99), 2),
            &spread_text(spread(Figure::Cpu), 1),
            &format!("{:.0} %", measures.most_other(run.label) * 100.0),
        ];
        line(text, &cells);
    }
}

fn line(text: &mut String, cells: &[&str]) {
    text.push_str(&format!("| {} |\n", cells.join(" | ")));
}

fn verdict(holds: Option<bool>) -> &'static str {
    match holds {
        Some(true) => "reached",
        Some(false) => "not reached",
        None => "",
    }
}

/// A rate: `735`, `21.7k`, `135.8k`.
pub(crate) fn thousands(rate: f64) -> String {
    if rate < 10_000.0 {
        format!("{rate:.0}")
    } else {
        format!("{:.1}k", rate / 1e3)
    }
}

fn spread_text(spread: Spread, digits: usize) -> String {
    let Spread { median, low, high } = spread;
    format!("{median:.digits$} ({low:.digits$} to {high:.digits$})")
}

fn goal_text(goal: &Goal) -> String {
    let (sign, number) = match goal.bound {
        Bound::AtLeast(number) => (">=", number),
        Bound::AtMost(number) => ("<=", number),
    };
    let what = match goal.figure {
        Figure::Rate => "per second",
        Figure::P50 => "p50",
        Figure::P99 => "p99",
        Figure::Cpu => "CPU us per operation",
        Figure::BytesPerKey => "bytes per key",
    };
    match goal.against {
        Some(against) => format!("{}: {what} {sign} {number}x {against}", goal.run),
        None => format!("{}: {what} {sign} {number}", goal.run),
    }
}

fn reached_text(goal: &Goal, reached: Spread) -> String {
    match goal.against {
        Some(_) => {
            let Spread { median, low, high } = reached;
            format!("{median:.2}x ({low:.2} to {high:.2})")
        }
        None => spread_text(reached, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::{Bound, Figure, Goal, ROWS};
    use super::super::{Measure, Measures};
    use super::{goals, replace_section, short, spread_text, thousands};
    use crate::statistics::Spread;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let page = |text: &str| {
            let (begin, end) = (
                "<!-- measured by x: begin -->",
                "<!-- measured by x: end -->",
            );
            format!("before\n{begin}\n{text}{end}\nafter\n")
        };
        let new = replace_section(&page("old\n"), "x", "new").unwrap();
        assert_eq!(new, page("\nnew\n"));
        assert_eq!(replace_section(&page("old\n"), "y", "new"), None);
    }

    #[test]
    fn a_goal_is_a_quotient_of_medians() {
        let memory = ROWS
            .iter()
            .find(|row| row.title.contains("bytes per key"))
            .unwrap();
        let mut measures = Measures::default();
        for (label, values) in [
            ("memkv", [80.0, 90.0, 400.0]),
            ("Valkey", [90.0, 100.0, 110.0]),
        ] {
            let values = values.map(Measure::BytesPerKey);
            measures.0.insert(label, values.into());
        }
        let mut text = String::new();
        goals(&mut text, memory, &measures);
        assert!(
            text.contains("<= 0.9x Valkey | 0.90x (0.89 to 3.64) | reached |"),
            "{text}"
        );
        let alone = Goal {
            figure: Figure::BytesPerKey,
            run: "memkv",
            against: None,
            bound: Bound::AtMost(1.0),
        };
        assert!((measures.reached(&alone).median - 90.0).abs() < 1e-9);
    }

    #[test]
    fn texts_are_short() {
        assert_eq!(
            short("Redis server v=7.0.15 sha=1 malloc=x"),
            "Redis server v=7.0.15"
        );
        assert_eq!(
            (thousands(735.4), thousands(21_662.0)),
            ("735".into(), "21.7k".into())
        );
        let spread = Spread::of(&[1.0, 2.0, 4.0]);
        assert_eq!(spread_text(spread, 1), "2.0 (1.0 to 4.0)");
    }
}
