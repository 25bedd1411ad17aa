//! A real store in the place of a node, for the properties of what is in front of it: nothing waits,
//! nothing fails, and equal requests in equal order give equal stores.
//!
//! - A command that is answered with an error has changed nothing.
//! - After each write the store agrees with itself.

#![allow(dead_code, reason = "each test that shares it uses a part")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use memkv_disk::SnapshotReader;
use memkv_node::{
    Answers, Copies, Frame, Lane, MemberStatus, NodeStats, NodeStatus, Phase, Publication,
    RequestError, Role, Subscribers, Timeline,
};
use memkv_server::backend::{Backend, Introspection};
use memkv_server::http::{Api, ApiSettings};
use memkv_server::peer::Trust;
use memkv_server::read_batch::ReadBatch;
use memkv_server::service::Service;
use memkv_store::{
    BatchBuilder, Command, DATABASES, DecodeError, Loader, MAX_KEY_BYTES, Principal, Query,
    Reading, Readings, Rejected, Reply, ReplyValue, SessionId, Sink, Store, SystemOp,
    SystemOutcome, UserTable,
};
use tokio::sync::watch;

/// Session of every command; the first log entry opens it.
const SESSION: SessionId = 1;

/// Log time from one write to the next, in milliseconds: short deadlines pass within a stream.
const STEP_MS: u64 = 7;

/// Small, so that streams reach it.
pub(crate) const MAX_VALUE_BYTES: usize = 4096;

/// Keys of each database in order, with values, revisions and deadlines.
#[derive(Debug, PartialEq)]
pub(crate) struct Image {
    revision: u64,
    databases: Vec<(u8, ReplyValue)>,
}

impl Image {
    fn of(store: &Store) -> Image {
        let all = Query::prefix(b"", None, u64::MAX, false);
        let of_database = |number| (number, store.query(&all.clone().in_database(number), 0));
        let filled = (0..DATABASES).filter(|number| store.database_len(*number) > 0);
        Image {
            revision: store.revision(),
            databases: filled.map(of_database).collect(),
        }
    }
}

/// A store behind the listener.
#[derive(Clone, Default)]
pub(crate) struct Machine(Arc<Mutex<State>>);

impl Machine {
    /// One whose every write is checked.
    pub(crate) fn checked() -> Machine {
        let machine = Machine::default();
        machine.0.lock().unwrap().is_checked = true;
        machine
    }

    pub(crate) fn image(&self) -> Image {
        Image::of(&self.0.lock().unwrap().store)
    }

    /// Loads the store's snapshot into another store, which must be the same.
    pub(crate) fn check_snapshot(&self) {
        self.0.lock().unwrap().check_snapshot();
    }

    /// The service of a node that has this store.
    pub(crate) fn service(&self) -> Arc<Service<Machine>> {
        let service = Service::new(Duration::from_secs(1));
        service.attach(self.clone());
        Arc::new(service)
    }

    /// Its HTTP API.
    pub(crate) fn api(&self) -> Api<Machine> {
        let settings = ApiSettings {
            name: "n1".to_owned(),
            names: vec!["n1".to_owned()],
            max_value_bytes: MAX_VALUE_BYTES,
            trust: Trust::Everybody,
            metrics_public: false,
            peers_need_tls: false,
            allowed_hosts: Vec::new(),
        };
        Api::new(self.service(), settings)
    }
}

struct State {
    is_checked: bool,
    store: Store,
    last_seq: u64,
    stamp_ms: u64,
}

impl Default for State {
    fn default() -> State {
        let mut store = Store::new();
        let mut open = BatchBuilder::new(1);
        open.system(&SystemOp::OpenSession {
            node: 1,
            boot: 1,
            highest: 1,
        });
        store.apply(SESSION, &open.finish(), &mut Answer(None));
        State {
            is_checked: false,
            store,
            last_seq: 0,
            stamp_ms: 1,
        }
    }
}

impl State {
    fn write(&mut self, command: &Command) -> Reply {
        self.stamp_ms += STEP_MS;
        // What is due goes first, so that only the command itself is held against its reply.
        self.apply(&Command::Noop);
        if !self.is_checked {
            return self.apply(command);
        }
        let before = Image::of(&self.store);
        let reply = self.apply(command);
        let after = Image::of(&self.store);
        if matches!(reply.value, ReplyValue::Error(_)) {
            assert_eq!(before, after, "{command:?} failed and changed something");
        }
        assert!(before.revision <= after.revision, "{command:?}");
        self.check();
        reply
    }

    fn apply(&mut self, command: &Command) -> Reply {
        self.last_seq += 1;
        let seq = self.last_seq;
        let mut batch = BatchBuilder::new(self.stamp_ms);
        batch.group(SESSION, seq, seq - 1, [&command.encode()].into_iter());
        let mut answer = Answer(None);
        self.store
            .apply(SESSION + seq, &batch.finish(), &mut answer);
        answer.0.expect("a command is answered")
    }

    /// Counts, revisions and deadlines agree.
    fn check(&self) {
        let store = &self.store;
        let mut earliest = None;
        let mut count = 0;
        let filled = (0..DATABASES).filter(|number| store.database_len(*number) > 0);
        for number in filled {
            let keys = Query::prefix(b"", None, u64::MAX, true).in_database(number);
            let ReplyValue::Array(parts) = store.query(&keys, 0) else {
                panic!("a range is an array");
            };
            let ReplyValue::Array(keys) = &parts[0] else {
                panic!("its keys are an array");
            };
            let mut deadlines = 0;
            for key in keys {
                let ReplyValue::Bulk(key) = key else {
                    panic!("{key:?} is no key");
                };
                let value = store.get_in(number, key).expect("what is listed is there");
                assert!(key.len() <= MAX_KEY_BYTES);
                assert!(0 < value.create_revision && value.create_revision <= value.mod_revision);
                assert!(value.mod_revision <= store.revision());
                if let Some(deadline) = value.deadline_ms {
                    assert!(deadline > store.stamp_ms(), "{key:?} has expired");
                    deadlines += 1;
                    earliest = earliest.or(Some(deadline)).min(Some(deadline));
                }
            }
            assert_eq!(store.database_len(number), keys.len());
            assert_eq!(store.database_deadlines(number), deadlines);
            count += keys.len();
        }
        assert_eq!(store.len(), count);
        assert_eq!(store.next_deadline(), earliest);
    }

    /// A store that is loaded from a snapshot is this one.
    fn check_snapshot(&mut self) {
        /// So that some images need several blocks.
        const BLOCK_BYTES: usize = 256;
        let head = self.store.begin_snapshot().expect("there is no other");
        let mut loader = Loader::new();
        loader.block(&head.encode()).expect("the head");
        while let Some(image) = self.store.next_shard() {
            image
                .encode_blocks(BLOCK_BYTES, &mut |block: &[u8]| loader.block(block))
                .expect("a block");
        }
        let loaded = loader.finish().expect("a whole snapshot");
        assert_eq!(loaded.digest(), self.store.digest());
    }
}

struct Answer(Option<Reply>);

impl Sink for Answer {
    fn reply(&mut self, _: SessionId, _: u64, reply: &Reply) {
        self.0 = Some(reply.clone());
    }

    fn duplicate(&mut self, _: SessionId, seq: u64, _: Option<&Reply>) {
        panic!("command {seq} was executed before");
    }

    fn rejected(&mut self, _: SessionId, _: u64, _: u64, why: Rejected) {
        panic!("rejected: {why}");
    }

    fn system(&mut self, _: usize, outcome: &SystemOutcome) {
        assert!(matches!(outcome, SystemOutcome::SessionOpened { .. }));
    }

    fn malformed(&mut self, why: &DecodeError) {
        panic!("what a command was encoded as cannot be read: {why}");
    }
}

impl Backend for Machine {
    fn write(
        &self,
        command: Command,
        _: Option<Principal>,
    ) -> impl Future<Output = Result<Reply, RequestError>> + Send {
        let reply = self.0.lock().unwrap().write(&command);
        std::future::ready(Ok(reply))
    }

    async fn read(
        &self,
        _within: Duration,
        _stale: bool,
        mut batch: ReadBatch,
    ) -> Result<ReadBatch, RequestError> {
        let store = &self.0.lock().unwrap().store;
        batch.answer(store, || store.stamp_ms());
        Ok(batch)
    }

    async fn read_all(
        &self,
        _within: Duration,
        _stale: bool,
        queries: Vec<Query>,
        most: usize,
    ) -> Result<Answers, RequestError> {
        let store = &self.0.lock().unwrap().store;
        let mut reading = Reading::new(queries, most);
        while reading.resume(store, None, store.stamp_ms(), 3) != Readings::Done {}
        Ok(Answers {
            users_revision: 0,
            values: reading.into_answers(),
            revision: store.revision(),
        })
    }

    fn users(&self) -> Option<Arc<UserTable>> {
        self.0.lock().unwrap().store.users().cloned()
    }

    fn watch_users(&self) -> watch::Receiver<Option<Arc<UserTable>>> {
        watch::Sender::new(self.users()).subscribe()
    }

    fn log_time_ms(&self) -> u64 {
        self.0.lock().unwrap().store.stamp_ms()
    }

    fn introspect(&self) -> Introspection {
        let status = self.status();
        let store = &self.0.lock().unwrap().store;
        Introspection::of(status, store, store.stamp_ms())
    }

    fn publish(&self, _: &Publication) -> BoxFuture<'static, u64> {
        Box::pin(std::future::ready(0))
    }

    /// Nothing is waited for.
    fn wait_copies(
        &self,
        _: Copies,
        _: Option<Duration>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Copies> + Send>> {
        Box::pin(std::future::ready(Copies::default()))
    }

    fn subscribe(&self, _: Box<dyn Subscribers>) {}

    /// No backup is asked for.
    fn backup(&self) -> BoxFuture<'static, Result<SnapshotReader, RequestError>> {
        Box::pin(std::future::ready(Err(RequestError::Stopping)))
    }

    fn stats(&self) -> NodeStats {
        NodeStats::default()
    }

    fn timeline(&self) -> &Timeline {
        unreachable!("only operators ask")
    }

    fn refuses_growth(&self) -> bool {
        self.0.lock().unwrap().store.memory().refuses_growth()
    }

    fn status(&self) -> NodeStatus {
        let store = &self.0.lock().unwrap().store;
        let name = "n1".to_owned();
        NodeStatus {
            name: name.clone(),
            node_id: 1,
            cluster: None,
            phase: Phase::Serving,
            message: String::new(),
            role: Role::Leader,
            leader: Some(name.clone()),
            term: 1,
            commit_index: store.applied_index(),
            applied_index: store.applied_index(),
            snapshot: None,
            log_segments: 1,
            revision: store.revision(),
            keys: store.len(),
            building_snapshot: false,
            disk_low: false,
            memory: store.memory(),
            memory_low: false,
            level: 1,
            sync: true,
            members: vec![MemberStatus {
                id: 1,
                name,
                addr: "127.0.0.1:11081".to_owned(),
                role: Role::Leader,
                highest_level: 1,
                state: None,
                lag: Some(0),
                answers: Some(true),
            }],
            voters: 1,
            voters_answering: Some(1),
        }
    }

    fn handle(
        &self,
        _: Lane,
        _: Option<&str>,
        request: Bytes,
    ) -> std::pin::Pin<Box<dyn Future<Output = Frame> + Send>> {
        Box::pin(async move { Frame(vec![request]) })
    }
}
