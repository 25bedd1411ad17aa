//! Keyspace notifications, from what the node has applied to messages for this node's listeners.
//!
//! They are delivered by a task of their own, so that applying never waits for listeners. What waits
//! for that task is bounded; what exceeds the bound is dropped and counted. Invariant: what is
//! delivered is delivered once and in the order of the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use memkv_raft::store::Notice;
use memkv_raft::{Publication, Subscribers};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::server::{Server, Stats};

/// Most bytes of notices that wait for delivery (32 MiB), as for one slow listener.
const WAITING_BYTES: usize = 32 * 1024 * 1024;

/// What a notice costs beside its key, about.
const NOTICE_OVERHEAD_BYTES: usize = 64;

/// This node's listeners, as the node sees them.
pub(super) struct Listeners {
    server: Arc<Server>,
    queue: UnboundedSender<(Vec<Notice>, usize)>,
    waiting: Arc<AtomicUsize>,
}

impl Listeners {
    /// Starts the task that delivers; it ends with what is returned.
    pub(super) fn start(server: Arc<Server>) -> Self {
        let (queue, notices) = unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        tokio::spawn(deliver(server.clone(), notices, waiting.clone()));
        Self {
            server,
            queue,
            waiting,
        }
    }
}

impl Subscribers for Listeners {
    fn deliver(&self, publication: &Publication) -> u64 {
        self.server.hub.deliver(publication) as u64
    }

    fn has_listeners(&self) -> bool {
        self.server.hub.has_listeners()
    }

    fn announce(&self, notices: Vec<Notice>) {
        let cost = |notice: &Notice| notice.key.len() + NOTICE_OVERHEAD_BYTES;
        let bytes = notices.iter().map(cost).sum();
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        if before > 0 && before + bytes > WAITING_BYTES {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            Stats::add(&self.server.stats.dropped_notices, notices.len());
            return;
        }
        // Fails only while the process ends.
        let _ = self.queue.send((notices, bytes));
    }
}

async fn deliver(
    server: Arc<Server>,
    mut queue: UnboundedReceiver<(Vec<Notice>, usize)>,
    waiting: Arc<AtomicUsize>,
) {
    while let Some((notices, bytes)) = queue.recv().await {
        for message in notices.into_iter().flat_map(messages) {
            server.hub.deliver(&message);
        }
        waiting.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A notice as Redis publishes it: to the key's channel, then to the event's.
fn messages(notice: Notice) -> impl Iterator<Item = Publication> {
    let Notice {
        database,
        key,
        event,
        on_keyspace,
        on_keyevent,
    } = notice;
    let event = Bytes::from_static(event.as_bytes());
    let message = |kind: &str, name: &Bytes, payload: &Bytes| {
        let channel = [format!("__{kind}@{database}__:").as_bytes(), name].concat();
        Publication {
            is_shard: false,
            channel: channel.into(),
            payload: payload.clone(),
        }
    };
    let keyspace = on_keyspace.then(|| message("keyspace", &key, &event));
    let keyevent = on_keyevent.then(|| message("keyevent", &event, &key));
    keyspace.into_iter().chain(keyevent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_goes_to_the_channels_that_are_on() {
        let notice = |on_keyspace, on_keyevent| Notice {
            database: 3,
            key: Bytes::from_static(b"k\xff"),
            event: "set",
            on_keyspace,
            on_keyevent,
        };
        let shown = |notice| {
            messages(notice)
                .map(|message| (message.channel.to_vec(), message.payload.to_vec()))
                .collect::<Vec<_>>()
        };
        let keyspace = (b"__keyspace@3__:k\xff".to_vec(), b"set".to_vec());
        let keyevent = (b"__keyevent@3__:set".to_vec(), b"k\xff".to_vec());
        assert_eq!(
            shown(notice(true, true)),
            [keyspace.clone(), keyevent.clone()]
        );
        assert_eq!(shown(notice(true, false)), [keyspace]);
        assert_eq!(shown(notice(false, true)), [keyevent]);
    }

    #[tokio::test]
    async fn what_waits_for_delivery_is_bounded() {
        let server = Arc::new(Server::new(crate::testing::resp_settings()));
        // The task that delivers does not run before this one waits.
        let listeners = Listeners::start(server.clone());
        let notice = Notice {
            database: 0,
            key: Bytes::from(vec![0; WAITING_BYTES / 2]),
            event: "set",
            on_keyspace: true,
            on_keyevent: true,
        };
        for _ in 0..3 {
            listeners.announce(vec![notice.clone()]);
        }
        let dropped = || server.stats.dropped_notices.load(Ordering::Relaxed);
        assert_eq!(dropped(), 2);
        while listeners.waiting.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
        listeners.announce(vec![notice]);
        assert_eq!(dropped(), 2);
    }
}
