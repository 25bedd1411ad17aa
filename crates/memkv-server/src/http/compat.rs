//! The original's API: `/memkv{id}/store/{get,set,del,exist}` and `/store/...`, JSON in and out.
//! Well-formed requests are answered with HTTP 200 and exactly the original's bodies.
//! Never answers "no leader" to a command that may have been executed.

use std::borrow::Cow;

use bytes::Bytes;
use memkv_node::RequestError;
use memkv_proto::compat::{self, CompatOp, CompatStatus};
use memkv_proto::limits::MAX_KEY_BYTES;
use memkv_proto::{ErrorCode, Executed, HEADER_EXECUTED, HEADER_REVISION};
use memkv_store::{Command, Query, ReplyError, ReplyValue, Revision};

use super::app::Api;
use super::head::{Head, Refusal};
use super::json;
use super::response::Response;
use crate::backend::Backend;
use crate::failure;
use crate::service::ServiceError;

/// A malformed request: 4xx, and why.
pub(super) fn refused(code: ErrorCode, detail: &str) -> Response {
    Response::json(code.info().http, compat::error_body(detail))
        .with(HEADER_EXECUTED, Executed::No.as_str())
}

/// Any `Content-Type` that contains `application/json`, and none at all, is accepted.
pub(super) fn check_type(head: &Head) -> Result<(), Response> {
    let Some(content_type) = &head.content_type else {
        return Ok(());
    };
    if content_type
        .to_ascii_lowercase()
        .contains("application/json")
    {
        return Ok(());
    }
    let detail = "the Content-Type must be application/json; with curl: \
                  -H 'Content-Type: application/json'";
    Err(refused(ErrorCode::UnsupportedMediaType, detail))
}

/// Executes a request.
pub(super) async fn answer<B: Backend>(
    api: &Api<B>,
    head: &Head,
    op: CompatOp,
    body: &Bytes,
) -> Response {
    let parse = || compat::parse_request(op, body);
    let parsed = api.aside().run(json::steps(body.len()), parse).await;
    let request = match parsed {
        Ok(request) => request,
        Err(error) => return refused(error.code(), &error.to_string()),
    };
    if request.key.len() > MAX_KEY_BYTES {
        let detail = failure::too_large_key(request.key.len(), MAX_KEY_BYTES);
        return refused(ErrorCode::KeyTooLarge, &detail);
    }
    let value = request.value.unwrap_or_default();
    let limit = api.settings().max_value_bytes;
    if value.len() > limit {
        let detail = failure::too_large_value(value.len(), limit);
        return refused(ErrorCode::ValueTooLarge, &detail);
    }
    let key = shared(body, request.key);
    match op {
        CompatOp::Get => get(api, head, key).await,
        CompatOp::Exist => exist(api, head, key).await,
        CompatOp::Set => {
            let value = shared(body, value);
            write(api, head, op, Command::Set { key, value }).await
        }
        CompatOp::Del => write(api, head, op, Command::Del { keys: vec![key] }).await,
    }
}

/// A string of the request without a copy, if it had no escapes.
fn shared(body: &Bytes, text: Cow<'_, str>) -> Bytes {
    match text {
        Cow::Borrowed(text) => body.slice_ref(text.as_bytes()),
        Cow::Owned(text) => text.into(),
    }
}

/// Reads, if the sender may use the command of that name, and may still do so when it was read.
async fn read<B: Backend>(
    api: &Api<B>,
    head: &Head,
    name: &'static str,
    query: Query,
) -> Result<Result<(ReplyValue, Revision), ServiceError>, Refusal> {
    let principal = api.judge(head, name, &|visit| query.touches(visit))?;
    let read = api.service().read_one(query).await;
    api.check_read(principal)?;
    Ok(read)
}

async fn get<B: Backend>(api: &Api<B>, head: &Head, key: Bytes) -> Response {
    let read = match read(api, head, "get", Query::Get { key }).await {
        Ok(read) => read,
        Err(refusal) => return refused(refusal.code, &refusal.detail),
    };
    match read {
        Ok((ReplyValue::Bulk(value), revision)) => {
            let write = || compat::value_body(&value);
            let body = api.aside().run(json::steps(value.len()), write).await;
            with_revision(body, revision)
        }
        Ok((_, revision)) => with_revision(CompatStatus::NotFound.body_of_get(), revision),
        Err(error) => failed(CompatOp::Get, &error),
    }
}

async fn exist<B: Backend>(api: &Api<B>, head: &Head, key: Bytes) -> Response {
    let query = Query::Exists { keys: vec![key] };
    let read = match read(api, head, "exists", query).await {
        Ok(read) => read,
        Err(refusal) => return refused(refusal.code, &refusal.detail),
    };
    match read {
        Ok((ReplyValue::Integer(1..), revision)) => {
            with_revision(CompatStatus::Yes.body(), revision)
        }
        Ok((_, revision)) => with_revision(CompatStatus::No.body(), revision),
        Err(error) => failed(CompatOp::Exist, &error),
    }
}

async fn write<B: Backend>(api: &Api<B>, head: &Head, op: CompatOp, command: Command) -> Response {
    let (_, bytes) = command.longest();
    let name = if op == CompatOp::Del { "del" } else { "set" };
    let principal = match api.judge(head, name, &|visit| command.touches(visit)) {
        Ok(principal) => principal,
        Err(refusal) => return refused(refusal.code, &refusal.detail),
    };
    match api.service().write_as(command, bytes, principal).await {
        Ok(reply) => match reply.value {
            ReplyValue::Error(ReplyError::OutOfMemory) => {
                no_answer(op, CompatStatus::Error, Executed::No)
            }
            ReplyValue::Error(error) => refused(failure::reply_code(error), &error.to_string()),
            _ => with_revision(CompatStatus::Ok.body(), reply.revision),
        },
        Err(error) => failed(op, &error),
    }
}

fn with_revision(body: impl Into<Bytes>, revision: u64) -> Response {
    Response::json(200, body).with(HEADER_REVISION, revision.to_string())
}

pub(super) fn failed(op: CompatOp, error: &ServiceError) -> Response {
    let error = match error {
        ServiceError::Loading => return no_answer(op, CompatStatus::NoLeader, Executed::No),
        ServiceError::Memory => return no_answer(op, CompatStatus::Error, Executed::No),
        ServiceError::Request(error) => error,
    };
    match error {
        RequestError::NoLeader { .. } | RequestError::Stopping => {
            no_answer(op, CompatStatus::NoLeader, Executed::No)
        }
        RequestError::Unknown { .. } => no_answer(op, CompatStatus::Error, Executed::Maybe),
        RequestError::Overloaded { .. }
        | RequestError::DiskFull
        | RequestError::DiskExhausted
        | RequestError::OutOfMemory => no_answer(op, CompatStatus::Error, Executed::No),
        RequestError::TooLarge { .. }
        | RequestError::Unreadable { .. }
        | RequestError::NoPermission
        | RequestError::NeedsLevel { .. } => refused(failure::code(error), &failure::detail(error)),
    }
}

fn no_answer(op: CompatOp, status: CompatStatus, executed: Executed) -> Response {
    let body = if op == CompatOp::Get {
        status.body_of_get()
    } else {
        status.body()
    };
    Response::json(200, body).with(HEADER_EXECUTED, executed.as_str())
}

/// The original server accepts several slashes in front.
pub(super) fn single_slash(path: &str) -> &str {
    let extra = path
        .bytes()
        .take_while(|&byte| byte == b'/')
        .count()
        .saturating_sub(1);
    &path[extra..]
}
