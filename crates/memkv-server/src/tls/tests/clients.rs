//! Clients at the node's one address, with TLS and without.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{SOON, SocketAddr, Tls, ca, config, issue_node, listen};
use crate::peer::Trust;

const PING: &str = "*1\r\n$4\r\nPING\r\n";
const ALIVE: &str = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A node that serves clients as `tls` says.
async fn node(dir: &Path, tls: &str) -> SocketAddr {
    ca(dir);
    issue_node(dir, "n1", "prod");
    let tls = Tls::started(&config(dir, "n1", "n1", &[("tls", tls)]));
    listen("n1", tls, Trust::Nobody, Handle::current()).await
}

async fn connect(dir: &Path, addr: SocketAddr) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(dir.join("ca.crt")).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(addr).await.unwrap();
    let name = ServerName::from(addr.ip());
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, tcp).await.unwrap()
}

/// The first part of the answer.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> String {
    let mut answer = vec![0; 4096];
    let asked = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        stream.read(&mut answer).await
    };
    let read = timeout(SOON, asked).await.expect("an answer").unwrap();
    answer.truncate(read);
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn both_protocols_are_served_inside_tls_and_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let addr = node(dir.path(), "accept").await;
    for _ in 0..2 {
        let mut redis = connect(dir.path(), addr).await;
        assert_eq!(ask(&mut redis, PING).await, "+PONG\r\n");
        assert_eq!(ask(&mut redis, PING).await, "+PONG\r\n");
        let mut http = connect(dir.path(), addr).await;
        assert!(ask(&mut http, ALIVE).await.starts_with("HTTP/1.1 200"));
        let mut plain = TcpStream::connect(addr).await.unwrap();
        assert_eq!(ask(&mut plain, PING).await, "+PONG\r\n");
        let mut plain = TcpStream::connect(addr).await.unwrap();
        assert!(ask(&mut plain, ALIVE).await.starts_with("HTTP/1.1 200"));
    }
    // What is inside TLS is no TLS.
    let mut twice = connect(dir.path(), addr).await;
    twice.write_all(b"\x16\x03\x01").await.unwrap();
    twice.flush().await.unwrap();
    let end = timeout(SOON, twice.read(&mut [0; 16]))
        .await
        .expect("an end");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

#[tokio::test]
async fn where_tls_is_required_a_client_without_it_is_told_and_served_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let addr = node(dir.path(), "require").await;
    let mut redis = connect(dir.path(), addr).await;
    assert_eq!(ask(&mut redis, PING).await, "+PONG\r\n");
    let mut plain = TcpStream::connect(addr).await.unwrap();
    let refusal = ask(&mut plain, PING).await;
    assert!(
        refusal.starts_with("-ERR this node serves clients over TLS only"),
        "{refusal}"
    );
    let mut plain = TcpStream::connect(addr).await.unwrap();
    let refusal = ask(&mut plain, ALIVE).await;
    assert!(refusal.starts_with("HTTP/1.1 400"), "{refusal}");
    assert!(refusal.contains("over TLS only"), "{refusal}");
    assert!(refusal.contains("Connection: Close"), "{refusal}");
}

#[tokio::test]
async fn a_connection_that_shakes_hands_takes_no_clients_permit() {
    let dir = tempfile::tempdir().unwrap();
    let addr = node(dir.path(), "accept").await;
    let mut shaking = Vec::new();
    for _ in 0..2 * super::MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(b"\x16\x03\x01").await.unwrap();
        shaking.push(stream);
    }
    let mut client = connect(dir.path(), addr).await;
    assert_eq!(ask(&mut client, PING).await, "+PONG\r\n");
    for stream in &mut shaking {
        let end = timeout(SOON, stream.read(&mut [0; 16]))
            .await
            .expect("an end");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
}
