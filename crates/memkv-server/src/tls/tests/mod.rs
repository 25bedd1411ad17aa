//! Handshakes over loopback with certificates that the tests make: who is let in, who is not and why, and
//! what a new set of files does to connections that are open. `peers` and `clients` go through the listener.

mod clients;
mod files;
mod peers;
mod revoked;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use memkv_proto::RaftConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::reload;
use super::set::Set;
use super::{FIRST_BYTE, Facts, Stream, Tls, during};
use crate::admission::{Admission, AdmissionSettings};
use crate::cert::{self, CertArgs, CertRole};
use crate::http::{Api, ApiSettings, Limits};
use crate::listener::Listener;
use crate::peer::Trust;
use crate::resp::Resp;
use crate::service::Service;
use crate::testing::{Fake, resp_settings};

/// Longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(30);

fn ca(dir: &Path) {
    let dir = dir.to_owned();
    assert_eq!(cert::run(&CertArgs::Init { dir, days: 30 }), 0);
}

fn issue(dir: &Path, name: &str, role: CertRole) {
    let issue = CertArgs::Issue {
        dir: dir.to_owned(),
        // Longer than the node warns of before: what it knows of certificates is one for the process.
        days: 30,
        name: name.to_owned(),
        hosts: vec!["127.0.0.1".to_owned()],
        role,
    };
    assert_eq!(cert::run(&issue), 0);
}

fn issue_node(dir: &Path, name: &str, cluster: &str) {
    let cluster = cluster.to_owned();
    issue(dir, name, CertRole::Node { cluster });
}

/// The settings of the node `me`, with the certificate in the files called `cert`.
fn config(dir: &Path, me: &str, cert: &str, more: &[(&str, &str)]) -> RaftConfig {
    let mut config = RaftConfig::default();
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let own = [
        ("node_addr", format!("{me}@127.0.0.1:1")),
        ("tls_cert_file", file(&format!("{cert}.crt"))),
        ("tls_key_file", file(&format!("{cert}.key"))),
        ("tls_peer_ca_file", file("ca.crt")),
        ("tls_peers", "require".to_owned()),
        ("cluster_name", "prod".to_owned()),
    ];
    let more = more.iter().map(|(key, value)| (*key, (*value).to_owned()));
    for (key, value) in own.into_iter().chain(more) {
        config.apply_override(key, &value, "test").unwrap();
    }
    config.validate().unwrap();
    config
}

/// Permits for clients.
const MAX_CONNECTIONS: usize = 10;

/// A node's one address, served on this runtime, and peers on `consensus`.
async fn listen(me: &str, tls: Arc<Tls>, trust: Trust, consensus: Handle) -> SocketAddr {
    let service = Arc::new(Service::new(SOON));
    service.attach(Fake::working());
    let settings = ApiSettings {
        name: me.to_owned(),
        names: vec![me.to_owned()],
        max_value_bytes: 1000,
        trust,
        peers_need_tls: true,
        metrics_public: false,
        allowed_hosts: Vec::new(),
    };
    let api = Arc::new(Api::new(service.clone(), settings));
    let resp = Arc::new(Resp::new(service, resp_settings()));
    let limits = Limits::default();
    let settings = AdmissionSettings {
        peers_prove: true,
        ..AdmissionSettings::open(MAX_CONNECTIONS)
    };
    let admission = Admission::new(settings, limits.ledger.clone(), resp.counts().clone());
    let listener = Listener::new(api, resp, limits, admission, consensus).with_tls(Some(tls));
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    tokio::spawn(Arc::new(listener).accept(socket));
    addr
}

/// Answers with the facts of each connection; each is held until its certificate ends.
async fn serve(tls: Arc<Tls>) -> (SocketAddr, mpsc::UnboundedReceiver<Arc<Facts>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (seen, facts) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let (tls, seen) = (tls.clone(), seen.clone());
            tokio::spawn(async move {
                let mut input = BytesMut::new();
                tcp.read_buf(&mut input).await.unwrap();
                assert_eq!(input[0], FIRST_BYTE);
                let Some(mut stream) = tls.accept(tcp, input).await else {
                    return;
                };
                seen.send(stream.facts().unwrap()).unwrap();
                let lease = stream.take_lease();
                let echo = || async move {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).await.is_ok() {
                        stream.write_all(&byte).await.unwrap();
                        stream.flush().await.unwrap();
                    }
                };
                during(lease, echo).await;
            });
        }
    });
    (addr, facts)
}

async fn echoes(stream: &mut Stream) -> bool {
    let mut byte = [0];
    let echo = async {
        stream.write_all(b"x").await?;
        stream.flush().await?;
        stream.read_exact(&mut byte).await
    };
    tokio::time::timeout(SOON, echo).await.unwrap().is_ok()
}

async fn dials(dir: &Path, me: &str, cert: &str, to: &str, addr: SocketAddr) -> Result<(), String> {
    let tls = Tls::started(&config(dir, me, cert, &[]));
    let mut stream = tls
        .dial(to, &addr.to_string())
        .await
        .map_err(|error| error.to_string())?;
    match echoes(&mut stream).await {
        true => Ok(()),
        false => Err("closed".to_owned()),
    }
}

#[tokio::test]
async fn two_nodes_know_each_others_name_and_share_a_value_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    ca(dir);
    issue_node(dir, "n1", "prod");
    issue_node(dir, "n2", "prod");
    let (addr, mut facts) = serve(Tls::started(&config(dir, "n2", "n2", &[]))).await;
    let dialler = Tls::started(&config(dir, "n1", "n1", &[]));
    let mut channels = Vec::new();
    for _ in 0..2 {
        let mut stream = dialler.dial("n2", &addr.to_string()).await.unwrap();
        assert!(echoes(&mut stream).await);
        let answerer = facts.recv().await.unwrap();
        assert_eq!(answerer.node.as_deref(), Some("n1"));
        assert_eq!(stream.facts().unwrap().node.as_deref(), Some("n2"));
        assert_eq!(stream.facts().unwrap().channel, answerer.channel);
        channels.push(answerer.channel.clone());
    }
    assert_ne!(channels[0], channels[1]);
    assert_eq!(channels[0].len(), 64);
}

#[tokio::test]
async fn a_certificate_of_another_node_cluster_or_ca_is_refused_with_the_reason() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, other) = (dir.path(), other.path());
    for dir in [dir, other] {
        ca(dir);
        issue_node(dir, "n1", "prod");
        issue_node(dir, "n3", "prod");
    }
    let n3 = Tls::started(&config(dir, "n3", "n3", &[]));
    let (addr, mut facts) = serve(n3).await;
    dials(dir, "n1", "n1", "n3", addr).await.unwrap();
    let as_n2 = dials(dir, "n1", "n1", "n2", addr).await.unwrap_err();
    assert!(
        as_n2.contains("\"n3\"") && as_n2.contains("\"n2\""),
        "{as_n2}"
    );
    let foreign = dials(other, "n1", "n1", "n3", addr).await.unwrap_err();
    assert!(
        foreign.contains("not in this node's tls_peer_ca_file"),
        "{foreign}"
    );
    // The answerer's side of the same: a node of another CA that believes this one.
    std::fs::copy(dir.join("ca.crt"), other.join("both.crt")).unwrap();
    let both = [
        std::fs::read(dir.join("ca.crt")),
        std::fs::read(other.join("ca.crt")),
    ];
    std::fs::write(other.join("both.crt"), both.map(Result::unwrap).concat()).unwrap();
    let believes = other.join("both.crt");
    let believes = [("tls_peer_ca_file", believes.to_str().unwrap())];
    let tls = Tls::started(&config(other, "n1", "n1", &believes));
    let mut stream = tls.dial("n3", &addr.to_string()).await.unwrap();
    assert!(!echoes(&mut stream).await, "refused by the answerer");
    facts.recv().await.unwrap();
    facts.recv().await.unwrap();
    assert!(facts.try_recv().is_err(), "no other was let in");
}

#[tokio::test]
async fn a_node_does_not_start_with_a_certificate_that_its_peers_would_refuse() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, other) = (dir.path(), other.path());
    ca(dir);
    ca(other);
    issue_node(dir, "n1", "prod");
    issue_node(dir, "x1", "another");
    let user = "alice".to_owned();
    issue(dir, "alice", CertRole::Client { user });
    let start = |config: &RaftConfig| {
        let settings = super::TlsSettings::of(config);
        reload::first(&settings)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    start(&config(dir, "n1", "n1", &[])).unwrap();
    for (me, cert, why) in [
        ("n2", "n1", "is the certificate of the node \"n1\""),
        ("x1", "x1", "names no node of the cluster \"prod\""),
        ("alice", "alice", "names no node of the cluster"),
    ] {
        let refused = start(&config(dir, me, cert, &[])).unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
    let foreign = other.join("ca.crt");
    let foreign = [("tls_peer_ca_file", foreign.to_str().unwrap())];
    let refused = start(&config(dir, "n1", "n1", &foreign)).unwrap_err();
    assert!(refused.contains("peers would refuse it"), "{refused}");
    let key = dir.join("alice.key");
    let mixed = [("tls_key_file", key.to_str().unwrap())];
    let refused = start(&config(dir, "n1", "n1", &mixed)).unwrap_err();
    assert!(refused.contains("is not the key of"), "{refused}");
}

#[tokio::test]
async fn a_ca_that_is_taken_away_ends_the_connections_of_its_certificates() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, other) = (dir.path(), other.path());
    ca(dir);
    ca(other);
    issue_node(dir, "n1", "prod");
    issue_node(dir, "n2", "prod");
    issue_node(other, "n2", "prod");
    let answerer = Tls::started(&config(dir, "n2", "n2", &[]));
    let (addr, _facts) = serve(answerer.clone()).await;
    let dialler = Tls::started(&config(dir, "n1", "n1", &[]));
    let mut stream = dialler.dial("n2", &addr.to_string()).await.unwrap();
    let replace = |settings: &RaftConfig| {
        let settings = super::TlsSettings::of(settings);
        let (_, set) = reload::first(&settings).unwrap();
        answerer.set.send_replace(Arc::new(set));
    };
    replace(&config(dir, "n2", "n2", &[]));
    assert!(echoes(&mut stream).await, "the same files change nothing");
    replace(&config(other, "n2", "n2", &[]));
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
    ended.expect("the connection ends").ok();
    assert!(!echoes(&mut stream).await);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_takes_too_long_ends() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    ca(dir);
    issue_node(dir, "n1", "prod");
    let tls = Tls::started(&config(dir, "n1", "n1", &[]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _silent = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (tcp, _) = listener.accept().await.unwrap();
    let before = tokio::time::Instant::now();
    let accepted = tls.accept(tcp, BytesMut::from(&[FIRST_BYTE][..])).await;
    assert!(accepted.is_none());
    assert!(before.elapsed() >= super::HANDSHAKE_MAX);
}

/// A piece is small beside the 10 ms for which nothing may hold up consensus.
#[tokio::test]
async fn a_bulk_of_bytes_leaves_others_their_turn() {
    const BYTES: usize = 16 << 20;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    ca(dir);
    issue_node(dir, "n1", "prod");
    issue_node(dir, "n2", "prod");
    let answerer = Tls::started(&config(dir, "n2", "n2", &[]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let reader = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = answerer.accept(tcp, BytesMut::new()).await.unwrap();
        let mut all = vec![0; BYTES];
        stream.read_exact(&mut all).await.unwrap();
        all
    });
    let dialler = Tls::started(&config(dir, "n1", "n1", &[]));
    let mut stream = dialler.dial("n2", &addr).await.unwrap();
    let turns = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = turns.clone();
    let other = tokio::spawn(async move {
        loop {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let sent = vec![7; BYTES];
    let before = turns.load(std::sync::atomic::Ordering::Relaxed);
    stream.write_all(&sent).await.unwrap();
    stream.flush().await.unwrap();
    assert!(reader.await.unwrap() == sent);
    other.abort();
    let turns = turns.load(std::sync::atomic::Ordering::Relaxed) - before;
    assert!(turns >= BYTES / (64 * 1024), "{turns}");
}

#[test]
fn a_set_is_made_of_the_files_that_were_read() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    ca(dir);
    issue_node(dir, "n1", "prod");
    let settings = super::TlsSettings::of(&config(dir, "n1", "n1", &[]));
    let (files, _) = reload::first(&settings).unwrap();
    std::fs::write(dir.join("n1.crt"), "").unwrap();
    Set::new(&settings, &files).expect("the files as they were");
    assert!(reload::first(&settings).is_err());
}
