//! What clients do with the Redis interface: counters, conditional sets, strings, accounts between
//! which money moves, keys that expire, transactions with and without `WATCH`, commands of many keys.
//!
//! Like the plain clients they never retry and never spin. Invariants: at every moment the sum of
//! all accounts is that of their opening, and keys that are only written together are alike.

use memkv_check::space::{Answer, Command, Error, Expiry, Guard, Holds, If, Query, Step};
use memkv_node::{Node, RequestError};
use memkv_store::{Seen, Store};
use tokio::time::error::Elapsed;

use crate::Promise;
use crate::client::{Workload, check_kept};
use crate::cluster::name;
use crate::flood;
use crate::many::MANY;
use crate::operations::Asking;
use crate::{translate, users};

const COUNTERS: usize = 3;
const ACCOUNTS: usize = 4;
const STRINGS: usize = 3;
/// Keys with deadlines: enough for some to live long while others come and go.
const MORTALS: usize = 6;
/// The most that a read of several keys looks at in one piece.
const PIECE: usize = 3;
/// The targets of renames.
const RENAMED: &str = "renamed";
/// The opening balance of an account.
const OPENING: i64 = 1_000;
/// Times to live, in milliseconds: about the lateness that is allowed, about an election, and long
/// enough for restarts, replacements and snapshots.
const TIMES_MS: [(u64, u64); 4] = [(20, 400), (400, 3_000), (400, 3_000), (3_000, 15_000)];

/// A key as a watching client saw it: the guard that it puts on the key, and the value.
type Watched = (Guard, Option<String>);

pub(crate) fn numbered(kind: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{kind}{number}")).collect()
}

fn accounts() -> Vec<String> {
    numbered("account", ACCOUNTS)
}

/// All keys of these clients.
pub(crate) fn all_keys() -> Vec<String> {
    let kinds = [
        ("counter", COUNTERS),
        ("account", ACCOUNTS),
        ("string", STRINGS),
        ("mortal", MORTALS),
        ("many", MANY),
        ("flooded", flood::FLOODED),
    ];
    kinds
        .into_iter()
        .flat_map(|(kind, count)| numbered(kind, count))
        .chain([RENAMED.to_owned()])
        .collect()
}

pub(crate) fn set(key: String, value: String) -> Command {
    Command::Set {
        key,
        value,
        condition: If::Always,
        expiry: Expiry::None,
        get: false,
    }
}

impl Workload {
    pub(crate) fn key(&self, kind: &str, count: usize) -> String {
        format!("{kind}{}", self.rng.index(count))
    }

    fn mortal(&self) -> String {
        self.key("mortal", MORTALS)
    }

    fn time_to_live(&self) -> u64 {
        let (low, high) = *self.rng.pick(&TIMES_MS);
        self.rng.between(low, high)
    }

    /// A value that no other command writes.
    pub(crate) fn value(&self) -> String {
        format!("v{}", self.next_value.next() >> 32)
    }

    /// One operation of the Redis interface; whether it was answered.
    pub(crate) async fn redis(&self, process: u64, home: usize, node: Node) -> bool {
        if self.cluster.swarm.caps && self.rng.below(12) == 0 {
            let command = self.cap_command(&node);
            return self.ask(process, home, &node, command).await.is_some();
        }
        let command = match self.rng.below(22) {
            0..4 => Command::IncrBy {
                key: self.key("counter", COUNTERS),
                by: i64::try_from(self.rng.between(1, 9)).unwrap_or(1),
            },
            4..7 => self.string_command(),
            7..12 => self.mortal_command(),
            12..15 => return self.watch(process, home, node).await,
            15 => self.blind_transfer(),
            16 => return self.write_many(process, home, &node).await,
            _ => return self.look(process, home, &node).await,
        };
        self.ask(process, home, &node, command).await.is_some()
    }

    /// A cap about what the keys cost here, so that some of the next commands are refused; or none.
    fn cap_command(&self, node: &Node) -> Command {
        let cost = node.read_stale(Store::memory).cost;
        let cap = match self.rng.below(3) {
            0 => 0,
            _ => (cost.saturating_sub(300) + self.rng.below(700)).max(1),
        };
        Command::SetCap { cap }
    }

    fn string_command(&self) -> Command {
        let key = self.key("string", STRINGS);
        let value = self.value();
        match self.rng.below(8) {
            0 => Command::Append { key, suffix: value },
            1 => Command::GetDel { key },
            2 => Command::Rename {
                from: key,
                to: RENAMED.to_owned(),
            },
            3 => Command::SetMany {
                pairs: numbered("string", STRINGS)
                    .into_iter()
                    .map(|key| (key, value.clone()))
                    .collect(),
                if_none_exists: self.rng.coin(),
            },
            // Fails unless the key is absent, and then changes nothing.
            4 => Command::IncrBy { key, by: 1 },
            draw => Command::Set {
                key,
                value,
                condition: match draw {
                    5 => If::Absent,
                    6 => If::Present,
                    _ => If::Always,
                },
                expiry: Expiry::None,
                get: self.rng.coin(),
            },
        }
    }

    fn mortal_command(&self) -> Command {
        let key = self.mortal();
        let ms = self.time_to_live();
        match self.rng.below(12) {
            0 => Command::Expire { key, ms },
            1 => Command::Persist { key },
            2 => Command::GetEx {
                key,
                expiry: Expiry::In(ms),
            },
            3 => Command::Append {
                key,
                suffix: self.value(),
            },
            4 => Command::Del {
                keys: numbered("mortal", MORTALS / 3),
            },
            draw => Command::Set {
                key,
                value: self.value(),
                condition: match draw {
                    5..8 => If::Absent,
                    8 => If::Present,
                    _ => If::Always,
                },
                expiry: match draw {
                    8 => Expiry::Keep,
                    _ => Expiry::In(ms),
                },
                get: self.rng.below(4) == 0,
            },
        }
    }

    /// Moves money without reading the accounts first.
    fn blind_transfer(&self) -> Command {
        let (from, to) = self.two_accounts();
        let amount = i64::try_from(self.rng.between(1, 50)).unwrap_or(1);
        let is_open = |key: &String| Guard {
            key: key.clone(),
            holds: Holds::Exists(true),
        };
        Command::Transaction {
            guards: vec![is_open(&from), is_open(&to)],
            steps: vec![
                Step::Write(Command::IncrBy {
                    key: from,
                    by: -amount,
                }),
                Step::Write(Command::IncrBy {
                    key: to,
                    by: amount,
                }),
                Step::Read(Query::GetMany { keys: accounts() }),
            ],
            otherwise: vec![Step::Write(open())],
        }
    }

    fn two_accounts(&self) -> (String, String) {
        let from = self.rng.index(ACCOUNTS);
        let to = (from + 1 + self.rng.index(ACCOUNTS - 1)) % ACCOUNTS;
        (format!("account{from}"), format!("account{to}"))
    }

    /// `WATCH`, reads, a pause, `MULTI` and `EXEC`, perhaps on another node.
    async fn watch(&self, process: u64, home: usize, node: Node) -> bool {
        let (from, to) = self.two_accounts();
        let moves_money = self.rng.coin();
        let keys = match moves_money {
            true => vec![from.clone(), to.clone()],
            false => vec![self.mortal(), self.key("string", STRINGS)],
        };
        let Some(watched) = self.see(process, home, &node, keys.clone()).await else {
            return false;
        };
        let (guards, values): (Vec<Guard>, Vec<Option<String>>) = watched.into_iter().unzip();
        let steps = match moves_money {
            true => {
                let balance = |at: usize| values[at].as_ref()?.parse::<i64>().ok();
                let Some((left, right)) = balance(0).zip(balance(1)) else {
                    return self.ask(process, home, &node, open()).await.is_some();
                };
                let amount = i64::try_from(self.rng.between(1, 50)).unwrap_or(1);
                vec![
                    Step::Write(set(from, (left - amount).to_string())),
                    Step::Write(set(to, (right + amount).to_string())),
                ]
            }
            false => {
                let mortal = Command::Set {
                    key: keys[0].clone(),
                    value: self.value(),
                    condition: If::Always,
                    expiry: Expiry::In(self.time_to_live()),
                    get: true,
                };
                vec![
                    Step::Write(mortal),
                    Step::Write(set(keys[1].clone(), self.value())),
                    Step::Read(Query::TimeLeft {
                        key: keys[0].clone(),
                    }),
                ]
            }
        };
        let otherwise = match self.rng.coin() {
            true => vec![Step::Read(Query::GetMany { keys })],
            false => Vec::new(),
        };
        if self.rng.coin() {
            tokio::time::sleep(self.rng.millis(1, 300)).await;
        }
        let (home, node) = match self.rng.below(4) {
            0 => {
                let other = self.rng.index(self.cluster.nodes());
                self.cluster
                    .node(other)
                    .map_or((home, node), |node| (other, node))
            }
            _ => (home, node),
        };
        let exec = Command::Transaction {
            guards,
            steps,
            otherwise,
        };
        self.ask(process, home, &node, exec).await.is_some()
    }

    /// What `WATCH` remembers of keys, and their values.
    async fn see(
        &self,
        process: u64,
        home: usize,
        node: &Node,
        keys: Vec<String>,
    ) -> Option<Vec<Watched>> {
        let queries = vec![Query::GetMany { keys: keys.clone() }];
        let look = move |store: &Store| -> Vec<Guard> {
            let guard = |key: &String| Guard {
                key: key.clone(),
                holds: match store.seen(0, key.as_bytes()) {
                    Seen::Present { mod_revision } => Holds::WrittenAt(mod_revision),
                    Seen::Absent { at } => Holds::AbsentSince(at),
                },
            };
            keys.iter().map(guard).collect()
        };
        let (guards, answers) = self.read_all(process, home, node, queries, look).await?;
        let Some(Answer::List(values)) = answers.into_iter().next() else {
            return None;
        };
        let values = values.into_iter().map(|value| match value {
            Answer::Text(value) => Some(value),
            _ => None,
        });
        Some(guards.into_iter().zip(values).collect())
    }

    /// Reads of several keys at one revision.
    async fn look(&self, process: u64, home: usize, node: &Node) -> bool {
        let keys = match self.rng.below(4) {
            0 => numbered("many", MANY),
            3 => accounts(),
            1 => numbered("mortal", MORTALS),
            _ => all_keys(),
        };
        let key = self.mortal();
        let mut queries = vec![Query::GetMany { keys: keys.clone() }];
        if self.rng.coin() {
            queries.extend([
                Query::Exists { keys },
                Query::Deadline { key: key.clone() },
                Query::TimeLeft { key },
            ]);
        }
        match self.rng.coin() {
            true => self.read_in_pieces(process, home, node, queries).await,
            false => {
                let read = self.read_all(process, home, node, queries, |_| ()).await;
                read.is_some()
            }
        }
    }

    /// Every key, its deadline too.
    pub(crate) async fn look_at_all(&self, process: u64, home: usize, node: &Node) {
        let deadline = |key: String| Query::Deadline { key };
        let deadlines = numbered("mortal", MORTALS).into_iter().map(deadline);
        let all = Query::GetMany { keys: all_keys() };
        let queries = std::iter::once(all).chain(deadlines).collect();
        // Whether it is answered is checked elsewhere.
        self.read_in_pieces(process, home, node, queries).await;
    }

    /// Reads linearizably, together with what `look` reads of the same state.
    async fn read_all<T: Send + 'static>(
        &self,
        process: u64,
        home: usize,
        node: &Node,
        queries: Vec<Query>,
        look: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Option<(T, Vec<Answer>)> {
        let asking = self.operations.read(process, queries.clone());
        let patience = self.patience();
        let checked = queries.clone();
        let clock = node.clone();
        let read = node.read(move |store: &Store| {
            let now_ms = clock.log_time_ms();
            let answer = |query| translate::answer(&store.query(&translate::query(query), now_ms));
            let answers: Vec<Answer> = checked.iter().map(answer).collect();
            (look(store), answers, store.revision())
        });
        let answer = tokio::time::timeout(patience, read).await;
        let Ok(Ok((seen, answers, revision))) = answer else {
            self.unanswered(asking);
            return None;
        };
        self.answered(process, home, &queries, &answers, revision);
        asking.ok(Answer::List(answers.clone()), Some(revision));
        Some((seen, answers))
    }

    /// Reads linearizably, piece by piece where there are more than a few keys; whether it was
    /// answered.
    async fn read_in_pieces(
        &self,
        process: u64,
        home: usize,
        node: &Node,
        queries: Vec<Query>,
    ) -> bool {
        let asking = self.operations.read(process, queries.clone());
        let checked = queries.iter().map(translate::query).collect();
        let before = node.read_stale(Store::revision);
        let read = node
            .read_all(self.patience(), false, checked, usize::MAX)
            .await;
        let Ok(read) = read else {
            self.unanswered(asking);
            return false;
        };
        let trace = &self.cluster.trace;
        let keys = queries.iter().map(|query| match query {
            Query::GetMany { keys } | Query::Exists { keys } => keys.len(),
            _ => 1,
        });
        if keys.sum::<usize>() > PIECE {
            trace.count("reads in pieces");
            if node.read_stale(Store::revision) > read.revision && read.revision >= before {
                trace.count("reads in pieces with writes in between");
            }
        }
        let answers: Vec<Answer> = read.values.iter().map(translate::answer).collect();
        self.answered(process, home, &queries, &answers, read.revision);
        asking.ok(Answer::List(answers), Some(read.revision));
        true
    }

    fn unanswered(&self, asking: Asking) {
        let trace = &self.cluster.trace;
        trace.count("reads of many keys without an answer");
        asking.unknown();
    }

    fn answered(
        &self,
        process: u64,
        home: usize,
        queries: &[Query],
        answers: &[Answer],
        revision: u64,
    ) {
        let (trace, home) = (&self.cluster.trace, name(home));
        trace.count("reads of many keys");
        trace.line(format_args!(
            "client {process} {home} {queries:?}: {answers:?} at {revision}"
        ));
        for (query, answer) in queries.iter().zip(answers) {
            self.check_sum(query, answer);
            self.check_alike(query, answer);
        }
    }

    /// Money is neither made nor lost; this is checked at once, besides the checker.
    fn check_sum(&self, query: &Query, answer: &Answer) {
        let (Query::GetMany { keys }, Answer::List(values)) = (query, answer) else {
            return;
        };
        let held = keys
            .iter()
            .zip(values)
            .filter(|(key, _)| key.starts_with("account"));
        let held: Vec<&Answer> = held.map(|(_, value)| value).collect();
        if held.len() != ACCOUNTS || held.iter().all(|value| **value == Answer::Nil) {
            return;
        }
        let amount = |value: &&Answer| match value {
            Answer::Text(text) => text.parse::<i64>().ok(),
            _ => None,
        };
        let sum: Option<i64> = held.iter().map(amount).sum();
        self.cluster.trace.count("sums of all accounts");
        if sum != Some(OPENING * ACCOUNTS as i64) {
            let seen = format!("the accounts hold {held:?}");
            self.cluster.violated(Promise::Atomic, seen);
        }
    }

    /// Sends a command; its answer, if there is one.
    pub(crate) async fn ask(
        &self,
        process: u64,
        home: usize,
        node: &Node,
        command: Command,
    ) -> Option<Answer> {
        let sent = translate::command(&command);
        self.send(process, home, node, command, &sent).await
    }

    /// Sends `sent`, which is `command` as the store's type, at once; resolves to its answer.
    pub(crate) fn send(
        &self,
        process: u64,
        home: usize,
        node: &Node,
        command: Command,
        sent: &memkv_store::Command,
    ) -> impl Future<Output = Option<Answer>> + use<'_> {
        let asking = self.operations.write(process, command.clone(), sent);
        let answer = node.write_as(sent, users::default_of(node));
        let answer = tokio::time::timeout(self.patience(), answer);
        async move { self.settle(process, home, &command, asking, answer.await) }
    }

    fn settle(
        &self,
        process: u64,
        home: usize,
        command: &Command,
        asking: Asking,
        answer: Result<Result<memkv_store::Reply, RequestError>, Elapsed>,
    ) -> Option<Answer> {
        let trace = &self.cluster.trace;
        let home = name(home);
        let error = match answer {
            Ok(Ok(reply)) => {
                let answer = translate::answer(&reply.value);
                let revision = reply.revision;
                trace.count("commands");
                if answer == Answer::Error(Error::OutOfMemory) {
                    trace.count("commands refused at the cap");
                }
                trace.line(format_args!(
                    "client {process} {home} {command:?}: {answer:?} at {revision}"
                ));
                asking.ok(answer.clone(), Some(revision));
                return Some(answer);
            }
            Ok(Err(error)) => error,
            Err(_) => RequestError::Unknown {
                detail: "the client gave up".to_owned(),
            },
        };
        trace.line(format_args!("client {process} {home} {command:?}: {error}"));
        match error {
            RequestError::Unknown { detail } => {
                check_kept(&self.cluster, &home, &detail);
                trace.count("commands of unknown outcome");
                asking.unknown();
            }
            _ => {
                trace.count("commands not executed");
                asking.not_executed();
            }
        }
        None
    }
}

/// Opens all accounts, unless they are.
fn open() -> Command {
    Command::SetMany {
        pairs: accounts()
            .into_iter()
            .map(|key| (key, OPENING.to_string()))
            .collect(),
        if_none_exists: true,
    }
}
