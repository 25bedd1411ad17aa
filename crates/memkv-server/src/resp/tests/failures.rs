//! What a client is told when the cluster cannot answer.

use memkv_node::RequestError;

use super::*;

async fn client_of(backend: Option<Fake>) -> TestClient {
    start_with(backend, resp_settings()).await.client().await
}

#[tokio::test]
async fn prefixes_say_whether_a_write_was_executed() {
    let detail = || "n2 is down".to_owned();
    for (error, set, get) in [
        (
            RequestError::NoLeader { detail: detail() },
            "-CLUSTERDOWN ",
            "-CLUSTERDOWN ",
        ),
        (
            RequestError::Unknown { detail: detail() },
            "-UNKNOWN outcome of SET is not known: n2 is down",
            "-CLUSTERDOWN ",
        ),
        (
            RequestError::Overloaded { queued: 1 },
            "-TRYAGAIN ",
            "-TRYAGAIN ",
        ),
        (RequestError::DiskFull, "-MISCONF ", "-MISCONF "),
        (RequestError::OutOfMemory, "-OOM ", "-OOM "),
        (RequestError::DiskExhausted, "-MISCONF ", "-MISCONF "),
        (RequestError::Stopping, "-LOADING ", "-LOADING "),
    ] {
        let mut client = client_of(Some(Fake::failing(error))).await;
        for (command, prefix) in [("SET k v", set), ("GET k", get)] {
            let answer = client.ask(command).await;
            assert!(answer.starts_with(prefix), "{command}: {answer}");
        }
        client.ask("MULTI").await;
        client.ask("SET k v").await;
        let prefix = set.replace("SET", "EXEC");
        assert!(client.ask("EXEC").await.starts_with(&prefix));
        assert_eq!(client.ask("PING").await, "+PONG", "the connection goes on");
    }
}

#[tokio::test]
async fn every_command_is_answered_in_time() {
    let mut client = client_of(Some(Fake::hanging())).await;
    client.send("SET k v").await;
    client.send("GET k").await;
    client.send("PING").await;
    assert!(client.shown().await.starts_with("-UNKNOWN outcome of SET"));
    assert!(client.shown().await.starts_with("-CLUSTERDOWN "));
    assert_eq!(client.shown().await, "+PONG");
}

#[tokio::test]
async fn while_the_node_loads() {
    let mut client = client_of(None).await;
    for command in ["GET k", "SET k v", "PING", "WATCH k", "TIME"] {
        let answer = client.ask(command).await;
        assert!(answer.starts_with("-LOADING "), "{command}: {answer}");
    }
    assert!(client.ask("INFO").await.contains("loading:1"));
    assert!(client.ask("HELLO 3").await.starts_with("%{$server=$redis"));
    assert!(
        client
            .ask("EXEC")
            .await
            .starts_with("-ERR EXEC without MULTI")
    );
}
