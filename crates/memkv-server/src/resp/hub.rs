//! Who listens to which channel on this node. Messages live nowhere: who does not listen does not
//! get them, as in Redis.
//!
//! The seam to other nodes: [`Hub::deliver`] hands a message to this node's listeners and says how
//! many there were. `PUBLISH` calls it for a message that began here, and so does the node for one
//! that began at another.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use memkv_raft::Publication;
use memkv_resp::glob_match;
use parking_lot::Mutex;

use super::clients::{Client, Message};

/// What one can listen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Channel,
    Pattern,
    /// Channels of cluster clients, which never match patterns.
    Shard,
}

type Listeners = BTreeMap<u64, Arc<Client>>;

/// The registry. Invariant: no entry without a listener.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    tables: Mutex<[HashMap<Bytes, Listeners>; 3]>,
    /// Subscriptions to channels and patterns.
    subscriptions: AtomicUsize,
}

impl Hub {
    pub(crate) fn listen(&self, kind: Kind, name: Bytes, client: &Arc<Client>) {
        let mut tables = self.tables.lock();
        let listeners = tables[kind as usize].entry(name).or_default();
        let before = listeners.insert(client.id, client.clone());
        if before.is_none() && kind != Kind::Shard {
            self.subscriptions.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub(crate) fn leave(&self, kind: Kind, name: &Bytes, client: u64) {
        let mut tables = self.tables.lock();
        if let Some(listeners) = tables[kind as usize].get_mut(name) {
            if listeners.remove(&client).is_some() && kind != Kind::Shard {
                self.subscriptions.fetch_sub(1, Ordering::SeqCst);
            }
            if listeners.is_empty() {
                tables[kind as usize].remove(name);
            }
        }
    }

    /// Whether anybody listens to a channel or a pattern; asked for every entry that is applied.
    pub(crate) fn has_listeners(&self) -> bool {
        self.subscriptions() > 0
    }

    /// How many subscriptions to channels and patterns there are.
    pub(crate) fn subscriptions(&self) -> usize {
        self.subscriptions.load(Ordering::SeqCst)
    }

    /// Hands a message to this node's listeners; how many times it was handed over.
    pub(crate) fn deliver(&self, publication: &Publication) -> usize {
        let Publication {
            is_shard,
            channel,
            payload,
        } = publication;
        let is_shard = *is_shard;
        let tables = self.tables.lock();
        let kind = if is_shard { Kind::Shard } else { Kind::Channel };
        let mut sent = 0;
        let mut send = |listeners: &Listeners, kind, pattern: Option<&Bytes>| {
            for client in listeners.values() {
                client.send(Message {
                    kind,
                    pattern: pattern.cloned(),
                    channel: channel.clone(),
                    payload: payload.clone(),
                });
                sent += 1;
            }
        };
        if let Some(listeners) = tables[kind as usize].get(channel) {
            send(
                listeners,
                if is_shard { "smessage" } else { "message" },
                None,
            );
        }
        if !is_shard {
            for (pattern, listeners) in &tables[Kind::Pattern as usize] {
                if glob_match(pattern, channel, false) {
                    send(listeners, "pmessage", Some(pattern));
                }
            }
        }
        sent
    }

    /// Names that somebody listens to, in their order.
    pub(crate) fn names(&self, kind: Kind) -> Vec<Bytes> {
        let mut names: Vec<_> = self.tables.lock()[kind as usize].keys().cloned().collect();
        names.sort_unstable();
        names
    }

    pub(crate) fn count(&self, kind: Kind, name: &[u8]) -> usize {
        self.tables.lock()[kind as usize]
            .get(name)
            .map_or(0, Listeners::len)
    }
}
