//! How long the other side's certificate lets a connection live: to the end of the chain that was shown, and
//! only while the set in force accepts it, for the same user. So a revoked certificate ends connections that
//! are open. Never asks for a new one: the other side connects again.
//!
//! New files cost a connection some look-ups. Only where the CAs are others is its chain verified again, on the
//! thread of handshakes. Invariant: a connection does no work before its lease was looked at.

use std::borrow::BorrowMut;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use super::accept::AbortOnDrop;
use super::certificate::{Certificate, NotANode};
use super::lists::{Listed, Named};
use super::set::{CaId, Set};

/// How often the wall clock is looked at: it may be set.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The certificate of the other side.
pub(crate) struct Lease {
    chain: Vec<CertificateDer<'static>>,
    /// The same chain, by what lists name.
    named: Vec<Named>,
    not_after: i64,
    is_peer: bool,
    /// For whom it stands.
    user: Option<Bytes>,
    /// The CAs under which the chain was verified.
    ca: CaId,
    set: watch::Receiver<Arc<Set>>,
    handshakes: Handle,
}

impl Lease {
    /// Of a chain that was verified under the CAs `ca`.
    ///
    /// # Errors
    /// One of its certificates cannot be read.
    pub(super) fn new(
        chain: &[CertificateDer<'static>],
        is_peer: bool,
        user: Option<Bytes>,
        ca: CaId,
        set: watch::Receiver<Arc<Set>>,
        handshakes: Handle,
    ) -> Result<Self, NotANode> {
        let read = chain.iter().map(|der| Certificate::read(der));
        let read: Option<Vec<_>> = read.collect();
        let read = read.ok_or(NotANode::Unreadable)?;
        // Any of them ends what it vouches for.
        let ends = read.iter().map(|certificate| certificate.not_after);
        let not_after = ends.min().ok_or(NotANode::Unreadable)?;
        Ok(Self {
            named: read
                .into_iter()
                .map(|certificate| certificate.named)
                .collect(),
            chain: chain.to_vec(),
            not_after,
            is_peer,
            user,
            ca,
            set,
            handshakes,
        })
    }

    /// Resolves when the connection must end.
    async fn ended(&mut self) {
        loop {
            let Some(left) = self.left() else { return };
            match timeout(left.min(LOOK_EVERY), self.set.changed()).await {
                Ok(Ok(())) if self.is_good().await => {}
                Ok(Ok(())) => return,
                // The process ends.
                Ok(Err(_)) => std::future::pending().await,
                Err(_elapsed) => {}
            }
        }
    }

    fn left(&self) -> Option<Duration> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let end = Duration::from_secs(u64::try_from(self.not_after).unwrap_or(0));
        end.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Whether the set in force accepts the chain.
    async fn is_good(&mut self) -> bool {
        loop {
            let set = self.set.borrow_and_update().clone();
            let is_same_user =
                || self.chain.first().map(|first| set.users.user(first)) == Some(self.user.clone());
            if self.left().is_none() || !(self.is_peer || is_same_user()) {
                return false;
            }
            let ca = set.ca(self.is_peer);
            let listed = set.lists.judge(&self.named);
            if listed == Listed::Revoked {
                return false;
            }
            if ca == self.ca && listed == Listed::Good {
                return true;
            }
            if !self.verify(set).await {
                return false;
            }
            self.ca = ca;
            // Another set may be in force meanwhile.
            if !self.set.has_changed().unwrap_or(false) {
                return true;
            }
        }
    }

    /// Verifies the whole chain, on the thread of handshakes: it takes up to some milliseconds.
    async fn verify(&self, set: Arc<Set>) -> bool {
        let (chain, is_peer) = (self.chain.clone(), self.is_peer);
        let verifying = self.handshakes.spawn(async move {
            let verifier = match is_peer {
                true => &set.peers_verifier,
                false => &set.clients_verifier,
            };
            let (Some(verifier), Some((first, between))) = (verifier, chain.split_first()) else {
                return false;
            };
            let verified = verifier.verify_client_cert(first, between, UnixTime::now());
            verified.is_ok()
        });
        AbortOnDrop(verifying).await.unwrap_or(false)
    }
}

/// Serves a connection for as long as the lease lasts: nothing if it ended first. A connection without a
/// lease costs one branch each time that it is polled.
///
/// The future is made in here because one that is handed over is kept twice.
pub(crate) async fn during<F: Future>(
    mut lease: Option<impl BorrowMut<Lease>>,
    serving: impl FnOnce() -> F,
) -> Option<F::Output> {
    if let Some(lease) = &mut lease
        && !Box::pin(lease.borrow_mut().is_good()).await
    {
        tracing::debug!("served no connection: its certificate has ended or was revoked");
        return None;
    }
    let mut serving = pin!(serving());
    let mut ended = lease.map(|lease| Box::pin(end_of(lease)));
    poll_fn(move |context| {
        if let Poll::Ready(served) = serving.as_mut().poll(context) {
            return Poll::Ready(Some(served));
        }
        let Some(ended) = &mut ended else {
            return Poll::Pending;
        };
        ready!(ended.as_mut().poll(context));
        tracing::debug!("closed a connection: its certificate has ended or was revoked");
        Poll::Ready(None)
    })
    .await
}

async fn end_of(mut lease: impl BorrowMut<Lease>) {
    lease.borrow_mut().ended().await;
}
