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

#[tokio::test]
async fn what_one_listens_to_is_bounded() {
    let server = start().await;
    let mut client = server.client().await;
    // In RESP3 a listener may go on asking.
    client.ask("HELLO 3").await;
    let long = "*a".repeat(100_000);
    let answer = client.ask(&format!("PSUBSCRIBE ok {long}")).await;
    let text = "-ERR the pattern has 200000 bytes, and at most 1024 are allowed";
    assert_eq!(answer, text);
    let answer = client.ask(&format!("PUBSUB CHANNELS {long}")).await;
    assert_eq!(answer, text);
    let channel = "c".repeat(65_537);
    let text = "-ERR the channel has 65537 bytes, and at most 65536 are allowed";
    for command in ["SUBSCRIBE ok", "SSUBSCRIBE", "PUBLISH", "SPUBLISH"] {
        let payload = if command.contains("PUBLISH") {
            " x"
        } else {
            ""
        };
        let answer = client.ask(&format!("{command} {channel}{payload}")).await;
        assert_eq!(answer, text, "{command}");
    }
    // A refused command has subscribed to nothing.
    assert_eq!(client.ask("PUBSUB CHANNELS").await, "[]");
    assert_eq!(client.ask("PUBSUB NUMPAT").await, ":0");
    let channel = "c".repeat(65_536);
    assert_eq!(client.ask(&format!("PUBLISH {channel} x")).await, ":0");
}

#[tokio::test]
async fn a_connection_has_so_many_patterns_and_a_publish_is_quick_with_all_of_them() {
    let server = start().await;
    let (mut listener, mut sender) = (server.client().await, server.client().await);
    listener.ask("HELLO 3").await;
    // Slow ones, for a matcher that goes back: together as long as may be.
    let patterns: Vec<_> = (0..64)
        .map(|at| format!("{}{at:04}", "*a".repeat(510)))
        .collect();
    listener
        .send(&format!("PSUBSCRIBE {}", patterns.join(" ")))
        .await;
    for _ in 0..64 {
        assert!(listener.shown().await.starts_with(">[$psubscribe "));
    }
    let answer = listener.ask("PSUBSCRIBE one more").await;
    let text = "-ERR a connection listens to at most 1024 patterns with 65536 bytes together";
    assert_eq!(answer, text);
    // No text but its first byte is different, so that each pattern is followed to the end.
    let channel = format!("{}0063", "a".repeat(65_532));
    assert_eq!(sender.ask(&format!("PUBLISH {channel} x")).await, ":1");
    let message = listener.shown().await;
    assert!(message.starts_with(">[$pmessage "), "{message:.40}");
    assert!(message.ends_with(" $x]"));
    // Room that is given back can be used again.
    listener.send("PUNSUBSCRIBE").await;
    for _ in 0..64 {
        assert!(listener.shown().await.starts_with(">[$punsubscribe "));
    }
    let many: Vec<_> = (0..1024).map(|at| at.to_string()).collect();
    listener
        .send(&format!("PSUBSCRIBE {}", many.join(" ")))
        .await;
    for _ in 0..1024 {
        assert!(listener.shown().await.starts_with(">[$psubscribe "));
    }
    assert_eq!(listener.ask("PSUBSCRIBE one").await, text);
    assert_eq!(
        listener.ask("PSUBSCRIBE 1").await,
        ">[$psubscribe $1 :1024]"
    );
}

#[tokio::test]
async fn messages_of_one_publisher_stay_in_order_whatever_it_takes_to_match_them() {
    let server = start().await;
    let (mut listener, mut sender) = (server.client().await, server.client().await);
    let slow = "*a".repeat(511);
    listener.ask(&format!("PSUBSCRIBE {slow}*")).await;
    let (long, short) = ("a".repeat(65_536), "a".repeat(600));
    let mut raw = Vec::new();
    for at in 0..40 {
        let channel = if at % 2 == 0 { &long } else { &short };
        raw.extend_from_slice(format!("PUBLISH {channel} {at}\r\n").as_bytes());
        if raw.len() > 60_000 {
            sender.send_raw(&raw).await;
            raw.clear();
        }
    }
    sender.send_raw(&raw).await;
    for at in 0..40 {
        assert_eq!(sender.shown().await, ":1");
        let message = listener.shown().await;
        assert!(message.ends_with(&format!(" ${at}]")), "{at}");
    }
}
