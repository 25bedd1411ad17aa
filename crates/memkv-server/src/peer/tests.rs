//! Two ends of a peer link over loopback: order, size, damage, outages.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use memkv_node::lock::Mutex;
use memkv_node::{CallError, Frame, Lane, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Links, PeerHandler, serve};

/// Longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A peer that upgrades every connection and answers with `handler`.
struct Peer {
    addr: String,
    /// Aborted on drop, with every connection.
    tasks: JoinSet<()>,
}

impl Peer {
    async fn start(handler: PeerHandler) -> Self {
        Self::start_on("127.0.0.1:0", handler).await
    }

    async fn start_on(addr: &str, handler: PeerHandler) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let handler = handler.clone();
                connections.spawn(async move {
                    let (stream, leftover, lane) = upgrade(stream).await;
                    serve(stream, leftover, lane, "n1".to_owned(), handler).await;
                });
            }
        });
        Self { addr, tasks }
    }

    async fn stop(mut self) -> String {
        self.tasks.shutdown().await;
        self.addr
    }
}

/// The HTTP side of an upgrade, without the HTTP listener.
async fn upgrade(mut stream: TcpStream) -> (TcpStream, BytesMut, Lane) {
    let mut head = BytesMut::new();
    let end = loop {
        assert!(
            stream.read_buf(&mut head).await.unwrap() > 0,
            "closed during the upgrade"
        );
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = String::from_utf8(head.split_to(end).to_vec()).unwrap();
    let path = text.split(' ').nth(1).unwrap();
    let lane = super::lane_from_name(path.rsplit('/').next().unwrap()).unwrap();
    stream
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        .await
        .unwrap();
    (stream, head, lane)
}

fn links() -> Links {
    Links::new("n1".to_owned(), Handle::current())
}

fn frame(bytes: impl Into<Bytes>) -> Frame {
    Frame(vec![bytes.into()])
}

/// Answers with the request.
fn echo() -> PeerHandler {
    Arc::new(|_lane, request| Box::pin(async move { frame(request) }))
}

async fn ask(links: &Links, addr: &str, request: &'static str) -> Result<Bytes, CallError> {
    let call = links.call("n2", addr, Lane::Append, frame(request));
    tokio::time::timeout(SOON, call)
        .await
        .expect("an answer in time")
}

#[tokio::test]
async fn requests_arrive_in_the_order_of_the_calls_and_answers_find_their_request() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    // Every second request is answered late: answers must not depend on their order.
    let handler: PeerHandler = Arc::new(move |_lane, request| {
        let mut log = log.lock();
        log.push(request.clone());
        let late = log.len() % 2 == 0;
        Box::pin(async move {
            if late {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            frame(request)
        })
    });
    let peer = Peer::start(handler).await;
    let links = links();
    let requests: Vec<Bytes> = (0..500)
        .map(|n| Bytes::from(format!("request {n}")))
        .collect();
    // Called, not awaited: the place in the order is taken by the call.
    let calls: Vec<_> = requests
        .iter()
        .map(|request| links.call("n2", &peer.addr, Lane::Append, frame(request.clone())))
        .collect();
    for (call, request) in calls.into_iter().zip(&requests).rev() {
        assert_eq!(call.await.unwrap(), request);
    }
    assert_eq!(*seen.lock(), requests);
}

#[tokio::test]
async fn lanes_do_not_wait_for_each_other() {
    let gate = Arc::new(Semaphore::new(0));
    let (seen, wait) = (Arc::new(Mutex::new(Vec::new())), gate.clone());
    let log = seen.clone();
    let handler: PeerHandler = Arc::new(move |lane, request| {
        log.lock().push(lane);
        let wait = wait.clone();
        Box::pin(async move {
            if lane == Lane::Snapshot {
                drop(wait.acquire().await.unwrap());
            }
            frame(request)
        })
    });
    let peer = Peer::start(handler).await;
    let links = links();
    let slow = links.call("n2", &peer.addr, Lane::Snapshot, frame(vec![1; 8 << 20]));
    let others = Lane::ALL.into_iter().filter(|lane| *lane != Lane::Snapshot);
    for lane in others {
        assert_eq!(
            &links
                .call("n2", &peer.addr, lane, frame("quick"))
                .await
                .unwrap()[..],
            b"quick"
        );
    }
    gate.add_permits(1);
    assert_eq!(slow.await.unwrap().len(), 8 << 20);
    let mut lanes = seen.lock().clone();
    lanes.sort();
    assert_eq!(lanes, Lane::ALL);
}

#[tokio::test]
async fn big_frames_go_both_ways_at_once_in_parts() {
    let peer = Peer::start(echo()).await;
    let links = links();
    // Both directions are full at once: a side that only wrote would block the other for ever.
    let part = Bytes::from((0..=255_u8).cycle().take(1 << 20).collect::<Vec<u8>>());
    let calls: Vec<_> = (1..=8)
        .map(|parts| {
            let request = Frame(vec![part.clone(); parts]);
            links.call("n2", &peer.addr, Lane::Snapshot, request)
        })
        .collect();
    for (parts, call) in (1..=8).zip(calls) {
        let answer = tokio::time::timeout(SOON, call).await.unwrap().unwrap();
        assert_eq!(answer, part.repeat(parts), "{parts} MiB");
    }
    let empty = links
        .call("n2", &peer.addr, Lane::Control, Frame::default())
        .await
        .unwrap();
    assert!(empty.is_empty());
    let too_long = Frame(vec![part; 73]);
    let refused = links.call("n2", &peer.addr, Lane::Snapshot, too_long).await;
    assert!(matches!(refused, Err(CallError::Unreachable(why)) if why.contains("limit")));
}

#[tokio::test]
async fn a_peer_that_does_not_listen_is_unreachable_and_found_when_it_comes() {
    let gone = Peer::start(echo()).await.stop().await;
    let links = links();
    let refused = ask(&links, &gone, "anybody?").await;
    assert!(
        matches!(refused, Err(CallError::NoListener(_))),
        "{refused:?}"
    );

    let _peer = Peer::start_on(&gone, echo()).await;
    assert_eq!(ask(&links, &gone, "now?").await.unwrap(), "now?");
}

#[tokio::test]
async fn a_connection_that_breaks_is_lost_and_opened_again() {
    let silent: PeerHandler = Arc::new(|_, _| Box::pin(std::future::pending()));
    let peer = Peer::start(silent).await;
    let links = links();
    let call = links.call("n2", &peer.addr, Lane::Append, frame("who knows"));
    let call = tokio::spawn(call);
    // The request has been written when a later one on the same lane has been read.
    let (sender, read) = tokio::sync::oneshot::channel();
    let sender = Mutex::new(Some(sender));
    let addr = peer.addr.clone();
    peer.stop().await;
    let answer = call.await.unwrap();
    assert!(answer.is_err(), "{answer:?}");

    let counting: PeerHandler = Arc::new(move |_, _| {
        if let Some(sender) = sender.lock().take() {
            sender.send(()).unwrap();
        }
        Box::pin(std::future::pending())
    });
    let peer = Peer::start_on(&addr, counting).await;
    let call = tokio::spawn(links.call("n2", &addr, Lane::Append, frame("delivered")));
    read.await.unwrap();
    peer.stop().await;
    assert!(
        matches!(call.await.unwrap(), Err(CallError::Lost(_))),
        "delivered, answer lost"
    );

    let _peer = Peer::start_on(&addr, echo()).await;
    assert_eq!(ask(&links, &addr, "again").await.unwrap(), "again");
}

#[tokio::test]
async fn a_damaged_answer_closes_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let liar = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, mut request, _lane) = upgrade(stream).await;
        while request.len() < 24 {
            stream.read_buf(&mut request).await.unwrap();
        }
        request[23] ^= 1;
        stream.write_all(&request).await.unwrap();
        stream.read(&mut [0]).await.unwrap()
    });
    let damaged = ask(&links(), &addr, "true").await;
    assert!(matches!(damaged, Err(CallError::Lost(why)) if why.contains("checksum")));
    assert_eq!(liar.await.unwrap(), 0, "the connection was closed");
}

#[tokio::test]
async fn a_damaged_request_is_not_delivered_and_closes_the_connection() {
    let delivered = Arc::new(Mutex::new(0));
    let count = delivered.clone();
    let handler: PeerHandler = Arc::new(move |_, request| {
        *count.lock() += 1;
        Box::pin(async move { frame(request) })
    });
    let peer = Peer::start(handler).await;
    let mut stream = TcpStream::connect(&peer.addr).await.unwrap();
    let mut out = std::collections::VecDeque::new();
    super::frame::push(&mut out, 1, frame("good")).unwrap();
    super::frame::push(&mut out, 2, frame("evil")).unwrap();
    let mut bytes: Vec<u8> = out.iter().flat_map(|part| part.to_vec()).collect();
    *bytes.last_mut().unwrap() ^= 0x80;
    let head = "GET /memkvn2/raft/append HTTP/1.1\r\n\r\n".as_bytes();
    stream.write_all(&[head, &bytes].concat()).await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(*delivered.lock(), 1);
}

#[tokio::test]
async fn a_refusal_is_told_in_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = BytesMut::with_capacity(4096);
            stream.read_buf(&mut head).await.unwrap();
            // The connection stays open: the length has to be believed.
            let answer = "HTTP/1.1 421 No\r\nContent-Length: 17\r\n\r\nthis node is \"n3\"";
            stream.write_all(answer.as_bytes()).await.unwrap();
            open.push(stream);
        }
    });
    let refused = ask(&links(), &addr, "n2?").await;
    assert!(
        matches!(&refused, Err(CallError::Unreachable(why)) if why.contains("this node is \"n3\"")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_request_that_is_no_longer_waited_for_is_not_sent() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let handler: PeerHandler = Arc::new(move |_, request| {
        log.lock().push(request.clone());
        Box::pin(async move { frame(request) })
    });
    let addr = Peer::start(echo()).await.stop().await;
    let links = links();
    drop(links.call("n2", &addr, Lane::Append, frame("forgotten")));
    let _peer = Peer::start_on(&addr, handler).await;
    assert_eq!(ask(&links, &addr, "wanted").await.unwrap(), "wanted");
    assert_eq!(*seen.lock(), ["wanted"]);
}
