//! The commands of the Redis protocol: one table, and one file per family that turns arguments
//! into something to execute. Never opens a socket and never talks to the cluster: the connection
//! (`crate::resp`) does both.

mod args;
mod client;
mod command;
mod config;
mod connection;
mod counters;
mod docs;
mod error_reply;
mod expiry;
mod hints;
mod info;
mod keys;
mod memkv;
mod pubsub;
mod reply_format;
mod scan;
mod script;
mod server;
mod spec;
mod strings;
mod stubs;
mod table;

use std::time::Duration;

use bytes::Bytes;
use memkv_node::{Copies, Publication};
use memkv_resp::ReplyWriter;
use memkv_store::{Command, Query};

use crate::resp::{Out, Server, Session};

pub(crate) use args::Args;
pub(crate) use connection::{DATABASES, database};
pub(crate) use docs::page as docs_page;
pub(crate) use error_reply::ErrorReply;
pub(crate) use pubsub::push_message;
pub(crate) use reply_format::{ReplyFormat, range_head};
pub(crate) use spec::{Handler, Spec, flag, resolve};

/// Turns arguments into what the store executes.
pub(crate) type Data = fn(&Args<'_>) -> Result<Op, ErrorReply>;

/// Answers at once.
pub(crate) type Local = fn(&mut Call<'_>) -> Result<(), ErrorReply>;

/// Turns arguments into a message for listeners on all nodes.
pub(crate) type Publish = fn(&Args<'_>) -> Result<Publication, ErrorReply>;

/// Reads how many other nodes are waited for, how long, and how the answer is written.
pub(crate) type Wait = fn(&Args<'_>) -> Result<Waiting, ErrorReply>;

/// See [`Wait`].
pub(crate) struct Waiting {
    /// Where the writes shall be.
    pub(crate) wanted: Copies,
    /// None is for ever.
    pub(crate) within: Option<Duration>,
    /// Writes the answer; whether acknowledged means synced is the last argument.
    pub(crate) write: fn(&mut ReplyWriter<'_, Out>, Copies, bool),
}

/// What only the connection itself can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransactionControl {
    Multi,
    Exec,
    Discard,
    Watch,
}

/// Something for the store, and how its answer is written.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// Goes to the log.
    Write(Command, ReplyFormat),
    /// Does not.
    Read(Query, ReplyFormat),
}

/// The command for a database. A transaction says for each of its parts where it belongs.
pub(crate) fn in_database(command: Command, db: u8) -> Command {
    match command {
        Command::Transaction { .. } => command,
        _ => command.in_database(db),
    }
}

/// A call that the connection's node answers at once.
pub(crate) struct Call<'a> {
    pub(crate) args: Args<'a>,
    pub(crate) session: &'a mut Session,
    pub(crate) server: &'a Server,
    pub(crate) out: &'a mut Out,
}

impl Call<'_> {
    /// Where the answer goes, in the protocol that the connection speaks now.
    pub(crate) fn reply(&mut self) -> ReplyWriter<'_, Out> {
        ReplyWriter::new(self.out, self.session.protocol)
    }

    /// An argument that outlives the call: without the buffer that it was read into.
    pub(crate) fn owned(&self, at: usize) -> Bytes {
        Bytes::copy_from_slice(self.args.get(at))
    }
}

/// How many commands there are.
#[cfg(test)]
pub(crate) fn count() -> usize {
    spec::commands().count()
}
