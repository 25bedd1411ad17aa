//! Users and rights at the edge: who is on the other end of a connection, and what it may do.
//!
//! - `grammar` and `selector` are Redis's access lists; `names` are the commands of Redis that memkv lacks.
//! - `user` is the replicated table, compiled; `draft` a user while it is changed.
//! - `decide` is the one decision, for every interface.
//! - `fresh` is how long a node acts by rights that no majority confirms.
//! - `again` judges commands once more that were on their way when a right was taken away.
//! - `secret`, `authenticate` and `backoff` are passwords and tokens. `log` is `ACL LOG`.
//!
//! Never reads or writes clients' data. Invariant: what is decided depends on the table alone, whose revision
//! is part of the decision.

mod again;
mod authenticate;
mod backoff;
mod decide;
mod draft;
mod fresh;
mod grammar;
mod log;
mod names;
mod secret;
mod selector;
#[cfg(test)]
pub(crate) mod tests;
mod user;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use memkv_node::lock::Mutex;
use memkv_store::{BY_CERTIFICATE, DEFAULT_USER, NO_CREDENTIAL, UserSpec, UserTable};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::password::{Password, Shown};
use authenticate::Authenticator;
use backoff::Backoff;
use fresh::Freshness;

pub(crate) use again::JudgeAgain;
pub(crate) use authenticate::Busy;
pub(crate) use decide::{Attempt, Denied, Touches, decide};
pub(crate) use draft::Draft;
pub(crate) use fresh::Confirm;
pub(crate) use grammar::{Bad, Rules, merge};
pub(crate) use log::Log;
pub(crate) use secret::{new_token, shown};
pub(crate) use selector::CATEGORIES;
pub(crate) use user::{Identity, Table, User};

/// Between two changes that take away rights.
const TURN: Duration = Duration::from_millis(100);

/// The longest wait for a turn.
const MAX_TURN_WAIT: Duration = Duration::from_secs(5);

/// The revision while it is not known whether the cluster has a table: no connection ever goes by it.
const STARTING: u64 = u64::MAX;

/// The words for a client whose certificate stands for no user of the cluster, or for one that is off.
pub(crate) const CERTIFIED_GONE: &str =
    "the user for whom this certificate stands (tls_user_map) does not exist or is off";

/// Why one is not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthError {
    /// There is no such user, it is off, or it has another secret.
    Wrong,
    /// The user needs no password, and another machine asks.
    Exposed,
    /// Too many attempts wait.
    Busy,
}

impl From<Busy> for AuthError {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

/// A password as a table keeps it; this takes some hundredths of a second.
pub(crate) fn hash(password: &[u8]) -> Option<memkv_store::Secret> {
    secret::hash(password, &[])
}

/// The users with which a cluster begins: `default`, who may do everything, with the configured password or
/// without one.
pub(crate) fn first_users(password: Option<&Password>) -> Vec<(Bytes, UserSpec)> {
    let default = UserSpec {
        enabled: true,
        nopass: password.is_none(),
        secrets: password.map(Password::secret).into_iter().collect(),
        rules: Rules::everything().text().into(),
    };
    vec![(Bytes::from_static(DEFAULT_USER), default)]
}

/// The users of the cluster as this node knows them, and what it has seen of attempts.
pub struct Rights {
    table: Mutex<Arc<Table>>,
    /// Of that table, or [`STARTING`].
    revision: AtomicU64,
    /// The table is not older than the start of this process.
    is_known: watch::Sender<bool>,
    /// Whether one needs a password who names no user.
    clients_prove: Arc<AtomicBool>,
    /// With which a table would begin here.
    pub(crate) first: Vec<(Bytes, UserSpec)>,
    /// A user without a password may come from another machine.
    nopass_from_everywhere: bool,
    pub(crate) authenticator: Authenticator,
    backoff: Backoff,
    marks: RandomState,
    freshness: Freshness,
    /// When the next change may leave that takes away rights.
    next_turn: Mutex<Option<Instant>>,
    pub(crate) log: Log,
    /// Attempts to authenticate that failed.
    failures: AtomicU64,
    /// Calls that were refused.
    denials: AtomicU64,
}

impl Default for Rights {
    fn default() -> Self {
        Self::new(None, false)
    }
}

impl Rights {
    /// Of a node that is starting: the table of its cluster is not known. Nobody is judged until
    /// [`Rights::known`].
    #[must_use]
    pub fn starting(password: Option<&Password>, nopass_from_everywhere: bool) -> Self {
        let rights = Self::new(password, nopass_from_everywhere);
        rights.is_known.send_replace(false);
        rights.revision.store(STARTING, Ordering::Release);
        rights
    }

    /// Of a cluster that has no table: one user, with this password.
    #[must_use]
    pub fn new(password: Option<&Password>, nopass_from_everywhere: bool) -> Self {
        Self {
            table: Mutex::new(Arc::new(Table::alone(password))),
            revision: AtomicU64::new(0),
            is_known: watch::Sender::new(true),
            clients_prove: Arc::new(AtomicBool::new(password.is_some())),
            first: first_users(password),
            nopass_from_everywhere,
            authenticator: Authenticator::default(),
            backoff: Backoff::default(),
            marks: RandomState::new(),
            freshness: Freshness::default(),
            next_turn: Mutex::default(),
            log: Log::default(),
            failures: AtomicU64::new(0),
            denials: AtomicU64::new(0),
        }
    }

    /// The users.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.lock().clone()
    }

    /// From now on the table that is here is not older than the start of this process, or there is none.
    pub fn known(&self) {
        let table = self.table.lock();
        self.revision.store(table.revision, Ordering::Release);
        self.is_known.send_replace(true);
    }

    /// Whether that is so; waits for it, but no longer than `within`.
    pub(crate) async fn wait_known(&self, within: Duration) -> bool {
        let mut known = self.is_known.subscribe();
        let known = known.wait_for(|is_known| *is_known);
        matches!(tokio::time::timeout(within, known).await, Ok(Ok(_)))
    }

    /// Whether that is so.
    pub(crate) fn is_known(&self) -> bool {
        *self.is_known.borrow()
    }

    /// From now on a majority can be asked. A second call has no effect.
    pub(crate) fn confirm_with(&self, confirm: Confirm) {
        self.freshness.confirm_with(confirm);
    }

    /// Whether this node may act by the rights that it knows without asking anybody: while it waits for
    /// nothing, [`Rights::are_fresh`] decides.
    pub(crate) fn are_recent(&self) -> bool {
        self.revision() == 0 || self.freshness.is_recent()
    }

    /// The same; asks a majority if it has not for too long. True where there is no table.
    pub(crate) async fn are_fresh(&self) -> bool {
        self.revision() == 0 || self.freshness.is_fresh().await
    }

    /// Whether clients have to authenticate, now.
    pub(crate) fn clients_prove(&self) -> Arc<AtomicBool> {
        self.clients_prove.clone()
    }

    /// The revision of [`Rights::table`], or of no table before it is known; asked before every command.
    #[inline]
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Takes over the replicated table; whether it is another one than before.
    pub(crate) fn follow(&self, users: &UserTable) -> bool {
        let last = self.table();
        if users.revision() <= last.revision {
            return false;
        }
        // Compiled without the lock, which every connection takes.
        let next = Arc::new(Table::of(users, &last));
        let mut table = self.table.lock();
        if next.revision <= table.revision {
            return false;
        }
        *table = next;
        let default = table.default_user();
        let proves = !(default.enabled && default.nopass);
        self.clients_prove.store(proves, Ordering::Relaxed);
        if self.is_known() {
            self.revision.store(table.revision, Ordering::Release);
        }
        true
    }

    /// Who one is that has shown nothing; nobody, where the user `default` needs a password.
    pub(crate) fn stranger(&self, addr: IpAddr) -> Option<Identity> {
        let table = self.table();
        let user = table.default_user();
        let is_open = user.enabled && user.nopass && self.admits_without_password(addr);
        is_open.then(|| Identity {
            user: user.clone(),
            credential: NO_CREDENTIAL,
        })
    }

    /// Who one is whose certificate stands for this user; nobody, if there is no such user or it is off.
    pub(crate) fn certified(&self, name: &[u8]) -> Option<Identity> {
        let table = self.table();
        let user = table.get(name).filter(|user| user.enabled)?;
        Some(Identity {
            user: user.clone(),
            credential: BY_CERTIFICATE,
        })
    }

    /// Whether a user without a password may come from this address.
    fn admits_without_password(&self, addr: IpAddr) -> bool {
        self.nopass_from_everywhere || addr.to_canonical().is_loopback()
    }

    /// Finds out who shows this; `now_ms` is log time. Waits if the address has failed before.
    pub(crate) async fn authenticate(
        &self,
        addr: IpAddr,
        shown: &Shown<'_>,
        now_ms: u64,
    ) -> Result<Identity, AuthError> {
        let delay = self.backoff.delay(addr);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        self.authenticate_at_once(addr, shown, now_ms).await
    }

    /// Lets the next attempts from an address wait, as after a failure.
    pub(crate) fn delay(&self, addr: IpAddr) {
        self.backoff.failed(addr);
    }

    /// What a connection remembers of something that it has shown: it tells nothing of it, and it is enough
    /// to know it again, where that decides of a wait alone.
    pub(crate) fn mark(&self, shown: &str) -> u64 {
        self.marks.hash_one(shown)
    }

    /// The same without that wait. A failure counts once the users are known: before, the caller must not answer that
    /// it is one.
    ///
    /// For a connection that has shown just this before and was right: others
    /// of its address must not slow it down.
    pub(crate) async fn authenticate_at_once(
        &self,
        addr: IpAddr,
        shown: &Shown<'_>,
        now_ms: u64,
    ) -> Result<Identity, AuthError> {
        // What is wrong by an old table may be right by the present one.
        let counts = self.is_known();
        let result = self.check(addr, shown, now_ms).await;
        if counts && result.as_ref().is_err_and(|why| *why == AuthError::Wrong) {
            self.backoff.failed(addr);
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn check(
        &self,
        addr: IpAddr,
        shown: &Shown<'_>,
        now_ms: u64,
    ) -> Result<Identity, AuthError> {
        let table = self.table();
        let (name, user) = match shown.user {
            Some(name) => (name, table.get(name)),
            None => {
                let of_token = table.token_of(&secret::sha256(shown.secret));
                let user = of_token.unwrap_or(table.default_user());
                (&user.name[..], Some(user))
            }
        };
        let user = user.filter(|user| user.enabled);
        if let Some(user) = user {
            if user.nopass {
                let identity = Identity {
                    user: user.clone(),
                    credential: NO_CREDENTIAL,
                };
                let admitted = self.admits_without_password(addr).then_some(identity);
                return admitted.ok_or(AuthError::Exposed);
            }
            if let Some(found) = self.authenticator.known(user, shown.secret, now_ms) {
                // Without a table there is one password, with which the first table will begin.
                let first = user.secrets.first().filter(|_| !table.is_replicated());
                return Ok(Identity {
                    user: user.clone(),
                    credential: first.map_or(found, memkv_store::Secret::id),
                });
            }
        }
        // The one password of a cluster without a table was compared already.
        if !table.is_replicated() {
            return Err(AuthError::Wrong);
        }
        let found = self.authenticator.find(name, user, shown.secret).await?;
        match (user, found) {
            (Some(user), Some(credential)) => Ok(Identity {
                user: user.clone(),
                credential,
            }),
            _ => Err(AuthError::Wrong),
        }
    }

    /// How long a change that takes away rights waits: at most ten a second leave this node, because
    /// each makes commands that are under way be judged anew.
    ///
    /// # Errors
    /// Too many wait.
    pub(crate) fn turn_to_narrow(&self) -> Result<Duration, Busy> {
        let now = Instant::now();
        let mut next = self.next_turn.lock();
        let turn = next.map_or(now, |next| next.max(now));
        let wait = turn - now;
        if wait > MAX_TURN_WAIT {
            return Err(Busy);
        }
        *next = Some(turn + TURN);
        Ok(wait)
    }

    /// Counts a refused call.
    pub(crate) fn denied(&self) {
        self.denials.fetch_add(1, Ordering::Relaxed);
    }

    /// Attempts to authenticate that failed, and calls that were refused.
    pub(crate) fn counted(&self) -> [u64; 2] {
        [&self.failures, &self.denials].map(|count| count.load(Ordering::Relaxed))
    }
}
