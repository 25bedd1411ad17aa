//! Backups that were damaged, cut, swapped or made by others, and those that were not.

#![allow(clippy::unwrap_used, reason = "tests")]

use memkv_backup::{
    BackupError, BackupReader, BackupWriter, CONTENT_BYTES, Head, Location, MAX_RECORD_BYTES,
    VERSION,
};

fn head() -> Head {
    Head {
        cluster: "00112233-4455-6677-8899-aabbccddeeff".to_owned(),
        level: 2,
        revision: 1 << 51,
        log_time_ms: 1_700_000_000_000,
        keys: 3,
        hash_seed: u64::MAX,
        term: 4,
        index: 5,
        node: "n1".to_owned(),
        written_by: "0.1.0".to_owned(),
        salvaged: false,
        committed: 5,
        terms: Vec::new(),
        stopped: None,
        condemned: None,
    }
}

fn backup(records: &[Vec<u8>]) -> Vec<u8> {
    let mut writer = BackupWriter::new(Vec::new(), &head()).unwrap();
    for record in records {
        writer.record(record).unwrap();
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<Vec<u8>>, BackupError> {
    let mut reader = BackupReader::open(bytes)?;
    let mut records = Vec::new();
    while let Some(record) = reader.next_record()? {
        records.push(record);
    }
    Ok(records)
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 7u64;
    let byte = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(byte).collect()
}

fn small() -> Vec<u8> {
    backup(&[b"head".to_vec(), vec![7; 300], Vec::new(), noise(40)])
}

#[test]
fn records_come_back_however_long_they_are() {
    let lens = [
        0,
        1,
        CONTENT_BYTES - 4,
        CONTENT_BYTES,
        3 * CONTENT_BYTES + 1,
    ];
    let records: Vec<_> = lens.into_iter().map(noise).collect();
    let bytes = backup(&records);
    assert_eq!(read(&bytes).unwrap(), records);
    let reader = BackupReader::open(&bytes[..]).unwrap();
    assert_eq!(*reader.head(), head());
    let summary = reader.verify().unwrap();
    assert_eq!(summary.file_bytes, bytes.len() as u64);
    let content: usize = lens.iter().map(|len| len + 4).sum();
    assert_eq!(summary.content_bytes, content as u64);
    assert_eq!(summary.blocks, content.div_ceil(CONTENT_BYTES) as u64);
    assert_eq!(read(&backup(&[])).unwrap(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_record_in_pieces_is_the_same_record() {
    let record = noise(CONTENT_BYTES + 9);
    let mut writer = BackupWriter::new(Vec::new(), &head()).unwrap();
    writer.begin_record(record.len()).unwrap();
    for piece in record.chunks(1000) {
        writer.put(piece).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), backup(&[record]));
}

#[test]
fn a_record_that_is_not_as_it_was_announced_is_refused() {
    let writer = || BackupWriter::new(Vec::new(), &head()).unwrap();
    assert!(writer().begin_record(MAX_RECORD_BYTES + 1).is_err());
    let mut too_long = writer();
    too_long.begin_record(1).unwrap();
    assert!(too_long.put(b"ab").is_err());
    let mut too_short = writer();
    too_short.begin_record(2).unwrap();
    too_short.put(b"a").unwrap();
    assert!(too_short.begin_record(1).is_err());
    assert!(too_short.finish().is_err());
}

#[test]
fn every_flipped_bit_is_refused_with_its_place() {
    let whole = small();
    assert!(read(&whole).is_ok());
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let error = read(&bytes).expect_err(&format!("bit {bit} of byte {at}"));
            let verified = BackupReader::open(&bytes[..]).and_then(BackupReader::verify);
            assert!(verified.is_err(), "bit {bit} of byte {at}");
            match error {
                BackupError::NotABackup => assert!(at < 8, "{at}"),
                BackupError::Damaged { .. } | BackupError::CutOff { .. } => {}
                other => panic!("bit {bit} of byte {at}: {other}"),
            }
        }
    }
}

#[test]
fn every_cut_and_every_byte_more_is_refused() {
    let whole = small();
    for len in 0..whole.len() {
        let error = read(&whole[..len]).expect_err(&format!("cut at {len}"));
        let is_cut = matches!(error, BackupError::CutOff { .. });
        assert_eq!(is_cut, len >= 8, "cut at {len}: {error}");
    }
    let error = read(&[&whole[..], b"x"].concat()).unwrap_err();
    let what = "more bytes follow";
    assert!(error.to_string().contains(what), "{error}");
    assert!(error.to_string().contains("the end"), "{error}");
}

#[test]
fn a_damaged_block_is_named() {
    let bytes = backup(&[noise(3 * CONTENT_BYTES)]);
    let mut damaged = bytes.clone();
    let at = bytes.len() / 2;
    damaged[at] ^= 1;
    match read(&damaged).unwrap_err() {
        BackupError::Damaged {
            location: Location::Block(1),
            offset,
            ..
        } => assert!((offset as usize) < at),
        other => panic!("{other}"),
    }
}

/// The places of the blocks of a backup.
fn blocks(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let mut at = 20 + u32_at(12);
    let mut found = Vec::new();
    while &bytes[at..at + 4] == b"BLCK" {
        let end = at + 24 + u32_at(at + 12);
        found.push(at..end);
        at = end;
    }
    found
}

#[test]
fn blocks_can_be_neither_swapped_nor_left_out_nor_repeated() {
    let bytes = backup(&[noise(2 * CONTENT_BYTES - 4)]);
    let found = blocks(&bytes);
    assert_eq!(found.len(), 2);
    let (start, end) = (&bytes[..found[0].start], &bytes[found[1].end..]);
    let (first, second) = (&bytes[found[0].clone()], &bytes[found[1].clone()]);
    for pieces in [
        [start, second, first, end],
        [start, first, &[], end],
        [start, &[], second, end],
    ] {
        assert!(read(&pieces.concat()).is_err());
    }
    assert!(read(&[start, first, first, second, end].concat()).is_err());
    assert!(read(&[start, first, second, end].concat()).is_ok());
}

#[test]
fn another_file_is_no_backup_and_a_newer_one_is_named_so() {
    for foreign in [
        &b""[..],
        b"MEMK",
        b"PK\x03\x04 and more",
        b"MKVSNAP1........",
    ] {
        assert!(matches!(read(foreign), Err(BackupError::NotABackup)));
    }
    let mut newer = small();
    newer[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
    let head_len = u32::from_le_bytes(newer[12..16].try_into().unwrap()) as usize;
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&newer[..16]);
    checksum.update(&newer[20..20 + head_len]);
    newer[16..20].copy_from_slice(&checksum.finalize().to_le_bytes());
    let error = read(&newer).unwrap_err();
    assert!(matches!(error, BackupError::Newer { found, .. } if found == VERSION + 1));
    assert!(error.to_string().contains("format 2"), "{error}");
}

#[test]
fn lengths_beyond_the_limits_are_refused_though_their_checksums_fit() {
    let bytes = backup(&[noise(100)]);
    let block = blocks(&bytes).remove(0);
    for (field, len) in [(12, u32::MAX), (12, 1 << 20), (16, u32::MAX), (16, 99)] {
        let mut hostile = bytes.clone();
        let at = block.start + field;
        hostile[at..at + 4].copy_from_slice(&len.to_le_bytes());
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&hostile[block.start..block.start + 20]);
        checksum.update(&hostile[block.start + 24..block.end]);
        let sum = checksum.finalize().to_le_bytes();
        hostile[block.start + 20..block.start + 24].copy_from_slice(&sum);
        assert!(read(&hostile).is_err(), "{field} {len}");
    }
}
