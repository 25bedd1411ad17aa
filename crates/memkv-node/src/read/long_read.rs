//! Reads of many keys: in pieces, between which writes and other reads go on, and yet of one state.
//!
//! A piece is what is done under one hold of the machine's lock. A view of the store shows each piece
//! the state of the first. A view that is lost, since too much was written meanwhile, is begun anew;
//! after that the rest is one piece. Invariant: the state is not older than what was acknowledged before
//! the read began.

use std::sync::Arc;
use std::time::Duration;

use memkv_store::{Garbage, Query, Reading, Readings, ReplyValue, Revision, Store, ViewId};
use tokio::runtime::Handle;

use crate::read::barrier::Barrier;
use crate::replica::Replica;
use crate::sync::yielding::yield_to_all_tasks;
use crate::time::log_clock::LogClock;
use crate::{Env, RequestError};

/// Keys that are looked at under one hold of the lock: some tenths of a millisecond. In the simulator,
/// where few keys are read, a few, so that reads come in pieces.
const PIECE_KEYS: usize = if cfg!(memkv_bugs) { 3 } else { 1024 };
/// Keys up to which a read is one piece, and needs no view.
const SHORT_KEYS: u64 = if cfg!(memkv_bugs) { 3 } else { 1024 };
/// Views that one read may lose.
const VIEWS: usize = 2;

/// The answers to queries, in their order, and the revision of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// An answer for each query.
    pub values: Vec<ReplyValue>,
    /// The store's revision.
    pub revision: Revision,
    /// The revision of the table of users at that state; 0 without one. Answers that were judged under another
    /// one must not be given out before they are judged again.
    pub users_revision: u64,
}

/// Answers reads of many keys.
pub(crate) struct LongReader {
    pub(crate) barrier: Arc<Barrier>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) clock: Arc<LogClock>,
    pub(crate) env: Env,
}

impl LongReader {
    /// See [`crate::Node::read_all`].
    pub(crate) async fn read(
        self: Arc<Self>,
        within: Duration,
        stale: bool,
        queries: Vec<Query>,
        most: usize,
    ) -> Result<Answers, RequestError> {
        let answers = async {
            if !stale {
                self.barrier.wait().await?;
            }
            let answers = answer(&self, queries, most).await;
            self.replica.check_reads()?;
            Ok(answers)
        };
        let late = |_| RequestError::NoLeader {
            detail: format!("the read was not confirmed or had no turn within {within:?}"),
        };
        tokio::time::timeout(within, answers).await.map_err(late)?
    }
}

async fn answer(reader: &Arc<LongReader>, queries: Vec<Query>, most: usize) -> Answers {
    let keys: u64 = queries.iter().map(Query::looks_at).sum();
    let mut reading = Reading::new(queries, most);
    if keys > SHORT_KEYS {
        // It is never closed, so this cannot fail.
        let _turn = reader.replica.views.acquire().await;
        for _ in 0..VIEWS {
            let Some(view) = Viewing::begin(reader).await else {
                break;
            };
            loop {
                let progress = view.resume(&mut reading);
                match progress {
                    Readings::Done => {
                        return Answers {
                            revision: view.revision,
                            users_revision: view.users_revision,
                            values: reading.into_answers(),
                        };
                    }
                    Readings::More => yield_to_all_tasks().await,
                    Readings::Lost => break,
                }
            }
        }
    }
    let machine = reader.replica.machine.read();
    let now_ms = now_ms(reader, &machine.store);
    while reading.resume(&machine.store, None, now_ms, usize::MAX) != Readings::Done {}
    Answers {
        revision: machine.store.revision(),
        users_revision: machine.store.users_revision(),
        values: reading.into_answers(),
    }
}

fn now_ms(reader: &LongReader, store: &Store) -> u64 {
    reader.clock.read().log_ms.max(store.stamp_ms())
}

/// A view of this node's store. It ends when this is dropped.
struct Viewing {
    reader: Arc<LongReader>,
    id: ViewId,
    revision: Revision,
    users_revision: u64,
    now_ms: u64,
}

impl Viewing {
    /// Waits until an entry that is being applied is: no view begins within a command.
    async fn begin(reader: &Arc<LongReader>) -> Option<Viewing> {
        let _whole = reader.replica.entries.lock().await;
        let store = &mut reader.replica.machine.write().store;
        Some(Viewing {
            reader: reader.clone(),
            id: store.begin_view()?,
            revision: store.revision(),
            users_revision: store.users_revision(),
            now_ms: now_ms(reader, store),
        })
    }

    /// One piece.
    fn resume(&self, reading: &mut Reading) -> Readings {
        let machine = self.reader.replica.machine.read();
        reading.resume(&machine.store, Some(self.id), self.now_ms, PIECE_KEYS)
    }
}

impl Drop for Viewing {
    fn drop(&mut self) {
        let held = self.reader.replica.machine.write().store.end_view(self.id);
        // The memory that many writes have left takes long to free.
        if let (Some(held), Ok(runtime)) = (held, Handle::try_current())
            && held.is_much()
        {
            runtime.spawn((self.reader.env.blocking)(free(held)));
        }
    }
}

fn free(held: Garbage) -> crate::BlockingWork {
    Box::new(move || drop(held))
}
