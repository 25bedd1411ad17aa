//! What a client's memory is counted as, and the bounds of it, in bytes and in time.

use std::net::SocketAddr;

use bytes::Bytes;
use memkv_store::Command;
use tokio::io::DuplexStream;
use tokio::time::Instant;

use super::*;
use crate::backend::Backend;
use crate::ledger::{Class, Ledger};
use crate::pace::GRACE;

const MIB: usize = 1024 * 1024;

/// A client over a pipe, whose server ends with its connection.
fn piped(server: &TestServer) -> (DuplexStream, tokio::task::JoinHandle<()>) {
    let (stream, far) = tokio::io::duplex(64 * 1024);
    let addr = SocketAddr::from(([127, 0, 0, 1], 1));
    let resp = server.resp.clone();
    let serving = async move { resp.serve(far, BytesMut::new(), addr, addr).await };
    (stream, tokio::spawn(serving))
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let limit = Duration::from_secs(60);
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(limit, wait).await;
    waited.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn holding(ledger: &Ledger, values: &[(&'static str, usize)]) -> TestServer {
    let backend = Fake::working();
    for (key, length) in values {
        let key = Bytes::from_static(key.as_bytes());
        let value = Bytes::from(vec![b'v'; *length]);
        backend
            .write(Command::Set { key, value }, None)
            .await
            .unwrap();
    }
    start_counted(Some(backend), resp_settings(), ledger.clone()).await
}

#[tokio::test]
async fn a_queued_command_is_counted_and_does_not_keep_the_buffer_it_came_in() {
    let ledger = Ledger::small(64 * MIB);
    let server = holding(&ledger, &[]).await;
    let mut client = server.client().await;
    client.ask("MULTI").await;
    let value = "v".repeat(MIB / 2);
    for _ in 0..4 {
        assert_eq!(client.ask(&format!("SET k {value}")).await, "+QUEUED");
    }
    let used = ledger.used(Class::Queued);
    assert!(
        (2 * MIB - 16 * 1024..2 * MIB + 64 * 1024).contains(&used),
        "{used}"
    );
    assert_eq!(client.ask("DISCARD").await, "+OK");
    until("what was queued is given back", || {
        ledger.used(Class::Queued) == 0
    })
    .await;
}

#[tokio::test]
async fn nothing_is_queued_once_a_transaction_is_broken() {
    let ledger = Ledger::small(64 * MIB);
    let server = holding(&ledger, &[]).await;
    let mut client = server.client().await;
    client.ask("MULTI").await;
    let value = "v".repeat(MIB / 2);
    let set = format!("SET k {value}");
    assert_eq!(client.ask(&set).await, "+QUEUED");
    assert!(
        client
            .ask("NOSUCHCOMMAND")
            .await
            .starts_with("-ERR unknown")
    );
    for _ in 0..8 {
        assert_eq!(client.ask(&set).await, "+QUEUED");
    }
    until("nothing is held", || ledger.used(Class::Queued) == 0).await;
    assert!(client.ask("EXEC").await.starts_with("-EXECABORT"));
    assert_eq!(client.ask("EXISTS k").await, ":0");
}

#[tokio::test]
async fn transactions_and_watched_keys_of_all_clients_together_are_bounded() {
    // A quarter of it is for what is queued, and an eighth for one client.
    let ledger = Ledger::small(8 * MIB);
    let server = holding(&ledger, &[]).await;
    let value = "v".repeat(MIB - 1024);
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = server.client().await;
        client.ask("MULTI").await;
        assert_eq!(client.ask(&format!("SET k {value}")).await, "+QUEUED");
        let answer = client.ask(&format!("SET k {value}")).await;
        assert!(answer.contains("a transaction takes at most"), "{answer}");
        client.ask("DISCARD").await;
        client.ask("MULTI").await;
        assert_eq!(client.ask(&format!("SET k {value}")).await, "+QUEUED");
        clients.push(client);
    }
    let mut late = server.client().await;
    late.ask("MULTI").await;
    let answer = late.ask(&format!("SET k {value}")).await;
    assert!(answer.starts_with("-TRYAGAIN"), "{answer}");
    assert!(late.ask("EXEC").await.starts_with("-EXECABORT"));
    let key = "k".repeat(60_000);
    let keys: Vec<String> = (0..10).map(|at| format!("{key}{at}")).collect();
    let watch = [&["WATCH".to_owned()][..], &keys].concat();
    late.send_args(&watch).await;
    let answer = late.shown().await;
    assert!(answer.starts_with("-TRYAGAIN"), "{answer}");
    drop(clients);
    until("there is room again", || ledger.used(Class::Queued) == 0).await;
    late.send_args(&watch).await;
    assert_eq!(late.shown().await, "+OK");
    assert!(ledger.used(Class::Queued) > 590_000);
    assert_eq!(late.ask("UNWATCH").await, "+OK");
    until("nothing is watched", || ledger.used(Class::Queued) == 0).await;
}

#[tokio::test]
async fn replies_that_the_node_gives_by_itself_leave_before_more_are_made() {
    let ledger = Ledger::small(256 * MIB);
    let server = holding(&ledger, &[]).await;
    let mut listener = server.client().await;
    let names: Vec<String> = (0..16).map(|at| format!("{at:060000}")).collect();
    let subscribe = [&["SUBSCRIBE".to_owned()][..], &names].concat();
    listener.send_args(&subscribe).await;
    for _ in &names {
        listener.shown().await;
    }
    // A thousand replies of almost a mebibyte each; none is read.
    let mut silent = server.client().await;
    silent.send_raw(&b"PUBSUB CHANNELS\r\n".repeat(1000)).await;
    until("its replies wait", || ledger.used(Class::Output) > 0).await;
    let mut most = 0;
    for _ in 0..50 {
        most = most.max(ledger.used(Class::Output));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(most < 2 * MIB, "{most}");
    drop(silent);
    until("nothing waits", || ledger.used(Class::Output) == 0).await;
}

#[tokio::test]
async fn one_reply_and_all_together_keep_to_the_ledger() {
    // Half of it is for replies, and an eighth for one client.
    let ledger = Ledger::small(8 * MIB);
    let server = holding(&ledger, &[("a", MIB / 4), ("b", 10)]).await;
    let mut client = server.client().await;
    let many = |count: usize| [vec!["MGET"], vec!["a"; count]].concat();
    client.send_args(&many(3)).await;
    assert!(client.shown().await.starts_with("[$vvv"));
    client.send_args(&many(5)).await;
    let answer = client.shown().await;
    assert!(answer.contains("too long"), "{answer}");
    client.ask("MULTI").await;
    client.send_args(&many(5)).await;
    assert_eq!(client.shown().await, "+QUEUED");
    let answer = client.ask("EXEC").await;
    assert!(answer.contains("too long"), "{answer}");
    // Others take all there is: small replies still come, large ones are refused.
    let mut others = ledger.hold(Class::Output);
    others.set(6 * MIB);
    client.send_args(&many(2)).await;
    let answer = client.shown().await;
    assert!(answer.starts_with('-'), "{answer}");
    assert_eq!(client.ask("MGET b b").await, "[$vvvvvvvvvv $vvvvvvvvvv]");
    assert!(client.ask("GET a").await.starts_with("$vvv"));
    let range = client.ask("MEMKV.RANGE '' LIMIT 5000").await;
    assert!(range.starts_with('['), "{range:.100}");
    drop(others);
    client.send_args(&many(3)).await;
    assert!(client.shown().await.starts_with("[$vvv"));
    until("nothing waits", || ledger.used(Class::Output) == 0).await;
}

#[tokio::test]
async fn values_that_the_store_has_let_go_of_are_counted_until_they_are_read() {
    let ledger = Ledger::small(8 * MIB);
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|key| (key, MIB));
    let server = holding(&ledger, &keys).await;
    let (mut slow, serving) = piped(&server);
    let taken = b"GETDEL a\r\nGETDEL b\r\nGETDEL c\r\nGETDEL d\r\nGETDEL e\r\n";
    slow.write_all(taken).await.unwrap();
    until("the values are counted", || {
        ledger.used(Class::Output) >= 4 * MIB
    })
    .await;
    // While that is more than there may be, writes that return a value are executed one by one.
    let (mut other, other_serving) = piped(&server);
    other.write_all(b"GETDEL f\r\nGETDEL g\r\n").await.unwrap();
    let mut client = server.client().await;
    let taken = async {
        while client.ask("EXISTS f").await != ":0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, taken).await.expect("one value");
    assert_eq!(client.ask("EXISTS g").await, ":1");
    // What is read is given back.
    let mut read = vec![0; 3 * MIB];
    slow.read_exact(&mut read).await.unwrap();
    until("a part is given back", || {
        ledger.used(Class::Output) <= 4 * MIB
    })
    .await;
    drop((slow, other));
    serving.await.unwrap();
    other_serving.await.unwrap();
    assert_eq!(ledger.used(Class::Output), 0);
}

#[tokio::test]
async fn subscriptions_are_counted_and_bounded() {
    // A quarter of it is for subscriptions, and of that a quarter for one client.
    let ledger = Ledger::small(1600 * 1024);
    let server = holding(&ledger, &[]).await;
    let mut client = server.client().await;
    let subscribe = |from: usize, count: usize| {
        let names = (from..from + count).map(|at| format!("channel:{at:0100}"));
        ["SUBSCRIBE".to_owned()]
            .into_iter()
            .chain(names)
            .collect::<Vec<_>>()
    };
    client.send_args(&subscribe(0, 100)).await;
    for _ in 0..100 {
        client.shown().await;
    }
    let used = ledger.used(Class::Subscriptions);
    assert!(used > 100 * 500, "{used}");
    client.send_args(&subscribe(100, 200)).await;
    let answer = client.shown().await;
    assert!(answer.contains("too much memory"), "{answer}");
    assert_eq!(ledger.used(Class::Subscriptions), used);
    client.ask(&format!("UNSUBSCRIBE channel:{:0100}", 7)).await;
    until("one is given back", || {
        ledger.used(Class::Subscriptions) < used
    })
    .await;
    drop(client);
    until("all are given back", || {
        ledger.used(Class::Subscriptions) == 0
    })
    .await;
}

#[tokio::test]
async fn a_request_for_which_there_is_no_room_is_answered() {
    let ledger = Ledger::small(400_000);
    let server = holding(&ledger, &[]).await;
    let mut client = server.client().await;
    client
        .send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$300000\r\n")
        .await;
    client.send_raw(&[b'v'; 299_000]).await;
    let answer = client.shown().await;
    assert!(answer.starts_with("-TRYAGAIN"), "{answer}");
    assert_eq!(client.shown().await, "(closed)");
    assert!(ledger.refused(Class::Input) > 0);
    until("nothing is held", || ledger.used(Class::Input) == 0).await;
    let mut client = server.client().await;
    assert_eq!(client.ask("EXISTS k").await, ":0");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_trickles_ends_its_connection_and_one_that_moves_does_not() {
    let server = start().await;
    let (mut client, serving) = piped(&server);
    client
        .write_all(b"*2\r\n$3\r\nGET\r\n$5000\r\n")
        .await
        .unwrap();
    let start = Instant::now();
    serving.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), GRACE.as_secs());
    // Some more than a kibibyte per second, for longer than the grace.
    let (mut client, _serving) = piped(&server);
    client
        .write_all(b"*2\r\n$4\r\nECHO\r\n$33000\r\n")
        .await
        .unwrap();
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.write_all(&[b'v'; 1100]).await.unwrap();
    }
    client.write_all(b"\r\n").await.unwrap();
    let mut answer = [0; 8];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"$33000\r\n");
}

#[tokio::test(start_paused = true)]
async fn idle_clients_are_disconnected_where_that_is_configured_and_subscribers_are_not() {
    let settings = RespSettings {
        idle_time: Some(Duration::from_secs(60)),
        ..resp_settings()
    };
    let idle = start_with(Some(Fake::working()), settings).await;
    let never = start().await;
    let (_never, never_ends) = piped(&never);
    let (mut listener, listens) = piped(&idle);
    listener.write_all(b"SUBSCRIBE c\r\n").await.unwrap();
    let (mut client, serving) = piped(&idle);
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(50)).await;
    client.write_all(b"PING\r\n").await.unwrap();
    serving.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 110);
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert!(!never_ends.is_finished() && !listens.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_a_byte_now_and_then_is_disconnected() {
    let ledger = Ledger::small(64 * MIB);
    let server = holding(&ledger, &[("a", MIB)]).await;
    let (mut client, serving) = piped(&server);
    client.write_all(&b"GET a\r\n".repeat(10)).await.unwrap();
    let start = Instant::now();
    while !serving.is_finished() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.read_exact(&mut [0; 100]).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(30));
    }
    assert_eq!(ledger.used(Class::Output), 0);
}
