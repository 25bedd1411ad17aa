//! One client that sends or receives much, and the others of its thread: they have their turns
//! meanwhile.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use memkv_store::Command;

use super::*;
use crate::backend::Backend;
use crate::resp::conn::PIECE_BYTES;
use crate::testing::Eager;

/// The largest value without a configuration.
const LARGE_BYTES: usize = 8 * 1024 * 1024;

/// What may move between two turns of others: a piece, the one that was begun before it, and requests.
const MOST: usize = 2 * PIECE_BYTES + 4096;

fn large() -> Bytes {
    let bytes: Vec<u8> = (0..LARGE_BYTES).map(|at| (at % 251) as u8).collect();
    bytes.into()
}

fn request(args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_command(&mut out, args);
    out
}

fn bulk(value: &[u8]) -> Vec<u8> {
    let mut out = format!("${}\r\n", value.len()).into_bytes();
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
    out
}

async fn holding(values: &[(&str, Bytes)]) -> TestServer {
    let backend = Fake::working();
    for (key, value) in values {
        let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), value.clone());
        backend
            .write(Command::Set { key, value }, None)
            .await
            .unwrap();
    }
    let settings = RespSettings {
        max_value_bytes: LARGE_BYTES,
        ..resp_settings()
    };
    start_with(Some(backend), settings).await
}

/// What is answered to these bytes, and the most that moved while others waited.
async fn served(server: &TestServer, input: Vec<u8>) -> (Vec<u8>, usize) {
    let stream = Eager::sending(input);
    let (output, most) = (stream.output.clone(), stream.most.clone());
    let addr = SocketAddr::from(([127, 0, 0, 1], 1));
    let serving = server.resp.serve(stream, BytesMut::new(), addr, addr);
    serving.await;
    let output = std::mem::take(&mut *output.lock());
    (output, most.load(Ordering::Relaxed))
}

/// Holds `requests` to their answer, and to the turns of others.
async fn check(server: &TestServer, requests: &[&[&[u8]]], answer: &[&[u8]]) {
    let input = requests.iter().flat_map(|args| request(args)).collect();
    let (output, most) = served(server, input).await;
    let shown = requests.last().unwrap()[0].escape_ascii();
    assert!(output == answer.concat(), "{shown}");
    assert!(most <= MOST, "{shown}: {most} bytes while others waited");
}

#[tokio::test]
async fn a_large_value_leaves_in_pieces() {
    let value = large();
    let server = holding(&[("a", value.clone()), ("b", Bytes::from_static(b"small"))]).await;
    let (large, small) = (bulk(&value), bulk(b"small"));
    check(&server, &[&[b"GET", b"a"]], &[&large]).await;
    let many: &[&[u8]] = &[b"MGET", b"a", b"b", b"a"];
    check(&server, &[many], &[b"*3\r\n", &large, &small, &large]).await;
    check(
        &server,
        &[&[b"MULTI"], &[b"GET", b"a"], many, &[b"EXEC"]],
        &[
            b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n",
            &large,
            b"*3\r\n",
            &large,
            &small,
            &large,
        ],
    )
    .await;
    let (output, most) = served(&server, request(&[b"MEMKV.RANGE", b""])).await;
    assert!(output.len() > LARGE_BYTES && most <= MOST, "{most}");
    let echo: &[&[u8]] = &[b"ECHO", &value];
    check(&server, &[echo], &[&large]).await;
}

#[tokio::test]
async fn many_small_values_leave_in_pieces() {
    const VALUES: usize = 3000;
    let value = Bytes::from(vec![b'v'; 1000]);
    let server = holding(&[("k", value.clone())]).await;
    let many = [&[&b"MGET"[..]][..], &vec![&b"k"[..]; VALUES]].concat();
    let answer = [&b"*3000\r\n"[..], &bulk(&value).repeat(VALUES)];
    check(&server, &[&many], &answer).await;
}

#[tokio::test]
async fn a_large_value_that_no_client_wants_is_not_sent() {
    let server = holding(&[("a", large())]).await;
    let get: &[&[u8]] = &[b"GET", b"a"];
    let skip: &[&[u8]] = &[b"CLIENT", b"REPLY", b"SKIP"];
    check(&server, &[skip, get, &[b"PING"]], &[b"+PONG\r\n"]).await;
    let reply = |word| [&b"CLIENT"[..], b"REPLY", word];
    let (off, on) = (reply(b"OFF"), reply(b"ON"));
    let set: &[&[u8]] = &[b"SET", b"b", b"c"];
    for set in [set, get] {
        let requests = [
            &off,
            &[&b"MULTI"[..]][..],
            get,
            set,
            &[b"EXEC"],
            &on,
            &[b"PING"],
        ];
        check(&server, &requests, &[b"+OK\r\n+PONG\r\n"]).await;
    }
}

#[tokio::test]
async fn a_large_value_arrives_in_pieces() {
    let server = holding(&[]).await;
    let value = large();
    check(&server, &[&[b"SET", b"a", &value]], &[b"+OK\r\n"]).await;
    check(&server, &[&[b"GET", b"a"]], &[&bulk(&value)]).await;
}

#[tokio::test]
async fn many_keys_arrive_in_pieces() {
    let server = holding(&[]).await;
    let keys: Vec<String> = (0..100_000).map(|at| format!("key:{at:08}")).collect();
    let with = |command: &'static str| [&[command.as_bytes()][..], &args(&keys)].concat();
    check(&server, &[&with("MSET")], &[b"+OK\r\n"]).await;
    let answer = args(&keys).into_iter().skip(1).step_by(2).map(bulk);
    let answer: Vec<u8> = answer
        .flat_map(|odd| [odd, b"$-1\r\n".to_vec()].concat())
        .collect();
    check(&server, &[&with("MGET")], &[b"*100000\r\n", &answer]).await;
    check(&server, &[&with("DEL")], &[b":50000\r\n"]).await;
}

fn args(keys: &[String]) -> Vec<&[u8]> {
    keys.iter().map(String::as_bytes).collect()
}

/// Serves on one thread with a backend that takes a write on only when another task of the thread has
/// run since: what executes it in place would wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_write_that_is_long_to_encode_does_not_hold_the_thread() {
    let backend = Fake::working();
    let settings = RespSettings {
        max_value_bytes: LARGE_BYTES,
        ..resp_settings()
    };
    let server = start_with(Some(backend.clone()), settings).await;
    let value = vec![b'v'; LARGE_BYTES];
    let keys: Vec<String> = (0..100_000).map(|at| format!("key:{at:08}")).collect();
    let many = [&[&b"MSET"[..]][..], &args(&keys)].concat();
    for long in [&[&b"SET"[..], b"a", &value][..], &many] {
        let asked = backend.waits_for_another_task();
        let mut client = server.client().await;
        client.send_args(long).await;
        tokio::spawn(asked);
        assert_eq!(client.shown().await, "+OK");
    }
}

#[tokio::test]
async fn what_takes_long_is_done_aside() {
    let server = holding(&[("a", large())]).await;
    let works = || server.resp.server.aside.works.load(Ordering::Relaxed);
    let value = large();
    let keys: Vec<String> = (0..100_000).map(|at| format!("key:{at:08}")).collect();
    let with = |command: &'static str| [&[command.as_bytes()][..], &args(&keys)].concat();
    let asked = async |requests: &[&[&[u8]]]| {
        let before = works();
        let input = requests.iter().flat_map(|args| request(args)).collect();
        served(&server, input).await;
        works() - before
    };
    // Understood, encoded, and the buffer freed.
    assert_eq!(asked(&[&[b"SET", b"b", &value]]).await, 3);
    // Understood, and encoded.
    assert_eq!(asked(&[&with("MSET")]).await, 2);
    assert_eq!(asked(&[&with("DEL")]).await, 2);
    assert_eq!(asked(&[&with("MGET")]).await, 1);
    let (multi, exec): (&[&[u8]], &[&[u8]]) = (&[b"MULTI"], &[b"EXEC"]);
    assert_eq!(asked(&[multi, &with("MSET"), exec]).await, 2);
    assert_eq!(asked(&[multi, &with("MGET"), exec]).await, 1);
    assert_eq!(asked(&[&[b"PUBLISH", b"c", &value]]).await, 2);
    // Answered.
    assert_eq!(asked(&[&with("SUBSCRIBE")]).await, 1);
    assert_eq!(asked(&[multi, &with("SUBSCRIBE"), exec]).await, 2);
    assert_eq!(asked(&[&with("WATCH")]).await, 1);
    // What is short is not.
    assert_eq!(
        asked(&[&[b"SET", b"b", b"c"], &[b"MGET", b"a", b"b"]]).await,
        0
    );
}
