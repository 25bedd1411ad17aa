//! Arguments of one call, and how each kind of them is read. Never panics on an index: the table's
//! arity says which are there.

use bytes::Bytes;
use memkv_resp::{Pattern, Request, parse_integer};

use super::error_reply::ErrorReply;

/// A request as its handler reads it.
#[derive(Clone, Copy)]
pub(crate) struct Args<'a> {
    pub(crate) request: &'a Request,
    /// Name of the command's line in the table.
    pub(crate) name: &'static str,
    /// The connection's database.
    pub(crate) db: u8,
}

impl<'a> Args<'a> {
    /// The number of arguments, the command's name included.
    pub(crate) fn len(&self) -> usize {
        self.request.arg_count()
    }

    /// An argument; empty if it is not there.
    pub(crate) fn get(&self, at: usize) -> &'a [u8] {
        self.request.arg(at).unwrap_or_default()
    }

    /// An argument that a command takes along.
    pub(crate) fn bytes(&self, at: usize) -> Bytes {
        self.request.arg_bytes(at).unwrap_or_default()
    }

    /// All arguments from here on.
    pub(crate) fn bytes_from(&self, at: usize) -> Vec<Bytes> {
        (at..self.len()).map(|at| self.bytes(at)).collect()
    }

    /// Whether an argument is this word, whatever its case.
    pub(crate) fn is(&self, at: usize, word: &str) -> bool {
        self.get(at).eq_ignore_ascii_case(word.as_bytes())
    }

    /// An argument in upper case, to be matched; options are short.
    pub(crate) fn word(&self, at: usize) -> Vec<u8> {
        self.get(at).to_ascii_uppercase()
    }

    /// An integer.
    pub(crate) fn int(&self, at: usize) -> Result<i64, ErrorReply> {
        parse_integer(self.get(at)).ok_or(ErrorReply::NOT_AN_INTEGER)
    }

    /// A pattern that outlives the call: without the buffer that it was read into.
    pub(crate) fn pattern(&self, at: usize) -> Result<Pattern, ErrorReply> {
        let pattern = Pattern::new(Bytes::copy_from_slice(self.get(at)));
        pattern.map_err(|why| ErrorReply::with(format!("ERR {why}")))
    }

    /// Where the value of the option at `at` is; a syntax error if nothing follows.
    pub(crate) fn value_of_option(&self, at: usize) -> Result<usize, ErrorReply> {
        if at + 1 < self.len() {
            Ok(at + 1)
        } else {
            Err(ErrorReply::SYNTAX)
        }
    }
}
