//! The blocks of a snapshot: the encoding of its head and its pieces.
//!
//! A snapshot is the head, then the replies of each session, then the table of deletes, then each
//! shard, in order; the last two only where they are not empty. A block starts with its kind, its owner,
//! its part number, and a mark of the last part, so that a loader detects a block that is missing, repeated
//! or out of order. Blocks never carry
//! checksums: the files and streams that carry blocks do. Entries are sorted by key, so that nodes
//! with the same state write the same bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BufMut;

use super::{Image, SessionHead, ShardImage, SnapshotHead};
use crate::encoding::{DecodeError, Reader, put_length, put_prefixed, put_varint, varint_len};
use crate::keyspace::{DELETE_SLOTS, Entry, first_bytes, noted};
use crate::member_table::{Advertised, MAX_EXPECTED, MAX_MEMBERS, MemberRecord, MemberTable, Role};
use crate::memory::MemoryCap;
use crate::rights::{put_table, read_table};
use crate::store::seed_of;
use crate::system::read_name;
use crate::{
    EDGE_LEVEL, FIRST_LEVEL, KeyEventClasses, MEMBERS_LEVEL, Member, Reply, Revision, UserTable,
};

/// Version of the snapshot format: raised when a field or a new kind of block comes. Version 1 had
/// one database, no deadlines and no table of deletes; it is still read.
const VERSION: u8 = 6;
/// The version since which keys have their present shards.
pub(super) const UNEQUAL_SHARDS: u8 = 4;
/// The version since which the head begins with the feature level, and the table holds the level that each
/// node announces.
const LEVELS: u8 = 5;
/// The version since which the head carries the hash seed. Before, it was derived from the cluster's UUID.
const SEEDED: u8 = 6;

pub(super) const HEAD: u8 = 1;
pub(super) const REPLIES: u8 = 2;
pub(super) const ENTRIES: u8 = 3;
pub(super) const DELETES: u8 = 4;

/// Counters beyond this were never reached by counting: it keeps `+ 1` from overflowing.
const HIGHEST_COUNTER: u64 = u64::MAX >> 1;

/// A bound of a block's own fields, in bytes: kind, last, and three varints.
const BLOCK_OVERHEAD_BYTES: usize = 32;

/// The owner and the part of a block of replies or entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHead {
    /// The shard, or the session.
    pub(super) of: u64,
    /// The number of the part, from 0.
    pub(super) part: u64,
    pub(super) last: bool,
}

impl BlockHead {
    fn write(self, kind: u8, out: &mut impl BufMut) {
        out.put_u8(kind);
        put_varint(out, self.of);
        put_varint(out, self.part);
        out.put_u8(u8::from(self.last));
    }

    /// Reads the fields behind the kind.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<BlockHead, DecodeError> {
        Ok(BlockHead {
            of: reader.varint("block owner")?,
            part: reader.varint("block part")?,
            last: reader.bool("last block mark")?,
        })
    }
}

impl ShardImage {
    /// Encodes the piece as blocks of at most `max_block_bytes` and hands each to `f`. A single
    /// value larger than that makes a larger block of its own. No lock is needed.
    ///
    /// # Errors
    ///
    /// The first error of `f`, after which nothing more is encoded.
    pub fn encode_blocks<E>(
        &self,
        max_block_bytes: usize,
        f: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match &self.0 {
            Image::Replies { session, replies } => {
                let items = Items {
                    kind: REPLIES,
                    of: *session,
                    max_block_bytes,
                };
                let replies: Vec<&Reply> = replies.iter().collect();
                items.encode(&replies, reply_len, |reply, out| reply.write(out), f)
            }
            Image::Deletes(slots) => {
                let items = Items {
                    kind: DELETES,
                    of: 0,
                    max_block_bytes,
                };
                let noted: Vec<_> = noted(slots).collect();
                let noted: Vec<_> = noted.iter().collect();
                items.encode(&noted, delete_len, write_delete, f)
            }
            Image::Entries { shard, entries } => {
                let items = Items {
                    kind: ENTRIES,
                    of: *shard as u64,
                    max_block_bytes,
                };
                let entries: Vec<Entry<'_>> = entries.iter().collect();
                items.encode(&in_order(&entries), entry_len, write_entry, f)
            }
        }
    }
}

/// Packs items into blocks.
struct Items {
    kind: u8,
    of: u64,
    max_block_bytes: usize,
}

impl Items {
    fn encode<T, E>(
        &self,
        mut items: &[&T],
        len: impl Fn(&T) -> usize,
        write: impl Fn(&T, &mut Vec<u8>),
        f: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut out = Vec::new();
        for part in 0.. {
            let fitting = self.fitting(items, &len);
            let (now, later) = items.split_at(fitting);
            items = later;
            out.clear();
            let head = BlockHead {
                of: self.of,
                part,
                last: later.is_empty(),
            };
            head.write(self.kind, &mut out);
            put_length(&mut out, now.len());
            now.iter().for_each(|item| write(item, &mut out));
            f(&out)?;
            if later.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// The number of items in the next block: as many as fit, and at least one if there are any.
    fn fitting<T>(&self, items: &[&T], len: impl Fn(&T) -> usize) -> usize {
        let mut room = self.max_block_bytes.saturating_sub(BLOCK_OVERHEAD_BYTES);
        let fits = |item: &&&T| match room.checked_sub(len(item)) {
            Some(left) => {
                room = left;
                true
            }
            None => false,
        };
        items
            .iter()
            .take_while(fits)
            .count()
            .max(items.len().min(1))
    }
}

/// Entries in the order of their keys. The first bytes of the keys, as a number, nearly always decide.
fn in_order<'a>(entries: &'a [Entry<'a>]) -> Vec<&'a Entry<'a>> {
    let with_first = entries
        .iter()
        .map(|entry| (first_bytes(entry.key()), entry));
    let mut sorted: Vec<(u128, &Entry<'_>)> = with_first.collect();
    sorted.sort_unstable_by_key(|(first, entry)| (*first, entry.key()));
    sorted.into_iter().map(|(_, entry)| entry).collect()
}

/// Upper bound of a reply's encoding: two varints, a kind, and the value.
fn reply_len(reply: &Reply) -> usize {
    21 + reply.bulk_len()
}

fn delete_len((slot, at): &(usize, Revision)) -> usize {
    varint_len(*slot as u64) + varint_len(*at)
}

fn write_delete((slot, at): &(usize, Revision), out: &mut Vec<u8>) {
    put_length(out, *slot);
    put_varint(out, *at);
}

fn entry_len(entry: &Entry<'_>) -> usize {
    let numbers = [
        entry.key().len() as u64,
        entry.value().len() as u64,
        entry.create_revision,
        entry.mod_revision - entry.create_revision,
        entry.deadline_ms.unwrap_or(0),
    ];
    numbers.map(varint_len).iter().sum::<usize>() + entry.key().len() + entry.value().len()
}

fn write_entry(entry: &Entry<'_>, out: &mut Vec<u8>) {
    put_length(out, entry.key().len());
    put_length(out, entry.value().len());
    put_varint(out, entry.create_revision);
    put_varint(out, entry.mod_revision - entry.create_revision);
    // 0 is none: no key lives with a deadline at the epoch.
    put_varint(out, entry.deadline_ms.unwrap_or(0));
    out.put_slice(entry.key());
    out.put_slice(entry.value());
}

/// An entry as it is read from a block.
pub(crate) struct EntryView<'a> {
    /// The key of `key_len` bytes and, directly after it, the value.
    pub(crate) record: &'a [u8],
    pub(crate) key_len: usize,
    pub(crate) create_revision: u64,
    pub(crate) mod_revision: u64,
    pub(crate) deadline_ms: Option<u64>,
}

impl<'a> EntryView<'a> {
    pub(super) fn read(reader: &mut Reader<'a>, version: u8) -> Result<EntryView<'a>, DecodeError> {
        let invalid = DecodeError::Invalid {
            what: "entry length",
        };
        let key_len = reader.length("entry key")?;
        let value_len = reader.length("entry value")?;
        if key_len > crate::MAX_KEY_BYTES || value_len > crate::MAX_VALUE_BYTES_CEILING {
            return Err(invalid);
        }
        let create_revision = reader.varint("entry creation")?;
        let age = reader.varint("entry modification")?;
        let mod_revision = create_revision
            .checked_add(age)
            .ok_or(DecodeError::Invalid {
                what: "entry modification",
            })?;
        let deadline_ms = match version {
            1 => 0,
            _ => reader.varint("entry deadline")?,
        };
        let record = reader.take(key_len + value_len, "entry")?;
        Ok(EntryView {
            record,
            key_len,
            create_revision,
            mod_revision,
            deadline_ms: Some(deadline_ms).filter(|deadline| *deadline > 0),
        })
    }
}

/// Reads the slots of one block of the table of deletes.
pub(super) fn read_deletes(
    reader: &mut Reader<'_>,
    mut keep: impl FnMut(usize, Revision),
) -> Result<(), DecodeError> {
    let what = "slot of the table of deletes";
    let count = reader.length(what)?;
    for _ in 0..count {
        let slot = reader.varint(what)?;
        let at = counter(reader, what)?;
        let slot = usize::try_from(slot)
            .ok()
            .filter(|slot| *slot < DELETE_SLOTS);
        let (Some(slot), true) = (slot, at > 0) else {
            return Err(DecodeError::Invalid { what });
        };
        keep(slot, at);
    }
    Ok(())
}

impl SnapshotHead {
    /// The head as the first block of the snapshot.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![HEAD, VERSION];
        put_varint(&mut out, u64::from(self.members.level));
        out.put_u64_le(self.seed);
        put_varint(&mut out, self.revision);
        put_varint(&mut out, self.stamp_ms);
        put_varint(&mut out, self.applied_index);
        put_varint(&mut out, self.keys);
        out.put_u16_le(self.databases);
        put_varint(&mut out, self.deletes);
        self.flushed.iter().for_each(|at| put_varint(&mut out, *at));
        put_varint(&mut out, self.expired_total);
        out.put_u8(u8::from(self.effects.is_some()));
        self.effects.iter().for_each(|hash| out.put_u64_le(*hash));
        out.put_u8(u8::from(self.announced.is_some()));
        if let Some(announced) = self.announced {
            out.put_u16_le(announced.bits());
        }
        write_member_table(&self.members, &mut out);
        put_length(&mut out, self.sessions.len());
        for session in &self.sessions {
            let SessionHead {
                id,
                node,
                boot,
                last_seq,
                cached,
            } = *session;
            for number in [id, node, boot, last_seq, cached] {
                put_varint(&mut out, number);
            }
        }
        if self.members.level >= EDGE_LEVEL {
            self.memory.write(&self.members, &mut out);
            put_table(&mut out, self.users.as_deref());
        }
        out
    }

    /// Reads the first block of a snapshot.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if it is no head, or one of another version.
    pub fn decode(block: &[u8]) -> Result<SnapshotHead, DecodeError> {
        SnapshotHead::read(block).map(|(_, head)| head)
    }

    /// Reads the head and the version of the snapshot.
    pub(super) fn read(block: &[u8]) -> Result<(u8, SnapshotHead), DecodeError> {
        let mut reader = Reader::new(block);
        match reader.u8("block kind")? {
            HEAD => {}
            tag => {
                return Err(DecodeError::UnknownTag {
                    what: "first block of a snapshot",
                    tag,
                });
            }
        }
        let found = reader.u8("snapshot version")?;
        if !(1..=VERSION).contains(&found) {
            return Err(DecodeError::Version {
                what: "snapshot",
                found,
                supported: VERSION,
            });
        }
        let level = read_level(&mut reader, found)?;
        let seed = match found >= SEEDED {
            true => Some(u64::from_le_bytes(reader.array("hash seed")?)),
            false => None,
        };
        let mut head = SnapshotHead {
            seed: seed.unwrap_or(0),
            revision: counter(&mut reader, "snapshot revision")?,
            stamp_ms: reader.varint("snapshot stamp")?,
            applied_index: counter(&mut reader, "snapshot index")?,
            keys: reader.varint("number of keys")?,
            // Version 1 had all shards of the first database.
            databases: 1,
            deletes: 0,
            flushed: Default::default(),
            expired_total: 0,
            effects: None,
            announced: None,
            members: MemberTable::default(),
            sessions: Vec::new(),
            memory: MemoryCap::default(),
            users: None,
        };
        if found > 1 {
            head.databases = u16::from_le_bytes(reader.array("databases")?);
            head.deletes = reader.varint("number of deletes")?;
            for at in &mut head.flushed {
                *at = counter(&mut reader, "flush")?;
            }
            head.expired_total = counter(&mut reader, "number of expired keys")?;
        }
        if found > 4 && reader.bool("whether the hash of effects is known")? {
            head.effects = Some(u64::from_le_bytes(reader.array("hash of effects")?));
        }
        if found > 2 && reader.bool("whether events are set")? {
            let bits = u16::from_le_bytes(reader.array("announced events")?);
            let announced = KeyEventClasses::from_bits(bits);
            let what = "announced events";
            head.announced = Some(announced.ok_or(DecodeError::Invalid { what })?);
        }
        head.members = read_member_table(&mut reader, found, level)?;
        if let (None, Some(cluster)) = (seed, head.members.cluster()) {
            head.seed = seed_of(&cluster);
        }
        head.sessions = read_sessions(&mut reader)?;
        head.memory = MemoryCap::read(&mut reader, &mut head.members)?;
        head.users = read_users(&mut reader, level)?;
        reader.finish("snapshot head")?;
        Ok((found, head))
    }
}

fn read_level(reader: &mut Reader<'_>, version: u8) -> Result<u32, DecodeError> {
    match version >= LEVELS {
        true => reader.level(),
        false => Ok(FIRST_LEVEL),
    }
}

fn read_users(reader: &mut Reader<'_>, level: u32) -> Result<Option<Arc<UserTable>>, DecodeError> {
    match level >= EDGE_LEVEL {
        true => read_table(reader),
        false => Ok(None),
    }
}

fn counter(reader: &mut Reader<'_>, what: &'static str) -> Result<u64, DecodeError> {
    let value = reader.varint(what)?;
    if value > HIGHEST_COUNTER {
        Err(DecodeError::Invalid { what })
    } else {
        Ok(value)
    }
}

fn read_sessions(reader: &mut Reader<'_>) -> Result<Vec<SessionHead>, DecodeError> {
    let count = reader.length("number of sessions")?;
    let mut sessions = Vec::new();
    for _ in 0..count {
        let session = SessionHead {
            id: reader.varint("session id")?,
            node: reader.varint("session node")?,
            boot: reader.varint("session boot")?,
            last_seq: counter(reader, "session sequence")?,
            cached: reader.varint("number of replies")?,
        };
        if session.cached > session.last_seq {
            return Err(DecodeError::Invalid {
                what: "number of replies",
            });
        }
        sessions.push(session);
    }
    Ok(sessions)
}

fn write_member_table(table: &MemberTable, out: &mut Vec<u8>) {
    let Some(cluster) = table.cluster else {
        out.put_u8(0);
        return;
    };
    out.put_u8(1);
    out.put_slice(&cluster);
    out.put_u8(u8::from(table.durability_sync));
    put_varint(out, table.highest_id);
    put_length(out, table.seats.len());
    for seat in table.seats.values() {
        seat.member.write(out);
        out.put_u8(u8::from(seat.nonce.is_some()));
        seat.nonce
            .into_iter()
            .for_each(|nonce| put_varint(out, nonce));
        out.put_u8(u8::from(seat.advertised.is_some()));
        if let Some(Advertised { boot, highest }) = seat.advertised {
            put_varint(out, boot);
            put_varint(out, u64::from(highest));
        }
        if table.level >= MEMBERS_LEVEL {
            seat.role.write(out);
            out.put_u8(u8::from(seat.leaving));
        }
    }
    if table.level >= MEMBERS_LEVEL {
        write_names(table, out);
    }
}

fn write_names(table: &MemberTable, out: &mut Vec<u8>) {
    put_length(out, table.expected.len());
    for (name, role) in &table.expected {
        put_prefixed(out, name.as_bytes());
        role.write(out);
    }
    put_length(out, table.removed.len());
    for (name, index) in &table.removed {
        put_prefixed(out, name.as_bytes());
        put_varint(out, *index);
    }
}

/// Names that a table expects or remembers as removed, none of them twice.
fn read_names<T>(
    reader: &mut Reader<'_>,
    value: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<BTreeMap<String, T>, DecodeError> {
    let what = "number of names";
    let count = reader.length(what)?;
    if count > MAX_EXPECTED {
        return Err(DecodeError::Invalid { what });
    }
    let named = (0..count).map(|_| Ok((read_name(reader)?, value(reader)?)));
    let names = named.collect::<Result<BTreeMap<_, _>, DecodeError>>()?;
    match names.len() == count {
        true => Ok(names),
        false => Err(DecodeError::Invalid {
            what: "names, of which one is there twice",
        }),
    }
}

fn read_member_table(
    reader: &mut Reader<'_>,
    version: u8,
    level: u32,
) -> Result<MemberTable, DecodeError> {
    if !reader.bool("whether a member table follows")? {
        return Ok(MemberTable {
            level,
            ..MemberTable::default()
        });
    }
    let cluster = reader.array("cluster id")?;
    let durability_sync = reader.bool("durability")?;
    let highest_id = reader.varint("highest node id")?;
    let count = reader.length("number of members")?;
    if count > MAX_MEMBERS {
        return Err(DecodeError::Invalid {
            what: "number of members",
        });
    }
    let mut seats = Vec::with_capacity(count);
    for _ in 0..count {
        let member = Member::read(reader)?;
        let has_nonce = reader.bool("whether a nonce follows")?;
        let nonce = has_nonce.then(|| reader.varint("nonce")).transpose()?;
        let advertised = match version >= LEVELS && reader.bool("whether a level is announced")? {
            true => Some(Advertised {
                boot: reader.varint("boot counter")?,
                highest: reader.level()?,
            }),
            false => None,
        };
        let (role, leaving) = match level >= MEMBERS_LEVEL {
            true => (Role::read(reader)?, reader.bool("whether it leaves")?),
            false => (Role::Voter, false),
        };
        seats.push(MemberRecord {
            nonce,
            advertised,
            role,
            leaving,
            ..MemberRecord::new(member)
        });
    }
    let mut table = MemberTable::with_seats(cluster, durability_sync, level, seats.into_iter())
        .map_err(|what| DecodeError::Invalid { what })?;
    // Members with the highest ids may be gone.
    table.highest_id = table.highest_id.max(highest_id);
    if level >= MEMBERS_LEVEL {
        table.expected = read_names(reader, Role::read)?;
        table.removed = read_names(reader, |reader| counter(reader, "removal of a member"))?;
    }
    Ok(table)
}

/// Reads the replies of one block.
pub(super) fn read_replies(
    reader: &mut Reader<'_>,
    mut keep: impl FnMut(Reply),
) -> Result<(), DecodeError> {
    let count = reader.length("number of replies")?;
    for _ in 0..count {
        keep(Reply::read(reader, bytes::Bytes::copy_from_slice)?);
    }
    Ok(())
}
