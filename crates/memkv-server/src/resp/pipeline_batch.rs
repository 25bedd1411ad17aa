//! Requests that a connection has read and not yet executed: consecutive writes, which are submitted
//! together, or consecutive reads, which share one hold of the store's lock. Never both: a read sees
//! the writes before it and not those behind it.

use std::mem;

use bytes::BytesMut;
use memkv_resp::Request;
use memkv_store::{Command, Query};

use super::publish::Receivers;
use super::transaction::Plan;
use crate::commands::{ReplyFormat, Spec};
use crate::ledger::Held;
use crate::read_batch::ReadBatch;

/// Commands per batch that answer with a value: their answers are held all at once.
const MAX_VALUES: usize = 32;

/// Slots whose memory a connection keeps between batches (1 KiB): more than most pipelines.
const KEPT_SLOTS: usize = 16;

/// The source of one answer.
pub(super) enum Slot {
    /// So many bytes of `ready`.
    Ready(usize),
    /// The next outcome.
    Op {
        spec: &'static Spec,
        format: ReplyFormat,
        silent: bool,
    },
    /// The next outcome, of a whole transaction.
    Exec {
        spec: &'static Spec,
        plan: Plan,
        silent: bool,
    },
    /// A message that has been sent, and the count of its receivers.
    Published {
        spec: &'static Spec,
        receivers: Receivers,
        silent: bool,
    },
}

/// See the module's documentation. Invariant: there are no commands or no queries, and of the other
/// there is one for each `Op` or `Exec` among the slots.
#[derive(Default)]
pub(super) struct PipelineBatch {
    pub(super) slots: Vec<Slot>,
    /// The first request for the store, in case all of them are slow.
    pub(super) head: Option<(&'static Spec, Request)>,
    pub(super) commands: Vec<Command>,
    pub(super) reads: ReadBatch,
    /// Answers that the node has given by itself in between.
    pub(super) ready: BytesMut,
    /// Steps to encode the commands.
    pub(super) steps: usize,
    values: usize,
}

impl PipelineBatch {
    /// An empty one, whose answers are counted by this guard.
    pub(super) fn counted(memory: Held) -> Self {
        Self {
            reads: ReadBatch::default().counted(memory),
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Empties it, and keeps as much of its memory as the next batches of most connections need.
    pub(super) fn recycle(&mut self) {
        if self.slots.capacity() > KEPT_SLOTS {
            self.reads.memory.set(0);
            let memory = mem::take(&mut self.reads.memory);
            return *self = Self::counted(memory);
        }
        self.slots.clear();
        self.head = None;
        self.commands.clear();
        self.reads.clear();
        self.ready.clear();
        self.steps = 0;
        self.values = 0;
    }

    /// Whether the store must be asked before it can be answered.
    pub(super) fn waits_for_store(&self) -> bool {
        !self.commands.is_empty() || !self.reads.queries.is_empty()
    }

    /// Whether a write may join.
    pub(super) fn takes_write(&self, command: &Command) -> bool {
        self.reads.queries.is_empty() && (!answers_value(command) || self.takes_value())
    }

    /// Whether the answer of one more write may be a value: only one, where replies take all they may.
    fn takes_value(&self) -> bool {
        self.values == 0 || (self.values < MAX_VALUES && !self.reads.memory.is_full())
    }

    /// Whether an answer of a write is a value.
    pub(super) fn answers_values(&self) -> bool {
        self.values > 0
    }

    /// Whether a read may join.
    pub(super) fn takes_read(&self) -> bool {
        self.commands.is_empty()
    }

    /// Takes a command that is encoded in so many steps.
    pub(super) fn write(&mut self, command: Command, steps: usize, slot: Slot) {
        self.steps += steps;
        self.values += usize::from(answers_value(&command));
        self.commands.push(command);
        self.slots.push(slot);
    }

    pub(super) fn read(&mut self, query: Query, slot: Slot) {
        self.reads.queries.push_back(query);
        self.slots.push(slot);
    }
}

fn answers_value(command: &Command) -> bool {
    match command {
        Command::SetWith { get, .. } => *get,
        Command::GetDel { .. } | Command::GetEx { .. } | Command::Transaction { .. } => true,
        Command::InDatabase { command, .. } => answers_value(command),
        _ => false,
    }
}
