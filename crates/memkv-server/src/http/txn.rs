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
use memkv_proto::{ErrorCode, HEADER_REVISION, json_bytes, ttl_ms};
use memkv_store::{
    Command, Compare, Condition, Expiry, Guard, MAX_TRANSACTION_STEPS, Query, ReplyValue, SetIf,
    Step,
};
use serde_json::{Map, Value, json};

use super::app::Api;
use super::json;
use super::response::Response;
use crate::backend::{Backend, bytes_of};
use crate::failure;

/// Executes a transaction.
pub(super) async fn answer<B: Backend>(api: &Api<B>, body: &Bytes) -> Response {
    let parsed = api.aside().run(json::steps(body.len()), || parse(body));
    let request = match parsed.await {
        Ok(request) => request,
        Err(detail) => return Response::error(ErrorCode::BadJson, detail),
    };
    if api.backend().is_none() {
        return Response::problem(&failure::loading());
    }
    let command = Command::Transaction {
        guards: request.guards,
        operations: request.operations,
        otherwise: request.otherwise,
    };
    if let Err(error) = command.check_limits() {
        return Response::error(failure::reply_code(error), error.to_string());
    }
    let reply = match api.service().write(command, body.len()).await {
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

/// A transaction as its body describes it.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    guards: Vec<Guard>,
    operations: Vec<Step>,
    otherwise: Vec<Step>,
}

type Object = Map<String, Value>;

fn parse(body: &[u8]) -> Result<Request, String> {
    let body = json::parse(body).map_err(|error| error.to_string())?;
    let mut body = object("the body", body)?;
    let request = Request {
        guards: list(&mut body, "if", guard)?,
        operations: list(&mut body, "then", step)?,
        otherwise: list(&mut body, "else", step)?,
    };
    nothing_left("the body", &body)?;
    Ok(request)
}

fn list<T>(
    body: &mut Object,
    name: &str,
    parse: impl Fn(&str, Object) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let items = match body.remove(name) {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(format!("{name} must be a list")),
    };
    if items.len() > MAX_TRANSACTION_STEPS {
        return Err(format!(
            "{name} has {} items, the limit is {MAX_TRANSACTION_STEPS}",
            items.len()
        ));
    }
    let locations = items.into_iter().enumerate();
    locations
        .map(|(at, item)| {
            let location = format!("{name}[{at}]");
            parse(&location, object(&location, item)?)
        })
        .collect()
}

fn guard(location: &str, mut fields: Object) -> Result<Guard, String> {
    let key = key(location, &mut fields)?;
    let value = take_bytes(location, &mut fields, "value")?;
    let mut holds: Vec<Condition> = Vec::new();
    holds.extend(value.map(|value| Condition::Value(Compare::Equal, value)));
    if let Some(exists) = fields.remove("exists") {
        let exists = exists.as_bool();
        let exists = exists.ok_or(format!("{location}: exists must be true or false"))?;
        holds.push(Condition::Exists(exists));
    }
    for (name, condition) in [
        (
            "revision",
            Condition::ModRevision as fn(Compare, u64) -> Condition,
        ),
        ("create_revision", Condition::CreateRevision),
    ] {
        if let Some(revision) = fields.remove(name) {
            let revision = revision.as_u64();
            let revision = revision.ok_or(format!("{location}: {name} must be a whole number"))?;
            holds.push(condition(Compare::Equal, revision));
        }
    }
    nothing_left(location, &fields)?;
    match <[Condition; 1]>::try_from(holds) {
        Ok([holds]) => Ok(Guard {
            database: 0,
            key,
            holds,
        }),
        Err(_) => Err(format!(
            "{location} must have exactly one of exists, value, revision, create_revision"
        )),
    }
}

fn step(location: &str, fields: Object) -> Result<Step, String> {
    let mut fields = fields.into_iter();
    let (Some((name, arguments)), None) = (fields.next(), fields.next()) else {
        return Err(format!("{location} must have exactly one of {STEPS}"));
    };
    let location = format!("{location}.{name}");
    let mut arguments = object(&location, arguments)?;
    let key = key(&location, &mut arguments)?;
    let step = match name.as_str() {
        "set" => {
            let value = take_bytes(&location, &mut arguments, "value")?;
            Step::Write(Command::SetWith {
                key,
                value: value.ok_or(format!("{location} has no value"))?,
                condition: SetIf::Always,
                expiry: expiry(&location, &mut arguments)?,
                get: false,
            })
        }
        "get" => Step::Read(Query::Meta { key, value: true }),
        "delete" => Step::Write(Command::Del { keys: vec![key] }),
        "incr" => {
            let by = arguments.remove("by").map_or(Some(1), |by| by.as_i64());
            let by = by.ok_or(format!("{location}: by must be a whole number"))?;
            Step::Write(Command::IncrBy { key, by })
        }
        _ => return Err(format!("{location}: no such step; there are {STEPS}")),
    };
    nothing_left(&location, &arguments)?;
    Ok(step)
}

/// The steps, for messages.
const STEPS: &str = "set, get, delete, incr";

fn expiry(location: &str, arguments: &mut Object) -> Result<Expiry, String> {
    match arguments.remove("ttl") {
        None => Ok(Expiry::None),
        Some(ttl) => {
            let ms = ttl.as_str().and_then(ttl_ms);
            let ms = ms.ok_or(format!("{location}: ttl must be a string such as \"30s\""))?;
            Ok(Expiry::In { ms })
        }
    }
}

fn key(location: &str, fields: &mut Object) -> Result<Bytes, String> {
    take_bytes(location, fields, "key")?.ok_or(format!("{location} has no key"))
}

fn take_bytes(location: &str, fields: &mut Object, name: &str) -> Result<Option<Bytes>, String> {
    let taken = json_bytes::take(fields, name).map_err(|error| format!("{location}: {error}"))?;
    Ok(taken.map(Bytes::from))
}

fn object(location: &str, value: Value) -> Result<Object, String> {
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(format!("{location} must be an object")),
    }
}

fn nothing_left(location: &str, fields: &Object) -> Result<(), String> {
    match fields.keys().next() {
        None => Ok(()),
        Some(name) => Err(format!("{location} has an unknown field {name:?}")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_becomes_guards_and_steps() {
        let body =
            br#"{"if": [{"key": "a", "revision": 7}, {"key_base64": "/w==", "exists": false}],
            "then": [{"set": {"key": "a", "value": "1", "ttl": "2s"}}, {"incr": {"key": "n"}}],
            "else": [{"get": {"key": "a"}}, {"delete": {"key": "b"}}]}"#;
        let request = parse(body).unwrap();
        assert_eq!(request.guards.len(), 2);
        assert_eq!(
            request.guards[0].holds,
            Condition::ModRevision(Compare::Equal, 7)
        );
        assert_eq!(&request.guards[1].key[..], b"\xff");
        let Step::Write(Command::SetWith { expiry, .. }) = &request.operations[0] else {
            panic!("{request:?}");
        };
        assert_eq!(*expiry, Expiry::In { ms: 2000 });
        let by = Step::Write(Command::IncrBy {
            key: Bytes::from_static(b"n"),
            by: 1,
        });
        assert_eq!(request.operations[1], by);
        assert_eq!(request.otherwise.len(), 2);
    }

    #[test]
    fn lists_are_bounded_before_they_are_steps() {
        for (name, item) in [
            ("if", r#"{"key": "a", "exists": true}"#),
            ("else", r#"{"get": {"key": "a"}}"#),
        ] {
            let body = |count: usize| format!("{{\"{name}\": [{}]}}", vec![item; count].join(","));
            assert!(parse(body(MAX_TRANSACTION_STEPS).as_bytes()).is_ok());
            let error = parse(body(MAX_TRANSACTION_STEPS + 1).as_bytes()).unwrap_err();
            assert_eq!(error, format!("{name} has 1025 items, the limit is 1024"));
        }
    }

    #[test]
    fn what_is_not_understood_completely_is_refused_with_its_location() {
        for (body, words) in [
            ("[]", "the body must be an object"),
            (
                r#"{"then": [], "then": []}"#,
                "the field \"then\" occurs twice",
            ),
            (
                r#"{"then": [{"delete": {"key": "a"}, "delete": {"key": "b"}}]}"#,
                "the field \"delete\" occurs twice",
            ),
            (r#"{"than": []}"#, "unknown field \"than\""),
            (r#"{"then": {}}"#, "then must be a list"),
            (
                r#"{"then": [{"set": {"key": "a"}}]}"#,
                "then[0].set has no value",
            ),
            (
                r#"{"then": [{"put": {"key": "a"}}]}"#,
                "then[0].put: no such step",
            ),
            (
                r#"{"then": [{"get": {"key": "a", "x": 1}}]}"#,
                "unknown field \"x\"",
            ),
            (r#"{"then": [{"get": {}}]}"#, "then[0].get has no key"),
            (r#"{"if": [{"key": "a"}]}"#, "exactly one of"),
            (
                r#"{"if": [{"key": "a", "exists": true, "revision": 1}]}"#,
                "exactly one of",
            ),
            (r#"{"if": [{"key": "a", "exists": 1}]}"#, "true or false"),
            (
                r#"{"else": [{}, {"set": {"key": "a", "value": "b", "ttl": "soon"}}]}"#,
                "else[0] must have exactly one of",
            ),
        ] {
            let error = parse(body.as_bytes()).unwrap_err();
            assert!(error.contains(words), "{body}: {error}");
        }
    }
}
