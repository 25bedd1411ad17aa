//! A proxy that speaks TLS to its target, so that every client of these tests reaches a node that serves
//! over TLS alone.

use std::sync::Arc;
use std::thread;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio_rustls::TlsConnector;

/// A proxy on a thread of its own; it lives as long as the test's process.
pub struct Tunnel {
    /// Where it listens, without TLS.
    pub addr: String,
}

impl Tunnel {
    /// A proxy to `target`. A connection that the target refuses ends.
    pub fn new(target: &str, config: Arc<ClientConfig>) -> Tunnel {
        let listener = std::net::TcpListener::bind(("127.0.0.1", crate::free_port())).unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let target = target.to_owned();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        thread::spawn(move || runtime.block_on(serve(listener, target, config)));
        Tunnel { addr }
    }
}

async fn serve(listener: std::net::TcpListener, target: String, config: Arc<ClientConfig>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let connector = TlsConnector::from(config);
    while let Ok((mut client, _)) = listener.accept().await {
        let (target, connector) = (target.clone(), connector.clone());
        tokio::spawn(async move {
            client.set_nodelay(true)?;
            let server = TcpStream::connect(target).await?;
            server.set_nodelay(true)?;
            let name = ServerName::try_from("localhost").unwrap();
            let mut server = connector.connect(name, server).await?;
            copy_bidirectional(&mut client, &mut server).await
        });
    }
}
