//! Passwords are checked here: on threads of their own, because a slow hash takes some hundredths of a second,
//! and remembered, so that ten thousand connections of one user cost one run.
//!
//! Never keeps a password, and compares in constant time. Invariants: what waits is bounded; equal attempts
//! share one run; what is remembered counts only while the user still has that credential.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use hmac::{Hmac, Mac};
use memkv_node::lock::Mutex;
use sha2::Sha256;
use tokio::sync::{oneshot, watch};

use super::secret::{find_fast, find_slow};
use super::user::User;

/// Attempts that wait for a thread: a run takes some hundredths of a second, so the last one waits about six
/// seconds.
const MAX_WAITING: usize = 256;

/// Passwords that are remembered: more than there are users who have one, several times.
const MAX_REMEMBERED: usize = 16 * 1024;

/// An attempt, by the process's key: user and secret cannot be told from it.
type Mark = [u8; 32];

type Job = Box<dyn FnOnce() + Send>;

/// The outcome of an attempt once there is one: the credential that was shown.
type Outcome = Option<Option<u64>>;

/// There was no room among the attempts that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

/// See the module's documentation.
pub(crate) struct Authenticator {
    key: [u8; 32],
    remembered: Mutex<HashMap<Mark, u64>>,
    running: Arc<Mutex<HashMap<Mark, watch::Receiver<Outcome>>>>,
    pool: OnceLock<Option<SyncSender<Job>>>,
}

impl Default for Authenticator {
    fn default() -> Self {
        Self {
            key: rand::random(),
            remembered: Mutex::default(),
            running: Arc::default(),
            pool: OnceLock::new(),
        }
    }
}

impl Authenticator {
    fn mark(&self, name: &[u8], id: u64, secret: &[u8]) -> Mark {
        let mut mark: Hmac<Sha256> = Mac::new_from_slice(&self.key).expect("any key will do");
        mark.update(&id.to_le_bytes());
        mark.update(&(name.len() as u64).to_le_bytes());
        mark.update(name);
        mark.update(secret);
        mark.finalize().into_bytes().into()
    }

    /// Which of the user's credentials this is, if that can be told at once.
    pub(super) fn known(&self, user: &User, secret: &[u8], now_ms: u64) -> Option<u64> {
        if let Some(found) = find_fast(user, secret, now_ms) {
            return Some(found);
        }
        let mark = self.mark(&user.name, user.id, secret);
        let credential = *self.remembered.lock().get(&mark)?;
        user.accepts(user.id, credential).then_some(credential)
    }

    /// Which of the user's hashed passwords this is. It costs the same if there is no such user.
    pub(super) async fn find(
        &self,
        name: &[u8],
        user: Option<&Arc<User>>,
        password: &[u8],
    ) -> Result<Option<u64>, Busy> {
        let mark = self.mark(name, user.map_or(0, |user| user.id), password);
        let mut outcome = self.join(mark, user, password)?;
        let found = match outcome.wait_for(Option::is_some).await {
            Ok(found) => found.flatten(),
            // The run has ended without an outcome.
            Err(_gone) => return Err(Busy),
        };
        if let Some(credential) = found {
            let mut remembered = self.remembered.lock();
            if remembered.len() >= MAX_REMEMBERED {
                remembered.clear();
            }
            remembered.insert(mark, credential);
        }
        Ok(found)
    }

    /// The run of this attempt, which may have begun for another connection.
    fn join(
        &self,
        mark: Mark,
        user: Option<&Arc<User>>,
        password: &[u8],
    ) -> Result<watch::Receiver<Outcome>, Busy> {
        let mut running = self.running.lock();
        if let Some(outcome) = running.get(&mark) {
            return Ok(outcome.clone());
        }
        let (sender, outcome) = watch::channel(None);
        let (user, password) = (user.cloned(), password.to_vec());
        let all = self.running.clone();
        self.start(Box::new(move || {
            let found = find_slow(user.as_deref(), &password);
            all.lock().remove(&mark);
            // Nobody may be waiting any more.
            let _ = sender.send(Some(found));
        }))?;
        running.insert(mark, outcome.clone());
        Ok(outcome)
    }

    /// Runs work that hashes passwords.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let (sender, done) = oneshot::channel();
        self.start(Box::new(move || {
            // The client may have gone.
            let _ = sender.send(work());
        }))?;
        done.await.map_err(|_gone| Busy)
    }

    fn start(&self, job: Job) -> Result<(), Busy> {
        let pool = self.pool.get_or_init(start_threads).as_ref().ok_or(Busy)?;
        pool.try_send(job).map_err(|refused| match refused {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => Busy,
        })
    }
}

/// Half of the processors: the others are for clients and consensus. The threads end with the sender.
fn start_threads() -> Option<SyncSender<Job>> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let (sender, jobs) = sync_channel(MAX_WAITING);
    let jobs = Arc::new(Mutex::new(jobs));
    let mut started = 0;
    for _ in 0..(processors / 2).max(1) {
        let jobs = jobs.clone();
        let thread = thread::Builder::new().name("memkv-auth".to_owned());
        started += usize::from(thread.spawn(move || work(&jobs)).is_ok());
    }
    (started > 0).then_some(sender)
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().recv();
        match job {
            Ok(job) => job(),
            Err(_ended) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::Rights;
    use crate::rights::tests::table;

    #[tokio::test]
    async fn equal_attempts_share_one_run_and_the_next_need_none() {
        let authenticator = Authenticator::default();
        let table = table(&[("ann", &["on", ">secret"])]);
        let ann = table.get(b"ann").unwrap();
        assert_eq!(authenticator.known(ann, b"secret", 0), None);
        let first = authenticator.join([1; 32], Some(ann), b"secret").unwrap();
        let second = authenticator.join([1; 32], Some(ann), b"secret").unwrap();
        assert!(first.same_channel(&second));
        let found = authenticator
            .find(b"ann", Some(ann), b"secret")
            .await
            .unwrap();
        assert_eq!(found, ann.secrets.first().map(memkv_store::Secret::id));
        assert_eq!(authenticator.known(ann, b"secret", 0), found);
        assert_eq!(authenticator.known(ann, b"wrong", 0), None);
        assert_eq!(
            authenticator.find(b"ann", Some(ann), b"wrong").await,
            Ok(None)
        );
        assert_eq!(authenticator.find(b"bob", None, b"secret").await, Ok(None));
    }

    #[tokio::test]
    async fn what_is_remembered_ends_with_the_credential() {
        let authenticator = Authenticator::default();
        let old = table(&[("ann", &["on", ">secret"])]);
        let ann = old.get(b"ann").unwrap();
        authenticator
            .find(b"ann", Some(ann), b"secret")
            .await
            .unwrap();
        assert!(authenticator.known(ann, b"secret", 0).is_some());
        for ops in [&["on", ">other"][..], &["on"], &["off", ">secret"]] {
            let new = table(&[("ann", ops)]);
            let ann = new.get(b"ann").unwrap();
            assert_eq!(authenticator.known(ann, b"secret", 0), None, "{ops:?}");
        }
    }

    #[tokio::test]
    async fn attempts_that_wait_are_bounded() {
        let authenticator = Authenticator::default();
        let (go, gate) = sync_channel::<()>(0);
        let gate = Arc::new(Mutex::new(gate));
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let mut refused = 0;
        for _ in 0..MAX_WAITING + threads + 1 {
            let gate = gate.clone();
            let job = Box::new(move || {
                let _ = gate.lock().recv();
            });
            refused += usize::from(authenticator.start(job).is_err());
        }
        assert!(refused > 0);
        let rights = Rights::default();
        assert!(rights.table().get(b"default").is_some());
        drop(go);
    }
}
