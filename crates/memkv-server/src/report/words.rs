//! A command's words as an operator may see them: short, and without secrets.
//!
//! Invariant: no word that may be a password, a token or a rule of a user is shown, however the command is written.

use memkv_resp::Request;

use crate::commands::Spec;

/// Most words that are shown, as in Redis; the last one says how many more there were.
const MAX_WORDS: usize = 32;

/// Most bytes of a word that are shown, as in Redis.
const MAX_WORD_BYTES: usize = 128;

/// Stands for a secret, as in Redis.
const REDACTED: &[u8] = b"(redacted)";

/// A setting's value is a secret if its name has one of these words.
const SECRET_WORDS: [&str; 5] = ["auth", "key", "pass", "secret", "token"];

/// The words of a call of this command: at most 32, and of each about 128 bytes.
pub(crate) fn shown(spec: &Spec, request: &Request) -> Vec<Box<[u8]>> {
    let count = request.arg_count();
    let kept = if count > MAX_WORDS {
        MAX_WORDS - 1
    } else {
        count
    };
    let words = request.args().take(kept).enumerate();
    let show = |(at, word): (usize, &[u8])| match is_secret(spec, request, at) {
        true => REDACTED.into(),
        false => cut(word),
    };
    let mut shown: Vec<Box<[u8]>> = words.map(show).collect();
    if count > kept {
        let more = format!("... ({} more arguments)", count - kept);
        shown.push(more.into_bytes().into());
    }
    shown
}

pub(crate) fn cut(word: &[u8]) -> Box<[u8]> {
    let Some(left) = word
        .len()
        .checked_sub(MAX_WORD_BYTES)
        .filter(|left| *left > 0)
    else {
        return word.into();
    };
    let more = format!("... ({left} more bytes)");
    [&word[..MAX_WORD_BYTES], more.as_bytes()].concat().into()
}

/// Whether the word at this place may be one.
fn is_secret(spec: &Spec, request: &Request, at: usize) -> bool {
    let is = |at: usize, word: &str| {
        let found = request.arg(at);
        found.is_some_and(|found| found.eq_ignore_ascii_case(word.as_bytes()))
    };
    match spec.name {
        "auth" => at > 0,
        // Behind AUTH come a user and a password.
        "hello" => (at.saturating_sub(2).max(1)..at).any(|before| is(before, "auth")),
        "config|set" => at > 2 && at % 2 == 1 && request.arg(at - 1).is_some_and(names_secret),
        name if name.starts_with("acl|") || name.starts_with("memkv.users|") => at > 1,
        _ => false,
    }
}

fn names_secret(setting: &[u8]) -> bool {
    let setting = setting.to_ascii_lowercase();
    let has = |word: &str| memchr::memmem::find(&setting, word.as_bytes()).is_some();
    SECRET_WORDS.iter().any(|word| has(word))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use memkv_resp::{Limits, RequestParser, encode_command};

    use super::*;
    use crate::commands::resolve;

    fn show(words: &[&str]) -> String {
        let mut input = BytesMut::new();
        encode_command(&mut input, words);
        let mut parser = RequestParser::new(Limits::new(1 << 20));
        let request = parser.parse(&mut input).unwrap().unwrap();
        let spec = resolve(&request).unwrap_or_else(|_| panic!("{words:?}"));
        let shown = shown(spec, &request);
        let shown = shown.iter().map(|word| String::from_utf8_lossy(word));
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn secrets_are_not_shown() {
        for (line, expected) in [
            ("AUTH hunter2", "AUTH (redacted)"),
            ("auth ann hunter2", "auth (redacted) (redacted)"),
            (
                "HELLO 3 AUTH ann hunter2 SETNAME x",
                "HELLO 3 AUTH (redacted) (redacted) SETNAME x",
            ),
            (
                "hello 3 SETNAME auth auth ann hunter2",
                "hello 3 SETNAME auth (redacted) (redacted) (redacted)",
            ),
            (
                "ACL SETUSER ann on >hunter2 ~*",
                "ACL SETUSER (redacted) (redacted) (redacted) (redacted)",
            ),
            ("ACL GETUSER ann", "ACL GETUSER (redacted)"),
            (
                "ACL DRYRUN ann AUTH hunter2",
                "ACL DRYRUN (redacted) (redacted) (redacted)",
            ),
            (
                "MEMKV.USERS TOKEN ann 60",
                "MEMKV.USERS TOKEN (redacted) (redacted)",
            ),
            (
                "CONFIG SET maxmemory 1gb RequirePass hunter2 tls-key-file-pass x",
                "CONFIG SET maxmemory 1gb RequirePass (redacted) tls-key-file-pass (redacted)",
            ),
            ("SET k hunter2", "SET k hunter2"),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(show(&words), expected);
        }
    }

    #[test]
    fn long_calls_are_cut_as_in_redis() {
        let value = "v".repeat(MAX_WORD_BYTES);
        assert_eq!(show(&["SET", "k", &value]), format!("SET k {value}"));
        let longer = format!("{value}vv");
        let cut = format!("SET k {value}... (2 more bytes)");
        assert_eq!(show(&["SET", "k", &longer]), cut);
        let mut words = vec!["DEL"; MAX_WORDS];
        assert_eq!(show(&words), words.join(" "));
        words.push("k");
        let shown = show(&words);
        assert!(shown.ends_with(" DEL ... (2 more arguments)"), "{shown}");
        assert_eq!(shown.matches("DEL").count(), MAX_WORDS - 1);
    }
}
