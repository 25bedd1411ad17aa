//! Publish and subscribe on one node.

use super::*;

#[tokio::test]
async fn messages_reach_who_listens() {
    let server = start().await;
    let (mut listener, mut sender) = (server.client().await, server.client().await);
    assert_eq!(listener.ask("SUBSCRIBE a b").await, "[$subscribe $a :1]");
    assert_eq!(listener.shown().await, "[$subscribe $b :2]");
    assert_eq!(listener.ask("PSUBSCRIBE a*").await, "[$psubscribe $a* :3]");
    assert_eq!(listener.ask("SSUBSCRIBE a").await, "[$ssubscribe $a :1]");
    sender
        .dialogue(&[
            ("PUBLISH nobody x", ":0"),
            ("PUBLISH a x", ":2"),
            ("SPUBLISH a y", ":1"),
            ("PUBSUB CHANNELS", "[$a $b]"),
            ("PUBSUB CHANNELS a*", "[$a]"),
            ("PUBSUB NUMSUB a nobody", "[$a :1 $nobody :0]"),
            ("PUBSUB NUMPAT", ":1"),
            ("PUBSUB SHARDCHANNELS", "[$a]"),
            (
                "PUBSUB FOO",
                "-ERR unknown subcommand 'FOO'. Try PUBSUB HELP.",
            ),
        ])
        .await;
    for message in [
        "[$message $a $x]",
        "[$pmessage $a* $a $x]",
        "[$smessage $a $y]",
    ] {
        assert_eq!(listener.shown().await, message);
    }
    listener
        .dialogue(&[
            ("PING", "[$pong $]"),
            ("PING x", "[$pong $x]"),
            ("GET k", "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"),
            ("UNSUBSCRIBE a", "[$unsubscribe $a :2]"),
            ("UNSUBSCRIBE", "[$unsubscribe $b :1]"),
            ("UNSUBSCRIBE", "[$unsubscribe $-1 :1]"),
            ("PUNSUBSCRIBE", "[$punsubscribe $a* :0]"),
            ("SUNSUBSCRIBE", "[$sunsubscribe $a :0]"),
            ("GET k", "$-1"),
        ])
        .await;
    assert_eq!(sender.ask("PUBLISH a x").await, ":0");
}

#[tokio::test]
async fn in_resp3_messages_are_pushes_and_nothing_is_forbidden() {
    let server = start().await;
    let mut client = server.client().await;
    client.ask("HELLO 3").await;
    assert_eq!(client.ask("SUBSCRIBE a").await, ">[$subscribe $a :1]");
    assert_eq!(client.ask("GET k").await, "_");
    assert_eq!(client.ask("PUBLISH a x").await, ">[$message $a $x]");
    assert_eq!(client.shown().await, ":1");
}

#[tokio::test]
async fn who_leaves_is_forgotten() {
    let server = start().await;
    let mut sender = server.client().await;
    let mut listener = server.client().await;
    listener.ask("SUBSCRIBE a").await;
    assert_eq!(listener.ask("RESET").await, "+RESET");
    assert_eq!(sender.ask("PUBLISH a x").await, ":0");
    listener.ask("SUBSCRIBE a").await;
    assert_eq!(sender.ask("CLIENT KILL TYPE pubsub").await, ":1");
    assert_eq!(listener.shown().await, "(closed)");
    // The connection ends before its registry entries do, so this waits for them.
    while sender.ask("PUBLISH a x").await != ":0" {
        tokio::task::yield_now().await;
    }
    assert_eq!(sender.ask("PUBSUB CHANNELS").await, "[]");
}
