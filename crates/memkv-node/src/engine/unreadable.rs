//! Tests of the state machine at a committed entry that cannot be read, after an entry that raises the
//! feature level above what the build knows, and once its store is known to be wrong.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use memkv_disk::disk::sim::SimDisk;
use memkv_disk::{Layout, Options};
use memkv_store::{BatchBuilder, Command, HIGHEST_LEVEL, KeyEventClasses, SystemOp};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, entry::RaftEntry};

use super::state_machine::StateMachine;
use super::{Batch, Entry, TypeConfig, codec};
use crate::peer::fake::form;
use crate::pubsub::announce::Announcer;
use crate::replica::Replica;
use crate::time::log_clock::LogClock;
use crate::write::session::Session;
use crate::{Env, FatalError, TooOld};

pub(super) fn machine(replica: &Arc<Replica>) -> StateMachine {
    let root = Path::new("/node");
    let layout = Layout {
        log: root.join("log"),
        metadata: root.join("metadata"),
        snapshot: root.join("snapshot"),
    };
    let disk = Arc::new(SimDisk::new(1));
    let opened = memkv_disk::open(disk, &layout, Options::default()).unwrap();
    let env = Env::real();
    StateMachine::new(
        replica.clone(),
        opened.snapshots,
        Arc::new(LogClock::resume(env.clone(), None, None)),
        env,
        Arc::default(),
        Announcer {
            publisher: Arc::default(),
            configured: KeyEventClasses::default(),
            old_through: 0,
        },
        HIGHEST_LEVEL,
    )
}

pub(super) fn entry(index: u64, batch: Bytes) -> std::io::Result<EntryResponder<TypeConfig>> {
    let id = codec::engine_id(memkv_disk::LogId {
        term: 3,
        leader: 1,
        index,
    });
    Ok((Entry::new(id, EntryPayload::Normal(Batch(batch))), None))
}

pub(super) fn open(boot: u64) -> Bytes {
    let mut batch = BatchBuilder::new(0);
    batch.system(&SystemOp::OpenSession {
        node: 1,
        boot,
        highest: 1,
    });
    batch.finish()
}

/// A group with one command that no version has had.
fn unknown_opcode() -> Bytes {
    let mut batch = BatchBuilder::new(0);
    batch.group(5, 1, 0, [Bytes::from_static(b"\xee")].iter());
    batch.finish()
}

#[tokio::test]
async fn nothing_is_applied_from_an_entry_on_that_cannot_be_read() {
    let replica = Arc::new(Replica::new(Arc::new(Session::new(1, 64 << 20))));
    let mut machine = machine(&replica);
    let entries = [
        entry(5, open(1)),
        entry(6, unknown_opcode()),
        entry(7, open(2)),
    ];
    let stopped = machine.apply(futures_util::stream::iter(entries)).await;
    let words = stopped.unwrap_err().to_string();
    for part in ["log entry 6 of term 3", "command", "newer version"] {
        assert!(words.contains(part), "{words}");
    }
    let position = |replica: &Replica| {
        let applied = replica.applied_state().last_applied.map(|id| id.index);
        let store = replica.machine.read().store.applied_index();
        (applied, store, replica.applied_index())
    };
    assert_eq!(position(&replica), (Some(5), 5, 5));
    let fatal = replica.halted().cloned();
    assert!(matches!(
        fatal,
        Some(FatalError::Unreadable { index: 6, .. })
    ));
    // The engine that ends of it may say so before it has started, in words around these.
    let around = FatalError::Engine(format!("did not start: {words}"));
    assert_eq!(replica.why_ended(around), fatal);

    let again = machine
        .apply(futures_util::stream::iter([entry(7, open(2))]))
        .await;
    assert_eq!(again.unwrap_err().to_string(), words);
    assert_eq!(position(&replica), (Some(5), 5, 5));
}

/// More than one piece of work.
fn long(first_seq: u64) -> Bytes {
    let set = |n: u64| {
        let key = Bytes::from(n.to_string());
        let value = Bytes::from(vec![b'v'; 4096]);
        Command::Set { key, value }.encode()
    };
    let commands: Vec<Bytes> = (0..4_000).map(set).collect();
    let mut batch = BatchBuilder::new(0);
    batch.group(5, first_seq, 0, commands.iter());
    batch.finish()
}

#[tokio::test]
async fn an_entry_that_comes_in_pieces_is_applied_whole_before_the_next_that_cannot_be_read() {
    let replica = Arc::new(Replica::new(Arc::new(Session::new(1, 64 << 20))));
    let mut machine = machine(&replica);
    let entries = [
        entry(5, open(1)),
        entry(6, long(1)),
        entry(7, unknown_opcode()),
        entry(8, long(4_001)),
    ];
    let mut apply = std::pin::pin!(machine.apply(futures_util::stream::iter(entries)));
    let mut pieces = 0;
    let words = std::future::poll_fn(|context| {
        pieces += 1;
        apply.as_mut().poll(context)
    })
    .await
    .unwrap_err()
    .to_string();
    assert!(pieces > 1, "the long one came in one piece");
    assert!(words.contains("log entry 7 of term 3"), "{words}");
    let machine = replica.machine.read();
    assert_eq!(
        (replica.applied_index(), machine.store.applied_index()),
        (6, 6)
    );
    assert_eq!(
        (machine.store.len(), machine.store.is_within_entry()),
        (4_000, false)
    );
}

fn formed() -> Bytes {
    let mut batch = BatchBuilder::new(0);
    batch.system(&form(1));
    batch.system(&SystemOp::OpenSession {
        node: 1,
        boot: 1,
        highest: HIGHEST_LEVEL + 1,
    });
    batch.finish()
}

fn raise(ids: Vec<u64>) -> Bytes {
    let mut batch = BatchBuilder::new(0);
    let to = HIGHEST_LEVEL + 1;
    batch.system(&SystemOp::RaiseLevel { to, ids });
    batch.finish()
}

#[tokio::test]
async fn nothing_is_applied_after_a_raise_above_what_the_build_knows() {
    let replica = Arc::new(Replica::new(Arc::new(Session::new(1, 64 << 20))));
    let mut machine = machine(&replica);
    let entries = [
        entry(5, formed()),
        // It is refused, so it raises nothing and stops no node.
        entry(6, raise(vec![1, 2])),
        entry(7, raise(vec![1])),
        entry(8, open(2)),
    ];
    let stopped = machine.apply(futures_util::stream::iter(entries)).await;
    let too_old = TooOld {
        level: HIGHEST_LEVEL + 1,
        highest: HIGHEST_LEVEL,
    };
    assert_eq!(stopped.unwrap_err().to_string(), too_old.to_string());
    assert_eq!(replica.applied_index(), 7);
    assert_eq!(replica.machine.read().store.applied_index(), 7);
    assert_eq!(replica.halted(), Some(&FatalError::TooOld(too_old)));
}

#[tokio::test]
async fn a_store_that_is_known_to_be_wrong_applies_and_reads_nothing_more() {
    let replica = Arc::new(Replica::new(Arc::new(Session::new(1, 64 << 20))));
    let mut machine = machine(&replica);
    let before = machine
        .apply(futures_util::stream::iter([entry(5, open(1))]))
        .await;
    before.unwrap();
    assert_eq!(replica.check_reads(), Ok(()));
    let newest = replica.checkpoints.newest();
    assert_eq!(newest.map(|at| at.index), Some(5));
    assert!(replica.halt(FatalError::Diverged("it is wrong".to_owned())));
    let after = machine
        .apply(futures_util::stream::iter([entry(6, open(2))]))
        .await;
    assert!(after.unwrap_err().to_string().contains("it is wrong"));
    assert_eq!(replica.machine.read().store.applied_index(), 5);
    assert_eq!(replica.checkpoints.newest(), newest);
    assert_eq!(replica.check_reads(), Err(crate::RequestError::Stopping));
    let again = FatalError::Diverged("for another reason".to_owned());
    assert!(!replica.halt(again), "the first reason stays");
}
