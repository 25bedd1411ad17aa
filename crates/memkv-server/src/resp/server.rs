//! The state that all RESP connections of a node share: settings, the registries of connections and
//! of subscriptions, counters. Never waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use memkv_node::NodeStats;
use memkv_node::lock::Mutex;
use memkv_store::{KeyEventClasses, UserTable};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::clients::Clients;
use super::subscriptions::Subscriptions;
use crate::admission::{Counts, Full};
use crate::aside::Aside;
use crate::backend::Introspection;
use crate::commands::ErrorReply;
use crate::ledger::Ledger;
use crate::report::{Calls, Errors, SlowLog, Spikes};
use crate::rights::Rights;

/// The part of the configuration that RESP needs.
#[derive(Debug, Clone)]
pub struct RespSettings {
    /// Port that INFO names.
    pub port: u16,
    /// Largest value in bytes.
    pub max_value_bytes: usize,
    /// Client connections that may be open at once.
    pub max_connections: u64,
    /// A client that takes less than 1 KiB/s of its replies for this long is taken to have gone.
    pub write_stall: Duration,
    /// A client that sends nothing for this long is disconnected; none is never.
    pub idle_time: Option<Duration>,
    /// Which events of keys this node announces until the cluster is told.
    pub announce: KeyEventClasses,
    /// Whether an acknowledged write is on disks, and not only with the operating systems.
    pub sync: bool,
}

type Users = Box<dyn Fn() -> Option<Arc<UserTable>> + Send + Sync>;

type Introspect = Box<dyn Fn() -> Introspection + Send + Sync>;

type Measure = Box<dyn Fn() -> NodeStats + Send + Sync>;

/// Counters since the start or `CONFIG RESETSTAT`.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) commands: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) input_bytes: AtomicU64,
    pub(crate) output_bytes: AtomicU64,
    pub(crate) rejected: AtomicU64,
    /// Connections that were closed because they sent or read too slowly.
    pub(crate) slow: AtomicU64,
    /// Events of keys that were not delivered, because too many waited.
    pub(crate) dropped_key_events: AtomicU64,
}

impl Stats {
    /// Adds; nothing depends on the order in which others see it.
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn reset(&self) {
        for counter in [
            &self.commands,
            &self.errors,
            &self.input_bytes,
            &self.output_bytes,
            &self.rejected,
            &self.slow,
            &self.dropped_key_events,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// The shared state.
pub(crate) struct Server {
    pub(crate) settings: RespSettings,
    pub(crate) clients: Clients,
    pub(crate) subscriptions: Subscriptions,
    /// Where work is done that takes long for one client.
    pub(crate) aside: Arc<Aside>,
    /// The memory that clients take.
    pub(crate) ledger: Ledger,
    /// What admission counts.
    pub(crate) admission: Arc<Counts>,
    /// Users, and what each may do.
    pub(crate) rights: Arc<Rights>,
    pub(crate) stats: Stats,
    /// How often each command was called, and how long it took.
    pub(crate) calls: Calls,
    /// How often each kind of error was answered.
    pub(crate) errors: Errors,
    /// The last slow commands.
    pub(crate) slow_log: SlowLog,
    /// When something took long.
    pub(crate) spikes: Spikes,
    pub(crate) started: Instant,
    /// Differs with every start, 40 hex digits.
    pub(crate) run_id: String,
    /// `SHUTDOWN` was said.
    pub(crate) stop: Notify,
    introspect: OnceLock<Introspect>,
    measure: OnceLock<Measure>,
    /// The users of the cluster, as the node has them.
    users: OnceLock<Users>,
    /// The revision of the table of users that connections and subscriptions follow.
    enforced: AtomicU64,
    /// Held while they are made to.
    enforcing: Mutex<()>,
}

impl Server {
    pub(crate) fn new(
        settings: RespSettings,
        aside: Arc<Aside>,
        ledger: Ledger,
        rights: Arc<Rights>,
    ) -> Self {
        Self {
            settings,
            rights,
            clients: Clients::counted(ledger.clone()),
            ledger,
            admission: Arc::default(),
            subscriptions: Subscriptions::default(),
            aside,
            stats: Stats::default(),
            calls: Calls::default(),
            errors: Errors::default(),
            slow_log: SlowLog::default(),
            spikes: Spikes::default(),
            started: Instant::now(),
            run_id: rand::random::<[u8; 20]>()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            stop: Notify::new(),
            introspect: OnceLock::new(),
            measure: OnceLock::new(),
            users: OnceLock::new(),
            enforced: AtomicU64::new(0),
            enforcing: Mutex::new(()),
        }
    }

    /// From now on there is a node that has users. A second call has no effect.
    pub(crate) fn users_with(&self, users: Users) {
        let _ = self.users.set(users);
    }

    /// Goes by the users of the cluster as they are here now, and ends what they no longer allow. Called
    /// before anything is delivered to subscribers, and returns only once it is enforced, also by another
    /// task.
    pub(crate) fn follow_users(&self) {
        let Some(users) = self.users.get().and_then(|users| users()) else {
            return;
        };
        if self.enforced.load(Ordering::Acquire) >= users.revision() {
            return;
        }
        let _one = self.enforcing.lock();
        if self.rights.follow(&users) {
            self.enforce(&self.rights.table());
        }
        self.enforced.fetch_max(users.revision(), Ordering::Release);
    }

    /// `CONFIG RESETSTAT`: forgets what was counted, but neither slow commands nor spikes, as in Redis.
    pub(crate) fn reset_stats(&self) {
        self.stats.reset();
        self.calls.reset();
        self.errors.reset();
        self.clients.reset_total();
    }

    /// Counts a client for which there is no place; the error that says so.
    pub(crate) fn refused(&self, why: Full) -> ErrorReply {
        Stats::add(&self.stats.rejected, 1);
        match why {
            Full::Clients => ErrorReply::new("ERR max number of clients reached"),
            Full::Address(most) => ErrorReply::with(format!(
                "ERR max number of clients reached: {most} from one address; close some, or raise \
                 max_connections_per_address"
            )),
        }
    }

    /// From now on there is a node to describe. A second call has no effect.
    pub(crate) fn introspect_with(&self, introspect: Introspect) {
        let _ = self.introspect.set(introspect);
    }

    /// From now on there is a node that counts its work. A second call has no effect.
    pub(crate) fn measure_with(&self, measure: Measure) {
        let _ = self.measure.set(measure);
    }

    /// What the node has counted of its work; nothing while it loads its data.
    pub(crate) fn measured(&self) -> Option<NodeStats> {
        self.measure.get().map(|measure| measure())
    }

    /// What the node tells of itself; nothing while it loads its data.
    pub(crate) fn introspect(&self) -> Option<Introspection> {
        self.introspect.get().map(|introspect| introspect())
    }
}
