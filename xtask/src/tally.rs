//! Counting results: the project's own steps and the tests inside `cargo test` runs.
//!
//! Invariant: a step that ran no test at all is a failure, so a harness that finds nothing to do
//! can never be mistaken for one that found nothing wrong.

use std::fmt;
use std::time::Instant;

/// Whether a step could run on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ran {
    Yes,
    /// Why not: what is missing.
    No(&'static str),
}

/// What passed, failed and was skipped so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
    failures: Vec<String>,
}

impl Tally {
    /// Runs one step of our own; it counts as one test.
    pub(crate) fn step(&mut self, name: &str, step: impl FnOnce() -> Result<(), String>) {
        self.step_where_possible(name, || step().map(|()| Ran::Yes));
    }

    /// The same for a step that needs what this machine may not have: then it is skipped, not passed.
    pub(crate) fn step_where_possible(
        &mut self,
        name: &str,
        step: impl FnOnce() -> Result<Ran, String>,
    ) {
        let started = Instant::now();
        println!("\n== {name}");
        let outcome = step();
        let seconds = started.elapsed().as_secs_f64();
        match outcome {
            Ok(Ran::Yes) => {
                self.passed += 1;
                println!("== {name}: passed in {seconds:.1} s");
            }
            Ok(Ran::No(why)) => {
                self.skipped += 1;
                println!("== {name}: skipped: {why}");
            }
            Err(message) => {
                println!("== {name}: FAILED in {seconds:.1} s: {message}");
                self.fail(format!("{name}: {message}"));
            }
        }
    }

    /// Runs a step that consists of tests and adds what it counted.
    pub(crate) fn tests(
        &mut self,
        name: &str,
        step: impl FnOnce(&mut Counts) -> Result<(), String>,
    ) {
        let started = Instant::now();
        println!("\n== {name}");
        let mut counts = Counts::default();
        let outcome = step(&mut counts);
        println!(
            "== {name}: {counts} in {:.1} s",
            started.elapsed().as_secs_f64()
        );
        self.passed += counts.passed;
        self.failed += counts.failed;
        self.skipped += counts.skipped;
        if counts.failed > 0 {
            self.failures.push(counts.failure(name));
        } else if let Err(message) = outcome {
            self.fail(format!("{name}: {message}"));
        } else if counts.passed == 0 {
            self.fail(format!("{name}: no test ran"));
        }
    }

    fn fail(&mut self, what: String) {
        self.failed += 1;
        self.failures.push(what);
    }

    /// Prints what failed and the tally line, the last line of the output.
    pub(crate) fn finish(self) -> Result<(), String> {
        println!();
        for failure in &self.failures {
            println!("FAILED {failure}");
        }
        println!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        );
        if self.failed > 0 {
            return Err("some tests failed".to_owned());
        }
        if self.passed == 0 {
            Err("no test ran".to_owned())
        } else {
            Ok(())
        }
    }
}

/// Results of one or more test binaries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
    /// The names of those that failed, and what their threads said of it.
    names: Vec<String>,
    panics: Vec<String>,
    /// The last line was the head of a panic; the next says why.
    in_panic: bool,
}

impl Counts {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; ...`, and keeps the names in
    /// lines such as `test store::tests::set ... FAILED` and the first line of each panic; others are left
    /// alone.
    pub(crate) fn line(&mut self, line: &str) {
        if self.in_panic {
            self.panics.push(line.trim().to_owned());
        }
        self.in_panic = line.starts_with("thread '") && line.contains("panicked at");
        if self.in_panic {
            self.panics.push(line.trim().to_owned());
        }
        if let Some(name) = line.strip_suffix(" ... FAILED") {
            self.names.push(name.trim_start_matches("test ").to_owned());
        }
        let Some((_, counts)) = line.split_once("test result: ") else {
            return;
        };
        for part in counts.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else {
                continue;
            };
            let Ok(number) = number.parse::<usize>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }

    /// What to print at the very end, where a reader of a long log finds it: each failed test with the
    /// panics of its thread.
    fn failure(&self, name: &str) -> String {
        let mut text = format!("{name}: {} tests failed", self.failed);
        for test in &self.names {
            text.push_str(&format!("\n  {test}"));
            let heads = self.panics.iter().enumerate();
            let of_test = heads.filter(|(_, head)| head.contains(&format!("thread '{test}'")));
            for (at, head) in of_test {
                text.push_str(&format!("\n    {head}"));
                if let Some(why) = self.panics.get(at + 1) {
                    text.push_str(&format!("\n    {why}"));
                }
            }
        }
        text
    }

    /// Moves `number` tests from passed to skipped: they found that this machine cannot run them.
    pub(crate) fn skip(&mut self, number: usize) {
        let number = number.min(self.passed);
        self.passed -= number;
        self.skipped += number;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Tally};

    #[test]
    fn result_lines_are_summed_and_others_ignored() {
        let mut counts = Counts::default();
        counts.line("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out");
        counts.line("test store::tests::set ... ok");
        counts.line("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured");
        assert_eq!(
            counts,
            Counts {
                passed: 5,
                failed: 4,
                skipped: 1,
                ..Counts::default()
            }
        );
    }

    #[test]
    fn a_failed_test_is_named_at_the_end_with_its_reason() {
        let mut counts = Counts::default();
        for line in [
            "test store::set ... ok",
            "test store::get ... FAILED",
            "thread 'store::set' (9) panicked at src/set.rs:1:2:",
            "meant to happen",
            "thread 'store::get' (7) panicked at src/get.rs:3:9:",
            "no value",
            "stack backtrace:",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured",
        ] {
            counts.line(line);
        }
        assert_eq!(
            counts.failure("unit tests"),
            "unit tests: 1 tests failed\n  store::get\n    thread 'store::get' (7) panicked at \
             src/get.rs:3:9:\n    no value"
        );
    }

    #[test]
    fn a_step_without_tests_fails() {
        let mut tally = Tally::default();
        tally.tests("nothing", |_| Ok(()));
        assert!(tally.finish().is_err());
    }

    #[test]
    fn a_step_that_could_not_run_has_not_passed() {
        let mut tally = Tally::default();
        tally.step_where_possible("fuzzing", || Ok(super::Ran::No("no fuzzer")));
        assert_eq!((tally.passed, tally.failed, tally.skipped), (0, 0, 1));
        assert!(tally.finish().is_err(), "nothing else ran");
    }

    #[test]
    fn a_failed_step_fails_the_whole() {
        let mut tally = Tally::default();
        tally.step("good", || Ok(()));
        tally.step("bad", || Err("because".to_owned()));
        assert_eq!((tally.passed, tally.failed), (1, 1));
        assert!(tally.finish().is_err());
    }
}
