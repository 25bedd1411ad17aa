//! Where one request ends and the next begins: whatever the pieces in which it arrives, and
//! whatever a proxy on the way may have read differently.

use super::*;

const LIVE: &str = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn put(fields: &str, body: &str) -> String {
    format!("PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}")
}

/// Lets the server read what was sent before more comes.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_line_before_a_request_may_arrive_in_two_pieces() {
    let mut client = connect();
    for _ in 0..3 {
        client.send("\r").await;
        pause().await;
        client.send("\n").await;
        pause().await;
    }
    client.send(LIVE).await;
    assert_eq!(client.answer(true).await.status, 200);
    client.send("\r").await;
    pause().await;
    client.send("\n\r\n\r").await;
    pause().await;
    client.send(format!("\n{LIVE}")).await;
    assert_eq!(client.answer(true).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn an_empty_line_is_no_slow_request() {
    let mut client = connect();
    client.send("\r\n").await;
    tokio::time::sleep(Limits::default().header_time * 2).await;
    client.send(LIVE).await;
    assert_eq!(client.answer(true).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn empty_lines_alone_keep_no_connection() {
    let mut client = connect();
    let idle = Limits::default().idle_time;
    for _ in 0..idle.as_secs() {
        client.send("\r\n").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn only_spaces_and_tabs_are_white_space_in_a_field() {
    let chunked = "3\r\nabc\r\n0\r\n\r\n";
    for (fields, body, status) in [
        ("Content-Length: \t 3 \t\r\n", "abc", 200),
        ("Content-Length:\u{a0}3\r\n", "abc", 400),
        ("Content-Length: 3\u{a0}\r\n", "abc", 400),
        ("Content-Length: 3\u{2003}\r\n", "abc", 400),
        ("Content-Length: 3\x0c\r\n", "abc", 400),
        ("Transfer-Encoding: \tchunked \r\n", chunked, 200),
        ("Transfer-Encoding: \u{a0}chunked\r\n", chunked, 400),
        ("Transfer-Encoding: chunked\u{3000}\r\n", chunked, 400),
        ("Transfer-Encoding: chunked\x0b\r\n", chunked, 400),
        (
            "Expect: \u{a0}100-continue\r\nContent-Length: 3\r\n",
            "abc",
            400,
        ),
    ] {
        let mut client = connect();
        client.send(put(fields, body)).await;
        assert_eq!(client.answer(true).await.status, status, "{fields:?}");
    }
    // No word of the list, so the connection goes on.
    let mut client = connect();
    let fields = "Connection: \u{a0}close, keep-alive\u{a0}\r\n";
    let answer = client.ask_with("GET", "/livez", fields, b"").await;
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    let fields = "Connection: x,\t close \r\n";
    let answer = client.ask_with("GET", "/livez", fields, b"").await;
    assert_eq!(answer.header("connection"), Some("Close"));
}

#[tokio::test]
async fn a_password_is_compared_with_all_its_characters() {
    let api = api_for(Some(Fake::working()), MAX_VALUE_BYTES, Some("secret"));
    let mut client = connect_to(api);
    for (shown, status) in [
        ("secret", 200),
        ("secret \t", 200),
        ("\u{a0}secret", 401),
        ("secret\u{2003}", 401),
    ] {
        let field = format!("Authorization: Bearer {shown}\r\n");
        let answer = client.ask_with("GET", "/v1/status", &field, b"").await;
        assert_eq!(answer.status, status, "{shown:?}");
    }
}

#[tokio::test]
async fn the_lines_of_a_chunked_body_end_in_one_way() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let mut client = connect();
    for good in [
        "5\r\nabcde\r\n0\r\n\r\n",
        "5;x=\"y;z\"\r\nabcde\r\n000\r\n\r\n",
        "5 \t;x\r\nabcde\r\n0\r\nX: y\r\nZ: \r\n\r\n",
        "00000000000005\r\nabcde\r\n0\r\n\r\n",
    ] {
        client.send(put(chunked, good)).await;
        assert_eq!(client.answer(true).await.status, 200, "{good:?}");
        assert_eq!(client.ask("GET", "/v1/kv/k", b"").await.body, b"abcde");
    }
    for bad in [
        "5\r\r\nabcde\r\n0\r\n\r\n",
        "5;x\r\r\nabcde\r\n0\r\n\r\n",
        "5;\rx\r\nabcde\r\n0\r\n\r\n",
        "5\u{a0}\r\nabcde\r\n0\r\n\r\n",
        "5\x0c\r\nabcde\r\n0\r\n\r\n",
        " 5\r\nabcde\r\n0\r\n\r\n",
        "5 5\r\nabcde\r\n0\r\n\r\n",
        "0x5\r\nabcde\r\n0\r\n\r\n",
        ";x\r\nabcde\r\n0\r\n\r\n",
        " \r\n\r\n",
        "5\r\nabcde\r\r\n0\r\n\r\n",
        "5\r\nabcde\n0\r\n\r\n",
        "5\r\nabcde\r\n0\r\r\n\r\n",
        "5\r\nabcde\r\n0\r\nX: y\r\r\n\r\n",
        "5\r\nabcde\r\n0\r\n\r\r\n",
        "00000000000000005\r\nabcde\r\n0\r\n\r\n",
    ] {
        let mut client = connect();
        client.send(put(chunked, bad)).await;
        assert_eq!(client.answer(true).await.status, 400, "{bad:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_line_of_a_chunked_body_is_refused_however_it_arrives() {
    let limits = Limits::default();
    let extension = format!("5;{}\r\nabcde\r\n0\r\n\r\n", "x".repeat(300));
    let trailer = |length| format!("0\r\nX: {}\r\n\r\n", "y".repeat(length));
    for (body, status) in [
        (extension, 400),
        // Longer than a size line may be, and within the limit of the fields.
        (trailer(1000), 200),
        (trailer(limits.header_bytes), 431),
    ] {
        let request = put("Transfer-Encoding: chunked\r\n", &body);
        let (start, rest) = request.split_at(request.len() - body.len() + 100.min(body.len()));
        for pieces in [vec![&request[..]], vec![start, rest]] {
            let mut client = connect();
            for piece in pieces {
                client.send(piece).await;
                pause().await;
            }
            assert_eq!(client.answer(true).await.status, status, "{body:.40}");
        }
    }
}

#[tokio::test]
async fn an_upgrade_has_no_body() {
    let upgrade = |fields: &str, body: &str| {
        format!(
            "GET /memkvn1/raft/control HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\n\
             Upgrade: {}\r\n{fields}\r\n{body}",
            crate::peer::PROTOCOL
        )
    };
    for (fields, body, status) in [
        ("", "", 101),
        ("Content-Length: 0\r\n", "", 101),
        ("Content-Length: 5\r\n", "abcde", 400),
        ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n", 400),
    ] {
        let mut client = connect();
        client.send(upgrade(fields, body)).await;
        let answer = client.answer(true).await;
        assert_eq!(answer.status, status, "{fields:?}: {}", answer.text());
        let end = client.server.await.unwrap();
        assert_eq!(
            matches!(end, End::Upgraded(..)),
            status == 101,
            "{fields:?}"
        );
    }
    // HTTP/1.0 has no upgrades (RFC 9110, section 7.8).
    let mut client = connect();
    client
        .send(upgrade("", "").replace("HTTP/1.1", "HTTP/1.0"))
        .await;
    assert_eq!(client.answer(true).await.status, 426);
}

#[tokio::test]
async fn a_transaction_that_is_too_long_is_told_its_own_limit() {
    let length = 16 * 1024 * 1024 + 1;
    let chunk = format!("{length:x}\r\n");
    for (fields, body) in [
        (format!("Content-Length: {length}\r\n"), ""),
        ("Transfer-Encoding: chunked\r\n".to_owned(), &*chunk),
    ] {
        let mut client = connect();
        let request = format!("POST /v1/txn HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}");
        client.send(request).await;
        let answer = client.answer(true).await;
        let text = answer.text();
        assert_eq!(answer.status, 413, "{text}");
        for words in ["MK-022", "16777216", "several transactions", "PUT /v1/kv/"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
