//! All requests of clients and their answers, over all keys: the history that is compared with the
//! log. Never judges it.
//!
//! A command is known again in the log by its bytes, so that the checker needs no decoder of the
//! store's. Invariant: a command is recorded here before it can be in the log.

use std::collections::HashMap;

use memkv_check::space::{Answer, Command, Query, Request};
use memkv_check::{InFlight, Operation, Recorder};

use parking_lot::Mutex;

/// An operation of this history.
pub(crate) type Asking = InFlight<Request, Answer>;

/// The history.
pub(crate) struct Operations {
    recorder: Recorder<Request, Answer>,
    /// By encoding, without padding. Never iterated.
    commands: Mutex<HashMap<Box<[u8]>, Command>>,
}

/// An encoded command without the padding of its value.
fn unpadded(encoded: &[u8]) -> &[u8] {
    let padding = encoded.iter().rev().take_while(|byte| **byte == b'.');
    &encoded[..encoded.len() - padding.count()]
}

impl Operations {
    /// Nothing was asked for. The clock gives the history's stamps, in nanoseconds.
    pub(crate) fn new(clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self {
            recorder: Recorder::with_clock(clock),
            commands: Mutex::default(),
        }
    }

    /// A client is about to send `sent`, which is `command` as the store's type.
    pub(crate) fn write(
        &self,
        process: u64,
        command: Command,
        sent: &memkv_store::Command,
    ) -> Asking {
        let encoded = unpadded(&sent.encode()).into();
        self.commands.lock().insert(encoded, command.clone());
        self.recorder.invoke(process, "", Request::Write(command))
    }

    /// A client is about to read.
    pub(crate) fn read(&self, process: u64, queries: Vec<Query>) -> Asking {
        self.recorder.invoke(process, "", Request::Read(queries))
    }

    /// What lies in the log as these bytes; `None` if no client sent them.
    pub(crate) fn command(&self, encoded: &[u8]) -> Option<Command> {
        self.commands.lock().get(unpadded(encoded)).cloned()
    }

    /// The history so far.
    pub(crate) fn history(&self) -> Vec<Operation<Request, Answer>> {
        self.recorder.history()
    }
}
