//! Messages of other nodes and events of keys, on their way to this node's subscribers.
//!
//! Both are delivered by tasks of their own, so that neither consensus nor applying ever waits for
//! subscribers. The queues of these tasks are bounded; the rest is dropped and counted.
//! Invariants: nothing is delivered twice; messages are in the order of their arrival, and
//! events in the order of the log.

use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use memkv_node::{Publication, Subscribers};
use memkv_store::KeyEvent;
use tokio::sync::oneshot;

use super::queue::{Queue, Taker, queue};
use super::server::{Server, Stats};

/// Most bytes of events that wait for delivery (32 MiB), as for one slow listener.
const WAITING_KEY_EVENTS: usize = 32 * 1024 * 1024;

/// The cost of an event beside its key, about.
const KEY_EVENT_OVERHEAD_BYTES: usize = 64;

/// Most bytes of messages from all nodes that wait for delivery (64 MiB): what two have under way at
/// most.
const WAITING_MESSAGES: usize = 64 * 1024 * 1024;

/// The cost of a message beside its bytes, about.
const MESSAGE_OVERHEAD_BYTES: usize = 512;

/// A message, and the caller that waits for the number of its receivers.
type Arrived = (Publication, oneshot::Sender<u64>);

/// This node's listeners, as the node sees them.
pub(super) struct Listeners {
    server: Arc<Server>,
    key_events: Queue<Vec<KeyEvent>>,
    messages: Queue<Arrived>,
}

impl Listeners {
    /// Starts the tasks that deliver, on the runtime that serves clients; they end with what is
    /// returned.
    pub(super) fn start(server: Arc<Server>) -> Self {
        let (events, taken) = queue(WAITING_KEY_EVENTS);
        let (messages, arrived) = queue(WAITING_MESSAGES);
        tokio::spawn(deliver_key_events(server.clone(), taken));
        tokio::spawn(deliver_messages(server.clone(), arrived));
        Self {
            server,
            key_events: events,
            messages,
        }
    }
}

impl Subscribers for Listeners {
    fn deliver(&self, publication: Publication) -> BoxFuture<'static, Option<u64>> {
        let bytes = publication.channel.len() + publication.payload.len() + MESSAGE_OVERHEAD_BYTES;
        let (delivered, count) = oneshot::channel();
        match self.messages.put((publication, delivered), bytes) {
            Ok(()) => count.map(Result::ok).boxed(),
            // The publisher's node counts it.
            Err(_) => ready(None).boxed(),
        }
    }

    fn has_listeners(&self) -> bool {
        self.server.subscriptions.has_listeners()
    }

    fn announce(&self, events: Vec<KeyEvent>) {
        let cost = |event: &KeyEvent| event.key.len() + KEY_EVENT_OVERHEAD_BYTES;
        let bytes = events.iter().map(cost).sum();
        if let Err(dropped) = self.key_events.put(events, bytes) {
            Stats::add(&self.server.stats.dropped_key_events, dropped.len());
        }
    }
}

async fn deliver_messages(server: Arc<Server>, mut arrived: Taker<Arrived>) {
    while let Some((publication, delivered)) = arrived.take().await {
        if !server.rights.are_fresh().await {
            // Its publisher counts nobody here.
            continue;
        }
        server.follow_users();
        let count = server
            .subscriptions
            .deliver(&server.aside, &server.ledger, &publication)
            .await;
        // Its publisher may have stopped waiting.
        let _ = delivered.send(count as u64);
    }
}

async fn deliver_key_events(server: Arc<Server>, mut taken: Taker<Vec<KeyEvent>>) {
    while let Some(events) = taken.take().await {
        if !server.rights.are_fresh().await {
            Stats::add(&server.stats.dropped_key_events, events.len());
            continue;
        }
        server.follow_users();
        for message in events.into_iter().flat_map(messages) {
            server
                .subscriptions
                .deliver(&server.aside, &server.ledger, &message)
                .await;
        }
    }
}

/// An event as Redis publishes it: to the key's channel, then to the event's.
fn messages(event: KeyEvent) -> impl Iterator<Item = Publication> {
    let KeyEvent {
        database,
        key,
        event,
        on_keyspace,
        on_keyevent,
    } = event;
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
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::ledger::Ledger;
    use crate::resp::Kind;
    use crate::rights::tests::replicated;

    fn server() -> Arc<Server> {
        let settings = crate::testing::resp_settings();
        Arc::new(Server::new(
            settings,
            Arc::default(),
            Ledger::default(),
            Arc::default(),
        ))
    }

    #[test]
    fn a_key_event_goes_to_the_channels_that_are_on() {
        let event = |on_keyspace, on_keyevent| KeyEvent {
            database: 3,
            key: Bytes::from_static(b"k\xff"),
            event: "set",
            on_keyspace,
            on_keyevent,
        };
        let shown = |event| {
            messages(event)
                .map(|message| (message.channel.to_vec(), message.payload.to_vec()))
                .collect::<Vec<_>>()
        };
        let keyspace = (b"__keyspace@3__:k\xff".to_vec(), b"set".to_vec());
        let keyevent = (b"__keyevent@3__:set".to_vec(), b"k\xff".to_vec());
        assert_eq!(
            shown(event(true, true)),
            [keyspace.clone(), keyevent.clone()]
        );
        assert_eq!(shown(event(true, false)), [keyspace]);
        assert_eq!(shown(event(false, true)), [keyevent]);
    }

    #[tokio::test]
    async fn key_events_that_wait_for_delivery_are_bounded() {
        let server = server();
        // The task that delivers does not run before this one waits.
        let listeners = Listeners::start(server.clone());
        let event = KeyEvent {
            database: 0,
            key: Bytes::from(vec![0; WAITING_KEY_EVENTS / 2]),
            event: "set",
            on_keyspace: true,
            on_keyevent: true,
        };
        for _ in 0..3 {
            listeners.announce(vec![event.clone()]);
        }
        let dropped = || server.stats.dropped_key_events.load(Ordering::Relaxed);
        assert_eq!(dropped(), 2);
        while listeners.key_events.waiting() > 0 {
            tokio::task::yield_now().await;
        }
        listeners.announce(vec![event]);
        assert_eq!(dropped(), 2);
    }

    /// The next message may come before the task that ends connections has run.
    #[tokio::test]
    async fn nothing_is_delivered_to_a_user_who_is_gone() {
        let event = KeyEvent {
            database: 0,
            key: Bytes::from_static(b"k"),
            event: "set",
            on_keyspace: true,
            on_keyevent: false,
        };
        for is_key_event in [false, true] {
            let server = server();
            let listens: &[&str] = &["on", "nopass", "allchannels"];
            let tables = [
                replicated(&[("ann", listens)]),
                replicated(&[("bob", listens), ("eve", listens)]),
            ];
            let (tables, is_gone) = (tables.map(Arc::new), Arc::new(AtomicBool::new(false)));
            let now = is_gone.clone();
            server.users_with(Box::new(move || {
                let at = usize::from(now.load(Ordering::Relaxed));
                tables.get(at).cloned()
            }));
            server.follow_users();
            let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
            let client = server.clients.add(addr, addr);
            client.shown.lock().identity = server.rights.certified(b"ann");
            let message = messages(event.clone()).next().unwrap();
            let name = [message.channel.clone()];
            let listen = server.subscriptions.listen(Kind::Channel, &name, &client);
            listen.unwrap();
            let listeners = Listeners::start(server.clone());
            for expected in [1, 0] {
                if is_key_event {
                    listeners.announce(vec![event.clone()]);
                    while listeners.key_events.waiting() > 0 {
                        tokio::task::yield_now().await;
                    }
                } else {
                    let count = listeners.deliver(message.clone()).await;
                    assert_eq!(count, Some(expected));
                }
                let got = client.take_messages().messages.len() as u64;
                assert_eq!(got, expected, "{is_key_event}");
                is_gone.store(true, Ordering::Relaxed);
            }
        }
    }

    #[tokio::test]
    async fn messages_of_other_nodes_wait_for_a_task_and_are_bounded() {
        let server = server();
        let listeners = Listeners::start(server.clone());
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let client = server.clients.add(addr, addr);
        let channel = Bytes::from_static(b"c");
        let name = [channel.clone()];
        server
            .subscriptions
            .listen(Kind::Channel, &name, &client)
            .unwrap();
        let message = |payload| Publication {
            is_shard: false,
            channel: channel.clone(),
            payload,
        };
        let small = |at: u8| message(Bytes::from(vec![at]));
        let counts: Vec<_> = (0..100).map(|at| listeners.deliver(small(at))).collect();
        // Nothing is matched or handed over on the caller's thread.
        assert_eq!(client.take_messages().messages.len(), 0);
        let large = message(Bytes::from(vec![0; WAITING_MESSAGES]));
        assert_eq!(listeners.deliver(large).await, None);
        for count in counts {
            assert_eq!(count.await, Some(1));
        }
        let got = client.take_messages().messages;
        let got: Vec<u8> = got.iter().map(|message| message.payload[0]).collect();
        assert_eq!(got, (0..100).collect::<Vec<_>>());
    }
}
