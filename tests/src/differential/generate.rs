//! Random steps: commands of the templates, some of them spoilt, and sequences that single commands
//! would hardly ever form. Knows of each connection only whether it is between `MULTI` and `EXEC`, and
//! whether it may be watching keys.

use std::collections::BTreeMap;

use super::arguments::Arguments;
use super::templates::{OF_ONE, TEMPLATES, blocks};
use super::{CONNECTIONS, Sent, Step, Unit, scripts};

/// Commands of a round: as many as a busy client pipelines.
const ROUND: std::ops::Range<usize> = 100..500;

/// Commands, out of a hundred, that are spoilt.
const SPOILT_PERCENT: usize = 10;

/// Commands, out of a hundred, whose name is written in lower case.
const LOWER_PERCENT: usize = 10;

/// Longest life, in milliseconds, that is waited for.
const SHORT_LIFE: usize = 20;

/// Bytes of the longest key that memkv takes; Redis takes longer ones.
const LONGEST_KEY: usize = 64 * 1024;

/// Every key, for commands that must see all of them at once.
const ALL_KEYS: &str = "1000000";

/// Commands over which [`shares`] counts: the rarest command occurs some two hundred times.
const SHARES_OVER: usize = 200_000;

/// Makes steps for a connection.
type Block = fn(&mut Generator, usize) -> Vec<Step>;

/// The choices that one seed decides.
pub(crate) struct Generator {
    arguments: Arguments,
    in_transaction: Vec<bool>,
    watching: Vec<bool>,
    weight: usize,
}

impl Generator {
    pub(crate) fn new(seed: u64, connections: usize) -> Generator {
        Generator {
            arguments: Arguments::new(seed),
            in_transaction: vec![false; connections],
            watching: vec![false; connections],
            weight: TEMPLATES.iter().map(|(weight, _)| weight).sum(),
        }
    }

    /// The steps of one connection before another one's turn.
    pub(crate) fn round(&mut self) -> Vec<Unit> {
        let connection = self.below(self.in_transaction.len());
        let length = ROUND.start + self.below(ROUND.len());
        let mut units = Vec::new();
        while units.len() < length {
            for step in self.steps(connection) {
                units.push(Unit { connection, step });
            }
        }
        units
    }

    fn below(&mut self, bound: usize) -> usize {
        self.arguments.random.below(bound)
    }

    /// One or several steps that may be left out one by one.
    fn steps(&mut self, connection: usize) -> Vec<Step> {
        if self.in_transaction[connection] {
            return vec![self.queued(connection)];
        }
        let choices: [(usize, Block); 13] = [
            (blocks::TRANSACTION, Self::transaction),
            (blocks::COMPARE_AND_SET, Self::compare_and_set),
            (blocks::EXPIRE, |this, _| this.expire()),
            (blocks::SCAN, |this, _| this.scan()),
            (blocks::RANDOM_KEY, |_, _| random_key()),
            (blocks::DBSIZE, |_, _| dbsize()),
            (blocks::SUBSCRIBE, |this, _| this.subscribe()),
            (blocks::SILENCE, |this, _| this.silence()),
            (blocks::HELLO, |this, connection| this.hello(connection)),
            (blocks::OF_ONE, |this, _| this.of_one()),
            (blocks::QUIT, |this, connection| {
                this.watching[connection] = false;
                vec![Step::Quit]
            }),
            (blocks::FLUSH, |this, _| this.flush()),
            (blocks::SCRIPT, |this, _| scripts::call(&mut this.arguments)),
        ];
        let mut choice = self.below(1000);
        for (weight, make) in choices {
            if choice < weight {
                return make(self, connection);
            }
            choice -= weight;
        }
        vec![self.single(connection)]
    }

    /// A command inside a transaction, which ends sooner or later.
    fn queued(&mut self, connection: usize) -> Step {
        match self.below(100) {
            0..10 => self.plain(connection, &["EXEC"]),
            10..12 => self.plain(connection, &["DISCARD"]),
            _ => self.single(connection),
        }
    }

    /// A command as it stands, noted where it changes what is known of the connection.
    fn plain(&mut self, connection: usize, arguments: &[&str]) -> Step {
        let (in_transaction, watching) = (
            &mut self.in_transaction[connection],
            &mut self.watching[connection],
        );
        match arguments {
            ["MULTI"] => *in_transaction = true,
            ["EXEC" | "DISCARD"] if !*in_transaction => {}
            ["EXEC" | "DISCARD" | "RESET"] => (*in_transaction, *watching) = (false, false),
            ["UNWATCH"] if !*in_transaction => *watching = false,
            _ => {}
        }
        one(arguments)
    }

    /// To memkv, all keys that are absent after a flush have been touched by it, as it keeps no list
    /// of them: a transaction that watched one is aborted, which Redis would execute. That is
    /// allowed, and nothing after it could be compared; so no connection watches.
    fn flush(&mut self) -> Vec<Step> {
        let forms = ["FLUSHALL", "FLUSHDB", "FLUSHDB ASYNC", "FLUSHALL SYNC"];
        let text = forms[self.below(forms.len())];
        if self.watching.contains(&true) {
            return Vec::new();
        }
        vec![one(&text.split(' ').collect::<Vec<_>>())]
    }

    /// A command of the templates, possibly spoilt.
    fn single(&mut self, connection: usize) -> Step {
        let mut choice = self.below(self.weight);
        let template = TEMPLATES.iter().find(|(weight, _)| {
            let found = choice < *weight;
            choice = choice.saturating_sub(*weight);
            found
        });
        let template = template
            .expect("the choice is below the sum of the weights")
            .1;
        let fixed = template.strip_prefix('!');
        let words = fixed.unwrap_or(template);
        if words.starts_with("WATCH") {
            self.watching[connection] = true;
        }
        let mut arguments = Vec::new();
        for word in words.split(' ') {
            self.arguments.word(word, &mut arguments);
        }
        if fixed.is_none() && self.arguments.chance(SPOILT_PERCENT) {
            self.spoil(&mut arguments);
        } else if !words.contains(' ') {
            self.plain(connection, &[words]);
        }
        if self.arguments.chance(LOWER_PERCENT) {
            arguments[0].make_ascii_lowercase();
        }
        Step::Commands(vec![Sent::new(&arguments)])
    }

    /// Takes an argument away, adds one, or replaces one. The command stays.
    fn spoil(&mut self, arguments: &mut Vec<Vec<u8>>) {
        let junk = self.arguments.junk();
        let index = 1 + self.below(arguments.len());
        match self.below(4) {
            0 if index < arguments.len() => drop(arguments.remove(index)),
            1 if index < arguments.len() => arguments[index] = junk,
            2 => arguments.insert(index, junk),
            _ => arguments.push(junk),
        }
        // A value may be where a key was.
        for argument in arguments {
            argument.truncate(LONGEST_KEY);
        }
    }

    fn transaction(&mut self, connection: usize) -> Vec<Step> {
        let mut steps = vec![self.plain(connection, &["MULTI"])];
        if self.arguments.chance(2) {
            steps.extend(self.flush());
        }
        for _ in 0..=self.below(7) {
            steps.push(self.single(connection));
            if !self.in_transaction[connection] {
                return steps;
            }
        }
        steps.push(self.plain(connection, &["EXEC"]));
        steps
    }

    fn compare_and_set(&mut self, connection: usize) -> Vec<Step> {
        let (key, value) = (self.arguments.key(), self.arguments.value());
        let mut steps = vec![command(&[b"WATCH", &key]), command(&[b"GET", &key])];
        self.watching[connection] = true;
        if self.arguments.chance(30) {
            steps.push(self.single(connection));
        }
        if self.in_transaction[connection] {
            return steps;
        }
        steps.push(self.plain(connection, &["MULTI"]));
        steps.push(command(&[b"SET", &key, &value]));
        steps.push(self.plain(connection, &["EXEC"]));
        steps
    }

    /// Keys that live for some milliseconds. Sometimes they are watched, and the transaction after
    /// their end must not run.
    fn expire(&mut self) -> Vec<Step> {
        let keys = self.arguments.keys(3);
        let mut commands = Vec::new();
        for key in &keys {
            let life = (1 + self.below(SHORT_LIFE)).to_string();
            let (value, life) = (self.arguments.value(), life.as_bytes());
            match self.below(4) {
                0 => commands.push(Sent::new(&[b"SET", &key[..], &value, b"PX", life])),
                1 => commands.push(Sent::new(&[b"PSETEX", &key[..], life, &value])),
                2 => {
                    commands.push(Sent::new(&[b"SET", &key[..], &value]));
                    commands.push(Sent::new(&[b"PEXPIRE", &key[..], life]));
                }
                _ => {
                    commands.push(Sent::new(&[b"SET", &key[..], &value]));
                    commands.push(Sent::new(&[b"GETEX", &key[..], b"PX", life]));
                }
            }
        }
        let mut steps = vec![Step::Expire {
            commands,
            keys: keys.clone(),
        }];
        let read: Vec<&[u8]> = std::iter::once(&b"MGET"[..])
            .chain(keys.iter().map(Vec::as_slice))
            .collect();
        steps.push(command(&read));
        steps
    }

    fn scan(&mut self) -> Vec<Step> {
        let mut options = Vec::new();
        for word in ["MATCH $p", "COUNT 3", "COUNT 1000", "TYPE string"] {
            if self.arguments.chance(40) {
                for word in word.split(' ') {
                    self.arguments.word(word, &mut options);
                }
            }
        }
        vec![Step::Scan(options)]
    }

    /// Every frame of a subscription is foreseen, so the commands name their channels.
    fn subscribe(&mut self) -> Vec<Step> {
        let other = |this: &mut Self| match this.below(4) {
            0 => Sent::new(&["PING"]),
            1 => Sent::new(&["PING", "hello"]),
            2 => Sent::new(&["GET", "k0"]),
            _ => Sent::new(&["SET", "k1", "from a subscriber"]),
        };
        let mut commands = vec![
            Sent::with_replies(&["SUBSCRIBE", "c1", "c2", "c1"], 3),
            other(self),
            Sent::with_replies(&["PSUBSCRIBE", "p*", "[q]"], 2),
            other(self),
        ];
        if self.arguments.chance(30) {
            commands.push(Sent::new(&["RESET"]));
        } else {
            commands.push(Sent::with_replies(&["UNSUBSCRIBE", "c1", "nosuch"], 2));
            commands.push(other(self));
            commands.push(Sent::with_replies(&["UNSUBSCRIBE"], 1));
            commands.push(Sent::with_replies(&["PUNSUBSCRIBE", "p*", "[q]"], 2));
        }
        commands.push(other(self));
        commands.push(Sent::new(&["UNSUBSCRIBE"]));
        commands.push(Sent::new(&["PUNSUBSCRIBE"]));
        vec![Step::Commands(commands)]
    }

    fn of_one(&mut self) -> Vec<Step> {
        let text = OF_ONE[self.below(OF_ONE.len())];
        vec![one(&text.split(' ').collect::<Vec<_>>())]
    }

    fn silence(&mut self) -> Vec<Step> {
        let (key, value) = (self.arguments.key(), self.arguments.value());
        let commands = if self.arguments.chance(50) {
            vec![
                Sent::with_replies(&["CLIENT", "REPLY", "OFF"], 0),
                Sent::with_replies(&[b"SET", &key[..], &value], 0),
                Sent::with_replies(&["GET"], 0),
                Sent::new(&["CLIENT", "REPLY", "ON"]),
            ]
        } else {
            vec![
                Sent::with_replies(&["CLIENT", "REPLY", "SKIP"], 0),
                Sent::with_replies(&[b"APPEND", &key[..], &value], 0),
                Sent::new(&["PING"]),
            ]
        };
        vec![Step::Commands(commands)]
    }

    fn hello(&mut self, connection: usize) -> Vec<Step> {
        let odd: &[&str] = &[
            "HELLO",
            "HELLO 4",
            "HELLO 1",
            "HELLO abc",
            "HELLO 2 SETNAME two",
            "HELLO 3 SETNAME three",
            "HELLO 3 AUTH default any",
            "HELLO 3 NOSUCH",
            "HELLO 3 SETNAME",
        ];
        let text = if self.arguments.chance(40) {
            odd[self.below(odd.len())]
        } else if connection % 2 == 1 {
            "HELLO 3"
        } else {
            "HELLO 2"
        };
        vec![one(&text.split(' ').collect::<Vec<_>>())]
    }
}

/// The share of each command in all commands, by its upper-case name. Counted on a sample, because
/// sequences of steps have no closed form.
pub(crate) fn shares() -> BTreeMap<String, f64> {
    let mut generator = Generator::new(0, CONNECTIONS);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut sent = 0;
    while sent < SHARES_OVER {
        for unit in generator.round() {
            let (Step::Commands(commands) | Step::Expire { commands, .. }) = unit.step else {
                continue;
            };
            sent += commands.len();
            for command in commands {
                *counts.entry(command.name()).or_default() += 1;
            }
        }
    }
    let share = |(name, count)| (name, count as f64 / sent as f64);
    counts.into_iter().map(share).collect()
}

fn random_key() -> Vec<Step> {
    let commands = vec![Sent::new(&["RANDOMKEY"]), Sent::new(&["KEYS", "*"])];
    vec![Step::Commands(commands)]
}

fn dbsize() -> Vec<Step> {
    let scan = Sent::new(&["SCAN", "0", "COUNT", ALL_KEYS]);
    vec![Step::Commands(vec![scan, Sent::new(&["DBSIZE"])])]
}

fn one(arguments: &[&str]) -> Step {
    Step::Commands(vec![Sent::new(arguments)])
}

fn command(arguments: &[&[u8]]) -> Step {
    Step::Commands(vec![Sent::new(arguments)])
}

#[cfg(test)]
mod tests {
    use super::{Generator, Unit};

    fn printed(seed: u64) -> Vec<String> {
        let mut generator = Generator::new(seed, 4);
        let rounds: Vec<Vec<Unit>> = (0..20).map(|_| generator.round()).collect();
        rounds.concat().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_seed_decides_everything() {
        assert_eq!(printed(7), printed(7));
        assert_ne!(printed(7), printed(8));
    }
}
