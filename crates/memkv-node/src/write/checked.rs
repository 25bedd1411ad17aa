//! The check of a command before it gets a number: it is within the limits, and readable.
//!
//! A command that is refused after it has a number would block all that follow it. Nothing here executes
//! anything. Invariant: a command that passes makes no malformed entry on a node of this version.

use bytes::Bytes;
use memkv_store::{Command, MAX_KEY_BYTES};

use crate::RequestError;

/// Most bytes of one command: the largest value that any configuration allows, its key, and room
/// for many small ones. A command is one entry, which is in memory several times while it travels.
const MAX_COMMAND_BYTES: usize = 65 << 20;

/// A command's encoding, if it may be proposed.
///
/// # Errors
///
/// [`RequestError::TooLarge`] above a limit, [`RequestError::Unreadable`] if this build's decoder does
/// not accept it: every node would stop at such an entry.
pub(crate) fn encode(command: &Command, max_value_bytes: usize) -> Result<Bytes, RequestError> {
    let encoded = command.encode();
    let (key, value) = command.longest();
    let sizes = [
        ("key", key, MAX_KEY_BYTES),
        ("value", value, max_value_bytes),
        ("command", encoded.len(), MAX_COMMAND_BYTES),
    ];
    for (what, bytes, limit) in sizes {
        if bytes > limit {
            return Err(RequestError::TooLarge { what, bytes, limit });
        }
    }
    memkv_store::check_command(&encoded).map_err(|error| RequestError::Unreadable {
        detail: error.to_string(),
    })?;
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use memkv_store::{MAX_TRANSACTION_STEPS, Step};

    use super::*;

    #[test]
    fn what_the_decoder_refuses_gets_no_number() {
        let transaction = |steps| Command::Transaction {
            guards: Vec::new(),
            operations: vec![Step::Write(Command::Noop); steps],
            otherwise: Vec::new(),
        };
        assert!(encode(&transaction(1), 10).is_ok());
        let refused = encode(&transaction(MAX_TRANSACTION_STEPS + 1), 10);
        assert!(matches!(refused, Err(RequestError::Unreadable { .. })));
    }

    #[test]
    fn what_is_too_large_is_told_its_limit() {
        let set = Command::Set {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"eleven bytes"),
        };
        let too_large = RequestError::TooLarge {
            what: "value",
            bytes: 12,
            limit: 11,
        };
        assert_eq!(encode(&set, 11), Err(too_large));
    }
}
