//! What a node says of itself is true.

use std::net::SocketAddr;

use super::*;

async fn info(client: &mut TestClient, name: &str) -> String {
    let info = client.ask("INFO").await;
    let line = info.lines().find_map(|line| {
        let (found, value) = line.trim_end().split_once(':')?;
        (found == name).then(|| value.to_owned())
    });
    line.unwrap_or_else(|| panic!("no {name} in {info}"))
}

#[tokio::test]
async fn appendfsync_says_what_an_acknowledgement_means() {
    for (sync, said) in [(true, "always"), (false, "no")] {
        let settings = RespSettings {
            sync,
            ..resp_settings()
        };
        let server = start_with(Some(Fake::working()), settings).await;
        let mut client = server.client().await;
        let answer = client.ask("CONFIG GET appendfsync").await;
        assert_eq!(answer, format!("[$appendfsync ${said}]"));
    }
    // Before there is a node, the configuration knows.
    let settings = RespSettings {
        sync: false,
        ..resp_settings()
    };
    let mut client = start_with(None, settings).await.client().await;
    let answer = client.ask("CONFIG GET appendfsync").await;
    assert_eq!(answer, "[$appendfsync $no]");
}

#[tokio::test]
async fn a_rewrite_of_the_configuration_is_refused_for_what_it_is() {
    let mut client = start().await.client().await;
    let answer = client.ask("CONFIG REWRITE").await;
    assert!(!answer.contains("without a config file"), "{answer}");
    assert!(answer.starts_with("-ERR memkv never writes"), "{answer}");
}

#[tokio::test]
async fn each_start_has_a_run_id_of_its_own() {
    let (first, second) = (start().await, start().await);
    let (mut one, mut other) = (first.client().await, second.client().await);
    let id = info(&mut one, "run_id").await;
    assert_eq!(id.len(), 40);
    assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert_eq!(info(&mut one, "run_id").await, id);
    assert_ne!(info(&mut other, "run_id").await, id);
}

#[tokio::test]
async fn persistence_is_what_the_node_does() {
    let fake = Fake::working();
    let server = start_with(Some(fake.clone()), resp_settings()).await;
    let mut client = server.client().await;
    assert_eq!(info(&mut client, "rdb_bgsave_in_progress").await, "0");
    assert_eq!(info(&mut client, "aof_last_write_status").await, "ok");
    fake.is_building_a_snapshot(true);
    fake.is_low_on_disk(true);
    assert_eq!(info(&mut client, "rdb_bgsave_in_progress").await, "1");
    assert_eq!(info(&mut client, "aof_last_write_status").await, "err");
}

#[tokio::test]
async fn wait_counts_the_nodes_that_have_the_write() {
    let fake = Fake::working();
    let server = start_with(Some(fake.clone()), resp_settings()).await;
    let (mut client, mut other) = (server.client().await, server.client().await);
    client.ask("SET k v").await;
    assert_eq!(client.ask("WAIT 0 0").await, ":0");
    assert_eq!(client.ask("WAIT 1 10").await, ":0");
    assert_eq!(client.ask("WAITAOF 1 1 10").await, "[:1 :0]");
    client.send("WAIT 2 0").await;
    assert_eq!(other.ask("PING").await, "+PONG");
    fake.others_have(&[1, u64::MAX]);
    assert_eq!(other.ask("WAIT 2 1").await, ":1");
    fake.others_have(&[u64::MAX, u64::MAX]);
    assert_eq!(client.shown().await, ":2");
    assert_eq!(client.ask("WAIT 1 0").await, ":2");
    // Within a transaction nothing is waited for, as in Redis.
    fake.others_have(&[u64::MAX, 0]);
    client.ask("MULTI").await;
    client.ask("WAIT 2 0").await;
    assert_eq!(client.ask("EXEC").await, "[:1]");
    // Who goes while it waits is noticed.
    client.send("WAIT 2 0").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.shown().await, "(closed)");
    for bad in ["WAIT x 0", "WAIT 1 -1", "WAIT 1 x", "WAITAOF 2 0 0"] {
        assert!(other.ask(bad).await.starts_with("-ERR "), "{bad}");
    }
}

#[tokio::test]
async fn a_wait_that_is_over_at_once_keeps_nothing_that_was_asked_behind_it() {
    let server = start().await;
    let addr = SocketAddr::from(([127, 0, 0, 1], 1));
    for _ in 0..64 {
        // All that the client will say is there, and its end, before the first of it is looked at.
        let (mut client, end) = tokio::io::duplex(1024);
        client.write_all(b"WAIT 0 0\r\nSET k v\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        server.resp.serve(end, BytesMut::new(), addr, addr).await;
        let mut answers = String::new();
        client.read_to_string(&mut answers).await.unwrap();
        assert_eq!(answers, ":0\r\n+OK\r\n");
    }
}
