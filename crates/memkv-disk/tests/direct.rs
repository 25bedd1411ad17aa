//! Direct writes on the real file system: reads through the cache return the bytes written past it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use memkv_disk::disk::real::RealDisk;
use memkv_disk::disk::{DirectWriter, Disk, DiskFile};

const BLOCK: usize = 4096;

/// A file, its content, and the end of its records.
struct Log {
    file: Arc<dyn DiskFile>,
    direct: Box<dyn DirectWriter>,
    model: Vec<u8>,
    end: usize,
}

impl Log {
    /// A file of so many bytes of 0xee, in a directory that is on a disk: not all systems have a
    /// `/tmp` that takes direct writes.
    fn new(len: usize, end: usize) -> (Log, tempfile::TempDir) {
        let dir = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
        let file = RealDisk.create(&dir.path().join("log")).unwrap();
        let model = vec![0xee; len];
        file.write_at(0, &[IoSlice::new(&model)]).unwrap();
        file.sync_data().unwrap();
        let direct = file
            .direct()
            .expect("the build directory takes direct writes");
        let log = Log {
            file,
            direct,
            model,
            end,
        };
        (log, dir)
    }

    fn append(&mut self, parts: &[&[u8]]) {
        let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        self.direct.write(self.end as u64, &slices).unwrap();
        let bytes = parts.concat();
        self.put(self.end, &bytes);
        self.end += bytes.len();
        self.zero(self.end, self.end.next_multiple_of(BLOCK));
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        self.model.resize(self.model.len().max(end), 0);
        self.model[at..end].copy_from_slice(bytes);
    }

    fn zero(&mut self, from: usize, to: usize) {
        self.put(from, &vec![0; to.saturating_sub(from)]);
    }

    fn check(&self) {
        let mut seen = vec![0; self.model.len() + 1];
        let read = self.file.read_at(0, &mut seen).unwrap();
        let differs = self.model.iter().zip(&seen).position(|(a, b)| a != b);
        assert_eq!((read, differs), (self.model.len(), None));
    }
}

/// Bytes that tell where they belong.
fn bytes(len: usize, salt: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at * 31 + salt * 7 + at / 251) as u8)
        .collect()
}

#[test]
fn records_of_all_lengths_follow_each_other_and_nothing_else_changes() {
    let (mut log, _dir) = Log::new(3 << 20, 512);
    let lens = [
        1,
        8,
        3575,
        1,
        4095,
        4096,
        4097,
        20_000,
        100,
        1 << 20,
        9,
        0,
        (2 << 20) + 5,
        77,
    ];
    for (salt, len) in lens.into_iter().enumerate() {
        let record = bytes(len, salt);
        let (head, body) = record.split_at(len / 3);
        log.append(&[head, &[], body]);
        log.check();
    }
    assert!(log.end > 3 << 20, "the file has grown");
}

#[test]
fn a_writer_goes_on_where_another_one_ended() {
    let (mut log, _dir) = Log::new(64 << 10, 700);
    log.append(&[&bytes(5000, 1)]);
    log.direct = log.file.direct().unwrap();
    log.append(&[&bytes(30, 2)]);
    // And where something was written through the cache meanwhile.
    let (at, record) = (log.end, bytes(40, 3));
    log.file
        .write_at(at as u64, &[IoSlice::new(&record)])
        .unwrap();
    log.file.sync_data().unwrap();
    log.put(at, &record);
    log.end += record.len();
    log.append(&[&bytes(50, 4)]);
    log.check();
}

#[test]
fn zeros_ahead_leave_the_last_record_and_its_successor_alone() {
    let (mut log, _dir) = Log::new(8 << 10, 100);
    log.append(&[&bytes(5000, 1)]);
    let (from, to) = (log.end, log.end + (2 << 20) + 1);
    log.direct.zero(from as u64, to as u64).unwrap();
    log.zero(from, to.next_multiple_of(BLOCK));
    log.check();
    log.append(&[&bytes(9000, 2)]);
    log.check();
}
