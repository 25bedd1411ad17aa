//! Commands of many keys: keys that are written together are seen together by every read.
//!
//! While such a command is on its way its client looks at the node's store all the time, so that it also
//! looks between the pieces in which the command is executed. Invariant: keys that are only written
//! together are alike.

use std::pin::pin;
use std::time::Duration;

use memkv_check::space::{Answer, Command, Query, Step};
use memkv_node::Node;

use crate::Promise;
use crate::client::Workload;
use crate::redis::numbered;
use crate::translate;

/// Keys that are written together or not at all: so many that each such command is a piece by itself,
/// and a read of them several.
pub(crate) const MANY: usize = 24;
/// Between two looks: no longer than the pause that follows the first piece of a command.
const LOOK_EVERY: Duration = Duration::from_millis(1);

impl Workload {
    /// Writes all of the keys together; whether it was answered.
    pub(crate) async fn write_many(&self, process: u64, home: usize, node: &Node) -> bool {
        let command = self.many_command();
        let mut asked = pin!(self.ask(process, home, node, command));
        loop {
            tokio::select! {
                biased;
                answer = &mut asked => return answer.is_some(),
                () = tokio::time::sleep(LOOK_EVERY) => self.glance(node),
            }
        }
    }

    /// Looks at what is here now, however old.
    fn glance(&self, node: &Node) {
        let keys = numbered("many", MANY);
        let query = Query::GetMany { keys };
        let (is_within, answer) = node.read_stale(|store| {
            let answer = store.query(&translate::query(&query), 0);
            (store.is_within_command(), translate::answer(&answer))
        });
        if is_within {
            self.cluster.trace.count("looks within a command");
        }
        self.check_alike(&query, &answer);
    }

    /// All of the keys that are written together.
    fn many_command(&self) -> Command {
        let keys = numbered("many", MANY);
        self.cluster.trace.count("commands of many keys asked");
        match self.rng.below(4) {
            0 => Command::Del { keys },
            1 => {
                let from = &keys[self.rng.index(MANY)];
                let copy = |to: &String| Command::Copy {
                    from: from.clone(),
                    to: to.clone(),
                };
                Command::Transaction {
                    guards: Vec::new(),
                    steps: keys.iter().map(|to| Step::Write(copy(to))).collect(),
                    otherwise: Vec::new(),
                }
            }
            _ => {
                let value = self.value();
                let pairs = keys.into_iter().map(|key| (key, value.clone()));
                Command::SetMany {
                    pairs: pairs.collect(),
                    if_none_exists: self.rng.coin(),
                }
            }
        }
    }

    /// A command of many keys is seen whole or not at all; this is checked at once, besides the checker.
    pub(crate) fn check_alike(&self, query: &Query, answer: &Answer) {
        let (Query::GetMany { keys }, Answer::List(values)) = (query, answer) else {
            return;
        };
        let together = keys
            .iter()
            .zip(values)
            .filter(|(key, _)| key.starts_with("many"));
        let mut together = together.map(|(_, value)| value);
        let Some(first) = together.next() else {
            return;
        };
        self.cluster.trace.count("looks at keys that are alike");
        if together.any(|value| value != first) {
            let seen = format!("{keys:?} are {values:?}");
            self.cluster.violated(Promise::SeenWhole, seen);
        }
    }
}
