//! The end of a node's service over RESP: every request that was received is answered.

use super::*;

const WORDS: &str = "-LOADING this node is stopping; nothing was executed; use another node, or this one once it \
                     has started again";

/// As `run.rs` does it.
fn refuse(server: &TestServer) {
    server.resp.service.drain().refuse();
    server.resp.wake_all();
}

fn end(server: &TestServer) {
    server.resp.service.drain().end();
    server.resp.wake_all();
}

#[tokio::test]
async fn a_pause_while_leadership_is_handed_over_and_then_words_for_each_request() {
    let server = start().await;
    let (mut early, mut other) = (server.client().await, server.client().await);
    assert_eq!(early.ask("SET k 1").await, "+OK");
    assert_eq!(other.ask("PING").await, "+PONG");
    server.resp.service.drain().begin();
    assert_eq!(early.ask("INCR k").await, ":2");
    let mut late = server.client().await;
    assert_eq!(late.ask("INCR k").await, WORDS);
    assert_eq!(late.shown().await, "(closed)");
    refuse(&server);
    let mut pipeline = BytesMut::new();
    (0..3).for_each(|_| encode_command(&mut pipeline, &["INCR", "k"]));
    early.send_raw(&pipeline).await;
    for _ in 0..3 {
        assert_eq!(early.shown().await, WORDS);
    }
    assert_eq!(early.shown().await, "(closed)");
    // Nothing of it was executed.
    let key = server.resp.service.read_one(memkv_store::Query::Get {
        key: bytes::Bytes::from_static(b"k"),
    });
    let two = memkv_store::ReplyValue::Bulk(bytes::Bytes::from_static(b"2"));
    assert_eq!(key.await.unwrap().0, two);
    assert_eq!(other.ask("PING").await, WORDS);
}

#[tokio::test]
async fn a_transaction_that_was_begun_is_not_executed() {
    let server = start().await;
    let mut client = server.client().await;
    client
        .dialogue(&[("MULTI", "+OK"), ("SET k 1", "+QUEUED")])
        .await;
    refuse(&server);
    let answer = client.ask("EXEC").await;
    assert!(answer.starts_with("-EXECABORT"), "{answer}");
    assert!(answer.contains("this node is stopping"), "{answer}");
    assert_eq!(client.shown().await, "(closed)");
}

#[tokio::test]
async fn a_client_that_waits_for_copies_is_told_how_many_there_are() {
    let server = start().await;
    let (mut client, mut other) = (server.client().await, server.client().await);
    client.dialogue(&[("SET k 1", "+OK")]).await;
    client.send("WAIT 7 0").await;
    // By the time that this is answered, the one above waits.
    assert_eq!(other.ask("PING").await, "+PONG");
    refuse(&server);
    let answer = client.shown().await;
    assert!(answer.starts_with(':'), "{answer}");
    assert_eq!(client.ask("PING").await, WORDS);
    assert_eq!(client.shown().await, "(closed)");
}

#[tokio::test]
async fn a_subscriber_gets_what_was_published_and_then_the_end() {
    let server = start().await;
    let (mut listener, mut idle) = (server.client().await, server.client().await);
    let mut speaker = server.client().await;
    listener
        .dialogue(&[("SUBSCRIBE c", "[$subscribe $c :1]")])
        .await;
    assert_eq!(idle.ask("PING").await, "+PONG");
    assert_eq!(speaker.ask("PUBLISH c last").await, ":1");
    refuse(&server);
    assert_eq!(listener.shown().await, "[$message $c $last]");
    end(&server);
    assert_eq!(listener.shown().await, "(closed)");
    assert_eq!(idle.shown().await, "(closed)");
}
