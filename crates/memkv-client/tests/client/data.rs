//! The library: what each operation is on the wire, and what it makes of the answer.

use std::time::Duration;

use memkv_client::{
    Client, Condition, Endpoints, Error, ListOptions, SetOptions, StepResult, Sum, Txn,
};
use memkv_proto::ErrorCode;

use crate::fake::{Act, Fake};

fn client(node: &Fake) -> Client {
    Client::new(Endpoints::parse(&node.addr).unwrap())
}

#[tokio::test]
async fn times_to_live_and_conditions_go_with_the_write() {
    let node = Fake::start(|_| Act::ok(""));
    let client = client(&node);
    for (ttl, condition) in [
        (None, Condition::Always),
        (Some(Duration::from_millis(1500)), Condition::Absent),
        (None, Condition::Present),
        (None, Condition::Revision(7)),
    ] {
        let options = SetOptions { ttl, condition };
        assert_eq!(client.set_with(b"k", "v", &options).await, Ok(Some(42)));
    }
    let deleted = client.del_if(b"k", Condition::Revision(8)).await;
    assert_eq!(deleted, Ok(Some(42)));
    let seen = node.seen();
    let field = |at: usize, name: &str| seen[at].headers.get(name).map(String::as_str);
    let asked: Vec<_> = (0..seen.len())
        .map(|at| {
            (
                &*seen[at].path,
                field(at, "if-match"),
                field(at, "if-none-match"),
            )
        })
        .collect();
    assert_eq!(
        asked,
        [
            ("/v1/kv/k", None, None),
            ("/v1/kv/k?ttl=1500ms", None, Some("*")),
            ("/v1/kv/k", Some("*"), None),
            ("/v1/kv/k", Some("\"7\""), None),
            ("/v1/kv/k", Some("\"8\""), None),
        ]
    );
    assert_eq!(field(0, "content-type"), Some("application/octet-stream"));
}

#[tokio::test]
async fn a_time_to_live_of_nothing_is_never_sent() {
    let node = Fake::start(|_| Act::ok(""));
    let options = SetOptions {
        ttl: Some(Duration::from_micros(1)),
        ..SetOptions::default()
    };
    let error = client(&node).set_with(b"k", "v", &options).await;
    assert_eq!(error.unwrap_err().code(), ErrorCode::BadRequest);
    assert!(node.seen().is_empty());
}

#[tokio::test]
async fn incr_answers_the_sum() {
    let node = Fake::start(|_| Act::ok("-3"));
    let sum = Sum {
        value: -3,
        revision: Some(42),
    };
    assert_eq!(client(&node).incr(b"n", -5).await, Ok(sum));
    let seen = node.seen();
    assert_eq!(
        (&*seen[0].method, &*seen[0].path),
        ("POST", "/v1/kv/n?incr=-5")
    );
}

#[tokio::test]
async fn a_write_whose_answer_is_nonsense_may_have_been_executed() {
    let node = Fake::start(|_| Act::ok("nonsense"));
    let client = client(&node);
    for error in [
        client.incr(b"n", 1).await.unwrap_err(),
        client.txn(Txn::new()).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Unknown { .. }), "{error:?}");
    }
    let error = client.list(b"", &ListOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn listings_and_transactions() {
    let node = Fake::start(|request| match request.method.as_str() {
        "GET" => Act::json(r#"{"items":[{"key":"a","value":"1","revision":3}],"next":"a"}"#),
        _ => Act::json(r#"{"succeeded":true,"results":[{"ok":true,"integer":1}]}"#),
    });
    let client = client(&node);
    let page = client.list(b"a", &ListOptions::default()).await.unwrap();
    assert_eq!(page.next.as_deref(), Some(&b"a"[..]));
    assert_eq!((page.items[0].revision, page.revision), (Some(3), Some(42)));
    let answer = client.txn(Txn::new()).await.unwrap();
    assert!(answer.succeeded);
    assert_eq!(answer.results, [StepResult::Integer(1)]);
    let seen = node.seen();
    assert_eq!(seen[0].path, "/v1/kv?prefix=a");
    assert_eq!((&*seen[1].method, &*seen[1].path), ("POST", "/v1/txn"));
    assert_eq!(seen[1].headers["content-type"], "application/json");
}

#[tokio::test]
async fn the_password_goes_with_every_request() {
    let node = Fake::start(|_| Act::error(ErrorCode::Unauthorized));
    let client = client(&node).with_password("p:\u{e9}");
    let error = client.set(b"k", "v").await.unwrap_err();
    assert_eq!(
        (error.code(), error.exit_code()),
        (ErrorCode::Unauthorized, 2)
    );
    assert!(error.explain()[0].contains("--password-file"), "{error:?}");
    assert!(client.status(&node.addr).await.is_err());
    for request in node.seen() {
        assert_eq!(request.headers["authorization"], "Basic ZGVmYXVsdDpwOsOp");
    }
}
