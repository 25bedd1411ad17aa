//! Shared by the tests: a sink that records, short ways to build commands and batches, and the
//! way of a snapshot from one store into another.

use bytes::Bytes;
use memkv_store::{
    BatchBuilder, Command, DecodeError, LoadError, Loader, Rejected, Reply, SessionId, ShardImage,
    Sink, SnapshotHead, Store, SystemOp, SystemOutcome,
};

/// An effect that a sink has received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Reply(SessionId, u64, Reply),
    Duplicate(SessionId, u64, Option<Reply>),
    Rejected(SessionId, u64, u64, Rejected),
    System(usize, SystemOutcome),
    Malformed,
}

#[derive(Debug, Default)]
pub(crate) struct Recorder(pub(crate) Vec<Event>);

impl Sink for Recorder {
    fn reply(&mut self, session: SessionId, seq: u64, reply: &Reply) {
        self.0.push(Event::Reply(session, seq, reply.clone()));
    }
    fn duplicate(&mut self, session: SessionId, seq: u64, reply: Option<&Reply>) {
        self.0.push(Event::Duplicate(session, seq, reply.cloned()));
    }
    fn rejected(&mut self, session: SessionId, first_seq: u64, count: u64, why: Rejected) {
        self.0.push(Event::Rejected(session, first_seq, count, why));
    }
    fn system(&mut self, ordinal: usize, outcome: &SystemOutcome) {
        self.0.push(Event::System(ordinal, outcome.clone()));
    }
    fn malformed(&mut self, _: &DecodeError) {
        self.0.push(Event::Malformed);
    }
}

/// Applies a batch as the next entry and returns the effects.
pub(crate) fn apply(store: &mut Store, batch: &Bytes) -> Vec<Event> {
    let mut recorder = Recorder::default();
    store.apply(store.applied_index() + 1, batch, &mut recorder);
    recorder.0
}

pub(crate) fn set(key: &[u8], value: &[u8]) -> Bytes {
    let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
    Command::Set { key, value }.encode()
}

pub(crate) fn del(keys: &[&[u8]]) -> Bytes {
    let keys = keys.iter().map(|key| Bytes::copy_from_slice(key)).collect();
    Command::Del { keys }.encode()
}

/// A batch of one group.
pub(crate) fn group(session: SessionId, first_seq: u64, acked: u64, commands: &[Bytes]) -> Bytes {
    let mut builder = BatchBuilder::new(0);
    builder.group(session, first_seq, acked, commands.iter());
    builder.finish()
}

/// A batch of system operations.
pub(crate) fn system(ops: &[SystemOp]) -> Bytes {
    let mut builder = BatchBuilder::new(0);
    ops.iter().for_each(|op| builder.system(op));
    builder.finish()
}

/// Opens a session for `node` and returns its id.
pub(crate) fn open(store: &mut Store, node: u64, boot: u64) -> SessionId {
    let events = apply(
        store,
        &system(&[SystemOp::OpenSession {
            node,
            boot,
            highest: memkv_store::HIGHEST_LEVEL,
        }]),
    );
    let [Event::System(0, SystemOutcome::SessionOpened { id })] = events[..] else {
        panic!("no session: {events:?}");
    };
    id
}

/// A store with a session that sends `commands` in one group.
pub(crate) fn store_with(commands: &[Bytes]) -> (Store, SessionId) {
    let mut store = Store::new();
    let session = open(&mut store, 1, 1);
    apply(&mut store, &group(session, 1, 0, commands));
    (store, session)
}

/// The blocks of a finished snapshot.
pub(crate) fn encode(head: &SnapshotHead, images: &[ShardImage], max: usize) -> Vec<Vec<u8>> {
    let mut blocks = vec![head.encode()];
    let mut keep = |block: &[u8]| -> Result<(), ()> {
        blocks.push(block.to_vec());
        Ok(())
    };
    for image in images {
        image
            .encode_blocks(max, &mut keep)
            .expect("keeping does not fail");
    }
    blocks
}

/// A whole snapshot of the store as it is.
pub(crate) fn snapshot(store: &mut Store, max: usize) -> Vec<Vec<u8>> {
    let head = store.begin_snapshot().expect("no other snapshot");
    let images: Vec<_> = std::iter::from_fn(|| store.next_shard()).collect();
    encode(&head, &images, max)
}

pub(crate) fn load<B: AsRef<[u8]>>(blocks: &[B]) -> Result<Store, LoadError> {
    let mut loader = Loader::new();
    for block in blocks {
        loader.block(block.as_ref())?;
    }
    loader.finish()
}
