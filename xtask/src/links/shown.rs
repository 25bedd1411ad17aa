//! Tests that a page names as the proof of a claim: in a table with a column `Shown by`, each name in
//! backticks must be a test of the repository, so that a renamed or removed test is noticed.

use std::collections::BTreeSet;

/// The heading of the column.
const COLUMN: &str = "Shown by";

/// Every name in such a column that is no test.
pub(super) fn faults(text: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut column = None;
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if !line.trim_start().starts_with('|') {
            column = None;
        } else if let Some(at) = cells.iter().position(|cell| *cell == COLUMN) {
            column = Some(at);
        } else if let Some(cell) = column.and_then(|at| cells.get(at)) {
            let names = cell.split('`').skip(1).step_by(2);
            let unknown = names.filter(|name| !tests.contains(*name));
            faults.extend(unknown.map(|name| format!("`{name}`: no such test")));
        }
    }
    faults
}

/// The names of the tests in a source file: functions behind a line that makes one a test.
pub(super) fn tests_of(source: &str) -> impl Iterator<Item = String> {
    let mut is_test = false;
    source.lines().filter_map(move |line| {
        let line = line.trim();
        let attribute = line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        is_test |= attribute;
        let rest = line.split_once("fn ").filter(|_| is_test && !attribute)?.1;
        is_test = false;
        Some(rest.split(['(', '<']).next()?.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_tests_are_found() {
        let source = "fn helper() {}\n#[test]\nfn one() {}\n#[tokio::test(start_paused = true)]\nasync fn two() {}\n";
        let tests: BTreeSet<String> = tests_of(source).collect();
        assert_eq!(tests.iter().collect::<Vec<_>>(), ["one", "two"]);
        let page = "`other`\n\n| Claim | Shown by |\n|--|--|\n| a `b` | `one`, `two` |\n| c | `helper` |\n\n| d | `x` |\n";
        assert_eq!(faults(page, &tests), ["`helper`: no such test"]);
    }
}
