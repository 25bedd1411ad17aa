//! `/v1/kv/{key}`: GET, HEAD, PUT and DELETE with raw bodies. The key is the rest of the path,
//! percent-decoded once; the empty key and the empty value are valid.
//!
//! Replies carry `X-Memkv-Revision`, the cluster-wide revision that the reply is about: of the
//! write, or of the store that was read; `ETag` is the revision of the key's last write; DELETE
//! says in `X-Memkv-Deleted` whether there was a key (0 or 1). Failures are RFC 9457 problems.

use bytes::Bytes;
use memkv_proto::{ErrorCode, HEADER_REVISION, KeyPathError, decode_key_path};
use memkv_raft::store::{Command, Reply, ReplyValue};

use super::app::Api;
use super::head::Method;
use super::response::Response;
use crate::backend::Backend;
use crate::failure;

/// Whether DELETE found a key.
const HEADER_DELETED: &str = "x-memkv-deleted";

/// Executes a request whose method the route has.
pub(super) async fn answer<B: Backend>(
    api: &Api<B>,
    method: Method,
    rest: &str,
    body: Bytes,
) -> Response {
    let key = match decode_key_path(rest) {
        Ok(key) => Bytes::from(key),
        Err(error) => {
            let code = match error {
                KeyPathError::BadEscape { .. } => ErrorCode::BadRequest,
                KeyPathError::TooLong { .. } => ErrorCode::KeyTooLarge,
            };
            return Response::error(code, error.to_string());
        }
    };
    let Some(backend) = api.backend() else {
        return Response::problem(&failure::loading());
    };
    match method {
        Method::Put => {
            let command = Command::Set { key, value: body };
            write(api, backend, command, |reply| {
                done(reply).with("ETag", etag(reply.revision))
            })
            .await
        }
        Method::Delete => {
            let command = Command::Del { keys: vec![key] };
            write(api, backend, command, |reply| {
                let removed = matches!(reply.value, ReplyValue::Integer(1..));
                done(reply).with(HEADER_DELETED, u8::from(removed).to_string())
            })
            .await
        }
        _ => get(api, backend, key).await,
    }
}

async fn get<B: Backend>(api: &Api<B>, backend: &B, key: Bytes) -> Response {
    let found = api.read(backend, api.answer_within(), move |store| {
        let found = store
            .get(&key)
            .map(|found| (found.to_bytes(), found.mod_revision));
        (found, store.revision())
    });
    match found.await {
        Ok((Some((value, mod_revision)), revision)) => Response::bytes(value)
            .with("ETag", etag(mod_revision))
            .with(HEADER_REVISION, revision.to_string()),
        Ok((None, revision)) => {
            let detail = "the key does not exist; nothing is wrong with the request";
            Response::error(ErrorCode::NotFound, detail).with(HEADER_REVISION, revision.to_string())
        }
        Err(error) => Response::problem(&failure::problem(&error)),
    }
}

async fn write<B: Backend>(
    api: &Api<B>,
    backend: &B,
    command: Command,
    answer: impl FnOnce(&Reply) -> Response,
) -> Response {
    match api.write(backend, command).await {
        Ok(Reply {
            value: ReplyValue::Error(error),
            ..
        }) => Response::error(failure::reply_code(error), error.to_string()),
        Ok(reply) => answer(&reply),
        Err(error) => Response::problem(&failure::problem(&error)),
    }
}

fn done(reply: &Reply) -> Response {
    Response::bytes(Bytes::new()).with(HEADER_REVISION, reply.revision.to_string())
}

fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}
