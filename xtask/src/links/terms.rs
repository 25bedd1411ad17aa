//! The terms of ARCHITECTURE.md: each that it sets in *italics*, in singular or plural, has a row in the
//! glossary.
//! Never judges whether a word needs a row; a reader does.

use std::collections::BTreeSet;

/// Terms of `page` without a row in `glossary`.
pub(super) fn faults(page: &str, glossary: &str) -> Vec<String> {
    let rows = rows(glossary);
    let known = |term: &str| rows.contains(term) || rows.contains(term.trim_end_matches('s'));
    let text: Vec<&str> = super::prose(page).map(str::trim).collect();
    let text = text.join(" ");
    italics(&text)
        .filter(|term| !known(term))
        .map(|term| format!("*{term}*: docs/glossary.md has no row for it"))
        .collect()
}

/// The terms of the glossary: the first column of its tables, where a comma separates several.
fn rows(glossary: &str) -> BTreeSet<&str> {
    super::prose(glossary)
        .filter_map(|line| line.strip_prefix('|')?.split('|').next())
        .flat_map(|cell| cell.split(", "))
        .map(|term| term.trim().trim_matches('*'))
        .collect()
}

/// Spans between single asterisks; bold text and code have none.
fn italics(text: &str) -> impl Iterator<Item = &str> {
    let without_code = text.split('`').step_by(2);
    without_code.flat_map(|text| {
        let plain = text.split("**").step_by(2);
        plain.flat_map(|text| text.split('*').skip(1).step_by(2))
    })
}

#[cfg(test)]
mod tests {
    use super::faults;

    const GLOSSARY: &str =
        "| Term | Meaning |\n|---|---|\n| *log time* | a |\n| term, vote | b |\n";

    #[test]
    fn a_term_without_a_row_is_a_fault() {
        assert_eq!(
            faults("The *log time* and the *vote*.\n", GLOSSARY),
            [""; 0]
        );
        assert_eq!(faults("All *votes* in *log\n  time*.\n", GLOSSARY), [""; 0]);
        assert_eq!(faults("The *wall time*.\n", GLOSSARY).len(), 1);
    }

    #[test]
    fn bold_text_and_code_are_no_terms() {
        let page = "**Never** `a *b* c` **x** and *vote*\n```\n*d*\n```\n";
        assert_eq!(faults(page, GLOSSARY), [""; 0]);
    }
}
