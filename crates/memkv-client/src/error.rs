//! Why a call failed, whether it may have been executed, and what to do next.
//! Never hides an attempt: each endpoint that was tried is listed with its reason.

use std::fmt;

use memkv_proto::error::exit;
use memkv_proto::{ErrorCode, Executed, Problem};

/// What was asked, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// `get`, `set`, `del`, `exist`, `incr`, `scan`, `txn`, `status`, `backup` or `connect`.
    pub verb: &'static str,
    /// The key; None if the operation has none.
    pub key: Option<Vec<u8>>,
}

impl Operation {
    /// Whether it may change anything.
    pub fn is_write(&self) -> bool {
        matches!(self.verb, "set" | "del" | "incr" | "txn")
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb)?;
        // A key may be long; its beginning is enough to recognize it.
        const SHOWN_BYTES: usize = 100;
        match &self.key {
            Some(key) if key.len() > SHOWN_BYTES => {
                write!(f, " \"{}...\"", key[..SHOWN_BYTES].escape_ascii())
            }
            Some(key) => match std::str::from_utf8(key) {
                Ok(text) => write!(f, " {text:?}"),
                Err(_) => write!(f, " \"{}\"", key.escape_ascii()),
            },
            None => Ok(()),
        }
    }
}

/// One endpoint that was tried in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// `host:port`.
    pub endpoint: String,
    /// Why it did not work, as text.
    pub reason: String,
    /// What the node itself said, if it said anything.
    pub problem: Option<Box<Problem>>,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.endpoint, self.reason)
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An endpoint cannot be used. Nothing was sent.
    #[error("bad endpoint: {0}")]
    Endpoint(String),
    /// A file of TLS cannot be used. Nothing was sent.
    #[error("TLS: {0}")]
    Tls(String),
    /// No endpoint could do it in time. Nothing was executed.
    #[error("{}", unavailable(operation, attempts))]
    Unavailable {
        /// What was asked.
        operation: Operation,
        /// Every endpoint that was tried.
        attempts: Vec<Attempt>,
    },
    /// A write was sent, and no node answered its outcome.
    #[error("outcome unknown: {operation} may or may not have been executed")]
    Unknown {
        /// What was asked.
        operation: Operation,
        /// Every endpoint that was tried; the last one is where the outcome got lost.
        attempts: Vec<Attempt>,
    },
    /// A node refused the request, and every other one would too. Nothing was executed.
    #[error("{}: {}", problem.title, problem.detail)]
    Refused {
        /// What was asked.
        operation: Operation,
        /// Who refused it.
        endpoint: String,
        /// What it said.
        problem: Box<Problem>,
    },
}

impl Error {
    /// The line of the error table that fits best.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Endpoint(_) | Self::Tls(_) => ErrorCode::Usage,
            Self::Unavailable { attempts, .. } => told(attempts),
            Self::Unknown { .. } => ErrorCode::Unknown,
            Self::Refused { problem, .. } => problem.error_code().unwrap_or(ErrorCode::BadRequest),
        }
    }

    /// Exit code of the command line.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Endpoint(_) | Self::Tls(_) => exit::USAGE,
            Self::Unavailable { .. } => exit::UNAVAILABLE,
            Self::Unknown { .. } => exit::UNKNOWN,
            Self::Refused { problem, .. } => match problem.error_code() {
                // The node knows better than the table: it says that nothing was executed.
                Some(code) if code.info().executed == Executed::No => code.info().exit,
                None if problem.status < 500 => exit::USAGE,
                _ => exit::UNAVAILABLE,
            },
        }
    }

    /// Whether the call may have been executed.
    pub fn executed(&self) -> Executed {
        match self {
            Self::Unknown { .. } => Executed::Maybe,
            _ => Executed::No,
        }
    }

    /// The lines below the message: what was tried, and what to do next.
    pub fn explain(&self) -> Vec<String> {
        let (attempts, next) = match self {
            Self::Refused { .. } if self.code() == ErrorCode::Unauthorized => {
                let next = "give the password with --password-file or in MEMKV_PASSWORD";
                return vec![next.to_owned()];
            }
            Self::Endpoint(_) | Self::Tls(_) | Self::Refused { .. } => return Vec::new(),
            Self::Unavailable { attempts, .. } => {
                let next = match self.code() {
                    ErrorCode::Unreachable => {
                        "start the nodes, or name others with --endpoints or MEMKV_ENDPOINTS"
                    }
                    _ => "see which nodes are down: memkv_client status",
                };
                (attempts, next.to_owned())
            }
            Self::Unknown {
                operation,
                attempts,
            } => {
                let next = match &operation.key {
                    Some(key) => format!("check with: memkv_client get {}", shell_word(key)),
                    None => "read the keys that it writes before you send it again".to_owned(),
                };
                (attempts, next)
            }
        };
        attempts
            .iter()
            .map(Attempt::to_string)
            .chain([next])
            .collect()
    }
}

/// What the nodes agree on best: "no leader" says more than "unreachable".
fn told(attempts: &[Attempt]) -> ErrorCode {
    let codes = || {
        attempts
            .iter()
            .filter_map(|attempt| attempt.problem.as_ref()?.error_code())
    };
    codes()
        .find(|code| *code == ErrorCode::NoLeader)
        .or_else(|| codes().next())
        .unwrap_or(ErrorCode::Unreachable)
}

fn unavailable(operation: &Operation, attempts: &[Attempt]) -> String {
    let title = told(attempts).info().title;
    if operation.is_write() {
        format!("{title}: nothing was written")
    } else {
        format!("{title}: {} was not answered", operation.verb)
    }
}

/// A key as a word that a POSIX shell reads back.
fn shell_word(key: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(key) else {
        return format!("$'{}'", key.escape_ascii());
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        text.to_owned()
    } else if text.chars().any(char::is_control) {
        format!("$'{}'", key.escape_ascii())
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(problem: Option<ErrorCode>) -> Attempt {
        let problem = problem.map(|code| Box::new(Problem::new(code, "why")));
        Attempt {
            endpoint: "h:1".into(),
            reason: "why".into(),
            problem,
        }
    }

    #[test]
    fn the_best_reason_names_the_failure() {
        let set = Operation {
            verb: "set",
            key: Some(b"k".to_vec()),
        };
        let failed = |attempts: Vec<Attempt>| Error::Unavailable {
            operation: set.clone(),
            attempts,
        };
        let refused = failed(vec![attempt(None)]);
        assert_eq!(refused.code(), ErrorCode::Unreachable);
        assert_eq!(
            refused.to_string(),
            "no node available: nothing was written"
        );
        assert_eq!(refused.exit_code(), 3);
        let leaderless = failed(vec![
            attempt(None),
            attempt(Some(ErrorCode::Loading)),
            attempt(Some(ErrorCode::NoLeader)),
        ]);
        assert_eq!(leaderless.to_string(), "no leader: nothing was written");
        // A read that met internal errors everywhere is unavailable, never unknown.
        assert_eq!(
            failed(vec![attempt(Some(ErrorCode::Internal))]).exit_code(),
            3
        );
    }

    #[test]
    fn an_unknown_outcome_says_how_to_check() {
        let operation = Operation {
            verb: "set",
            key: Some(b"it's".to_vec()),
        };
        let error = Error::Unknown {
            operation,
            attempts: vec![attempt(None)],
        };
        assert_eq!(
            error.to_string(),
            r#"outcome unknown: set "it's" may or may not have been executed"#
        );
        assert_eq!(
            error.explain(),
            ["h:1: why", r"check with: memkv_client get 'it'\''s'"]
        );
        assert_eq!((error.exit_code(), error.executed()), (4, Executed::Maybe));
    }

    #[test]
    fn keys_are_shown_briefly_and_quoted_for_the_shell() {
        assert_eq!(shell_word(b"user:1"), "user:1");
        assert_eq!(shell_word(b""), "''");
        assert_eq!(shell_word(b"-k"), "'-k'");
        assert_eq!(shell_word(b"a\nb"), r"$'a\nb'");
        assert_eq!(shell_word(b"\xff'"), r"$'\xff\''");
        let long = Operation {
            verb: "get",
            key: Some(vec![b'x'; 1000]),
        };
        assert_eq!(long.to_string().len(), "get \"...\"".len() + 100);
    }
}
