//! Forwarding sessions, which make every command execute exactly once.
//!
//! A node opens a session by a log entry and numbers its commands in it from 1. The table knows
//! the last number executed and the replies that the origin has not acknowledged, so that a
//! resent command is answered instead of executed. It never times a session out: only a log entry
//! ends one. Invariants: the cached replies are those of the last `replies.len()` numbers; a node
//! has at most one session; all nodes evict the same replies.

use std::collections::{BTreeMap, VecDeque};

use crate::{Refusal, Reply, SessionId};

/// Cached replies of one session may take this many bytes; the oldest go first. Far more than the
/// commands that a node keeps in flight, so that only a node that never acknowledges meets it.
pub const REPLY_CACHE_BYTES: usize = 16 * 1024 * 1024;

/// The assumed cost of a cached reply besides its value, in bytes. Fixed rather than measured, because
/// evictions must not depend on the build.
const REPLY_OVERHEAD_BYTES: usize = 48;

/// One node's stream of commands.
#[derive(Debug, Clone)]
pub struct Session {
    node: u64,
    boot: u64,
    last_seq: u64,
    replies: VecDeque<Reply>,
    reply_bytes: usize,
}

impl Session {
    pub(crate) fn new(node: u64, boot: u64, last_seq: u64) -> Session {
        Session {
            node,
            boot,
            last_seq,
            replies: VecDeque::new(),
            reply_bytes: 0,
        }
    }

    /// The node that opened the session.
    pub fn node(&self) -> u64 {
        self.node
    }

    /// The boot counter of that node when it opened the session.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// The sequence number of the last executed command; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The answer of command `seq`, as long as the origin has not acknowledged it and the cache has
    /// room.
    pub fn reply(&self, seq: u64) -> Option<&Reply> {
        let index = seq.checked_sub(self.first_cached())?;
        self.replies.get(usize::try_from(index).ok()?)
    }

    /// The sequence number of the oldest cached reply; one past the last if there is none.
    fn first_cached(&self) -> u64 {
        self.last_seq + 1 - self.replies.len() as u64
    }

    pub(crate) fn replies(&self) -> &VecDeque<Reply> {
        &self.replies
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.reply_bytes as u64
    }

    /// Drops the replies up to and including `seq`: the origin has them.
    pub(crate) fn acknowledge(&mut self, seq: u64) {
        while !self.replies.is_empty() && self.first_cached() <= seq {
            self.evict_oldest();
        }
    }

    /// Keeps the reply of the command that was executed just now, the next in sequence.
    pub(crate) fn record(&mut self, reply: Reply) {
        self.last_seq += 1;
        self.cache(reply);
    }

    /// Puts a reply behind the cached ones; only a snapshot's loader does so without executing.
    pub(crate) fn cache(&mut self, reply: Reply) {
        self.reply_bytes += cost(&reply);
        self.replies.push_back(reply);
        while self.reply_bytes > REPLY_CACHE_BYTES {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        if let Some(reply) = self.replies.pop_front() {
            self.reply_bytes -= cost(&reply);
        }
    }
}

fn cost(reply: &Reply) -> usize {
    REPLY_OVERHEAD_BYTES + reply.bulk_len()
}

/// All open sessions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions {
    open: BTreeMap<SessionId, Session>,
    /// The last id given: one entry gives its index only once, even if it closes that session.
    last_id: SessionId,
}

impl Sessions {
    pub(crate) fn get(&self, id: SessionId) -> Option<&Session> {
        self.open.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.open.get_mut(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.open.iter().map(|(id, session)| (*id, session))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.open.values().map(Session::memory_bytes).sum()
    }

    /// The node's session. A scan: there are as many sessions as nodes.
    pub(crate) fn of_node(&self, node: u64) -> Option<SessionId> {
        self.iter()
            .find(|(_, session)| session.node == node)
            .map(|(id, _)| id)
    }

    /// Opens session `id`, which ends the node's session of an earlier boot. A boot that is not
    /// higher belongs to an old disk, to a second process, or to a request sent twice.
    pub(crate) fn open(&mut self, id: SessionId, node: u64, boot: u64) -> Result<(), Refusal> {
        if id <= self.last_id {
            return Err(Refusal::Retry);
        }
        if let Some(session) = self.of_node(node) {
            let current = self.open[&session].boot;
            #[cfg(memkv_bugs)]
            let current = if crate::bugs::active(crate::bugs::Bug::ReopenSession) {
                current.saturating_sub(1)
            } else {
                current
            };
            if boot <= current {
                return Err(Refusal::BootNotHigher {
                    session,
                    boot: current,
                });
            }
            self.open.remove(&session);
        }
        self.open.insert(id, Session::new(node, boot, 0));
        self.last_id = id;
        Ok(())
    }

    /// Puts back a session of a snapshot; false if the id or the node has one already.
    pub(crate) fn restore(&mut self, id: SessionId, session: Session) -> bool {
        let free = id != 0 && !self.open.contains_key(&id) && self.of_node(session.node).is_none();
        if free {
            self.open.insert(id, session);
            self.last_id = self.last_id.max(id);
        }
        free
    }

    pub(crate) fn close(&mut self, session: SessionId) -> Result<(), Refusal> {
        self.open
            .remove(&session)
            .map(drop)
            .ok_or(Refusal::UnknownSession { session })
    }

    pub(crate) fn close_node(&mut self, node: u64) {
        self.open.retain(|_, session| session.node != node);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ReplyValue;

    fn reply(revision: u64) -> Reply {
        Reply {
            revision,
            value: ReplyValue::Ok,
        }
    }

    #[test]
    fn replies_stay_until_acknowledged() {
        let mut session = Session::new(1, 1, 0);
        (1..=5).for_each(|seq| session.record(reply(seq * 10)));
        assert_eq!(session.reply(0), None);
        assert_eq!(session.reply(1), Some(&reply(10)));
        assert_eq!(session.reply(5), Some(&reply(50)));
        assert_eq!(session.reply(6), None);
        session.acknowledge(3);
        assert_eq!(session.reply(3), None);
        assert_eq!(session.reply(4), Some(&reply(40)));
        session.acknowledge(u64::MAX);
        assert_eq!((session.reply(5), session.memory_bytes()), (None, 0));
        session.record(reply(60));
        assert_eq!(
            (session.last_seq(), session.reply(6)),
            (6, Some(&reply(60)))
        );
    }

    #[test]
    fn the_cache_is_bounded_and_the_oldest_go_first() {
        let mut session = Session::new(1, 1, 0);
        let value = ReplyValue::Bulk(Bytes::from(vec![0; 4 * 1024 * 1024]));
        (1..=4).for_each(|revision| {
            session.record(Reply {
                revision,
                value: value.clone(),
            })
        });
        assert_eq!(
            session.reply(1),
            None,
            "four such values and their overhead do not fit"
        );
        assert!((2..=4).all(|seq| session.reply(seq).is_some()));
        let huge = ReplyValue::Bulk(Bytes::from(vec![0; REPLY_CACHE_BYTES]));
        session.record(Reply {
            revision: 5,
            value: huge,
        });
        assert_eq!((session.reply(5), session.memory_bytes()), (None, 0));
        session.record(reply(6));
        assert_eq!(session.reply(6), Some(&reply(6)));
    }

    #[test]
    fn a_node_has_one_session_and_only_a_higher_boot_replaces_it() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.open(0, 1, 1), Err(Refusal::Retry));
        assert_eq!(sessions.open(10, 1, 5), Ok(()));
        assert_eq!(sessions.open(10, 2, 1), Err(Refusal::Retry));
        for boot in [4, 5] {
            let refusal = Refusal::BootNotHigher {
                session: 10,
                boot: 5,
            };
            assert_eq!(sessions.open(11, 1, boot), Err(refusal));
        }
        assert_eq!(sessions.open(12, 1, 6), Ok(()));
        assert!(sessions.get(10).is_none());
        assert_eq!(sessions.of_node(1), Some(12));
        assert_eq!(
            sessions.close(10),
            Err(Refusal::UnknownSession { session: 10 })
        );
        assert_eq!(sessions.close(12), Ok(()));
        assert_eq!(
            sessions.open(12, 1, 7),
            Err(Refusal::Retry),
            "an id is given once"
        );
        assert!(sessions.is_empty());
    }
}
