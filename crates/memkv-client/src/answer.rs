//! Reads a response: what a node says became of a request.
//! Never guesses in favour of a retry: what does not clearly say "not executed" may have been.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use memkv_proto::{ErrorCode, Executed, HEADER_EXPIRES, HEADER_REVISION, PROBLEM_JSON, Problem};

use crate::connection::Reply;

/// What a response means.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It was done.
    Done(Success),
    /// The key is absent.
    Absent,
    /// Not executed, and no other node would do it either.
    Refused(Problem),
    /// Not executed; another node, or this one later, may do it.
    Later(Problem),
    /// It may have been executed.
    Maybe(Problem),
}

/// A response to a request that was done.
#[derive(Debug)]
pub(crate) struct Success {
    pub(crate) body: Bytes,
    headers: HeaderMap,
}

impl Success {
    /// The revision that the answer is about: of the write, or of the store that was read.
    pub(crate) fn revision(&self) -> Option<u64> {
        number(self.headers.get(HEADER_REVISION)?)
    }

    /// Revision of the key's last write.
    pub(crate) fn key_revision(&self) -> Option<u64> {
        number(self.headers.get(ETAG)?)
    }

    /// When the key goes, in milliseconds since the epoch.
    pub(crate) fn expires_ms(&self) -> Option<u64> {
        number(self.headers.get(HEADER_EXPIRES)?)
    }
}

/// A number, in quotes or not.
fn number(field: &HeaderValue) -> Option<u64> {
    field.to_str().ok()?.trim_matches('"').parse().ok()
}

pub(crate) fn read(reply: Reply) -> Answer {
    if reply.status.is_success() {
        return Answer::Done(Success {
            body: reply.body,
            headers: reply.headers,
        });
    }
    // The answer to HEAD has no body that could tell more.
    if reply.status == StatusCode::NOT_FOUND && reply.body.is_empty() && is_memkv(&reply) {
        return Answer::Absent;
    }
    let problem = problem(&reply).unwrap_or_else(|| foreign(&reply));
    if problem.error_code() == Some(ErrorCode::NotFound) {
        Answer::Absent
    } else if problem.executed == Executed::Maybe {
        Answer::Maybe(problem)
    } else if problem.is_retryable() {
        Answer::Later(problem)
    } else {
        Answer::Refused(problem)
    }
}

fn is_problem(reply: &Reply) -> bool {
    let media_type = reply
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    media_type.is_some_and(|media_type| media_type.starts_with(PROBLEM_JSON))
}

/// Whether a node of memkv gave this answer, as far as its head tells.
fn is_memkv(reply: &Reply) -> bool {
    reply.headers.contains_key(HEADER_REVISION) || is_problem(reply)
}

fn problem(reply: &Reply) -> Option<Problem> {
    is_problem(reply)
        .then(|| serde_json::from_slice(&reply.body).ok())
        .flatten()
}

/// Classifies a failure that is not in memkv's own format: a proxy's, or one without a body
/// because the request was HEAD. Statuses
/// from 500 on may come after the request was passed on (RFC 9110, section 15.6).
fn foreign(reply: &Reply) -> Problem {
    let executed = if reply.status.is_server_error() {
        Executed::Maybe
    } else {
        Executed::No
    };
    let code = match executed {
        Executed::Maybe => ErrorCode::Unreachable,
        Executed::No => ErrorCode::BadRequest,
    };
    let detail = format!(
        "the answer is HTTP {} without an explanation{}",
        reply.status,
        if is_memkv(reply) {
            ""
        } else {
            "; is this endpoint a memkv node?"
        }
    );
    let title = reply
        .status
        .canonical_reason()
        .unwrap_or("failed")
        .to_ascii_lowercase();
    Problem {
        title,
        ..Problem::new(code, detail).with_executed(executed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, media_type: &'static str, body: &str) -> Reply {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn told(code: ErrorCode) -> Answer {
        let problem = Problem::new(code, "why");
        read(reply(problem.status, PROBLEM_JSON, &problem.to_json()))
    }

    #[test]
    fn problems_mean_what_the_table_says() {
        assert!(matches!(told(ErrorCode::NotFound), Answer::Absent));
        assert!(matches!(told(ErrorCode::NoLeader), Answer::Later(_)));
        assert!(matches!(told(ErrorCode::Overloaded), Answer::Later(_)));
        assert!(matches!(told(ErrorCode::BadPath), Answer::Refused(_)));
        assert!(matches!(told(ErrorCode::DiskFull), Answer::Refused(_)));
        assert!(matches!(told(ErrorCode::Unknown), Answer::Maybe(_)));
        assert!(matches!(told(ErrorCode::Internal), Answer::Maybe(_)));
    }

    #[test]
    fn what_others_answer_is_never_retried() {
        assert!(matches!(
            read(reply(502, "text/html", "")),
            Answer::Maybe(_)
        ));
        assert!(matches!(
            read(reply(503, PROBLEM_JSON, "{broken")),
            Answer::Maybe(_)
        ));
        assert!(matches!(
            read(reply(503, PROBLEM_JSON, r#"{"code":"MK-103"}"#)),
            Answer::Maybe(_)
        ));
        assert!(matches!(
            read(reply(404, "text/html", "nginx")),
            Answer::Refused(_)
        ));
        assert!(matches!(
            read(reply(404, "text/html", "")),
            Answer::Refused(_)
        ));
        assert!(matches!(
            read(reply(301, "text/html", "")),
            Answer::Refused(_)
        ));
    }

    #[test]
    fn an_absent_key_needs_no_body() {
        let mut absent = reply(404, "text/plain", "");
        absent
            .headers
            .insert(HEADER_REVISION, HeaderValue::from_static("7"));
        assert!(matches!(read(absent), Answer::Absent));
        assert!(matches!(read(reply(404, PROBLEM_JSON, "")), Answer::Absent));
    }
}
