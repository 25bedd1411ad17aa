//! Golden data directories: what released versions have written, in `tests/golden` of the repository, one for each
//! feature level. Snapshot and log of each must replay to the state that its `state.txt` describes, hash included.
//!
//! A directory is never made again, and neither is the text, but for its line `digest` if `digest.rs` of
//! memkv-store changes: then all else must be as before. `MEMKV_BLESS=1` writes the text of a new directory.

use std::fmt::Write as _;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use memkv_disk::disk::real::RealDisk;
use memkv_disk::disk::{Disk, read_exact_at};
use memkv_disk::{Layout, Options};
use memkv_store::{DATABASES, Query, ReplyValue, Store, Value};
use openraft::EntryPayload;

use super::codec;
use super::state_machine::load_latest;

/// No directory holds as many entries, or as many bytes of them.
const MOST: usize = 100_000;

fn golden() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let names = RealDisk.read_dir(&root).unwrap();
    names.iter().map(|name| root.join(name)).collect()
}

fn read(path: &Path) -> Vec<u8> {
    let file = RealDisk.open(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    read_exact_at(&*file, 0, &mut bytes).unwrap();
    bytes
}

fn write(path: &Path, bytes: &[u8]) {
    let file = RealDisk.create(path).unwrap();
    file.write_at(0, &[IoSlice::new(bytes)]).unwrap();
}

/// A copy of a directory: recovery may write.
fn copied(from: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for part in ["log", "metadata", "snapshot"] {
        let to = copy.path().join(part);
        RealDisk.create_dir_all(&to).unwrap();
        for name in RealDisk.read_dir(&from.join(part)).unwrap() {
            write(&to.join(&name), &read(&from.join(part).join(&name)));
        }
    }
    copy
}

/// The state that snapshot and log of a directory make together.
fn replayed(dir: &Path) -> Store {
    let disk = Arc::new(RealDisk);
    let opened = memkv_disk::open(disk, &Layout::under(dir), Options::default()).unwrap();
    assert_eq!(opened.recovery.torn_tail, None);
    let snapshot = load_latest(&opened.snapshots).unwrap().unwrap();
    let mut store = snapshot.store;
    let next = snapshot.last.index + 1;
    assert!(opened.log.purged().is_none_or(|purged| purged.index < next));
    let end = opened.log.last().unwrap().index + 1;
    assert!(end > next, "its log adds to the snapshot");
    for record in opened.log.read(next..end, u64::MAX, MOST).unwrap() {
        let index = record.id.index;
        match codec::entry(record).unwrap().payload {
            EntryPayload::Normal(batch) => store.apply(index, &batch.0, &mut ()),
            EntryPayload::Blank | EntryPayload::Membership(_) => store.mark_applied(index),
        }
    }
    assert_eq!(store.applied_index() + 1, end);
    store
}

fn keys(store: &Store, database: u8) -> Vec<Bytes> {
    let all = Query::Range {
        start: Bytes::new(),
        end: None,
        limit: MOST as u64,
        keys_only: true,
    };
    let answer = store.query(&all.in_database(database), 0);
    let bulk = |item: &ReplyValue| match item {
        ReplyValue::Bulk(key) => Some(key.clone()),
        _ => None,
    };
    let ReplyValue::Array(parts) = answer else {
        panic!("{answer:?}");
    };
    let keys = parts.iter().find_map(|part| match part {
        ReplyValue::Array(keys) => Some(keys.iter().filter_map(bulk).collect()),
        _ => None,
    });
    keys.unwrap()
}

fn key_line(database: u8, key: &[u8], value: &Value<'_>) -> String {
    let deadline = value
        .deadline_ms
        .map_or("-".to_owned(), |at| at.to_string());
    format!(
        "key {database} {} created {} written {} deadline {deadline} value {}\n",
        key.escape_ascii(),
        value.create_revision,
        value.mod_revision,
        value.value.escape_ascii()
    )
}

/// The state as a text, line by line.
fn described(store: &Store) -> String {
    let mut text = format!(
        "digest {:016x}\nlevel {}\napplied {}\nrevision {}\nlog-time {}\n",
        store.digest(),
        store.member_table().level(),
        store.applied_index(),
        store.revision(),
        store.stamp_ms()
    );
    for member in store.member_table().members() {
        let session = store.session_of_node(member.id);
        writeln!(
            text,
            "member {} {} session {session:?}",
            member.id, member.name
        )
        .unwrap();
    }
    for user in store.users().into_iter().flat_map(|table| table.users()) {
        writeln!(
            text,
            "user {} enabled {} nopass {} secrets {} rules {}",
            user.name.escape_ascii(),
            user.enabled,
            user.nopass,
            user.secrets.len(),
            user.rules.escape_ascii()
        )
        .unwrap();
    }
    for database in 0..DATABASES {
        for key in keys(store, database) {
            let value = store.get_in(database, &key).unwrap();
            text += &key_line(database, &key, &value);
        }
    }
    text
}

#[test]
fn each_golden_directory_replays_to_its_state() {
    let mut levels = 0;
    for dir in golden() {
        let copy = copied(&dir);
        let text = described(&replayed(copy.path()));
        let file = dir.join("state.txt");
        if std::env::var_os("MEMKV_BLESS").is_some() && !file.exists() {
            write(&file, text.as_bytes());
        }
        let golden = String::from_utf8(read(&file)).unwrap();
        let mut lines = golden.lines().zip(text.lines());
        let differs = lines.find(|(golden, found)| golden != found);
        assert_eq!(differs, None, "{}", dir.display());
        assert_eq!(golden, text, "{}", dir.display());
        levels += 1;
    }
    assert!(levels > 0, "no golden directory was found");
}

/// The comparison can fail: another value, deadline or user makes another digest and another text.
#[test]
fn a_state_that_differs_in_one_byte_is_described_otherwise() {
    let dir = golden().remove(0);
    let golden = String::from_utf8(read(&dir.join("state.txt"))).unwrap();
    let copy = copied(&dir);
    let mut store = replayed(copy.path());
    let mut batch = memkv_store::BatchBuilder::new(store.stamp_ms());
    batch.system(&memkv_store::SystemOp::SetCap { bytes: 1 << 30 });
    store.apply(store.applied_index() + 1, &batch.finish(), &mut ());
    let text = described(&store);
    assert_ne!(golden.lines().next(), text.lines().next(), "the digest");
    let snapshots = copy.path().join("snapshot");
    let names = RealDisk.read_dir(&snapshots).unwrap();
    let name = names.iter().find(|name| name.ends_with(".snap")).unwrap();
    let mut bytes = read(&snapshots.join(name));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write(&snapshots.join(name), &bytes);
    let disk = Arc::new(RealDisk);
    let options = Options::default();
    let opened = memkv_disk::open(disk, &Layout::under(copy.path()), options);
    let is_loaded =
        opened.is_ok_and(|opened| matches!(load_latest(&opened.snapshots), Ok(Some(_))));
    assert!(!is_loaded, "a flipped bit is found");
}
