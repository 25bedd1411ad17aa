//! Dialogues with a Redis server as text: commands as one types them in redis-cli, and below each the
//! reply. One file is played against redis-server, whose replies it holds, against a cluster of memkv,
//! and against memkv's server without a cluster.
//!
//! ```text
//! # A comment.
//! > SET k "a value"
//! OK
//! b> SUBSCRIBE news        a connection of its own, here `b`; the plain prompt is one too
//! 1) "subscribe"
//! 2) "news"
//! 3) (integer) 1
//! b<                       the next frame that `b` receives without having asked
//! ...
//! > READONLY
//! (error) ERR This instance has cluster support disabled
//! ! `READONLY`             from here what memkv replies by design, and where docs/differences.md says so
//! OK
//! ```
//!
//! In an expected line `<any>` stands for any text, and the line `<more>` for any number of lines.
//! A dialogue never waits for time, and every one begins with an empty store.

mod script;
mod show;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::resp::{Resp, encode};
use script::{Ask, Piece, Step};

/// Which replies of a file are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// redis-server's.
    Redis,
    /// memkv's: redis-server's, except where the file says otherwise.
    Memkv,
}

/// One file.
pub struct Dialogue {
    path: PathBuf,
    pieces: Vec<Piece>,
}

/// All files of `tests/scripts/redis/`, in the order of their names.
///
/// # Panics
///
/// If there is none, or one cannot be read or is not written as it must be.
pub fn dialogues() -> Vec<Dialogue> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/redis");
    let entries = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries.collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", dir.display());
    paths.into_iter().map(Dialogue::read).collect()
}

impl Dialogue {
    fn read(path: PathBuf) -> Dialogue {
        let text = fs::read_to_string(&path).unwrap();
        let pieces =
            script::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Dialogue { path, pieces }
    }

    /// Name of the file without its extension.
    pub fn name(&self) -> String {
        self.path
            .file_stem()
            .unwrap()
            .to_string_lossy()
            .into_owned()
    }

    /// Plays the whole file and returns every reply that is not as expected. Connections are spread
    /// over the addresses, which belong to one cluster.
    pub fn differences(&self, addrs: &[String], side: Side) -> Vec<String> {
        let mut found = Vec::new();
        self.play(addrs, |step, actual| {
            let expected = step.expected(side);
            if !script::matches(expected, &actual) {
                let line = step.line;
                found.push(format!(
                    "{}:{line}: {}\n--- expected\n{}\n--- came\n{}\n",
                    self.path.display(),
                    step.source,
                    expected.join("\n"),
                    actual.join("\n")
                ));
            }
        });
        found
    }

    /// Plays the whole file against redis-server and writes what it replies into the file. Replies
    /// that are as expected stay as they are, with what stands for any text in them.
    ///
    /// # Panics
    ///
    /// Where the variable `CI` is set: expectations are changed by a person who reads them.
    pub fn bless(&self, redis: &str) {
        assert!(
            std::env::var_os("CI").is_none(),
            "no expectation is written where CI is set"
        );
        let mut replies = BTreeMap::new();
        self.play(&[redis.to_owned()], |step, actual| {
            if !script::matches(step.expected(Side::Redis), &actual) {
                replies.insert(step.line, actual);
            }
        });
        if !replies.is_empty() {
            fs::write(&self.path, script::write(&self.pieces, &replies)).unwrap();
        }
    }

    /// Where the file says that memkv differs, and in which words of docs/differences.md.
    pub fn pointers(&self) -> impl Iterator<Item = (usize, &str)> {
        let steps = self.pieces.iter().filter_map(Piece::step);
        steps.filter_map(|step| Some((step.line, step.memkv.as_ref()?.0.as_str())))
    }

    fn play(&self, addrs: &[String], mut seen: impl FnMut(&Step, Vec<String>)) {
        let mut connections: BTreeMap<&str, Resp> = BTreeMap::new();
        let connect = |number: usize| Resp::connect(&addrs[number % addrs.len()]).unwrap();
        let emptied = connect(0).call(&["FLUSHALL"]).unwrap();
        assert_eq!(emptied.text(), b"OK", "FLUSHALL: {emptied}");
        for step in self.pieces.iter().filter_map(Piece::step) {
            let number = connections.len();
            let connection = connections
                .entry(&step.connection)
                .or_insert_with(|| connect(number));
            let frames = match &step.ask {
                Ask::Command(words) => {
                    connection.send(&encode(words)).unwrap();
                    replies(words)
                }
                Ask::Nothing => 1,
            };
            let mut actual = Vec::new();
            for _ in 0..frames {
                let frame = connection.receive();
                let frame = frame.unwrap_or_else(|error| {
                    panic!(
                        "{}:{}: {}: {error}",
                        self.path.display(),
                        step.line,
                        step.source
                    )
                });
                actual.extend(show::lines(&frame));
            }
            seen(step, actual);
        }
    }
}

/// How many frames answer a command. To unsubscribe from all channels is answered by a number that
/// the command does not tell, so a dialogue names the channels.
fn replies(words: &[Vec<u8>]) -> usize {
    const ONE_FOR_EACH: &[&str] = &["SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE"];
    let name = String::from_utf8_lossy(&words[0]).to_ascii_uppercase();
    match ONE_FOR_EACH.contains(&name.as_str()) {
        true => words.len().saturating_sub(1).max(1),
        false => 1,
    }
}
