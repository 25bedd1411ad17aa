//! The original's API: `/memkv{id}/store/{get,set,del,exist}` and `/store/...`, JSON in and out.
//! Well-formed requests are answered with HTTP 200 and exactly the original's bodies.
//! Never says "no leader" of what may have been executed.

use std::borrow::Cow;

use bytes::Bytes;
use memkv_node::RequestError;
use memkv_proto::compat::{self, CompatOp, CompatStatus};
use memkv_proto::limits::MAX_KEY_BYTES;
use memkv_proto::{ErrorCode, Executed, HEADER_EXECUTED, HEADER_REVISION};
use memkv_store::{Command, ReplyValue};

use super::app::Api;
use super::head::Head;
use super::json;
use super::response::Response;
use crate::backend::Backend;
use crate::failure;

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
pub(super) async fn answer<B: Backend>(api: &Api<B>, op: CompatOp, body: &Bytes) -> Response {
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
    let Some(backend) = api.backend() else {
        return no_answer(op, CompatStatus::NoLeader, Executed::No);
    };
    let key = shared(body, request.key);
    match op {
        CompatOp::Get => get(api, backend, key).await,
        CompatOp::Exist => exist(api, backend, key).await,
        CompatOp::Set => {
            let value = shared(body, value);
            write(api, backend, op, Command::Set { key, value }).await
        }
        CompatOp::Del => write(api, backend, op, Command::Del { keys: vec![key] }).await,
    }
}

/// A string of the request without a copy, if it had no escapes.
fn shared(body: &Bytes, text: Cow<'_, str>) -> Bytes {
    match text {
        Cow::Borrowed(text) => body.slice_ref(text.as_bytes()),
        Cow::Owned(text) => text.into(),
    }
}

async fn get<B: Backend>(api: &Api<B>, backend: &B, key: Bytes) -> Response {
    let found = api.read(backend, api.answer_within(), move |store| {
        (
            store.get(&key).map(|found| found.to_bytes()),
            store.revision(),
        )
    });
    match found.await {
        Ok((Some(value), revision)) => {
            let write = || compat::value_body(&value);
            let body = api.aside().run(json::steps(value.len()), write).await;
            with_revision(body, revision)
        }
        Ok((None, revision)) => with_revision(CompatStatus::NotFound.body_of_get(), revision),
        Err(error) => failed(CompatOp::Get, &error),
    }
}

async fn exist<B: Backend>(api: &Api<B>, backend: &B, key: Bytes) -> Response {
    let found = api.read(backend, api.answer_within(), move |store| {
        (store.exists(&key), store.revision())
    });
    match found.await {
        Ok((true, revision)) => with_revision(CompatStatus::Yes.body(), revision),
        Ok((false, revision)) => with_revision(CompatStatus::No.body(), revision),
        Err(error) => failed(CompatOp::Exist, &error),
    }
}

async fn write<B: Backend>(api: &Api<B>, backend: &B, op: CompatOp, command: Command) -> Response {
    let (_, bytes) = command.longest();
    match api.write(backend, command, bytes).await {
        Ok(reply) => match reply.value {
            ReplyValue::Error(error) => refused(failure::reply_code(error), &error.to_string()),
            _ => with_revision(CompatStatus::Ok.body(), reply.revision),
        },
        Err(error) => failed(op, &error),
    }
}

fn with_revision(body: impl Into<Bytes>, revision: u64) -> Response {
    Response::json(200, body).with(HEADER_REVISION, revision.to_string())
}

fn failed(op: CompatOp, error: &RequestError) -> Response {
    match error {
        RequestError::NoLeader { .. } | RequestError::Stopping => {
            no_answer(op, CompatStatus::NoLeader, Executed::No)
        }
        RequestError::Unknown { .. } => no_answer(op, CompatStatus::Error, Executed::Maybe),
        RequestError::Overloaded { .. } | RequestError::DiskFull | RequestError::DiskExhausted => {
            no_answer(op, CompatStatus::Error, Executed::No)
        }
        RequestError::TooLarge { .. }
        | RequestError::Unreadable { .. }
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
