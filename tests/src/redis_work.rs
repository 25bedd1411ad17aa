//! The operations of the clients of `redis_load.rs`, one after the other: each is recorded before it
//! is sent, with its outcome as far as the client knows it.

use std::sync::atomic::Ordering;
use std::time::Instant;

use memkv_check::{Op, Reply};

use crate::random::Random;
use crate::redis_load::{Answer, Client, note_failure, value_of};

/// Keys that are written and read in one round: few, so that clients meet on them.
const KEYS: usize = 8;

/// How long a lock lasts that is not released, in milliseconds: longer than any pause, so that it
/// never ends while its holder believes to have it.
const LOCK_LIFE: &str = "600000";

/// Releases a lock only if it is one's own.
const UNLOCK: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";

/// A kind of work, and the function that does it once.
type Work = fn(&mut Worker, &'static str, u64);

/// All kinds.
pub(crate) const WORK: [(&str, Work); 4] = [
    ("increment", Worker::increment),
    ("write or read", Worker::write_or_read),
    ("transaction", Worker::transaction),
    ("lock", Worker::lock),
];

/// One client with its work.
pub(crate) struct Worker {
    client: Client,
    number: u64,
    random: Random,
    written: u64,
    doubtful: Vec<String>,
}

impl Worker {
    pub(crate) fn new(client: Client, number: usize, random: Random) -> Worker {
        Worker {
            client,
            number: u64::try_from(number).unwrap(),
            random,
            written: 0,
            doubtful: Vec::new(),
        }
    }

    pub(crate) fn run(mut self, kind: &'static str, work: Work) {
        while !self.client.stopped() {
            let round = self.client.round();
            if self.client.connected() {
                work(&mut self, kind, round);
            }
        }
    }

    /// A value that no other write has.
    fn unique(&mut self) -> u64 {
        self.written += 1;
        (self.number << 32) | self.written
    }

    fn increment(&mut self, kind: &'static str, round: u64) {
        let key = format!("count:{round}");
        let began = Instant::now();
        let call = self
            .client
            .shared
            .recorder
            .invoke(self.number, key.as_str(), Op::Incr(1));
        match self.client.ask(&["INCR", &key]) {
            Answer::Done(reply) => {
                call.ok(Reply::Number(reply.integer().unwrap()), None);
                self.client.acknowledged(kind, began);
            }
            failure => note_failure(call, &failure),
        }
    }

    fn write_or_read(&mut self, kind: &'static str, round: u64) {
        let key = format!("key:{round}:{}", self.random.below(KEYS));
        let began = Instant::now();
        let op = match self.random.below(10) {
            0..4 => Op::Set(self.unique()),
            4 => Op::Del,
            _ => Op::Get,
        };
        let call = self
            .client
            .shared
            .recorder
            .invoke(self.number, key.as_str(), op);
        let answer = match op {
            Op::Set(value) => self.client.ask(&["SET", &key, &value.to_string()]),
            Op::Del => self.client.ask(&["DEL", &key]),
            _ => self.client.ask(&["GET", &key]),
        };
        let Answer::Done(reply) = answer else {
            return note_failure(call, &answer);
        };
        let reply = match op {
            Op::Set(_) => Reply::Done,
            Op::Del => Reply::Removed(reply.integer() == Some(1)),
            _ => Reply::Value(value_of(&reply)),
        };
        call.ok(reply, None);
        if op != Op::Get {
            self.client.acknowledged(kind, began);
        }
    }

    fn transaction(&mut self, kind: &'static str, round: u64) {
        if self.random.below(2) == 0 {
            self.compare_and_set(kind, round);
        } else {
            self.pair(kind, round);
        }
    }

    /// `WATCH`, `GET`, `MULTI`, `SET`, `EXEC`: an increment, unless another client was first.
    fn compare_and_set(&mut self, kind: &'static str, round: u64) {
        let key = format!("watched:{round}");
        let began = Instant::now();
        let Some(held) = self.watched(&key) else {
            // An open transaction would break the next attempt.
            return self.client.leave();
        };
        let next = held + 1;
        let call = self
            .client
            .shared
            .recorder
            .invoke(self.number, key.as_str(), Op::Incr(1));
        match self.client.ask(&["EXEC"]) {
            Answer::Done(reply) if reply.is_null() => call.not_executed(),
            Answer::Done(reply) => {
                assert_eq!(reply.items.len(), 1, "EXEC: {reply}");
                call.ok(Reply::Number(next), None);
                self.client.acknowledged(kind, began);
            }
            failure => note_failure(call, &failure),
        }
    }

    /// Everything before `EXEC`; returns the value of the key.
    fn watched(&mut self, key: &str) -> Option<i64> {
        self.done(&["WATCH", key])?;
        let held = value_of(&self.done(&["GET", key])?);
        let held = held.map_or(0, |value| value.id.cast_signed());
        self.done(&["MULTI"])?;
        self.done(&["SET", key, &(held + 1).to_string()])?;
        Some(held)
    }

    fn done(&mut self, arguments: &[&str]) -> Option<crate::resp::Frame> {
        match self.client.ask(arguments) {
            Answer::Done(reply) => Some(reply),
            Answer::NotExecuted | Answer::Unknown => None,
        }
    }

    /// Two counters that are only ever raised together.
    fn pair(&mut self, kind: &'static str, round: u64) {
        let keys = [format!("left:{round}"), format!("right:{round}")];
        let began = Instant::now();
        let queued = [&["MULTI"][..], &["INCR", &keys[0]], &["INCR", &keys[1]]];
        if queued.iter().any(|command| self.done(command).is_none()) {
            return self.client.leave();
        }
        let recorder = &self.client.shared.recorder;
        let calls = keys.map(|key| recorder.invoke(self.number, key, Op::Incr(1)));
        match self.client.ask(&["EXEC"]) {
            Answer::Done(reply) => {
                let numbers: Vec<i64> = reply
                    .items
                    .iter()
                    .filter_map(|item| item.integer())
                    .collect();
                assert!(
                    matches!(numbers[..], [left, right] if left == right),
                    "a pair was parted: {reply}"
                );
                for (call, number) in calls.into_iter().zip(numbers) {
                    call.ok(Reply::Number(number), None);
                }
                self.client.acknowledged(kind, began);
            }
            failure => calls
                .into_iter()
                .for_each(|call| note_failure(call, &failure)),
        }
    }

    /// Takes the lock if it is free, checks that no other client of this process has it, and releases it.
    /// Tokens are unique, so that a release may be repeated as often as needed, at any node.
    fn lock(&mut self, kind: &'static str, _round: u64) {
        let began = Instant::now();
        let token = self.unique().to_string();
        match self
            .client
            .ask(&["SET", "lock", &token, "NX", "PX", LOCK_LIFE])
        {
            Answer::Done(reply) if reply.is_null() => self.release_doubtful(),
            Answer::NotExecuted => {}
            Answer::Unknown => self.doubtful.push(token),
            Answer::Done(_) => {
                let held = &self.client.shared.held;
                assert!(
                    !held.swap(true, Ordering::SeqCst),
                    "two clients hold the lock"
                );
                self.client.acknowledged(kind, began);
                self.increment(kind, 0);
                self.client.shared.held.store(false, Ordering::SeqCst);
                while self.released(&token).is_none() {}
            }
        }
    }

    /// Whether the lock was this token's, and is free now; nothing if that is not known.
    fn released(&mut self, token: &str) -> Option<bool> {
        if !self.client.connected() {
            return None;
        }
        let reply = self.done(&["EVAL", UNLOCK, "1", "lock", token])?;
        Some(reply.integer() == Some(1))
    }

    /// A lock whose taking has an unknown outcome may be taken later than its release was asked for:
    /// as long as a client has the lock, it may be this one.
    fn release_doubtful(&mut self) {
        for token in std::mem::take(&mut self.doubtful) {
            if self.released(&token) != Some(true) {
                self.doubtful.push(token);
            }
        }
    }
}
