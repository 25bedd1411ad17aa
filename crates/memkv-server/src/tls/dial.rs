//! The dialling side of a peer's TLS: connects, shakes hands, and checks that the certificate is that of
//! the node that was dialled.
//! Never sends a byte of the peers' protocol before that holds.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::Tls;
use super::accept::AbortOnDrop;
use super::stream::{Parked, Stream};
use super::wire::Wire;

/// Why there is no connection with TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialFailed {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Tls(String),
}

impl Tls {
    /// Connects to the node `name` at `addr`. The stream belongs to the runtime of the caller.
    pub(crate) async fn dial(
        self: &Arc<Self>,
        name: &str,
        addr: &str,
    ) -> Result<Stream, DialFailed> {
        let (tls, name, addr) = (self.clone(), name.to_owned(), addr.to_owned());
        let task = self
            .handshakes
            .spawn(async move { tls.shake_first(&name, &addr).await });
        let parked = AbortOnDrop(task).await.map_err(io::Error::other)??;
        Ok(parked.resume()?)
    }

    async fn shake_first(&self, name: &str, addr: &str) -> Result<Parked, DialFailed> {
        let set = self.current();
        let Some(config) = set.dial.clone() else {
            return Err(DialFailed::Tls("tls_peers is off".to_owned()));
        };
        let tcp = TcpStream::connect(addr).await?;
        tcp.set_nodelay(true)?;
        let wire = Wire::new(tcp, BytesMut::new());
        // Looked at by nothing: the verifier knows nodes by their names in the cluster.
        let server = ServerName::from(std::net::IpAddr::from(Ipv4Addr::UNSPECIFIED));
        let connecting = TlsConnector::from(config).connect(server, wire).await;
        let tls = connecting.map_err(|error| DialFailed::Tls(words(&error)))?;
        if tls.get_ref().1.alpn_protocol().is_none() {
            let why = "it speaks TLS, but not to peers: it is no memkv node, or of another version";
            return Err(DialFailed::Tls(why.to_owned()));
        }
        let parked = self.finish(TlsStream::Client(tls), true, &set)?;
        // The verifier has seen that it names one.
        let shown = parked.node().unwrap_or_default().to_owned();
        // A node that is to join knows addresses without names; it asks there, and tells nothing.
        if shown == name || name.is_empty() {
            return Ok(parked);
        }
        Err(DialFailed::Tls(format!(
            "it shows the certificate of {shown:?} and not of {name:?}: the address of {name:?} leads to \
             another node, or that node has another's tls_cert_file"
        )))
    }
}

/// Why a handshake failed, with the next step.
fn words(error: &io::Error) -> String {
    let inner: Option<&Error> = error.get_ref().and_then(|inner| inner.downcast_ref());
    let step = match inner {
        Some(Error::InvalidCertificate(bad)) => match bad {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired: issue a new one"
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is of a CA that is not in this node's tls_peer_ca_file"
            }
            CertificateError::Revoked => "its certificate is revoked by this node's tls_crl_file",
            CertificateError::UnknownRevocationStatus => {
                "this node's tls_crl_file has no list of the CA of its certificate"
            }
            _ => "its certificate is no node's of this cluster",
        },
        Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            "it speaks TLS, but not to peers: its tls_peers is off"
        }
        Some(Error::AlertReceived(_)) => "it refuses this node's certificate; its log says why",
        Some(_) => "TLS failed",
        None => {
            "it ended the connection before TLS was spoken: its tls_peers is off, or it is too old"
        }
    };
    format!("{step} ({error})")
}
