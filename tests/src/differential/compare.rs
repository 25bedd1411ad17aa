//! Compares the replies of one connection with the oracle's, frame by frame. Keeps what was queued
//! since `MULTI`, so that each reply inside `EXEC` is compared as its own command's is.
//!
//! Invariant: a reply passes only if its bytes are the oracle's or a listed rule excuses it.

use std::time::Duration;

use crate::resp::Frame;

use super::rules::{Rules, Way};
use super::tally::Tally;
use super::{Sent, name};

/// The state of one connection.
pub(crate) struct Comparer<'a> {
    rules: &'a Rules,
    queued: Vec<Vec<Vec<u8>>>,
    random_keys: Option<[Frame; 2]>,
    apart: Duration,
}

impl<'a> Comparer<'a> {
    /// For a new connection.
    pub(crate) fn new(rules: &'a Rules) -> Comparer<'a> {
        Comparer {
            rules,
            queued: Vec::new(),
            random_keys: None,
            apart: Duration::ZERO,
        }
    }

    /// From now on the same command may have been executed at times so far apart.
    pub(crate) fn allow_apart(&mut self, apart: Duration) {
        self.apart = apart;
    }

    /// Compares the frames that answered one command; an error names the difference.
    pub(crate) fn comparer(
        &mut self,
        sent: &Sent,
        ours: &[Frame],
        oracle: &[Frame],
        tally: &mut Tally,
    ) -> Result<(), String> {
        for (ours, oracle) in ours.iter().zip(oracle) {
            let verdict = if sent.name() == "EXEC" && !oracle.is_error() {
                self.executed(ours, oracle, tally)
            } else {
                self.alike(&sent.arguments, ours, oracle, tally)
            };
            verdict
                .map_err(|why| format!("{sent}: {why}\n  memkv:  {ours}\n  oracle: {oracle}"))?;
            self.note(sent, oracle, tally);
        }
        Ok(())
    }

    /// Follows the connection into and out of transactions.
    fn note(&mut self, sent: &Sent, oracle: &Frame, tally: &mut Tally) {
        if oracle.kind == b'+' && oracle.line == b"QUEUED" {
            self.queued.push(sent.arguments.clone());
            return;
        }
        tally.reply(&sent.name(), oracle);
        if ["EXEC", "DISCARD", "RESET"].contains(&sent.name().as_str()) {
            // Also after an EXEC with too many arguments: it ends the transaction too.
            self.queued.clear();
        }
    }

    /// The reply to `EXEC`.
    fn executed(&mut self, ours: &Frame, oracle: &Frame, tally: &mut Tally) -> Result<(), String> {
        tally.transaction(oracle);
        if ours == oracle {
            for (arguments, reply) in self.queued.iter().zip(&oracle.items) {
                tally.reply(&name(arguments), reply);
            }
            return Ok(());
        }
        let sizes = [ours.items.len(), oracle.items.len(), self.queued.len()];
        if ours.kind != oracle.kind || sizes != [self.queued.len(); 3] {
            return Err("the transactions have different ends".to_owned());
        }
        let queued = std::mem::take(&mut self.queued);
        let pairs = ours.items.iter().zip(&oracle.items);
        for (index, (arguments, (ours, oracle))) in queued.iter().zip(pairs).enumerate() {
            self.alike(arguments, ours, oracle, tally)
                .map_err(|why| format!("reply {index} inside: {why}"))?;
            tally.reply(&name(arguments), oracle);
        }
        Ok(())
    }

    /// One reply to one command.
    fn alike(
        &mut self,
        arguments: &[Vec<u8>],
        ours: &Frame,
        oracle: &Frame,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let way = self.rules.find(arguments);
        if ours != oracle {
            let Some((name, way)) = way else {
                return Err("the replies differ".to_owned());
            };
            if !way.excuses(name, ours, oracle, self.apart) {
                return Err(format!(
                    "the replies differ, and not only as {way:?} allows"
                ));
            }
            tally.excused(name);
        }
        if way.is_some_and(|(_, way)| way == Way::Member) {
            self.random_keys = Some([ours.clone(), oracle.clone()]);
        } else if let Some([our_key, oracle_key]) = self.random_keys.take() {
            for (key, keys) in [(our_key, ours), (oracle_key, oracle)] {
                if keys.kind == b'*' && !key.is_null() && !keys.items.contains(&key) {
                    return Err(format!("{key} was a random key and is not there"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Comparer;
    use crate::differential::{Rules, Sent, Tally};
    use crate::resp::Frame;

    const TABLE: &str = "| `set` | `KEYS` | |\n| `member` | `RANDOMKEY` | |\n| `about` | `TTL` | |";

    /// Judges a conversation: command, our reply, the oracle's.
    fn verdict(table: &str, talk: &[(&str, &str, &str)]) -> Result<(), String> {
        let rules = Rules::parse(table).unwrap();
        let mut comparer = Comparer::new(&rules);
        talk.iter().try_for_each(|(command, ours, oracle)| {
            let sent = Sent::new(&command.split(' ').collect::<Vec<_>>());
            let frame = |text: &str| [Frame::of(text.as_bytes())];
            comparer.comparer(&sent, &frame(ours), &frame(oracle), &mut Tally::default())
        })
    }

    #[test]
    fn equal_bytes_pass_and_an_altered_reply_fails() {
        for reply in [
            "+OK\r\n",
            "$2\r\nab\r\n",
            ":12\r\n",
            "-ERR no\r\n",
            "*1\r\n:1\r\n",
            "_\r\n",
        ] {
            verdict(TABLE, &[("GET k", reply, reply)]).unwrap();
        }
        for (ours, oracle) in [
            ("+OK\r\n", "$2\r\nOK\r\n"),
            ("$2\r\nab\r\n", "$2\r\nac\r\n"),
            (":12\r\n", ":13\r\n"),
            ("-ERR no\r\n", "-ERR No\r\n"),
            ("*1\r\n:1\r\n", "*1\r\n:2\r\n"),
            ("$-1\r\n", "*-1\r\n"),
            ("$-1\r\n", "_\r\n"),
        ] {
            verdict(TABLE, &[("GET k", ours, oracle)]).unwrap_err();
        }
    }

    #[test]
    fn only_listed_commands_are_excused() {
        let (ours, oracle) = ("*2\r\n:1\r\n:2\r\n", "*2\r\n:2\r\n:1\r\n");
        verdict(TABLE, &[("keys *", ours, oracle)]).unwrap();
        verdict(TABLE, &[("MGET a b", ours, oracle)]).unwrap_err();
    }

    #[test]
    fn replies_inside_exec_are_judged_as_their_own_commands() {
        let begin = [
            ("MULTI", "+OK\r\n", "+OK\r\n"),
            ("TTL k", "+QUEUED\r\n", "+QUEUED\r\n"),
            ("GET k", "+QUEUED\r\n", "+QUEUED\r\n"),
        ];
        let end = |ours, oracle| {
            let talk = [&begin[..], &[("EXEC", ours, oracle)]].concat();
            verdict(TABLE, &talk)
        };
        end("*2\r\n:9\r\n:1\r\n", "*2\r\n:10\r\n:1\r\n").unwrap();
        end("*2\r\n:9\r\n:1\r\n", "*2\r\n:9\r\n:2\r\n").unwrap_err();
        end("*2\r\n:7\r\n:1\r\n", "*2\r\n:9\r\n:1\r\n").unwrap_err();
        end("*-1\r\n", "*2\r\n:9\r\n:1\r\n").unwrap_err();
        end("*1\r\n:9\r\n", "*2\r\n:9\r\n:1\r\n").unwrap_err();
    }

    #[test]
    fn a_random_key_must_be_among_the_keys() {
        let (a, b) = ("$1\r\na\r\n", "$1\r\nb\r\n");
        let keys = "*2\r\n$1\r\na\r\n$1\r\nb\r\n";
        verdict(TABLE, &[("RANDOMKEY", a, b), ("KEYS *", keys, keys)]).unwrap();
        let invented = "$1\r\nc\r\n";
        verdict(TABLE, &[("RANDOMKEY", invented, b), ("KEYS *", keys, keys)]).unwrap_err();
    }
}
