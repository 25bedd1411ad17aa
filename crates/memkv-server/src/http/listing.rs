//! `GET /v1/kv?prefix=&after=&limit=&keys=1`: the keys with a prefix, in byte order, page by page.
//!
//! A page is one linearizable read of at most `limit` keys and a few megabytes.
//! `next` is the last key of a page that was cut: the `after` of the next one. Two pages are two
//! reads; a key that is written between them may be missed or seen, never seen twice.

use bytes::Bytes;
use memkv_proto::{ErrorCode, HEADER_REVISION, json_bytes};
use memkv_store::{Query, ReplyValue};
use serde_json::{Map, Value};

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

/// Bytes of JSON after which a page ends (4 MiB); one item more may be begun before.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Answers a listing.
pub(super) async fn answer<B: Backend>(api: &Api<B>, head: &Head) -> Response {
    let (query, keys_only) = match parse(&head.query) {
        Ok(parsed) => parsed,
        Err(refusal) => return Response::error(refusal.code, refusal.detail),
    };
    let principal = match api.judge(head, "memkv.range", &|visit| query.touches(visit)) {
        Ok(principal) => principal,
        Err(refusal) => return Response::error(refusal.code, refusal.detail),
    };
    let mut memory = api.service().ledger().hold(Class::Output);
    let read = api.service().read_all(false, vec![query], &mut memory);
    let answers = match read.await {
        Ok(answers) => answers,
        Err(error) => return Response::problem(&failure::problem(&error)),
    };
    if let Err(refusal) = api.check_read(principal) {
        return Response::error(refusal.code, refusal.detail);
    }
    let bytes = answers.values.iter().map(bytes_of).sum();
    let page = answers.values.into_iter().next();
    let write = || body(page?, keys_only);
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

/// The page as JSON, cut where it is long enough; `None` if it is none. What was written is freed.
fn body(page: ReplyValue, keys_only: bool) -> Option<String> {
    let ReplyValue::Array(parts) = page else {
        return None;
    };
    let [ReplyValue::Array(found), ReplyValue::Integer(more)] =
        <[ReplyValue; 2]>::try_from(parts).ok()?
    else {
        return None;
    };
    let mut text = "{\"items\":[".to_owned();
    let mut is_cut = more != 0;
    let mut last = None;
    for entry in found {
        if text.len() >= PAGE_BYTES {
            is_cut = true;
            break;
        }
        if last.is_some() {
            text.push(',');
        }
        let (key, item) = item(entry, keys_only)?;
        text.push_str(&Value::Object(item).to_string());
        last = Some(key);
    }
    text.push(']');
    if let (true, Some(last)) = (is_cut, last) {
        let mut next = Map::new();
        json_bytes::put(&mut next, "next", &last);
        let next = Value::Object(next).to_string();
        text.push(',');
        text.push_str(next.get(1..next.len() - 1)?);
    }
    text.push('}');
    Some(text)
}

/// A key, and what the page says of it.
fn item(entry: ReplyValue, keys_only: bool) -> Option<(Bytes, Map<String, Value>)> {
    let mut item = Map::new();
    let key = match entry {
        ReplyValue::Bulk(key) if keys_only => key,
        ReplyValue::Array(fields) => {
            let [ReplyValue::Bulk(key), ReplyValue::Bulk(value), rest @ ..] = &fields[..] else {
                return None;
            };
            json_bytes::put(&mut item, "value", value);
            let names = ["create_revision", "revision", "expires_ms"];
            for (name, field) in names.iter().zip(rest) {
                if let ReplyValue::Integer(number @ 0..) = field {
                    item.insert((*name).to_owned(), (*number).into());
                }
            }
            key.clone()
        }
        _ => return None,
    };
    json_bytes::put(&mut item, "key", &key);
    Some((key, item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_cut_where_it_is_long_and_says_where_the_next_one_begins() {
        let entry = |at: usize| {
            let key = ReplyValue::Bulk(format!("key:{at:02}").into());
            // Each byte is six in JSON.
            let value = ReplyValue::Bulk(vec![1; 100_000].into());
            ReplyValue::Array(vec![key, value, ReplyValue::Integer(7)])
        };
        let page = |entries: std::ops::Range<usize>, more: i64| {
            let found = ReplyValue::Array(entries.map(entry).collect());
            body(
                ReplyValue::Array(vec![found, ReplyValue::Integer(more)]),
                false,
            )
            .unwrap()
        };
        let long = page(0..50, 0);
        assert!(long.len() < PAGE_BYTES + 700_000, "{}", long.len());
        let read: Value = serde_json::from_str(&long).unwrap();
        let items = read["items"].as_array().unwrap();
        let last = &items[items.len() - 1]["key"];
        assert!(items.len() > 1 && items.len() < 50 && *last == read["next"]);
        assert_eq!(items[0]["create_revision"], 7);
        let short: Value = serde_json::from_str(&page(0..2, 0)).unwrap();
        assert!(short["items"].as_array().unwrap().len() == 2 && short.get("next").is_none());
        let more: Value = serde_json::from_str(&page(0..2, 1)).unwrap();
        assert_eq!(more["next"], "key:01");
        assert_eq!(page(0..0, 0), "{\"items\":[]}");
    }
}
