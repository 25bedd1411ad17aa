//! Which code is the product's: not that of tests, and not that of the deliberate bugs, which only
//! the simulator's build compiles.

use std::ops::Range;

use super::Source;
use super::tokens::{Token, tokens};

/// Folders below which no file is the product's.
const OTHER_FOLDERS: &[&str] = &["tests/", "benches/", "examples/"];

/// Words of a `cfg` whose code is left out, unless they are negated.
const LEFT_OUT: &[&str] = &["test", "memkv_bugs"];

/// The files that have code of the product, with that code alone.
pub(crate) fn production(sources: &[Source]) -> Vec<(&Source, Vec<Token<'_>>)> {
    let mut kept = Vec::new();
    let mut left_out = Vec::new();
    for source in sources {
        let (code, modules) = without_tests(tokens(&source.text));
        left_out.extend(modules.iter().map(|name| child(&source.name, name)));
        kept.push((source, code));
    }
    kept.retain(|(source, _)| {
        let mut folders = OTHER_FOLDERS.iter();
        let folder = folders
            .any(|dir| source.name.starts_with(dir) || source.name.contains(&format!("/{dir}")));
        let own = source.name.trim_end_matches(".rs");
        !folder
            && !left_out
                .iter()
                .any(|out| own == out || own.starts_with(&format!("{out}/")))
    });
    kept
}

/// The path, without extension, of the module that the file `parent` declares.
pub(crate) fn child(parent: &str, name: &str) -> String {
    let stem = parent.trim_end_matches(".rs");
    let (dir, file) = stem.rsplit_once('/').unwrap_or(("", stem));
    match file {
        "mod" | "lib" | "main" => format!("{dir}/{name}"),
        _ => format!("{stem}/{name}"),
    }
}

/// The tokens without items for tests, and the modules among these that are files.
fn without_tests(code: Vec<Token<'_>>) -> (Vec<Token<'_>>, Vec<&str>) {
    let mut kept = Vec::with_capacity(code.len());
    let mut modules = Vec::new();
    let mut at = 0;
    while let Some(token) = code.get(at) {
        let attribute = attribute(&code, at);
        if !attribute
            .as_ref()
            .is_some_and(|inner| is_left_out(&code[inner.clone()]))
        {
            kept.push(*token);
            at += 1;
            continue;
        }
        let mut item = attribute.map_or(at + 1, |inner| inner.end + 1);
        while let Some(next) = self::attribute(&code, item) {
            item = next.end + 1;
        }
        let end = item_end(&code, item);
        let mut words = code[item..end]
            .iter()
            .skip_while(|token| token.text != "mod");
        if code.get(end - 1).is_some_and(|token| token.text == ";") && words.next().is_some() {
            modules.extend(words.next().map(|token| token.text));
        }
        at = end;
    }
    (kept, modules)
}

/// What is between the brackets of the attribute that begins here.
fn attribute(code: &[Token<'_>], at: usize) -> Option<Range<usize>> {
    let text = |at: usize| code.get(at).map(|token| token.text);
    if text(at) != Some("#") || text(at + 1) != Some("[") {
        return None;
    }
    let mut depth = 0_usize;
    for (end, token) in code.iter().enumerate().skip(at + 1) {
        match token.text {
            "[" => depth += 1,
            "]" if depth == 1 => return Some(at + 2..end),
            "]" => depth -= 1,
            _ => {}
        }
    }
    None
}

fn is_left_out(attribute: &[Token<'_>]) -> bool {
    let has = |word: &str| attribute.iter().any(|token| token.text == word);
    attribute.first().is_some_and(|token| token.text == "cfg")
        && !has("not")
        && LEFT_OUT.iter().any(|word| has(word))
}

/// Behind the item, statement, field or arm that begins at `from`.
fn item_end(code: &[Token<'_>], from: usize) -> usize {
    const TO_SEMICOLON: &[&str] = &["use", "let", "static", "type", "return"];
    let mut to_semicolon = false;
    let mut depth = 0_usize;
    for (at, token) in code.iter().enumerate().skip(from) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" if depth == 0 => return at,
            ")" | "]" => depth -= 1,
            "}" => {
                depth -= 1;
                if depth == 0 && !to_semicolon {
                    // An arm's comma belongs to it.
                    let comma = code.get(at + 1).is_some_and(|next| next.text == ",");
                    return at + 1 + usize::from(comma);
                }
            }
            ";" if depth == 0 => return at + 1,
            "," if depth == 0 && !to_semicolon => return at + 1,
            word if depth == 0 && TO_SEMICOLON.contains(&word) => to_semicolon = true,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::production;

    fn kept(name: &str, text: &str) -> Option<String> {
        let sources = [Source::new(name, text)];
        let kept = production(&sources);
        let (_, code) = kept.first()?;
        Some(
            code.iter()
                .map(|token| token.text)
                .collect::<Vec<_>>()
                .join(" "),
        )
    }

    #[test]
    fn items_for_tests_and_deliberate_bugs_are_left_out() {
        for (text, expected) in [
            (
                "fn a() {} #[cfg(test)] mod tests { fn b() {} }",
                "fn a ( ) { }",
            ),
            (
                "#[cfg(test)] #[path = \"x\"] mod b; fn a() {}",
                "fn a ( ) { }",
            ),
            ("#[cfg(test)] use a::{b, c}; fn a() {}", "fn a ( ) { }"),
            ("{ #[cfg(memkv_bugs)] if b { c(); } d }", "{ d }"),
            ("{ #[cfg(memkv_bugs)] let b = c(|| { d }); e }", "{ e }"),
            ("{ a, #[cfg(memkv_bugs)] b: C, d, }", "{ a , d , }"),
            (
                "#[cfg(not(memkv_bugs))] a",
                "# [ cfg ( not ( memkv_bugs ) ) ] a",
            ),
        ] {
            assert_eq!(
                kept("x/src/a.rs", text).as_deref(),
                Some(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn files_of_tests_are_left_out() {
        assert_eq!(kept("crates/x/tests/a.rs", ""), None);
        assert_eq!(kept("tests/src/a.rs", ""), None);
        let sources = [
            Source::new("x/src/b/mod.rs", "#[cfg(test)] mod suite; mod real;"),
            Source::new("x/src/b/real.rs", ""),
            Source::new("x/src/b/suite.rs", ""),
            Source::new("x/src/b/suite/part.rs", ""),
        ];
        let kept = production(&sources);
        let names: Vec<&str> = kept
            .iter()
            .map(|(source, _)| source.name.as_str())
            .collect();
        assert_eq!(names, ["x/src/b/mod.rs", "x/src/b/real.rs"]);
    }
}
