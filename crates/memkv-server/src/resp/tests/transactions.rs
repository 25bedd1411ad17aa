//! MULTI, EXEC and WATCH.

use super::*;

#[tokio::test]
async fn queued_commands_are_executed_as_one() {
    let mut client = start().await.client().await;
    client
        .dialogue(&[
            ("MULTI", "+OK"),
            ("MULTI", "-ERR MULTI calls can not be nested"),
            ("WATCH k", "-ERR WATCH inside MULTI is not allowed"),
            ("SET k 1", "+QUEUED"),
            ("INCR k", "+QUEUED"),
            ("SET k v FOO", "+QUEUED"),
            ("PING", "+QUEUED"),
            ("SELECT 1", "+QUEUED"),
            ("SETNX k one", "+QUEUED"),
            ("TYPE k", "+QUEUED"),
            ("EXEC", "[+OK :2 -ERR syntax error +PONG +OK :1 +string]"),
            ("GET k", "$one"),
            ("SELECT 0", "+OK"),
            ("GET k", "$2"),
            ("EXEC", "-ERR EXEC without MULTI"),
            ("DISCARD", "-ERR DISCARD without MULTI"),
            ("MULTI", "+OK"),
            ("EXEC", "[]"),
        ])
        .await;
}

#[tokio::test]
async fn an_error_of_one_command_undoes_no_other() {
    let mut client = start().await.client().await;
    client
        .dialogue(&[
            ("SET k text", "+OK"),
            ("MULTI", "+OK"),
            ("SET a 1", "+QUEUED"),
            ("INCR k", "+QUEUED"),
            ("SET b 2", "+QUEUED"),
            (
                "EXEC",
                "[+OK -ERR value is not an integer or out of range +OK]",
            ),
            ("MGET a b", "[$1 $2]"),
        ])
        .await;
}

#[tokio::test]
async fn what_cannot_be_queued_aborts() {
    let mut client = start().await.client().await;
    for bad in ["FOO", "GET", "SHUTDOWN"] {
        client.ask("MULTI").await;
        client.ask("SET k v").await;
        assert!(client.ask(bad).await.starts_with("-ERR "), "{bad}");
        assert_eq!(
            client.ask("EXEC").await,
            "-EXECABORT Transaction discarded because of previous errors."
        );
    }
    client
        .dialogue(&[
            ("GET k", "$-1"),
            ("MULTI", "+OK"),
            ("SET k v", "+QUEUED"),
            ("DISCARD", "+OK"),
            ("GET k", "$-1"),
        ])
        .await;
}

#[tokio::test]
async fn watched_keys() {
    let server = start().await;
    let (mut client, mut other) = (server.client().await, server.client().await);
    // What happens between WATCH and EXEC, and whether EXEC may still succeed.
    let cases = [
        ("k", "GET k", "[+OK]"),
        ("k", "SET k v", "*-1"),
        ("k", "EXPIRE k 100", "*-1"),
        ("k", "SET other v", "[+OK]"),
        ("k", "DEL k", "*-1"),
        ("absent", "SETNX absent 1", "*-1"),
        ("nosuch", "DEL nosuch", "[+OK]"),
        ("nosuch", "SELECT 1", "[+OK]"),
        ("nosuch", "SET nosuch v", "[+OK]"), // In database 1 by now.
    ];
    client.ask("SET k v").await;
    for (watched, between, result) in cases {
        client.ask(&format!("WATCH {watched}")).await;
        other.ask(between).await;
        client.ask("MULTI").await;
        client.ask("SET done 1").await;
        assert_eq!(client.ask("EXEC").await, result, "{watched}: {between}");
    }
    // One's own writes count, UNWATCH and DISCARD forget.
    client
        .dialogue(&[
            ("WATCH k", "+OK"),
            ("SET k v", "+OK"),
            ("MULTI", "+OK"),
            ("GET k", "+QUEUED"),
            ("EXEC", "*-1"),
            ("WATCH k", "+OK"),
            ("SET k v", "+OK"),
            ("UNWATCH", "+OK"),
            ("MULTI", "+OK"),
            ("GET k", "+QUEUED"),
            ("EXEC", "[$v]"),
        ])
        .await;
    client.ask("HELLO 3").await;
    client
        .dialogue(&[
            ("WATCH k", "+OK"),
            ("SET k v", "+OK"),
            ("MULTI", "+OK"),
            ("EXEC", "_"),
        ])
        .await;
}

#[tokio::test]
async fn a_transaction_is_bounded() {
    let mut client = start().await.client().await;
    client.ask("MULTI").await;
    for _ in 0..crate::resp::session::MAX_QUEUED {
        assert_eq!(client.ask("PING").await, "+QUEUED");
    }
    let error = client.ask("PING").await;
    assert!(
        error.starts_with("-ERR a transaction takes at most 1024"),
        "{error}"
    );
    assert!(client.ask("EXEC").await.starts_with("-EXECABORT"));
    let keys: Vec<_> = (0..1025).map(|key| key.to_string()).collect();
    let error = client.ask(&format!("WATCH {}", keys.join(" "))).await;
    assert!(
        error.starts_with("-ERR a connection watches at most 1024"),
        "{error}"
    );
}

#[tokio::test]
async fn a_pipeline_of_transactions_is_answered_in_order() {
    let mut client = start().await.client().await;
    let mut raw = Vec::new();
    for _ in 0..50 {
        raw.extend_from_slice(b"MULTI\r\nINCR n\r\nEXEC\r\nGET n\r\nSET k v\r\n");
    }
    client.send_raw(&raw).await;
    for number in 1..=50 {
        let exec = format!("[:{number}]");
        let get = format!("${number}");
        for answer in ["+OK", "+QUEUED", &exec, &get, "+OK"] {
            assert_eq!(client.shown().await, answer);
        }
    }
}

#[tokio::test]
async fn at_the_memory_cap_a_transaction_is_refused_whole() {
    const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";
    let fake = Fake::at_edge_level();
    let mut client = start_with(Some(fake.clone()), resp_settings())
        .await
        .client()
        .await;
    client.dialogue(&[("SET k v", "+OK")]).await;
    // Queued before the cap was reached, so that EXEC finds it.
    client
        .dialogue(&[
            ("MULTI", "+OK"),
            ("DEL k", "+QUEUED"),
            ("SET l v", "+QUEUED"),
        ])
        .await;
    let cap = memkv_store::Command::SetMemory {
        cap: Some(1),
        policy: None,
    };
    crate::backend::Backend::write(&fake, cap, None)
        .await
        .unwrap();
    let aborted = format!("-EXECABORT Transaction discarded because of: {OOM}");
    let oom = format!("-{OOM}");
    client
        .dialogue(&[
            ("EXEC", &*aborted),
            ("GET k", "$v"),
            ("SET l v", &oom),
            // MULTI queues nothing that may grow.
            ("MULTI", "+OK"),
            ("GET k", "+QUEUED"),
            ("INCR n", &oom),
            (
                "EXEC",
                "-EXECABORT Transaction discarded because of previous errors.",
            ),
            ("MULTI", "+OK"),
            ("DEL k", "+QUEUED"),
            ("EXEC", "[:1]"),
            ("SET l v", "+OK"),
        ])
        .await;
}
