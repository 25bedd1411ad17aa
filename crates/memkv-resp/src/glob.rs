//! Glob patterns as in `KEYS`, `SCAN ... MATCH` and `PSUBSCRIBE`, walked element by element. The same
//! answers as `stringmatchlen` of Redis 7.0 on x86-64, its oddities included, without its recursion;
//! [`Pattern`](crate::Pattern) says which they are. Never bounds anything: `Pattern` does.

/// Whether `pattern` matches the whole of `text`. Takes at most as many steps as pattern and text have
/// bytes, multiplied.
pub(crate) fn matches(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut pattern, mut text) = (pattern, text);
    // The pattern behind the last star, and the text that it was last tried on. Only the last star needs
    // another try: if the rest matches nowhere in the text that is left, then no longer match of an
    // earlier star helps, because it leaves even less text.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            if rest.is_empty() {
                return true;
            }
            pattern = rest;
            retry = Some((rest, text));
            continue;
        }
        let Some((byte, text_rest)) = text.split_first() else {
            // Starting later would only run out of text sooner.
            return pattern.is_empty();
        };
        match first_matches(pattern, *byte, nocase) {
            (true, rest) => {
                pattern = rest;
                text = text_rest;
            }
            (false, _) => {
                let Some((after_star, [_, shorter @ ..])) = retry else {
                    return false;
                };
                pattern = after_star;
                text = shorter;
                retry = Some((after_star, shorter));
            }
        }
    }
}

/// Whether the pattern's first element, which is not a star, matches the byte, and the rest of the
/// pattern.
/// Nothing matches the end of the pattern.
pub(crate) fn first_matches(pattern: &[u8], byte: u8, nocase: bool) -> (bool, &[u8]) {
    match pattern {
        [] => (false, pattern),
        [b'?', rest @ ..] => (true, rest),
        [b'[', b'^', rest @ ..] => {
            let (matches, rest) = match_class(rest, byte, nocase);
            (!matches, rest)
        }
        [b'[', rest @ ..] => match_class(rest, byte, nocase),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => {
            (fold(*literal, nocase) == fold(byte, nocase), rest)
        }
    }
}

/// Whether the class has the byte, and the rest of the pattern.
fn match_class(mut class: &[u8], byte: u8, nocase: bool) -> (bool, &[u8]) {
    let mut found = false;
    loop {
        class = match class {
            [] => return (found, class),
            [b'\\', literal, rest @ ..] => {
                found |= *literal == byte;
                rest
            }
            [b']', rest @ ..] => return (found, rest),
            [one, b'-', other, rest @ ..] => {
                found |= in_range(*one, *other, byte, nocase);
                rest
            }
            [literal, rest @ ..] => {
                found |= fold(*literal, nocase) == fold(byte, nocase);
                rest
            }
        }
    }
}

/// A range may be given in either direction. Its ends are put in order before their case is
/// folded, so that `[Z-a]` has nothing in it with `nocase`.
fn in_range(one: u8, other: u8, byte: u8, nocase: bool) -> bool {
    let (one, other) = (one.cast_signed(), other.cast_signed());
    let fold = |byte: i8| fold(byte.cast_unsigned(), nocase).cast_signed();
    let range = fold(one.min(other))..=fold(one.max(other));
    range.contains(&fold(byte.cast_signed()))
}

fn fold(byte: u8, nocase: bool) -> u8 {
    if nocase {
        byte.to_ascii_lowercase()
    } else {
        byte
    }
}
