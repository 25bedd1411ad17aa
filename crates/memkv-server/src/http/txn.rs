//! `POST /v1/txn`: guards, the steps if all of them hold, and the steps otherwise; one log
//! entry.
//!
//! ```json
//! {"if":   [{"key": "lock", "exists": false}],
//!  "then": [{"set": {"key": "lock", "value": "me", "ttl": "30s"}}],
//!  "else": [{"get": {"key": "lock"}}]}
//! ```
//!
//! A guard names a key and exactly one of `exists`, `value`, `revision`, `create_revision`. A step is
//! one of `set`, `get`, `delete`, `incr`. Bytes that are not UTF-8 go under `key_base64` and
//! `value_base64`. The answer has `succeeded`, `revision` and one result for each step.
//! Never executes anything of a request that it does not understand completely.

use bytes::Bytes;
use memkv_proto::{ErrorCode, HEADER_REVISION, json_bytes};
use memkv_store::{Command, Principal, ReplyValue, Step};
use serde_json::{Map, Value, json};

use super::app::Api;
use super::head::{Head, Refusal};
use super::json;
use super::response::Response;
use super::txn_body::{Request, parse};
use crate::backend::{Backend, bytes_of};
use crate::failure;

/// Executes a transaction.
pub(super) async fn answer<B: Backend>(api: &Api<B>, head: &Head, body: &Bytes) -> Response {
    let parsed = api.aside().run(json::steps(body.len()), || parse(body));
    let request = match parsed.await {
        Ok(request) => request,
        Err(detail) => return Response::error(ErrorCode::BadJson, detail),
    };
    if api.backend().is_none() {
        return Response::problem(&failure::loading());
    }
    let principal = match judge(api, head, &request) {
        Ok(principal) => principal,
        Err(refusal) => return Response::error(refusal.code, refusal.detail),
    };
    let command = Command::Transaction {
        guards: request.guards,
        operations: request.operations,
        otherwise: request.otherwise,
    };
    if let Err(error) = command.check_limits() {
        return Response::error(failure::reply_code(error), error.to_string());
    }
    let reply = match api.service().write_as(command, body.len(), principal).await {
        Ok(reply) => reply,
        Err(error) => return Response::problem(&failure::problem(&error)),
    };
    let mut results = match reply.value {
        ReplyValue::Array(results) => results,
        ReplyValue::Error(error) => {
            return Response::error(failure::reply_code(error), error.to_string());
        }
        _ => vec![ReplyValue::Aborted],
    };
    // The store puts this in front of the other branch's results.
    let succeeded = results.first() != Some(&ReplyValue::Aborted);
    if !succeeded {
        results.remove(0);
    }
    let bytes: usize = results.iter().map(bytes_of).sum();
    let write = || {
        let results: Vec<Value> = results.into_iter().map(result).collect();
        json!({"succeeded": succeeded, "revision": reply.revision, "results": results}).to_string()
    };
    let body = api.aside().run(json::steps(bytes), write).await;
    Response::json(200, body).with(HEADER_REVISION, reply.revision.to_string())
}

/// Whether the sender may have all of a transaction executed, whichever branch it takes: it needs `exec`,
/// `watch` for the guards, and the command of each step.
fn judge<B: Backend>(
    api: &Api<B>,
    head: &Head,
    request: &Request,
) -> Result<Option<Principal>, Refusal> {
    let principal = api.judge(head, "exec", &|_| {})?;
    for guard in &request.guards {
        api.judge(head, "watch", &|visit| guard.touches(visit))?;
    }
    for step in request.operations.iter().chain(&request.otherwise) {
        match step {
            Step::Read(query) => api.judge(head, "get", &|visit| query.touches(visit))?,
            Step::Write(command) => {
                let name = match command {
                    Command::Del { .. } => "del",
                    Command::IncrBy { .. } => "incrby",
                    _ => "set",
                };
                api.judge(head, name, &|visit| command.touches(visit))?
            }
        };
    }
    Ok(principal)
}

/// A step's reply as JSON.
fn result(reply: ReplyValue) -> Value {
    match reply {
        ReplyValue::Ok => json!({"ok": true}),
        ReplyValue::Integer(number) => json!({"ok": true, "integer": number}),
        ReplyValue::Error(error) => json!({"ok": false, "error": error.to_string()}),
        // Only `get` answers this and the next one: the key's fields, or nothing.
        ReplyValue::Array(fields) => {
            let mut found = Map::new();
            found.insert("ok".to_owned(), true.into());
            if let Some(ReplyValue::Bulk(value)) = fields.first() {
                json_bytes::put(&mut found, "value", value);
            }
            let numbers = ["create_revision", "revision", "expires_ms"];
            for (name, field) in numbers.iter().zip(fields.iter().skip(1)) {
                if let ReplyValue::Integer(number @ 0..) = field {
                    found.insert((*name).to_owned(), (*number).into());
                }
            }
            Value::Object(found)
        }
        ReplyValue::Nil | ReplyValue::Aborted => json!({"ok": true, "value": null}),
        ReplyValue::Bulk(value) => {
            let mut found = Map::new();
            found.insert("ok".to_owned(), true.into());
            json_bytes::put(&mut found, "value", &value);
            Value::Object(found)
        }
    }
}
