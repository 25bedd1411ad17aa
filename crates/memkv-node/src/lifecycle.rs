//! The life of a node's process: its tasks, the phase that its status shows, and how it ends.
//!
//! Never restarts anything: the first fatal error ends the process. Invariant: once the node has failed it
//! takes no command and introduces itself to no node; its engine answers until the process ends.

use std::future::Future;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::membership::life::{Life, State};
use crate::sync::lock::Mutex;
use crate::write::session::Session;
use crate::{FatalError, Phase};

/// Shared by all tasks of a process.
pub(crate) struct Lifecycle {
    /// The node's name, for log lines.
    name: String,
    life: Arc<Life>,
    /// Refuses commands once the node has failed.
    session: Arc<Session>,
    phase: Mutex<(Phase, String)>,
    /// Why there is no leader; empty while there is one.
    diagnosis: Mutex<String>,
    fatal: watch::Sender<Option<FatalError>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Lifecycle {
    pub(crate) fn new(name: String, life: Arc<Life>, session: Arc<Session>) -> Self {
        Self {
            name,
            life,
            session,
            phase: Mutex::new((Phase::Forming, String::new())),
            diagnosis: Mutex::default(),
            fatal: watch::Sender::new(None),
            tasks: Mutex::default(),
        }
    }

    /// Starts a task that ends with the node.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(&Handle::current(), task);
    }

    /// The same, on a certain runtime.
    pub(crate) fn spawn_on(
        &self,
        runtime: &Handle,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.tasks.lock().push(runtime.spawn(task).abort_handle());
    }

    pub(crate) fn set_phase(&self, phase: Phase, message: String) {
        let mut current = self.phase.lock();
        if current.1 != message && !message.is_empty() {
            tracing::info!(node = %self.name, "{message}");
        }
        *current = (phase, message);
    }

    /// The phase, and what the node waits for in it.
    pub(crate) fn phase(&self) -> (Phase, String) {
        self.phase.lock().clone()
    }

    /// Why there is no leader, as last diagnosed; empty while there is one.
    pub(crate) fn diagnosis(&self) -> String {
        self.diagnosis.lock().clone()
    }

    pub(crate) fn diagnose(&self, why: &str) {
        why.clone_into(&mut self.diagnosis.lock());
    }

    /// Why no leader takes a command. `leader` is the name of the one that this node knows.
    pub(crate) fn no_leader(&self, leader: Option<String>) -> String {
        let diagnosis = self.diagnosis();
        let (_, waits) = self.phase();
        if !waits.is_empty() && diagnosis.is_empty() {
            return waits;
        }
        match leader {
            Some(name) => format!("{name} leads and cannot reach a majority"),
            None if diagnosis.is_empty() => "an election is under way".to_owned(),
            None => diagnosis,
        }
    }

    /// Ends the node's life for this reason, unless there was one before.
    pub(crate) fn fail(&self, error: FatalError) {
        tracing::error!(node = %self.name, %error, "fatal");
        self.life.enter(State::Stopped);
        self.set_phase(Phase::Stopped, error.to_string());
        self.session.close();
        self.fatal.send_if_modified(|fatal| {
            let first = fatal.is_none();
            fatal.get_or_insert(error);
            first
        });
    }

    /// Tells the fatal error, once there is one.
    pub(crate) fn failures(&self) -> watch::Receiver<Option<FatalError>> {
        self.fatal.subscribe()
    }

    /// Stops all tasks; the node takes no command from now on.
    pub(crate) fn stop(&self) {
        self.life.enter(State::Stopped);
        self.session.close();
        for task in std::mem::take(&mut *self.tasks.lock()) {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn lifecycle() -> (Arc<Life>, Lifecycle) {
        let life = Arc::new(Life::resume(Bytes::new(), [1; 16]).unwrap());
        let session = Arc::new(Session::new(1, 64 << 20));
        (life.clone(), Lifecycle::new("n1".to_owned(), life, session))
    }

    #[test]
    fn the_first_fatal_error_stays_and_ends_the_life() {
        let (life, lifecycle) = lifecycle();
        lifecycle.fail(FatalError::Disk("first".to_owned()));
        lifecycle.fail(FatalError::Disk("second".to_owned()));
        let failures = lifecycle.failures();
        let first = FatalError::Disk("first".to_owned());
        assert_eq!(*failures.borrow(), Some(first));
        assert_eq!(life.state(), State::Stopped);
        assert_eq!(lifecycle.phase().0, Phase::Stopped);
    }

    #[test]
    fn the_missing_leader_is_explained_by_what_is_known_best() {
        let (_, lifecycle) = lifecycle();
        assert_eq!(lifecycle.no_leader(None), "an election is under way");
        let cut_off = lifecycle.no_leader(Some("n2".to_owned()));
        assert_eq!(cut_off, "n2 leads and cannot reach a majority");
        lifecycle.set_phase(Phase::Joining, "waits for its seat".to_owned());
        assert_eq!(lifecycle.no_leader(None), "waits for its seat");
        lifecycle.diagnose("n2 is not reachable");
        assert_eq!(lifecycle.no_leader(None), "n2 is not reachable");
        lifecycle.diagnose("");
        assert_eq!(lifecycle.no_leader(None), "waits for its seat");
    }

    #[tokio::test]
    async fn a_stop_ends_the_tasks() {
        let (_, lifecycle) = lifecycle();
        let (ends, ended) = tokio::sync::oneshot::channel::<()>();
        lifecycle.spawn(async move {
            std::future::pending::<()>().await;
            drop(ends);
        });
        lifecycle.stop();
        assert!(ended.await.is_err(), "its sender was dropped");
    }
}
