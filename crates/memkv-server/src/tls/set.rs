//! One generation of rustls's configurations, all of the same files. Sessions that a client resumes are
//! kept in its configuration and end with it.
//! Never changes; a new one takes its place.

use std::sync::Arc;
use std::time::Duration;

use memkv_proto::config::{TlsClientAuth, TlsClients, TlsPeers};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};

use super::TlsSettings;
use super::certificate::Certificate;
use super::files::{Files, Material, TlsError};
use super::lists::Lists;
use super::user_map::UserMap;
use super::verifier::NodeVerifier;
use crate::peer::PROTOCOL;

/// Tells the CAs of one file from those of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CaId([u8; 32]);

impl CaId {
    fn of(file: &[u8]) -> Self {
        Self(Sha256::digest(file).into())
    }
}

/// See the module's documentation.
pub(super) struct Set {
    /// For clients; none if they are not served over TLS.
    pub(super) clients: Option<Arc<ServerConfig>>,
    /// For peers that dial; none if they are not served over TLS.
    pub(super) peers: Option<Arc<ServerConfig>>,
    /// For peers that are dialled.
    pub(super) dial: Option<Arc<ClientConfig>>,
    /// Judges clients' certificates, if they are asked for any.
    pub(super) clients_verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Judges nodes' certificates.
    pub(super) peers_verifier: Option<Arc<dyn ClientCertVerifier>>,
    clients_ca: CaId,
    peers_ca: CaId,
    /// Which certificates are revoked.
    pub(super) lists: Lists,
    /// For which users clients' certificates stand.
    pub(super) users: UserMap,
    /// When this node's certificate ends, in seconds since the Unix epoch.
    pub(super) not_after: i64,
}

impl Set {
    pub(super) fn new(settings: &TlsSettings, files: &Files) -> Result<Self, TlsError> {
        let material = Material::parse(settings, files)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let lists = Lists::read(&material.lists, &material.cas, &provider);
        let maker = Maker {
            settings,
            lists: lists.map_err(|why| TlsError::Content {
                key: "tls_crl_file",
                path: settings.crl_file.clone(),
                why,
            })?,
            provider,
            own: own(settings, &material)?,
            material,
        };
        let clients_verifier = maker.clients_verifier()?;
        let peers_verifier = maker.peers_verifier()?;
        Ok(Self {
            clients: match settings.clients {
                TlsClients::Off => None,
                _ => Some(Arc::new(maker.clients(clients_verifier.clone())?)),
            },
            peers: peers_verifier
                .clone()
                .map(|judge| maker.peers(judge))
                .transpose()?,
            dial: peers_verifier
                .clone()
                .map(|judge| maker.dial(judge))
                .transpose()?,
            clients_verifier,
            peers_verifier,
            clients_ca: CaId::of(files.ca()),
            peers_ca: CaId::of(files.peer_ca()),
            not_after: maker.own.not_after,
            lists: maker.lists,
            users: maker.material.users,
        })
    }

    /// The CAs of peers' or of clients' certificates.
    pub(super) fn ca(&self, is_peer: bool) -> CaId {
        match is_peer {
            true => self.peers_ca,
            false => self.clients_ca,
        }
    }
}

/// This node's certificate.
fn own(settings: &TlsSettings, material: &Material) -> Result<Certificate, TlsError> {
    let first = material.chain.first();
    let read = first.and_then(|der| Certificate::read(der));
    read.ok_or_else(|| TlsError::Content {
        key: "tls_cert_file",
        path: settings.cert_file.clone(),
        why: "its first certificate cannot be read".to_owned(),
    })
}

struct Maker<'a> {
    settings: &'a TlsSettings,
    provider: Arc<CryptoProvider>,
    own: Certificate,
    material: Material,
    lists: Lists,
}

impl Maker<'_> {
    fn wrong(&self, key: &'static str, path: &str, why: impl ToString) -> TlsError {
        TlsError::Content {
            key,
            path: path.to_owned(),
            why: why.to_string(),
        }
    }

    fn key_is_wrong(&self, error: &rustls::Error) -> TlsError {
        let why = format!("it is not the key of {} ({error})", self.settings.cert_file);
        self.wrong("tls_key_file", &self.settings.key_file, why)
    }

    /// A judge of certificates that these CAs have issued and none of the lists revokes. A CA without a
    /// list among several is an error, and not a gap: its certificates are refused.
    fn judge(
        &self,
        roots: &RootCertStore,
        anonymous: bool,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let roots = Arc::new(roots.clone());
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots, self.provider.clone())
            .with_crls(self.lists.newest());
        if anonymous {
            builder = builder.allow_unauthenticated();
        }
        let wrong = |error| self.wrong("tls_crl_file", &self.settings.crl_file, error);
        builder.build().map_err(wrong)
    }

    fn clients_verifier(&self) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let asked = self.settings.clients != TlsClients::Off;
        match (&self.material.clients_ca, self.settings.client_auth) {
            (None, _) | (_, TlsClientAuth::No) => Ok(None),
            (Some(_), _) if !asked => Ok(None),
            (Some(ca), auth) => self.judge(ca, auth == TlsClientAuth::Optional).map(Some),
        }
    }

    /// Also checks that the peers would accept this node's own certificate, as far as this node knows.
    fn peers_verifier(&self) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let settings = self.settings;
        let (Some(ca), true) = (&self.material.peers_ca, settings.peers != TlsPeers::Off) else {
            return Ok(None);
        };
        let wrong = |why: String| self.wrong("tls_cert_file", &settings.cert_file, why);
        match self.own.node(&settings.cluster) {
            Ok(node) if node == settings.me => {}
            Ok(node) => {
                return Err(wrong(format!(
                    "it is the certificate of the node {node:?}, and this node is {:?}",
                    settings.me
                )));
            }
            Err(why) => return Err(wrong(why.to_string())),
        }
        let chain: Arc<dyn ClientCertVerifier> = self.judge(ca, false)?;
        let cluster = settings.cluster.clone();
        let judge = Arc::new(NodeVerifier { chain, cluster });
        if let Some((first, between)) = self.material.chain.split_first() {
            // An end in the past or a start in the future is told elsewhere, and may be a clock.
            let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
            let at = now.clamp(
                self.own.not_before,
                self.own.not_after.max(self.own.not_before),
            );
            let at = Duration::from_secs(u64::try_from(at).unwrap_or(0));
            judge
                .verify_client_cert(first, between, UnixTime::since_unix_epoch(at))
                .map_err(|error| {
                    wrong(format!(
                        "peers would refuse it by {} and {:?} ({error})",
                        settings.peer_ca_file, settings.crl_file
                    ))
                })?;
        }
        Ok(Some(judge))
    }

    fn clients(
        &self,
        verifier: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| self.key_is_wrong(&error))?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let (chain, key) = (self.material.chain.clone(), self.material.key.clone_key());
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| self.key_is_wrong(&error))?;
        // A client that offers h2 too gets this; one that offers h2 alone is refused.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn peers(&self, verifier: Arc<dyn ClientCertVerifier>) -> Result<Arc<ServerConfig>, TlsError> {
        let (chain, key) = (self.material.chain.clone(), self.material.key.clone_key());
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| self.key_is_wrong(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| self.key_is_wrong(&error))?;
        config.alpn_protocols = vec![PROTOCOL.as_bytes().to_vec()];
        // A peer's connection lasts; each is judged anew.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn dial(&self, verifier: Arc<dyn ClientCertVerifier>) -> Result<Arc<ClientConfig>, TlsError> {
        let (chain, key) = (self.material.chain.clone(), self.material.key.clone_key());
        let cluster = self.settings.cluster.clone();
        let judge = NodeVerifier {
            chain: verifier,
            cluster,
        };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| self.key_is_wrong(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(judge))
            .with_client_auth_cert(chain, key)
            .map_err(|error| self.key_is_wrong(&error))?;
        config.alpn_protocols = vec![PROTOCOL.as_bytes().to_vec()];
        config.resumption = Resumption::disabled();
        // Nodes are known by their names in the cluster, not by those of machines.
        config.enable_sni = false;
        Ok(Arc::new(config))
    }
}
