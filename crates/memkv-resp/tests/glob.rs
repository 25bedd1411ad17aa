//! Glob patterns against examples from Redis's behaviour and against a slow matcher that tries
//! everything.

use bytes::Bytes;
use memkv_resp::Pattern;
use proptest::prelude::*;

fn glob_match(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
    let pattern = Pattern::new(Bytes::copy_from_slice(pattern)).expect("short enough");
    if nocase {
        pattern.matches_any_case(text)
    } else {
        pattern.matches(text)
    }
}

/// One element of a pattern.
#[derive(Debug)]
enum Element {
    Star,
    Any,
    Literal(u8),
    Class { not: bool, items: Vec<Item> },
}

#[derive(Debug)]
enum Item {
    /// A byte, and whether it was escaped, which makes its case count.
    Byte(u8, bool),
    Range(u8, u8),
}

fn elements(pattern: &[u8]) -> Vec<Element> {
    let at = |i: usize| pattern.get(i).copied();
    let mut elements = Vec::new();
    let mut i = 0;
    while let Some(byte) = at(i) {
        i += 1;
        elements.push(match (byte, at(i)) {
            (b'*', _) => Element::Star,
            (b'?', _) => Element::Any,
            (b'\\', Some(literal)) => {
                i += 1;
                Element::Literal(literal)
            }
            (b'[', next) => {
                let not = next == Some(b'^');
                i += usize::from(not);
                let mut items = Vec::new();
                while let Some(byte) = at(i) {
                    i += 1;
                    match (byte, at(i), at(i + 1)) {
                        (b'\\', Some(literal), _) => {
                            i += 1;
                            items.push(Item::Byte(literal, true));
                        }
                        (b']', _, _) => break,
                        (from, Some(b'-'), Some(to)) => {
                            i += 2;
                            items.push(Item::Range(from, to));
                        }
                        (literal, _, _) => items.push(Item::Byte(literal, false)),
                    }
                }
                Element::Class { not, items }
            }
            (literal, _) => Element::Literal(literal),
        });
    }
    elements
}

/// Tries every length for every star.
fn matches(elements: &[Element], text: &[u8], nocase: bool) -> bool {
    let lower = |byte: u8| {
        if nocase {
            byte.to_ascii_lowercase()
        } else {
            byte
        }
    };
    let Some((first, rest)) = elements.split_first() else {
        return text.is_empty();
    };
    if let Element::Star = first {
        return (0..=text.len()).any(|skip| matches(rest, &text[skip..], nocase));
    }
    let Some((&byte, text)) = text.split_first() else {
        return false;
    };
    let found = match first {
        Element::Star | Element::Any => true,
        Element::Literal(literal) => lower(*literal) == lower(byte),
        Element::Class { not, items } => {
            let has = items.iter().any(|item| match *item {
                Item::Byte(literal, true) => literal == byte,
                Item::Byte(literal, false) => lower(literal) == lower(byte),
                Item::Range(from, to) => {
                    let (from, to) = (from as i8, to as i8);
                    let (low, high) = if from > to { (to, from) } else { (from, to) };
                    let (low, high) = (lower(low as u8) as i8, lower(high as u8) as i8);
                    let byte = lower(byte) as i8;
                    low <= byte && byte <= high
                }
            });
            has != *not
        }
    };
    found && matches(rest, text, nocase)
}

/// The slow matcher with Redis's rule for the empty text.
fn slow_match(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    matches(&elements(pattern), text, nocase)
}

#[test]
fn examples() {
    for (pattern, text, expected) in [
        ("", "", true),
        ("", "a", false),
        ("*", "", false),
        ("**", "", false),
        ("*", "a", true),
        ("a*", "a", true),
        ("a**", "a", true),
        ("h?llo", "hello", true),
        ("h?llo", "hllo", false),
        ("h*llo", "heeeello", true),
        ("h[ae]llo", "hallo", true),
        ("h[ae]llo", "hillo", false),
        ("h[^e]llo", "hallo", true),
        ("h[^e]llo", "hello", false),
        ("h[a-b]llo", "hbllo", true),
        ("h[b-a]llo", "hallo", true),
        (r"\*", "*", true),
        (r"\*", "a", false),
        (r"a\", r"a\", true),
        (r"[\]]", "]", true),
        (r"[\-a]", "-", true),
        ("[]", "a", false),
        ("[^]", "a", true),
        ("[", "a", false),
        ("[^", "a", true),
        ("[abc", "c", true),
        ("[a-]", "]", true),
        ("[a-", "-", true),
        ("[a-c", "b", true),
        ("*a*b*c*", "xxaxxbxxcxx", true),
        ("*a*b*c", "abcabx", false),
        ("*ab", "aab", true),
    ] {
        let (pattern_bytes, text_bytes) = (pattern.as_bytes(), text.as_bytes());
        assert_eq!(
            glob_match(pattern_bytes, text_bytes, false),
            expected,
            "{pattern} {text}"
        );
        assert_eq!(
            slow_match(pattern_bytes, text_bytes, false),
            expected,
            "{pattern} {text}"
        );
    }
}

#[test]
fn case_is_folded_on_demand() {
    for (pattern, text, nocase, expected) in [
        ("HeLLo", "hEllO", true, true),
        ("HeLLo", "hEllO", false, false),
        ("[abc]", "B", true, true),
        ("[A-C]", "b", true, true),
        // Escaped within a class, a letter keeps its case; elsewhere it does not.
        (r"[\a]", "A", true, false),
        (r"\a", "A", true, true),
        // The ends are put in order first, and only then folded: from `z` to `a` there is nothing.
        ("[Z-a]", "z", true, false),
    ] {
        assert_eq!(
            glob_match(pattern.as_bytes(), text.as_bytes(), nocase),
            expected,
            "{pattern} {text}"
        );
    }
}

#[test]
fn the_bytes_of_a_range_are_signed() {
    assert!(glob_match(b"[\x80-a]", b"\xff", false));
    assert!(glob_match(b"[\x80-a]", b"0", false));
    assert!(!glob_match(b"[\x80-a]", b"b", false));
    assert!(!glob_match(b"[0-\x7f]", b"\x80", false));
}

#[test]
fn many_stars_do_not_multiply() {
    // A matcher that tries every length for every star would not end.
    let text = vec![b'a'; 64 * 1024];
    let pattern = [b"a*".repeat(500), b"b".to_vec()].concat();
    assert!(!glob_match(&pattern, &text, false));
    let pattern = [b"*a".repeat(500), b"*".to_vec()].concat();
    assert!(glob_match(&pattern, &text, false));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn the_same_as_trying_everything(
        pattern in "[*?\\[\\]^\\\\abAB-]{0,10}",
        text in "[abAB\\]\\\\-]{0,8}",
        nocase: bool,
    ) {
        let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
        prop_assert_eq!(glob_match(pattern, text, nocase), slow_match(pattern, text, nocase));
    }

    #[test]
    fn the_same_for_any_bytes(
        pattern in prop::collection::vec(
            prop_oneof![any::<u8>(), prop::sample::select(b"*?[]^-\\a".to_vec())],
            0..10,
        ),
        text in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'a')], 0..8),
        nocase: bool,
    ) {
        prop_assert_eq!(
            glob_match(&pattern, &text, nocase),
            slow_match(&pattern, &text, nocase)
        );
    }
}
