//! Limits, framing and the life of a connection.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::http::conn::PIECE_BYTES;
use crate::http::limits::MAX_IGNORED_BODY_BYTES;
use crate::ledger::Ledger;
use crate::testing::Eager;

fn limits() -> Limits {
    Limits::default()
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_is_answered_with_408_in_time() {
    let mut client = connect();
    let start = Instant::now();
    client
        .send("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ")
        .await;
    let answer = client.answer(true).await;
    assert_eq!(answer.status, 408);
    assert!(answer.text().contains("5s"), "{}", answer.text());
    assert_eq!(answer.header("connection"), Some("Close"));
    assert!(client.is_closed().await);
    assert_eq!(start.elapsed().as_secs(), limits().header_time.as_secs());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_without_a_word_and_not_before_its_time() {
    let mut client = connect();
    let start = Instant::now();
    assert!(client.is_closed().await);
    assert_eq!(start.elapsed().as_secs(), limits().idle_time.as_secs());

    let mut client = connect();
    assert_eq!(client.ask("GET", "/livez", b"").await.status, 200);
    tokio::time::sleep(limits().header_time * 2).await;
    assert_eq!(
        client.ask("GET", "/livez", b"").await.status,
        200,
        "idle is not slow"
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_is_answered_with_408_and_executes_nothing() {
    let api = api(Some(Fake::working()));
    let mut client = connect_to(api.clone());
    client
        .send("PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345")
        .await;
    let answer = client.answer(true).await;
    assert_eq!(answer.status, 408, "{}", answer.text());
    assert!(answer.text().contains("slow"), "{}", answer.text());
    assert_eq!(
        connect_to(api).ask("GET", "/v1/kv/k", b"").await.status,
        404
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_that_moves_is_read() {
    let mut client = connect();
    let start = Instant::now();
    client
        .send("PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n")
        .await;
    for _ in 0..9 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.send([b'v'; 100]).await;
    }
    assert_eq!(client.answer(true).await.status, 200);
    assert_eq!(start.elapsed().as_secs(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_dropped() {
    let api = api(Some(Fake::working()));
    let mut client = connect_to(api.clone());
    // More answers than the pipe between the two ends holds.
    for _ in 0..2000 {
        client
            .send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        if client.server.is_finished() {
            break;
        }
    }
    let start = Instant::now();
    assert!(matches!(client.server.await.unwrap(), End::Closed));
    assert!(start.elapsed() <= limits().write_stall);
}

#[tokio::test]
async fn what_is_too_long_is_refused_with_its_limit() {
    let mut client = connect();
    let field = "x".repeat(limits().header_bytes);
    client
        .send(format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nX: {field}\r\n\r\n"
        ))
        .await;
    let answer = client.answer(true).await;
    assert_eq!(answer.status, 431);
    assert!(answer.text().contains("16384"), "{}", answer.text());

    // By its announced length alone.
    for (path, word) in [("/v1/kv/k", "1000"), ("/store/set", "max_value_bytes")] {
        let method = if path == "/store/set" { "POST" } else { "PUT" };
        let mut client = connect();
        let length = 1_u64 << 40;
        client
            .send(format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
            ))
            .await;
        let answer = client.answer(true).await;
        assert_eq!(answer.status, 413, "{path}");
        assert!(answer.text().contains(word), "{}", answer.text());
    }

    // By what arrives.
    let mut client = connect();
    client
        .send("PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    client.send("ffffffffffffffff\r\n").await;
    assert_eq!(client.answer(true).await.status, 413);
}

#[tokio::test]
async fn a_refused_request_is_read_to_its_end_so_that_the_refusal_arrives() {
    let mut client = connect();
    client
        .send("PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        .await;
    // More than the pipe holds: without reading, the server would block the client.
    client.send(vec![0; 1_000_000]).await;
    assert_eq!(client.answer(true).await.status, 413);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn chunks_make_a_body_and_bad_ones_a_400() {
    let mut client = connect();
    let head = "PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    client
        .send(format!(
            "{head}3;x=y\r\nabc\r\n2 \r\nde\r\n0\r\nTrailer: t\r\n\r\n"
        ))
        .await;
    assert_eq!(client.answer(true).await.status, 200);
    assert_eq!(client.ask("GET", "/v1/kv/k", b"").await.body, b"abcde");
    for bad in [
        "\r\n",
        "x\r\n",
        "-1\r\n",
        "+1\r\na\r\n",
        "1\r\nab\r\n",
        "1\na\n",
        "3\r\nabc0\r\n",
    ] {
        let mut client = connect();
        client.send(format!("{head}{bad}0\r\n\r\n")).await;
        assert_eq!(client.answer(true).await.status, 400, "{bad:?}");
    }
    let mut client = connect();
    client.send(format!("{head}{}", "0".repeat(1000))).await;
    assert_eq!(
        client.answer(true).await.status,
        400,
        "an endless size line"
    );
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let mut client = connect();
    let mut requests = String::new();
    for number in 0..100 {
        requests.push_str(&format!(
            "PUT /v1/kv/k{number} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n{number:03}\r\n"
        ));
    }
    client.send(requests).await;
    for number in 1..=100 {
        let answer = client.answer(true).await;
        assert_eq!(
            answer.header("x-memkv-revision"),
            Some(&*number.to_string())
        );
    }
}

#[tokio::test]
async fn continue_is_said_only_to_who_waits_for_it() {
    let mut client = connect();
    let head = "PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    client.send(head).await;
    assert_eq!(client.answer(true).await.status, 100);
    client.send("abc").await;
    assert_eq!(client.answer(true).await.status, 200);
    client.send(format!("{head}abc")).await;
    assert_eq!(
        client.answer(true).await.status,
        200,
        "the body is already here"
    );
    let too_long = head.replace("Length: 3", "Length: 3000");
    client.send(too_long).await;
    assert_eq!(
        client.answer(true).await.status,
        413,
        "no invitation to a refused body"
    );
}

#[tokio::test]
async fn the_connection_ends_when_either_side_says_so() {
    let mut client = connect();
    let answer = client
        .ask_with("GET", "/livez", "Connection: close\r\n", b"")
        .await;
    assert_eq!(answer.header("connection"), Some("Close"));
    assert!(client.is_closed().await);

    let mut client = connect();
    client
        .send("GET /livez HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
        .await;
    assert_eq!(
        client.answer(true).await.header("connection"),
        Some("Keep-Alive")
    );
    client.send("GET /livez HTTP/1.0\r\n\r\n").await;
    assert_eq!(
        client.answer(true).await.header("connection"),
        Some("Close")
    );
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn garbage_gets_a_400_and_the_end() {
    for garbage in [
        "\x16\x03\x01\r\n\r\n",
        "hello\r\n\r\n",
        "GET\r\n\r\n",
        "a\nb\n\n",
    ] {
        let mut client = connect();
        client.send(garbage).await;
        assert_eq!(client.answer(true).await.status, 400, "{garbage:?}");
        client.stream.shutdown().await.unwrap();
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn a_refusal_skips_a_short_body_and_the_connection_goes_on() {
    let mut client = connect();
    let body = vec![b'x'; MAX_IGNORED_BODY_BYTES];
    assert_eq!(client.ask("POST", "/nowhere", &body).await.status, 404);
    assert_eq!(client.ask("GET", "/livez", b"").await.status, 200);
}

#[tokio::test]
async fn bodies_and_heads_of_all_connections_together_are_bounded() {
    // Half of it is for requests.
    let ledger = Ledger::small(200_000);
    let limits = Arc::new(Limits {
        ledger: ledger.clone(),
        ..limits()
    });
    let api = api_with(Some(Fake::working()), 1_000_000);
    let head = "PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n";
    let mut waiting = connect_with(api.clone(), limits.clone());
    waiting.send(head).await;
    waiting.send([0; 80_000]).await;
    let mut refused = connect_with(api.clone(), limits.clone());
    refused.send(head).await;
    refused.send([0; 150_000]).await;
    let answer = refused.answer(true).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("200000"), "{}", answer.text());
    drop(refused);
    // What was refused is given back: there is room for as much again.
    waiting.send([0; 15_000]).await;
    let mut small = connect_with(api.clone(), limits.clone());
    assert_eq!(small.ask("PUT", "/v1/kv/small", b"v").await.status, 200);
    // A head that does not end counts as well.
    let mut long = connect_with(api, limits);
    long.send(format!("GET /v1/kv/{}", "k".repeat(100_000)))
        .await;
    assert_eq!(long.answer(true).await.status, 503);
    drop((waiting, long, small));
    while ledger.used_in_all() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_a_byte_now_and_then_is_dropped() {
    let api = api_with(Some(Fake::working()), 1_000_000);
    let mut client = connect_to(api.clone());
    let value = vec![b'v'; 1_000_000];
    assert_eq!(client.ask("PUT", "/v1/kv/k", &value).await.status, 200);
    client
        .send("GET /v1/kv/k HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    let start = Instant::now();
    while !client.server.is_finished() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.stream.read_exact(&mut [0; 100]).await.unwrap();
        assert!(start.elapsed() < limits().write_stall * 3);
    }
}

#[tokio::test]
async fn a_large_value_arrives_and_leaves_in_pieces() {
    const LARGE_BYTES: usize = 8 * 1024 * 1024;
    /// A piece, the one that was begun before it, and heads.
    const MOST: usize = 2 * PIECE_BYTES + 4096;
    let value: Vec<u8> = (0..LARGE_BYTES).map(|at| (at % 251) as u8).collect();
    let (head, kv) = ("Host: localhost\r\n", "/v1/kv/k HTTP/1.1\r\n");
    let mut requests = format!("PUT {kv}{head}Content-Length: {LARGE_BYTES}\r\n\r\n").into_bytes();
    requests.extend_from_slice(&value);
    requests.extend_from_slice(format!("GET {kv}{head}\r\n").as_bytes());
    let stream = Eager::sending(requests);
    let (output, most) = (stream.output.clone(), stream.most.clone());
    let api = api_with(Some(Fake::working()), LARGE_BYTES);
    serve(
        stream,
        HERE,
        BytesMut::new(),
        &*api,
        Arc::new(Limits::default()),
    )
    .await;
    assert!(output.lock().ends_with(&value));
    let most = most.load(Ordering::Relaxed);
    assert!(most <= MOST, "{most} bytes while others waited");
}

#[tokio::test]
async fn where_the_node_stops_the_last_answer_says_that_the_connection_ends() {
    let limits = Arc::new(limits());
    let connect = || connect_with(api(Some(Fake::working())), limits.clone());
    let (mut busy, mut pipelining, mut idle) = (connect(), connect(), connect());
    for client in [&mut busy, &mut pipelining, &mut idle] {
        let answer = client.ask("GET", "/livez", b"").await;
        assert_eq!(answer.header("connection"), None);
    }
    limits.drain.begin();
    limits.drain.refuse();
    // It is executed: the answer can say that no other will be.
    let answer = busy.ask("PUT", "/v1/kv/k", b"v").await;
    assert_eq!(answer.header("connection"), Some("Close"));
    assert!(matches!(answer.status, 200 | 201 | 204), "{answer:?}");
    assert!(busy.is_closed().await);
    let one = "GET /v1/kv/k HTTP/1.1\r\nHost: localhost\r\n\r\n";
    pipelining.send(format!("{one}{one}")).await;
    let first = pipelining.answer(true).await;
    assert_eq!(first.header("connection"), None);
    let last = pipelining.answer(true).await;
    assert_eq!(last.header("connection"), Some("Close"));
    assert!(pipelining.is_closed().await);
    limits.drain.end();
    assert!(idle.is_closed().await);
}
