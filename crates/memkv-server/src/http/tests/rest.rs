//! What REST has beyond plain reads and writes: deadlines, conditions, numbers, pages, transactions.

use serde_json::{Value, json};

use super::*;
use crate::rights::tests::replicated;

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn a_key_can_be_set_with_a_deadline_and_loses_it_with_the_next_write() {
    let mut client = connect();
    let set = client.ask("PUT", "/v1/kv/k?ttl=30s", b"v").await;
    assert_eq!(set.status, 200);
    let get = client.ask("GET", "/v1/kv/k", b"").await;
    let deadline: u64 = get.header("x-memkv-expires").unwrap().parse().unwrap();
    assert!((30_000..30_100).contains(&deadline), "{deadline}");
    client.ask("PUT", "/v1/kv/k", b"v").await;
    let get = client.ask("GET", "/v1/kv/k", b"").await;
    assert_eq!(get.header("x-memkv-expires"), None);

    for query in ["ttl=0", "ttl=soon", "ttl=1&ttl=2", "tll=30s"] {
        let refused = client.ask("PUT", &format!("/v1/kv/k?{query}"), b"x").await;
        assert_eq!(refused.status, 400, "{query}");
    }
    assert_eq!(client.ask("GET", "/v1/kv/k", b"").await.body, b"v");
}

#[tokio::test]
async fn a_conditional_write_happens_only_if_its_condition_holds() {
    let mut client = connect();
    let put = async |client: &mut Client, field: &str, value: &[u8]| {
        let answer = client
            .ask_with("PUT", "/v1/kv/k", &format!("{field}\r\n"), value)
            .await;
        (answer.status, answer.header("etag").map(str::to_owned))
    };
    assert_eq!(put(&mut client, "If-Match: *", b"a").await.0, 412);
    let (status, first) = put(&mut client, "If-None-Match: *", b"a").await;
    assert_eq!(status, 200);
    assert_eq!(put(&mut client, "If-None-Match: *", b"b").await.0, 412);
    let first = format!("If-Match: {}", first.unwrap());
    let (status, second) = put(&mut client, &first, b"c").await;
    assert_eq!(status, 200);
    let stale = put(&mut client, &first, b"d").await;
    assert_eq!(stale.0, 412, "the key has another revision by now");
    assert_eq!(client.ask("GET", "/v1/kv/k", b"").await.body, b"c");

    let same = format!("If-None-Match: {}\r\n", second.unwrap());
    let unchanged = client.ask_with("GET", "/v1/kv/k", &same, b"").await;
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    let kept = client
        .ask_with("DELETE", "/v1/kv/k", &format!("{first}\r\n"), b"")
        .await;
    assert_eq!(kept.status, 412);
    let gone = client
        .ask_with("DELETE", "/v1/kv/k", "If-Match: *\r\n", b"")
        .await;
    assert_eq!(
        (gone.status, gone.header("x-memkv-deleted")),
        (200, Some("1"))
    );

    for field in ["If-Match: 3", "If-Match: W/\"3\"", "If-None-Match: \"x\""] {
        assert_eq!(put(&mut client, field, b"x").await.0, 400, "{field}");
    }
    assert_eq!(client.ask("GET", "/v1/kv/k", b"").await.status, 404);
}

#[tokio::test]
async fn post_adds_to_a_number() {
    let mut client = connect();
    for (by, sum) in [("5", "5"), ("-7", "-2"), ("0", "-2")] {
        let answer = client
            .ask("POST", &format!("/v1/kv/n?incr={by}"), b"")
            .await;
        assert_eq!((answer.status, answer.text()), (200, sum));
    }
    client.ask("PUT", "/v1/kv/text", b"abc").await;
    for path in ["/v1/kv/text?incr=1", "/v1/kv/n?incr=one", "/v1/kv/n"] {
        assert_eq!(client.ask("POST", path, b"").await.status, 400, "{path}");
    }
    assert_eq!(client.ask("GET", "/v1/kv/text", b"").await.body, b"abc");
}

#[tokio::test]
async fn keys_are_listed_by_prefix_in_order_and_in_pages() {
    let mut client = connect();
    for key in ["b/2", "a", "b/1", "b/%ff", "c"] {
        client
            .ask("PUT", &format!("/v1/kv/{key}"), key.as_bytes())
            .await;
    }
    let page = body(&client.ask("GET", "/v1/kv?prefix=b/&limit=2", b"").await);
    assert_eq!(
        page,
        json!({
            "items": [
                {"key": "b/1", "value": "b/1", "create_revision": 3, "revision": 3},
                {"key": "b/2", "value": "b/2", "create_revision": 1, "revision": 1},
            ],
            "next": "b/2",
        })
    );
    let page = body(
        &client
            .ask("GET", "/v1/kv?prefix=b/&after=b/2&keys=1", b"")
            .await,
    );
    assert_eq!(page, json!({"items": [{"key_base64": "Yi//"}]}));
    let all = body(&client.ask("GET", "/v1/kv?keys=1", b"").await);
    assert_eq!(all["items"].as_array().unwrap().len(), 5);
    for query in ["limit=0", "limit=10001", "keys=yes", "prefx=b"] {
        let refused = client.ask("GET", &format!("/v1/kv?{query}"), b"").await;
        assert_eq!(refused.status, 400, "{query}");
    }
}

#[tokio::test]
async fn a_transaction_takes_one_branch_as_a_whole() {
    let mut client = connect();
    let lock = json!({
        "if": [{"key": "lock", "exists": false}],
        "then": [{"set": {"key": "lock", "value": "me", "ttl": "30s"}}, {"incr": {"key": "n"}}],
        "else": [{"get": {"key": "lock"}}],
    })
    .to_string();
    let first = body(&client.ask("POST", "/v1/txn", lock.as_bytes()).await);
    assert_eq!(
        first,
        json!({
            "succeeded": true,
            "revision": 2,
            "results": [{"ok": true}, {"ok": true, "integer": 1}],
        })
    );
    let second = body(&client.ask("POST", "/v1/txn", lock.as_bytes()).await);
    assert_eq!(second["succeeded"], false);
    assert_eq!(second["results"][0]["value"], "me");
    assert_eq!(second["results"][0]["revision"], 1);
    let n = client.ask("GET", "/v1/kv/n", b"").await;
    assert_eq!(n.body, b"1", "the other branch was not executed");

    let refused = client
        .ask("POST", "/v1/txn", b"{\"then\": [{\"put\": {}}]}")
        .await;
    assert_eq!(
        (refused.status, &body(&refused)["code"]),
        (400, &"MK-011".into())
    );
    let too_many = json!({"then": vec![json!({"get": {"key": "n"}}); 1025]}).to_string();
    let refused = client.ask("POST", "/v1/txn", too_many.as_bytes()).await;
    assert_eq!(refused.status, 400);
    let no_guard = body(
        &client
            .ask(
                "POST",
                "/v1/txn",
                b"{\"if\": [{\"key\": \"n\", \"value\": \"2\"}]}",
            )
            .await,
    );
    assert_eq!(no_guard["succeeded"], false);
}

#[tokio::test]
async fn with_a_password_only_health_is_open_to_all() {
    let api = api_for(Some(Fake::working()), MAX_VALUE_BYTES, Some("hunter2"));
    let mut client = connect_to(api);
    for path in ["/v1/kv/k", "/v1/kv", "/v1/status"] {
        let refused = client.ask("GET", path, b"").await;
        assert_eq!(
            (refused.status, &body(&refused)["code"]),
            (401, &"MK-040".into()),
            "{path}"
        );
        let scheme = refused.header("www-authenticate");
        assert!(scheme.is_some_and(|scheme| scheme.starts_with("Basic")));
    }
    let refused = client.ask("POST", "/store/get", b"{\"key\":\"k\"}").await;
    assert_eq!(
        (refused.status, &body(&refused)["status"]),
        (401, &"error".into())
    );
    for path in ["/livez", "/readyz"] {
        assert_eq!(client.ask("GET", path, b"").await.status, 200, "{path}");
    }
    let verbose = client.ask("GET", "/readyz?verbose", b"").await;
    assert_eq!(
        (verbose.status, verbose.text()),
        (200, "ready\n"),
        "to a stranger"
    );
    for path in ["/nowhere", "/memkvn9/store/get"] {
        let refused = client.ask("GET", path, b"").await;
        assert_eq!(refused.status, 401, "{path}");
        assert!(!refused.text().contains("n1"), "{}", refused.text());
    }
    let wrong = "Authorization: Bearer hunter1\r\n";
    assert_eq!(
        client.ask_with("PUT", "/v1/kv/k", wrong, b"x").await.status,
        401
    );
    let right = "Authorization: Bearer hunter2\r\n";
    assert_eq!(
        client.ask_with("GET", "/v1/kv/k", right, b"").await.status,
        404,
        "not written"
    );
    assert_eq!(
        client.ask_with("PUT", "/v1/kv/k", right, b"x").await.status,
        200
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_answers_nobody_until_it_knows_the_users() {
    let rights = Rights::starting(None, false);
    let service = Service::with_rights(Duration::from_secs(5), rights);
    service.attach(Fake::working());
    let service = Arc::new(service);
    let api = api_on(service.clone(), MAX_VALUE_BYTES);
    for (method, path) in [
        ("PUT", "/v1/kv/k"),
        ("GET", "/v1/kv/k"),
        ("GET", "/v1/kv"),
        ("POST", "/v1/txn"),
        ("POST", "/memkvn1/store/get/"),
    ] {
        let answer = connect_to(api.clone()).ask(method, path, b"{}").await;
        assert_eq!(answer.status, 503, "{method} {path}");
        if path.starts_with("/v1") {
            assert!(answer.text().contains("MK-102"), "{}", answer.text());
            assert!(answer.header("Retry-After").is_some(), "{}", answer.head);
        }
    }
    for path in ["/livez", "/v1/status"] {
        let answer = connect_to(api.clone()).ask("GET", path, b"").await;
        assert_eq!(answer.status, 200, "{path}");
    }
    let mut waits = connect_to(api.clone());
    let (answer, ()) = tokio::join!(waits.ask("PUT", "/v1/kv/k", b"v"), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        service.rights().known();
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// What is shown may be a user's of the cluster, whom the node does not know yet.
#[tokio::test(start_paused = true)]
async fn what_a_node_that_starts_cannot_judge_is_no_failure() {
    let password = Password::new("hunter2");
    let rights = Rights::starting(Some(&password), false);
    let service = Service::with_rights(Duration::from_secs(5), rights);
    service.attach(Fake::working());
    let service = Arc::new(service);
    let api = api_on(service.clone(), MAX_VALUE_BYTES);
    let own = "Authorization: Bearer hunter2\r\n";
    let anns = "Authorization: Basic YW5uOmE=\r\n";
    let guess = "Authorization: Basic YW5uOmI=\r\n";
    let path = "/v1/status";
    let begun = tokio::time::Instant::now();
    let answer = connect_to(api.clone())
        .ask_with("GET", path, own, b"")
        .await;
    assert_eq!((answer.status, begun.elapsed()), (200, Duration::ZERO));
    for shown in [anns, guess] {
        let answer = connect_to(api.clone())
            .ask_with("GET", path, shown, b"")
            .await;
        assert_eq!(answer.status, 503, "{}", answer.text());
    }
    assert_eq!(service.rights().counted(), [0, 0]);
    let mut waits = connect_to(api.clone());
    let (answer, ()) = tokio::join!(waits.ask_with("GET", path, anns, b""), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let of_a = "#ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
        let users = replicated(&[("ann", &["on", of_a, "+@all", "~*"])]);
        assert!(service.rights().follow(&users));
        service.rights().known();
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(service.rights().counted(), [0, 0]);
    let answer = connect_to(api).ask_with("GET", path, guess, b"").await;
    assert_eq!(answer.status, 401);
    assert_eq!(service.rights().counted(), [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_right_waits_for_no_guesses_of_its_address() {
    let api = api_for(Some(Fake::working()), MAX_VALUE_BYTES, Some("hunter2"));
    let right = "Authorization: Bearer hunter2\r\n";
    let wrong = "Authorization: Bearer hunter1\r\n";
    async fn timed(client: &mut Client, fields: &str) -> (u16, Duration) {
        let begun = tokio::time::Instant::now();
        let answer = client.ask_with("GET", "/v1/kv/k", fields, b"").await;
        (answer.status, begun.elapsed())
    }
    let mut known = connect_to(api.clone());
    assert_eq!(timed(&mut known, right).await.0, 404);
    let mut other = connect_to(api);
    for _ in 0..4 {
        assert_eq!(timed(&mut other, wrong).await.0, 401);
    }
    let wait = Duration::from_millis(800);
    assert!(timed(&mut known, right).await.1 < wait / 2);
    let (status, waited) = timed(&mut other, right).await;
    assert!(status == 404 && waited >= wait, "{waited:?}");
    assert!(timed(&mut other, right).await.1 < wait / 2);
    // Another secret on that connection is a guess.
    let (status, waited) = timed(&mut known, wrong).await;
    assert!(status == 401 && waited >= wait, "{waited:?}");
    assert!(timed(&mut known, right).await.1 >= wait);
}
