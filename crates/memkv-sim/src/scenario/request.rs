//! A client's request as a script writes it, and its answer as the transcript shows it.
//!
//! Never retries. A few commands of Redis are enough: what commands do is tested in `memkv-store`.

use std::time::Duration;

use bytes::Bytes;
use memkv_node::{Node, RequestError};
use memkv_store::{Command, Expiry, Query, ReplyValue, SetIf, Store};

/// Longer than a node holds any request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer values are shown by their length.
const SHOWN_BYTES: usize = 16;

/// What a client asks of a node.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Write(Command),
    /// Linearizable.
    Read(Query),
    /// The state that the node has, however old.
    ReadOld(Query),
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// `x*3` is `xxx`.
fn value(text: &str) -> Bytes {
    let repeated = text.split_once('*').and_then(|(part, times)| {
        let times: usize = times.parse().ok()?;
        Some(Bytes::from(part.repeat(times)))
    });
    repeated.unwrap_or_else(|| bytes(text))
}

/// Reads a request.
pub(super) fn parse(text: &str) -> Result<Request, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(match words[..] {
        ["GET", key] => Request::Read(Query::Get { key: bytes(key) }),
        ["OLD", "GET", key] => Request::ReadOld(Query::Get { key: bytes(key) }),
        ["SET", key, text] => Request::Write(Command::Set {
            key: bytes(key),
            value: value(text),
        }),
        ["SET", key, text, "PX", ms] => Request::Write(Command::SetWith {
            key: bytes(key),
            value: value(text),
            condition: SetIf::Always,
            expiry: Expiry::In {
                ms: ms.parse().map_err(|_| "PX needs milliseconds")?,
            },
            get: false,
        }),
        ["DEL", key] => Request::Write(Command::Del {
            keys: vec![bytes(key)],
        }),
        ["INCR", key] => Request::Write(Command::IncrBy {
            key: bytes(key),
            by: 1,
        }),
        _ => {
            let known = "GET K, OLD GET K, SET K V [PX MS], DEL K, INCR K";
            return Err(format!("requests are {known}"));
        }
    })
}

/// Sends a request at once; resolves to its answer.
pub(super) fn send(node: Option<Node>, request: Request) -> impl Future<Output = String> {
    let answer = node.map(|node| {
        let written = match &request {
            Request::Write(command) => Some(node.write(command)),
            _ => None,
        };
        (node, written)
    });
    async move {
        let Some((node, written)) = answer else {
            return "no process".to_owned();
        };
        let query = match request {
            Request::ReadOld(query) => {
                let now = node.log_time_ms();
                let read = node.read_old(|store| at(&store.query(&query, now), store.revision()));
                return read.unwrap_or_else(|error| failure(&error));
            }
            Request::Read(query) => Some(query),
            Request::Write(_) => None,
        };
        let answer = async {
            match (written, query) {
                (Some(written), _) => written.await.map(|reply| at(&reply.value, reply.revision)),
                (None, Some(query)) => {
                    let clock = node.clone();
                    let look = move |store: &Store| {
                        at(&store.query(&query, clock.log_time_ms()), store.revision())
                    };
                    node.read(look).await
                }
                (None, None) => Ok(String::new()),
            }
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => failure(&error),
            Err(_) => "no answer".to_owned(),
        }
    }
}

/// An answer, and the revision of the store at that moment.
fn at(value: &ReplyValue, revision: u64) -> String {
    let value = match value {
        ReplyValue::Ok => "OK".to_owned(),
        ReplyValue::Nil => "nil".to_owned(),
        ReplyValue::Integer(number) => number.to_string(),
        ReplyValue::Bulk(value) if value.len() > SHOWN_BYTES => format!("{} bytes", value.len()),
        ReplyValue::Bulk(value) => String::from_utf8_lossy(value).into_owned(),
        other => format!("{other:?}"),
    };
    format!("{value} @{revision}")
}

/// Whether the request was executed; the details tell of times and addresses.
fn failure(error: &RequestError) -> String {
    let what = match error {
        RequestError::NoLeader { .. } => "no leader, not executed",
        RequestError::Unknown { .. } => "outcome unknown",
        RequestError::DiskFull => "disks are low, not executed",
        RequestError::OutOfMemory => "memory is short, not executed",
        RequestError::DiskExhausted => "disks are full, not executed",
        RequestError::Stopping => "the node is stopping, not executed",
        other => return other.to_string(),
    };
    what.to_owned()
}
