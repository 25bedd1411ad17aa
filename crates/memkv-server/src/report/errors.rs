//! How often each kind of error was answered. A kind is the first word of the error.
//!
//! Never grows beyond [`MAX_KINDS`], even if clients could choose the words.

use std::collections::BTreeMap;

use memkv_node::lock::Mutex;

/// Kinds that are told apart, as in later versions of Redis; memkv's own are a few dozen. With their words they
/// take 10 KiB at most.
const MAX_KINDS: usize = 128;

/// Longest kind, as in Redis.
const MAX_KIND_BYTES: usize = 32;

/// The kind of an error that has none, as in Redis.
const PLAIN: &[u8] = b"ERR";

/// The kind under which further ones are counted.
const OTHER: &str = "OTHER";

/// Errors by kind.
#[derive(Default)]
pub(crate) struct Errors {
    kinds: Mutex<BTreeMap<Box<str>, u64>>,
}

impl Errors {
    /// Counts an error by its text.
    pub(crate) fn count(&self, text: &[u8]) {
        let kind = String::from_utf8_lossy(kind(text));
        let mut kinds = self.kinds.lock();
        if let Some(count) = kinds.get_mut(&*kind) {
            *count += 1;
            return;
        }
        // One place is for the others.
        let kind = match kinds.len() + 1 < MAX_KINDS {
            true => &*kind,
            false => OTHER,
        };
        *kinds.entry(kind.into()).or_default() += 1;
    }

    /// Each kind with its number, in the order of the kinds.
    pub(crate) fn counted(&self) -> Vec<(Box<str>, u64)> {
        let kinds = self.kinds.lock();
        let each = kinds.iter().map(|(kind, count)| (kind.clone(), *count));
        each.collect()
    }

    /// Forgets everything.
    pub(crate) fn reset(&self) {
        self.kinds.lock().clear();
    }
}

/// The first word, if it can stand in a line of INFO.
fn kind(text: &[u8]) -> &[u8] {
    let end = text
        .iter()
        .take(MAX_KIND_BYTES)
        .position(|byte| *byte == b' ');
    let word = end.map_or(PLAIN, |end| &text[..end]);
    let stands = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b'=');
    match !word.is_empty() && word.iter().all(stands) {
        true => word,
        false => PLAIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_the_first_word() {
        let errors = Errors::default();
        for text in [
            "ERR syntax error",
            "NOPERM no",
            "ERR again",
            "short",
            "",
            " x",
            "a:b c",
            "\r\n x",
        ] {
            errors.count(text.as_bytes());
        }
        errors.count(&[b'x'; 100]);
        let counted = errors.counted();
        assert_eq!(counted, [("ERR".into(), 8), ("NOPERM".into(), 1)]);
        errors.reset();
        assert_eq!(errors.counted(), []);
    }

    #[test]
    fn kinds_do_not_grow_without_a_bound() {
        let errors = Errors::default();
        for number in 0..10 * MAX_KINDS {
            errors.count(format!("K{number} x").as_bytes());
            errors.count(b"K0 again");
        }
        let counted = errors.counted();
        assert_eq!(counted.len(), MAX_KINDS);
        assert!(counted.iter().all(|(kind, _)| kind.len() <= MAX_KIND_BYTES));
        let all: u64 = counted.iter().map(|(_, count)| count).sum();
        assert_eq!(all, 20 * MAX_KINDS as u64);
        assert!(counted.contains(&(OTHER.into(), 10 * MAX_KINDS as u64 - MAX_KINDS as u64 + 1)));
    }
}
