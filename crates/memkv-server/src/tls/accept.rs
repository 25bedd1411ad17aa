//! The answering side of a handshake. The ClientHello says by its ALPN whether a peer or a client calls,
//! and so which configuration holds.
//! Never runs on a thread that serves: a handshake takes up to some milliseconds of processor time.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use memkv_node::contain::contained;
use memkv_node::seldom::Seldom;
use rustls::server::Acceptor;
use rustls::{CertificateError, Error};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{LazyConfigAcceptor, TlsStream};

use super::certificate::{NotANode, node_of};
use super::counters::{self, Failure};
use super::lease::Lease;
use super::set::Set;
use super::stream::{Facts, Parked, Secure, Stream};
use super::wire::Wire;
use super::{HANDSHAKE_MAX, Tls};
use crate::peer::PROTOCOL;

/// The exporter's label (RFC 8446, section 7.5) of what binds a peer's proof to its connection.
const CHANNEL_LABEL: &[u8] = b"EXPORTER-memkv-peer";

/// A peer that is refused tries again and again.
static PEER_REFUSED: Seldom = Seldom::new();

/// A handshake that came to nothing.
struct Refused {
    failure: Failure,
    is_peer: bool,
    why: String,
}

impl Refused {
    fn of(error: &io::Error, is_peer: bool) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        Self {
            failure: inner.map_or_else(|| of_reader(error), failure),
            is_peer,
            why: error.to_string(),
        }
    }
}

/// Of an error that is not rustls's.
fn of_reader(error: &io::Error) -> Failure {
    match error.get_ref() {
        Some(inner) if inner.is::<NotANode>() => Failure::BadCertificate,
        _ => Failure::Closed,
    }
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::NoCertificatesPresented => Failure::NoCertificate,
        Error::InvalidCertificate(bad) => match bad {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Failure::Expired,
            CertificateError::Revoked => Failure::Revoked,
            CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::UnknownRevocationStatus => Failure::UnknownCa,
            _ => Failure::BadCertificate,
        },
        Error::AlertReceived(_) => Failure::Alert,
        _ => Failure::Protocol,
    }
}

impl Tls {
    /// Shakes hands on a connection whose first bytes are `input`; nothing if that fails or takes too
    /// long. Counts either.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        tcp: TcpStream,
        input: BytesMut,
    ) -> Option<Stream> {
        let tcp = tcp.into_std().ok()?;
        let tls = self.clone();
        let shaking = move || async move {
            let late = |_| {
                Err(Refused {
                    failure: Failure::Timeout,
                    is_peer: false,
                    why: "it took too long".to_owned(),
                })
            };
            let shaken = timeout(HANDSHAKE_MAX, tls.shake(tcp, input)).await;
            shaken.unwrap_or_else(late)
        };
        let task = self.handshakes.spawn(contained(shaking));
        // Aborted with this connection.
        let shaken = AbortOnDrop(task).await.ok()?;
        match shaken {
            Ok(parked) => {
                counters::shook_hands();
                parked.resume().ok()
            }
            Err(Refused {
                failure,
                is_peer,
                why,
            }) => {
                counters::failed(failure);
                let reason = failure.name();
                tracing::debug!(reason, why, "closed a connection: no TLS came about");
                if is_peer && let Some(left_out) = PEER_REFUSED.say() {
                    tracing::warn!(reason, why, left_out, "refused a peer's TLS");
                }
                None
            }
        }
    }

    async fn shake(&self, tcp: std::net::TcpStream, input: BytesMut) -> Result<Parked, Refused> {
        let refused = |error: io::Error| Refused::of(&error, false);
        let wire = Wire::new(TcpStream::from_std(tcp).map_err(refused)?, input);
        let start = LazyConfigAcceptor::new(Acceptor::default(), wire)
            .await
            .map_err(refused)?;
        let names = start.client_hello().alpn();
        let is_peer = names.is_some_and(|mut names| names.any(|name| name == PROTOCOL.as_bytes()));
        let set = self.current();
        let config = if is_peer { &set.peers } else { &set.clients };
        let Some(config) = config.clone() else {
            return Err(Refused {
                failure: Failure::Off,
                is_peer,
                why: "this node's tls or tls_peers is off".to_owned(),
            });
        };
        let refused = |error: io::Error| Refused::of(&error, is_peer);
        let tls = start.into_stream(config).await.map_err(refused)?;
        self.finish(TlsStream::Server(tls), is_peer, &set)
            .map_err(refused)
    }

    /// The connection after its handshake by this set, ready to be moved.
    pub(super) fn finish(
        &self,
        tls: TlsStream<Wire>,
        is_peer: bool,
        set: &Set,
    ) -> io::Result<Parked> {
        let (_, session) = tls.get_ref();
        let chain = session.peer_certificates();
        let mut facts = Facts::default();
        if !is_peer && let Some(first) = chain.and_then(|chain| chain.first()) {
            facts.user = set.users.user(first);
        }
        let (user, ca) = (facts.user.clone(), set.ca(is_peer));
        let lease = |chain| {
            let set = self.set.subscribe();
            Lease::new(chain, is_peer, user, ca, set, self.handshakes.clone())
        };
        // What the verifier accepts and this cannot read would have no end.
        let lease = chain.map(lease).transpose().map_err(io::Error::other)?;
        if is_peer {
            let first = chain.and_then(|chain| chain.first());
            let node = first.map(|der| node_of(der, &self.settings.cluster));
            facts.node = node.transpose().map_err(io::Error::other)?;
            let export = match &tls {
                TlsStream::Client(tls) => {
                    tls.get_ref()
                        .1
                        .export_keying_material([0; 32], CHANNEL_LABEL, None)
                }
                TlsStream::Server(tls) => {
                    tls.get_ref()
                        .1
                        .export_keying_material([0; 32], CHANNEL_LABEL, None)
                }
            };
            let export = export.map_err(io::Error::other)?;
            facts.channel = export.iter().map(|byte| format!("{byte:02x}")).collect();
        }
        Stream::Tls(Box::new(Secure::new(tls, facts, lease))).park()
    }
}

/// A task that ends with the one that waits for it.
pub(super) struct AbortOnDrop<T>(pub(super) tokio::task::JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.get_mut().0).poll(context)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
