//! Snapshots: one revision however many writes come in between, and a loader that accepts
//! nothing else than a whole one.

use memkv_store::{
    Command, DecodeError, LoadError, Loader, Member, Refusal, SnapshotBusy, SnapshotHead, Store,
    SystemOp, SystemOutcome,
};

use crate::support::{apply, del, encode, group, load, open, set, snapshot, store_with, system};

/// A store of `keys` keys, with sessions that have cached replies.
fn filled(keys: u64) -> Store {
    let commands: Vec<_> = (0..keys).map(|n| set(&n.to_le_bytes(), &[7; 50])).collect();
    let (mut store, s) = store_with(&commands);
    apply(
        &mut store,
        &group(s, keys + 1, keys / 2, &[del(&[b"none"])]),
    );
    let other = open(&mut store, 2, 1);
    apply(&mut store, &group(other, 1, 0, &[set(b"other", b"x")]));
    open(&mut store, 3, 1);
    store
}

#[test]
fn a_loaded_snapshot_is_the_store() {
    let mut store = filled(3000);
    for max in [0, 100, 4096, 1 << 20] {
        let blocks = snapshot(&mut store, max);
        let loaded = load(&blocks).unwrap();
        assert_eq!(loaded.digest(), store.digest());
        assert_eq!(loaded.memory_bytes(), store.memory_bytes());
        assert_eq!(loaded.applied_index(), store.applied_index());
        assert_eq!(loaded.session_of_node(2), store.session_of_node(2));
    }
}

#[test]
fn equal_states_write_equal_bytes() {
    // Of both kinds most shards have several: keys that differ early, and keys that differ late.
    let early = (0..3000u64).map(|n| n.to_le_bytes().to_vec());
    let late = (0..3000u64).map(|n| format!("16 equal bytes, then {n}").into_bytes());
    let commands: Vec<_> = early.chain(late).map(|key| set(&key, b"v")).collect();
    let (mut one, _) = store_with(&commands);
    let mut two = load(&snapshot(&mut one, 200)).unwrap();
    assert_eq!(snapshot(&mut one, 4096), snapshot(&mut two, 4096));
}

#[test]
fn blocks_are_bounded_but_for_one_large_value() {
    let (mut store, s) = store_with(&[set(b"large", &[1; 5000])]);
    let small: Vec<_> = (0..4000u64)
        .map(|n| set(&n.to_le_bytes(), &[2; 60]))
        .collect();
    apply(&mut store, &group(s, 2, 0, &small));
    let blocks = snapshot(&mut store, 256);
    let large = blocks.iter().filter(|block| block.len() > 256).count();
    assert_eq!(large, 1);
    assert_eq!(load(&blocks).unwrap().digest(), store.digest());
}

#[test]
fn writes_go_on_while_a_snapshot_is_taken() {
    for shards_before_writing in [0, 1, 500, 1023, 1024] {
        let mut store = filled(2000);
        let s = store.session_of_node(1).unwrap();
        let digest = store.digest();
        let head = store.begin_snapshot().unwrap();
        let replies = 2;
        let mut images: Vec<_> = (0..shards_before_writing + replies)
            .map(|_| store.next_shard().unwrap())
            .collect();
        let key = |n: u64| n.to_le_bytes();
        let mut writes: Vec<_> = (0..1000).map(|n| set(&key(n), b"changed")).collect();
        writes.extend((500..1500).map(|n| del(&[&key(n)])));
        writes.extend((900..1100).map(|n| set(&key(n), b"again")));
        writes.extend((5000..6000).map(|n| set(&key(n), b"new")));
        let first = store.session(s).unwrap().last_seq() + 1;
        apply(&mut store, &group(s, first, first - 1, &writes));
        images.extend(std::iter::from_fn(|| store.next_shard()));
        assert_eq!(images.len(), 1024 + replies);
        assert_eq!(
            load(&encode(&head, &images, 1000)).unwrap().digest(),
            digest
        );
        assert_ne!(store.digest(), digest);
    }
}

#[test]
fn entries_saved_for_a_snapshot_are_released() {
    for finish in [true, false] {
        let (mut store, s) = store_with(&[set(b"k", &[1; 100_000])]);
        let before = store.memory_bytes();
        store.begin_snapshot().unwrap();
        apply(&mut store, &group(s, 2, 1, &[set(b"k", &[2; 100_000])]));
        apply(&mut store, &group(s, 3, 2, &[set(b"k", &[3; 100_000])]));
        let during = store.memory_bytes();
        assert!(
            (before + 100_000..before + 101_000).contains(&during),
            "saved once: {during}"
        );
        if finish {
            // One piece of cached replies, then the shards: with the last one all is released.
            (0..=1024).for_each(|_| drop(store.next_shard()));
            assert_eq!(store.memory_bytes(), before);
        } else {
            store.abort_snapshot();
        }
        assert_eq!(store.memory_bytes(), before);
        assert!(store.next_shard().is_none());
    }
}

#[test]
fn one_snapshot_at_a_time() {
    let mut store = filled(10);
    assert!(store.next_shard().is_none());
    store.begin_snapshot().unwrap();
    assert_eq!(store.begin_snapshot().map(drop), Err(SnapshotBusy));
    store.abort_snapshot();
    store.abort_snapshot();
    let blocks = snapshot(&mut store, 1000);
    assert_eq!(load(&blocks).unwrap().digest(), store.digest());
}

#[test]
fn the_head_says_where_the_snapshot_was_taken() {
    let mut store = filled(10);
    let head = store.begin_snapshot().unwrap();
    let read = SnapshotHead::decode(&head.encode()).unwrap();
    assert_eq!(read, head);
    assert_eq!(
        (read.revision(), read.keys()),
        (store.revision(), store.len() as u64)
    );
    assert_eq!(read.applied_index(), store.applied_index());
    assert_eq!(read.member_table(), store.member_table());
}

#[test]
fn a_missing_repeated_or_displaced_block_is_noticed() {
    let mut store = filled(2000);
    let blocks = snapshot(&mut store, 100);
    assert!(blocks.len() > 1100, "shards and replies have several parts");
    let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
    for at in (0..blocks.len())
        .step_by(61)
        .chain(0..30)
        .chain([blocks.len() - 1])
    {
        let mut missing = blocks.clone();
        missing.remove(at);
        assert!(
            matches!(load(&missing), Err(LoadError::OutOfOrder { .. })),
            "without {at}"
        );
        let mut repeated = blocks.clone();
        repeated.insert(at, blocks[at]);
        assert!(
            matches!(load(&repeated), Err(LoadError::OutOfOrder { .. })),
            "{at} twice"
        );
        let mut swapped = blocks.clone();
        swapped.swap(at, (at + 1) % blocks.len());
        assert!(
            matches!(load(&swapped), Err(LoadError::OutOfOrder { .. })),
            "{at} swapped"
        );
    }
    assert!(matches!(
        Loader::new().finish(),
        Err(LoadError::OutOfOrder { .. })
    ));
}

#[test]
fn blocks_of_different_snapshots_do_not_mix() {
    let mut store = filled(2000);
    let s = store.session_of_node(1).unwrap();
    // So that both snapshots have a table of deletes.
    apply(
        &mut store,
        &group(s, 2002, 2001, &[del(&[&0u64.to_le_bytes()])]),
    );
    let before = snapshot(&mut store, 1 << 20);
    apply(&mut store, &group(s, 2003, 2001, &[set(b"one more", b"x")]));
    apply(
        &mut store,
        &group(s, 2004, 2001, &[del(&[b"one more", b"other"])]),
    );
    let after = snapshot(&mut store, 1 << 20);
    assert_eq!(before.len(), after.len());
    let changed: Vec<_> = (0..before.len())
        .filter(|at| before[*at] != after[*at])
        .collect();
    for at in changed {
        let mut mixed = before.clone();
        mixed[at] = after[at].clone();
        assert!(load(&mixed).is_err(), "block {at}");
    }
}

#[test]
fn damaged_blocks_are_errors_or_other_states_but_never_panics() {
    let (mut store, _) = store_with(&[set(b"key", b"value"), del(&[b"x"])]);
    let blocks = snapshot(&mut store, 1000);
    let filled = blocks.iter().filter(|block| block.len() > 6);
    let all = |store: &Store| (store.digest(), store.effects(), store.applied_index());
    let state = all(&store);
    let interesting: Vec<_> = filled.map(Vec::as_slice).collect();
    assert!(interesting.len() >= 3, "head, replies, and the key's shard");
    for (at, block) in blocks
        .iter()
        .enumerate()
        .filter(|(_, b)| interesting.contains(&&b[..]))
    {
        let mut damaged = blocks.clone();
        for len in 0..block.len() {
            damaged[at] = block[..len].to_vec();
            assert!(load(&damaged).is_err(), "block {at} cut at {len}");
        }
        for byte in 0..block.len() {
            for bit in 0..8 {
                damaged[at] = block.clone();
                damaged[at][byte] ^= 1 << bit;
                if let Ok(loaded) = load(&damaged) {
                    assert_ne!(all(&loaded), state, "block {at}, byte {byte}");
                }
            }
        }
        damaged[at] = [&block[..], &[0]].concat();
        assert!(load(&damaged).is_err(), "block {at} with a byte more");
    }
}

/// A cluster of one node with this UUID, and a hundred keys.
fn formed(cluster: [u8; 16]) -> Store {
    let mut store = Store::new();
    let member = Member {
        id: 1,
        name: "a".to_owned(),
        addr: "a:1".to_owned(),
        pending: false,
    };
    let form = SystemOp::Form {
        cluster,
        durability_sync: false,
        level: 1,
        members: vec![member],
        users: vec![],
    };
    apply(&mut store, &system(&[form]));
    let s = open(&mut store, 1, 1);
    let keys: Vec<_> = (0..100u64).map(|n| set(&n.to_le_bytes(), b"x")).collect();
    apply(&mut store, &group(s, 1, 0, &keys));
    store
}

/// Where the head has the seed: behind kind, version and level.
const SEED: std::ops::Range<usize> = 3..11;

#[test]
fn a_snapshot_whose_seed_is_not_that_of_its_uuid_loads_and_answers() {
    let mut blocks = snapshot(&mut formed([5; 16]), 1000);
    let seed = xxhash_rust::xxh3::xxh3_64(&[5; 16]);
    assert_eq!(blocks[0][SEED], seed.to_le_bytes());
    let mut uuids = blocks[0].windows(16);
    let at = uuids.position(|bytes| bytes == [5; 16]).unwrap();
    blocks[0][at..at + 16].fill(6);
    let mut restored = load(&blocks).unwrap();
    assert_eq!(restored.member_table().cluster(), Some([6; 16]));
    assert!((0..100u64).all(|n| restored.exists(&n.to_le_bytes())));
    // The same shards in the same order, with any UUID.
    assert_eq!(snapshot(&mut restored, 1000), blocks);
    let s = restored.session_of_node(1).unwrap();
    apply(
        &mut restored,
        &group(s, 101, 0, &[del(&[&7u64.to_le_bytes()])]),
    );
    assert!(!restored.exists(&7u64.to_le_bytes()));
    let again = load(&snapshot(&mut restored, 1000)).unwrap();
    assert_eq!(again.digest(), restored.digest());
    assert_eq!(again.effects(), restored.effects());
}

#[test]
fn every_flipped_bit_of_the_seed_is_noticed() {
    let blocks = snapshot(&mut formed([5; 16]), 1000);
    for bit in SEED.start * 8..SEED.end * 8 {
        let mut damaged = blocks.clone();
        damaged[0][bit / 8] ^= 1 << (bit % 8);
        let misplaced = matches!(load(&damaged), Err(LoadError::Misplaced { .. }));
        assert!(misplaced, "bit {bit}");
    }
}

#[test]
fn a_snapshot_without_a_seed_takes_that_of_its_uuid() {
    let mut store = formed([5; 16]);
    let mut blocks = snapshot(&mut store, 1000);
    blocks[0].drain(SEED);
    blocks[0][1] = 5;
    let loaded = load(&blocks).unwrap();
    assert_eq!(loaded.digest(), store.digest());
    assert!((0..100u64).all(|n| loaded.exists(&n.to_le_bytes())));
}

#[test]
fn a_formed_cluster_comes_back_with_its_seed_and_its_used_ids() {
    let member = |id, name: &str| Member {
        id,
        name: name.to_owned(),
        addr: format!("{name}:1"),
        pending: false,
    };
    let members = vec![member(1, "a"), member(2, "b")];
    let form = SystemOp::Form {
        cluster: [5; 16],
        durability_sync: false,
        level: 1,
        members,
        users: vec![],
    };
    let admit = |name: &str| SystemOp::AdmitNode {
        name: name.to_owned(),
        addr: "new:1".to_owned(),
        nonce: 3,
        highest: 1,
    };
    let mut store = Store::new();
    apply(&mut store, &system(&[form]));
    store.mark_applied(9);
    apply(&mut store, &system(&[admit("c")]));
    apply(&mut store, &system(&[admit("d")]));
    apply(&mut store, &system(&[SystemOp::RemoveNode { node: 11 }]));
    let s = open(&mut store, 10, 1);
    let keys: Vec<_> = (0..100u64).map(|n| set(&n.to_le_bytes(), b"x")).collect();
    apply(&mut store, &group(s, 1, 0, &keys));
    let loaded = load(&snapshot(&mut store, 1000)).unwrap();
    assert_eq!(loaded.digest(), store.digest());
    assert_eq!(loaded.member_table(), store.member_table());
    assert!((0..100u64).all(|n| loaded.exists(&n.to_le_bytes())));
}

#[test]
fn an_entry_from_after_the_snapshot_is_noticed() {
    let (mut store, s) = store_with(&[set(b"k", b"1")]);
    let mut blocks = snapshot(&mut store, 1000);
    apply(&mut store, &group(s, 2, 1, &[set(b"k", b"2")]));
    let later = snapshot(&mut store, 1000);
    let at = blocks.len() - 1 - differs_at(&blocks, &later);
    blocks[at] = later[at].clone();
    assert!(matches!(
        load(&blocks),
        Err(LoadError::FromTheFuture {
            found: 2,
            revision: 1,
            ..
        })
    ));
}

/// How far from the end the last block is that differs.
fn differs_at(one: &[Vec<u8>], two: &[Vec<u8>]) -> usize {
    let mut pairs = one.iter().rev().zip(two.iter().rev());
    pairs
        .position(|(one, two)| one != two)
        .expect("they differ")
}

#[test]
fn replies_that_the_head_does_not_announce_are_noticed() {
    let noops = |count| vec![Command::Noop.encode(); count];
    let (mut store, s) = store_with(&noops(5));
    let mut blocks = snapshot(&mut store, 1000);
    apply(&mut store, &group(s, 6, 0, &noops(3)));
    let mut later = snapshot(&mut store, 1000);
    std::mem::swap(&mut blocks[1], &mut later[1]);
    let count = |announced, found| LoadError::Count {
        what: "cached replies",
        announced,
        found,
    };
    assert_eq!(load(&blocks).map(drop), Err(count(5, 8)));
    assert_eq!(load(&later).map(drop), Err(count(8, 5)));
}

#[test]
fn a_key_in_the_wrong_shard_is_noticed() {
    let mut store = filled(3000);
    let mut blocks = snapshot(&mut store, 1 << 20);
    // A block is its kind, its shard (one byte while small), part, last and count, then entries.
    let holds_keys = |block: &Vec<u8>| block[0] == 3 && block[1] < 0x80 && block[4] > 0;
    let neighbours = |pair: &[Vec<u8>]| pair.iter().all(holds_keys);
    let first = blocks.windows(2).position(neighbours).unwrap();
    let shard = blocks[first][1];
    blocks.swap(first, first + 1);
    (blocks[first][1], blocks[first + 1][1]) = (shard, shard + 1);
    let misplaced = LoadError::Misplaced {
        shard: shard.into(),
    };
    assert_eq!(load(&blocks).map(drop), Err(misplaced));
}

#[test]
fn a_snapshot_of_another_version_says_so() {
    let mut blocks = snapshot(&mut Store::new(), 1000);
    blocks[0][1] = 7;
    let version = DecodeError::Version {
        what: "snapshot",
        found: 7,
        supported: 6,
    };
    assert_eq!(load(&blocks).map(drop), Err(LoadError::Decode(version)));
}

/// A snapshot as the first version wrote it: no databases, deadlines or deletes.
fn first_version(keys: &[(&[u8], &[u8])]) -> Vec<Vec<u8>> {
    let count = u8::try_from(keys.len()).expect("few keys");
    // Head, version, revision, stamp, index, keys, no table, no sessions.
    let mut blocks = vec![vec![1, 1, 100, 7, 42, count, 0, 0]];
    for shard in 0..1024u64 {
        let mut inside = keys.iter().filter(|(key, _)| shard_of(key) == shard);
        let entry = inside.next();
        assert!(inside.next().is_none(), "one key a shard");
        let low = (shard & 0x7f) as u8;
        let shard = match shard {
            0..128 => vec![low],
            _ => vec![low | 0x80, (shard >> 7) as u8],
        };
        // Entries, shard, part, last, count.
        let mut block = [&[3], &shard[..], &[0, 1, u8::from(entry.is_some())]].concat();
        if let Some((key, value)) = entry {
            // Lengths, creation, how much later the modification was.
            block.extend([key.len() as u8, value.len() as u8, 5, 6]);
            block.extend([*key, *value].concat());
        }
        blocks.push(block);
    }
    blocks
}

/// The shard of a key up to version 3.
fn shard_of(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(key, 0) >> 54
}

#[test]
fn a_snapshot_of_the_first_version_still_loads() {
    let store = load(&first_version(&[(b"a", b"1"), (b"key", b"value")])).unwrap();
    let found = store.get(b"key").unwrap();
    let revisions = (found.create_revision, found.mod_revision);
    assert_eq!(
        (found.value, revisions, found.deadline_ms),
        (&b"value"[..], (5, 11), None)
    );
    assert_eq!((store.len(), store.revision()), (2, 100));
    assert_eq!((store.stamp_ms(), store.applied_index()), (7, 42));
    let mut again = load(&snapshot(&mut load(&first_version(&[])).unwrap(), 100)).unwrap();
    assert!(again.is_empty() && again.begin_snapshot().is_ok());
    // Its beginning is not known, and no number may stand for that, here or on.
    assert_eq!((store.effects(), again.effects()), (None, None));
    open(&mut again, 1, 1);
    assert_eq!(again.effects(), None);
}

#[test]
fn deadlines_databases_and_deletes_come_back() {
    let (mut store, s) = store_with(&[]);
    let with_deadline = |n: u64| Command::SetWith {
        key: n.to_le_bytes().to_vec().into(),
        value: "v".into(),
        condition: memkv_store::SetIf::Always,
        expiry: memkv_store::Expiry::At {
            ms: 1000 + n as i64,
        },
        get: false,
    };
    let commands: Vec<_> = (0..500)
        .map(|n| with_deadline(n).in_database((n % 16) as u8).encode())
        .chain((0..100u64).map(|n| del(&[&(n * 16).to_le_bytes()])))
        .chain([Command::FlushDatabase.in_database(3).encode()])
        .collect();
    apply(&mut store, &group(s, 1, 0, &commands));
    let loaded = load(&snapshot(&mut store, 100)).unwrap();
    assert_eq!(loaded.digest(), store.digest());
    assert_eq!(loaded.next_deadline(), Some(1001));
    assert_eq!(loaded.memory_bytes(), store.memory_bytes());
    assert_eq!(loaded.database_deadlines(15), store.database_deadlines(15));
    apply(
        &mut store,
        &group(
            s,
            602,
            601,
            &[Command::Persist {
                key: vec![241, 0, 0, 0, 0, 0, 0, 0].into(),
            }
            .in_database(1)
            .encode()],
        ),
    );
    assert_ne!(loaded.digest(), store.digest(), "a deadline counts");
}

#[test]
fn the_feature_level_and_the_announced_levels_come_back() {
    let member = |id| Member {
        id,
        name: format!("n{id}"),
        addr: format!("n{id}:1"),
        pending: false,
    };
    let open = |node, highest| SystemOp::OpenSession {
        node,
        boot: 7,
        highest,
    };
    let mut store = Store::new();
    let form = SystemOp::Form {
        cluster: [5; 16],
        durability_sync: true,
        level: 2,
        members: vec![member(1), member(2), member(3)],
        users: vec![],
    };
    apply(&mut store, &system(&[form]));
    let too_old = crate::support::Event::System(
        0,
        SystemOutcome::Refused {
            why: Refusal::TooOld {
                level: 2,
                highest: 1,
            },
        },
    );
    assert_eq!(apply(&mut store, &system(&[open(2, 1)])), [too_old]);
    for node in [1, 2] {
        apply(&mut store, &system(&[open(node, 3)]));
    }
    let load = |store: &mut Store| load(&snapshot(store, 1000)).unwrap();
    let loaded = load(&mut store);
    assert_eq!(
        (loaded.member_table(), loaded.member_table().level()),
        (store.member_table(), 2)
    );
    assert_eq!(loaded.member_table().advertised(3), None);
    let raise = SystemOp::RaiseLevel {
        to: 3,
        ids: vec![1, 2, 3],
    };
    apply(&mut store, &system(&[open(3, 3)]));
    let done = crate::support::Event::System(0, SystemOutcome::Done);
    assert_eq!(apply(&mut store, &system(&[raise])), [done]);
    assert_ne!(loaded.digest(), store.digest(), "the level counts");
    assert_eq!(load(&mut store).member_table().level(), 3);
}
