//! A backup as it comes from a node. Never stores or interprets it; the reader's pace is the node's.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use memkv_proto::BACKUP_PATH;
use tokio::time::{Instant, timeout};

use crate::Client;
use crate::answer::{self, Answer};
use crate::connection::{Call, Sender, whole};
use crate::error::{Attempt, Error, Operation};

/// How long a node may take before the first byte: it builds a snapshot first, which takes minutes where
/// there are very many keys, and gives up itself before this.
const BEGIN_WITHIN: Duration = Duration::from_secs(930);

/// How long it may take from one piece to the next: a disk or a network that is stuck for longer has failed.
const PIECE_WITHIN: Duration = Duration::from_secs(60);

/// A backup that is being sent.
pub struct Download {
    body: Incoming,
    endpoint: String,
    /// The connection ends when this is dropped.
    _sender: Sender,
}

impl Client {
    /// Begins a backup of everything that was acknowledged before this call, from the first endpoint that
    /// gives one. [`Client::with_timeout`] bounds the time to connect only.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unavailable`].
    pub async fn backup(&self) -> Result<Download, Error> {
        let call = Call::new(Method::GET, BACKUP_PATH.to_owned());
        let mut attempts = Vec::new();
        for endpoint in self.endpoints().addrs() {
            let connect_until = Instant::now() + self.timeout;
            let began = self
                .router
                .pool
                .begin(endpoint, &call, connect_until, BEGIN_WITHIN);
            let (sender, response) = match began.await {
                Ok(began) => began,
                Err(failed) => {
                    attempts.push(attempt(endpoint, failed.reason));
                    continue;
                }
            };
            if response.status().is_success() {
                return Ok(Download {
                    body: response.into_body(),
                    endpoint: endpoint.clone(),
                    _sender: sender,
                });
            }
            let now = Instant::now();
            let reply = whole(response, now, now + PIECE_WITHIN).await;
            match reply.map(answer::read) {
                Ok(Answer::Refused(problem)) => {
                    return Err(Error::Refused {
                        operation: operation(),
                        endpoint: endpoint.clone(),
                        problem: Box::new(problem),
                    });
                }
                Ok(Answer::Later(problem) | Answer::Maybe(problem)) => {
                    let reason = format!("{}: {}", problem.title, problem.detail);
                    attempts.push(Attempt {
                        problem: Some(Box::new(problem)),
                        ..attempt(endpoint, reason)
                    });
                }
                Ok(Answer::Absent | Answer::Done(_)) => {
                    let reason = "this node makes no backups: it runs an older memkv";
                    attempts.push(attempt(endpoint, reason.to_owned()));
                }
                Err(failed) => attempts.push(attempt(endpoint, failed.reason)),
            }
        }
        Err(Error::Unavailable {
            operation: operation(),
            attempts,
        })
    }
}

impl Download {
    /// The node that sends it.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The next bytes; nothing once all have come.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: it has broken off, and what came is no backup.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let broken = |why: String| {
                let reason = format!("the backup broke off: {why}");
                Error::Unavailable {
                    operation: operation(),
                    attempts: vec![attempt(&self.endpoint, reason)],
                }
            };
            match timeout(PIECE_WITHIN, self.body.frame()).await {
                Err(_) => return Err(broken(format!("nothing came for {PIECE_WITHIN:?}"))),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(broken(error.to_string())),
                Ok(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

fn operation() -> Operation {
    Operation {
        verb: "backup",
        key: None,
    }
}

fn attempt(endpoint: &str, reason: String) -> Attempt {
    Attempt {
        endpoint: endpoint.to_owned(),
        reason,
        problem: None,
    }
}
