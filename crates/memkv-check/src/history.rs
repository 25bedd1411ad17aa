//! What clients did and saw: operations with the span of time in which they may have run.
//! Never judges anything; a history is plain data and can be written to and read from JSON lines.
//!
//! Invariant that callers keep: all stamps of one history come from one clock, the invocation is
//! stamped before the request can have left the client, and the return after the reply arrived.

use std::fmt;
use std::io::{self, BufRead, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::{Op, Reply};

/// One operation on one key, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation<O = Op, R = Reply> {
    /// The client that ran it; only for readers of the history.
    pub process: u64,
    /// The key. Keys are judged independently of each other.
    pub key: String,
    /// What was asked for.
    pub op: O,
    /// Stamp of the invocation, in the history's clock (logical, or nanoseconds).
    pub invoked_at: u64,
    /// What became of it.
    pub outcome: Outcome<R>,
}

/// What the client knows about an operation after it has ended, or has been given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<R = Reply> {
    /// It was executed once, between its invocation and `returned_at`.
    Ok {
        /// What the store answered.
        reply: R,
        /// Stamp of the reply's arrival; never before the invocation.
        returned_at: u64,
        /// The store's revision in the reply: the write's own, or the one at which a read was
        /// answered. Only the revision checker and the ledger need it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<u64>,
    },
    /// The store promised that it was not and never will be executed.
    NotExecuted,
    /// It may have been executed once, at any time after its invocation (even much later), or
    /// never. This is also the outcome of an operation that still runs.
    Unknown,
}

impl<O, R> Operation<O, R> {
    /// The reply, if one arrived.
    pub fn reply(&self) -> Option<&R> {
        match &self.outcome {
            Outcome::Ok { reply, .. } => Some(reply),
            Outcome::NotExecuted | Outcome::Unknown => None,
        }
    }

    /// When the reply arrived; `None` for an operation without one.
    pub fn returned_at(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Ok { returned_at, .. } => Some(returned_at),
            Outcome::NotExecuted | Outcome::Unknown => None,
        }
    }

    /// The store's revision in the reply.
    pub fn revision(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Ok { revision, .. } => revision,
            Outcome::NotExecuted | Outcome::Unknown => None,
        }
    }
}

impl<O: fmt::Debug, R: fmt::Debug> fmt::Display for Operation<O, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation {
            process,
            key,
            op,
            invoked_at,
            outcome,
        } = self;
        match outcome {
            Outcome::Ok {
                reply,
                returned_at,
                revision,
            } => {
                write!(
                    f,
                    "[{invoked_at}..{returned_at}] client {process} {op:?} {key:?} -> {reply:?}"
                )?;
                revision.map_or(Ok(()), |revision| write!(f, " at revision {revision}"))
            }
            Outcome::NotExecuted => {
                write!(
                    f,
                    "[{invoked_at}..] client {process} {op:?} {key:?} -> not executed"
                )
            }
            Outcome::Unknown => {
                write!(
                    f,
                    "[{invoked_at}..] client {process} {op:?} {key:?} -> unknown"
                )
            }
        }
    }
}

/// Why a stored history could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source failed.
    #[error("failed to read line {line} of the history")]
    Io {
        /// Counted from 1.
        line: usize,
        /// What the source said.
        source: io::Error,
    },
    /// A line is not an operation.
    #[error("line {line} of the history is not an operation")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Its fault.
        source: serde_json::Error,
    },
}

/// Writes a history as JSON lines, one operation each, in the order given.
pub fn write_json_lines<O: Serialize, R: Serialize>(
    mut out: impl Write,
    history: &[Operation<O, R>],
) -> io::Result<()> {
    for operation in history {
        serde_json::to_writer(&mut out, operation)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Reads what [`write_json_lines`] wrote. Blank lines are skipped, so that a history can be
/// edited by hand.
pub fn read_json_lines<O: DeserializeOwned, R: DeserializeOwned>(
    input: impl BufRead,
) -> Result<Vec<Operation<O, R>>, ReadError> {
    let mut history = Vec::new();
    for (text, line) in input.lines().zip(1..) {
        let text = text.map_err(|source| ReadError::Io { line, source })?;
        if text.trim().is_empty() {
            continue;
        }
        let operation = serde_json::from_str(&text);
        history.push(operation.map_err(|source| ReadError::Syntax { line, source })?);
    }
    Ok(history)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;

    fn sample() -> Vec<Operation> {
        let ok = Outcome::Ok {
            reply: Reply::Value(Some(Value::new(7))),
            returned_at: 9,
            revision: Some(3),
        };
        let bare = Outcome::Ok {
            reply: Reply::Done,
            returned_at: 4,
            revision: None,
        };
        [
            (Op::Get, ok),
            (Op::Set(7), bare),
            (Op::Incr(-1), Outcome::Unknown),
        ]
        .into_iter()
        .chain([(Op::Del, Outcome::NotExecuted)])
        .map(|(op, outcome)| Operation {
            process: 1,
            key: "a b".into(),
            op,
            invoked_at: 2,
            outcome,
        })
        .collect()
    }

    #[test]
    fn json_lines_survive_a_round_trip_and_blank_lines() {
        let mut text = Vec::new();
        write_json_lines(&mut text, &sample()).unwrap();
        text.extend_from_slice(b"\n  \n");
        assert_eq!(
            read_json_lines::<Op, Reply>(text.as_slice()).unwrap(),
            sample()
        );
    }

    #[test]
    fn a_bad_line_is_named() {
        let mut text = Vec::new();
        write_json_lines(&mut text, &sample()).unwrap();
        text.extend_from_slice(b"{\"process\":1}\n");
        let error = read_json_lines::<Op, Reply>(text.as_slice()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 5 of the history is not an operation"
        );
    }
}
