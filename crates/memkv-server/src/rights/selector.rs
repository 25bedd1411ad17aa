//! One selector of a user: keys, channels and commands, as Redis's access lists say them, and whether it
//! allows a call. Never knows users or secrets.
//!
//! Invariants: the text of a selector, read again, is the same selector; matching takes linear time; what
//! a selector holds is bounded.

use std::sync::Arc;

use bytes::Bytes;
use memkv_resp::Pattern;
use memkv_store::Access;

use super::grammar::Bad;
use super::names;
use crate::commands::{Spec, TABLE, find};

/// Most patterns of keys, and most of channels, in one selector: each key of a call is compared with all.
pub(crate) const MAX_PATTERNS: usize = 64;

/// Most rules about commands in one selector: more than there are commands.
pub(crate) const MAX_RULES: usize = 512;

/// The first argument of `+command|argument` is a word.
const MAX_FIRST_ARG_BYTES: usize = 64;

/// Categories of commands, in the order in which `ACL CAT` lists them.
pub(crate) const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// What a pattern of keys allows: the kinds of writing are one right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Grant {
    reads: bool,
    writes: bool,
}

impl Grant {
    const ALL: Self = Self {
        reads: true,
        writes: true,
    };

    /// Metadata alone, such as a length, is allowed by every pattern that matches.
    fn covers(self, access: Access) -> bool {
        (self.reads || !access.reads()) && (self.writes || !access.writes())
    }

    fn includes(self, other: Self) -> bool {
        (self.reads || !other.reads) && (self.writes || !other.writes)
    }
}

#[derive(Debug, Clone)]
struct KeyPattern {
    grant: Grant,
    pattern: Arc<Pattern>,
}

/// A set of the table's commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct CommandSet([u64; CommandSet::WORDS]);

impl CommandSet {
    /// Room for 256 commands; a test compares it with the table.
    const WORDS: usize = 4;
    const ALL: Self = Self([u64::MAX; Self::WORDS]);

    fn has(&self, spec: &Spec) -> bool {
        let at = spec.index();
        let word = self.0.get(at / 64).copied().unwrap_or(0);
        word & (1 << (at % 64)) != 0
    }

    fn set(&mut self, spec: &Spec, is: bool) {
        let at = spec.index();
        if let Some(word) = self.0.get_mut(at / 64) {
            *word = (*word & !(1 << (at % 64))) | (u64::from(is) << (at % 64));
        }
    }

    fn covers(&self, other: &Self) -> bool {
        let mut words = self.0.iter().zip(&other.0);
        words.all(|(mine, other)| other & !mine == 0)
    }
}

/// `+name` or `-name`; the name may be a category's, with its `@`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    allows: bool,
    name: String,
}

/// See the module's documentation. The default allows nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    all_keys: bool,
    keys: Vec<KeyPattern>,
    all_channels: bool,
    channels: Vec<Arc<Pattern>>,
    /// The rules begin with all commands, and not with none.
    from_all: bool,
    rules: Vec<Rule>,
    /// Follows from the rules.
    commands: CommandSet,
    /// Commands that are allowed with this first argument only, by place in the table.
    first_args: Vec<(usize, String)>,
}

impl Selector {
    /// Takes one modifier, such as `~key*` or `+get`.
    pub(super) fn modify(&mut self, op: &[u8]) -> Result<(), Bad> {
        let is = |word: &str| op.eq_ignore_ascii_case(word.as_bytes());
        if is("allkeys") || is("~*") {
            self.all_keys = true;
            self.keys.clear();
        } else if is("resetkeys") {
            self.all_keys = false;
            self.keys.clear();
        } else if is("allchannels") || is("&*") {
            self.all_channels = true;
            self.channels.clear();
        } else if is("resetchannels") {
            self.all_channels = false;
            self.channels.clear();
        } else if is("allcommands") || is("+@all") {
            self.set_all_commands(true);
        } else if is("nocommands") || is("-@all") {
            self.set_all_commands(false);
        } else {
            return match op {
                [b'~', pattern @ ..] => self.add_keys(Grant::ALL, pattern),
                // As in Redis, nothing of it is read then.
                [b'%', ..] if self.all_keys => Err(Bad::AfterAllKeys),
                [b'%', rest @ ..] => {
                    let (grant, pattern) = permissions(rest)?;
                    self.add_keys(grant, pattern)
                }
                [b'&', pattern @ ..] => self.add_channels(pattern),
                [sign @ (b'+' | b'-'), name @ ..] => {
                    let name = std::str::from_utf8(name).map_err(|_| Bad::Unknown)?;
                    self.set_commands(*sign == b'+', &name.to_ascii_lowercase())
                }
                _ => Err(Bad::Syntax),
            };
        }
        Ok(())
    }

    /// Allows everything.
    pub(super) fn allow_all(&mut self) {
        *self = Self::default();
        self.all_keys = true;
        self.all_channels = true;
        self.set_all_commands(true);
    }

    fn set_all_commands(&mut self, is: bool) {
        self.from_all = is;
        self.rules.clear();
        self.first_args.clear();
        self.commands = if is {
            CommandSet::ALL
        } else {
            CommandSet::default()
        };
    }

    fn add_keys(&mut self, grant: Grant, pattern: &[u8]) -> Result<(), Bad> {
        if self.all_keys {
            return Err(Bad::AfterAllKeys);
        }
        let pattern = checked(pattern)?;
        let same = |known: &&mut KeyPattern| known.pattern.as_bytes() == pattern.as_bytes();
        if let Some(known) = self.keys.iter_mut().find(same) {
            known.grant.reads |= grant.reads;
            known.grant.writes |= grant.writes;
            return Ok(());
        }
        if self.keys.len() >= MAX_PATTERNS {
            return Err(Bad::TooMany("patterns of keys in a selector", MAX_PATTERNS));
        }
        self.keys.push(KeyPattern { grant, pattern });
        Ok(())
    }

    fn add_channels(&mut self, pattern: &[u8]) -> Result<(), Bad> {
        if self.all_channels {
            return Err(Bad::AfterAllChannels);
        }
        let pattern = checked(pattern)?;
        let same = |known: &Arc<Pattern>| known.as_bytes() == pattern.as_bytes();
        if self.channels.iter().any(same) {
            return Ok(());
        }
        if self.channels.len() >= MAX_PATTERNS {
            return Err(Bad::TooMany(
                "patterns of channels in a selector",
                MAX_PATTERNS,
            ));
        }
        self.channels.push(pattern);
        Ok(())
    }

    /// A rule about a command, a subcommand, a category or a command with a first argument.
    fn set_commands(&mut self, allows: bool, name: &str) -> Result<(), Bad> {
        if let Some(category) = name.strip_prefix('@') {
            if !CATEGORIES.contains(&category) {
                return Err(Bad::Unknown);
            }
            self.note(allows, name)?;
            for spec in TABLE.iter().filter(|spec| spec.is_in(category)) {
                self.set_command(spec, allows);
            }
            return Ok(());
        }
        match name.rsplit_once('|') {
            Some((command, first)) if allows => {
                if !is_known(command) {
                    return Err(Bad::Unknown);
                }
                if command.contains('|') {
                    return Err(Bad::FirstArgOfSubcommand);
                }
                if first.is_empty() || first.len() > MAX_FIRST_ARG_BYTES || has_space(first) {
                    return Err(Bad::Syntax);
                }
                if !is_container(command) {
                    self.note(allows, name)?;
                    if let Some(spec) = find(command.as_bytes()) {
                        self.first_args.push((spec.index(), first.to_owned()));
                    }
                    return Ok(());
                }
            }
            _ => {}
        }
        if !is_known(name) {
            return Err(Bad::Unknown);
        }
        self.note(allows, name)?;
        if let Some(spec) = find(name.as_bytes()) {
            self.set_command(spec, allows);
        }
        Ok(())
    }

    /// A command with all its subcommands.
    fn set_command(&mut self, spec: &Spec, allows: bool) {
        let at = spec.index();
        self.commands.set(spec, allows);
        self.first_args.retain(|(command, _)| *command != at);
        if !spec.is_subcommand() {
            for sub in spec.subcommands() {
                self.commands.set(sub, allows);
            }
        }
    }

    /// Keeps the rule, in the place of those that it overrides.
    fn note(&mut self, allows: bool, name: &str) -> Result<(), Bad> {
        let is_part = |rule: &Rule| {
            let rest = rule.name.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('|'))
        };
        self.rules.retain(|rule| !is_part(rule));
        if self.rules.len() >= MAX_RULES {
            return Err(Bad::TooMany(
                "rules about commands in a selector",
                MAX_RULES,
            ));
        }
        let name = name.to_owned();
        self.rules.push(Rule { allows, name });
        Ok(())
    }

    /// Whether it allows everything.
    pub(crate) fn is_all(&self) -> bool {
        self.all_keys && self.all_channels && self.from_all && self.rules.is_empty()
    }

    /// Whether it allows a command; `first` is its argument behind its name.
    pub(crate) fn allows_command(&self, spec: &Spec, first: Option<&[u8]>) -> bool {
        let with_it = |(command, word): &(usize, String)| {
            let is = |first: &[u8]| first.eq_ignore_ascii_case(word.as_bytes());
            *command == spec.index() && first.is_some_and(is)
        };
        self.commands.has(spec) || self.first_args.iter().any(with_it)
    }

    /// Whether it allows this use of a key.
    pub(crate) fn allows_key(&self, key: &[u8], access: Access) -> bool {
        let fits = |known: &KeyPattern| known.grant.covers(access) && known.pattern.matches(key);
        self.all_keys || self.keys.iter().any(fits)
    }

    /// Whether it allows this use of every key from `start` on, and below `end` if there is one: a pattern
    /// says so if it is literal up to one star at its end.
    pub(crate) fn allows_range(&self, start: &[u8], end: Option<&[u8]>, access: Access) -> bool {
        let fits = |known: &KeyPattern| {
            let literal = known.pattern.literal_prefix();
            known.grant.covers(access)
                && known.pattern.as_bytes().strip_prefix(literal) == Some(b"*")
                && holds_range(literal, start, end)
        };
        self.all_keys || self.keys.iter().any(fits)
    }

    /// Whether it allows a channel; a pattern of channels must be granted as it is.
    pub(crate) fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        let fits = |known: &Arc<Pattern>| match is_pattern {
            true => known.as_bytes() == channel,
            false => known.matches(channel),
        };
        self.all_channels || self.channels.iter().any(fits)
    }

    /// How many patterns a key is compared with.
    pub(crate) fn patterns(&self) -> usize {
        self.keys.len() + self.channels.len()
    }

    /// Steps for each byte of a key or channel.
    pub(super) fn steps_per_byte(&self) -> usize {
        self.all_patterns().map(Pattern::steps_per_byte).sum()
    }

    /// Makes what matching needs, once the patterns are known to be few.
    pub(super) fn prepare(&self) {
        self.all_patterns().for_each(Pattern::prepare);
    }

    fn all_patterns(&self) -> impl Iterator<Item = &Pattern> {
        let keys = self.keys.iter().map(|key| &*key.pattern);
        keys.chain(self.channels.iter().map(|channel| &**channel))
    }

    /// Whether everything that `other` allows is allowed here too, on this build and on others.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let has_key = |key: &KeyPattern| {
            let same = |mine: &KeyPattern| {
                mine.pattern.as_bytes() == key.pattern.as_bytes() && mine.grant.includes(key.grant)
            };
            self.keys.iter().any(same)
        };
        let has_channel = |channel: &Arc<Pattern>| {
            let same = |mine: &Arc<Pattern>| mine.as_bytes() == channel.as_bytes();
            self.channels.iter().any(same)
        };
        let keys = self.all_keys || (!other.all_keys && other.keys.iter().all(has_key));
        let channels =
            self.all_channels || (!other.all_channels && other.channels.iter().all(has_channel));
        // Another build may have other commands in a category, so the rules are compared too.
        let allows_all_of = |rule: &Rule, mine: &Rule| {
            let rest = rule.name.strip_prefix(&mine.name[..]);
            mine.allows && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('|'))
        };
        let is_kept =
            |rule: &Rule| !rule.allows || self.rules.iter().any(|mine| allows_all_of(rule, mine));
        let refuses_more = self
            .rules
            .iter()
            .any(|rule| !rule.allows && !other.rules.contains(rule));
        let rules = match self.from_all {
            true => !refuses_more || self.rules.is_empty(),
            false => !other.from_all && !refuses_more && other.rules.iter().all(is_kept),
        };
        let has_first = |first: &(usize, String)| {
            self.first_args.contains(first)
                || TABLE
                    .get(first.0)
                    .is_some_and(|spec| self.commands.has(spec))
        };
        keys && channels
            && rules
            && self.commands.covers(&other.commands)
            && other.first_args.iter().all(has_first)
    }

    /// The patterns of keys, as `ACL GETUSER` has them.
    pub(crate) fn keys_text(&self) -> Vec<u8> {
        if self.all_keys {
            return b"~*".to_vec();
        }
        let words = self.keys.iter().map(|key| {
            let pattern = key.pattern.as_bytes();
            let mark: &[u8] = match (key.grant.reads, key.grant.writes) {
                // `~*` stands for all keys, the empty one too, and this pattern does not.
                (true, true) if pattern == "*" => b"%RW~",
                (true, true) => b"~",
                (true, false) => b"%R~",
                (false, _) => b"%W~",
            };
            [mark, pattern].concat()
        });
        words.collect::<Vec<_>>().join(&b' ')
    }

    /// The patterns of channels, as `ACL GETUSER` has them.
    pub(crate) fn channels_text(&self) -> Vec<u8> {
        if self.all_channels {
            return b"&*".to_vec();
        }
        let words = self
            .channels
            .iter()
            .map(|pattern| [b"&", &pattern.as_bytes()[..]].concat());
        words.collect::<Vec<_>>().join(&b' ')
    }

    /// The rules about commands, as `ACL GETUSER` has them.
    pub(crate) fn commands_text(&self) -> String {
        let mut text = if self.from_all { "+@all" } else { "-@all" }.to_owned();
        for rule in &self.rules {
            text.push(' ');
            text.push(if rule.allows { '+' } else { '-' });
            text.push_str(&rule.name);
        }
        text
    }

    /// The whole selector, as `ACL LIST` has it and [`Selector::modify`] takes it word by word.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut words = Vec::new();
        let keys = self.keys_text();
        if !keys.is_empty() {
            words.push(keys);
        }
        if !self.all_channels {
            words.push(b"resetchannels".to_vec());
        }
        let channels = self.channels_text();
        if !channels.is_empty() {
            words.push(channels);
        }
        words.push(self.commands_text().into_bytes());
        words.join(&b' ')
    }
}

/// Whether all keys of a range begin with `prefix`.
fn holds_range(prefix: &[u8], start: &[u8], end: Option<&[u8]>) -> bool {
    // The first key behind all those that begin with it; there is none if all its bytes are the largest.
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX);
    let behind = last.and_then(|last| {
        let (last, head) = prefix.get(..=last)?.split_last()?;
        Some([head, &[last.saturating_add(1)]].concat())
    });
    let ends = match (&behind, end) {
        (None, _) => true,
        (Some(behind), Some(end)) => end <= &behind[..],
        (Some(_), None) => false,
    };
    start >= prefix && ends
}

/// The letters behind `%`, and the pattern behind the tilde; without a tilde it is empty, as in Redis.
fn permissions(rest: &[u8]) -> Result<(Grant, &[u8]), Bad> {
    let mut grant = Grant {
        reads: false,
        writes: false,
    };
    let mut pattern = rest;
    while let [letter, behind @ ..] = pattern {
        pattern = behind;
        match letter.to_ascii_uppercase() {
            b'R' if !grant.reads => grant.reads = true,
            b'W' if !grant.writes => grant.writes = true,
            b'~' => break,
            _ => return Err(Bad::Syntax),
        }
    }
    match grant.reads || grant.writes {
        true => Ok((grant, pattern)),
        false => Err(Bad::Syntax),
    }
}

/// A pattern that stays one word in the text.
fn checked(pattern: &[u8]) -> Result<Arc<Pattern>, Bad> {
    let splits = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0 | 0x0b);
    if pattern.iter().any(splits) {
        return Err(Bad::Syntax);
    }
    let pattern = Pattern::new(Bytes::copy_from_slice(pattern));
    pattern
        .map(Arc::new)
        .map_err(|why| Bad::Pattern(why.to_string()))
}

fn has_space(word: &str) -> bool {
    word.contains(|letter: char| letter.is_whitespace() || letter.is_control())
}

fn is_known(name: &str) -> bool {
    find(name.as_bytes()).is_some() || names::is_redis(name)
}

fn is_container(name: &str) -> bool {
    let ours = find(name.as_bytes()).is_some_and(|spec| spec.subcommands().next().is_some());
    ours || names::is_container(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_into_a_set() {
        assert!(TABLE.len() <= 64 * CommandSet::WORDS, "{}", TABLE.len());
        for (at, spec) in TABLE.iter().enumerate() {
            assert_eq!(spec.index(), at);
        }
    }

    #[test]
    fn a_range_needs_a_pattern_that_holds_it() {
        let holds = |prefix: &str, start: &str, end: Option<&str>| {
            holds_range(prefix.as_bytes(), start.as_bytes(), end.map(str::as_bytes))
        };
        assert!(holds("", "", None) && holds("", "a", Some("b")));
        assert!(holds("a", "a", Some("b")) && holds("a", "ab", Some("ac")));
        assert!(!holds("a", "a", None) && !holds("a", "", Some("b")));
        assert!(!holds("a", "a", Some("b\0")) && !holds("ab", "a", Some("b")));
        assert!(holds_range(b"\xff", b"\xff", None) && !holds_range(b"\xff", b"\xfe", None));
    }

    #[test]
    fn every_category_of_the_table_is_listed() {
        for spec in TABLE {
            for category in spec.categories() {
                assert!(CATEGORIES.contains(&&category[1..]), "{category}");
            }
        }
    }
}
