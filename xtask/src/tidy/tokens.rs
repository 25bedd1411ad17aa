//! Rust source as a list of words and signs, for checks that ask about code and not about text.
//! Comments, strings, characters and numbers are left out. It reads well-formed source; on any other
//! source it only has to end.

/// An identifier, keyword or sign, and its line (from 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

impl Token<'_> {
    /// Whether this is an identifier or a keyword.
    pub(crate) fn is_word(&self) -> bool {
        self.text.starts_with(is_word_start)
    }
}

/// All words and signs of a source file, in order.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = skipped(rest).unwrap_or_else(|| {
            let length = if is_word_start(first) {
                rest.find(|one| !is_word_part(one)).unwrap_or(rest.len())
            } else {
                first.len_utf8()
            };
            let text = rest.get(..length).unwrap_or_default();
            found.push(Token { text, line });
            length
        });
        let (passed, left) = rest.split_at(length);
        line += passed.matches('\n').count();
        rest = left;
    }
    found
}

/// Length of what is neither a word nor a sign at the beginning of `rest`; `None` at one of these.
fn skipped(rest: &str) -> Option<usize> {
    let first = rest.chars().next()?;
    if first.is_whitespace() {
        return Some(first.len_utf8());
    }
    if first.is_ascii_digit() {
        return Some(rest.find(|one| !is_word_part(one)).unwrap_or(rest.len()));
    }
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    let prefix = ["br", "b", "cr", "c", "r"]
        .into_iter()
        .find(|prefix| {
            let after = rest.strip_prefix(prefix).unwrap_or_default();
            let after = match prefix.ends_with('r') {
                true => after.trim_start_matches('#'),
                false => after,
            };
            after.starts_with('"') || (*prefix == "b" && after.starts_with('\''))
        })
        .unwrap_or_default();
    let literal = &rest[prefix.len()..];
    let length = match literal.chars().next() {
        Some('"') if prefix.ends_with('r') => raw_string(literal),
        Some('#') if prefix.ends_with('r') => raw_string(literal),
        Some('"') => quoted(literal, '"'),
        Some('\'') => character(literal)?,
        _ => return None,
    };
    Some(prefix.len() + length)
}

/// Length of a comment, which may hold others.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(left) = rest.get(at..).filter(|left| !left.is_empty()) {
        if left.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if left.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += left.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// Length of `#"..."#` with any number of signs.
fn raw_string(rest: &str) -> usize {
    let signs = rest.len() - rest.trim_start_matches('#').len();
    let end = format!("\"{}", "#".repeat(signs));
    let inner = signs + 1;
    let found = rest.get(inner..).and_then(|left| left.find(&end));
    found.map_or(rest.len(), |at| inner + at + end.len())
}

/// Length of a literal up to its closing quote; a backslash takes the next character with it.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, one) in rest.char_indices().skip(1) {
        match one {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if one == quote => return at + quote.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// Length of a character literal; a lifetime is no literal, and its quote is a sign.
fn character(rest: &str) -> Option<usize> {
    let mut after = rest.chars().skip(1);
    let literal = after.next() == Some('\\') || after.next() == Some('\'');
    literal.then(|| quoted(rest, '\''))
}

fn is_word_start(one: char) -> bool {
    one.is_alphabetic() || one == '_'
}

fn is_word_part(one: char) -> bool {
    one.is_alphanumeric() || one == '_'
}

#[cfg(test)]
mod tests {
    use super::tokens;

    fn words(text: &str) -> Vec<(&str, usize)> {
        let tokens = tokens(text);
        let words = tokens.iter().filter(|token| token.is_word());
        words.map(|token| (token.text, token.line)).collect()
    }

    #[test]
    fn comments_and_literals_are_left_out() {
        let text = "a // b\n/* c /* d */ e */ f \"g \\\" h\\\\\" i\nr#\"j \" k\"# l b\"m\" br\"n\" 'o' '\\'' p";
        let expected = [("a", 1), ("f", 2), ("i", 2), ("l", 3), ("p", 3)];
        assert_eq!(words(text), expected);
    }

    #[test]
    fn lifetimes_and_numbers_are_told_from_characters_and_words() {
        let text = "fn x<'a>(y: &'a str) -> u8 { b'z' + 1_000u64 }";
        let expected = ["fn", "x", "a", "y", "a", "str", "u8"].map(|word| (word, 1));
        assert_eq!(words(text), expected);
    }

    #[test]
    fn unfinished_source_ends() {
        for text in ["\"a", "/* b", "r##\"c\"#", "'", "b'"] {
            tokens(text);
        }
    }
}
