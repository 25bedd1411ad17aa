//! The append requests of one stream to one peer: when each leaves, and the answers in order.
//!
//! A request without entries carries only the commit index, by which the peer applies the entries that it
//! has. It waits a moment for the next request, which carries the same index and entries too: under
//! load that saves every second message. Invariants: requests are sent in the order of the engine; only a
//! request without entries is left out, and only where a later one carries its commit index.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{Stream, StreamExt};
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::time::Instant;

use super::TypeConfig;
use crate::read::commit_interest::CommitInterest;

/// Requests that have no answer yet. Each holds up to a megabyte; this many cover a round trip of
/// 10 ms at gigabytes per second.
const PIPELINE: usize = 8;
/// How long a request without entries waits for the next one. A client that waits at the peer for the
/// commit index has sent a request to the leader through that peer a moment ago, and for such a peer no
/// request is held ([`CommitInterest`]). Under load the next entry comes within a fraction of this.
const HOLD: Duration = Duration::from_millis(1);

pub(super) type Request = AppendEntriesRequest<TypeConfig>;
pub(super) type Answer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// The peer whose requests may be held, and what tells when they must not.
pub(super) struct Holding<'a> {
    pub(super) commit_interest: &'a CommitInterest,
    pub(super) peer: u64,
}

pub(super) struct Streaming<'a, S, F> {
    /// Where the next request comes from; none once the engine has no more.
    input: Option<S>,
    /// None for heartbeats, by which a leader confirms reads: they wait for nothing.
    holding: Option<Holding<'a>>,
    /// A request that waits, and until when.
    held: Option<(Request, Instant)>,
    send: F,
    sent: FuturesOrdered<BoxFuture<'static, Answer>>,
    /// Whether the peer has answered in this stream. Until then one request asks: to one that is away,
    /// megabytes of the log would be read again and again.
    answered: bool,
}

impl<'a, S, F> Streaming<'a, S, F>
where
    S: Stream<Item = Request> + Unpin,
    F: FnMut(Request) -> BoxFuture<'static, Answer>,
{
    pub(super) fn new(input: S, holding: Option<Holding<'a>>, send: F) -> Self {
        Self {
            input: Some(input),
            holding,
            held: None,
            send,
            sent: FuturesOrdered::new(),
            answered: false,
        }
    }

    /// Sends until an answer comes; none if none is missing and none will be.
    pub(super) async fn next_answer(&mut self) -> Option<Answer> {
        loop {
            let ended = self.input.is_none();
            if ended && self.sent.is_empty() && self.held.is_none() {
                return None;
            }
            let room = self.sent.len() < if self.answered { PIPELINE } else { 1 };
            let until = self.held.as_ref().map(|(_, until)| *until);
            tokio::select! {
                biased;
                Some(answer) = self.sent.next(), if !self.sent.is_empty() => {
                    self.answered = true;
                    return Some(answer);
                }
                request = next(&mut self.input), if room && !ended => self.take(request),
                () = may_leave(self.holding.as_ref(), until, ended), if room && until.is_some() => {
                    let held = self.held.take().map(|(request, _)| (self.send)(request));
                    self.sent.extend(held);
                }
            }
        }
    }

    fn take(&mut self, request: Option<Request>) {
        let Some(request) = request else {
            self.input = None;
            return;
        };
        // This request carries everything that a held one does.
        let held = self.held.take();
        if self.holding.is_some() && request.entries.is_empty() {
            let until = held.map_or_else(|| Instant::now() + HOLD, |(_, until)| until);
            self.held = Some((request, until));
        } else {
            self.sent.push_back((self.send)(request));
        }
    }
}

async fn next<S>(input: &mut Option<S>) -> Option<Request>
where
    S: Stream<Item = Request> + Unpin,
{
    input.as_mut()?.next().await
}

/// Ends when a held request need not wait any more: nothing can come that it would wait for, its
/// peer waits for it, or its time is up.
async fn may_leave(holding: Option<&Holding<'_>>, until: Option<Instant>, ended: bool) {
    if let (
        Some(Holding {
            commit_interest,
            peer,
        }),
        Some(until),
        false,
    ) = (holding, until, ended)
    {
        commit_interest.shown_or(*peer, until).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::sync::lock::Mutex;
    use futures_util::FutureExt;
    use openraft::entry::RaftEntry;
    use openraft::impls::leader_id_adv::LeaderId;
    use openraft::{EntryPayload, LogId};
    use tokio::sync::mpsc;

    use super::*;
    use crate::engine::{EngineLogId, Entry, Vote};

    const PEER: u64 = 2;

    fn id(index: u64) -> EngineLogId {
        let leader_id = LeaderId {
            term: 1,
            node_id: 1,
        };
        LogId { leader_id, index }
    }

    /// A request with the entries behind `prev` up to `last`.
    fn request(prev: u64, last: u64, commit: u64) -> Request {
        let entry = |index| Entry::new(id(index), EntryPayload::Blank);
        Request {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(id(prev)),
            leader_commit: Some(id(commit)),
            entries: (prev + 1..=last).map(entry).collect(),
        }
    }

    /// A sent request: the last index that it brings, and the commit index.
    type Sent = Arc<Mutex<Vec<(u64, u64)>>>;

    /// A stream that goes on while the test does something, and what it has sent by then.
    struct Run {
        commit_interest: Arc<CommitInterest>,
        engine: mpsc::UnboundedSender<Request>,
        sent: Sent,
        task: tokio::task::JoinHandle<()>,
    }

    impl Run {
        fn start(holds: bool) -> Run {
            let commit_interest = Arc::<CommitInterest>::default();
            let (engine, mut requests) = mpsc::unbounded_channel();
            let sent = Sent::default();
            let (noted, asks) = (sent.clone(), commit_interest.clone());
            let task = tokio::spawn(async move {
                let input = futures_util::stream::poll_fn(move |cx| requests.poll_recv(cx));
                let holding = holds.then_some(Holding {
                    commit_interest: &asks,
                    peer: PEER,
                });
                let send = |request: Request| {
                    let index = |id: Option<EngineLogId>| id.map_or(0, |id| id.index);
                    let last = request.entries.last().map(|entry| entry.log_id);
                    let last = last.or(request.prev_log_id);
                    noted
                        .lock()
                        .push((index(last), index(request.leader_commit)));
                    async move { Ok(Ok(last)) }.boxed()
                };
                let mut streaming = Streaming::new(input, holding, send);
                while streaming.next_answer().await.is_some() {}
            });
            Run {
                commit_interest,
                engine,
                sent,
                task,
            }
        }

        /// Hands the stream a request, and lets it do what it does without waiting.
        async fn give(&self, request: Request) {
            self.engine.send(request).unwrap();
            self.settle().await;
        }

        async fn settle(&self) {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }

        fn sent(&self) -> Vec<(u64, u64)> {
            self.sent.lock().clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_commit_index_goes_with_the_next_entry() {
        let run = Run::start(true);
        run.give(request(4, 5, 4)).await;
        assert_eq!(run.sent(), [(5, 4)], "entries wait for nothing");
        run.give(request(5, 5, 5)).await;
        tokio::time::advance(HOLD / 2).await;
        run.give(request(5, 6, 5)).await;
        assert_eq!(run.sent(), [(5, 4), (6, 5)]);
        tokio::time::sleep(2 * HOLD).await;
        assert_eq!(run.sent().len(), 2, "what was held has gone with the entry");
    }

    #[tokio::test(start_paused = true)]
    async fn alone_it_leaves_when_its_time_is_up_however_many_follow() {
        let run = Run::start(true);
        run.give(request(5, 5, 0)).await;
        assert_eq!(run.sent(), []);
        // The timer counts whole milliseconds, so it is twice that at most.
        for commit in 1..=4 {
            tokio::time::advance(HOLD / 2).await;
            run.give(request(5, 5, commit)).await;
        }
        assert_eq!(run.sent().len(), 1, "{:?}", run.sent());
    }

    #[tokio::test(start_paused = true)]
    async fn it_leaves_at_once_for_a_peer_that_has_asked() {
        let run = Run::start(true);
        run.give(request(5, 5, 5)).await;
        run.commit_interest.note(PEER + 1);
        run.settle().await;
        assert_eq!(run.sent(), [], "another one asked");
        run.commit_interest.note(PEER);
        run.settle().await;
        assert_eq!(run.sent(), [(5, 5)]);
        run.give(request(6, 6, 6)).await;
        assert_eq!(run.sent(), [(5, 5), (6, 6)], "and it still waits");
    }

    #[tokio::test(start_paused = true)]
    async fn it_leaves_at_once_where_nothing_follows() {
        let run = Run::start(true);
        run.engine.send(request(5, 5, 5)).unwrap();
        drop(run.engine);
        let begun = Instant::now();
        run.task.await.unwrap();
        assert_eq!(
            (run.sent.lock().clone(), begun.elapsed()),
            (vec![(5, 5)], Duration::ZERO)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_wait_for_nothing() {
        let run = Run::start(false);
        run.give(request(5, 5, 5)).await;
        assert_eq!(run.sent(), [(5, 5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_asks_whether_the_peer_is_there() {
        let sent = Sent::default();
        let (answers, may_answer) = tokio::sync::watch::channel(false);
        let input = futures_util::stream::iter((1..=20).map(|index| request(index, index + 1, 0)));
        let send = |request: Request| {
            sent.lock().push((request.entries.len() as u64, 0));
            let mut may_answer = may_answer.clone();
            async move {
                may_answer.wait_for(|may| *may).await.unwrap();
                Ok(Ok(None))
            }
            .boxed()
        };
        let mut streaming = Streaming::new(input, None, send);
        assert!(streaming.next_answer().now_or_never().is_none());
        assert_eq!(sent.lock().len(), 1);
        answers.send(true).unwrap();
        assert!(streaming.next_answer().await.is_some());
        answers.send(false).unwrap();
        assert!(streaming.next_answer().now_or_never().is_none());
        assert_eq!(sent.lock().len(), 1 + PIPELINE);
    }
}
