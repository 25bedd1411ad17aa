//! The grammar of Redis's access lists: which modifiers there are, what is wrong with one, and the text in
//! which a user's rules are kept. Never hashes a password; `draft` does.
//!
//! Invariants: the text of rules, read again, is the same rules; what a user may hold is bounded; reading rules takes
//! linear time.

use memkv_store::MAX_RULES_BYTES;

use super::selector::Selector;

/// Most selectors of a user, besides its own rules.
pub(crate) const MAX_SELECTORS: usize = 16;

/// Most steps that all patterns of a user together take for each byte of a key. Those that end with their only star
/// take none, others one for each 64 bytes of the pattern; a step takes about a nanosecond.
pub(crate) const MAX_STEPS_PER_BYTE: usize = 64;

/// Steps to compare a name with a pattern, besides those for each byte.
const STEPS_OF_PATTERN: usize = 8;

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
    #[error(
        "the patterns take too long to compare: at most {MAX_STEPS_PER_BYTE} for each 64 bytes may have a star before \
         their end; patterns such as user:* do not count"
    )]
    Slow,
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
        rules.check()?;
        rules.selectors.iter().for_each(Selector::prepare);
        Ok(rules)
    }

    /// Whether all of it together is within the limits of a user. Asked once, after the last modifier: the text is
    /// as long as all of them.
    ///
    /// # Errors
    /// What is too much.
    pub(crate) fn check(&self) -> Result<(), Bad> {
        if self.steps_per_byte() > MAX_STEPS_PER_BYTE {
            return Err(Bad::Slow);
        }
        if self.text().len() > MAX_RULES_BYTES {
            return Err(Bad::TooMany("bytes of rules", MAX_RULES_BYTES));
        }
        Ok(())
    }

    /// Takes one modifier about keys, channels, commands or selectors. What a selector may hold is bounded here,
    /// and all of it together by [`Rules::check`].
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
        }
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

    /// About how many steps of a nanosecond or two it takes to judge so many keys or channels with so many bytes,
    /// at most.
    pub(crate) fn steps(&self, names: usize, bytes: usize) -> usize {
        let patterns: usize = self.selectors.iter().map(Selector::patterns).sum();
        let of_names = names.saturating_mul(patterns * STEPS_OF_PATTERN);
        of_names.saturating_add(bytes.saturating_mul(self.steps_per_byte()))
    }

    fn steps_per_byte(&self) -> usize {
        self.selectors.iter().map(Selector::steps_per_byte).sum()
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
    use std::time::{Duration, Instant};

    use super::*;
    use crate::rights::selector::{MAX_PATTERNS, MAX_RULES};

    fn rules(text: &str) -> Result<Rules, Bad> {
        let words: Vec<&str> = text.split(' ').collect();
        let mut rules = Rules::default();
        for op in merge(&words).map_err(|_| Bad::Syntax)? {
            rules.modify(&op)?;
        }
        rules.check()?;
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

    /// The best of several rounds, since the machine may be busy.
    #[test]
    fn a_modifier_takes_as_long_for_a_user_with_long_rules_as_for_one_with_none() {
        // Short ones and many: the best of each is one in which nothing else had the processor.
        const ROUNDS: usize = 25;
        const MODIFIERS: usize = 300;
        let mut text = String::new();
        for at in 0..MAX_PATTERNS {
            text += &format!(" ~{at}{}* &{at}{}*", "k".repeat(100), "c".repeat(100));
        }
        let mut long = rules(text.trim_start()).unwrap();
        assert!(long.text().len() > MAX_RULES_BYTES * 3 / 4);
        let time = |rules: &mut Rules| {
            let started = Instant::now();
            for at in 0..MODIFIERS {
                let op: &[u8] = if at % 2 == 0 { b"-get" } else { b"+get" };
                rules.modify(op).unwrap();
            }
            started.elapsed()
        };
        let mut none = Rules::default();
        let (mut best_of_none, mut best_of_long) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            best_of_none = best_of_none.min(time(&mut none));
            best_of_long = best_of_long.min(time(&mut long));
        }
        eprintln!("{MODIFIERS} modifiers: {best_of_none:?}, with long rules {best_of_long:?}");
        // Copying the rules once for each modifier takes a hundred times as long.
        assert!(best_of_long < best_of_none * 12);
    }

    #[test]
    fn patterns_that_compare_slowly_are_few_in_all_selectors_together() {
        let slow = |count: usize| {
            let words = (0..count).map(|at| format!("~*a*{at}*b"));
            words.collect::<Vec<_>>().join(" ")
        };
        let full = slow(MAX_STEPS_PER_BYTE);
        assert!(rules(&full).is_ok());
        assert_eq!(rules(&format!("{full} (~*x*y)")).unwrap_err(), Bad::Slow);
        assert_eq!(rules(&format!("{full} (&*x*y)")).unwrap_err(), Bad::Slow);
        assert!(rules(&format!("{full} (~x* %R~y ~z?*)")).is_ok());
        // A long one takes more steps.
        let long = format!("~{}b", "*a".repeat(500));
        assert_eq!(
            rules(&format!("{long} {}", slow(60))).unwrap_err(),
            Bad::Slow
        );
        // What it takes is bounded for each key and for each byte.
        let full = rules(&full).unwrap();
        assert_eq!(full.steps(0, 1000), 1000 * MAX_STEPS_PER_BYTE);
        assert_eq!(
            full.steps(10, 0),
            10 * MAX_STEPS_PER_BYTE * STEPS_OF_PATTERN
        );
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
