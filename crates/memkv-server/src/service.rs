//! What every interface of a node does for its clients: reads, writes, and the time that both may
//! take. HTTP and RESP translate to it and from it; it knows neither.
//!
//! Invariants: clients' data is read by [`Query`]s alone, which name what they look at; a failed read
//! has changed nothing; a write whose outcome did not come in time is unknown and never "not
//! executed".

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use memkv_node::{Answers, RequestError};
use memkv_store::{Command, Principal, Query, Reply, ReplyError, ReplyValue, Revision};

use crate::aside::{Aside, is_long, steps_of};
use crate::backend::{Backend, bytes_of};
use crate::drain::Drain;
use crate::ledger::{Class, Held, Ledger};
use crate::metrics::Latency;
use crate::read_batch::ReadBatch;
use crate::rights::Rights;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ServiceError {
    /// There is no node yet: nothing was executed.
    #[error("this node is loading its data; nothing was executed; try again")]
    Loading,
    /// The replies of all clients take too much memory for this one.
    #[error(
        "replies that wait for their clients take too much memory; nothing was executed; try again later, \
         or ask another node"
    )]
    Memory,
    /// The node has not answered it.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// A reply of so many bytes is read however much the others hold (64 KiB): no more than a connection
/// collects before it sends.
pub(crate) const LEAST_REPLY_BYTES: usize = 64 * 1024;

/// Memory of a value beside its bytes, about: its place in a list, and the header of its bytes.
const VALUE_BYTES: usize = 64;

/// Memory of a reply from the store.
pub(crate) fn memory_of(value: &ReplyValue) -> usize {
    VALUE_BYTES
        + match value {
            ReplyValue::Array(values) => values.iter().map(memory_of).sum(),
            value => bytes_of(value),
        }
}

/// Why a node does nothing by itself for clients.
pub(crate) const OLD_RIGHTS: &str =
    "no majority has confirmed for 10 s what clients of this node may do";

fn is_too_long(value: &ReplyValue) -> bool {
    *value == ReplyValue::Error(ReplyError::ReplyTooLong)
}

/// A node as its clients use it.
pub struct Service<B> {
    /// The node; empty while it loads its data.
    backend: OnceLock<B>,
    /// Every command is answered within this time.
    request_timeout: Duration,
    /// How far its end has come.
    drain: Arc<Drain>,
    latency: Latency,
    /// Users, and what each may do.
    rights: Arc<Rights>,
    /// Where work is done that takes long for one client.
    aside: Arc<Aside>,
    /// The memory that clients take.
    ledger: Ledger,
}

impl<B: Backend> Service<B> {
    /// A service that answers "loading" until it has its node.
    #[must_use]
    pub fn new(request_timeout: Duration) -> Self {
        Self::with_rights(request_timeout, Rights::default())
    }

    /// The same, for clients that have to show who they are.
    #[must_use]
    pub fn with_rights(request_timeout: Duration, rights: Rights) -> Self {
        Self {
            rights: Arc::new(rights),
            backend: OnceLock::new(),
            request_timeout,
            drain: Arc::default(),
            latency: Latency::default(),
            aside: Arc::default(),
            ledger: Ledger::default(),
        }
    }

    /// The same service with another account of its clients' memory.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Ledger) -> Self {
        self.ledger = ledger;
        self
    }

    /// From now on requests are served. A second call has no effect.
    pub fn attach(&self, backend: B) {
        let _ = self.backend.set(backend);
    }

    /// The node, once there is one.
    pub fn backend(&self) -> Option<&B> {
        self.backend.get()
    }

    fn loaded(&self) -> Result<&B, ServiceError> {
        self.backend().ok_or(ServiceError::Loading)
    }

    /// Takes commands out of a list and submits them in order; they are encoded in so many steps. All
    /// are in line when this returns; the caller decides how long it waits for the outcomes.
    pub(crate) async fn submit<'a>(
        &'a self,
        commands: &mut Vec<Command>,
        steps: usize,
        principal: Option<Principal>,
    ) -> Result<
        Vec<impl Future<Output = Result<Reply, RequestError>> + Send + use<'a, B>>,
        ServiceError,
    > {
        let backend = self.loaded()?;
        let commands = commands.drain(..);
        let submit = || {
            let write = |command| backend.write(command, principal);
            commands.map(write).collect()
        };
        Ok(match is_long(steps) {
            true => Box::pin(self.aside.run(steps, submit)).await,
            false => submit(),
        })
    }

    /// Executes a command of about so many bytes for a user, and answers within
    /// [`Service::answer_within`].
    pub(crate) async fn write_as(
        &self,
        command: Command,
        bytes: usize,
        principal: Option<Principal>,
    ) -> Result<Reply, ServiceError> {
        let backend = self.loaded()?;
        let steps = steps_of(0, bytes);
        let write = match is_long(steps) {
            true => Box::pin(self.aside.run(steps, || backend.write(command, principal))).await,
            false => backend.write(command, principal),
        };
        match tokio::time::timeout(self.answer_within(), write).await {
            Ok(result) => Ok(result?),
            Err(_elapsed) => Err(ServiceError::Request(RequestError::Unknown {
                detail: format!("no outcome within {:?}", self.answer_within()),
            })),
        }
    }

    /// Answers queries in order, at one state: at least one, and as many more as one hold of the store
    /// allows. Linearizable unless `stale`.
    pub(crate) async fn read(
        &self,
        stale: bool,
        mut batch: ReadBatch,
    ) -> Result<ReadBatch, ServiceError> {
        self.check_rights(stale).await?;
        if batch.starts_long() {
            let first = batch.queries.drain(..1).collect();
            let answers = self.read_all(stale, first, &mut batch.memory).await?;
            batch.values.extend(answers.values);
            batch.revision = answers.revision;
            batch.users_revision = answers.users_revision;
            return Ok(batch);
        }
        let read = self.loaded()?.read(self.answer_within(), stale, batch);
        unchanged(read.await)
    }

    /// Answers a query, linearizably, and tells the store's revision.
    pub(crate) async fn read_one(
        &self,
        query: Query,
    ) -> Result<(ReplyValue, Revision), ServiceError> {
        let batch = ReadBatch::from(query).counted(self.ledger.hold(Class::Output));
        let mut read = self.read(false, batch).await?;
        let value = read.values.pop_front().unwrap_or(ReplyValue::Nil);
        Ok((value, read.revision))
    }

    /// Answers queries at one state, however many keys they name; see [`Backend::read_all`]. The
    /// answers take their room of `memory` before they are read, and hold it.
    pub(crate) async fn read_all(
        &self,
        stale: bool,
        queries: Vec<Query>,
        memory: &mut Held,
    ) -> Result<Answers, ServiceError> {
        self.check_rights(stale).await?;
        let backend = self.loaded()?;
        let most = self.ledger.most_of_one(Class::Output);
        let room = memory.take_up_to(most, LEAST_REPLY_BYTES);
        let read = backend.read_all(self.answer_within(), stale, queries, room);
        let answers = unchanged(read.await)?;
        memory.set(answers.values.iter().map(memory_of).sum());
        if room < most && answers.values.iter().any(is_too_long) {
            return Err(ServiceError::Memory);
        }
        Ok(answers)
    }

    /// Whether the users of the cluster are known; a node that starts waits for them as it waits for a leader.
    ///
    /// # Errors
    /// They are not, and why.
    pub(crate) async fn know_users(&self) -> Result<(), ServiceError> {
        if self.rights.is_known() || self.rights.wait_known(self.answer_within()).await {
            return Ok(());
        }
        Err(self.knows_no_users())
    }

    /// Why a node that has waited does not know them. Without a leader that is the reason, as for every command.
    pub(crate) fn knows_no_users(&self) -> ServiceError {
        match self.backend().map(Backend::status) {
            Some(status) if status.leader.is_none() => {
                // More is for users alone, and nobody here is known to be one.
                let is_open = self.rights.table().default_user().nopass;
                let detail = match is_open && !status.message.is_empty() {
                    true => status.message,
                    false => "this node waits for a leader".to_owned(),
                };
                ServiceError::Request(RequestError::NoLeader { detail })
            }
            Some(_) | None => ServiceError::Loading,
        }
    }

    /// Whether an old read may be answered: by rights that are not as old.
    async fn check_rights(&self, stale: bool) -> Result<(), ServiceError> {
        if !stale || self.rights.are_recent() || Box::pin(self.rights.are_fresh()).await {
            return Ok(());
        }
        let detail = OLD_RIGHTS.to_owned();
        Err(ServiceError::Request(RequestError::NoLeader { detail }))
    }

    /// Whether reads are served: a majority confirms one, of nothing, within that time.
    pub(crate) async fn confirm(&self, within: Duration) -> Result<(), ServiceError> {
        let read = self.loaded()?.read(within, false, ReadBatch::default());
        unchanged(read.await).map(drop)
    }

    /// A tenth of the promised time is left for the way back.
    pub(crate) fn answer_within(&self) -> Duration {
        self.request_timeout * 9 / 10
    }

    /// Users, and what each may do.
    pub(crate) fn rights(&self) -> &Arc<Rights> {
        &self.rights
    }

    /// Whether a user is still as it was when a read of its was judged. The read has seen the store before this,
    /// so that it may be answered then.
    pub(crate) fn is_unchanged(&self, principal: Option<Principal>) -> bool {
        principal.is_none_or(|judged| {
            if self.backend().map_or(0, Backend::users_revision) == judged.revision {
                return true;
            }
            let users = self.backend().and_then(Backend::users);
            let user = users.as_ref().and_then(|users| users.by_id(judged.user));
            user.is_some_and(|user| user.changed_at <= judged.revision)
        })
    }

    /// Log time here in milliseconds since the Unix epoch; 0 while the node loads its data.
    pub(crate) fn log_time_ms(&self) -> u64 {
        self.backend().map_or(0, Backend::log_time_ms)
    }

    /// How long clients' commands take.
    pub(crate) fn latency(&self) -> &Latency {
        &self.latency
    }

    /// The memory that clients take.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Where work is done that takes long for one client.
    pub(crate) fn aside(&self) -> &Arc<Aside> {
        &self.aside
    }

    /// How far the end of the service has come.
    pub fn drain(&self) -> &Arc<Drain> {
        &self.drain
    }
}

/// Whatever went wrong, a read has changed nothing: it is never "unknown".
fn unchanged<T>(result: Result<T, RequestError>) -> Result<T, ServiceError> {
    result.map_err(|error| {
        ServiceError::Request(match error {
            RequestError::Unknown { detail } => RequestError::NoLeader { detail },
            error => error,
        })
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::testing::Fake;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn service(backend: Fake) -> Service<Fake> {
        let service = Service::new(TIMEOUT);
        service.attach(backend);
        service
    }

    fn set() -> Command {
        let key = Bytes::from_static(b"k");
        let value = Bytes::from_static(b"v");
        Command::Set { key, value }
    }

    fn get() -> Query {
        let key = Bytes::from_static(b"k");
        Query::Get { key }
    }

    #[tokio::test]
    async fn a_write_is_read_with_its_revision() {
        let service = service(Fake::working());
        let revision = service.write_as(set(), 2, None).await.unwrap().revision;
        let value = ReplyValue::Bulk(Bytes::from_static(b"v"));
        assert_eq!(service.read_one(get()).await, Ok((value, revision)));
    }

    #[tokio::test]
    async fn without_a_node_nothing_is_executed() {
        let service = Service::<Fake>::new(TIMEOUT);
        assert_eq!(
            service.write_as(set(), 2, None).await,
            Err(ServiceError::Loading)
        );
        assert_eq!(service.read_one(get()).await, Err(ServiceError::Loading));
        assert_eq!(service.confirm(TIMEOUT).await, Err(ServiceError::Loading));
        let submitted = service.submit(&mut vec![set()], 1, None).await;
        assert!(matches!(submitted, Err(ServiceError::Loading)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_is_never_unknown_and_a_late_write_is() {
        let detail = "it left".to_owned();
        let failing = service(Fake::failing(RequestError::Unknown { detail }));
        for stale in [false, true] {
            let read = failing
                .read_all(stale, vec![get()], &mut Held::default())
                .await;
            let is_told = matches!(
                read,
                Err(ServiceError::Request(RequestError::NoLeader { .. }))
            );
            assert!(is_told || stale, "{read:?}");
        }
        let hanging = service(Fake::hanging());
        let write = hanging.write_as(set(), 2, None).await;
        assert!(
            matches!(
                write,
                Err(ServiceError::Request(RequestError::Unknown { .. }))
            ),
            "{write:?}"
        );
        assert!(hanging.confirm(TIMEOUT).await.is_err());
    }

    /// One function can decide which reads are allowed only if each says what it looks at, and all
    /// interfaces come through here.
    #[test]
    fn no_interface_is_imported_and_no_read_is_a_closure() {
        let files = [
            include_str!("service.rs"),
            include_str!("backend.rs"),
            include_str!("read_batch.rs"),
        ];
        for file in files {
            let code = file.split("#[cfg(test)]\nmod tests").next().unwrap();
            for banned in ["crate::http", "crate::resp", "FnOnce(&Store)"] {
                assert!(!code.contains(banned), "{banned}");
            }
        }
    }
}
