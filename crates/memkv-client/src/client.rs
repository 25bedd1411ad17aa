//! The client: one method per operation. Never retries by itself: routing does, by its rules.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use memkv_proto::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES_CEILING};
use memkv_proto::{ErrorCode, KV_PREFIX, Problem, STATUS_PATH, Status, encode_key_path};
use tokio::time::Instant;

use crate::Endpoints;
use crate::answer::{self, Answer, Success};
use crate::cluster::{self, ClusterView};
use crate::connection::Call;
use crate::error::{Attempt, Error, Operation};
use crate::routing::Router;

/// How long a call may take, all endpoints together: as long as a node itself tries by default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one node may take to tell its status, which it knows without asking anybody: a paused
/// node must not hold up what is known of the others.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// A present key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// Revision of the write that set it, if the node said it.
    pub revision: Option<u64>,
}

/// A connection to a cluster. Needs a tokio runtime; may be shared between tasks.
///
/// Every call but [`status`](Self::status) fails with an [`Error`] that says whether it may have
/// been executed. As long as it certainly was not, because no endpoint accepts a connection or each
/// says so, the call tries all of them again until its deadline.
pub struct Client {
    router: Router,
    timeout: Duration,
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
        let success = self.call("get", Method::GET, key, Bytes::new()).await?;
        Ok(success.map(|Success { body, revision }| Entry {
            value: body,
            revision,
        }))
    }

    /// Sets `key` to `value` and returns the write's revision, if the node said it.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Refused`]: not executed. [`Error::Unknown`]: maybe.
    pub async fn set(&self, key: &[u8], value: impl Into<Bytes>) -> Result<Option<u64>, Error> {
        let value = value.into();
        if value.len() > MAX_VALUE_BYTES_CEILING {
            let detail = format!(
                "the value is {} bytes, and no node accepts more than {MAX_VALUE_BYTES_CEILING}",
                value.len()
            );
            return Err(self.refuse(
                operation("set", Some(key)),
                ErrorCode::ValueTooLarge,
                detail,
            ));
        }
        let success = self.call("set", Method::PUT, key, value).await?;
        Ok(success.and_then(|success| success.revision))
    }

    /// Removes `key`, whether it is there or not.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn del(&self, key: &[u8]) -> Result<Option<u64>, Error> {
        let success = self.call("del", Method::DELETE, key, Bytes::new()).await?;
        Ok(success.and_then(|success| success.revision))
    }

    /// Whether `key` is there. Linearizable.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn exists(&self, key: &[u8]) -> Result<bool, Error> {
        Ok(self
            .call("exist", Method::HEAD, key, Bytes::new())
            .await?
            .is_some())
    }

    /// What the node at `endpoint` says about itself; any address, not only the client's own.
    ///
    /// # Errors
    /// The reason in words.
    pub async fn status(&self, endpoint: &str) -> Result<Status, String> {
        self.ask_status(endpoint.to_owned()).await
    }

    /// As [`status`](Self::status), as a task of its own.
    pub(crate) fn ask_status(
        &self,
        endpoint: String,
    ) -> impl Future<Output = Result<Status, String>> + Send + use<> {
        let call = Call {
            method: Method::GET,
            path: STATUS_PATH.into(),
            body: Bytes::new(),
        };
        let deadline = Instant::now() + self.timeout.min(STATUS_TIMEOUT);
        let pool = self.router.pool.clone();
        async move {
            let exchange = pool.exchange(&endpoint, &call, deadline);
            let reply = exchange.await.map_err(|failed| failed.reason)?;
            match answer::read(reply) {
                Answer::Done(success) => serde_json::from_slice(&success.body)
                    .map_err(|err| format!("its status cannot be read: {err}")),
                Answer::Absent => {
                    Err("it has no status; is this endpoint a memkv node?".to_owned())
                }
                Answer::Refused(problem) | Answer::Later(problem) | Answer::Maybe(problem) => {
                    Err(format!("{}: {}", problem.title, problem.detail))
                }
            }
        }
    }

    /// Asks all endpoints, and all members that they name, for their status.
    pub async fn cluster(&self) -> ClusterView {
        cluster::gather(self).await
    }

    async fn call(
        &self,
        verb: &'static str,
        method: Method,
        key: &[u8],
        body: Bytes,
    ) -> Result<Option<Success>, Error> {
        let operation = operation(verb, Some(key));
        if key.len() > MAX_KEY_BYTES {
            let detail = format!(
                "the key is {} bytes, the limit is {MAX_KEY_BYTES}",
                key.len()
            );
            return Err(self.refuse(operation, ErrorCode::KeyTooLarge, detail));
        }
        let path = format!("{KV_PREFIX}{}", encode_key_path(key));
        let deadline = Instant::now() + self.timeout;
        self.router
            .run(&operation, Call { method, path, body }, deadline)
            .await
    }

    /// The client's own refusal, of what no node would accept.
    fn refuse(&self, operation: Operation, code: ErrorCode, detail: String) -> Error {
        let problem = Box::new(Problem::new(code, detail));
        Error::Refused {
            operation,
            endpoint: "memkv_client".to_owned(),
            problem,
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
