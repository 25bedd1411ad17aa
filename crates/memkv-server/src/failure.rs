//! Maps the reasons why a command got no answer to the error table, once for all interfaces.
//! Never softens an outcome: a command that may have been executed stays "maybe".

use memkv_node::RequestError;
use memkv_proto::{ErrorCode, Problem};
use memkv_store::ReplyError;

use crate::service::ServiceError;

/// A client that is told to come back should find the new leader: elections take about this long.
const RETRY_AFTER_MS: u64 = 1000;

/// Line of the error table for a failed command or read.
pub(crate) fn code(error: &RequestError) -> ErrorCode {
    match error {
        RequestError::NoLeader { .. } => ErrorCode::NoLeader,
        RequestError::Overloaded { .. } => ErrorCode::Overloaded,
        RequestError::Unknown { .. } => ErrorCode::Unknown,
        RequestError::TooLarge { what: "key", .. } => ErrorCode::KeyTooLarge,
        RequestError::TooLarge { .. } => ErrorCode::ValueTooLarge,
        RequestError::Unreadable { .. } => ErrorCode::BadRequest,
        RequestError::NeedsLevel { .. } => ErrorCode::NeedsLevel,
        RequestError::NoPermission => ErrorCode::NoPermission,
        // Another node can serve it, or this one after its restart.
        RequestError::Stopping => ErrorCode::Loading,
        RequestError::DiskFull | RequestError::DiskExhausted => ErrorCode::DiskFull,
        RequestError::OutOfMemory => ErrorCode::OutOfMemory,
    }
}

/// The text for people: what, why, what next.
pub(crate) fn detail(error: &RequestError) -> String {
    match error {
        RequestError::TooLarge { what, bytes, limit } if *what != "key" => {
            too_large_value(*bytes, *limit)
        }
        RequestError::TooLarge { bytes, limit, .. } => too_large_key(*bytes, *limit),
        other => other.to_string(),
    }
}

pub(crate) fn too_large_key(bytes: usize, limit: usize) -> String {
    format!("the key is {bytes} bytes, the limit is {limit} bytes; use a shorter key")
}

pub(crate) fn too_large_value(bytes: usize, limit: usize) -> String {
    format!(
        "the value is {bytes} bytes, the limit is {limit} bytes; raise max_value_bytes on every \
         node, or split the value"
    )
}

/// Problem details of a failed command or read.
pub(crate) fn problem(error: &ServiceError) -> Problem {
    let error = match error {
        ServiceError::Loading => return loading(),
        ServiceError::Memory => {
            let problem = Problem::new(ErrorCode::Overloaded, error.to_string());
            return problem.with_retry_after_ms(RETRY_AFTER_MS);
        }
        ServiceError::Request(error) => error,
    };
    let code = code(error);
    let problem = Problem::new(code, detail(error));
    if code.info().retryable {
        problem.with_retry_after_ms(RETRY_AFTER_MS)
    } else {
        problem
    }
}

/// Line of the error table for a command that was executed and failed.
pub(crate) fn reply_code(error: ReplyError) -> ErrorCode {
    match error {
        ReplyError::KeyTooLong => ErrorCode::KeyTooLarge,
        ReplyError::ValueTooLong => ErrorCode::ValueTooLarge,
        ReplyError::OutOfMemory => ErrorCode::OutOfMemory,
        _ => ErrorCode::BadRequest,
    }
}

/// Problem details while the node has no data yet.
pub(crate) fn loading() -> Problem {
    let detail =
        "this node is loading its data; nothing was executed; try again, or ask another node";
    Problem::new(ErrorCode::Loading, detail).with_retry_after_ms(RETRY_AFTER_MS)
}
