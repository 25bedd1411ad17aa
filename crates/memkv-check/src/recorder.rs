//! Records a history while clients run, from any number of threads or tasks.
//! Never loses an operation: one that was invoked is in the history at once, with the outcome
//! "unknown" until its client says better, so a cancelled or leaked call needs no care.
//! Invariant: stamps are unique and grow in the order in which calls were made here.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::history::{Operation, Outcome};
use crate::model::{Op, Reply};

/// Collects the operations of all clients; clones share one history.
pub struct Recorder<O = Op, R = Reply> {
    shared: Arc<Shared<O, R>>,
}

struct Shared<O, R> {
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    journal: Mutex<Journal<O, R>>,
}

struct Journal<O, R> {
    last_stamp: u64,
    operations: Vec<Operation<O, R>>,
}

impl<O, R> Shared<O, R> {
    /// Runs `act` with a fresh stamp: the clock's time, pushed on where needed to be unique.
    fn stamped<T>(&self, act: impl FnOnce(u64, &mut Vec<Operation<O, R>>) -> T) -> T {
        let mut journal = self.journal.lock();
        let stamp = (self.clock)().max(journal.last_stamp + 1);
        journal.last_stamp = stamp;
        act(stamp, &mut journal.operations)
    }
}

impl<O, R> Clone for Recorder<O, R> {
    fn clone(&self) -> Self {
        Recorder {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<O, R> Recorder<O, R> {
    /// Stamps are nanoseconds of the monotonic clock since this call.
    pub fn monotonic() -> Self {
        let start = Instant::now();
        // 2^64 ns are 584 years; the cast cannot lose anything in a test's life.
        Recorder::with_clock(move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Stamps come from `clock` (simulated time, for instance); where it stands still or goes
    /// back, they count on by themselves.
    pub fn with_clock(clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let journal = Mutex::new(Journal {
            last_stamp: 0,
            operations: Vec::new(),
        });
        Recorder {
            shared: Arc::new(Shared {
                clock: Box::new(clock),
                journal,
            }),
        }
    }

    /// Call this just before the request is sent.
    pub fn invoke(&self, process: u64, key: impl Into<String>, op: O) -> InFlight<O, R> {
        let key = key.into();
        let index = self.shared.stamped(|invoked_at, operations| {
            operations.push(Operation {
                process,
                key,
                op,
                invoked_at,
                outcome: Outcome::Unknown,
            });
            operations.len() - 1
        });
        InFlight {
            shared: Arc::clone(&self.shared),
            index,
        }
    }

    /// How many operations have been invoked.
    pub fn len(&self) -> usize {
        self.shared.journal.lock().operations.len()
    }

    /// Whether nothing has been invoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<O: Clone, R: Clone> Recorder<O, R> {
    /// The history so far, in the order of invocation.
    pub fn history(&self) -> Vec<Operation<O, R>> {
        self.shared.journal.lock().operations.clone()
    }
}

/// An operation that was invoked. Dropping it leaves its outcome unknown.
#[must_use = "without an outcome the operation counts as unknown"]
pub struct InFlight<O = Op, R = Reply> {
    shared: Arc<Shared<O, R>>,
    index: usize,
}

impl<O, R> InFlight<O, R> {
    /// Call this just after the reply has arrived.
    pub fn ok(self, reply: R, revision: Option<u64>) {
        self.shared.stamped(|returned_at, operations| {
            operations[self.index].outcome = Outcome::Ok {
                reply,
                returned_at,
                revision,
            };
        });
    }

    /// The store said that it did not and will not execute it.
    pub fn not_executed(self) {
        self.shared.journal.lock().operations[self.index].outcome = Outcome::NotExecuted;
    }

    /// Nobody knows: timeout, lost connection, or the store's own "unknown".
    pub fn unknown(self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_land_at_their_operations() {
        let recorder: Recorder = Recorder::with_clock(|| 100);
        let first = recorder.invoke(1, "k", Op::Set(1));
        let second = recorder.invoke(2, "k", Op::Get);
        let third = recorder.invoke(3, "k", Op::Del);
        second.ok(Reply::Value(None), Some(4));
        third.not_executed();
        first.unknown();

        let history = recorder.history();
        assert_eq!(history.len(), recorder.len());
        assert_eq!(
            history.iter().map(|o| o.invoked_at).collect::<Vec<_>>(),
            [100, 101, 102]
        );
        assert_eq!(history[0].outcome, Outcome::Unknown);
        assert_eq!(
            (history[1].returned_at(), history[1].revision()),
            (Some(103), Some(4))
        );
        assert_eq!(history[2].outcome, Outcome::NotExecuted);
    }

    #[test]
    fn stamps_are_unique_across_threads() {
        let recorder: Recorder = Recorder::monotonic();
        std::thread::scope(|scope| {
            for process in 0..4 {
                let recorder = recorder.clone();
                scope.spawn(move || {
                    for id in 0..500 {
                        recorder
                            .invoke(process, "k", Op::Set(id))
                            .ok(Reply::Done, None);
                    }
                });
            }
        });
        let history = recorder.history();
        let mut stamps: Vec<u64> = history
            .iter()
            .flat_map(|o| [Some(o.invoked_at), o.returned_at()])
            .flatten()
            .collect();
        stamps.sort_unstable();
        stamps.dedup();
        assert_eq!(stamps.len(), 4_000);
    }
}
