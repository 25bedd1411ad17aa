//! How long a function of the product may be. Those on the list are tables and codecs, which do not
//! read better in pieces.

use super::Source;
use super::production::production;
use super::ratchet::{Listed, faults};
use super::tokens::Token;

/// Lines from `fn` to the closing brace; with more, a function does more than one thing.
const MAX_LINES: usize = 70;

/// Functions that are longer: file, function, length, reason.
pub(crate) const LIST: &str = "xtask/long-functions.txt";

/// Functions that are too long and not listed, or not as long as the list says.
pub(crate) fn check(sources: &[Source], list: &str) -> Vec<String> {
    let mut long = Vec::new();
    for (source, code) in production(sources) {
        for (function, lines) in lengths(&code) {
            if lines > MAX_LINES {
                long.push((format!("{} {function}", source.name), lines));
            }
        }
    }
    let mut found = Vec::new();
    let mut listed = Vec::new();
    for line in list
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let mut words = line.split_whitespace();
        let (file, function) = (words.next(), words.next());
        let lines = words.next().and_then(|lines| lines.parse().ok());
        match (file, function, lines, words.next()) {
            (Some(file), Some(function), Some(lines), Some(_reason)) => {
                let key = format!("{file} {function}");
                listed.push(Listed { key, lines });
            }
            _ => found.push(format!(
                "{LIST}: `{line}` is not: file, function, length, reason"
            )),
        }
    }
    found.extend(faults(&long, &listed, LIST, MAX_LINES));
    found
}

/// Name and length of every function that has a body.
fn lengths<'a>(code: &[Token<'a>]) -> Vec<(&'a str, usize)> {
    let mut found = Vec::new();
    for (at, pair) in code.windows(2).enumerate() {
        let [keyword, name] = pair else { continue };
        if keyword.text != "fn" || !name.is_word() {
            continue;
        }
        if let Some(last) = body_end(&code[at + 2..]) {
            found.push((name.text, last - keyword.line + 1));
        }
    }
    found
}

/// The line of the brace that ends the first body; `None` if a semicolon ends the declaration.
fn body_end(code: &[Token<'_>]) -> Option<usize> {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for token in code {
        match token.text {
            "(" | "[" => others += 1,
            ")" | "]" => others = others.saturating_sub(1),
            "{" => braces += 1,
            "}" if braces == 1 && others == 0 => return Some(token.line),
            "}" => braces = braces.saturating_sub(1),
            ";" if braces == 0 && others == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::check;

    fn source(name: &str, lines: usize) -> Source {
        let body = "    call();\n".repeat(lines - 2);
        let text = format!("fn declared();\n\nfn long(x: [u8; 2]) {{\n{body}}}\n");
        Source::new(name, &text)
    }

    #[test]
    fn a_function_of_71_lines_is_refused_unless_it_is_listed_with_its_length_and_a_reason() {
        assert!(check(&[source("x/src/a.rs", 70)], "").is_empty());
        let long = [source("x/src/a.rs", 71)];
        assert_eq!(check(&long, "").len(), 1);
        assert!(check(&long, "# head\nx/src/a.rs long 71 a codec\n").is_empty());
        for list in [
            "x/src/a.rs long 72 a codec\n",
            "x/src/a.rs long 70 a codec\n",
            "x/src/a.rs long 71\n",
            "x/src/a.rs other 71 a codec\n",
        ] {
            assert!(!check(&long, list).is_empty(), "{list}");
        }
        assert_eq!(check(&[], "x/src/a.rs long 71 a codec\n").len(), 1);
    }

    #[test]
    fn tests_may_be_longer() {
        assert!(check(&[source("x/tests/a.rs", 200)], "").is_empty());
    }
}
