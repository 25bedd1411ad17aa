//! One bounded pattern for everything that globs. A pattern that matches slowly is turned into a
//! table, once, when it is first needed.
//!
//! Never takes more than [`MAX_PATTERN_BYTES`]. Invariants: the table and [`glob`](super::glob) give
//! the same answers; a match takes at most a step per byte of the text and 64 bytes of the pattern.

use std::collections::HashMap;
use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;

use crate::glob;

/// Longest pattern.
pub const MAX_PATTERN_BYTES: usize = 1024;

/// Words of 64 states: one for each byte of the longest pattern, and the last.
const MAX_WORDS: usize = MAX_PATTERN_BYTES / 64 + 1;

/// A match of at most this many steps is walked without a table: making one takes thousands.
const WALKED_STEPS: usize = 4096;

/// A pattern is longer than [`MAX_PATTERN_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatternTooLong {
    bytes: usize,
}

impl fmt::Display for PatternTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes;
        write!(
            f,
            "the pattern has {bytes} bytes, and at most {MAX_PATTERN_BYTES} are allowed"
        )
    }
}

impl std::error::Error for PatternTooLong {}

/// A glob pattern of Redis, see [`Pattern::matches`].
#[derive(Debug)]
pub struct Pattern {
    text: Bytes,
    /// Bytes of the literal part that it begins with.
    literal: usize,
    /// A star is followed by something, so that the walk may have to go back.
    retries: bool,
    table: OnceLock<Table>,
}

impl Pattern {
    /// Takes a pattern; every sequence of bytes is one.
    ///
    /// # Errors
    ///
    /// It is longer than [`MAX_PATTERN_BYTES`].
    pub fn new(text: Bytes) -> Result<Self, PatternTooLong> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(PatternTooLong { bytes: text.len() });
        }
        let is_special = |byte: &u8| matches!(byte, b'*' | b'?' | b'[' | b'\\');
        let literal = text.iter().position(is_special).unwrap_or(text.len());
        let before_last = text.iter().rposition(|byte| *byte != b'*').unwrap_or(0);
        let retries = text.iter().take(before_last).any(|byte| *byte == b'*');
        Ok(Self {
            text,
            literal,
            retries,
            table: OnceLock::new(),
        })
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.text
    }

    /// Whether the whole of `text` matches, by the rules of `stringmatchlen` of Redis 7.0 on x86-64.
    ///
    /// `*` stands for any bytes, `?` for one byte, `[a-z]` and `[^a-z]` for one byte of a class or not
    /// of it, and `\` makes the next byte stand for itself.
    ///
    /// Surprising cases, all as in Redis: nothing but the empty pattern matches the empty text, not even
    /// `*`, so a caller that means everything by `*` checks for it first. A class that does not close
    /// ends with the pattern. `]` cannot be first in a class but can be the end of a range. The bytes
    /// of a range are signed, so `\x80` is before `a`. A `\` at the end stands for itself.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        if !text.starts_with(self.literal_prefix()) {
            false
        } else if self.is_walked(text) {
            glob::matches(&self.text, text, false)
        } else {
            let table = self.table.get_or_init(|| Table::new(&self.text));
            table.matches(text)
        }
    }

    /// The same, and ASCII letters are equal to their other case, except those escaped within a class.
    /// For short texts, such as names: it takes a step per byte of the text and byte of the pattern.
    #[must_use]
    pub fn matches_any_case(&self, text: &[u8]) -> bool {
        glob::matches(&self.text, text, true)
    }

    /// The literal bytes with which every match begins.
    #[must_use]
    pub fn literal_prefix(&self) -> &[u8] {
        self.text.get(..self.literal).unwrap_or_default()
    }

    /// Makes the table now, if the pattern may need one: from then on a match takes at most
    /// [`Pattern::steps_per_byte`] for each byte of the text, however short that is.
    pub fn prepare(&self) {
        if self.retries {
            self.table.get_or_init(|| Table::new(&self.text));
        }
    }

    /// How many steps each byte of a text takes at most, once the pattern is prepared; none if what a match takes
    /// depends on the pattern's length alone.
    #[must_use]
    pub fn steps_per_byte(&self) -> usize {
        match self.retries {
            true => Table::words(&self.text),
            false => 0,
        }
    }

    /// How many steps [`Pattern::matches`] takes at most, about; a step takes some nanoseconds.
    #[must_use]
    pub fn steps(&self, text: &[u8]) -> usize {
        let prefix = self.literal_prefix();
        if !text.starts_with(prefix) {
            prefix.len() + 1
        } else if !self.retries {
            self.text.len() + 1
        } else if self.is_walked(text) {
            self.text.len() * text.len() + 1
        } else {
            Table::words(&self.text) * text.len()
        }
    }

    fn is_walked(&self, text: &[u8]) -> bool {
        let is_short = || self.text.len() * text.len() <= WALKED_STEPS;
        !self.retries || text.is_empty() || (self.table.get().is_none() && is_short())
    }
}

/// All ways to match at once: state `n` is in the set when the first `n` elements that are not stars
/// have matched the bytes read so far. A star lets the state before it stay.
#[derive(Debug)]
struct Table {
    words: usize,
    /// Which row a byte has.
    row_of: Box<[u8; 256]>,
    /// For each row, the states that are left by one of its bytes.
    rows: Vec<u64>,
    /// The states that may stay.
    stays: Vec<u64>,
    last: usize,
}

impl Table {
    fn words(pattern: &[u8]) -> usize {
        pattern.len() / 64 + 1
    }

    fn new(pattern: &[u8]) -> Self {
        let words = Self::words(pattern);
        let mut leaves = vec![vec![0; words]; 256];
        let mut stays = vec![0; words];
        let (mut rest, mut state) = (pattern, 0);
        while let [first, behind @ ..] = rest {
            if *first == b'*' {
                set(&mut stays, state);
                rest = behind;
                continue;
            }
            for (byte, leaves) in (0..=u8::MAX).zip(&mut leaves) {
                if glob::first_matches(rest, byte, false).0 {
                    set(leaves, state);
                }
            }
            rest = glob::first_matches(rest, 0, false).1;
            state += 1;
        }
        // Bytes that the pattern does not tell apart share a row: most patterns have a few.
        let (mut row_of, mut rows) = (Box::new([0; 256]), Vec::new());
        let mut known = HashMap::new();
        for (row, leaves) in row_of.iter_mut().zip(leaves) {
            // At most 256 rows, so the last one's number fits.
            let next = u8::try_from(known.len()).unwrap_or(u8::MAX);
            *row = *known.entry(leaves).or_insert_with_key(|leaves| {
                rows.extend_from_slice(leaves);
                next
            });
        }
        Self {
            words,
            row_of,
            rows,
            stays,
            last: state,
        }
    }

    fn matches(&self, text: &[u8]) -> bool {
        let mut all = [0; MAX_WORDS];
        let states = &mut all[..self.words];
        set(states, 0);
        for byte in text {
            let row = usize::from(self.row_of[usize::from(*byte)]) * self.words;
            let leaves = &self.rows[row..row + self.words];
            let (mut carry, mut any) = (0, 0);
            for ((state, leaves), stays) in states.iter_mut().zip(leaves).zip(&self.stays) {
                let moved = *state & leaves;
                *state = moved << 1 | carry | *state & stays;
                carry = moved >> 63;
                any |= *state;
            }
            if any == 0 {
                return false;
            }
        }
        // Nothing but the empty pattern matches the empty text; it is always walked.
        states[self.last / 64] >> (self.last % 64) & 1 == 1
    }
}

fn set(states: &mut [u64], state: usize) {
    if let Some(word) = states.get_mut(state / 64) {
        *word |= 1 << (state % 64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn the_table_and_the_walk_agree(
            pattern in prop::collection::vec(
                prop_oneof![any::<u8>(), prop::sample::select(b"**?[]^-\\abab".to_vec())],
                0..140,
            ),
            text in prop::collection::vec(
                prop_oneof![1 => any::<u8>(), 8 => prop::sample::select(b"ab".to_vec())],
                1..40,
            ),
        ) {
            let table = Table::new(&pattern).matches(&text);
            prop_assert_eq!(table, glob::matches(&pattern, &text, false));
        }

        #[test]
        fn the_table_finds_what_the_pattern_was_made_of(
            parts in prop::collection::vec(prop::collection::vec(97..100_u8, 1..20), 1..20),
            between in prop::collection::vec(97..100_u8, 0..20),
        ) {
            let pattern = parts.join(&b'*');
            let text = parts.join(&between[..]);
            prop_assert!(Table::new(&pattern).matches(&text));
            prop_assert!(!Table::new(&pattern).matches(&[&text[..], b"d"].concat()));
        }
    }

    #[test]
    fn every_bit_of_every_word_is_a_state() {
        for bytes in [1, 63, 64, 65, 127, 128, MAX_PATTERN_BYTES - 2] {
            let (pattern, text) = ([&vec![b'?'; bytes][..], b"*x"].concat(), vec![b'a'; bytes]);
            let table = Table::new(&pattern);
            assert!(table.matches(&[&text[..], b"x"].concat()), "{bytes}");
            assert!(table.matches(&[&text[..], b"yyx"].concat()), "{bytes}");
            assert!(!table.matches(&[&text[1..], b"x"].concat()), "{bytes}");
        }
    }

    #[test]
    fn as_many_rows_as_bytes_are_enough() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        let table = Table::new(&[&all[..], b"*x"].concat());
        // `\\`, `*`, `[`, and what a class has of all others.
        let distinct: BTreeSet<u8> = table.row_of.iter().copied().collect();
        assert_eq!(table.rows.len(), distinct.len() * table.words);
    }

    #[test]
    fn steps_are_few_for_every_pattern() {
        let text = vec![b'a'; 64 * 1024];
        for (pattern, most) in [
            (b"a".repeat(MAX_PATTERN_BYTES), 1025),
            ([&b"a".repeat(1000)[..], b"*"].concat(), 1002),
            (b"b*a*a*".to_vec(), 2),
            (b"*a*?*[a-b]*b".to_vec(), text.len()),
            (b"*a".repeat(512), MAX_WORDS * text.len()),
        ] {
            let pattern = Pattern::new(pattern.into()).unwrap();
            assert!(pattern.steps(&text) <= most, "{}", pattern.steps(&text));
        }
    }

    #[test]
    fn a_prepared_pattern_takes_few_steps_for_short_texts_too() {
        let text = [b'a'; 60];
        let pattern = Pattern::new(b"*a".repeat(32).into()).unwrap();
        assert!(pattern.steps(&text) > 3000);
        let before = pattern.matches(&text);
        pattern.prepare();
        assert_eq!(pattern.steps(&text), pattern.steps_per_byte() * text.len());
        assert_eq!((pattern.steps_per_byte(), before), (2, true));
        assert_eq!(
            (pattern.matches(&text), pattern.matches(b"")),
            (true, false)
        );
        let literal = Pattern::new(Bytes::from_static(b"user:*")).unwrap();
        assert_eq!(literal.steps_per_byte(), 0);
    }

    #[test]
    fn a_longer_pattern_is_refused() {
        let pattern = |bytes: usize| Pattern::new(vec![b'*'; bytes].into());
        assert!(pattern(MAX_PATTERN_BYTES).is_ok());
        let error = pattern(MAX_PATTERN_BYTES + 1).unwrap_err();
        let text = "the pattern has 1025 bytes, and at most 1024 are allowed";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_match_begins_with_the_literal_part_of_its_pattern() {
        let prefix = |text: &'static [u8]| {
            let pattern = Pattern::new(Bytes::from_static(text)).unwrap();
            pattern.literal_prefix().to_vec()
        };
        assert_eq!(prefix(b"user:*"), b"user:");
        assert_eq!(prefix(b"a\\*"), b"a");
        assert_eq!(prefix(b"plain"), b"plain");
    }
}
