//! One connection's way in: first unproven, then a client's or a peer's. It ends a connection that stays
//! unproven for too long, or whose permit another one needs. Never ends one for a wait that the node itself
//! imposes, as after failures from its address; how long that may take in all is bounded.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use memkv_node::lock::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::permits::Permit;
use super::{Admission, ClientPermit, PeerPermit};
use crate::ledger::{CONNECTION_BYTES, Class, Held};

/// How long a connection may be unproven: many round trips, and no time to be spared.
pub(crate) const UNPROVEN_TIME: Duration = Duration::from_secs(5);

/// How much longer it may be when that time is up while the node judges what the client has shown: the longest
/// wait after failures, and as much again for the hash of a password on a busy machine.
pub(crate) const JUDGED_TIME: Duration = Duration::from_secs(10);

/// Why there is no permit for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// As many clients as may be are connected.
    Clients,
    /// As many as may be from one address.
    Address(usize),
}

/// See the module's documentation.
pub struct Door {
    /// None: a connection that is let in without being counted, as tests have it.
    admission: Option<(Arc<Admission>, IpAddr)>,
    is_proven: AtomicBool,
    is_judging: AtomicBool,
    state: Mutex<State>,
}

/// The client waits for the node's judgement of what it has shown until this is dropped.
pub(crate) struct Judging<'a>(&'a Door);

impl Drop for Judging<'_> {
    fn drop(&mut self) {
        self.0.is_judging.store(false, Ordering::Relaxed);
    }
}

/// What a connection holds.
enum State {
    Unproven {
        permit: Permit,
        _held: Held,
    },
    /// It may only turn out to be a peer's.
    Reserved {
        _permit: OwnedSemaphorePermit,
        _held: Held,
    },
    Client {
        _permit: ClientPermit,
        _held: Held,
    },
    Nothing,
}

impl Door {
    /// A door that is open and counts nothing.
    #[must_use]
    pub fn open() -> Self {
        Self {
            admission: None,
            is_proven: AtomicBool::new(true),
            is_judging: AtomicBool::new(false),
            state: Mutex::new(State::Nothing),
        }
    }

    pub(super) fn unproven(admission: Arc<Admission>, address: IpAddr, permit: Permit) -> Self {
        let mut held = admission.ledger.hold(Class::Unproven);
        held.set(CONNECTION_BYTES);
        let state = State::Unproven {
            permit,
            _held: held,
        };
        Self::of(admission, address, state)
    }

    pub(super) fn reserved(
        admission: Arc<Admission>,
        address: IpAddr,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let state = State::Reserved {
            _permit: permit,
            _held: admission.ledger.connection(),
        };
        Self::of(admission, address, state)
    }

    pub(super) fn client(admission: Arc<Admission>, address: IpAddr, permit: ClientPermit) -> Self {
        let state = State::Client {
            _permit: permit,
            _held: admission.ledger.connection(),
        };
        Self::of(admission, address, state)
    }

    fn of(admission: Arc<Admission>, address: IpAddr, state: State) -> Self {
        Self {
            is_proven: AtomicBool::new(matches!(state, State::Client { .. })),
            is_judging: AtomicBool::new(false),
            admission: Some((admission, address)),
            state: Mutex::new(state),
        }
    }

    /// Whether it is a client's or a peer's.
    pub(crate) fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Relaxed)
    }

    /// The client has shown something, and waits. One connection is judged for one thing at a time.
    pub(crate) fn judging(&self) -> Judging<'_> {
        self.is_judging.store(true, Ordering::Relaxed);
        Judging(self)
    }

    /// Whether clients must authenticate before they are let in.
    pub(crate) fn clients_prove(&self) -> bool {
        let admission = self.admission.as_ref();
        let proves =
            |admission: &Admission| admission.settings.clients_prove.load(Ordering::Relaxed);
        admission.is_some_and(|(admission, _)| proves(admission))
    }

    /// The class that its requests belong to.
    pub(crate) fn class(&self) -> Class {
        match self.is_proven() {
            true => Class::Input,
            false => Class::Unproven,
        }
    }

    /// A client has authenticated, or need not: takes a client's permit, once.
    pub(crate) fn admit_client(&self) -> Result<(), Full> {
        let Some((admission, address)) = &self.admission else {
            return Ok(());
        };
        let mut state = self.state.lock();
        if let State::Unproven { .. } | State::Reserved { .. } = &*state {
            *state = State::Client {
                _permit: admission.take_client(*address)?,
                _held: admission.ledger.connection(),
            };
            self.is_proven.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A peer has proved itself, or need not: takes a peer's permit instead of the one that it has.
    pub(crate) fn admit_peer(&self, name: &str) -> PeerPermit {
        let permit = match &self.admission {
            Some((admission, _)) => admission.peers.enter(name),
            None => PeerPermit::uncounted(),
        };
        *self.state.lock() = State::Nothing;
        self.is_proven.store(true, Ordering::Relaxed);
        permit
    }

    /// Serves until the connection ends, or must because it is still unproven.
    pub(crate) async fn watch(&self, mut serve: Pin<&mut impl Future<Output = ()>>) {
        let permit = match &*self.state.lock() {
            State::Unproven { permit, .. } => Some(permit.watched()),
            _ => None,
        };
        let Some(permit) = permit else {
            return serve.await;
        };
        // Most of a connection's life is behind its proof.
        let mut limit = Some(Box::pin(async move {
            let is_late = timeout(UNPROVEN_TIME, permit.lost()).await.is_err();
            if is_late && self.is_judging.load(Ordering::Relaxed) {
                // Either ends it.
                let _ = timeout(JUDGED_TIME, permit.lost()).await;
            }
        }));
        poll_fn(|context| {
            if serve.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            if self.is_proven() {
                limit = None;
            }
            let Some(waiting) = &mut limit else {
                return Poll::Pending;
            };
            if waiting.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if let Some((admission, _)) = &self.admission {
                admission.counts.expel();
            }
            Poll::Ready(())
        })
        .await;
    }
}
