//! Reads a snapshot into a store, with as many threads as help.
//!
//! The caller's thread reads and verifies blocks, a second one puts them in; then all processors
//! share the index. The result does not depend on which thread is faster: the file is read to its end or to its first
//! damage, whatever happens to the blocks, and the store is the same.

use std::io;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use crate::sync::lock::Mutex;
use memkv_disk::SnapshotReader;
use memkv_store::{LoadError, Loader, Store, Work};

/// Blocks that are read and not yet put in. One may be as large as the largest value.
const BLOCKS_AHEAD: usize = 4;

pub(super) fn load(mut reader: SnapshotReader) -> io::Result<Store> {
    thread::scope(|scope| {
        let (sender, blocks) = sync_channel(BLOCKS_AHEAD);
        let loading = scope.spawn(move || put_in(&blocks));
        let mut read = || {
            while let Some(block) = reader.next_block()? {
                // The loader takes every block.
                let _ = sender.send(block);
            }
            Ok::<_, io::Error>(())
        };
        let read = read();
        drop(sender);
        let loaded = loading
            .join()
            .map_err(|_| io::Error::other("the thread that loads the snapshot panicked"))?;
        read?;
        loaded
            .and_then(|loader| loader.finish_with(&run))
            .map_err(io::Error::other)
    })
}

/// Takes every block, also those after one that does not fit.
fn put_in(blocks: &Receiver<Vec<u8>>) -> Result<Loader, LoadError> {
    let mut loader = Loader::new();
    let mut result = Ok(());
    for block in blocks {
        result = result.and_then(|()| loader.block(&block));
        #[cfg(memkv_bugs)]
        memkv_disk::bugs::pass(memkv_disk::bugs::PanicPoint::Loading);
    }
    result.map(|()| loader)
}

/// Runs pieces of work on all processors.
fn run(work: Vec<Work<'_>>) {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(work.len());
    let work = Mutex::new(work);
    let take = || work.lock().pop();
    let work_off = || {
        while let Some(piece) = take() {
            piece();
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work_off);
        }
        work_off();
    });
}
