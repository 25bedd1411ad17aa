//! Tests: applying yields to clients that hold the machine, around large commands, and to snapshots
//! between entries only.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use memkv_store::{BatchBuilder, Command, Store};
use openraft::storage::RaftStateMachine;

use super::unreadable::{entry, machine, open};
use crate::replica::Replica;
use crate::write::session::Session;

fn set(key: &str) -> Bytes {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let value = key.clone();
    Command::Set { key, value }.encode()
}

/// More than a piece.
fn large() -> Bytes {
    let key = |n: u32| Bytes::from(n.to_string());
    let pairs = (0..10_000).map(|n| (key(n), key(n))).collect();
    let if_none_exists = false;
    Command::SetMany {
        pairs,
        if_none_exists,
    }
    .encode()
}

fn batch(first_seq: u64, commands: &[Bytes]) -> Bytes {
    let mut batch = BatchBuilder::new(0);
    batch.group(1, first_seq, 0, commands.iter());
    batch.finish()
}

async fn replica() -> (Arc<Replica>, super::state_machine::StateMachine) {
    let replica = Arc::new(Replica::new(Arc::new(Session::new(1, 64 << 20))));
    let mut machine = machine(&replica);
    let opened = futures_util::stream::iter([entry(1, open(1))]);
    machine.apply(opened).await.unwrap();
    (replica, machine)
}

#[tokio::test]
async fn apply_waits_elsewhere_while_a_client_reads() {
    let (replica, mut machine) = replica().await;
    let reading = replica.machine.read();
    let entries = futures_util::stream::iter([entry(2, batch(1, &[set("a")]))]);
    let mut apply = pin!(machine.apply(entries));
    // Waiting for the lock here would be for ever.
    assert!(apply.as_mut().now_or_never().is_none());
    assert_eq!(replica.applied_index(), 1);
    drop(reading);
    apply.await.unwrap();
    assert_eq!(replica.applied_index(), 2);
    assert!(replica.machine.read().store.exists(b"a"));
}

/// The state that a client may see between two pieces.
fn seen(store: &Store) -> [bool; 4] {
    ["a", "0", "9999", "b"].map(|key| store.exists(key.as_bytes()))
}

#[tokio::test]
async fn between_the_pieces_of_an_entry_are_whole_commands_and_no_snapshot_begins() {
    let (replica, mut machine) = replica().await;
    let commands = [set("a"), large(), set("b")];
    let entries = [
        entry(2, batch(1, &commands)),
        entry(3, batch(4, &[set("c")])),
    ];
    let mut apply = pin!(machine.apply(futures_util::stream::iter(entries)));
    let mut within = 0;
    // It gives way after each piece, and most of them are executed elsewhere.
    while apply.as_mut().now_or_never().is_none() {
        // While this is held, no piece is executed.
        let machine = replica.machine.read();
        if !machine.store.is_within_command() {
            continue;
        }
        within += 1;
        assert_eq!(seen(&machine.store), [true, false, false, false]);
        // It may be seen, so it is published; it is not applied yet.
        let published = replica.applied_state().last_applied;
        assert_eq!(published.map(|id| id.index), Some(2));
        assert_eq!(replica.applied_index(), 1);
        // The beginning of a snapshot or a view takes this first.
        assert!(replica.entries.try_lock().is_err());
    }
    assert!(within > 0);
    assert_eq!(seen(&replica.machine.read().store), [true; 4]);
    assert_eq!(replica.applied_index(), 3);
    let _whole = replica.entries.try_lock().unwrap();
    let mut machine = replica.machine.write();
    assert_eq!(machine.store.len(), 10_003);
    let head = machine.store.begin_snapshot().unwrap();
    assert_eq!(head.applied_index(), 3);
}

#[tokio::test]
async fn a_long_entry_is_read_elsewhere() {
    let (replica, mut machine) = replica().await;
    let value = Bytes::from(vec![b'x'; 3 << 20]);
    let set = Command::Set {
        key: "a".into(),
        value,
    };
    let entries = [entry(2, batch(1, &[set.encode()]))];
    let mut apply = pin!(machine.apply(futures_util::stream::iter(entries)));
    assert!(apply.as_mut().now_or_never().is_none());
    assert_eq!(replica.applied_index(), 1);
    apply.await.unwrap();
    assert_eq!(replica.applied_index(), 2);
}
