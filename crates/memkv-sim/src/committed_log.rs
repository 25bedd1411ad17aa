//! What the committed log says ran, read from the nodes' logs while they run.
//!
//! A store of its own follows the log, only to learn which commands executed and which were
//! duplicates; their effects are checked against the specification in the end.
//! Invariants: entries come in the order of their index, without gaps; an entry is read once.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use memkv_check::order;
use memkv_disk::LogId;
use memkv_store::{
    DecodeError, Refusal, Rejected, Reply, SessionId, Sink, Store, SystemOutcome, read_batch,
    read_system,
};

use crate::invariants::Verdict;
use crate::levels::Raises;
use crate::operations::Operations;
use crate::promise::Promise;
use crate::trace::Trace;
use crate::translate;
use crate::users::{self, Rights, SentByUsers};

/// Payloads of batches begin with their version; the engine's own entries do not.
const BATCH: u8 = 2;
/// The encodings of commands that no client's history holds: the one that only fills a number, and the
/// one of the next feature level.
const SILENT: [&[u8]; 2] = [&[0], &[0xe0]];

/// A committed entry.
pub(crate) struct Entry {
    pub(crate) id: LogId,
    pub(crate) stamp_ms: u64,
    /// When it was first seen committed, in microseconds of the run.
    pub(crate) seen_at: u64,
    ran: Vec<(Bytes, Reply)>,
}

/// The committed log so far.
#[derive(Default)]
pub(crate) struct CommittedLog {
    /// Entries that were seen and are not followed yet.
    waiting: BTreeMap<LogId, Bytes>,
    store: Store,
    /// Index of the next entry.
    next: u64,
    entries: Vec<Entry>,
    /// By session: the last number that was executed.
    executed: HashMap<SessionId, u64>,
    /// Node and boot of every session that was opened.
    opened: HashSet<(u64, u64)>,
    /// What it says of feature levels.
    pub(crate) raises: Raises,
    /// What it says of users.
    rights: Rights,
    /// An entry could not be read. No node applies it or any after it.
    stuck: bool,
}

impl CommittedLog {
    /// An entry is in a log.
    pub(crate) fn saw(&mut self, id: LogId, payload: &Bytes) {
        if id.index >= self.next {
            self.waiting.insert(id, payload.clone());
        }
    }

    /// Follows what is known to be committed.
    ///
    /// # Errors
    /// If something ran twice or out of order, or is not a batch.
    pub(crate) fn follow(
        &mut self,
        committed: &BTreeMap<u64, LogId>,
        sent: &SentByUsers,
        trace: &Trace,
    ) -> Verdict {
        while !self.stuck
            && let Some(id) = committed.get(&self.next)
            && let Some(payload) = self.waiting.remove(id)
        {
            self.next += 1;
            if payload.first() == Some(&BATCH) {
                self.apply(*id, &payload, sent, trace)?;
            } else {
                self.store.mark_applied(id.index);
            }
        }
        // What was not committed at an index that is over never will be.
        if self.waiting.len() > 1_000 {
            let next = self.next;
            self.waiting.retain(|id, _| id.index >= next);
        }
        Ok(())
    }

    fn apply(&mut self, id: LogId, payload: &Bytes, sent: &SentByUsers, trace: &Trace) -> Verdict {
        let (Ok((stamp_ms, logged)), Ok(ops)) = (read_batch(payload), read_system(payload)) else {
            self.stuck = true;
            self.next -= 1;
            return Ok(());
        };
        let mut effects = Effects::default();
        self.store.apply(id.index, payload, &mut effects);
        if let Some(why) = effects.malformed {
            return Err((Promise::EntriesCanBeRead, format!("{id:?}: {why}")));
        }
        for (op, outcome) in ops.iter().zip(&effects.system) {
            self.raises.follow(id.index, op, outcome, trace)?;
        }
        (0..effects.duplicates).for_each(|_| trace.count("duplicates answered from the session"));
        (0..effects.rejected).for_each(|_| trace.count("commands fenced off"));
        (0..effects.gaps).for_each(|_| trace.count("groups refused for a gap"));
        for (session, first, count) in &effects.refused {
            (0..*count).for_each(|_| trace.count("commands refused for their users"));
            let executed = self.executed.get(session).copied().unwrap_or(0);
            users::check_refusal(id.index, *first, executed)?;
        }
        self.sessions(id, &effects.system, trace)?;
        let mut ran = Vec::new();
        // A number may be in several groups of an entry, of which one was executed.
        for (command, outcome) in logged.into_iter().zip(effects.outcomes) {
            let Some((session, seq, answer)) = outcome else {
                continue;
            };
            let last = self.executed.insert(session, seq).unwrap_or(0);
            if seq != last + 1 {
                let promise = match seq > last {
                    true => Promise::GapsAreRefused,
                    false => Promise::ExecutedOnce,
                };
                let seen =
                    format!("{id:?}: number {seq} of session {session} runs after number {last}");
                return Err((promise, seen));
            }
            let changes_users =
                self.rights
                    .ran(id.index, &command.command, &answer, sent, trace)?;
            if !changes_users && !SILENT.contains(&&command.command[..]) {
                let home = self.store.session(session).map(|session| session.node());
                trace.count(match home == Some(id.leader) {
                    true => "commands of the leader's own clients",
                    false => "commands forwarded",
                });
                ran.push((command.command, answer));
            }
        }
        self.entries.push(Entry {
            id,
            stamp_ms,
            seen_at: trace.micros(),
            ran,
        });
        Ok(())
    }

    /// What became of the entry's system operations.
    fn sessions(&mut self, id: LogId, outcomes: &[SystemOutcome], trace: &Trace) -> Verdict {
        let opens =
            |outcome: &&SystemOutcome| matches!(outcome, SystemOutcome::SessionOpened { .. });
        let is_admission =
            |outcome: &&SystemOutcome| matches!(outcome, SystemOutcome::NodeAdmitted { .. });
        for outcome in outcomes {
            match outcome {
                SystemOutcome::SessionOpened { id: session } => {
                    let Some(opened) = self.store.session(*session) else {
                        continue;
                    };
                    let of = (opened.node(), opened.boot());
                    if !self.opened.insert(of) {
                        let seen = format!("{id:?} opens another session for {of:?}");
                        return Err((Promise::OneSession, seen));
                    }
                }
                SystemOutcome::Refused {
                    why: Refusal::BootNotHigher { .. },
                } => trace.count("sessions asked for twice"),
                // Two that ask for a session at once are as common.
                SystemOutcome::Refused {
                    why: Refusal::Retry,
                } if outcomes.iter().any(|one| is_admission(&one))
                    && !outcomes.iter().any(|one| opens(&one)) =>
                {
                    trace.count("admissions that need another id");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The index up to which the log was followed.
    pub(crate) fn end(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// All entries.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The log for the checker.
    ///
    /// # Errors
    /// If it holds what no client sent.
    pub(crate) fn log(&self, operations: &Operations) -> Result<Vec<order::Entry>, String> {
        let ran = |(command, reply): &(Bytes, Reply)| {
            let asked = operations.command(command);
            Ok(order::Ran {
                command: asked.ok_or_else(|| format!("nobody asked for {command:?}"))?,
                answer: translate::answer(&reply.value),
                revision: reply.revision,
            })
        };
        let entry = |entry: &Entry| {
            Ok(order::Entry {
                stamp_ms: entry.stamp_ms,
                ran: entry.ran.iter().map(ran).collect::<Result<_, String>>()?,
            })
        };
        self.entries.iter().map(entry).collect()
    }
}

/// What the store said of one entry.
#[derive(Default)]
struct Effects {
    /// For each command of the batch, in order: its reply, if it was executed.
    outcomes: Vec<Option<(SessionId, u64, Reply)>>,
    duplicates: u64,
    rejected: u64,
    gaps: u64,
    /// Refused for a principal: session, first number, and how many.
    refused: Vec<(SessionId, u64, u64)>,
    system: Vec<SystemOutcome>,
    malformed: Option<DecodeError>,
}

impl Sink for Effects {
    fn reply(&mut self, session: SessionId, seq: u64, reply: &Reply) {
        self.outcomes.push(Some((session, seq, reply.clone())));
    }

    fn duplicate(&mut self, _: SessionId, _: u64, _: Option<&Reply>) {
        self.duplicates += 1;
        self.outcomes.push(None);
    }

    fn rejected(&mut self, session: SessionId, first: u64, count: u64, why: Rejected) {
        self.outcomes.extend((0..count).map(|_| None));
        match why {
            Rejected::Gap { .. } => self.gaps += 1,
            Rejected::UnknownSession => self.rejected += count,
            Rejected::Rights { .. } => self.refused.push((session, first, count)),
        }
    }

    fn system(&mut self, _: usize, outcome: &SystemOutcome) {
        self.system.push(outcome.clone());
    }

    fn malformed(&mut self, why: &DecodeError) {
        self.malformed = Some(why.clone());
    }
}
