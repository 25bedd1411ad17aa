//! Who is let in by which door, and what the others are told.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use memkv_node::{Frame, Lane, Node, Transport};

use super::*;
use crate::admission::{AdmissionSettings, Counts};
use crate::http::ApiSettings;
use crate::peer::{ClusterSecret, Links, Trust};
use crate::service::Service;
use crate::testing::{Fake, resp_settings};

async fn start(max_connections: usize) -> String {
    start_with(max_connections, Trust::Everybody).await
}

async fn start_with(max_connections: usize, trust: Trust) -> String {
    start_counting(max_connections, trust, false).await.0
}

/// Starts a listener, whose clients may have to prove themselves, and gives what it counts too.
async fn start_counting(
    max_connections: usize,
    trust: Trust,
    clients_prove: bool,
) -> (String, Arc<Counts>) {
    let service = Arc::new(Service::new(Duration::from_secs(5)));
    service.attach(Fake::working());
    let peers_prove = trust != Trust::Everybody;
    let settings = ApiSettings {
        name: "n1".to_owned(),
        names: vec!["n1".to_owned()],
        max_value_bytes: 1000,
        trust,
        peers_need_tls: false,
        metrics_public: false,
        allowed_hosts: Vec::new(),
    };
    let api = Arc::new(Api::new(service.clone(), settings));
    let resp = Arc::new(Resp::new(service, resp_settings()));
    let socket = client_socket::listen(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    let limits = Limits::default();
    let settings = AdmissionSettings {
        peers_prove,
        clients_prove: Arc::new(AtomicBool::new(clients_prove)),
        ..AdmissionSettings::open(max_connections)
    };
    let (ledger, counts) = (limits.ledger.clone(), resp.counts().clone());
    let admission = admission::Admission::new(settings, ledger, counts.clone());
    let listener = Listener::new(api, resp, limits, admission, Handle::current());
    tokio::spawn(Arc::new(listener).accept(socket));
    (addr, counts)
}

async fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    answer.truncate(read);
    String::from_utf8(answer).unwrap()
}

/// Of what a function returns, which is not called.
fn returned<A, R>(_: impl Fn(A) -> R) -> usize {
    size_of::<R>()
}

/// Of what `contained` makes of a function's future.
fn task_bytes<F: Future>(connection: impl Fn(Arc<Listener<Node>>, TcpStream, Addrs) -> F) -> usize {
    returned(|(listener, stream, addrs)| {
        let connection = &connection;
        contained(move || connection(listener, stream, addrs))
    })
}

type Http<'a> = (&'a Listener<Node>, Stream, BytesMut, SocketAddr, &'a Door);

fn http_bytes() -> usize {
    returned(|(listener, stream, input, client, door): Http<'static>| {
        listener.serve_http(stream, input, client, door)
    })
}

#[test]
fn the_task_of_a_connection_is_small() {
    /// With the first buffer and what the allocator rounds up, an idle connection takes less than
    /// the 16 KiB that the documentation promises. Large futures that are seldom needed are boxed, and
    /// a protocol's is boxed for itself.
    const TASK_BYTES: usize = 7 * 1024;
    let protocols = [http_bytes(), crate::resp::task_bytes::<Stream, Node>()];
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

#[tokio::test]
async fn clients_that_come_all_at_once_are_let_in_a_few_at_a_time() {
    const CLIENTS: usize = 400;
    /// An eighth of the permits of loopback.
    const CROWD: usize = 128;
    let (addr, counts) = start_counting(1000, Trust::Everybody, true).await;
    // The listener's task has no turn before all are there.
    let connect = |_| std::net::TcpStream::connect(&addr).unwrap();
    let clients: Vec<_> = (0..CLIENTS).map(connect).collect();
    let began = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let let_in = counts.unproven.load(Ordering::Relaxed);
        let turns = began.elapsed().div_duration_f64(TURN) as usize + 2;
        assert!(
            let_in <= CROWD + turns * AT_ONCE,
            "{let_in} in {turns} turns"
        );
        if let_in == CLIENTS {
            break;
        }
    }
    drop(clients);
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
