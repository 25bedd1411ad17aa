//! How a command is called and what it becomes: the types that the families of commands share.
//! Never executes anything.

use std::time::Duration;

use bytes::Bytes;
use memkv_node::{Copies, Publication};
use memkv_resp::ReplyWriter;
use memkv_store::{Command, Query};

use super::{Args, ErrorReply, ReplyFormat};
use crate::resp::{Out, Server, Session};

/// Turns arguments into what the store executes.
pub(crate) type Data = fn(&Args<'_>) -> Result<Op, ErrorReply>;

/// Answers at once.
pub(crate) type Local = fn(&mut Call<'_>) -> Result<(), ErrorReply>;

/// Turns arguments into a message for listeners on all nodes.
pub(crate) type Publish = fn(&Args<'_>) -> Result<Publication, ErrorReply>;

/// Turns arguments into a wait for copies on other nodes.
pub(crate) type Wait = fn(&Args<'_>) -> Result<Waiting, ErrorReply>;

/// See [`Wait`].
pub(crate) struct Waiting {
    /// On how many nodes the writes must be.
    pub(crate) wanted: Copies,
    /// The longest wait; none is for ever.
    pub(crate) within: Option<Duration>,
    /// Writes the answer; the last argument is whether acknowledged means synced.
    pub(crate) write: fn(&mut ReplyWriter<'_, Out>, Copies, bool),
}

/// A command that begins, fills or ends a transaction, which only the connection can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransactionControl {
    Multi,
    Exec,
    Discard,
    Watch,
}

/// A command about who the client is, or about users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    Auth,
    Hello,
    SetUser,
    DelUser,
    Init,
    Token,
    /// About the cluster's members, see `resp/members.rs`.
    Members(Members),
}

/// What a client asks about the cluster's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Members {
    List,
    CheckStop,
    Wait,
    Add,
    Remove,
    Replace,
    Promote,
    Demote,
    Transfer,
}

/// A command or a query for the store, and how its answer is written.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// Through the log.
    Write(Command, ReplyFormat),
    /// Beside the log.
    Read(Query, ReplyFormat),
    /// By this node alone, at once.
    Here(Local),
}

/// The command, for a database. Each part of a transaction names its own.
pub(crate) fn in_database(command: Command, db: u8) -> Command {
    match command {
        Command::Transaction { .. } => command,
        _ => command.in_database(db),
    }
}

/// A call that the node answers at once, from what it holds.
pub(crate) struct Call<'a> {
    pub(crate) args: Args<'a>,
    pub(crate) session: &'a mut Session,
    pub(crate) server: &'a Server,
    pub(crate) out: &'a mut Out,
}

impl Call<'_> {
    /// Writes the answer, in the protocol that the connection speaks now.
    pub(crate) fn reply(&mut self) -> ReplyWriter<'_, Out> {
        ReplyWriter::new(self.out, self.session.protocol)
    }

    /// A copy of an argument, which outlives the call and does not keep the read buffer.
    pub(crate) fn owned(&self, at: usize) -> Bytes {
        Bytes::copy_from_slice(self.args.get(at))
    }
}
