//! `cargo xtask instructions`: counts the instructions of the pieces in `benches/` under callgrind
//! and holds them against `benches/baseline.json`. A count does not depend on what else the machine
//! does, so a change of a few per cent is seen where times vary by half.
//!
//! A piece that takes [`TOLERANCE`] more than its baseline fails. `--write` writes the baseline anew;
//! the commit that does so says why.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::cargo::{RELEASE, cargo, root, run, target_dir};
use crate::packages;

/// How many per cent a count may be above its baseline: compilers and processors differ by a few.
const TOLERANCE: u64 = 10;

/// How often each piece is executed in the shorter and in the longer of two runs, whose difference
/// is counted: what a program does before and after, and what its first run warms up, falls out.
const SHORT: u64 = 2;
const LONG: u64 = 12;

/// Counts, and compares or writes.
pub(crate) fn run_all(arguments: &[String]) -> Result<(), String> {
    let write = match arguments {
        [] => false,
        [flag] if flag == "--write" => true,
        _ => return Err("usage: cargo xtask instructions [--write]".to_owned()),
    };
    packages::ensure_callgrind()?;
    let program = build()?;
    let mut counted = BTreeMap::new();
    for (name, operations) in pieces(&program)? {
        let short = count(&program, &name, SHORT)?;
        let long = count(&program, &name, LONG)?;
        let runs = (LONG - SHORT) as f64;
        let each = long.saturating_sub(short) as f64 / runs / operations as f64;
        counted.insert(name, each.round() as u64);
    }
    let path = root().join("benches/baseline.json");
    if write {
        let text = format!("{:#}\n", json!(counted));
        return fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()));
    }
    let baseline = read(&path)?;
    let faults = compare(&counted, &baseline);
    if faults.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "{}\n  if that is meant, `cargo xtask instructions --write` in a commit that says why",
            faults.join("\n  ")
        ))
    }
}

fn build() -> Result<PathBuf, String> {
    run(cargo(RELEASE).args(["-p", "memkv-hot-path", "--bin", "memkv-hot-path"]))?;
    Ok(target_dir().join("release/memkv-hot-path"))
}

/// Names of the pieces, and how many operations each consists of.
fn pieces(program: &Path) -> Result<Vec<(String, u64)>, String> {
    let text = output(Command::new(program).arg("list"))?;
    let pieces: Option<Vec<_>> = text
        .lines()
        .map(|line| {
            let (name, operations) = line.split_once(' ')?;
            Some((name.to_owned(), operations.parse().ok()?))
        })
        .collect();
    pieces
        .filter(|pieces| !pieces.is_empty())
        .ok_or_else(|| format!("`memkv-hot-path list` said: {text}"))
}

/// Instructions of a process that executes a piece this many times.
fn count(program: &Path, name: &str, times: u64) -> Result<u64, String> {
    let file = target_dir().join("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--quiet", "--tool=callgrind"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args(["run", name, &times.to_string()]);
    output(&mut valgrind)?;
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    total(&text).ok_or_else(|| format!("{} has no total", file.display()))
}

/// The total in a file of callgrind's: <https://valgrind.org/docs/manual/cl-format.html>.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| {
        line.strip_prefix("summary:")
            .or(line.strip_prefix("totals:"))
    });
    line?.trim().parse().ok()
}

fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name} ended with {}: {said}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("{name}: {error}"))
}

fn read(path: &Path) -> Result<Map<String, Value>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Prints a line for each piece and returns what is wrong.
fn compare(counted: &BTreeMap<String, u64>, baseline: &Map<String, Value>) -> Vec<String> {
    let mut faults = Vec::new();
    println!("instructions per operation    now  baseline");
    for (name, now) in counted {
        let Some(before) = baseline.get(name).and_then(Value::as_u64) else {
            faults.push(format!(
                "{name} takes {now} instructions and has no baseline"
            ));
            continue;
        };
        let change = *now as f64 / before.max(1) as f64 - 1.0;
        println!("{name:<24} {now:>8}  {before:>8}  {:+.1} %", change * 100.0);
        if now * 100 > before * (100 + TOLERANCE) {
            faults.push(format!(
                "{name} takes {now} instructions per operation, {before} before: {:+.1} %",
                change * 100.0
            ));
        }
    }
    let gone = baseline.keys().filter(|name| !counted.contains_key(*name));
    faults.extend(gone.map(|name| format!("{name} has a baseline and is not there any more")));
    faults
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Map, Value, json};

    use super::{compare, total};

    fn baseline(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    fn counted(now: u64) -> BTreeMap<String, u64> {
        BTreeMap::from([("apply".to_owned(), now)])
    }

    #[test]
    fn a_tenth_more_passes_and_beyond_it_fails() {
        let before = baseline(json!({ "apply": 1000 }));
        for (now, faults) in [(1000, 0), (1100, 0), (1101, 1), (500, 0)] {
            assert_eq!(compare(&counted(now), &before).len(), faults, "{now}");
        }
    }

    #[test]
    fn what_is_new_and_what_is_gone_is_a_fault() {
        assert_eq!(compare(&counted(1), &Map::new()).len(), 1);
        let more = baseline(json!({ "apply": 1, "gone": 1 }));
        assert_eq!(compare(&counted(1), &more).len(), 1);
    }

    #[test]
    fn the_total_is_read() {
        assert_eq!(
            total("events: Ir\nsummary: 1234\n\ntotals: 1234\n"),
            Some(1234)
        );
        assert_eq!(total("events: Ir\n"), None);
    }
}
