//! Applying an entry: as a whole, or piece by piece, so that the caller can yield in between.
//!
//! Pieces end between commands, or within a command of many keys, of which readers see nothing before all
//! of it is done: between two pieces a reader sees the state between two commands. [`Applying`] holds the
//! rest of an entry; it must be resumed until it is done before anything else is applied. Reading an
//! entry needs no store, and may be done earlier: see [`Checked`]. Invariants: an entry has the same effects however it is cut; no snapshot begins
//! within an entry.

use bytes::Bytes;

use crate::batch::{Batch, Group, Part};
use crate::command::{KEY_WORK, Many, Operation};
use crate::encoding::{DecodeError, Reader};
use crate::keyspace::Keyspace;
use crate::{Rejected, Reply, Revision, SessionId, Sink, Store};

/// The most keys that one entry removes because they are due; the next entries remove the rest, which is
/// absent to every access meanwhile. At about half a microsecond each it holds an entry up for some
/// milliseconds.
const EXPIRED_PER_ENTRY: usize = 10_000;

/// Commands whose keys the processor fetches at the same time, before the first of them is executed.
const FETCHED: usize = 16;

/// Work from which a command of many keys is executed in pieces: half a millisecond, which justifies the
/// cost of saving the entries that it changes. In the simulator three keys.
const SPLIT_FROM: u64 = if cfg!(memkv_bugs) {
    2 * KEY_WORK
} else {
    10_000
};

/// Bytes of a command from which it is read once, when its entry is checked, if it can be executed in
/// pieces: to read that many takes a tenth of a millisecond or more. In the simulator two keys or three.
const READ_EARLY: usize = if cfg!(memkv_bugs) { 64 } else { 128 << 10 };

/// The batch of an entry, read as a whole.
#[derive(Debug)]
pub struct Checked {
    batch: Bytes,
    stamp_ms: u64,
    /// The highest feature level that anything in it belongs to.
    level: u32,
    /// The offset of its parts.
    parts: usize,
    early: Option<Early>,
}

/// The first command of a batch that is read [early](READ_EARLY), and its position.
#[derive(Debug)]
struct Early {
    at: usize,
    end: usize,
    many: Box<Many>,
}

impl Checked {
    /// Reads a batch. This takes as long as its bytes demand, milliseconds for some megabytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if it is malformed.
    pub fn new(batch: &Bytes) -> Result<Checked, DecodeError> {
        let read = Batch::check(batch)?;
        let parts = batch.len() - read.parts_len();
        let early = match batch.len() < READ_EARLY {
            true => None,
            false => Early::find(batch, parts),
        };
        Ok(Checked {
            batch: batch.clone(),
            stamp_ms: read.stamp_ms,
            level: read.level,
            parts,
            early,
        })
    }
}

impl Early {
    fn find(batch: &Bytes, parts: usize) -> Option<Early> {
        let mut parts = Reader::new(&batch[parts..]);
        while let Ok(part) = Part::read(&mut parts) {
            let Part::Group(group) = part else {
                continue;
            };
            let group_end = batch.len() - parts.rest().len();
            let mut commands = Reader::new(&batch[group_end - group.commands_len()..group_end]);
            loop {
                let at = group_end - commands.rest().len();
                let Ok(command) = commands.prefixed("group command") else {
                    break;
                };
                if command.len() >= READ_EARLY
                    && let Some(many) = Many::read(&batch.slice_ref(command))
                {
                    let end = group_end - commands.rest().len();
                    let many = Box::new(many);
                    return Some(Early { at, end, many });
                }
            }
        }
        None
    }
}

/// An entry that is being applied.
#[derive(Debug)]
pub struct Applying {
    index: u64,
    batch: Bytes,
    /// The offset of the next part.
    at: usize,
    early: Option<Early>,
    group: Option<Open>,
    /// System operations so far.
    ordinal: usize,
    /// Work that was done before the first command.
    owed: u64,
}

/// A group of which commands are left.
#[derive(Debug)]
struct Open {
    session: SessionId,
    /// The next command: its number and its position.
    seq: u64,
    at: usize,
    end: usize,
    /// The command before it, of which keys are left.
    many: Option<Box<Many>>,
}

/// The progress of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// It is applied.
    Done,
    /// The next command may be this much work, which is more than there was room for; or it is one of
    /// many keys that is executed in part.
    Paused {
        /// 0 for such a command, which takes any room. A unit is about 50 nanoseconds: a key that is written
        /// takes sixteen, and 64 bytes copied take one.
        next: u64,
    },
}

impl Store {
    /// Applies the batch of the log entry at `index`; effects go to `sink` in the batch's order.
    ///
    /// An entry at or below [`applied_index`](Store::applied_index) is in the state already: it is
    /// skipped without effects, because executing it twice would be a divergence. A batch that cannot
    /// be read changes nothing and is not counted: the sink gets the error, and the caller must stop
    /// there, because the entries after it depend on its effects on other nodes.
    pub fn apply(&mut self, index: u64, batch: &Bytes, sink: &mut dyn Sink) {
        if let Some(mut applying) = self.begin_apply(index, batch, sink) {
            let mut room = u64::MAX;
            while self.resume(&mut applying, &mut room, sink) != Progress::Done {
                room = u64::MAX;
            }
        }
    }

    /// Begins to apply the batch of an entry; nothing if there is nothing to execute.
    /// [`Store::resume`] does the rest, and until that is done nothing else may be applied.
    pub fn begin_apply(
        &mut self,
        index: u64,
        batch: &Bytes,
        sink: &mut dyn Sink,
    ) -> Option<Applying> {
        if index <= self.applied_index {
            return None;
        }
        match Checked::new(batch) {
            Ok(checked) => self.begin_checked(index, checked, sink),
            Err(why) => {
                sink.malformed(&why);
                None
            }
        }
    }

    /// The same for a batch that was read before.
    pub fn begin_checked(
        &mut self,
        index: u64,
        checked: Checked,
        sink: &mut dyn Sink,
    ) -> Option<Applying> {
        if index <= self.applied_index {
            return None;
        }
        let level = self.members.level();
        if checked.level > level {
            let needs = checked.level;
            sink.malformed(&DecodeError::AboveLevel { needs, level });
            return None;
        }
        self.applied_index = index;
        self.keys.now_ms = self.keys.now_ms.max(checked.stamp_ms);
        let expired = self.expire();
        self.keys.begin_entry(&mut self.revision);
        self.is_within_entry = true;
        Some(Applying {
            index,
            at: checked.parts,
            batch: checked.batch,
            early: checked.early,
            group: None,
            ordinal: 0,
            owed: KEY_WORK * expired as u64,
        })
    }

    /// Executes commands until the entry is done, or the next command may be more work than `room` has
    /// left; the work of each executed command is subtracted from it. An MSET or a DEL for which there is no room is
    /// executed in part, key by key. Any other command that exceeds every room is executed alone, with the
    /// room that [`Progress::Paused`] names.
    pub fn resume(
        &mut self,
        entry: &mut Applying,
        room: &mut u64,
        sink: &mut dyn Sink,
    ) -> Progress {
        let owed = std::mem::take(&mut entry.owed);
        *room = room.saturating_sub(owed);
        loop {
            if let Some(mut open) = entry.group.take() {
                let end = open.end;
                let next = match entry.early {
                    None => self.execute(&entry.batch, &mut open, end, room, sink),
                    Some(_) => {
                        let early = &mut entry.early;
                        self.execute_around(&entry.batch, early, &mut open, room, sink)
                    }
                };
                if let Some(next) = next {
                    entry.group = Some(open);
                    return Progress::Paused { next };
                }
            }
            let mut rest = Reader::new(&entry.batch[entry.at..]);
            let part = match rest.is_empty() {
                true => None,
                // It was read before, when the batch was checked.
                false => Part::read(&mut rest).ok(),
            };
            entry.at = entry.batch.len() - rest.rest().len();
            match part {
                None => {
                    self.is_within_entry = false;
                    self.note_entry();
                    return Progress::Done;
                }
                Some(Part::Group(group)) => entry.group = self.open(&group, entry.at, sink),
                Some(Part::System(op)) => {
                    let outcome = self.apply_system(entry.index, op);
                    self.note_records();
                    sink.system(entry.ordinal, &outcome);
                    entry.ordinal += 1;
                }
            }
        }
    }

    /// Removes keys that are due, and returns their number. All of them are removed at one revision: it is
    /// one event, and a transaction that watches sees it.
    fn expire(&mut self) -> usize {
        let expired = self.keys.expire(EXPIRED_PER_ENTRY, self.revision + 1);
        self.revision += u64::from(expired > 0);
        expired
    }

    /// Checks a group's session, once; nothing if the group is refused. It ends at `end`.
    fn open(&mut self, group: &Group<'_>, end: usize, sink: &mut dyn Sink) -> Option<Open> {
        let Group {
            session: id,
            first_seq,
            count,
            ..
        } = *group;
        let effects = &mut self.keys.effects;
        let Some(session) = self.sessions.get_mut(id) else {
            effects.group(0, None);
            sink.rejected(id, first_seq, count as u64, Rejected::UnknownSession);
            return None;
        };
        let expected = session.last_seq() + 1;
        if first_seq > expected && !skips_gap() {
            effects.group(expected, None);
            sink.rejected(id, first_seq, count as u64, Rejected::Gap { expected });
            return None;
        }
        session.acknowledge(group.acked_through);
        effects.group(expected, Some(session.replies().len()));
        if !group.stands(self.keys.users.as_deref()) && refuses(group, expected) {
            self.refuse(group, expected, sink);
            return None;
        }
        Some(Open {
            session: id,
            seq: first_seq,
            at: end - group.commands_len(),
            end,
            many: None,
        })
    }

    /// Answers the numbers of a group that were executed before, and refuses the rest.
    #[cold]
    fn refuse(&mut self, group: &Group<'_>, expected: u64, sink: &mut dyn Sink) {
        let end = group.first_seq.saturating_add(group.count as u64);
        let expected = match refuses_before_answering() {
            true => group.first_seq,
            false => expected,
        };
        if let Some(session) = self.sessions.get(group.session) {
            for seq in group.first_seq..expected {
                sink.duplicate(group.session, seq, session.reply(seq));
            }
        }
        let revision = self.users_revision();
        self.keys.effects.refused(expected, revision);
        let why = Rejected::Rights { revision };
        sink.rejected(group.session, expected, end - expected, why);
    }

    /// Executes the commands that the session has not executed yet, and answers the others. Returns the
    /// work of the command for which there was no room; 0 for one that has begun.
    fn execute(
        &mut self,
        batch: &Bytes,
        open: &mut Open,
        end: usize,
        room: &mut u64,
        sink: &mut dyn Sink,
    ) -> Option<u64> {
        loop {
            if !self.go_on(open, room, sink) {
                return Some(0);
            }
            let Large { work, end } = self.execute_small(batch, open, end, room, sink)?;
            if work <= SPLIT_FROM || !self.is_new(open) {
                return Some(work);
            }
            match read_many(batch, open.at, end) {
                Some(many) => self.begin_many(open, Box::new(many), end),
                None => return Some(work),
            }
        }
    }

    /// The same for a group that may contain a command that was read early.
    #[cold]
    fn execute_around(
        &mut self,
        batch: &Bytes,
        early: &mut Option<Early>,
        open: &mut Open,
        room: &mut u64,
        sink: &mut dyn Sink,
    ) -> Option<u64> {
        let ahead = early.as_ref().map(|early| early.at);
        let ahead = ahead.filter(|at| (open.at..open.end).contains(at));
        if let Some(at) = ahead {
            let next = self.execute(batch, open, at, room, sink);
            if next.is_some() {
                return next;
            }
            if let Some(early) = early.take()
                && open.at == at
                && self.is_new(open)
            {
                self.begin_many(open, early.many, early.end);
            }
        }
        self.execute(batch, open, open.end, room, sink)
    }

    /// Executes commands up to `end`, or to one for which there is no room.
    fn execute_small(
        &mut self,
        batch: &Bytes,
        open: &mut Open,
        end: usize,
        room: &mut u64,
        sink: &mut dyn Sink,
    ) -> Option<Large> {
        let id = open.session;
        let session = self.sessions.get_mut(id)?;
        let mut commands = Reader::new(&batch[open.at..end]);
        let mut next = Vec::with_capacity(FETCHED);
        loop {
            while next.len() < FETCHED && !commands.is_empty() {
                let command = commands.prefixed("group command").ok()?;
                let operation = Operation::decode(command, &|part| batch.slice_ref(part)).ok()?;
                next.push((operation, commands.rest().len()));
            }
            match next.len() {
                0 => return None,
                // A fetch of a single key would not arrive before its lookup.
                1 => {}
                _ => {
                    let keys = next.iter().filter_map(|(operation, _)| operation.key());
                    self.keys.fetch(keys);
                }
            }
            for (operation, rest) in &next {
                let work = operation.work(&self.keys);
                let end = end - rest;
                if work > *room {
                    return Some(Large { work, end });
                }
                *room -= work;
                let seq = open.seq;
                open.seq += 1;
                open.at = end;
                if seq > session.last_seq() {
                    if self.keys.is_at_cap() && operation.may_grow() {
                        self.keys.make_room(&mut self.revision);
                    }
                    let reply = execute(&mut self.keys, &mut self.revision, operation);
                    sink.reply(id, seq, &reply);
                    #[cfg(memkv_bugs)]
                    let reply = self.deviation.apply(reply, &mut self.keys);
                    self.keys.effects.reply(&reply);
                    session.record(reply);
                    continue;
                }
                #[cfg(memkv_bugs)]
                if crate::bugs::active(crate::bugs::Bug::DropDedup) {
                    let reply = execute(&mut self.keys, &mut self.revision, operation);
                    sink.reply(id, seq, &reply);
                    continue;
                }
                sink.duplicate(id, seq, session.reply(seq));
            }
            next.clear();
        }
    }
}

/// A command for which there is no room, and its end.
struct Large {
    work: u64,
    end: usize,
}

/// Commands of many keys.
impl Store {
    /// Whether a session has not executed the next command yet.
    fn is_new(&self, open: &Open) -> bool {
        let session = self.sessions.get(open.session);
        session.is_some_and(|session| open.seq > session.last_seq())
    }

    /// Begins the next command, which ends there.
    fn begin_many(&mut self, open: &mut Open, mut many: Box<Many>, end: usize) {
        if self.keys.is_at_cap() && many.may_grow() {
            self.keys.make_room(&mut self.revision);
        }
        many.begin(&mut self.keys, self.revision);
        open.seq += 1;
        open.at = end;
        open.many = Some(many);
    }

    /// Continues a command of many keys; returns whether nothing of it is left.
    fn go_on(&mut self, open: &mut Open, room: &mut u64, sink: &mut dyn Sink) -> bool {
        let Some(many) = &mut open.many else {
            return true;
        };
        let Some(value) = many.go_on(&mut self.keys, room) else {
            return false;
        };
        self.revision = many.revision(self.revision);
        self.keys.end_pieces();
        open.many = None;
        let seq = open.seq - 1;
        let reply = Reply {
            revision: self.revision,
            value,
        };
        sink.reply(open.session, seq, &reply);
        #[cfg(memkv_bugs)]
        let reply = self.deviation.apply(reply, &mut self.keys);
        self.keys.effects.reply(&reply);
        if let Some(session) = self.sessions.get_mut(open.session) {
            session.record(reply);
        }
        true
    }
}

/// The command at this position, if it is one that is executed in pieces.
fn read_many(batch: &Bytes, at: usize, end: usize) -> Option<Many> {
    let command = Reader::new(&batch[at..end]).prefixed("group command");
    Many::read(&batch.slice_ref(command.ok()?))
}

fn execute(keys: &mut Keyspace, revision: &mut Revision, operation: &Operation<'_>) -> Reply {
    let value = operation.execute(keys, revision);
    Reply {
        revision: *revision,
        value,
    }
}

/// Whether any command of the group has not been executed yet.
fn refuses(group: &Group<'_>, expected: u64) -> bool {
    group.first_seq.saturating_add(group.count as u64) > expected || refuses_before_answering()
}

#[cfg(memkv_bugs)]
fn refuses_before_answering() -> bool {
    crate::bugs::active(crate::bugs::Bug::RefuseBeforeDedup)
}

#[cfg(not(memkv_bugs))]
const fn refuses_before_answering() -> bool {
    false
}

#[cfg(memkv_bugs)]
fn skips_gap() -> bool {
    crate::bugs::active(crate::bugs::Bug::SkipGap)
}

#[cfg(not(memkv_bugs))]
const fn skips_gap() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, SystemOutcome};

    #[derive(Default)]
    struct Malformed(Vec<DecodeError>);

    impl Sink for Malformed {
        fn reply(&mut self, _: SessionId, _: u64, _: &Reply) {}
        fn duplicate(&mut self, _: SessionId, _: u64, _: Option<&Reply>) {}
        fn rejected(&mut self, _: SessionId, _: u64, _: u64, _: Rejected) {}
        fn system(&mut self, _: usize, _: &SystemOutcome) {}
        fn malformed(&mut self, why: &DecodeError) {
            self.0.push(why.clone());
        }
    }

    #[test]
    fn a_batch_above_the_level_of_the_state_is_malformed_and_changes_nothing() {
        let mut store = Store::new();
        // No release has it, so everything is above it.
        store.members.level = 0;
        let before = store.digest();
        let mut batch = BatchBuilder::new(9);
        batch.group(1, 1, 0, [crate::Command::Noop.encode()].iter());
        let mut sink = Malformed::default();
        store.apply(3, &batch.finish(), &mut sink);
        let above = DecodeError::AboveLevel { needs: 1, level: 0 };
        assert_eq!(sink.0, [above]);
        assert_eq!((store.applied_index(), store.digest()), (0, before));
    }
}
