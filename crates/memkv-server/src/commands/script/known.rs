//! The scripts that memkv recognises: locks and rate limits of common libraries. Texts are compared
//! token by token, so that comments, white space, kinds of quotes and the case of command names do
//! not matter; any other difference makes it another script. Never executes anything: `plan` says
//! what each script is in commands.

use super::sha1;

/// A script that is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Deletes a lock that one holds.
    DeleteIfEqual,
    /// Lets a lock that one holds last longer: 1 or 0.
    ExpireIfEqual,
    /// Lets a lock that one holds, and that expires, last longer by a time, or for a time given
    /// anew: 1 or 0.
    ExtendIfEqual,
    /// Counts, and begins a window with the first one.
    CountInWindow,
    /// Counts what is there already.
    CountIfPresent,
    /// Counts within a window, and tells what is left of it.
    HitsAndTime,
    /// Tells a count and what is left of its window.
    ReadHitsAndTime,
    /// Takes several locks or none.
    LockAll,
    /// Lets several locks that one holds last for a time, or none.
    ExtendAll,
    /// Deletes those of several locks that one holds.
    ReleaseAll,
}

impl Known {
    /// The commands that the script calls, by which a user of it is judged.
    pub(super) fn calls(self) -> &'static [&'static str] {
        match self {
            Self::DeleteIfEqual | Self::ReleaseAll => &["get", "del"],
            Self::ExpireIfEqual => &["get", "pexpire"],
            Self::ExtendIfEqual => &["get", "pttl", "pexpire"],
            Self::CountInWindow => &["incrby", "expire"],
            Self::CountIfPresent => &["exists", "incrby"],
            Self::HitsAndTime => &["pttl", "set", "incr", "pexpire"],
            Self::ReadHitsAndTime => &["get", "pttl"],
            Self::LockAll => &["exists", "set"],
            Self::ExtendAll => &["get", "set"],
        }
    }
}

/// Each text as the libraries have it, and its script.
pub(super) const SCRIPTS: &[(Known, &str)] = &[
    (
        Known::DeleteIfEqual,
        "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) \
         else return 0 end",
    ),
    (
        Known::DeleteIfEqual,
        "local token = redis.call('get', KEYS[1]) if not token or token ~= ARGV[1] then return 0 \
         end redis.call('del', KEYS[1]) return 1",
    ),
    (
        Known::ExpireIfEqual,
        "if redis.call('get', KEYS[1]) == ARGV[1] then \
         return redis.call('pexpire', KEYS[1], ARGV[2]) else return 0 end",
    ),
    (
        Known::ExpireIfEqual,
        "local token = redis.call('get', KEYS[1]) if not token or token ~= ARGV[1] then return 0 \
         end redis.call('pexpire', KEYS[1], ARGV[2]) return 1",
    ),
    (
        Known::ExtendIfEqual,
        "local token = redis.call('get', KEYS[1]) if not token or token ~= ARGV[1] then return 0 \
         end local expiration = redis.call('pttl', KEYS[1]) \
         if not expiration then expiration = 0 end if expiration < 0 then return 0 end \
         local newttl = ARGV[2] if ARGV[3] == '0' then newttl = ARGV[2] + expiration end \
         redis.call('pexpire', KEYS[1], newttl) return 1",
    ),
    (
        Known::CountInWindow,
        "local current local amount = tonumber(ARGV[2]) \
         current = redis.call('incrby', KEYS[1], amount) \
         if tonumber(current) == amount then redis.call('expire', KEYS[1], ARGV[1]) end \
         return current",
    ),
    (
        Known::CountIfPresent,
        "local exists = redis.call('EXISTS', KEYS[1]) \
         if (exists == 1) then return redis.call('INCRBY', KEYS[1], ARGV[1]) \
         else return false end",
    ),
    (
        Known::HitsAndTime,
        "local windowMs = tonumber(ARGV[2]) local resetOnChange = ARGV[1] == '1' \
         local timeToExpire = redis.call('PTTL', KEYS[1]) \
         if timeToExpire <= 0 then redis.call('SET', KEYS[1], 1, 'PX', windowMs) \
         return { 1, windowMs } end \
         local totalHits = redis.call('INCR', KEYS[1]) \
         if resetOnChange then redis.call('PEXPIRE', KEYS[1], windowMs) \
         timeToExpire = windowMs end \
         return { totalHits, timeToExpire }",
    ),
    (
        Known::ReadHitsAndTime,
        "local totalHits = redis.call('GET', KEYS[1]) \
         local timeToExpire = redis.call('PTTL', KEYS[1]) \
         return { totalHits, timeToExpire }",
    ),
    (
        Known::LockAll,
        "for i, key in ipairs(KEYS) do if redis.call('exists', key) == 1 then return 0 end end \
         for i, key in ipairs(KEYS) do redis.call('set', key, ARGV[1], 'PX', ARGV[2]) end \
         return #KEYS",
    ),
];

/// The same for the scripts of node-redlock 4 and 5: the hash of their tokens, with a line end between
/// two.
const HASHES: &[(Known, &str)] = &[
    (Known::ExtendAll, "7014978c03d212587caaae9073b9811612787533"),
    (
        Known::ReleaseAll,
        "35d081ad57a15445bbc90a391052066378df3f87",
    ),
];

/// Finds the script that a text is.
pub(super) fn recognise(text: &[u8]) -> Option<Known> {
    let tokens = tokens(text)?;
    let is_it = |(_, known): &&(Known, &str)| tokens_of(known) == tokens;
    if let Some((script, _)) = SCRIPTS.iter().find(is_it) {
        return Some(*script);
    }
    let hash = sha1::hex(&tokens.join(&b'\n'));
    let is_it = |(_, known): &&(Known, &str)| *known == hash;
    HASHES.iter().find(is_it).map(|(script, _)| *script)
}

fn tokens_of(known: &str) -> Vec<Vec<u8>> {
    tokens(known.as_bytes()).unwrap_or_default()
}

/// Splits Lua into words, strings (in lower case, between double quotes) and single characters,
/// without comments. Nothing for a text with what no script in the list has, such as escapes.
fn tokens(mut text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut tokens = Vec::new();
    while let Some(&first) = text.first() {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let length = if first.is_ascii_whitespace() || first == b';' {
            text = &text[1..];
            continue;
        } else if text.starts_with(b"--[[") {
            return None;
        } else if text.starts_with(b"--") {
            let end = text.iter().position(|byte| *byte == b'\n');
            text = &text[end.unwrap_or(text.len())..];
            continue;
        } else if is_word(&first) {
            text.iter()
                .position(|byte| !is_word(byte))
                .unwrap_or(text.len())
        } else if matches!(first, b'"' | b'\'') {
            let inner = text[1..].iter().position(|byte| *byte == first)?;
            let string = text[1..=inner].to_ascii_lowercase();
            if string.contains(&b'\\') || string.contains(&b'\n') {
                return None;
            }
            tokens.push([b"\"", &string[..], b"\""].concat());
            text = &text[inner + 2..];
            continue;
        } else {
            1
        };
        tokens.push(text[..length].to_vec());
        text = &text[length..];
    }
    Some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_is_recognised_as_itself() {
        for (known, text) in SCRIPTS {
            assert_eq!(recognise(text.as_bytes()), Some(*known), "{text}");
        }
    }

    #[test]
    fn a_script_calls_what_its_text_has() {
        for (known, text) in SCRIPTS {
            let mut called: Vec<String> = Vec::new();
            for (at, _) in text.match_indices("redis.call('") {
                let rest = &text[at + "redis.call('".len()..];
                called.push(rest[..rest.find('\'').unwrap()].to_lowercase());
            }
            called.sort_unstable();
            called.dedup();
            let mut said = known.calls().to_vec();
            said.sort_unstable();
            assert_eq!(called, said, "{known:?}");
        }
    }

    #[test]
    fn only_what_means_nothing_may_differ() {
        let same = "\n  if redis.call(\"GET\",KEYS[1]) == ARGV[1] then -- mine\n return \
                    redis.call(\"del\",KEYS[1]);\n else\n return 0\n end\n";
        assert_eq!(recognise(same.as_bytes()), Some(Known::DeleteIfEqual));
        for other in [
            same.replace("ARGV[1]", "ARGV[2]"),
            same.replace("return 0", "return 1"),
            same.replace("\"del\"", "\"unlink\""),
            same.replace("mine\n", "mine "),
            same.replace("\"GET\"", "\"GE\\84\""),
            format!("{same} return 2"),
            String::new(),
            "'".to_owned(),
        ] {
            assert_eq!(recognise(other.as_bytes()), None, "{other}");
        }
    }
}
