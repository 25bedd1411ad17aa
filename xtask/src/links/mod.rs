//! References in the documentation that lead nowhere: relative links to files or headings that do not
//! exist, paths of the code (`code`), terms without a row in the glossary (`terms`), and tests that are named
//! as proofs (`shown`). Never asks the network.

mod code;
mod shown;
mod terms;

use std::collections::BTreeSet;
use std::path::Path;

use crate::cargo::root;
use crate::tidy::{files, read};

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const GLOSSARY: &str = "docs/glossary.md";

/// Checks every Markdown page of the repository.
pub(crate) fn check() -> Result<(), String> {
    let mut pages = Vec::new();
    files(&root(), "md", &mut pages)?;
    if pages.is_empty() {
        return Err("found no Markdown page".to_owned());
    }
    let root = root();
    let mut sources = Vec::new();
    files(&root, "rs", &mut sources)?;
    let mut tests = BTreeSet::new();
    for source in &sources {
        tests.extend(shown::tests_of(&read(source)?));
    }
    let mut faults = Vec::new();
    for page in &pages {
        let text = read(page)?;
        let name = page.strip_prefix(&root).unwrap_or(page);
        for link in links(&text) {
            if let Err(why) = resolve(page, &text, link) {
                faults.push(format!("{}: ({link}): {why}", name.display()));
            }
        }
        let proofs = shown::faults(&text, &tests);
        for fault in code::faults(&root, name, &text).into_iter().chain(proofs) {
            faults.push(format!("{}: {fault}", name.display()));
        }
    }
    let glossary = read(&root.join(GLOSSARY))?;
    for fault in terms::faults(&read(&root.join(ARCHITECTURE))?, &glossary) {
        faults.push(format!("{ARCHITECTURE}: {fault}"));
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n  "))
    }
}

/// Targets of inline links and images, outside fenced code.
fn links(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in prose(text) {
        for part in line.split("](").skip(1) {
            let target = part.split([')', ' ']).next().unwrap_or_default();
            if !target.contains("://") && !target.starts_with("mailto:") {
                found.push(target);
            }
        }
    }
    found
}

/// Lines that are not inside a fence.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

fn resolve(page: &Path, text: &str, link: &str) -> Result<(), String> {
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let mut target = text.to_owned();
    if !path.is_empty() {
        let file = page.parent().unwrap_or(Path::new("")).join(path);
        if !file.exists() {
            return Err("no such file".to_owned());
        }
        if heading.is_empty() {
            return Ok(());
        }
        target = read(&file)?;
    }
    if prose(&target)
        .filter_map(anchor)
        .any(|anchor| anchor == heading)
    {
        return Ok(());
    }
    Err("the page has no such heading".to_owned())
}

/// Anchor of a heading line, as hosts of Markdown make it: lower case, spaces to hyphens,
/// punctuation dropped.
fn anchor(line: &str) -> Option<String> {
    let title = line
        .strip_prefix('#')?
        .trim_start_matches('#')
        .strip_prefix(' ')?;
    let kept = title
        .trim()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    Some(
        kept.map(|c| {
            if c == ' ' {
                '-'
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::{anchor, links, resolve};
    use std::path::Path;

    #[test]
    fn links_are_found_outside_code_and_without_the_web() {
        let text = "[a](b.md) and [c](d.md#e)\n```\n[x](y)\n```\n[w](https://example.org)\n";
        assert_eq!(links(text), ["b.md", "d.md#e"]);
    }

    #[test]
    fn headings_become_anchors() {
        assert_eq!(
            anchor("## What is *not* promised?").as_deref(),
            Some("what-is-not-promised")
        );
        assert_eq!(anchor("plain"), None);
    }

    #[test]
    fn a_missing_heading_or_file_is_a_fault() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("page.md");
        assert!(resolve(&page, "# One\n", "#one").is_ok());
        assert!(resolve(&page, "# One\n", "#two").is_err());
        assert!(resolve(&page, "", "Cargo.toml").is_ok());
        assert!(resolve(&page, "", "missing.toml").is_err());
    }
}
