//! `/v1/kv/{key}`: GET, HEAD, PUT, DELETE and POST with raw bodies. The key is the rest of the path,
//! percent-decoded once; the empty key and the empty value are valid.
//!
//! - `PUT ?ttl=30s` sets a key that expires; without it the key has no deadline.
//! - `If-Match` and `If-None-Match` make PUT and DELETE conditional on the revision of the key's last
//!   write, atomically with the write itself; `If-None-Match` on GET answers 304.
//! - `POST ?incr=N` adds to a decimal number and answers the sum.
//!
//! Replies carry `X-Memkv-Revision`, the cluster-wide revision that the reply is about: of the
//! write, or of the store that was read; `ETag` is the revision of the key's last write;
//! `X-Memkv-Expires` the deadline in milliseconds since the epoch, where there is one; DELETE says in
//! `X-Memkv-Deleted` whether there was a key (0 or 1). Failures are RFC 9457 problems.

use bytes::Bytes;
use memkv_proto::{
    ErrorCode, HEADER_EXPIRES, HEADER_REVISION, KeyPathError, decode_key_path, ttl_ms,
};
use memkv_store::{
    Command, Compare, Condition, Expiry, Guard, Query, Reply, ReplyValue, SetIf, Step,
};

use super::app::Api;
use super::condition;
use super::head::{Head, Method, Refusal};
use super::query::QueryString;
use super::response::Response;
use crate::backend::Backend;
use crate::failure;

/// Whether DELETE found a key.
const HEADER_DELETED: &str = "x-memkv-deleted";

/// Executes a request whose method the route has.
pub(super) async fn answer<B: Backend>(
    api: &Api<B>,
    head: &Head,
    rest: &str,
    body: Bytes,
) -> Response {
    match execute(api, head, rest, body).await {
        Ok(response) => response,
        Err(refusal) => Response::error(refusal.code, refusal.detail),
    }
}

async fn execute<B: Backend>(
    api: &Api<B>,
    head: &Head,
    rest: &str,
    body: Bytes,
) -> Result<Response, Refusal> {
    let key = decode_key_path(rest).map_err(|error| {
        let code = match error {
            KeyPathError::BadEscape { .. } => ErrorCode::BadRequest,
            KeyPathError::TooLong { .. } => ErrorCode::KeyTooLarge,
        };
        Refusal::new(code, error.to_string())
    })?;
    let key = Bytes::from(key);
    let known: &[&str] = match head.method {
        Method::Put => &["ttl"],
        Method::Post => &["incr"],
        _ => &[],
    };
    let query = QueryString::parse(&head.query, known)?;
    let condition = condition::of(head)?;
    if api.backend().is_none() {
        return Ok(Response::problem(&failure::loading()));
    }
    Ok(match head.method {
        Method::Put => {
            let wanted = "a whole number above 0 with ms, s, m, h or d, such as 30s";
            let command = put(key.clone(), body, query.parsed("ttl", wanted, ttl_ms)?);
            write(
                api,
                (head, "set"),
                guarded(command, key, condition),
                |reply| done(reply).with("ETag", etag(reply.revision)),
            )
            .await
        }
        Method::Delete => {
            let command = Command::Del {
                keys: vec![key.clone()],
            };
            write(
                api,
                (head, "del"),
                guarded(command, key, condition),
                |reply| {
                    let removed = matches!(reply.value, ReplyValue::Integer(1..));
                    done(reply).with(HEADER_DELETED, u8::from(removed).to_string())
                },
            )
            .await
        }
        Method::Post => {
            let wanted = "a whole number, such as 1 or -5";
            let Some(by) = query.parsed("incr", wanted, |text| text.parse().ok())? else {
                let detail = "POST needs ?incr=N; PUT sets a value";
                return Err(Refusal::new(ErrorCode::BadRequest, detail));
            };
            let command = Command::IncrBy {
                key: key.clone(),
                by,
            };
            write(api, (head, "incrby"), guarded(command, key, condition), sum).await
        }
        _ => get(api, head, key, condition).await,
    })
}

/// The leanest command that does it.
fn put(key: Bytes, value: Bytes, ttl: Option<i64>) -> Command {
    match ttl {
        None => Command::Set { key, value },
        Some(ms) => Command::SetWith {
            key,
            value,
            condition: SetIf::Always,
            expiry: Expiry::In { ms },
            get: false,
        },
    }
}

/// The command, executed only if the condition holds at that moment.
fn guarded(command: Command, key: Bytes, condition: Option<Condition>) -> Command {
    match condition {
        None => command,
        Some(holds) => Command::Transaction {
            guards: vec![Guard {
                database: 0,
                key,
                holds,
            }],
            operations: vec![Step::Write(command)],
            otherwise: Vec::new(),
        },
    }
}

async fn get<B: Backend>(
    api: &Api<B>,
    head: &Head,
    key: Bytes,
    condition: Option<Condition>,
) -> Response {
    let query = Query::Meta { key, value: true };
    let principal = match api.judge(head, "get", &|visit| query.touches(visit)) {
        Ok(principal) => principal,
        Err(refusal) => return Response::error(refusal.code, refusal.detail),
    };
    let read = api.service().read_one(query);
    let (found, revision) = match read.await {
        Ok(read) => read,
        Err(error) => return Response::problem(&failure::problem(&error)),
    };
    if let Err(refusal) = api.check_read(principal) {
        return Response::error(refusal.code, refusal.detail);
    }
    let (seen, response) = match found {
        ReplyValue::Array(fields) => {
            let [
                ReplyValue::Bulk(value),
                _,
                ReplyValue::Integer(mod_revision),
                ReplyValue::Integer(deadline),
            ] = &fields[..]
            else {
                return Response::error(ErrorCode::Internal, "the store answered with no value");
            };
            let mod_revision = mod_revision.cast_unsigned();
            let response = Response::bytes(value.clone()).with("ETag", etag(mod_revision));
            // A key without a deadline has a negative one.
            let response = match deadline {
                0.. => response.with(HEADER_EXPIRES, deadline.to_string()),
                _ => response,
            };
            (mod_revision, response)
        }
        _ => {
            let detail = "the key does not exist; nothing is wrong with the request";
            (0, Response::error(ErrorCode::NotFound, detail))
        }
    };
    let response = match condition {
        Some(Condition::ModRevision(Compare::NotEqual, known)) if known == seen => {
            Response::not_modified().with("ETag", etag(seen))
        }
        Some(Condition::Exists(false)) if seen > 0 => {
            Response::not_modified().with("ETag", etag(seen))
        }
        Some(Condition::ModRevision(Compare::Equal, wanted)) if wanted != seen => failed(),
        Some(Condition::Exists(true)) if seen == 0 => failed(),
        _ => response,
    };
    response.with(HEADER_REVISION, revision.to_string())
}

/// Executes a command if the sender may use the command of that name.
async fn write<B: Backend>(
    api: &Api<B>,
    (head, name): (&Head, &'static str),
    command: Command,
    answer: impl FnOnce(&Reply) -> Response,
) -> Response {
    let (_, bytes) = command.longest();
    let principal = match api.judge(head, name, &|visit| command.touches(visit)) {
        Ok(principal) => principal,
        Err(refusal) => return Response::error(refusal.code, refusal.detail),
    };
    let reply = match api.service().write_as(command, bytes, principal).await {
        Ok(reply) => unwrapped(reply),
        Err(error) => return Response::problem(&failure::problem(&error)),
    };
    match reply.value {
        ReplyValue::Error(error) => Response::error(failure::reply_code(error), error.to_string()),
        ReplyValue::Aborted => failed().with(HEADER_REVISION, reply.revision.to_string()),
        _ => answer(&reply),
    }
}

/// The reply to the one step of a guarded command.
fn unwrapped(reply: Reply) -> Reply {
    match reply.value {
        ReplyValue::Array(mut steps) if steps.len() == 1 => Reply {
            revision: reply.revision,
            value: steps.remove(0),
        },
        value => Reply {
            revision: reply.revision,
            value,
        },
    }
}

fn failed() -> Response {
    let detail = "the key is not as If-Match or If-None-Match demands; nothing was changed; read it \
                  again and decide anew";
    Response::error(ErrorCode::PreconditionFailed, detail)
}

fn sum(reply: &Reply) -> Response {
    let sum = match reply.value {
        ReplyValue::Integer(sum) => sum,
        _ => return Response::error(ErrorCode::Internal, "the store answered with no number"),
    };
    Response::bytes(sum.to_string())
        .with(HEADER_REVISION, reply.revision.to_string())
        .with("ETag", etag(reply.revision))
}

fn done(reply: &Reply) -> Response {
    Response::bytes(Bytes::new()).with(HEADER_REVISION, reply.revision.to_string())
}

fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}
