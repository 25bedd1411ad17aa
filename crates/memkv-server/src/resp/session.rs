//! The state of one connection: what its client has set, queued, watched and subscribed to. Never
//! does I/O.
//!
//! Invariant: the connection's subscriptions are registered in `subscriptions`, and no longer once
//! this is dropped.

use std::sync::Arc;

use bytes::Bytes;
use memkv_resp::{Protocol, Request};
use memkv_store::{MAX_TRANSACTION_STEPS, Query, ReplyValue, Revision, Seen};

use super::clients::Client;
use super::judge::Speaker;
use super::names::Names;
use super::server::Server;
use super::subscriptions::{Kind, memory_of};
use crate::aside::{step_aside, steps_of};
use crate::commands::Spec;
use crate::ledger::{Class, Held};

/// Most commands between MULTI and EXEC, and most keys of WATCH: what one log entry takes.
pub(crate) const MAX_QUEUED: usize = MAX_TRANSACTION_STEPS;

/// Most bytes of commands between MULTI and EXEC: one value of the largest size and as much again.
pub(crate) const MAX_QUEUED_BYTES: usize = 128 * 1024 * 1024;

/// Memory of a watched key beside its bytes, about.
pub(crate) const WATCHED_BYTES: usize = 128;

/// Steps to end one subscription.
pub(crate) const STEPS_TO_LEAVE: usize = 256;

/// Which replies the client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Replies {
    #[default]
    On,
    Off,
    /// `CLIENT REPLY SKIP` was this command: the next one is not answered.
    SkipNext,
    Skip,
}

/// Commands between MULTI and EXEC.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) requests: Vec<(&'static Spec, Request)>,
    pub(crate) bytes: usize,
    /// What they take, beside what is watched.
    pub(crate) memory: usize,
    /// Something could not be queued: EXEC will refuse.
    pub(crate) is_broken: bool,
}

impl Queue {
    /// EXEC will refuse, so nothing is kept.
    pub(crate) fn give_up(&mut self) {
        *self = Self {
            is_broken: true,
            ..Self::default()
        };
    }

    /// What it takes to understand and to encode them all.
    pub(crate) fn steps(&self) -> usize {
        let requests = self.requests.iter();
        let arguments: usize = requests.map(|(_, request)| request.arg_count()).sum();
        steps_of(arguments, self.bytes)
    }
}

/// A watched key and its state when it was watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) db: u8,
    pub(crate) key: Bytes,
    pub(crate) seen: Seen,
}

impl Watched {
    /// Asks for the state of a key.
    pub(crate) fn query(db: u8, key: Bytes) -> Query {
        Query::Meta { key, value: false }.in_database(db)
    }

    /// From the answer to [`Watched::query`], given at that revision of the store.
    pub(crate) fn new(db: u8, key: Bytes, answer: &ReplyValue, revision: Revision) -> Self {
        let seen = match answer {
            ReplyValue::Array(fields) => match fields.get(2) {
                Some(ReplyValue::Integer(revision)) => Seen::Present {
                    mod_revision: revision.cast_unsigned(),
                },
                // No query answers so; no key has this revision, so that EXEC executes nothing.
                _ => Seen::Present { mod_revision: 0 },
            },
            ReplyValue::Nil => Seen::Absent { at: revision },
            // The same.
            _ => Seen::Present { mod_revision: 0 },
        };
        Self { db, key, seen }
    }
}

/// State of a connection.
pub(crate) struct Session {
    pub(super) server: Arc<Server>,
    pub(crate) client: Arc<Client>,
    pub(crate) protocol: Protocol,
    /// Whom it speaks for.
    pub(super) speaker: Speaker,
    /// It has waited for a node that starts.
    pub(super) has_waited: bool,
    pub(crate) db: u8,
    /// READONLY was said: reads may be old.
    pub(crate) stale_reads: bool,
    pub(crate) replies: Replies,
    pub(crate) queue: Option<Queue>,
    pub(crate) watched: Vec<Watched>,
    /// What the watched keys take, as far as is known.
    pub(crate) watched_bytes: usize,
    /// What the queue and the watched keys take, once more than was free.
    pub(crate) queued: Held,
    /// What the subscriptions take.
    pub(crate) subscribed: Held,
    /// By [`Kind`].
    pub(crate) listens: [Names; 3],
    /// The connection ends once what was answered has been sent.
    pub(crate) is_closing: bool,
    pub(crate) command: &'static str,
}

impl Session {
    pub(crate) fn new(server: Arc<Server>, client: Arc<Client>) -> Self {
        let speaker = Speaker::new(None, 0);
        let mut session = Self {
            queued: server.ledger.hold(Class::Queued),
            subscribed: server.ledger.hold(Class::Subscriptions),
            server,
            client,
            protocol: Protocol::Resp2,
            speaker,
            has_waited: false,
            db: 0,
            stale_reads: false,
            replies: Replies::On,
            queue: None,
            watched: Vec::new(),
            watched_bytes: 0,
            listens: Default::default(),
            is_closing: false,
            command: "NULL",
        };
        session.become_stranger();
        session
    }

    /// How many channels and patterns, without shard channels, as replies count them.
    pub(crate) fn subscriptions(&self) -> usize {
        self.listens[Kind::Channel as usize].len() + self.listens[Kind::Pattern as usize].len()
    }

    /// In RESP2 a listener can do little else.
    pub(crate) fn only_listens(&self) -> bool {
        self.protocol == Protocol::Resp2 && self.listens.iter().any(|names| !names.is_empty())
    }

    /// Ends all subscriptions of a kind, or one.
    pub(crate) fn leave(&mut self, kind: Kind, name: &Bytes) {
        if self.listens[kind as usize].remove(name) {
            self.server.subscriptions.leave(kind, name, self.client.id);
            let left = self.subscribed.charged();
            self.subscribed
                .set(left.saturating_sub(memory_of(kind, name)));
        }
    }

    /// Ends all subscriptions.
    pub(crate) fn leave_all(&mut self) {
        let names: usize = self.listens.iter().map(Names::len).sum();
        step_aside(names * STEPS_TO_LEAVE, || self.leave_each());
    }

    fn leave_each(&mut self) {
        for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
            for name in self.listens[kind as usize].take() {
                self.server.subscriptions.leave(kind, &name, self.client.id);
            }
        }
        self.subscribed.set(0);
    }

    /// Gives back what an ended transaction has held.
    pub(crate) fn settle(&mut self) {
        if self.watched.is_empty() {
            self.watched_bytes = 0;
        }
        if self.queued.charged() > 0 {
            let queue = self.queue.as_ref().map_or(0, |queue| queue.memory);
            self.queued.set(queue + self.watched_bytes);
        }
    }

    /// `RESET`.
    pub(crate) fn reset(&mut self) {
        self.leave_all();
        self.protocol = Protocol::Resp2;
        self.become_stranger();
        self.db = 0;
        self.stale_reads = false;
        self.replies = Replies::On;
        self.queue = None;
        self.watched.clear();
        self.client.shown.lock().name = Bytes::new();
    }

    /// After each command: what `CLIENT REPLY SKIP` began, and what it ends.
    pub(crate) fn command_done(&mut self) {
        self.replies = match self.replies {
            Replies::SkipNext => Replies::Skip,
            Replies::Skip => Replies::On,
            other => other,
        };
    }

    /// Whether the reply of the command in hand is not sent.
    pub(crate) fn is_silent(&self) -> bool {
        self.replies != Replies::On
    }

    /// Tells the registry what has changed; once per turn, not per command.
    pub(crate) fn show(&self) {
        let mut shown = self.client.shown.lock();
        shown.db = self.db;
        shown.resp = match self.protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        };
        shown.subscriptions = std::array::from_fn(|kind| self.listens[kind].len());
        shown.queued = self.queue.as_ref().map(|queue| queue.requests.len());
        shown.watched = self.watched.len();
        shown.command = self.command;
        shown.last_active = Some(tokio::time::Instant::now());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.leave_all();
        self.server.clients.remove(self.client.id);
    }
}

#[cfg(test)]
mod tests {
    use memkv_store::{BatchBuilder, Command, Store, SystemOp};

    use super::*;

    #[test]
    fn a_watched_key_is_seen_as_the_store_sees_it() {
        let mut store = Store::new();
        let mut open = BatchBuilder::new(1);
        open.system(&SystemOp::OpenSession {
            node: 1,
            boot: 1,
            highest: 1,
        });
        store.apply(1, &open.finish(), &mut ());
        let key = Bytes::from_static(b"k");
        let set = Command::Set {
            key: key.clone(),
            value: Bytes::from_static(b"v"),
        };
        let mut batch = BatchBuilder::new(2);
        let commands = [&set.clone().in_database(3).encode()];
        batch.group(1, 1, 0, commands.into_iter());
        store.apply(2, &batch.finish(), &mut ());
        for db in [0, 3] {
            let answer = store.query(&Watched::query(db, key.clone()), 0);
            let watched = Watched::new(db, key.clone(), &answer, store.revision());
            assert_eq!(watched.seen, store.seen(db, &key), "{db}");
        }
        let seen = [store.seen(0, &key), store.seen(3, &key)];
        assert!(
            matches!(seen, [Seen::Absent { .. }, Seen::Present { .. }]),
            "{seen:?}"
        );
    }
}
