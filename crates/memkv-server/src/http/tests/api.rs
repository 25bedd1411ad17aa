//! The original's API, the REST API, status and health.

use memkv_proto::limits::MAX_KEY_BYTES;
use serde_json::Value;

use super::*;

fn no_leader() -> RequestError {
    RequestError::NoLeader {
        detail: "n2 does not answer".to_owned(),
    }
}

fn unknown() -> RequestError {
    RequestError::Unknown {
        detail: "the leader vanished".to_owned(),
    }
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

/// `("set", r#"{"key":...}"#)` to status and body.
async fn compat(client: &mut Client, op: &str, body: &str) -> (u16, String) {
    let answer = client
        .ask("POST", &format!("/memkvn1/store/{op}"), body.as_bytes())
        .await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    (answer.status, answer.text().to_owned())
}

#[tokio::test]
async fn the_originals_replies_are_the_originals_bytes() {
    let mut client = connect();
    let ok = |body: &str| (200, body.to_owned());
    let key = r#"{"key":"k1"}"#;
    assert_eq!(
        compat(&mut client, "get", key).await,
        ok(r#"{"status":"not found","value":""}"#)
    );
    assert_eq!(
        compat(&mut client, "exist", key).await,
        ok(r#"{"status":"no"}"#)
    );
    assert_eq!(
        compat(&mut client, "del", key).await,
        ok(r#"{"status":"ok"}"#)
    );
    let set = r#"{"key":"k1","value":"v1"}"#;
    assert_eq!(
        compat(&mut client, "set", set).await,
        ok(r#"{"status":"ok"}"#)
    );
    assert_eq!(
        compat(&mut client, "get", key).await,
        ok(r#"{"status":"ok","value":"v1"}"#)
    );
    assert_eq!(
        compat(&mut client, "exist", key).await,
        ok(r#"{"status":"yes"}"#)
    );
    assert_eq!(
        compat(&mut client, "del", key).await,
        ok(r#"{"status":"ok"}"#)
    );
}

#[tokio::test]
async fn the_originals_api_says_no_leader_only_of_what_was_not_executed() {
    let mut client = connect_failing(no_leader());
    let key = r#"{"key":"k","value":"v"}"#;
    for (op, body) in [
        ("get", r#"{"status":"no leader","value":""}"#),
        ("set", r#"{"status":"no leader"}"#),
        ("del", r#"{"status":"no leader"}"#),
        ("exist", r#"{"status":"no leader"}"#),
    ] {
        assert_eq!(
            compat(&mut client, op, key).await,
            (200, body.to_owned()),
            "{op}"
        );
    }
    let mut client = connect_failing(unknown());
    for op in ["set", "del"] {
        let answer = client
            .ask("POST", &format!("/store/{op}"), key.as_bytes())
            .await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, r#"{"status":"error"}"#)
        );
        assert_eq!(answer.header("x-memkv-executed"), Some("maybe"));
    }
    let answer = client.ask("POST", "/store/get", key.as_bytes()).await;
    assert_eq!(
        answer.text(),
        r#"{"status":"no leader","value":""}"#,
        "reads change nothing"
    );
    assert_eq!(answer.header("x-memkv-executed"), Some("no"));
}

#[tokio::test(start_paused = true)]
async fn whatever_the_node_does_an_answer_comes_within_the_promised_time() {
    let mut client = connect_to(api(Some(Fake::hanging())));
    let start = tokio::time::Instant::now();
    let answer = client
        .ask("POST", "/store/set", br#"{"key":"k","value":"v"}"#)
        .await;
    assert_eq!(answer.text(), r#"{"status":"error"}"#);
    assert_eq!(answer.header("x-memkv-executed"), Some("maybe"));
    assert!(start.elapsed() < Duration::from_secs(5));
    let answer = client.ask("POST", "/store/exist", br#"{"key":"k"}"#).await;
    assert_eq!(answer.text(), r#"{"status":"no leader"}"#);
    assert_eq!(client.ask("GET", "/readyz", b"").await.status, 503);
    assert_eq!(client.ask("PUT", "/v1/kv/k", b"v").await.status, 504);
}

#[tokio::test]
async fn malformed_compat_requests_say_why_and_change_nothing() {
    let mut client = connect();
    let deep = format!(
        r#"{{"key":"k","value":"v","x":{}{}}}"#,
        "[".repeat(40),
        "]".repeat(40)
    );
    for body in [
        "",
        "{",
        "[]",
        r#"{"key":1,"value":"v"}"#,
        r#"{"key":"k"}"#,
        &deep,
    ] {
        let answer = client
            .ask("POST", "/memkvn1/store/set", body.as_bytes())
            .await;
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!(json(&answer)["status"], "error");
        assert!(json(&answer)["error"].as_str().unwrap().len() > 10);
    }
    assert_eq!(json(&client.ask("GET", "/v1/status", b"").await)["keys"], 0);
}

#[tokio::test]
async fn compat_paths_types_and_methods() {
    let mut client = connect();
    let body = br#"{"key":"k","value":"v"}"#;
    for path in [
        "/memkvn1/store/set",
        "/memkvn2/store/set?x",
        "//memkvn1/store/set",
        "/store/set",
    ] {
        assert_eq!(client.ask("POST", path, body).await.status, 200, "{path}");
        assert_eq!(client.ask("GET", path, body).await.status, 200, "{path}");
    }
    for path in [
        "/",
        "/memkv",
        "/memkv/store/set",
        "/memkvx/store/set",
        "/memkvn1/store/set/",
    ] {
        let answer = client.ask("POST", path, body).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(json(&answer)["code"], "MK-012");
    }
    for method in ["PUT", "DELETE", "PATCH", "HEAD"] {
        let answer = client.ask(method, "/store/set", body).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET, POST")),
            "{method}"
        );
    }
    for (content_type, status) in [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
    ] {
        let field = format!("Content-Type: {content_type}\r\n");
        let answer = client.ask_with("POST", "/store/set", &field, body).await;
        assert_eq!(answer.status, status, "{content_type}");
    }
}

#[tokio::test]
async fn keys_and_values_work_up_to_their_limits_in_the_seeds_api() {
    let mut client = connect();
    let long_key = "k".repeat(MAX_KEY_BYTES);
    let long_value = "\u{1}".repeat(MAX_VALUE_BYTES);
    for (key, value) in [("", ""), ("", "v"), (&*long_key, "v"), ("k", &*long_value)] {
        // Serialized with six bytes for each control character: the longest there is.
        let set = serde_json::json!({ "key": key, "value": value }).to_string();
        assert_eq!(compat(&mut client, "set", &set).await.0, 200);
        let get = serde_json::json!({ "key": key }).to_string();
        let expected = memkv_proto::compat::value_body(value.as_bytes());
        assert_eq!(
            compat(&mut client, "get", &get).await.1.as_bytes(),
            expected
        );
    }
    let too_long = "k".repeat(MAX_KEY_BYTES + 1);
    let answer = compat(&mut client, "get", &format!(r#"{{"key":"{too_long}"}}"#)).await;
    assert!(answer.0 == 413 && answer.1.contains("65536"), "{answer:?}");
    let too_long = "v".repeat(MAX_VALUE_BYTES + 1);
    let answer = compat(
        &mut client,
        "set",
        &format!(r#"{{"key":"k","value":"{too_long}"}}"#),
    )
    .await;
    assert!(
        answer.0 == 413 && answer.1.contains("max_value_bytes"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn rest_keeps_raw_bytes_and_tells_revisions() {
    let mut client = connect();
    let value: Vec<u8> = (0..=255).collect();
    let put = client.ask("PUT", "/v1/kv/a%2Fb%00", &value).await;
    assert_eq!((put.status, put.header("etag")), (200, Some("\"1\"")));
    assert_eq!(put.header("x-memkv-revision"), Some("1"));
    client.ask("PUT", "/v1/kv/other", b"").await;

    let get = client.ask("GET", "/v1/kv/a/b%00?", b"").await;
    assert_eq!((get.status, &get.body), (200, &value));
    assert_eq!(get.header("content-type"), Some("application/octet-stream"));
    assert_eq!(get.header("etag"), Some("\"1\""), "the key's revision");
    assert_eq!(
        get.header("x-memkv-revision"),
        Some("2"),
        "the store's revision"
    );
    let head = client.ask("HEAD", "/v1/kv/a/b%00", b"").await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("256"))
    );

    for (deleted, revision) in [("1", "3"), ("0", "4")] {
        let delete = client.ask("DELETE", "/v1/kv/a/b%00", b"").await;
        assert_eq!(
            (delete.status, delete.header("x-memkv-deleted")),
            (200, Some(deleted))
        );
        assert_eq!(delete.header("x-memkv-revision"), Some(revision));
    }
    let gone = client.ask("GET", "/v1/kv/a/b%00", b"").await;
    assert_eq!((gone.status, &json(&gone)["code"]), (404, &"MK-030".into()));
    assert_eq!(
        gone.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(client.ask("HEAD", "/v1/kv/a/b%00", b"").await.status, 404);
}

#[tokio::test]
async fn rest_takes_the_empty_and_the_longest_and_refuses_more() {
    let mut client = connect();
    let longest = format!("/v1/kv/{}", "%ff".repeat(MAX_KEY_BYTES));
    for path in ["/v1/kv/", &longest] {
        for value in [&b""[..], &[0xff; MAX_VALUE_BYTES]] {
            assert_eq!(client.ask("PUT", path, value).await.status, 200);
            assert_eq!(client.ask("GET", path, b"").await.body, value);
        }
    }
    for (path, length) in [
        ("%ff".repeat(MAX_KEY_BYTES + 1), 0),
        ("k".repeat(300_000), 0),
    ] {
        let answer = connect()
            .ask("PUT", &format!("/v1/kv/{path}"), &vec![0; length])
            .await;
        assert_eq!(
            (answer.status, &json(&answer)["code"]),
            (413, &"MK-020".into())
        );
        assert!(answer.text().contains("65536"), "{}", answer.text());
    }
    let answer = client
        .ask("PUT", "/v1/kv/k", &[0; MAX_VALUE_BYTES + 1])
        .await;
    assert_eq!(
        (answer.status, &json(&answer)["code"]),
        (413, &"MK-021".into())
    );
    assert!(answer.text().contains("1000") && answer.text().contains("max_value_bytes"));
    let mut client = connect();
    assert_eq!(client.ask("GET", "/v1/kv/%zz", b"").await.status, 400);
    let answer = client.ask("PATCH", "/v1/kv/k", b"").await;
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, Some("GET, HEAD, PUT, DELETE, POST"))
    );
}

#[tokio::test]
async fn rest_failures_are_problems_that_say_whether_it_was_executed() {
    let overloaded = RequestError::Overloaded { queued: 9 };
    for (error, status, code, executed) in [
        (no_leader(), 503, "MK-103", "no"),
        (overloaded, 503, "MK-101", "no"),
        (RequestError::Stopping, 503, "MK-102", "no"),
        (unknown(), 504, "MK-110", "maybe"),
    ] {
        let answer = connect_failing(error).ask("PUT", "/v1/kv/k", b"v").await;
        let problem = json(&answer);
        assert_eq!(answer.status, status, "{problem}");
        assert_eq!(
            (&problem["code"], &problem["executed"]),
            (&code.into(), &executed.into())
        );
        assert_eq!(
            answer.header("retry-after").is_some(),
            executed == "no",
            "{problem}"
        );
    }
    let answer = connect_failing(unknown()).ask("GET", "/v1/kv/k", b"").await;
    assert_eq!(
        (answer.status, &json(&answer)["executed"]),
        (503, &"no".into())
    );
}

#[tokio::test]
async fn health_and_status_tell_apart_alive_ready_and_loading() {
    let mut client = connect();
    assert_eq!(client.ask("GET", "/livez", b"").await.status, 200);
    assert_eq!(client.ask("GET", "/readyz", b"").await.status, 200);
    let status = json(&client.ask("GET", "/v1/status", b"").await);
    assert_eq!(
        (&status["name"], &status["leader"]),
        (&"n1".into(), &"n1".into())
    );
    assert_eq!(status["cluster"], "07070707-0707-0707-0707-070707070707");

    let verbose = client.ask("GET", "/readyz?verbose", b"").await;
    assert_eq!(
        (verbose.status, verbose.text()),
        (
            200,
            "[+]data ok\n[+]drain ok\n[+]member ok\n[+]leader ok\n[+]users ok\n[+]read ok\n\
             [+]log ok\n[+]disk ok\n[+]memory ok\n[+]tls ok\nready\n"
        )
    );
    let verbose = client.ask("GET", "/livez?verbose=1", b"").await;
    assert_eq!(verbose.text(), "[+]process ok\n[+]data ok\nalive\n");

    let mut client = connect_failing(no_leader());
    assert_eq!(client.ask("GET", "/livez", b"").await.status, 200);
    let answer = client.ask("GET", "/readyz", b"").await;
    assert!(answer.status == 503 && answer.text().contains("n2 does not answer"));
    let answer = client.ask("GET", "/readyz?x=1&verbose", b"").await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().contains("\n[+]leader ok\n"),
        "{}",
        answer.text()
    );
    assert!(
        answer.text().contains("\n[-]read failed: "),
        "{}",
        answer.text()
    );
    assert!(
        answer.text().ends_with("\nnot ready\n"),
        "{}",
        answer.text()
    );
    assert_eq!(
        client.ask("GET", "/v1/status", b"").await.status,
        200,
        "without a leader"
    );

    let stopping = api(Some(Fake::working()));
    stopping.service().drain().begin();
    let mut client = connect_to(stopping);
    assert_eq!(client.ask("GET", "/livez", b"").await.status, 200);
    for path in ["/readyz", "/readyz?verbose"] {
        let answer = client.ask("GET", path, b"").await;
        assert!(answer.status == 503 && answer.text().contains("stopping"));
    }

    let mut client = connect_to(api(None));
    assert_eq!(client.ask("GET", "/livez", b"").await.status, 200);
    for path in ["/readyz", "/v1/status", "/v1/kv/k"] {
        let answer = client.ask("GET", path, b"").await;
        assert!(
            answer.status == 503 && answer.text().contains("loading"),
            "{path}"
        );
    }
    let answer = client.ask("POST", "/store/get", br#"{"key":"k"}"#).await;
    assert_eq!(answer.text(), r#"{"status":"no leader","value":""}"#);
}

#[tokio::test]
async fn peers_are_let_in_by_the_right_name_only() {
    let upgrade = "Connection: Upgrade\r\nUpgrade: memkv-peer/2\r\nX-Memkv-From: n2\r\n";
    let mut client = connect();
    for (path, fields, status) in [
        ("/memkvn2/raft/append", upgrade, 421),
        ("/memkvn1/raft/nothing", upgrade, 404),
        ("/memkvn1/raft/append", "", 426),
        ("/memkvn1/raft/append", "Upgrade: memkv-peer/2\r\n", 426),
    ] {
        let answer = client.ask_with("GET", path, fields, b"").await;
        assert_eq!(answer.status, status, "{path} {fields}");
        assert!(answer.text().len() > 10);
    }
    let mut loading = connect_to(api(None));
    assert_eq!(
        loading
            .ask_with("GET", "/memkvn1/raft/append", upgrade, b"")
            .await
            .status,
        503
    );

    client
        .send(format!(
            "GET /memkvn1/raft/append HTTP/1.1\r\nHost: h\r\n{upgrade}\r\nframe"
        ))
        .await;
    let answer = client.answer(false).await;
    assert_eq!(
        (answer.status, answer.header("upgrade")),
        (101, Some("memkv-peer/2"))
    );
    let End::Upgraded(_, leftover, peer) = client.server.await.unwrap() else {
        panic!("the connection changes hands");
    };
    assert_eq!(
        &leftover[..],
        b"frame",
        "what came behind the head is not lost"
    );
    assert_eq!(
        (peer.lane, peer.peer.as_str()),
        (memkv_node::Lane::Append, "n2")
    );
}
