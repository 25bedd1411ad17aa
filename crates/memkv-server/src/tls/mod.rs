//! TLS for clients and peers, of rustls with ring's cryptography alone.
//!
//! - `files` reads what the operator wrote, `set` makes rustls's configurations of it, and `reload`
//!   looks for new files: a `Set` is in force as a whole or not at all.
//! - `accept` and `dial` shake hands, on a thread of their own; `stream` is a connection with or without
//!   TLS, which moves to the runtime that serves it.
//! - `certificate` reads names and validity, `verifier` says which certificates are nodes', `user_map` for
//!   which users those of clients stand, `lists` are the revoked ones, `lease` ends a connection with its
//!   certificate, `counters` counts.
//!
//! Never speaks h2, never resumes a peer's session, and never falls back to a plain connection.

mod accept;
mod certificate;
mod counters;
mod dial;
mod files;
mod lease;
mod lists;
mod reload;
mod set;
mod stream;
#[cfg(test)]
mod tests;
mod user_map;
mod verifier;
mod wire;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use memkv_proto::RaftConfig;
use memkv_proto::config::{TlsClientAuth, TlsClients, TlsPeers};
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

pub(crate) use certificate::{Certificate, date, node_uri};
pub(crate) use counters::{alarms, counts};
pub(crate) use dial::DialFailed;
use files::TlsError;
pub(crate) use lease::{Lease, during};
pub(crate) use stream::{Facts, Parked, Stream};

use set::Set;

/// The first byte of a TLS connection: a record of type handshake (RFC 8446, section 5.1).
pub(crate) const FIRST_BYTE: u8 = 0x16;

/// Both sides send a few messages; a node on the other side of the world needs a second.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// What the configuration says about TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    clients: TlsClients,
    client_auth: TlsClientAuth,
    peers: TlsPeers,
    cluster: String,
    me: String,
    cert_file: String,
    key_file: String,
    ca_file: String,
    crl_file: String,
    user_map: String,
    peer_ca_file: String,
}

impl TlsSettings {
    fn of(config: &RaftConfig) -> Self {
        Self {
            clients: config.tls,
            client_auth: config.tls_client_auth,
            peers: config.tls_peers,
            cluster: config.cluster_name.clone(),
            me: config.node_addr.id.clone(),
            cert_file: config.tls_cert_file.clone(),
            key_file: config.tls_key_file.clone(),
            ca_file: config.tls_ca_file.clone(),
            crl_file: config.tls_crl_file.clone(),
            user_map: config.tls_user_map.clone(),
            peer_ca_file: config.tls_peer_ca_file.clone(),
        }
    }
}

/// A node's TLS: the set in force, and the thread that shakes hands.
pub(crate) struct Tls {
    settings: TlsSettings,
    set: watch::Sender<Arc<Set>>,
    /// The runtime of handshakes: a signature of RSA takes milliseconds, for which neither clients nor
    /// consensus wait.
    handshakes: Handle,
}

impl Tls {
    /// Reads the files and starts the thread, on which they are looked at again and again; nothing if
    /// the configuration has no TLS.
    ///
    /// # Errors
    /// A file that cannot be used, or a thread that the system does not give.
    pub(crate) fn start(config: &RaftConfig) -> Result<Option<Arc<Self>>, StartError> {
        if !config.uses_tls() {
            return Ok(None);
        }
        let settings = TlsSettings::of(config);
        let (files, set) = reload::first(&settings)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let tls = Arc::new(Self {
            settings,
            set: watch::Sender::new(Arc::new(set)),
            handshakes: runtime.handle().clone(),
        });
        let own = tls.clone();
        std::thread::Builder::new()
            .name("memkv-tls".to_owned())
            .spawn(move || runtime.block_on(reload::run(own, files)))?;
        Ok(Some(tls))
    }

    /// The same without a thread of its own, and without looking at the files again.
    #[cfg(test)]
    pub(crate) fn started(config: &RaftConfig) -> Arc<Self> {
        let settings = TlsSettings::of(config);
        let (_, set) = reload::first(&settings).unwrap();
        Arc::new(Self {
            settings,
            set: watch::Sender::new(Arc::new(set)),
            handshakes: Handle::current(),
        })
    }

    fn current(&self) -> Arc<Set> {
        self.set.borrow().clone()
    }

    /// Whether clients are served over TLS.
    pub(crate) fn serves_clients(&self) -> bool {
        self.settings.clients != TlsClients::Off
    }

    /// Whether clients are served over TLS alone.
    pub(crate) fn requires_clients(&self) -> bool {
        self.settings.clients == TlsClients::Require
    }

    /// Whether peers are called over TLS.
    pub(crate) fn dials(&self) -> bool {
        matches!(self.settings.peers, TlsPeers::Dial | TlsPeers::Require)
    }
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Files(#[from] TlsError),
    #[error("the operating system refuses a thread for TLS: {0}")]
    Thread(#[from] io::Error),
}
