//! The simulated network: every peer link as connections that keep their order, lose, delay,
//! break, and deliver late what their sender has given up.
//!
//! Never looks into a request except for its kind, and promises what TCP promises: on one
//! connection, requests arrive in order, once, or not at all. What breaks a connection (a loss, a
//! partition that lasts, the death of either side) is answered with "lost", and what was on it may
//! still arrive later, beside the next connection's requests: late, and in the wrong order.
//! Invariant: "unreachable" is answered only for a request that never arrives.

mod link;
mod partition;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use memkv_node::{CallError, Frame, Lane, Node, Transport};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub use partition::{Cuts, Topology};

use crate::rng::Rng;
use crate::trace::Trace;
use link::{Message, Wire};

/// What the network does to messages. Chances are per million messages.
#[derive(Debug, Clone)]
pub struct Weather {
    /// Shortest time on the way, in microseconds.
    pub latency_us: u64,
    /// Up to this much is added, in microseconds.
    pub jitter_us: u64,
    /// A message takes up to [`Weather::spike_ms`] longer, and so do those behind it.
    pub spike: u64,
    /// Longest extra delay.
    pub spike_ms: u64,
    /// A message breaks its connection.
    pub loss: u64,
    /// A message arrives a second time, late; not on the lane of forwarded requests.
    pub duplicate: u64,
    /// What was on a broken connection arrives all the same, late.
    pub ghost: u64,
}

/// A chance per million that is none.
const ALWAYS: u64 = 1_000_000;

/// The process that listens on an address.
#[derive(Clone)]
pub struct Port {
    /// Counts the processes of this host, from 1.
    pub generation: u64,
    /// Takes the requests.
    pub node: Node,
    /// Becomes true when the process dies.
    pub dead: watch::Receiver<bool>,
}

/// Told of every delivery: sender, receiver and kind of request. Whether it wants more.
pub type Observer = Box<dyn FnMut(usize, usize, &'static str) -> bool + Send>;

/// Told of every request that a process sends: sender, and the request.
pub type Witness = Box<dyn Fn(usize, &Bytes) + Send + Sync>;

/// The network of one run.
pub struct Net {
    shared: Arc<Shared>,
}

/// What the connections' tasks share.
pub(crate) struct Shared {
    pub(crate) trace: Arc<Trace>,
    pub(crate) rng: Rng,
    state: Mutex<State>,
    /// Changes whenever links do.
    links: watch::Sender<u64>,
    observers: Mutex<Vec<Observer>>,
    witness: OnceLock<Witness>,
}

struct State {
    addresses: BTreeMap<String, usize>,
    ports: Vec<Option<Port>>,
    generations: Vec<u64>,
    /// Whether a host without a process says so: its system still runs.
    refuses: Vec<bool>,
    /// Links on which a firewall refuses connections, whatever listens behind it.
    firewalls: BTreeSet<(usize, usize)>,
    /// How late ghosts and duplicates are, where that is decided.
    late: Option<Duration>,
    cuts: Cuts,
    weather: Weather,
    is_calm: bool,
    wires: BTreeMap<(usize, usize, Lane), mpsc::UnboundedSender<Message>>,
}

impl Net {
    /// A network of hosts with these addresses, all links up, no process listening.
    pub fn new(addresses: &[String], weather: Weather, rng: Rng, trace: Arc<Trace>) -> Self {
        let nodes = addresses.len();
        let state = State {
            addresses: addresses.iter().cloned().zip(0..).collect(),
            ports: vec![None; nodes],
            generations: vec![0; nodes],
            refuses: vec![true; nodes],
            firewalls: BTreeSet::new(),
            late: None,
            cuts: Cuts::none(nodes),
            weather,
            is_calm: false,
            wires: BTreeMap::new(),
        };
        let shared = Shared {
            trace,
            rng,
            state: Mutex::new(state),
            links: watch::Sender::new(0),
            observers: Mutex::default(),
            witness: OnceLock::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Watches deliveries.
    pub fn observe(&self, observer: Observer) {
        self.shared.observers.lock().push(observer);
    }

    /// Tells of every request from now on, at the moment in which it is sent. There is one witness.
    pub fn witness(&self, witness: Witness) {
        // A second one has no effect.
        let _ = self.shared.witness.set(witness);
    }

    /// Removes all observers.
    pub fn ignore_all(&self) {
        self.shared.observers.lock().clear();
    }

    /// The network as a process of host `from` sees it.
    pub fn link(&self, from: usize, generation: u64, dead: watch::Receiver<bool>) -> Link {
        Link {
            shared: self.shared.clone(),
            from,
            generation,
            dead,
        }
    }

    /// A process of this host begins: what earlier ones sent is no longer its own.
    pub fn begin(&self, slot: usize, generation: u64) {
        self.shared.state.lock().generations[slot] = generation;
    }

    /// A host has this address from now on, and no other.
    pub fn readdress(&self, slot: usize, addr: String) {
        let mut state = self.shared.state.lock();
        state.addresses.retain(|_, of| *of != slot);
        state.addresses.insert(addr, slot);
    }

    /// A process listens.
    pub fn open(&self, slot: usize, port: Port) {
        self.shared.state.lock().ports[slot] = Some(port);
    }

    /// No process listens on this host any more; perhaps the whole machine is gone.
    pub fn close(&self, slot: usize) {
        let refuses = self.shared.rng.coin();
        let mut state = self.shared.state.lock();
        state.ports[slot] = None;
        state.refuses[slot] = refuses;
    }

    /// Decides whether a host without a process says so.
    pub fn answer_for_dead(&self, slot: usize, refuses: bool) {
        self.shared.state.lock().refuses[slot] = refuses;
    }

    /// What is on a connection that breaks arrives all the same, this much later.
    pub fn haunt(&self, late: Duration) {
        let mut state = self.shared.state.lock();
        state.weather.ghost = ALWAYS;
        state.late = Some(late);
    }

    /// A firewall refuses the connections of `from` to `to`, or does so no more.
    pub fn refuse(&self, from: usize, to: usize, refuses: bool) {
        let mut state = self.shared.state.lock();
        if refuses {
            state.firewalls.insert((from, to));
        } else {
            state.firewalls.remove(&(from, to));
        }
    }

    /// Replaces all cuts.
    pub fn cut(&self, cuts: Cuts) {
        self.shared.state.lock().cuts = cuts;
        self.shared.links.send_modify(|version| *version += 1);
    }

    /// Heals all links.
    pub fn heal(&self) {
        let nodes = self.shared.state.lock().ports.len();
        self.cut(Cuts::none(nodes));
    }

    /// Changes the weather, unless it is calm for good.
    pub fn set_weather(&self, weather: Weather) {
        let mut state = self.shared.state.lock();
        if !state.is_calm {
            state.weather = weather;
        }
    }

    /// From now on the network does nothing wrong, even if a storm ends later.
    pub fn calm_down(&self, fair: &Weather) {
        let mut state = self.shared.state.lock();
        state.weather = fair.calm();
        state.is_calm = true;
    }

    /// Whether the network does nothing wrong any more: faults are over.
    pub fn is_calm(&self) -> bool {
        self.shared.state.lock().is_calm
    }
}

impl Shared {
    pub(crate) fn port(&self, slot: usize) -> Option<Port> {
        self.state.lock().ports[slot].clone()
    }

    pub(crate) fn weather(&self) -> Weather {
        self.state.lock().weather.clone()
    }

    /// Whether this host's system answers for processes that are not there.
    pub(crate) fn refuses(&self, slot: usize) -> bool {
        self.state.lock().refuses[slot]
    }

    pub(crate) fn late(&self) -> Option<Duration> {
        self.state.lock().late
    }

    /// Whether a firewall refuses connections on this link.
    pub(crate) fn has_firewall(&self, from: usize, to: usize) -> bool {
        self.state.lock().firewalls.contains(&(from, to))
    }

    fn generation(&self, slot: usize) -> u64 {
        self.state.lock().generations[slot]
    }

    pub(crate) fn observe(&self, from: usize, to: usize, kind: &'static str) {
        self.observers
            .lock()
            .retain_mut(|observer| observer(from, to, kind));
    }

    /// Time on the way for a message of this size.
    pub(crate) fn latency(&self, bytes: usize) -> Duration {
        /// Bytes per microsecond: a gigabit link.
        const BANDWIDTH: u64 = 125;
        let weather = self.weather();
        let transfer = bytes as u64 / BANDWIDTH;
        let mut micros = weather.latency_us + self.rng.below(weather.jitter_us + 1) + transfer;
        if self.rng.chance(weather.spike) {
            micros += 1000 * self.rng.below(weather.spike_ms + 1);
        }
        self.rng.rounded(Duration::from_micros(micros))
    }

    /// Waits until the link works; `false` if it does not for as long as `patience`.
    pub(crate) async fn wait_open(
        &self,
        (from, to): (usize, usize),
        lane: Lane,
        patience: Duration,
    ) -> bool {
        let stops = || self.state.lock().cuts.stops(from, to, lane);
        if !stops() {
            return true;
        }
        let mut links = self.links.subscribe();
        let healed = async {
            // The sender lives as long as `self`.
            while stops() && links.changed().await.is_ok() {}
        };
        tokio::time::timeout(patience, healed).await.is_ok()
    }

    fn send(self: &Arc<Self>, from: usize, to: usize, lane: Lane, message: Message) {
        let mut state = self.state.lock();
        let wire = state.wires.entry((from, to, lane)).or_insert_with(|| {
            let (sender, queue) = mpsc::unbounded_channel();
            tokio::spawn(Wire::new(self.clone(), from, to, lane).run(queue));
            sender
        });
        // The task lives as long as the run.
        let _ = wire.send(message);
    }
}

/// One process's way into the network.
pub struct Link {
    shared: Arc<Shared>,
    from: usize,
    generation: u64,
    dead: watch::Receiver<bool>,
}

impl Transport for Link {
    fn call(
        &self,
        _name: &str,
        addr: &str,
        lane: Lane,
        request: Frame,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        if *self.dead.borrow() {
            // A dead process learns nothing any more.
            return Box::pin(std::future::pending());
        }
        let Some(to) = self.shared.state.lock().addresses.get(addr).copied() else {
            let why = format!("nobody has the address {addr}");
            return Box::pin(async move { Err(CallError::Unreachable(why)) });
        };
        let request = request.into_bytes();
        if let Some(witness) = self.shared.witness.get() {
            witness(self.from, &request);
        }
        let (answer, response) = oneshot::channel();
        let message = Message {
            generation: self.generation,
            arrives_at: Instant::now() + self.shared.latency(request.len()),
            request,
            answer: Some(answer),
        };
        self.shared.send(self.from, to, lane, message);
        Box::pin(async move {
            response
                .await
                .unwrap_or_else(|_| Err(CallError::Lost("the run is over".to_owned())))
        })
    }
}
