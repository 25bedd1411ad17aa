//! `GET /v1/kv?prefix=&after=&limit=&keys=1`: the keys with a prefix, in byte order, page by page.
//!
//! A page is one linearizable read of at most `limit` keys and a few megabytes.
//! `next` is the last key of a page that was cut: the `after` of the next one. Two pages are two
//! reads; a key that is written between them may be missed or seen, never seen twice.

use bytes::Bytes;
use memkv_proto::{ErrorCode, HEADER_REVISION, json_bytes};
use memkv_store::{Query, ReplyValue};
use serde_json::{Map, Value, json};

use super::app::Api;
use super::head::{Head, Refusal};
use super::json;
use super::query::QueryString;
use super::response::Response;
use crate::backend::{Backend, bytes_of};
use crate::failure;
use crate::ledger::Class;

/// Keys of a page without a `limit`, and the most with one.
const DEFAULT_LIMIT: u64 = 100;
const MAX_LIMIT: u64 = 10_000;

/// Answers a listing.
pub(super) async fn answer<B: Backend>(api: &Api<B>, head: &Head) -> Response {
    let (query, keys_only) = match parse(&head.query) {
        Ok(parsed) => parsed,
        Err(refusal) => return Response::error(refusal.code, refusal.detail),
    };
    let mut memory = api.service().ledger().hold(Class::Output);
    let read = api.service().read_all(false, vec![query], &mut memory);
    let answers = match read.await {
        Ok(answers) => answers,
        Err(error) => return Response::problem(&failure::problem(&error)),
    };
    let bytes = answers.values.iter().map(bytes_of).sum();
    let page = answers.values.into_iter().next();
    let write = || Some(body(page?, keys_only)?.to_string());
    match api.aside().run(json::steps(bytes), write).await {
        Some(body) => Response::json(200, body).with(HEADER_REVISION, answers.revision.to_string()),
        None => Response::error(ErrorCode::Internal, "the store answered with no page"),
    }
}

fn parse(query: &str) -> Result<(Query, bool), Refusal> {
    let query = QueryString::parse(query, &["prefix", "after", "limit", "keys"])?;
    let limit = query.parsed("limit", "a whole number from 1 to 10000", |text| {
        text.parse()
            .ok()
            .filter(|limit| (1..=MAX_LIMIT).contains(limit))
    })?;
    let keys_only = query.parsed("keys", "1 or 0", |text| match text {
        "1" | "" => Some(true),
        "0" => Some(false),
        _ => None,
    })?;
    let keys_only = keys_only.unwrap_or(false);
    let prefix = query.bytes("prefix").cloned().unwrap_or_default();
    let after = query.bytes("after").map(Bytes::as_ref);
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    Ok((Query::prefix(&prefix, after, limit, keys_only), keys_only))
}

/// The page as JSON; `None` if it is none.
fn body(page: ReplyValue, keys_only: bool) -> Option<Value> {
    let ReplyValue::Array(parts) = page else {
        return None;
    };
    let [ReplyValue::Array(found), ReplyValue::Integer(more)] = &parts[..] else {
        return None;
    };
    let mut items = Vec::with_capacity(found.len());
    let mut last = None;
    for entry in found {
        let mut item = Map::new();
        let key = match entry {
            ReplyValue::Bulk(key) if keys_only => key,
            ReplyValue::Array(fields) => {
                let [ReplyValue::Bulk(key), ReplyValue::Bulk(value), rest @ ..] = &fields[..]
                else {
                    return None;
                };
                json_bytes::put(&mut item, "value", value);
                for (name, field) in ["create_revision", "revision", "expires_ms"]
                    .iter()
                    .zip(rest)
                {
                    if let ReplyValue::Integer(number @ 0..) = field {
                        item.insert((*name).to_owned(), (*number).into());
                    }
                }
                key
            }
            _ => return None,
        };
        json_bytes::put(&mut item, "key", key);
        last = Some(key);
        items.push(Value::Object(item));
    }
    let mut page = Map::new();
    page.insert("items".to_owned(), items.into());
    if let (true, Some(last)) = (*more != 0, last) {
        json_bytes::put(&mut page, "next", last);
    }
    Some(json!(page))
}
