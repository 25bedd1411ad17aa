//! The errors of a configuration. Every text says what is wrong, where, and what to do.

use super::key::Key;
use crate::error::ErrorCode;

/// A configuration that cannot be used. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or too long.
    #[error("config: {detail} at {origin}; the file must be one JSON object")]
    Syntax {
        /// Where: `file:line:column`.
        origin: String,
        /// The parser's message.
        detail: String,
    },
    /// A key that does not exist.
    #[error("config: unknown key {key:?} at {origin} — {}", hint(nearest, known))]
    UnknownKey {
        /// The key as written.
        key: String,
        /// Where: `file:line:column`, a variable or a flag.
        origin: String,
        /// The key that was probably meant.
        nearest: Option<String>,
        /// The keys that exist there.
        known: String,
    },
    /// A key that occurs twice in one object.
    #[error("config: key {key:?} at {origin} was already given at {first}; remove one of them")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Where it occurs again.
        origin: String,
        /// Where it occurred first.
        first: String,
    },
    /// A key that must be there and is not.
    #[error("config: {key:?} is missing in the object at {origin}; it must be {expected}")]
    MissingKey {
        /// The key.
        key: String,
        /// Where the object is.
        origin: String,
        /// What would be accepted.
        expected: String,
    },
    /// A value of the wrong type or out of range.
    #[error("config: {key:?} at {origin} is {found}; it must be {expected}")]
    BadValue {
        /// The key.
        key: String,
        /// Where the value is.
        origin: String,
        /// The value that was found.
        found: String,
        /// What would be accepted.
        expected: String,
    },
    /// An id or address that cannot be used.
    #[error("config: {key:?} at {origin}: {detail}")]
    BadAddress {
        /// The key.
        key: String,
        /// Where the value is.
        origin: String,
        /// Its fault, and the accepted values.
        detail: String,
    },
    /// Settings that do not go together.
    #[error("config: {what} ({origin}); {next}")]
    Conflict {
        /// What does not go together.
        what: String,
        /// Where the settings come from.
        origin: String,
        /// What to do.
        next: String,
    },
}

impl ConfigError {
    /// The line of the error table.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::BadConfig
    }

    pub(crate) fn bad_value(key: &Key, origin: &str, found: impl Into<String>) -> Self {
        Self::BadValue {
            key: key.name.to_owned(),
            origin: origin.to_owned(),
            found: found.into(),
            expected: key.expects(),
        }
    }
}

fn hint(nearest: &Option<String>, known: &str) -> String {
    match nearest {
        Some(key) => format!("did you mean {key:?}?"),
        None => format!("the keys are {known}"),
    }
}
