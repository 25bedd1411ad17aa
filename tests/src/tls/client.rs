//! A connection with TLS over a plain socket, for bytes that no client would send inside it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::Ca;

/// Longer than any answer takes on a busy machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that believes the CA, shows the certificate in `own`'s files of that name, if one is
/// named, and offers this protocol by ALPN, if one is named.
pub fn tls_config(ca: &Ca, own: Option<(&Ca, &str)>, protocol: Option<&str>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(ca.file("ca.crt")).unwrap();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((of, name)) => {
            let certificate = of.file(&format!("{name}.crt"));
            let key = of.file(&format!("{name}.key"));
            let certificate = CertificateDer::from_pem_file(certificate).unwrap();
            let key = PrivateKeyDer::from_pem_file(key).unwrap();
            builder
                .with_client_auth_cert(vec![certificate], key)
                .unwrap()
        }
    };
    let protocols = protocol.iter();
    config.alpn_protocols = protocols.map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A connection.
pub struct TlsClient(StreamOwned<ClientConnection, TcpStream>);

impl TlsClient {
    /// Connects; TLS is spoken with the first byte that is sent.
    pub fn connect(addr: &str, config: Arc<ClientConfig>) -> io::Result<TlsClient> {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(TlsClient(StreamOwned::new(session, stream)))
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.flush()
    }

    /// Reads exactly so many bytes.
    pub fn receive(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads to the end of an HTTP head, and no byte more.
    pub fn receive_head(&mut self) -> io::Result<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.receive(1)?);
        }
        Ok(String::from_utf8_lossy(&head).into_owned())
    }
}
