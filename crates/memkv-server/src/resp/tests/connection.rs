//! What a connection says about itself, and what it is told.

use super::*;
use crate::password::Password;

#[tokio::test]
async fn hello_chooses_the_protocol() {
    let mut client = start().await.client().await;
    let hello = client.ask("HELLO").await;
    assert!(hello.starts_with("[$server $redis $version"), "{hello}");
    assert!(hello.contains("$proto :2") && hello.contains("$mode $standalone $role $master"));
    let hello = client.ask("HELLO 3 SETNAME me").await;
    assert!(hello.starts_with("%{$server=$redis"), "{hello}");
    client
        .dialogue(&[
            ("GET nosuch", "_"),
            ("CLIENT GETNAME", "$me"),
            ("HELLO 4", "-NOPROTO unsupported protocol version"),
            (
                "HELLO x",
                "-ERR Protocol version is not an integer or out of range",
            ),
            ("HELLO 2 FOO", "-ERR Syntax error in HELLO option 'FOO'"),
            (
                "HELLO 2 SETNAME a\tb",
                "-ERR Client names cannot contain spaces, newlines or special characters.",
            ),
            (
                "HELLO 2 AUTH foo x",
                "-WRONGPASS invalid username-password pair or user is disabled.",
            ),
            ("GET nosuch", "_"),
            ("RESET", "+RESET"),
            ("GET nosuch", "$-1"),
            ("CLIENT GETNAME", "$-1"),
        ])
        .await;
}

#[tokio::test]
async fn there_is_no_password() {
    let mut client = start().await.client().await;
    client
        .dialogue(&[
            ("AUTH x", "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?"),
            ("AUTH default x", "+OK"),
            ("AUTH a b", "-WRONGPASS invalid username-password pair or user is disabled."),
            ("AUTH a b c", "-ERR syntax error"),
            ("ACL WHOAMI", "$default"),
        ])
        .await;
}

#[tokio::test]
async fn with_a_password_nothing_is_done_before_it_was_shown() {
    let rights = Rights::new(Some(&Password::new("hunter2")), false);
    let server = start_for(Some(Fake::working()), resp_settings(), rights).await;
    let mut client = server.client().await;
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.";
    client
        .dialogue(&[
            ("SET k v", "-NOAUTH Authentication required."),
            (
                "FOO",
                "-ERR unknown command 'FOO', with args beginning with: ",
            ),
            ("AUTH hunter1", wrong),
            ("AUTH root hunter2", wrong),
            ("HELLO 3 AUTH default hunter1", wrong),
            ("PING", "-NOAUTH Authentication required."),
            ("AUTH hunter2", "+OK"),
            ("GET k", "$-1"),
            ("AUTH hunter1", wrong),
            ("SET k v", "+OK"),
            ("RESET", "+RESET"),
            ("GET k", "-NOAUTH Authentication required."),
        ])
        .await;
    let hello = client.ask("HELLO 3").await;
    assert!(hello.starts_with("-NOAUTH HELLO must be called"), "{hello}");
    let hello = client.ask("HELLO 3 AUTH default hunter2").await;
    assert!(hello.starts_with('%'), "{hello}");
    client.dialogue(&[("GET k", "$v")]).await;
}

#[tokio::test]
async fn answers_can_be_turned_off() {
    let mut client = start().await.client().await;
    client.send("CLIENT REPLY OFF").await;
    client.send("SET k v").await;
    client.send("FOO").await;
    client.send("PING").await;
    assert_eq!(client.ask("CLIENT REPLY ON").await, "+OK");
    assert_eq!(client.ask("GET k").await, "$v");
    client.send("CLIENT REPLY SKIP").await;
    client.send("SET k w").await;
    assert_eq!(client.ask("GET k").await, "$w");
    assert_eq!(client.ask("CLIENT REPLY FOO").await, "-ERR syntax error");
}

#[tokio::test]
async fn connections_see_and_end_each_other() {
    let server = start().await;
    let (mut one, mut other) = (server.client().await, server.client().await);
    one.dialogue(&[
        ("CLIENT ID", ":1"),
        ("CLIENT SETNAME one", "+OK"),
        ("CLIENT SETINFO LIB-NAME lib", "+OK"),
        ("CLIENT SETINFO FOO lib", "-ERR Unrecognized option 'FOO'"),
        ("CLIENT NO-EVICT on", "+OK"),
        ("CLIENT TRACKING off", "+OK"),
        (
            "CLIENT MAINT_NOTIFICATIONS ON",
            "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.",
        ),
        ("CLIENT KILL ID 99", ":0"),
        ("CLIENT KILL 127.0.0.1:1", "-ERR No such client"),
        (
            "CLIENT KILL ID x",
            "-ERR client-id should be greater than 0",
        ),
        ("CLIENT LIST TYPE foo", "-ERR Unknown client type 'foo'"),
    ])
    .await;
    assert_eq!(other.ask("CLIENT ID").await, ":2");
    let list = one.ask("CLIENT LIST").await;
    assert!(
        list.starts_with("$id=1 addr=127.0.0.1:") && list.contains("\nid=2 "),
        "{list}"
    );
    assert!(
        list.contains("name=one") && list.contains("lib-name=lib"),
        "{list}"
    );
    assert_eq!(one.ask("CLIENT KILL ID 2").await, ":1");
    assert_eq!(other.shown().await, "(closed)");
    assert_eq!(one.ask("CLIENT KILL ID 1").await, ":0", "not itself");
    assert_eq!(one.ask("CLIENT KILL ID 1 SKIPME no").await, ":1");
    assert_eq!(one.shown().await, "(closed)");
    let mut third = server.client().await;
    assert_eq!(third.ask("QUIT").await, "+OK");
    assert_eq!(third.shown().await, "(closed)");
}

#[tokio::test]
async fn what_tools_ask_at_the_start() {
    let mut client = start().await.client().await;
    client
        .dialogue(&[
            ("PING", "+PONG"),
            ("PING x", "$x"),
            ("ECHO x", "$x"),
            ("CONFIG GET save", "[$save $]"),
            ("CONFIG GET appendonly databases", "[$appendonly $yes $databases $16]"),
            ("CONFIG GET nosuch", "[]"),
            ("CONFIG SET nosuch 1", "-ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'"),
            ("CONFIG SET save x", "-ERR CONFIG SET failed (possibly related to argument 'save') - can't set immutable config"),
            ("CONFIG RESETSTAT", "+OK"),
            ("MODULE LIST", "[]"),
            ("FUNCTION LIST", "[]"),
            ("SLOWLOG GET", "[]"),
            ("SLOWLOG GET -2", "-ERR count should be greater than or equal to -1"),
            ("SLOWLOG LEN", ":0"),
            ("LATENCY LATEST", "[]"),
            ("WAIT 0 0", ":0"),
            ("WAIT 0 -1", "-ERR timeout is negative"),
            ("WAITAOF 1 0 0", "[:1 :0]"),
            ("READONLY", "+OK"),
            ("GET nosuch", "$-1"),
            ("READWRITE", "+OK"),
            ("SHUTDOWN FOO", "-ERR syntax error"),
            ("SHUTDOWN ABORT", "-ERR No shutdown in progress."),
            ("CLUSTER INFO", "-ERR unknown command 'CLUSTER', with args beginning with: 'INFO' "),
        ])
        .await;
    let role = client.ask("ROLE").await;
    assert!(role.starts_with("[$master :"), "{role}");
    assert!(
        client
            .ask("DEBUG SLEEP 0")
            .await
            .starts_with("-ERR DEBUG command not allowed.")
    );
}

#[tokio::test]
async fn info_has_the_lines_that_clients_need() {
    let mut client = start().await.client().await;
    client.ask("SET k v").await;
    let all = client.ask("INFO").await;
    for line in [
        "redis_version:",
        "redis_mode:standalone",
        "os:",
        "process_id:",
        "run_id:",
        "tcp_port:6379",
        "uptime_in_seconds:",
        "connected_clients:1",
        "used_memory:",
        "maxmemory:0",
        "loading:0",
        "aof_enabled:1",
        "role:master",
        "connected_slaves:0",
        "db0:keys=1,expires=0,avg_ttl=0",
        "cluster_enabled:0",
        "# Raft",
        "leader_name:n1",
        "durability:sync",
        "term:1",
    ] {
        assert!(all.contains(line), "no {line} in {all}");
    }
    assert_eq!(client.ask("INFO nosuch").await, "$");
    let two = client.ask("INFO cluster nosuch REPLICATION").await;
    assert!(two.starts_with("$# Replication\r\nrole:master"), "{two}");
    assert!(
        two.contains("\r\n\r\n# Cluster\r\n") && !two.contains("# Server"),
        "{two}"
    );
}

#[tokio::test]
async fn shutdown_asks_the_node_to_stop() {
    let server = start().await;
    let mut client = server.client().await;
    assert_eq!(client.ask("SHUTDOWN NOSAVE").await, "(closed)");
    server.resp.stop_asked().await;
}

#[tokio::test]
async fn lines_typed_by_hand() {
    let mut client = start().await.client().await;
    client
        .send_raw(b"SET k \"a b\"\r\nGET k\r\n\r\nPING\n")
        .await;
    for answer in ["+OK", "$a b", "+PONG"] {
        assert_eq!(client.shown().await, answer);
    }
}

#[tokio::test]
async fn http_and_tls_are_closed_and_nothing_is_executed() {
    let server = start().await;
    for request in [
        "GET / HTTP/1.1\r\nHost: h\r\n\r\nSET k v\r\n",
        "POST /x HTTP/1.1\r\nHost: h\r\n\r\nSET k v\r\n",
        "SET k HTTP/1.1\r\nHost: h\r\nSET k v\r\n",
        "POST /with spaces in it HTTP/1.1\r\n\r\nSET k v\r\n",
        "host: h\r\nSET k v\r\n",
        "\x16\x03\x01",
    ] {
        let mut client = server.client().await;
        client.send_raw(request.as_bytes()).await;
        assert_eq!(client.shown().await, "(closed)", "{request}");
    }
    assert_eq!(server.client().await.ask("GET k").await, "$-1");
}
