//! The client: one method per operation. Never retries by itself: routing does, by its rules.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use memkv_proto::events::Events;
use memkv_proto::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES_CEILING};
use memkv_proto::{
    EVENTS_PATH, ErrorCode, KV_PREFIX, Problem, STATUS_PATH, Status, TRANSACTION_PATH,
    encode_key_path,
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::Endpoints;
use crate::answer::{self, Answer, Success};
use crate::cluster::{self, ClusterView, Silence};
use crate::connection::Call;
use crate::error::{Attempt, Error, Operation};
use crate::listing::{self, Page};
use crate::options::{Condition, ListOptions, SetOptions};
use crate::routing::Router;
use crate::tls::Tls;
use crate::txn::{self, Txn, TxnAnswer};

/// How long a call may take, all endpoints together: as long as a node itself tries by default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one node may take to answer its status, for which it asks no other node: a paused
/// node must not hold up what is known of the others.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// A present key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// Revision of the key's last write, if the node said it; for [`Condition::Revision`].
    pub revision: Option<u64>,
    /// When the key goes, in milliseconds since the epoch; None if it stays.
    pub expires_ms: Option<u64>,
}

/// What a counter is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The number.
    pub value: i64,
    /// Revision of the write, if the node said it.
    pub revision: Option<u64>,
}

/// A connection to a cluster. Needs a tokio runtime; may be shared between tasks.
///
/// Every call but [`status`](Self::status) fails with an [`Error`] that says whether it may have
/// been executed. As long as it certainly was not, because no endpoint accepts a connection or each
/// says so, the call tries all of them again until its deadline. After that point only reads are
/// repeated: a write (`set`, `del`, `incr`, `txn`) never is, and ends with [`Error::Unknown`].
pub struct Client {
    pub(crate) router: Router,
    pub(crate) timeout: Duration,
}

impl Client {
    /// A client that connects when it is first used.
    pub fn new(endpoints: Endpoints) -> Self {
        Self {
            router: Router::new(endpoints),
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// A client of a cluster of which at least one endpoint accepts connections now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason of each endpoint.
    pub async fn connect(endpoints: Endpoints) -> Result<Self, Error> {
        let client = Self::new(endpoints);
        let deadline = Instant::now() + client.timeout;
        let mut attempts = Vec::new();
        for addr in client.router.endpoints.addrs() {
            match client.router.pool.probe(addr, deadline).await {
                Ok(()) => return Ok(client),
                Err(failed) => attempts.push(attempt(addr, failed.reason)),
            }
        }
        Err(Error::Unavailable {
            operation: operation("connect", None),
            attempts,
        })
    }

    /// The same client with another deadline per call.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The same client, which shows this password with every request. Without TLS it crosses the network
    /// as it is, as all that the requests hold.
    #[must_use]
    pub fn with_password(self, password: &str) -> Self {
        self.with_user("default", password)
    }

    /// The same for a user, with its password or a token; the name has no colon.
    #[must_use]
    pub fn with_user(mut self, user: &str, password: &str) -> Self {
        let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        // Base64 is always a legal field.
        if let Ok(mut field) = HeaderValue::from_str(&basic) {
            field.set_sensitive(true);
            let mut pool = self.router.pool.anew();
            pool.authorization = Some(field);
            self.router.pool = Arc::new(pool);
        }
        self
    }

    /// The same client, which reaches every node over TLS. Endpoints with `https://` in front need this.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        let mut pool = self.router.pool.anew();
        pool.tls = Some(tls);
        self.router.pool = Arc::new(pool);
        self
    }

    /// The same client, which calls `tell` with the last failure of each endpoint whenever all have
    /// failed, nothing was executed, and it is about to ask them again. `tell` must not block.
    #[must_use]
    pub fn on_retry(mut self, tell: impl Fn(&[Attempt]) + Send + Sync + 'static) -> Self {
        self.router.on_retry = Some(Box::new(tell));
        self
    }

    /// The endpoints it was given.
    pub fn endpoints(&self) -> &Endpoints {
        &self.router.endpoints
    }

    /// The value of `key`; None if it is absent. Linearizable.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Refused`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Entry>, Error> {
        let found = self.on_key("get", Method::GET, key, |call| call).await?;
        Ok(found.map(|success| Entry {
            revision: success.key_revision(),
            expires_ms: success.expires_ms(),
            value: success.body,
        }))
    }

    /// Sets `key` to `value`, without a deadline, and returns the write's revision, if the node said
    /// it.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Refused`]: not executed. [`Error::Unknown`]: maybe.
    pub async fn set(&self, key: &[u8], value: impl Into<Bytes>) -> Result<Option<u64>, Error> {
        self.set_with(key, value, &SetOptions::default()).await
    }

    /// As [`set`](Self::set), with a time to live or a condition.
    ///
    /// # Errors
    /// As [`set`](Self::set). If the condition does not hold, [`Error::Refused`] with
    /// [`ErrorCode::PreconditionFailed`].
    pub async fn set_with(
        &self,
        key: &[u8],
        value: impl Into<Bytes>,
        options: &SetOptions,
    ) -> Result<Option<u64>, Error> {
        let value = value.into();
        let refuse = |code, detail| Err(refuse(operation("set", Some(key)), code, detail));
        if value.len() > MAX_VALUE_BYTES_CEILING {
            let detail = format!(
                "the value is {} bytes, and no node accepts more than {MAX_VALUE_BYTES_CEILING}",
                value.len()
            );
            return refuse(ErrorCode::ValueTooLarge, detail);
        }
        let ttl_ms = options.ttl.map(|ttl| ttl.as_millis());
        if ttl_ms == Some(0) {
            let detail = "a key lives at least 1 ms".to_owned();
            return refuse(ErrorCode::BadRequest, detail);
        }
        let success = self
            .on_key("set", Method::PUT, key, |mut call| {
                if let Some(ms) = ttl_ms {
                    call.path.push_str(&format!("?ttl={ms}ms"));
                }
                call.headers = options.condition.headers();
                let bytes = HeaderValue::from_static("application/octet-stream");
                call.headers.insert(CONTENT_TYPE, bytes);
                call.body = value;
                call
            })
            .await?;
        Ok(success.and_then(|success| success.revision()))
    }

    /// Removes `key`, whether it is there or not.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn del(&self, key: &[u8]) -> Result<Option<u64>, Error> {
        self.del_if(key, Condition::Always).await
    }

    /// As [`del`](Self::del), if a condition holds.
    ///
    /// # Errors
    /// As [`set_with`](Self::set_with).
    pub async fn del_if(&self, key: &[u8], condition: Condition) -> Result<Option<u64>, Error> {
        let success = self
            .on_key("del", Method::DELETE, key, |mut call| {
                call.headers = condition.headers();
                call
            })
            .await?;
        Ok(success.and_then(|success| success.revision()))
    }

    /// Adds `by` to the decimal number at `key`, which counts as 0 if it is absent.
    ///
    /// # Errors
    /// As [`set`](Self::set); [`Error::Refused`] also if the value is no number, or the sum none of
    /// 64 bits.
    pub async fn incr(&self, key: &[u8], by: i64) -> Result<Sum, Error> {
        let success = self
            .on_key("incr", Method::POST, key, |mut call| {
                call.path.push_str(&format!("?incr={by}"));
                call
            })
            .await?;
        let sum = success.and_then(|success| {
            let value = std::str::from_utf8(&success.body).ok()?.parse().ok()?;
            let revision = success.revision();
            Some(Sum { value, revision })
        });
        sum.ok_or_else(|| unreadable(operation("incr", Some(key)), "it is no number"))
    }

    /// Whether `key` is there. Linearizable.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn exists(&self, key: &[u8]) -> Result<bool, Error> {
        let found = self.on_key("exist", Method::HEAD, key, |call| call).await?;
        Ok(found.is_some())
    }

    /// The keys with a prefix, in byte order: one page of them, as of one moment. Linearizable. The
    /// next page is a read of its own: a key that is written between the two may be missed or seen,
    /// never seen twice.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn list(&self, prefix: &[u8], options: &ListOptions<'_>) -> Result<Page, Error> {
        let operation = operation("scan", Some(prefix));
        let call = Call::new(Method::GET, listing::path(prefix, options));
        let Some(success) = self.run(&operation, call).await? else {
            return Err(unreadable(operation, "it has no listing"));
        };
        listing::parse(&success.body, success.revision())
            .map_err(|reason| unreadable(operation, &reason))
    }

    /// Executes a transaction in one step.
    ///
    /// # Errors
    /// As [`set`](Self::set). A guard that does not hold is no error: [`TxnAnswer::succeeded`] is
    /// false then.
    pub async fn txn(&self, txn: Txn) -> Result<TxnAnswer, Error> {
        self.txn_json(txn.into_json()).await
    }

    /// Executes a transaction that is written in JSON, as `POST /v1/txn` takes it.
    ///
    /// # Errors
    /// As [`txn`](Self::txn); [`Error::Refused`] also if a node does not understand it completely.
    pub async fn txn_json(&self, body: impl Into<Bytes>) -> Result<TxnAnswer, Error> {
        let operation = operation("txn", None);
        let mut call = Call::new(Method::POST, TRANSACTION_PATH.to_owned());
        let json = HeaderValue::from_static("application/json");
        call.headers.insert(CONTENT_TYPE, json);
        call.body = body.into();
        let Some(success) = self.run(&operation, call).await? else {
            return Err(unreadable(operation, "it has no transactions"));
        };
        let revision = success.revision();
        txn::parse(success.body, revision).map_err(|reason| unreadable(operation, &reason))
    }

    /// What the node at `endpoint` says about itself; any address, not only the client's own.
    ///
    /// # Errors
    /// The reason, as text.
    pub async fn status(&self, endpoint: &str) -> Result<Status, String> {
        let status = self.ask_status(endpoint.to_owned()).await;
        status.map_err(|why| why.to_string())
    }

    /// As [`status`](Self::status), as a task of its own.
    pub(crate) fn ask_status(
        &self,
        endpoint: String,
    ) -> impl Future<Output = Result<Status, Silence>> + Send + use<> {
        self.ask_json(endpoint, STATUS_PATH.to_owned(), "status")
    }

    /// The events of the node at `endpoint` behind the number `since`; 0 for all that it has.
    ///
    /// # Errors
    /// The reason, as text.
    pub fn events(
        &self,
        endpoint: &str,
        since: u64,
    ) -> impl Future<Output = Result<Events, String>> + Send + use<> {
        let path = format!("{EVENTS_PATH}?since={since}");
        let events = self.ask_json(endpoint.to_owned(), path, "events");
        async move { events.await.map_err(|why: Silence| why.to_string()) }
    }

    /// What one node says at a path.
    fn ask_json<T: DeserializeOwned>(
        &self,
        endpoint: String,
        path: String,
        what: &'static str,
    ) -> impl Future<Output = Result<T, Silence>> + Send + use<T> {
        let refuses = |why: String| Err(Silence::Refuses(why));
        let call = Call::new(Method::GET, path);
        let deadline = Instant::now() + self.timeout.min(STATUS_TIMEOUT);
        let pool = self.router.pool.clone();
        async move {
            let exchange = pool.exchange(&endpoint, &call, deadline);
            let reply = exchange.await;
            let reply = reply.map_err(|failed| Silence::NoAnswer(failed.reason))?;
            match answer::read(reply) {
                Answer::Done(success) => serde_json::from_slice(&success.body)
                    .or_else(|err| refuses(format!("its {what} cannot be read: {err}"))),
                Answer::Absent => {
                    refuses(format!("it has no {what}; is this endpoint a memkv node?"))
                }
                Answer::Refused(problem) | Answer::Later(problem) | Answer::Maybe(problem) => {
                    refuses(format!("{}: {}", problem.title, problem.detail))
                }
            }
        }
    }

    /// Asks all endpoints, and all members that they name, for their status.
    pub async fn cluster(&self) -> ClusterView {
        cluster::view(self).await
    }

    /// Executes a call on a key, to which `with` adds what the method needs.
    async fn on_key(
        &self,
        verb: &'static str,
        method: Method,
        key: &[u8],
        with: impl FnOnce(Call) -> Call,
    ) -> Result<Option<Success>, Error> {
        let operation = operation(verb, Some(key));
        if key.len() > MAX_KEY_BYTES {
            let detail = format!(
                "the key is {} bytes, the limit is {MAX_KEY_BYTES}",
                key.len()
            );
            return Err(refuse(operation, ErrorCode::KeyTooLarge, detail));
        }
        let path = format!("{KV_PREFIX}{}", encode_key_path(key));
        self.run(&operation, with(Call::new(method, path))).await
    }

    async fn run(&self, operation: &Operation, call: Call) -> Result<Option<Success>, Error> {
        let deadline = Instant::now() + self.timeout;
        self.router.run(operation, call, deadline).await
    }
}

/// The client's own refusal, of what no node would accept.
fn refuse(operation: Operation, code: ErrorCode, detail: String) -> Error {
    Error::Refused {
        operation,
        endpoint: "memkv_client".to_owned(),
        problem: Box::new(Problem::new(code, detail)),
    }
}

/// What to make of an answer that says "done" and cannot be read: a write has been executed, or not.
fn unreadable(operation: Operation, reason: &str) -> Error {
    let attempts = vec![attempt(
        "the node",
        format!("its answer cannot be read: {reason}"),
    )];
    if operation.is_write() {
        Error::Unknown {
            operation,
            attempts,
        }
    } else {
        Error::Unavailable {
            operation,
            attempts,
        }
    }
}

fn operation(verb: &'static str, key: Option<&[u8]>) -> Operation {
    Operation {
        verb,
        key: key.map(<[u8]>::to_vec),
    }
}

fn attempt(addr: &str, reason: String) -> Attempt {
    Attempt {
        endpoint: addr.to_owned(),
        reason,
        problem: None,
    }
}
