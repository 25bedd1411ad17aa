//! The grammar of Redis's access lists: which modifiers there are, what is wrong with one, and the text in
//! which a user's rules are kept. Never hashes a password; `draft` does.
//!
//! Invariants: the text of rules, read again, is the same rules; what a user may hold is bounded.

use memkv_store::MAX_RULES_BYTES;

use super::selector::Selector;

/// Most selectors of a user, besides its own rules.
pub(crate) const MAX_SELECTORS: usize = 16;

/// What is wrong with a modifier, in Redis's words where Redis has the case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Bad {
    #[error("Unknown command or category name in ACL")]
    Unknown,
    #[error("Syntax error")]
    Syntax,
    #[error(
        "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any \
         effect. Try 'resetkeys' to start with an empty list of patterns"
    )]
    AfterAllKeys,
    #[error(
        "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have \
         any effect. Try 'resetchannels' to start with an empty list of channels"
    )]
    AfterAllChannels,
    #[error("The password you are trying to remove from the user does not exist")]
    NoSuchPassword,
    #[error(
        "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
    )]
    NotAHash,
    #[error("Allowing first-arg of a subcommand is not supported")]
    FirstArgOfSubcommand,
    #[error("too many {0}; at most {1} are allowed")]
    TooMany(&'static str, usize),
    #[error("{0}")]
    Pattern(String),
}

/// What a user may do: allowed is what one of the selectors allows. The first one is always there.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    selectors: Vec<Selector>,
}

impl Default for Rules {
    /// Allows nothing.
    fn default() -> Self {
        Self {
            selectors: vec![Selector::default()],
        }
    }
}

impl Rules {
    /// Those of one who may do everything.
    pub(crate) fn everything() -> Self {
        let mut root = Selector::default();
        root.allow_all();
        Self {
            selectors: vec![root],
        }
    }

    /// Of a text that [`Rules::text`] has written, or another build has.
    ///
    /// # Errors
    /// What this build does not understand. Then nothing of it is allowed.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Bad> {
        let mut rules = Self::default();
        let words: Vec<&[u8]> = text.split(|byte| *byte == b' ').collect();
        for op in merge(&words).map_err(|_unclosed| Bad::Syntax)? {
            rules.modify(&op)?;
        }
        Ok(rules)
    }

    /// Takes one modifier about keys, channels, commands or selectors.
    ///
    /// # Errors
    /// What is wrong with it; the rules may have changed in part, and are not to be used.
    pub(crate) fn modify(&mut self, op: &[u8]) -> Result<(), Bad> {
        match op {
            [] => Ok(()),
            [b'(', words @ .., b')'] => self.add_selector(words),
            _ if op.eq_ignore_ascii_case(b"clearselectors") => {
                self.selectors.truncate(1);
                Ok(())
            }
            _ => match self.selectors.first_mut() {
                Some(root) => root.modify(op),
                None => Err(Bad::Syntax),
            },
        }?;
        if self.text().len() > MAX_RULES_BYTES {
            return Err(Bad::TooMany("bytes of rules", MAX_RULES_BYTES));
        }
        Ok(())
    }

    fn add_selector(&mut self, words: &[u8]) -> Result<(), Bad> {
        if self.selectors.len() > MAX_SELECTORS {
            return Err(Bad::TooMany("selectors", MAX_SELECTORS));
        }
        let mut selector = Selector::default();
        let words = words.split(u8::is_ascii_whitespace);
        for word in words.filter(|word| !word.is_empty()) {
            // In the text, this would be the end of the selector.
            if word.ends_with(b")") {
                return Err(Bad::Syntax);
            }
            selector.modify(word)?;
        }
        self.selectors.push(selector);
        Ok(())
    }

    /// The user's own rules, and its selectors.
    pub(crate) fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// Whether everything is allowed.
    pub(crate) fn is_all(&self) -> bool {
        self.selectors.iter().any(Selector::is_all)
    }

    /// Whether a subscription to a channel, or to a pattern of channels, is allowed.
    pub(crate) fn allows_channel(&self, name: &[u8], is_pattern: bool) -> bool {
        let mut selectors = self.selectors.iter();
        selectors.any(|selector| selector.allows_channel(name, is_pattern))
    }

    /// How many patterns a key may have to be compared with.
    pub(crate) fn patterns(&self) -> usize {
        self.selectors.iter().map(Selector::patterns).sum()
    }

    /// Whether all that `other` allows is certainly allowed here too.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let is_covered = |theirs: &Selector| self.selectors.iter().any(|mine| mine.covers(theirs));
        other.selectors.iter().all(is_covered)
    }

    /// The text that [`Rules::parse`] takes, and `ACL LIST` shows.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for (at, selector) in self.selectors.iter().enumerate() {
            match at {
                0 => text.extend(selector.text()),
                _ => text.extend([b" (", &selector.text()[..], b")"].concat()),
            }
        }
        text
    }
}

/// Puts the words of each selector together: `(~a`, `+get)` are one modifier. An error is the place of a
/// parenthesis that does not close.
pub(crate) fn merge<W: AsRef<[u8]>>(words: &[W]) -> Result<Vec<Vec<u8>>, usize> {
    let mut merged = Vec::new();
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (at, word) in words.iter().enumerate() {
        let word = word.as_ref();
        match &mut open {
            None if word.starts_with(b"(") && !word.ends_with(b")") => {
                open = Some((at, word.to_vec()));
            }
            None => merged.push(word.to_vec()),
            Some((_, selector)) => {
                selector.push(b' ');
                selector.extend_from_slice(word);
                if word.ends_with(b")") {
                    merged.extend(open.take().map(|(_, selector)| selector));
                }
            }
        }
    }
    match open {
        Some((at, _)) => Err(at),
        None => Ok(merged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::selector::{MAX_PATTERNS, MAX_RULES};

    fn rules(text: &str) -> Result<Rules, Bad> {
        let words: Vec<&str> = text.split(' ').collect();
        let mut rules = Rules::default();
        for op in merge(&words).map_err(|_| Bad::Syntax)? {
            rules.modify(&op)?;
        }
        Ok(rules)
    }

    fn normal(text: &str) -> String {
        String::from_utf8(rules(text).unwrap().text()).unwrap()
    }

    /// The right-hand sides are what redis-server 7.2 lists.
    #[test]
    fn rules_have_one_text_that_is_read_as_the_same_rules() {
        for (given, text) in [
            ("", "resetchannels -@all"),
            ("allkeys allchannels allcommands", "~* &* +@all"),
            (
                "~a* %R~b* +get +@READ -mget +client|ID",
                "~a* %R~b* resetchannels -@all +get +@read -mget +client|id",
            ),
            ("%R~a %W~a", "~a resetchannels -@all"),
            ("%RW~*", "%RW~* resetchannels -@all"),
            ("%R", "%R~ resetchannels -@all"),
            ("+get -get +get", "resetchannels -@all +get"),
            ("+client|id -client", "resetchannels -@all -client"),
            ("+@all -debug +@all", "resetchannels +@all"),
            (
                "+select|0 +lpush +xgroup|create",
                "resetchannels -@all +select|0 +lpush +xgroup|create",
            ),
            (
                "&news.* &x (~c* +set) (%W~d)",
                "resetchannels &news.* &x -@all (~c* resetchannels -@all +set) (%W~d resetchannels -@all)",
            ),
            ("(+get) clearselectors ~k", "~k resetchannels -@all"),
        ] {
            assert_eq!(normal(given), text, "{given}");
            assert_eq!(normal(text), text, "{given}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_rediss_words() {
        for (given, text) in [
            ("+foo", "Unknown command or category name in ACL"),
            ("+@foo", "Unknown command or category name in ACL"),
            ("-select|0", "Unknown command or category name in ACL"),
            ("+config|foo", "Unknown command or category name in ACL"),
            ("foo", "Syntax error"),
            ("+get|", "Syntax error"),
            ("%~a", "Syntax error"),
            ("%RX~a", "Syntax error"),
            ("%RR~a", "Syntax error"),
            ("~a\tb", "Syntax error"),
            ("(~a))", "Syntax error"),
            (
                "+config|get|foo",
                "Allowing first-arg of a subcommand is not supported",
            ),
        ] {
            assert_eq!(rules(given).unwrap_err().to_string(), text, "{given}");
        }
        assert_eq!(rules("~* ~a").unwrap_err(), Bad::AfterAllKeys);
        assert_eq!(rules("&* &a").unwrap_err(), Bad::AfterAllChannels);
        assert_eq!(merge(&["on", "(+get"]), Err(1));
    }

    #[test]
    fn a_user_holds_a_bounded_number_of_everything() {
        let many = |count: usize, word: &dyn Fn(usize) -> String| {
            let words: Vec<_> = (0..count).map(word).collect();
            rules(&words.join(" "))
        };
        let keys = |at| format!("~{at}");
        assert!(many(MAX_PATTERNS, &keys).is_ok());
        assert!(many(MAX_PATTERNS + 1, &keys).is_err());
        let channels = |at| format!("&{at}");
        assert!(many(MAX_PATTERNS, &channels).is_ok());
        assert!(many(MAX_PATTERNS + 1, &channels).is_err());
        let selectors = |_| "(+get)".to_owned();
        assert!(many(MAX_SELECTORS, &selectors).is_ok());
        assert!(many(MAX_SELECTORS + 1, &selectors).is_err());
        let firsts = |at| format!("+select|{at}");
        assert!(many(MAX_RULES, &firsts).is_ok());
        assert!(many(MAX_RULES + 1, &firsts).is_err());
        let long = "x".repeat(1000);
        let longest = |at| format!("~{long}{at}");
        assert!(many(MAX_RULES_BYTES / 1100, &longest).is_ok());
        assert!(many(MAX_RULES_BYTES / 1000 + 1, &longest).is_err());
        assert!(rules(&format!("~{}", "x".repeat(1025))).is_err());
    }

    #[test]
    fn only_what_adds_covers_what_was_there() {
        let covers = |new: &str, old: &str| rules(new).unwrap().covers(&rules(old).unwrap());
        for (new, old) in [
            ("+@all ~* &*", "+get ~a"),
            ("+get +set ~a ~b", "+get ~a"),
            ("~a", "%R~a"),
            ("+get (+set)", "+get"),
            ("+@all", "+@all -debug"),
            ("+select", "+select|0"),
        ] {
            assert!(covers(new, old), "{new} / {old}");
        }
        for (new, old) in [
            ("+get ~a", "+get ~a ~b"),
            ("+get", "+get +lpush"),
            ("+@all -get", "+@all"),
            ("%R~a", "~a"),
            ("", "&x"),
            ("+get", "+get (+set)"),
            ("+select|1", "+select|0"),
            ("+@read -get", "+@read"),
        ] {
            assert!(!covers(new, old), "{new} / {old}");
        }
    }
}
