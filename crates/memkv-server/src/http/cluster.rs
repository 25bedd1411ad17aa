//! `/v1/cluster`: the members as the leader sees them, and the verbs that change them.
//!
//! ```json
//! {"remove": {"name": "n3"}}
//! ```
//!
//! A body of `POST` has exactly one verb: `add` (`name`, `role`), `remove`, `promote`, `demote` (`name`),
//! `replace` (`old`, `new`), `transfer` (`to`, or nothing). `?dry_run=true` only says what would be done;
//! `?wait=SECONDS` answers once nothing is left to be done. Never decides: the leader does. Every verb is in the
//! audit log, whether it was carried out or refused.

use std::time::Duration;

use bytes::Bytes;
use memkv_node::{MemberList, MemberVerb, MemberView, VerbError};
use memkv_proto::{ErrorCode, Problem};
use memkv_store::Role;
use serde::Deserialize;
use serde_json::{Value, json};

use super::app::Api;
use super::head::{Head, Method, Refusal};
use super::query::QueryString;
use super::response::Response;
use crate::backend::Backend;
use crate::failure;
use crate::members::{self, BAD_NAME, MAX_WAIT, node_name, settle};

/// Largest body: two names and the words around them.
pub(super) const MAX_BODY_BYTES: usize = 4 * 1024;

/// What a body asks for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Verb {
    Add(New),
    Remove(Named),
    Replace(Replacement),
    Promote(Named),
    Demote(Named),
    Transfer(Heir),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    name: String,
    #[serde(default)]
    role: Wanted,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    #[default]
    Voter,
    Replica,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replacement {
    old: String,
    new: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Heir {
    to: Option<String>,
}

/// Answers `GET` with the members, and `POST` with what came of a verb.
pub(super) async fn answer<B: Backend>(api: &Api<B>, head: &Head, body: &Bytes) -> Response {
    let answered = match head.method {
        Method::Post => change(api, head, body).await,
        _ => show(api, head).await,
    };
    let response = answered.unwrap_or_else(|response| response);
    response.with("Cache-Control", "no-store")
}

fn refused(refusal: Refusal) -> Response {
    Response::error(refusal.code, refusal.detail)
}

fn failed(error: &VerbError) -> Response {
    let code = match error {
        VerbError::Refused(_) => ErrorCode::ChangeRefused,
        VerbError::NoLeader(_) => ErrorCode::NoLeader,
        VerbError::Unknown(_) => ErrorCode::Unknown,
    };
    Response::problem(&Problem::new(code, error.to_string()))
}

async fn show<B: Backend>(api: &Api<B>, head: &Head) -> Result<Response, Response> {
    let query = QueryString::parse(&head.query, &["wait"]).map_err(refused)?;
    let within = wait(&query).map_err(refused)?;
    let judged = api.judge(head, "memkv.cluster|members", &|_| {});
    judged.map_err(refused)?;
    let backend = api
        .backend()
        .ok_or_else(|| Response::problem(&failure::loading()))?;
    if let Some(within) = within {
        // The list says whether there is something left.
        let _ = settle(api.service(), within).await;
    }
    let list = backend.members().await.map_err(|error| failed(&error))?;
    Ok(Response::json(200, document(&list).to_string()))
}

async fn change<B: Backend>(api: &Api<B>, head: &Head, body: &Bytes) -> Result<Response, Response> {
    let query = QueryString::parse(&head.query, &["dry_run", "wait"]).map_err(refused)?;
    let within = wait(&query).map_err(refused)?;
    let dry_run = query.parsed("dry_run", "true or false", |text| text.parse().ok());
    let dry_run: bool = dry_run.map_err(refused)?.unwrap_or(false);
    let bad = |detail: String| Response::error(ErrorCode::BadJson, detail);
    let wanted: Verb = serde_json::from_slice(body).map_err(|error| {
        bad(format!(
            "{error}; the body has one verb, as in {{\"remove\": {{\"name\": \"n3\"}}}}"
        ))
    })?;
    let (verb, command) = verb(wanted).ok_or_else(|| bad(BAD_NAME.to_owned()))?;
    api.judge(head, command, &|_| {}).map_err(refused)?;
    let backend = api
        .backend()
        .ok_or_else(|| Response::problem(&failure::loading()))?;
    let done = backend.administer(verb, dry_run).await;
    let user = head.identity.as_ref().map(|it| it.user.name.clone());
    let user = user.unwrap_or_default();
    members::record(done.is_ok(), &user, head.client, command);
    let message = done.map_err(|error| failed(&error))?;
    let mut answer = json!({ "message": message, "dry_run": dry_run });
    if dry_run {
        return Ok(Response::json(200, answer.to_string()));
    }
    let Some(within) = within else {
        return Ok(Response::json(202, answer.to_string()));
    };
    let settled = settle(api.service(), within).await;
    answer["settled"] = settled.is_ok().into();
    let status = if settled.is_ok() { 200 } else { 202 };
    answer["left_to_do"] = settled.err().unwrap_or_default().into();
    Ok(Response::json(status, answer.to_string()))
}

/// How long to wait, if at all.
fn wait(query: &QueryString) -> Result<Option<Duration>, Refusal> {
    let most = MAX_WAIT.as_secs();
    let wanted = format!("a number of seconds, at most {most}");
    let seconds = query.parsed("wait", &wanted, |text| {
        text.parse().ok().filter(|seconds: &u64| *seconds <= most)
    })?;
    Ok(seconds.map(Duration::from_secs))
}

/// The verb, and the command whose right it needs; nothing if a name is none.
fn verb(wanted: Verb) -> Option<(MemberVerb, &'static str)> {
    let name = |name: String| node_name(name.as_bytes());
    Some(match wanted {
        Verb::Add(new) => {
            let role = match new.role {
                Wanted::Voter => Role::Voter,
                Wanted::Replica => Role::Replica,
            };
            let name = name(new.name)?;
            (MemberVerb::Add { name, role }, "memkv.cluster|add")
        }
        Verb::Remove(node) => {
            let name = name(node.name)?;
            (MemberVerb::Remove { name }, "memkv.cluster|remove")
        }
        Verb::Replace(pair) => {
            let (old, new) = (name(pair.old)?, name(pair.new)?);
            (MemberVerb::Replace { old, new }, "memkv.cluster|replace")
        }
        Verb::Promote(node) => {
            let name = name(node.name)?;
            (MemberVerb::Promote { name }, "memkv.cluster|promote")
        }
        Verb::Demote(node) => {
            let name = name(node.name)?;
            (MemberVerb::Demote { name }, "memkv.cluster|demote")
        }
        Verb::Transfer(heir) => {
            let to = match heir.to {
                Some(to) => Some(name(to)?),
                None => None,
            };
            (MemberVerb::Transfer { to }, "memkv.cluster|transfer")
        }
    })
}

fn document(list: &MemberList) -> Value {
    let views = &list.members;
    let leader = views.iter().find(|view| view.leads).map(|view| &view.name);
    let counts = members::voters(views);
    json!({
        "leader": leader,
        "voters": counts.0,
        "voters_answering": counts.0 - counts.1,
        "summary": members::may_fail(counts),
        "settled": list.left_to_do.as_ref().map(String::is_empty),
        "left_to_do": list.left_to_do,
        "members": views.iter().map(member).collect::<Vec<_>>(),
    })
}

fn member(view: &MemberView) -> Value {
    json!({
        "name": view.name,
        "id": view.id,
        "address": view.addr,
        "role": view.role.name(),
        "state": view.state.map_or("expected", |state| state.name()),
        "votes": view.votes,
        "leads": view.leads,
        "lag": view.lag,
        "heard_ms": view.heard_ms,
        "highest_feature_level": view.highest_level,
    })
}
