//! The node's addresses: accepts connections, bounds their number, and detects the protocol on the
//! shared address by the first byte. Peers' connections move to the consensus runtime, except those
//! of reads. `redis_addr` serves RESP alone, inline commands included.
//!
//! Each connection has a door (`admission`): clients can never take the permits of peers, and what has
//! not proved itself can take few permits of any kind.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use memkv_node::Lane;
use memkv_node::contain::contained;
use memkv_node::seldom::Seldom;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::admission::{self, Door, Full};
use crate::audit::{self, Event};
use crate::backend::Backend;
use crate::client_socket;
use crate::guarded::Guarded;
use crate::http::{self, Api, End, Limits, PeerUpgrade};
use crate::peer::{self, HandshakeError, PeerHandler};
use crate::resp::Resp;

/// After a failed accept, such as for lack of file descriptors, some connections may end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A peer's proof follows its upgrade by one round trip.
const PROOF_MAX: Duration = Duration::from_secs(5);

/// First read: enough for most requests.
const FIRST_READ_BYTES: usize = 4 * 1024;

/// While descriptors are short, both happen again and again.
static NOT_ACCEPTED: Seldom = Seldom::new();
static NOT_TAKEN: Seldom = Seldom::new();

/// The state that all connections share.
pub struct Listener<B> {
    api: Arc<Api<B>>,
    resp: Arc<Resp<B>>,
    limits: Arc<Limits>,
    /// Limits of a connection that has no client's permit.
    crowded_limits: Arc<Limits>,
    admission: Arc<admission::Admission>,
    strangers: Seldom,
    /// The consensus runtime, where peers are served.
    consensus: Handle,
}

/// The protocol of a connection, by its first byte.
#[derive(Debug, PartialEq, Eq)]
enum Protocol {
    Http,
    /// An array, as every RESP client starts.
    Resp,
    Tls,
}

impl Protocol {
    fn of(first: u8) -> Self {
        match first {
            b'*' => Self::Resp,
            0x16 => Self::Tls,
            _ => Self::Http,
        }
    }
}

impl<B: Backend> Listener<B> {
    /// A listener that lets in what `admission` does; peers are served on `consensus`.
    pub fn new(
        api: Arc<Api<B>>,
        resp: Arc<Resp<B>>,
        limits: Limits,
        admission: Arc<admission::Admission>,
        consensus: Handle,
    ) -> Self {
        // Idle time is for clients; a connection that is none's must show at once what it is.
        let mut crowded_limits = limits.clone();
        crowded_limits.idle_time = limits.header_time;
        Self {
            api,
            resp,
            limits: Arc::new(limits),
            crowded_limits: Arc::new(crowded_limits),
            admission,
            strangers: Seldom::new(),
            consensus,
        }
    }

    /// Accepts clients and peers until it is dropped.
    pub async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (stream, addrs) = accept(&listener).await;
            #[cfg(memkv_bugs)]
            memkv_disk::bugs::pass(memkv_disk::bugs::PanicPoint::Accept);
            let listener = self.clone();
            tokio::spawn(contained(move || listener.connection(stream, addrs)));
        }
    }

    /// Accepts RESP clients until it is dropped.
    pub async fn accept_resp(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (stream, addrs) = accept(&listener).await;
            let listener = self.clone();
            tokio::spawn(contained(move || listener.resp_connection(stream, addrs)));
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, addrs: Addrs) {
        let Some(door) = self.admission.enter(addrs.client.ip()) else {
            return tracing::debug!("closed a connection: too many are open");
        };
        let serve = pin!(self.serve(stream, addrs, &door));
        door.watch(serve).await;
    }

    async fn resp_connection(self: Arc<Self>, stream: TcpStream, addrs: Addrs) {
        let Some(door) = self.admission.enter(addrs.client.ip()) else {
            return tracing::debug!("closed a connection: too many are open");
        };
        let serve = pin!(self.serve_redis(stream, addrs, &door));
        door.watch(serve).await;
    }

    async fn serve_redis(&self, mut stream: TcpStream, addrs: Addrs, door: &Door) {
        let mut input = BytesMut::with_capacity(FIRST_READ_BYTES);
        // A connection that is not admitted is told so before it has said anything, as Redis does.
        if self.resp.is_open()
            && let Err(full) = door.admit_client()
        {
            return Box::pin(self.refuse_resp(stream, full)).await;
        }
        match stream.read_buf(&mut input).await {
            // The connection itself detects HTTP by its first line.
            Ok(1..) if Protocol::of(input[0]) != Protocol::Tls => {}
            _ => return,
        }
        let addrs = (addrs.client, addrs.local);
        self.resp.serve_through(door, stream, input, addrs).await;
    }

    /// Tells the client about the limit, if that costs nothing.
    async fn refuse_resp(&self, mut stream: TcpStream, full: Full) {
        // A new connection's buffer takes this at once; a client that has gone needs no answer.
        let refusal = self.resp.refusal(full);
        let _ = timeout(ACCEPT_PAUSE, stream.write_all(&refusal)).await;
    }

    /// Serves the protocol that the first byte shows.
    async fn serve(&self, mut stream: TcpStream, addrs: Addrs, door: &Door) {
        let limits = match door.is_proven() {
            true => &self.limits,
            false => &self.crowded_limits,
        };
        let mut input = BytesMut::with_capacity(FIRST_READ_BYTES);
        // Silence shows no protocol, so no protocol's time limit applies yet.
        let read = timeout(limits.idle_time, stream.read_buf(&mut input)).await;
        if !matches!(read, Ok(Ok(1..))) {
            return;
        }
        match Protocol::of(input[0]) {
            Protocol::Http => {}
            Protocol::Resp => {
                if self.resp.is_open()
                    && let Err(full) = door.admit_client()
                {
                    return Box::pin(self.refuse_resp(stream, full)).await;
                }
                let addrs = (addrs.client, addrs.local);
                return self.resp.serve_through(door, stream, input, addrs).await;
            }
            Protocol::Tls => {
                tracing::debug!("closed a connection: TLS is not spoken here");
                return;
            }
        }
        let app = Guarded {
            api: &self.api,
            door,
        };
        let served =
            http::serve_through(door, stream, addrs.client, input, &app, self.limits.clone());
        // Of its own size, as RESP's.
        match Box::pin(served).await {
            End::Closed => {}
            End::Upgraded(stream, leftover, upgrade) => {
                // Most connections are none of a peer.
                let client = addrs.client;
                Box::pin(self.serve_peer(stream, leftover, upgrade, client, door)).await;
            }
        }
    }

    /// Admits a peer once it has proved itself, where it must; until then it holds the permit that it came
    /// in by. Its connection moves to the consensus runtime, unless it is for reads.
    async fn serve_peer(
        &self,
        mut stream: TcpStream,
        mut leftover: BytesMut,
        upgrade: PeerUpgrade,
        client: SocketAddr,
        door: &Door,
    ) {
        let PeerUpgrade {
            lane,
            peer,
            challenge,
        } = upgrade;
        if let Some(challenge) = challenge {
            let settled = timeout(PROOF_MAX, challenge.settle(&mut stream, &mut leftover)).await;
            if let Err(why) = settled.unwrap_or(Err(HandshakeError::Unproven)) {
                return self.refused(&peer, client, &why);
            }
        }
        let permit = door.admit_peer(&peer);
        // Upgrades are admitted only while there is a node.
        let Some(backend) = self.api.backend().cloned() else {
            return;
        };
        let handler: PeerHandler = Arc::new(move |lane, request| backend.handle(lane, request));
        let runtime = match lane {
            Lane::Read => &Handle::current(),
            _ => &self.consensus,
        };
        let moved = stream.into_std();
        runtime.spawn(async move {
            match moved.and_then(TcpStream::from_std) {
                Ok(stream) => tokio::select! {
                    () = peer::serve(stream, leftover, lane, peer, handler) => {}
                    () = permit.ended() => tracing::debug!("closed a peer's connection: it has too many"),
                },
                Err(error) => {
                    if let Some(left_out) = NOT_TAKEN.say() {
                        tracing::warn!(%error, left_out, "cannot take over a peer's connection");
                    }
                }
            }
        });
    }

    /// Logs that a peer was rejected, at a bounded rate: anyone who reaches the node can cause it.
    fn refused(&self, peer: &str, client: SocketAddr, why: &HandshakeError) {
        audit::record(&Event {
            kind: audit::Kind::Peer,
            allowed: false,
            user: peer,
            origin: Some(client),
            detail: &why.to_string(),
        });
        let Some(left_out) = self.strangers.say() else {
            return;
        };
        // A name is believed only with a proof.
        let peer = match why {
            HandshakeError::Refused(_) => peer,
            _ => "unknown",
        };
        tracing::warn!(peer, %why, left_out, "closed a peer's connection");
    }
}

/// Both ends of a connection.
#[derive(Debug, Clone, Copy)]
struct Addrs {
    client: SocketAddr,
    local: SocketAddr,
}

/// The next connection.
async fn accept(listener: &TcpListener) -> (TcpStream, Addrs) {
    loop {
        let accepted = listener.accept().await;
        match accepted.and_then(|(stream, client)| {
            client_socket::tune(&stream)?;
            let local = stream.local_addr()?;
            Ok((stream, Addrs { client, local }))
        }) {
            Ok(accepted) => return accepted,
            // Also a connection that ended before it could be served.
            Err(error) => {
                if let Some(left_out) = NOT_ACCEPTED.say() {
                    tracing::warn!(%error, left_out, "cannot accept a connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use memkv_node::{Frame, Lane, Node, Transport};

    use super::*;
    use crate::admission::AdmissionSettings;
    use crate::http::ApiSettings;
    use crate::peer::{ClusterSecret, Links, Trust};
    use crate::service::Service;
    use crate::testing::{Fake, resp_settings};

    async fn start(max_connections: usize) -> String {
        start_with(max_connections, Trust::Everybody).await
    }

    async fn start_with(max_connections: usize, trust: Trust) -> String {
        let service = Arc::new(Service::new(Duration::from_secs(5)));
        service.attach(Fake::working());
        let peers_prove = trust != Trust::Everybody;
        let settings = ApiSettings {
            name: "n1".to_owned(),
            names: vec!["n1".to_owned()],
            max_value_bytes: 1000,
            trust,
            metrics_public: false,
            allowed_hosts: Vec::new(),
        };
        let api = Arc::new(Api::new(service.clone(), settings));
        let resp = Arc::new(Resp::new(service, resp_settings()));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap().to_string();
        let limits = Limits::default();
        let settings = AdmissionSettings {
            peers_prove,
            ..AdmissionSettings::open(max_connections)
        };
        let ledger = limits.ledger.clone();
        let admission = admission::Admission::new(settings, ledger, resp.counts().clone());
        let listener = Listener::new(api, resp, limits, admission, Handle::current());
        tokio::spawn(Arc::new(listener).accept(socket));
        addr
    }

    async fn ask(stream: &mut TcpStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await.unwrap();
        answer.truncate(read);
        String::from_utf8(answer).unwrap()
    }

    /// Of what `contained` makes of a function's future; none is made.
    fn task_bytes<F: Future>(
        connection: impl Fn(Arc<Listener<Node>>, TcpStream, Addrs) -> F,
    ) -> usize {
        fn returned<A, R>(_: impl Fn(A) -> R) -> usize {
            size_of::<R>()
        }
        returned(|(listener, stream, addrs)| {
            let connection = &connection;
            contained(move || connection(listener, stream, addrs))
        })
    }

    #[test]
    fn the_task_of_a_connection_is_small() {
        /// With the first buffer and what the allocator rounds up, an idle connection takes less than
        /// the 16 KiB that the documentation promises. Large futures that are seldom needed are boxed, and
        /// a protocol's is boxed for itself.
        const TASK_BYTES: usize = 7 * 1024;
        let protocols = [
            http::task_bytes::<TcpStream, Guarded<'_, Node>>(),
            crate::resp::task_bytes::<TcpStream, Node>(),
        ];
        let largest = protocols.into_iter().max().unwrap();
        let sizes = [
            task_bytes(Listener::connection) + largest,
            task_bytes(Listener::resp_connection) + protocols[1],
        ];
        assert!(
            sizes.iter().all(|size| *size < TASK_BYTES),
            "{sizes:?} of {protocols:?}"
        );
    }

    const ALIVE: &str = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";

    #[tokio::test]
    async fn clients_beyond_the_limit_are_told_and_peers_still_get_in() {
        let addr = start(1).await;
        let mut first = TcpStream::connect(&addr).await.unwrap();
        assert!(ask(&mut first, ALIVE).await.starts_with("HTTP/1.1 200"));
        let mut second = TcpStream::connect(&addr).await.unwrap();
        let refusal = ask(&mut second, ALIVE).await;
        assert!(refusal.starts_with("HTTP/1.1 503"), "{refusal}");
        assert!(refusal.contains("max_connections"), "{refusal}");

        let links = Links::new("n2".to_owned(), Handle::current());
        let request = Frame(vec![Bytes::from_static(b"vote")]);
        assert_eq!(
            links
                .call("n1", &addr, Lane::Control, request)
                .await
                .unwrap(),
            "vote"
        );
        assert!(
            ask(&mut first, ALIVE).await.starts_with("HTTP/1.1 200"),
            "still served"
        );
    }

    #[tokio::test]
    async fn the_one_address_speaks_resp_and_closes_tls() {
        let addr = start(10).await;
        let mut stream = TcpStream::connect(&addr).await.unwrap();
        let ping = "*1\r\n$4\r\nPING\r\n";
        assert_eq!(ask(&mut stream, ping).await, "+PONG\r\n");
        let mut stream = TcpStream::connect(&addr).await.unwrap();
        stream.write_all(b"\x16\x03\x01").await.unwrap();
        // Closed with unread bytes it may be a reset; in no case an answer.
        assert!(matches!(stream.read(&mut [0; 16]).await, Ok(0) | Err(_)));
    }

    #[tokio::test]
    async fn a_resp_client_beyond_the_limit_is_told() {
        let addr = start(1).await;
        let mut first = TcpStream::connect(&addr).await.unwrap();
        assert!(ask(&mut first, ALIVE).await.starts_with("HTTP/1.1 200"));
        let mut second = TcpStream::connect(&addr).await.unwrap();
        let refusal = ask(&mut second, "*1\r\n$4\r\nPING\r\n").await;
        assert_eq!(refusal, "-ERR max number of clients reached\r\n");
    }

    #[tokio::test]
    async fn a_peer_is_not_let_in_under_another_nodes_name() {
        let addr = start(10).await;
        let links = Links::new("n2".to_owned(), Handle::current());
        let error = links
            .call("n3", &addr, Lane::Append, Frame::default())
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("this node is \"n1\", not \"n3\""),
            "{error}"
        );
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn proof_of(secret: &str) -> Trust {
        Trust::Secret(ClusterSecret::new(secret).unwrap())
    }

    /// One call of a peer to a node with this `trust`; whether it was answered.
    async fn calls(to: &str, addr: &str, trust: Trust) -> Result<Bytes, String> {
        let links = Links::new("n2".to_owned(), Handle::current()).with_trust(trust);
        let frame = Frame(vec![Bytes::from_static(b"vote")]);
        let called = links.call(to, addr, Lane::Control, frame).await;
        called.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn peers_must_know_the_cluster_secret_in_both_directions() {
        let wrong = "fedcba9876543210fedcba9876543210";
        let guarded = start_with(10, proof_of(SECRET)).await;
        let answered = calls("n1", &guarded, proof_of(SECRET)).await;
        assert_eq!(answered.unwrap(), "vote");
        let error = calls("n1", &guarded, proof_of(wrong)).await.unwrap_err();
        assert!(error.contains("cluster secret"), "{error}");
        let error = calls("n1", &guarded, Trust::Everybody).await.unwrap_err();
        assert!(error.contains("cluster_secret_file"), "{error}");
        let open = start(10).await;
        let error = calls("n1", &open, proof_of(SECRET)).await.unwrap_err();
        assert!(error.contains("cluster secret"), "{error}");
    }

    #[tokio::test]
    async fn a_node_without_trust_admits_and_dials_no_node() {
        let closed = start_with(10, Trust::Nobody).await;
        for trust in [Trust::Everybody, proof_of(SECRET)] {
            let error = calls("n1", &closed, trust).await.unwrap_err();
            assert!(
                error.contains("403") && error.contains("cluster_secret_file"),
                "{error}"
            );
        }
        let open = start(10).await;
        let error = calls("n1", &open, Trust::Nobody).await.unwrap_err();
        assert!(error.contains("cluster_secret_file"), "{error}");
    }

    #[tokio::test]
    async fn the_wrong_name_is_told_to_who_knows_the_secret_only() {
        let guarded = start_with(10, proof_of(SECRET)).await;
        let error = calls("n3", &guarded, proof_of(SECRET)).await.unwrap_err();
        assert!(error.contains("this node is \"n1\", not \"n3\""), "{error}");

        let nonce = "0123456789abcdef".repeat(4);
        for to in ["n1", "n3"] {
            let mut stranger = TcpStream::connect(&guarded).await.unwrap();
            let request = format!(
                "GET /memkv{to}/raft/control HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
                 Upgrade: {}\r\nX-Memkv-From: n2\r\nX-Memkv-Nonce: {nonce}\r\n\r\n",
                peer::PROTOCOL
            );
            let head = ask(&mut stranger, &request).await;
            let (fixed, answered) = head.split_once("X-Memkv-Nonce: ").unwrap();
            assert_eq!(
                fixed,
                format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {}\r\n",
                    peer::PROTOCOL
                )
            );
            assert_eq!(answered.len(), 64 + 4, "a nonce and no proof: {answered}");
            stranger.write_all(&[7; 32]).await.unwrap();
            let mut rest = Vec::new();
            stranger.read_to_end(&mut rest).await.unwrap();
            assert!(rest.is_empty(), "{rest:?}");
        }
    }

    #[tokio::test]
    async fn an_unproven_peer_takes_no_clients_place() {
        let guarded = start_with(1, proof_of(SECRET)).await;
        let request = format!(
            "GET /memkvn1/raft/control HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
             Upgrade: {}\r\nX-Memkv-Nonce: {}\r\n\r\n",
            peer::PROTOCOL,
            "0".repeat(64)
        );
        let mut strangers = Vec::new();
        for _ in 0..10 {
            let mut stranger = TcpStream::connect(&guarded).await.unwrap();
            assert!(ask(&mut stranger, &request).await.contains("101"));
            strangers.push(stranger);
        }
        let mut client = TcpStream::connect(&guarded).await.unwrap();
        assert!(ask(&mut client, ALIVE).await.starts_with("HTTP/1.1 200"));
        let mut second = TcpStream::connect(&guarded).await.unwrap();
        let refusal = ask(&mut second, ALIVE).await;
        assert!(refusal.contains("max_connections"), "{refusal}");
        // A proof still gets a peer in.
        let answered = calls("n1", &guarded, proof_of(SECRET)).await;
        assert_eq!(answered.unwrap(), "vote");
    }

    #[tokio::test]
    async fn a_peer_has_only_so_many_connections_and_a_new_one_gets_in() {
        let open = start(10).await;
        let request = format!(
            "GET /memkvn1/raft/control HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
             Upgrade: {}\r\nX-Memkv-From: n2\r\n\r\n",
            peer::PROTOCOL
        );
        let mut upgraded = Vec::new();
        for _ in 0..40 {
            let mut stream = TcpStream::connect(&open).await.unwrap();
            assert!(ask(&mut stream, &request).await.contains("101"));
            upgraded.push(stream);
        }
        assert_eq!(calls("n1", &open, Trust::Everybody).await.unwrap(), "vote");
        // The oldest have ended.
        for stream in &mut upgraded[..16] {
            let end = timeout(Duration::from_secs(60), stream.read(&mut [0])).await;
            assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
        }
    }
}
