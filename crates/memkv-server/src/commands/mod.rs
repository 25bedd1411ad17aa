//! The commands of the Redis protocol: one table, and one file per family that turns arguments
//! into something to execute. `call` has the types that the families share, `args` reads arguments,
//! `reply_format` and `error_reply` write answers. Never opens a socket and never talks to the
//! cluster: the connection (`crate::resp`) does both.

mod acl;
mod args;
mod call;
mod client;
mod command;
mod config;
mod connection;
mod counters;
mod docs;
mod error_reply;
mod expiry;
#[cfg(test)]
mod growth;
mod hints;
mod info;
mod judge;
mod keys;
mod latency;
mod memkv;
mod pubsub;
mod reply_format;
mod scan;
mod script;
mod server;
mod slowlog;
mod spec;
mod strings;
mod stubs;
mod table;

pub(crate) use args::Args;
pub(crate) use call::{
    Account, Call, Data, Local, Members, Op, Publish, TransactionControl, Wait, Waiting,
    in_database,
};
pub(crate) use connection::{Hello, NO_PASSWORD, database, write_hello};
pub(crate) use docs::page as docs_page;
pub(crate) use error_reply::ErrorReply;
pub(crate) use judge::{judge, judge_name};
pub(crate) use pubsub::push_message;
pub(crate) use reply_format::{ReplyFormat, range_head};
#[cfg(test)]
pub(crate) use script::texts as script_texts;
pub(crate) use spec::{Handler, Spec, find, flag, named, resolve};
pub(crate) use table::TABLE;

/// How many commands there are.
#[cfg(test)]
pub(crate) fn count() -> usize {
    spec::commands().count()
}
