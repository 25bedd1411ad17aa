//! Messages of PUBLISH on their way to the other nodes: at most once, in each publisher's order,
//! beside the log and without a leader.
//!
//! Never retries a message, never keeps one and never waits long: a publisher waits once for a peer
//! that has stopped answering, and from then on not at all, until a probe finds that it answers
//! again. What is under way to a peer is bounded; what exceeds the bound is dropped and counted.
//! Invariant: a message to a peer that is up and connected takes its place on the lane before
//! `publish` returns, whether or not its answer is waited for.

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::sync::lock::Mutex;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use memkv_store::KeyEvent;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::peer::client::Peers;
use crate::peer::encoding::{DecodeError, Reader, len32};
use crate::peer::message::{self, Kind};
use crate::{Frame, Lane};

/// Most bytes of one message, channel and payload together: the largest value and the largest key.
pub const MAX_PUBLICATION_BYTES: usize = (64 << 20) + (64 << 10);

/// Most bytes of a channel's name, as of a key.
pub const MAX_CHANNEL_BYTES: usize = 64 << 10;

/// How long a publisher waits for the nodes' counts. Longer than a round trip on earth and than the
/// hiccups of a healthy node; a peer that exceeds it is not waited for again before it has answered.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// How long an answer is expected that is not waited for. Then the message is dropped, unless
/// it is on the wire already.
const FORGET_AFTER: Duration = Duration::from_secs(5);
/// Pause between two probes of a peer that does not answer.
const PROBE_PAUSE: Duration = Duration::from_millis(250);
/// Most bytes of messages under way to one peer, as for one subscriber that reads slowly. One
/// message is always let through, however large.
const UNDER_WAY_BYTES: usize = 32 << 20;
/// Memory of a message in flight beside its bytes, about: so that empty ones are bounded too.
const OVERHEAD_BYTES: usize = 512;

/// A message for all listeners of its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Whether the channel is one of `SPUBLISH`, whose listeners are others than those of `PUBLISH`.
    pub is_shard: bool,
    /// Where it is published; at most [`MAX_CHANNEL_BYTES`], but for what a node tells of a key.
    pub channel: Bytes,
    /// The message. With the channel at most [`MAX_PUBLICATION_BYTES`].
    pub payload: Bytes,
}

impl Publication {
    fn encode(&self) -> [Bytes; 2] {
        let mut head = BytesMut::with_capacity(5 + self.channel.len());
        head.put_u8(u8::from(self.is_shard));
        head.put_u32_le(len32(self.channel.len()));
        head.put_slice(&self.channel);
        [head.freeze(), self.payload.clone()]
    }

    pub(crate) fn decode(mut body: Reader) -> Result<Self, DecodeError> {
        let is_shard = body.bool("whether it is for a shard channel")?;
        let channel = body.blob("channel")?;
        if channel.len() > MAX_CHANNEL_BYTES {
            return Err(DecodeError::Bad {
                what: "length of a channel",
                value: channel.len() as u64,
            });
        }
        Ok(Self {
            is_shard,
            // Copies: a subscriber that reads slowly must not hold the buffer that it came in.
            channel: Bytes::copy_from_slice(&channel),
            payload: Bytes::copy_from_slice(&body.0),
        })
    }
}

/// The listeners on this node. No method ever waits, or takes longer for more listeners: it is called
/// on the thread that consensus runs on.
pub trait Subscribers: Send + Sync {
    /// Takes on a message that another node published, to be delivered in the order of the calls;
    /// resolves to how many got it, and to nothing if too many wait already.
    fn deliver(&self, publication: Publication) -> BoxFuture<'static, Option<u64>>;

    /// Whether any channel has a listener. Once a subscription is acknowledged, it is
    /// true.
    fn has_listeners(&self) -> bool;

    /// Hands on what was done to keys, in the order of the log.
    fn announce(&self, events: Vec<KeyEvent>);
}

/// A peer as publishers see it.
#[derive(Default)]
struct Peer {
    /// It did not answer lately, so its answers are not waited for.
    silent: AtomicBool,
    under_way: AtomicUsize,
}

/// All of a node's publishing.
#[derive(Default)]
pub(crate) struct Publisher {
    subscribers: OnceLock<Box<dyn Subscribers>>,
    peers: Mutex<BTreeMap<u64, Arc<Peer>>>,
    /// Rings when a peer has fallen silent.
    silence: Notify,
    /// Messages that some peer did not confirm: dropped here, refused there, or lost on the way.
    pub(crate) unconfirmed: AtomicU64,
}

impl Publisher {
    /// Sets where messages are delivered. A second call has no effect.
    pub(crate) fn subscribe(&self, subscribers: Box<dyn Subscribers>) {
        let _ = self.subscribers.set(subscribers);
    }

    pub(crate) fn subscribers(&self) -> Option<&dyn Subscribers> {
        self.subscribers.get().map(|subscribers| &**subscribers)
    }

    pub(crate) fn has_listeners(&self) -> bool {
        self.subscribers().is_some_and(Subscribers::has_listeners)
    }

    fn peer(&self, id: u64) -> Arc<Peer> {
        self.peers.lock().entry(id).or_default().clone()
    }

    fn fall_silent(&self, peer: &Peer) {
        if !peer.silent.swap(true, Ordering::Relaxed) {
            self.silence.notify_one();
        }
    }
}

/// A message's share of what may be under way to a peer.
struct Share {
    peer: Arc<Peer>,
    bytes: usize,
}

impl Share {
    fn take(peer: &Arc<Peer>, bytes: usize) -> Option<Self> {
        let before = peer.under_way.fetch_add(bytes, Ordering::Relaxed);
        let share = Self {
            peer: peer.clone(),
            bytes,
        };
        (before == 0 || before + bytes <= UNDER_WAY_BYTES).then_some(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.peer.under_way.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The count that a peer will answer.
struct Waiting {
    peer: Arc<Peer>,
    answer: BoxFuture<'static, u64>,
}

/// Sends a message to all other nodes; resolves to the number of listeners there that got it.
pub(crate) fn publish(
    publisher: &Arc<Publisher>,
    peers: &Peers,
    publication: &Publication,
) -> impl Future<Output = u64> + Send + use<> {
    let me = peers.my_id();
    let body = publication.encode();
    let bytes = publication.channel.len() + publication.payload.len() + OVERHEAD_BYTES;
    let mut waiting = Vec::new();
    for member in peers.members() {
        if member.id == me {
            continue;
        }
        let peer = publisher.peer(member.id);
        let Some(share) = Share::take(&peer, bytes) else {
            publisher.unconfirmed.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let header = peers.envelope(Kind::Publish, member.id).freeze();
        let request = Frame([&[header], &body[..]].concat());
        let (name, addr) = (&member.name, &member.addr);
        let call = peers.call_addr(name, addr, Lane::Publish, request, FORGET_AFTER);
        let (publisher, of) = (publisher.clone(), peer.clone());
        let answer = Box::pin(async move {
            let _share = share;
            let count = call.await.ok().and_then(|mut body| body.u64("count").ok());
            if count.is_none() {
                publisher.unconfirmed.fetch_add(1, Ordering::Relaxed);
                publisher.fall_silent(&of);
            }
            count.unwrap_or(0)
        });
        if peer.silent.load(Ordering::Relaxed) {
            tokio::spawn(answer);
        } else {
            waiting.push(Waiting { peer, answer });
        }
    }
    let publisher = publisher.clone();
    // From here on, and not from the first poll: a pipeline does not wait once per message.
    let deadline = Instant::now() + ANSWER_WITHIN;
    async move { count(&publisher, waiting, deadline).await }
}

async fn count(publisher: &Publisher, waiting: Vec<Waiting>, deadline: Instant) -> u64 {
    let mut total = 0;
    for Waiting { peer, mut answer } in waiting {
        let is_silent = peer.silent.load(Ordering::Relaxed);
        let deadline = if is_silent { Instant::now() } else { deadline };
        // An answer that has come already counts, however late it is asked for.
        match timeout_at(deadline, &mut answer).await {
            Ok(count) => total += count,
            Err(_) => {
                publisher.fall_silent(&peer);
                // Dropping it would take the message back if it has not been sent.
                tokio::spawn(answer);
            }
        }
    }
    total
}

/// A peer's message. In line before this returns: the order of arrival is the order of delivery.
pub(crate) fn receive(
    publisher: &Publisher,
    body: Reader,
) -> Result<BoxFuture<'static, Frame>, DecodeError> {
    let publication = Publication::decode(body)?;
    let delivered = match publisher.subscribers() {
        Some(subscribers) => subscribers.deliver(publication),
        None => Box::pin(ready(Some(0))),
    };
    Ok(Box::pin(async move {
        match delivered.await {
            Some(count) => message::ok(|out| out.put_u64_le(count)),
            None => message::refused("too many messages wait here for delivery"),
        }
    }))
}

/// Finds out which of the silent peers answer again. Costs nothing while all do.
pub(crate) async fn probe(publisher: Arc<Publisher>, peers: Arc<Peers>) {
    loop {
        publisher.silence.notified().await;
        loop {
            tokio::time::sleep(PROBE_PAUSE).await;
            let members = peers.members();
            let mut silent = {
                let mut peers = publisher.peers.lock();
                peers.retain(|id, _| members.iter().any(|member| member.id == *id));
                peers.clone()
            };
            silent.retain(|_, peer| peer.silent.load(Ordering::Relaxed));
            if silent.is_empty() {
                break;
            }
            let probes = silent.into_iter().map(|(id, peer)| {
                let hello = Frame(vec![peers.envelope(Kind::Hello, id).freeze()]);
                let call = peers.call(id, Lane::Publish, hello, ANSWER_WITHIN);
                async move {
                    // Behind everything on the lane, so a peer that answers this has caught up.
                    if call.await.is_ok() {
                        peer.silent.store(false, Ordering::Relaxed);
                    }
                }
            });
            futures_util::future::join_all(probes).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_survives_the_wire_and_a_cut_head_is_refused() {
        let publication = Publication {
            is_shard: true,
            channel: Bytes::from_static(b"news"),
            payload: Bytes::from_static(b"x"),
        };
        let whole = Bytes::from(publication.encode().concat());
        let read = Publication::decode(Reader(whole.clone())).unwrap();
        assert_eq!(read, publication);
        for len in 0..whole.len() - 1 {
            assert!(Publication::decode(Reader(whole.slice(..len))).is_err());
        }
    }

    #[test]
    fn what_is_under_way_to_a_peer_is_bounded_and_one_message_always_goes() {
        let peer = Arc::<Peer>::default();
        let large = Share::take(&peer, 2 * UNDER_WAY_BYTES).expect("the only one");
        assert!(Share::take(&peer, 1).is_none());
        drop(large);
        let all: Vec<_> = (0..UNDER_WAY_BYTES / OVERHEAD_BYTES)
            .map(|_| Share::take(&peer, OVERHEAD_BYTES).expect("within the bound"))
            .collect();
        assert!(Share::take(&peer, OVERHEAD_BYTES).is_none());
        drop(all);
        assert_eq!(peer.under_way.load(Ordering::Relaxed), 0);
    }
}
