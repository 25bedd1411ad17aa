//! The node's record in its directory: its state of life and its feature level, durable before either is
//! shown or used.
//!
//! Never decides which state comes next (`form` does) and never raises a level (`raise` does). Invariant:
//! what peers can see of this node survives a crash.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use memkv_disk::WalHandle;
use tokio::sync::oneshot;

use crate::StartError;
use crate::membership::identity::Identity;
use crate::membership::levels::Levels;
use crate::membership::life::{Life, State};
use crate::peer::client::Peers;
use crate::write::session::Session;

/// Writes and shows this node's state of life.
pub(crate) struct Record {
    pub(crate) life: Arc<Life>,
    wal: WalHandle,
    peers: Arc<Peers>,
    session: Arc<Session>,
}

impl Record {
    pub(crate) fn new(
        life: Arc<Life>,
        wal: WalHandle,
        peers: Arc<Peers>,
        session: Arc<Session>,
    ) -> Self {
        Self {
            life,
            wal,
            peers,
            session,
        }
    }

    fn levels(&self) -> &Levels {
        &self.peers.levels
    }

    /// Goes on to another state of life, which is durable before it is shown.
    ///
    /// # Errors
    ///
    /// [`StartError::Load`] if the state may not follow or cannot be written.
    pub(crate) async fn advance(&self, next: State) -> Result<(), StartError> {
        let why = || StartError::Load(format!("{} may not follow", next.name()));
        // Not even the disk gets a state that may not follow.
        if !self.life.allows(&next) {
            return Err(why());
        }
        self.save(&next).await?;
        let why = why();
        let identity = match &next {
            State::Running(identity) => Some(identity.clone()),
            _ => None,
        };
        if !self.life.enter(next) {
            return Err(why);
        }
        match identity {
            Some(identity) => self.run_as(identity),
            None => Ok(()),
        }
    }

    /// Shows the identity that the engine will have.
    ///
    /// # Errors
    ///
    /// [`StartError::Load`] if this process has another identity already.
    pub(crate) fn run_as(&self, identity: Identity) -> Result<(), StartError> {
        let id = identity.node_id;
        if !self.peers.set_identity(identity) {
            let words = "an identity never changes while a process lives";
            return Err(StartError::Load(words.to_owned()));
        }
        self.levels()
            .persisted(self.life.level.load(Ordering::Acquire));
        self.session.identify(id);
        Ok(())
    }

    /// Makes a state durable, with the boot counter.
    ///
    /// # Errors
    ///
    /// [`StartError::Load`] if the disk does not take it.
    pub(crate) async fn save(&self, state: &State) -> Result<(), StartError> {
        let (tx, rx) = oneshot::channel();
        let done = Box::new(move |result| drop(tx.send(result)));
        let record = self.life.record(state);
        self.wal.save_identity(record, self.peers.boot, done);
        let saved = rx
            .await
            .unwrap_or_else(|_| Err(std::io::Error::other("the WAL stopped")));
        saved.map_err(|error| StartError::Load(format!("cannot save the identity: {error}")))
    }

    /// Makes a level of the cluster one that is in use here: writes it down first.
    ///
    /// # Errors
    ///
    /// [`StartError::Load`] if it cannot be written.
    pub(crate) async fn use_level(&self, level: u32) -> Result<(), StartError> {
        if self.levels().in_use() >= level {
            return Ok(());
        }
        let _one = self.levels().writing.lock().await;
        let state = self.life.state();
        if self.levels().in_use() >= level || !matches!(state, State::Running(_)) {
            return Ok(());
        }
        self.life.level.fetch_max(level, Ordering::AcqRel);
        self.save(&state).await?;
        self.levels().persisted(level);
        tracing::info!(node = %self.peers.me.name, level, "the cluster's feature level is in use here");
        Ok(())
    }
}
