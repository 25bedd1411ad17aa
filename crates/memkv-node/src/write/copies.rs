//! The number of other nodes that have the writes which were acknowledged here: the answer to `WAIT`. The
//! leader knows it from the answers to its entries, so a follower asks the leader.
//!
//! Never counts a node on a guess: an unknown node is not counted. Invariant: only the leader of the
//! term in which this node follows it is believed. Its log has everything that was applied here, so a node
//! whose log agrees with it that far has that too.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use memkv_disk::WalHandle;
use tokio::time::Instant;

use crate::engine::handle::EngineSlot;
use crate::leadership::known::Leadership;
use crate::peer::client::Peers;
use crate::peer::encoding::{DecodeError, Reader, len32};
use crate::peer::message::{self, Kind};
use crate::replica::Replica;
use crate::{Frame, Lane};

/// Pauses between two questions: the first is about as long as an entry takes, and they double to one
/// with which thousands of waits for a dead node cost next to nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A leader that has not answered by then is asked again.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// The logs that have a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Copies {
    /// This node's log has it, as durably as it ever acknowledges.
    pub here: bool,
    /// The number of other members whose logs have it.
    pub elsewhere: u64,
}

impl Copies {
    fn are(self, wanted: Self) -> bool {
        (self.here || !wanted.here) && self.elsewhere >= wanted.elsewhere
    }
}

fn elsewhere(matched: &[(u64, u64)], me: u64, index: u64) -> u64 {
    let has = |(id, matched): &&(u64, u64)| *id != me && *matched >= index;
    matched.iter().filter(has).count() as u64
}

/// Counts the nodes that have the entries which were applied here.
#[derive(Clone)]
pub(crate) struct CopyCounter {
    pub(crate) replica: Arc<Replica>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) engine: EngineSlot,
    pub(crate) wal: WalHandle,
}

impl CopyCounter {
    /// Waits until so many other nodes have all that was applied here before this call, but no longer than
    /// `within`. Returns the copies by then, as far as a leader has told them.
    pub(crate) async fn wait(self, wanted: Copies, within: Option<Duration>) -> Copies {
        let deadline = within.and_then(|within| Instant::now().checked_add(within));
        let index = self.replica.applied_index();
        let mut pause = FIRST_PAUSE;
        let mut known = Copies::default();
        loop {
            if let Some(matched) = self.ask().await {
                known.elsewhere = elsewhere(&matched, self.peers.my_id(), index);
            }
            let durable = self.wal.durable();
            known.here = durable.is_some_and(|last| last.index >= index);
            let now = Instant::now();
            if known.are(wanted) || deadline.is_some_and(|deadline| deadline <= now) {
                return known;
            }
            let next = now + pause;
            tokio::time::sleep_until(deadline.map_or(next, |deadline| next.min(deadline))).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// The members' matched indexes, from the leader that this node follows or is.
    async fn ask(&self) -> Option<Vec<(u64, u64)>> {
        let leader = self.leadership.leader()?;
        if leader.id == self.peers.my_id() {
            return self.matched(leader.term);
        }
        let mut request = self.peers.envelope(Kind::Matched, leader.id);
        request.put_u64_le(leader.term);
        let request = Frame(vec![request.freeze()]);
        let call = self
            .peers
            .call(leader.id, Lane::Forward, request, ANSWER_WITHIN);
        let mut body = call.await.ok()?;
        // It may lead no more, or this node may have a newer leader by now.
        let read = body.list("matched indexes", |body| {
            Ok((body.u64("member id")?, body.u64("matched index")?))
        });
        read.ok()
            .filter(|_| self.leadership.leader() == Some(leader))
    }

    /// The matched indexes that this node knows as the leader of that term; none if it is not.
    fn matched(&self, term: u64) -> Option<Vec<(u64, u64)>> {
        let matched = self.engine.get()?.matched_in(term)?;
        let members = matched.members.into_iter();
        let known = members.filter_map(|(id, matched)| Some((id, matched?)));
        Some(known.collect())
    }

    /// Answers [`Kind::Matched`].
    pub(crate) fn answer(&self, mut body: Reader) -> Result<Frame, DecodeError> {
        let term = body.u64("term")?;
        Ok(match self.matched(term) {
            None => message::refused("this node does not lead in that term"),
            Some(matched) => message::ok(|out: &mut BytesMut| {
                out.put_u32_le(len32(matched.len()));
                for (id, index) in matched {
                    out.put_u64_le(id);
                    out.put_u64_le(index);
                }
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_other_nodes_that_have_it_all_are_counted() {
        let matched = [(1, 7), (2, 6), (3, 9)];
        assert_eq!(elsewhere(&matched, 1, 7), 1);
        assert_eq!(elsewhere(&matched, 1, 6), 2);
        assert_eq!(elsewhere(&matched, 2, 7), 2);
        assert_eq!(elsewhere(&matched, 4, 10), 0);
    }
}
