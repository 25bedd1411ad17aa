//! How long the other side's certificate lets a connection live: to the certificate's end, and only while
//! the set in force accepts it, for the same user. So a revoked certificate ends connections that are open.
//! Never asks for a new one: the other side connects again.

use std::borrow::BorrowMut;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use tokio::time::timeout;

use super::certificate::Certificate;
use super::set::Set;

/// How often the wall clock is looked at: it may be set.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The certificate of the other side.
pub(crate) struct Lease {
    chain: Vec<CertificateDer<'static>>,
    not_after: i64,
    is_peer: bool,
    /// For whom it stands.
    user: Option<Bytes>,
    set: watch::Receiver<Arc<Set>>,
}

impl Lease {
    /// None if the other side has shown no certificate.
    pub(super) fn new(
        chain: Option<&[CertificateDer<'static>]>,
        is_peer: bool,
        user: Option<Bytes>,
        mut set: watch::Receiver<Arc<Set>>,
    ) -> Option<Self> {
        let chain = chain?;
        // The set may have changed since the handshake began.
        set.mark_changed();
        Some(Self {
            not_after: Certificate::read(chain.first()?)?.not_after,
            chain: chain.to_vec(),
            is_peer,
            user,
            set,
        })
    }

    /// Resolves when the connection must end.
    async fn ended(&mut self) {
        loop {
            let Some(left) = self.left() else { return };
            match timeout(left.min(LOOK_EVERY), self.set.changed()).await {
                Ok(Ok(())) if self.is_good() => {}
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

    /// Whether the set in force accepts the certificate.
    fn is_good(&mut self) -> bool {
        let set = self.set.borrow_and_update();
        let verifier = match self.is_peer {
            true => &set.peers_verifier,
            false => &set.clients_verifier,
        };
        let (Some(verifier), Some((first, between))) = (verifier, self.chain.split_first()) else {
            return false;
        };
        let is_same_user = self.is_peer || set.users.user(first) == self.user;
        let verified = verifier.verify_client_cert(first, between, UnixTime::now());
        is_same_user && verified.is_ok()
    }
}

/// Serves a connection for as long as the lease lasts: nothing if it ended first. A connection without a
/// lease costs one branch each time that it is polled.
///
/// The future is made in here because one that is handed over is kept twice.
pub(crate) async fn during<F: Future>(
    lease: Option<impl BorrowMut<Lease>>,
    serving: impl FnOnce() -> F,
) -> Option<F::Output> {
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
