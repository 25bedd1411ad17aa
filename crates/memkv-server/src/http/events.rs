//! `GET /v1/events?since=SEQ`: what has happened to this node, for operators. Never waits and never asks a peer.

use memkv_node::Noted;
use memkv_proto::events::{Event, Events};

use super::app::Api;
use super::head::{Head, Refusal};
use super::query::QueryString;
use super::response::Response;
use crate::backend::Backend;
use crate::failure;

/// The command whose right this needs.
const COMMAND: &str = "memkv.events";

/// Answers with the events behind a number, all of them without one.
pub(super) fn answer<B: Backend>(api: &Api<B>, head: &Head) -> Response {
    let refused = |refusal: Refusal| Response::error(refusal.code, refusal.detail);
    let since = match since(&head.query) {
        Ok(since) => since,
        Err(refusal) => return refused(refusal),
    };
    if let Err(refusal) = api.judge(head, COMMAND, &|_| {}) {
        return refused(refusal);
    }
    let Some(timeline) = api.backend().map(Backend::timeline) else {
        return Response::problem(&failure::loading());
    };
    let events = Events {
        name: api.settings().name.clone(),
        boot: timeline.boot(),
        began_at_ms: timeline.began_at_ms(),
        events: timeline.since(since).into_iter().map(event).collect(),
    };
    // Strings, numbers and lists can always be written.
    let json = serde_json::to_string(&events).unwrap_or_default();
    Response::json(200, json).with("Cache-Control", "no-store")
}

fn since(query: &str) -> Result<u64, Refusal> {
    let query = QueryString::parse(query, &["since"])?;
    let since = query.parsed("since", "the number of an event, or 0", |text| {
        text.parse().ok()
    })?;
    Ok(since.unwrap_or(0))
}

fn event(noted: Noted) -> Event {
    Event {
        seq: noted.seq,
        at_ms: noted.at_ms,
        kind: noted.kind.to_owned(),
        warns: noted.warns,
        late: noted.late,
        text: noted.text.into(),
    }
}
