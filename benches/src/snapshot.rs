//! A snapshot of the state machine: photographed and encoded into blocks, and loaded from them.
//! Nothing here touches a disk.

use std::convert::Infallible;
use std::hint::black_box;

use memkv_store::Loader;

use crate::apply::Filled;
use crate::{Piece, Run};

/// Keys in the snapshot.
const KEYS: u64 = 10_000;

/// Bytes of a block: the server's.
const BLOCK_BYTES: usize = 256 << 10;

pub(crate) const PIECES: &[Piece] = &[
    Piece {
        name: "snapshot_encode",
        operations: KEYS,
        prepare: encode,
    },
    Piece {
        name: "snapshot_load",
        operations: KEYS,
        prepare: load,
    },
];

fn encode() -> Run {
    let mut filled = Filled::new(KEYS);
    Box::new(move || {
        black_box(blocks(&mut filled));
    })
}

#[allow(clippy::expect_used, reason = "blocks that were encoded just now")]
fn load() -> Run {
    let blocks = blocks(&mut Filled::new(KEYS));
    Box::new(move || {
        let mut loader = Loader::new();
        for block in &blocks {
            loader.block(block).expect("a block of this store");
        }
        let store = loader.finish_with(&|work| work.into_iter().for_each(|piece| piece()));
        assert_eq!(store.expect("a whole snapshot").len() as u64, KEYS);
    })
}

#[allow(clippy::expect_used, reason = "no other snapshot is being taken")]
fn blocks(filled: &mut Filled) -> Vec<Vec<u8>> {
    let head = filled.store.begin_snapshot().expect("no other snapshot");
    let mut blocks = vec![head.encode()];
    while let Some(shard) = filled.store.next_shard() {
        let mut keep = |block: &[u8]| -> Result<(), Infallible> {
            blocks.push(block.to_vec());
            Ok(())
        };
        let Ok(()) = shard.encode_blocks(BLOCK_BYTES, &mut keep);
    }
    blocks
}
