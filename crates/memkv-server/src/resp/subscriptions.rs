//! The subscribers of each channel on this node. Messages are not kept: a connection that is not
//! subscribed when a message is published does not get it, as in Redis.
//!
//! The seam to other nodes: [`Subscriptions::deliver`] hands a message to this node's subscribers and
//! returns their number. `PUBLISH` calls it for a message that began here, and so does the task that takes
//! those of other nodes.
//!
//! Never matches a pattern while it holds its lock, and never on the thread that consensus runs on.
//! Invariants: no entry without a listener; a subscription is in the table before it is confirmed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use memkv_node::Publication;
use memkv_node::lock::Mutex;
use memkv_resp::{Pattern, PatternTooLong};

use super::clients::{Client, Message, most_waiting};
use crate::aside::Aside;
use crate::ledger::{Class, Ledger};

/// Most different patterns of all connections, each of which is compared with the channel of each
/// message. Eight connections may use all they may have.
const MAX_PATTERNS: usize = 8 * 1024;

/// Most bytes of different patterns (512 KiB): the worst of them take a second for the longest channel.
const MAX_PATTERN_BYTES: usize = 512 * 1024;

/// Most subscriptions of all connections, and most bytes of their names (64 MiB).
const MAX_SUBSCRIPTIONS: usize = 1024 * 1024;
const MAX_NAME_BYTES: usize = 64 * 1024 * 1024;

/// Memory of a subscription beside its name, about: the list of the channel's listeners, the entry in
/// it, and the entries of the name in two tables.
const SUBSCRIPTION_BYTES: usize = 512;

/// Memory of a pattern for each of its bytes: the table that a slow one is matched by.
const PATTERN_FACTOR: usize = 40;

/// Messages from here on are charged once for all receivers (1 KiB); of smaller ones each receiver pays its
/// own.
const SHARED_BYTES: usize = 1024;

/// Memory of a subscription.
pub(crate) fn memory_of(kind: Kind, name: &Bytes) -> usize {
    let of_name = match kind {
        Kind::Channel | Kind::Shard => name.len(),
        Kind::Pattern => PATTERN_FACTOR * name.len(),
    };
    SUBSCRIPTION_BYTES + of_name
}

/// A kind of subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Channel,
    Pattern,
    /// Channels of cluster clients, which never match patterns.
    Shard,
}

/// Why nothing was subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Pattern(#[from] PatternTooLong),
    #[error(
        "this node's connections listen to at most {MAX_PATTERNS} different patterns with \
         {MAX_PATTERN_BYTES} bytes together"
    )]
    Patterns,
    #[error(
        "this node's connections have at most {MAX_SUBSCRIPTIONS} subscriptions with \
         {MAX_NAME_BYTES} bytes together"
    )]
    Subscriptions,
}

type Listeners = BTreeMap<u64, Arc<Client>>;

/// Patterns as they were at one moment, to be compared without the lock.
type Patterns = Arc<[Arc<Pattern>]>;

#[derive(Debug, Default)]
struct Tables {
    listeners: [HashMap<Bytes, Listeners>; 3],
    /// Those with subscribers.
    patterns: HashMap<Bytes, Arc<Pattern>>,
    pattern_bytes: usize,
    /// Of `patterns`, until they change.
    snapshot: Option<Patterns>,
    subscriptions: usize,
    name_bytes: usize,
}

impl Tables {
    fn snapshot(&mut self) -> Patterns {
        let patterns = &self.patterns;
        let make = || patterns.values().cloned().collect();
        self.snapshot.get_or_insert_with(make).clone()
    }

    fn check(&self, names: &[Bytes], patterns: &[Arc<Pattern>]) -> Result<(), Refused> {
        let bytes: usize = names.iter().map(Bytes::len).sum();
        if self.subscriptions + names.len() > MAX_SUBSCRIPTIONS
            || self.name_bytes + bytes > MAX_NAME_BYTES
        {
            return Err(Refused::Subscriptions);
        }
        let is_new = |pattern: &&Arc<Pattern>| !self.patterns.contains_key(pattern.as_bytes());
        let (mut count, mut bytes) = (self.patterns.len(), self.pattern_bytes);
        for pattern in patterns.iter().filter(is_new) {
            count += 1;
            bytes += pattern.as_bytes().len();
        }
        if count > MAX_PATTERNS || bytes > MAX_PATTERN_BYTES {
            return Err(Refused::Patterns);
        }
        Ok(())
    }

    fn add_pattern(&mut self, pattern: Arc<Pattern>) {
        let name = pattern.as_bytes().clone();
        let bytes = name.len();
        if self.patterns.insert(name, pattern).is_none() {
            self.pattern_bytes += bytes;
            self.snapshot = None;
        }
    }

    fn remove_pattern(&mut self, name: &Bytes) {
        if self.patterns.remove(name).is_some() {
            self.pattern_bytes -= name.len();
            self.snapshot = None;
        }
    }

    /// Hands a message to the present subscribers of its channel or of a pattern that matches.
    fn hand_over(&self, ledger: &Ledger, publication: &Publication, matching: &[Bytes]) -> usize {
        let Publication {
            is_shard,
            channel,
            payload,
        } = publication;
        let mut sent = 0;
        let bytes = channel.len() + payload.len();
        let shared = (bytes >= SHARED_BYTES).then(|| {
            let mut held = ledger.hold(Class::Output);
            held.set(bytes);
            Arc::new(held)
        });
        let most = most_waiting(ledger, self.subscriptions);
        let mut send = |listeners: &Listeners, kind, pattern: Option<&Bytes>| {
            for client in listeners.values() {
                let message = Message {
                    kind,
                    pattern: pattern.cloned(),
                    channel: channel.clone(),
                    payload: payload.clone(),
                    shared: shared.clone(),
                };
                client.send(message, most);
                sent += 1;
            }
        };
        let (kind, verb) = if *is_shard {
            (Kind::Shard, "smessage")
        } else {
            (Kind::Channel, "message")
        };
        if let Some(listeners) = self.listeners[kind as usize].get(channel) {
            send(listeners, verb, None);
        }
        for pattern in matching {
            if let Some(listeners) = self.listeners[Kind::Pattern as usize].get(pattern) {
                send(listeners, "pmessage", Some(pattern));
            }
        }
        sent
    }
}

/// The registry.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    tables: Mutex<Tables>,
    /// Subscriptions to channels and patterns.
    subscriptions: AtomicUsize,
}

impl Subscriptions {
    /// Listens to all of `names`, which are different and new to the client, or to none.
    pub(crate) fn listen(
        &self,
        kind: Kind,
        names: &[Bytes],
        client: &Arc<Client>,
    ) -> Result<(), Refused> {
        let mut patterns = Vec::new();
        if kind == Kind::Pattern {
            for name in names {
                patterns.push(Arc::new(Pattern::new(name.clone())?));
            }
        }
        let mut tables = self.tables.lock();
        tables.check(names, &patterns)?;
        for pattern in patterns {
            tables.add_pattern(pattern);
        }
        for name in names {
            let listeners = tables.listeners[kind as usize]
                .entry(name.clone())
                .or_default();
            if listeners.insert(client.id, client.clone()).is_none() {
                tables.subscriptions += 1;
                tables.name_bytes += name.len();
                self.count(kind, 1);
            }
        }
        Ok(())
    }

    pub(crate) fn leave(&self, kind: Kind, name: &Bytes, client: u64) {
        let mut tables = self.tables.lock();
        let Some(listeners) = tables.listeners[kind as usize].get_mut(name) else {
            return;
        };
        let was_there = listeners.remove(&client).is_some();
        let is_empty = listeners.is_empty();
        if was_there {
            tables.subscriptions -= 1;
            tables.name_bytes -= name.len();
            self.count(kind, -1);
        }
        if is_empty {
            tables.listeners[kind as usize].remove(name);
            if kind == Kind::Pattern {
                tables.remove_pattern(name);
            }
        }
    }

    /// The subscriptions of the clients that are asked for, by their numbers.
    pub(crate) fn of_clients(&self, is_asked: &dyn Fn(u64) -> bool) -> Vec<(Kind, Bytes, u64)> {
        let mut all = Vec::new();
        let tables = self.tables.lock();
        for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
            for (name, listeners) in &tables.listeners[kind as usize] {
                let clients = listeners.keys().filter(|client| is_asked(**client));
                all.extend(clients.map(|client| (kind, name.clone(), *client)));
            }
        }
        all
    }

    fn count(&self, kind: Kind, by: isize) {
        if kind != Kind::Shard {
            self.subscriptions
                .fetch_add(by.cast_unsigned(), Ordering::SeqCst);
        }
    }

    /// Whether a channel or a pattern has a subscriber; asked for every entry that is applied.
    pub(crate) fn has_listeners(&self) -> bool {
        self.total() > 0
    }

    /// How many subscriptions to channels and patterns there are.
    pub(crate) fn total(&self) -> usize {
        self.subscriptions.load(Ordering::SeqCst)
    }

    /// Hands a message to this node's listeners; how many times it was handed over.
    pub(crate) async fn deliver(
        &self,
        aside: &Aside,
        ledger: &Ledger,
        publication: &Publication,
    ) -> usize {
        let patterns = {
            let mut tables = self.tables.lock();
            if publication.is_shard || tables.patterns.is_empty() {
                return tables.hand_over(ledger, publication, &[]);
            }
            tables.snapshot()
        };
        let channel = &publication.channel;
        let steps = patterns.iter().map(|pattern| pattern.steps(channel)).sum();
        let matching = || -> Vec<Bytes> {
            let matching = patterns.iter().filter(|pattern| pattern.matches(channel));
            matching.map(|pattern| pattern.as_bytes().clone()).collect()
        };
        let matching = aside.run(steps, matching).await;
        // Who has left meanwhile gets nothing any more.
        self.tables.lock().hand_over(ledger, publication, &matching)
    }

    /// Names with subscribers, in their order.
    pub(crate) fn names(&self, kind: Kind) -> Vec<Bytes> {
        let tables = self.tables.lock();
        let mut names: Vec<_> = tables.listeners[kind as usize].keys().cloned().collect();
        drop(tables);
        names.sort_unstable();
        names
    }

    /// The number of names with subscribers.
    pub(crate) fn len(&self, kind: Kind) -> usize {
        self.tables.lock().listeners[kind as usize].len()
    }

    /// How many listen to a name.
    pub(crate) fn listeners(&self, kind: Kind, name: &[u8]) -> usize {
        self.tables.lock().listeners[kind as usize]
            .get(name)
            .map_or(0, Listeners::len)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::clients::Clients;
    use super::*;

    fn names(range: std::ops::Range<usize>, bytes: usize) -> Vec<Bytes> {
        let name = |at| Bytes::from(format!("{at:0bytes$}"));
        range.map(name).collect()
    }

    fn clients() -> [Arc<Client>; 2] {
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let clients = Clients::default();
        [clients.add(addr, addr), clients.add(addr, addr)]
    }

    #[test]
    fn the_patterns_of_all_connections_are_bounded_and_shared_ones_count_once() {
        let (subscriptions, [client, other]) = (Subscriptions::default(), clients());
        let all = names(0..MAX_PATTERNS, 8);
        subscriptions.listen(Kind::Pattern, &all, &client).unwrap();
        subscriptions.listen(Kind::Pattern, &all, &other).unwrap();
        assert_eq!(subscriptions.total(), 2 * MAX_PATTERNS);
        let more = names(MAX_PATTERNS..MAX_PATTERNS + 1, 8);
        let refused = subscriptions.listen(Kind::Pattern, &more, &client);
        assert_eq!(refused, Err(Refused::Patterns));
        for name in &all {
            subscriptions.leave(Kind::Pattern, name, client.id);
            subscriptions.leave(Kind::Pattern, name, other.id);
        }
        assert_eq!(
            (subscriptions.total(), subscriptions.len(Kind::Pattern)),
            (0, 0)
        );
        let long = names(0..MAX_PATTERN_BYTES / 1024 + 1, 1024);
        let refused = subscriptions.listen(Kind::Pattern, &long, &client);
        assert_eq!(refused, Err(Refused::Patterns));
        // A refused command has subscribed to nothing, and what was left is free again.
        subscriptions
            .listen(Kind::Pattern, &long[1..], &client)
            .unwrap();
        assert_eq!(subscriptions.total(), long.len() - 1);
    }

    #[test]
    fn the_names_of_all_subscriptions_are_bounded() {
        let (subscriptions, [client, _]) = (Subscriptions::default(), clients());
        let bytes = 32 * 1024;
        let all = names(0..MAX_NAME_BYTES / bytes, bytes);
        subscriptions.listen(Kind::Channel, &all, &client).unwrap();
        let refused = subscriptions.listen(Kind::Shard, &names(0..1, 1), &client);
        assert_eq!(refused, Err(Refused::Subscriptions));
        subscriptions.leave(Kind::Channel, &all[0], client.id);
        subscriptions
            .listen(Kind::Shard, &names(0..1, 1), &client)
            .unwrap();
        assert_eq!(subscriptions.total(), all.len() - 1);
    }
}
