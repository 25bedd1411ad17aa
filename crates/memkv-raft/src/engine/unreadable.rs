//! What the state machine does at a committed entry that cannot be read.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use memkv_storage::disk::sim::SimDisk;
use memkv_storage::{Layout, Options};
use memkv_store::{BatchBuilder, NoticeClasses, SystemOp};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, entry::RaftEntry};

use super::state_machine::StateMachine;
use super::{Batch, Entry, TypeConfig, codec};
use crate::announce::Announcer;
use crate::clock::LogClock;
use crate::replica::Replica;
use crate::session::Session;
use crate::{Env, FatalError};

pub(super) fn machine(replica: &Arc<Replica>) -> StateMachine {
    let root = Path::new("/node");
    let layout = Layout {
        log: root.join("log"),
        metadata: root.join("metadata"),
        snapshot: root.join("snapshot"),
    };
    let disk = Arc::new(SimDisk::new(1));
    let opened = memkv_storage::open(disk, &layout, Options::default()).unwrap();
    let env = Env::real();
    StateMachine::new(
        replica.clone(),
        opened.snapshots,
        Arc::new(LogClock::resume(env.clone(), None, None)),
        env,
        Arc::default(),
        Announcer {
            publisher: Arc::default(),
            configured: NoticeClasses::default(),
            old_through: 0,
        },
    )
}

pub(super) fn entry(index: u64, batch: Bytes) -> std::io::Result<EntryResponder<TypeConfig>> {
    let id = codec::engine_id(memkv_storage::LogId {
        term: 3,
        leader: 1,
        index,
    });
    Ok((Entry::new(id, EntryPayload::Normal(Batch(batch))), None))
}

pub(super) fn open(boot: u64) -> Bytes {
    let mut batch = BatchBuilder::new(0);
    batch.system(&SystemOp::OpenSession { node: 1, boot });
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
    let replica = Arc::new(Replica::new(Arc::new(Session::new(1))));
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
        let applied = replica.published().last_applied.map(|id| id.index);
        let store = replica.machine.read().store.applied_index();
        (applied, store, replica.applied_index())
    };
    assert_eq!(position(&replica), (Some(5), 5, 5));
    let fatal = replica.unreadable.get().cloned();
    assert!(matches!(
        fatal,
        Some(FatalError::Unreadable { index: 6, .. })
    ));

    let again = machine
        .apply(futures_util::stream::iter([entry(7, open(2))]))
        .await;
    assert_eq!(again.unwrap_err().to_string(), words);
    assert_eq!(position(&replica), (Some(5), 5, 5));
}
