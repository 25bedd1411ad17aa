//! The connections of this node, as `CLIENT LIST` shows them and `CLIENT KILL` ends them, and the
//! messages that wait for each of them. Never touches a socket.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use memkv_node::lock::Mutex;
use memkv_store::DEFAULT_USER;
use tokio::time::Instant;

use super::wake_flag::WakeFlag;
use crate::ledger::{Class, Held, Ledger};
use crate::rights::Identity;

/// Most bytes of messages that wait for one slow subscriber (32 MiB), as in Redis's
/// `client-output-buffer-limit pubsub`; beyond it the connection is closed. Less where clients may take
/// little memory.
const OUTBOX_BYTES: usize = 32 * 1024 * 1024;

/// While all clients together have too much output, a subscriber's messages may have its share of it, but
/// always so many bytes.
const LEAST_OUTBOX_BYTES: usize = 4 * 1024;

/// The cost of a message beside its bytes, about: so that empty ones are bounded as well.
const MESSAGE_OVERHEAD_BYTES: usize = 128;

/// The memory of a message that its receivers share, charged once; it is given back with the last of them.
pub(crate) type Shared = Option<Arc<Held>>;

/// A message to subscribers. Its bytes are shared by all receivers.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// `message`, `pmessage` or `smessage`.
    pub(crate) kind: &'static str,
    /// The pattern that matched, for `pmessage`.
    pub(crate) pattern: Option<Bytes>,
    /// Where it was published.
    pub(crate) channel: Bytes,
    /// What was published.
    pub(crate) payload: Bytes,
    /// The guard that pays for the bytes, if not each receiver.
    pub(crate) shared: Shared,
}

impl Message {
    /// What this receiver pays for.
    fn own(&self) -> usize {
        match self.shared {
            Some(_) => MESSAGE_OVERHEAD_BYTES,
            None => self.cost(),
        }
    }

    fn cost(&self) -> usize {
        let pattern = self.pattern.as_ref().map_or(0, Bytes::len);
        pattern + self.channel.len() + self.payload.len() + MESSAGE_OVERHEAD_BYTES
    }
}

/// A connection as others see it, updated by the connection itself once per turn.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    pub(crate) name: Bytes,
    pub(crate) lib_name: Bytes,
    pub(crate) lib_ver: Bytes,
    pub(crate) db: u8,
    pub(crate) resp: u8,
    /// Channels, patterns, shard channels.
    pub(crate) subscriptions: [usize; 3],
    /// Commands queued by MULTI.
    pub(crate) queued: Option<usize>,
    /// Keys watched.
    pub(crate) watched: usize,
    /// Who it is, once it has shown it.
    pub(crate) identity: Option<Identity>,
    /// Name of the last command.
    pub(crate) command: &'static str,
    pub(crate) last_active: Option<Instant>,
}

impl Shown {
    /// The name of its user, as Redis shows it: `(superuser)` is nobody here, so strangers are `default`.
    pub(crate) fn user_name(&self) -> &[u8] {
        let name = self
            .identity
            .as_ref()
            .map(|identity| &identity.user.name[..]);
        name.unwrap_or(DEFAULT_USER)
    }
}

#[derive(Debug, Default)]
struct Outbox {
    messages: VecDeque<Message>,
    /// In full, whether shared or not: what the limit is about.
    bytes: usize,
    /// What this receiver alone pays for.
    own: usize,
    held: Held,
}

impl Outbox {
    fn counted(held: Held) -> Self {
        Self {
            held,
            ..Self::default()
        }
    }
}

/// Messages in order, and the memory that they hold until they are written.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) messages: VecDeque<Message>,
    _held: Held,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) addr: SocketAddr,
    /// The address of this node that it came in on.
    pub(crate) local: SocketAddr,
    /// The user for whom its certificate stands.
    pub(crate) certified: Option<Bytes>,
    pub(crate) since: Instant,
    pub(crate) shown: Mutex<Shown>,
    outbox: Mutex<Outbox>,
    /// Woken when there is a message, or when the connection is to end.
    wake_flag: WakeFlag,
    killed: AtomicBool,
}

/// The most bytes of messages that may wait for one subscriber, of so many.
pub(crate) fn most_waiting(ledger: &Ledger, subscribers: usize) -> usize {
    if ledger.is_full(Class::Output) {
        let all = ledger.cap(Class::Output).unwrap_or(usize::MAX);
        return (all / subscribers.max(1)).max(LEAST_OUTBOX_BYTES);
    }
    OUTBOX_BYTES.min(ledger.most_of_one(Class::Output))
}

impl Client {
    /// Whether it has a subscription.
    pub(crate) fn is_listener(&self) -> bool {
        let shown = self.shown.lock();
        shown.subscriptions.iter().any(|count| *count > 0)
    }

    /// Queues a message; a connection that lets more than `most` bytes wait is ended. One message may
    /// always wait, however long it is: its bytes are there once for all subscribers.
    pub(crate) fn send(&self, message: Message, most: usize) {
        let mut outbox = self.outbox.lock();
        outbox.bytes += message.cost();
        outbox.own += message.own();
        if outbox.bytes > most && !outbox.messages.is_empty() {
            drop(outbox);
            return self.kill();
        }
        let own = outbox.own;
        outbox.held.set(own);
        outbox.messages.push_back(message);
        drop(outbox);
        self.wake_flag.wake();
    }

    /// What has waited, in order.
    pub(crate) fn take_messages(&self) -> Taken {
        let mut outbox = self.outbox.lock();
        if outbox.messages.is_empty() {
            return Taken::default();
        }
        let another = outbox.held.another();
        let outbox = mem::replace(&mut *outbox, Outbox::counted(another));
        Taken {
            messages: outbox.messages,
            _held: outbox.held,
        }
    }

    /// Ends the connection as soon as it notices.
    pub(crate) fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        let mut outbox = self.outbox.lock();
        let another = outbox.held.another();
        *outbox = Outbox::counted(another);
        drop(outbox);
        self.wake_flag.wake();
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Has the connection look what has changed.
    pub(crate) fn wake(&self) {
        self.wake_flag.wake();
    }

    /// Waits until there is a message or the connection is to end.
    pub(crate) async fn woken(&self) {
        self.wake_flag.woken().await;
    }

    /// The line of `CLIENT LIST`, without its end. What memkv does not count is 0.
    pub(crate) fn describe(&self) -> Vec<u8> {
        let shown = self.shown.lock().clone();
        let seconds = |at: Instant| at.elapsed().as_secs();
        let [sub, psub, ssub] = shown.subscriptions;
        let subscribed = sub + psub + ssub > 0;
        let flags = match (subscribed, shown.queued.is_some()) {
            (true, _) => "P",
            (_, true) => "x",
            _ => "N",
        };
        let user = shown.user_name();
        let multi = shown.queued.map_or(-1, |queued| queued as i64);
        let mut line = format!(
            "id={} addr={} laddr={} fd=0 name=",
            self.id, self.addr, self.local
        )
        .into_bytes();
        line.extend_from_slice(&shown.name);
        line.extend_from_slice(
            format!(
                " age={} idle={} flags={flags} db={} sub={sub} psub={psub} ssub={ssub} \
                 multi={multi} watch={} qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 \
                 obl=0 oll=0 omem={} tot-mem=0 events=r cmd={} user={} redir=-1 resp={} lib-name=",
                seconds(self.since),
                seconds(shown.last_active.unwrap_or(self.since)),
                shown.db,
                shown.watched,
                self.outbox.lock().bytes,
                shown.command,
                String::from_utf8_lossy(user),
                shown.resp,
            )
            .as_bytes(),
        );
        line.extend_from_slice(&shown.lib_name);
        line.extend_from_slice(b" lib-ver=");
        line.extend_from_slice(&shown.lib_ver);
        line
    }
}

/// All connections of this node that speak RESP.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    ledger: Ledger,
    last_id: AtomicU64,
    /// Of the connections that were accepted, those that are not counted any more.
    forgotten: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<Client>>>,
}

impl Clients {
    /// No connection; what waits for those to come is counted.
    pub(crate) fn counted(ledger: Ledger) -> Self {
        Self {
            ledger,
            ..Self::default()
        }
    }

    /// A new connection without a certificate.
    #[cfg(test)]
    pub(crate) fn add(&self, addr: SocketAddr, local: SocketAddr) -> Arc<Client> {
        self.add_certified(addr, local, None)
    }

    /// A new connection, and the user for whom its certificate stands; [`Clients::remove`] it when it has
    /// ended.
    pub(crate) fn add_certified(
        &self,
        addr: SocketAddr,
        local: SocketAddr,
        certified: Option<Bytes>,
    ) -> Arc<Client> {
        let client = Arc::new(Client {
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            addr,
            local,
            certified,
            since: Instant::now(),
            shown: Mutex::default(),
            outbox: Mutex::new(Outbox::counted(self.ledger.hold(Class::Output))),
            wake_flag: WakeFlag::default(),
            killed: AtomicBool::new(false),
        });
        self.open.lock().insert(client.id, client.clone());
        client
    }

    pub(crate) fn remove(&self, id: u64) {
        self.open.lock().remove(&id);
    }

    pub(crate) fn len(&self) -> usize {
        self.open.lock().len()
    }

    /// Connections accepted since the node was started, or since they were forgotten.
    pub(crate) fn total(&self) -> u64 {
        let all = self.last_id.load(Ordering::Relaxed);
        all.saturating_sub(self.forgotten.load(Ordering::Relaxed))
    }

    /// Forgets those that were accepted.
    pub(crate) fn reset_total(&self) {
        let all = self.last_id.load(Ordering::Relaxed);
        self.forgotten.store(all, Ordering::Relaxed);
    }

    /// All of them, in the order in which they came.
    pub(crate) fn all(&self) -> Vec<Arc<Client>> {
        self.open.lock().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Arc<Client> {
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        Clients::default().add(addr, addr)
    }

    #[tokio::test]
    async fn a_subscriber_that_does_not_read_is_ended_and_its_memory_freed() {
        let client = client();
        let message = Message {
            kind: "message",
            pattern: None,
            channel: Bytes::from_static(b"c"),
            payload: Bytes::from(vec![0; OUTBOX_BYTES / 4]),
            shared: None,
        };
        (0..3).for_each(|_| client.send(message.clone(), OUTBOX_BYTES));
        assert!(!client.is_killed());
        client.send(message, OUTBOX_BYTES);
        assert!(client.is_killed());
        client.woken().await;
        assert_eq!(client.take_messages().messages.len(), 0);
    }

    #[test]
    fn empty_messages_are_bounded_too() {
        let client = client();
        let message = Message {
            kind: "message",
            pattern: None,
            channel: Bytes::new(),
            payload: Bytes::new(),
            shared: None,
        };
        let most = OUTBOX_BYTES / MESSAGE_OVERHEAD_BYTES;
        (0..most).for_each(|_| client.send(message.clone(), OUTBOX_BYTES));
        assert!(!client.is_killed());
        client.send(message, OUTBOX_BYTES);
        assert!(client.is_killed());
    }

    #[test]
    fn a_full_ledger_leaves_each_subscriber_its_share_and_what_was_taken_counts_until_it_is_written()
     {
        let ledger = Ledger::small(8 * 1024 * 1024);
        assert_eq!(most_waiting(&ledger, 1000), 1024 * 1024);
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let client = Clients::counted(ledger.clone()).add(addr, addr);
        let message = Message {
            kind: "message",
            pattern: None,
            channel: Bytes::new(),
            payload: Bytes::from(vec![0; 5 * 1024 * 1024]),
            shared: None,
        };
        client.send(message, usize::MAX);
        assert_eq!(most_waiting(&ledger, 8), 512 * 1024);
        assert_eq!(most_waiting(&ledger, 1_000_000), LEAST_OUTBOX_BYTES);
        let taken = client.take_messages();
        assert!(ledger.is_full(Class::Output));
        drop(taken);
        assert_eq!(ledger.used(Class::Output), 0);
    }
}
