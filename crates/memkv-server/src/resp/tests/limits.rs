//! What one client can cost, and what it cannot.

use super::*;

#[tokio::test]
async fn a_long_pipeline_is_answered_in_order() {
    const COMMANDS: usize = 20_000;
    let server = start().await;
    let client = server.client().await;
    let (mut read, mut write) = client.stream.into_split();
    tokio::spawn(async move {
        for at in 0..COMMANDS / 2 {
            let raw = format!("SET k {at}\r\nGET k\r\n");
            write.write_all(raw.as_bytes()).await.unwrap();
        }
        // Half-closed connections are answered to the end.
        write.shutdown().await.unwrap();
    });
    let mut text = String::new();
    read.read_to_string(&mut text).await.unwrap();
    let mut lines = text.lines();
    for at in 0..COMMANDS / 2 {
        assert_eq!(lines.next(), Some("+OK"));
        assert_eq!(lines.next(), Some(&*format!("${}", at.to_string().len())));
        assert_eq!(lines.next(), Some(&*at.to_string()));
    }
    assert_eq!(lines.next(), None);
}

#[tokio::test]
async fn a_client_that_never_reads_is_not_read_from_and_then_gone() {
    let settings = RespSettings {
        write_stall: Duration::from_millis(200),
        ..resp_settings()
    };
    let server = start_with(Some(Fake::working()), settings).await;
    let mut client = server.client().await;
    let value = "v".repeat(1000);
    client.ask(&format!("SET k {value}")).await;
    // More answers than all buffers between the two can hold; each request is 7 bytes.
    let requests = b"GET k\r\n".repeat(10_000);
    let mut sent = 0;
    while client.stream.write_all(&requests).await.is_ok() {
        sent += requests.len();
        assert!(
            sent < 100 << 20,
            "the server reads on although its answers are not taken"
        );
    }
}

#[tokio::test]
async fn values_and_keys_have_limits() {
    let settings = RespSettings {
        max_value_bytes: 100_000,
        ..resp_settings()
    };
    let server = start_with(Some(Fake::working()), settings).await;
    let mut client = server.client().await;
    let key = "k".repeat(65_537);
    let answer = client.ask(&format!("SET {key} v")).await;
    assert!(
        answer.starts_with("-ERR ") && answer.contains("key"),
        "{answer}"
    );
    let value = "v".repeat(100_000);
    assert_eq!(client.ask(&format!("SET k {value}")).await, "+OK");
    assert_eq!(client.ask("GET k").await, format!("${value}"));
    // Nor does an offset go around the limit, alone or in a transaction.
    let too_long = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    assert_eq!(client.ask("SETRANGE k 99999 w").await, ":100000");
    assert_eq!(client.ask("SETRANGE k 100000 w").await, too_long);
    assert_eq!(
        client.ask("SETRANGE k 9223372036854775807 w").await,
        too_long
    );
    assert_eq!(client.ask("MULTI").await, "+OK");
    assert_eq!(client.ask("SETRANGE k 100000 w").await, "+QUEUED");
    assert_eq!(client.ask("EXEC").await, format!("[{too_long}]"));
    client
        .send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100001\r\n")
        .await;
    assert_eq!(
        client.shown().await,
        "-ERR Protocol error: invalid bulk length"
    );
    assert_eq!(client.shown().await, "(closed)");
    // A line may be longer than a value.
    let mut client = server.client().await;
    client
        .send_raw(format!("SET k {value}v\r\n").as_bytes())
        .await;
    let answer = client.shown().await;
    assert!(answer.contains("max_value_bytes"), "{answer}");
}

#[tokio::test]
async fn a_protocol_error_comes_behind_the_answers_before_it() {
    let mut client = start().await.client().await;
    client
        .send_raw(b"PING\r\n*1\r\n$4\r\nPING\r\n*x\r\nPING\r\n")
        .await;
    for answer in [
        "+PONG",
        "+PONG",
        "-ERR Protocol error: invalid multibulk length",
        "(closed)",
    ] {
        assert_eq!(client.shown().await, answer);
    }
}

#[tokio::test]
async fn a_command_and_a_transaction_name_only_so_many_keys() {
    let mut client = start().await.client().await;
    let many = |command: &'static str, keys: usize| [&[command][..], &vec!["k"; keys]].concat();
    let refused = "-ERR a command takes at most 131072 keys; send several";
    for command in ["MGET", "EXISTS", "DEL"] {
        client.send_args(&many(command, 131_073)).await;
        assert_eq!(client.shown().await, refused, "{command}");
    }
    // A transaction is one command.
    for reads in [true, false] {
        client.ask("MULTI").await;
        if !reads {
            assert_eq!(client.ask("SET k v").await, "+QUEUED");
        }
        for keys in [131_072, 1] {
            client.send_args(&many("EXISTS", keys)).await;
            assert_eq!(client.shown().await, "+QUEUED");
        }
        let answer = client.ask("EXEC").await;
        let why = "-EXECABORT Transaction discarded because of: a command takes at most 131072";
        assert!(answer.starts_with(why), "{answer}");
        assert_eq!(client.ask("EXISTS k").await, ":0");
    }
    let pairs = [&["MSET"][..], &vec!["k"; 2 * 131_072]].concat();
    client.send_args(&pairs).await;
    assert_eq!(client.shown().await, "+OK");
    client.send_args(&many("EXISTS", 131_072)).await;
    assert_eq!(client.shown().await, ":131072");
    let pairs = [&pairs[..], &["k", "v"]].concat();
    client.send_args(&pairs).await;
    let answer = client.shown().await;
    let why = "-ERR Protocol error: invalid multibulk length: the most arguments of a request are";
    assert!(answer.starts_with(why), "{answer}");
}
