//! The library: which endpoint gets what, and when a write is sent again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use memkv_client::{Client, Condition, Endpoints, Error, SetOptions, Txn};
use memkv_proto::error::exit;
use memkv_proto::{ErrorCode, Executed, Problem};

use crate::fake::{Act, Fake, Late, nobody};

const SHORT: Duration = Duration::from_millis(400);

fn client(addrs: &[&str]) -> Client {
    Client::new(Endpoints::parse(&addrs.join(",")).unwrap())
}

fn answers(code: ErrorCode) -> Fake {
    Fake::start(move |_| Act::error(code))
}

fn works() -> Fake {
    Fake::start(|_| Act::ok("value"))
}

#[tokio::test]
async fn one_connection_carries_raw_bytes_under_encoded_keys() {
    let node = Fake::start(|request| match request.method.as_str() {
        "GET" => Act::ok(b"\0\xff".to_vec()),
        _ => Act::ok(""),
    });
    let client = client(&[&node.addr]);
    let key = b"a/b \xff?";
    assert_eq!(client.set(key, &b"\xfe\0"[..]).await, Ok(Some(42)));
    let entry = client.get(key).await.unwrap().unwrap();
    assert_eq!(
        (&entry.value[..], entry.revision),
        (&b"\0\xff"[..], Some(41))
    );
    assert_eq!(client.exists(key).await, Ok(true));
    assert_eq!(client.del(key).await, Ok(Some(42)));
    let seen = node.seen();
    let methods: Vec<_> = seen.iter().map(|request| request.method.as_str()).collect();
    assert_eq!(methods, ["PUT", "GET", "HEAD", "DELETE"]);
    assert!(
        seen.iter()
            .all(|request| request.path == "/v1/kv/a%2Fb%20%FF%3F"),
        "{seen:?}"
    );
    assert!(
        seen.iter().all(|request| request.connection == 0),
        "{seen:?}"
    );
    assert_eq!(seen[0].body, b"\xfe\0");
}

#[tokio::test]
async fn absent_keys_are_no_errors() {
    let node = answers(ErrorCode::NotFound);
    let client = client(&[&node.addr]);
    assert_eq!(client.get(b"k").await, Ok(None));
    assert_eq!(client.exists(b"k").await, Ok(false));
    assert_eq!(client.del(b"k").await, Ok(None));
}

#[tokio::test]
async fn the_next_endpoint_is_asked_and_kept() {
    let (first, second) = (answers(ErrorCode::NoLeader), works());
    let client = client(&[&nobody(), &first.addr, &second.addr]);
    assert!(client.set(b"k", "v").await.is_ok());
    assert!(client.set(b"k", "v").await.is_ok());
    assert!(client.get(b"k").await.is_ok());
    assert_eq!((first.seen().len(), second.seen().len()), (1, 3));
}

/// A client of `addr`, which refuses connections until that has failed once.
fn client_of_a_late_node() -> Client {
    let late = Late::bind();
    let client = client(&[&nobody(), &late.addr]);
    let late = Mutex::new(Some(late));
    client.on_retry(move |attempts| {
        assert_eq!(attempts.len(), 2, "{attempts:?}");
        if let Some(late) = late.lock().unwrap().take() {
            late.start(|_| Act::ok("value"));
        }
    })
}

#[tokio::test]
async fn nodes_that_do_not_listen_yet_are_asked_again() {
    assert_eq!(client_of_a_late_node().set(b"k", "v").await, Ok(Some(42)));
    assert_eq!(client_of_a_late_node().exists(b"k").await, Ok(true));
}

#[tokio::test]
async fn nodes_that_never_listen_are_unavailable_at_the_deadline() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let client = client(&[&nobody(), &nobody()])
        .with_timeout(SHORT)
        .on_retry(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
    let error = client.set(b"k", "v").await.unwrap_err();
    assert_eq!(
        (error.code(), error.executed()),
        (ErrorCode::Unreachable, Executed::No)
    );
    let Error::Unavailable { attempts, .. } = error else {
        panic!("{error:?}")
    };
    let reasons: Vec<_> = attempts.iter().map(|attempt| &*attempt.reason).collect();
    assert_eq!(reasons, ["connection refused"; 2]);
    assert!(asked.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn connect_needs_one_endpoint_that_listens() {
    let node = works();
    let endpoints = |addrs: &[&str]| Endpoints::parse(&addrs.join(",")).unwrap();
    let client = Client::connect(endpoints(&[&nobody(), &node.addr]))
        .await
        .unwrap();
    assert!(client.get(b"k").await.is_ok());
    let Err(error) = Client::connect(endpoints(&[&nobody()])).await else {
        panic!("connected")
    };
    assert_eq!(error.exit_code(), exit::UNAVAILABLE);
}

#[tokio::test]
async fn a_write_that_may_have_been_executed_is_sent_to_nobody_else() {
    let proxy = || Fake::start(|_| Act::Answer(502, "text/html", String::new(), Vec::new()));
    let silent = Problem::new(ErrorCode::NoLeader, "why").with_executed(Executed::Maybe);
    for first in [
        answers(ErrorCode::Unknown),
        answers(ErrorCode::Internal),
        Fake::start(move |_| Act::problem(&silent)),
        proxy(),
        Fake::start(|_| Act::Close),
        Fake::start(|_| Act::Hang),
    ] {
        let second = works();
        let client = client(&[&first.addr, &second.addr]).with_timeout(SHORT);
        let absent = SetOptions {
            condition: Condition::Absent,
            ..SetOptions::default()
        };
        for error in [
            client.set(b"k", "v").await.unwrap_err(),
            client.set_with(b"k", "v", &absent).await.unwrap_err(),
            client.del(b"k").await.unwrap_err(),
            client.incr(b"k", 1).await.unwrap_err(),
            client.txn(Txn::new()).await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::Unknown { .. }), "{error:?}");
            assert_eq!(
                (error.exit_code(), error.executed()),
                (exit::UNKNOWN, Executed::Maybe)
            );
        }
        assert_eq!((first.seen().len(), second.seen().len()), (5, 0));
    }
}

#[tokio::test]
async fn a_read_goes_on_whatever_happened() {
    for first in [
        answers(ErrorCode::Unknown),
        answers(ErrorCode::Internal),
        answers(ErrorCode::Loading),
        Fake::start(|_| Act::Answer(502, "text/html", String::new(), Vec::new())),
        Fake::start(|_| Act::Close),
        Fake::start(|_| Act::Hang),
    ] {
        let second = works();
        let client = client(&[&first.addr, &second.addr]);
        assert_eq!(client.get(b"k").await.unwrap().unwrap().value, "value");
        assert_eq!((first.seen().len(), second.seen().len()), (1, 1));
    }
}

#[tokio::test]
async fn one_deadline_covers_all_endpoints() {
    let nodes = [(); 3].map(|()| Fake::start(|_| Act::Hang));
    let addrs: Vec<_> = nodes.iter().map(|node| node.addr.as_str()).collect();
    let client = client(&addrs).with_timeout(SHORT);
    let started = Instant::now();
    let error = client.get(b"k").await.unwrap_err();
    assert_eq!(
        (error.exit_code(), error.executed()),
        (exit::UNAVAILABLE, Executed::No)
    );
    assert!(started.elapsed() < 5 * SHORT, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_node_that_is_loading_is_asked_again() {
    let asked = AtomicUsize::new(0);
    let node = Fake::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Act::problem(&Problem::new(ErrorCode::Loading, "why").with_retry_after_ms(1)),
        _ => Act::ok(""),
    });
    assert_eq!(client(&[&node.addr]).set(b"k", "v").await, Ok(Some(42)));
    assert_eq!(node.seen().len(), 3);
}

#[tokio::test]
async fn a_held_write_is_not_repeated_into_the_deadline() {
    // Holds a command for most of the time there is, as a node without a leader does.
    let hold = || {
        Fake::start(|_| {
            thread::sleep(SHORT * 3 / 4);
            Act::error(ErrorCode::NoLeader)
        })
    };
    let (first, second) = (hold(), hold());
    let client = client(&[&first.addr, &second.addr]).with_timeout(SHORT);
    let error = client.set(b"k", "v").await.unwrap_err();
    assert_eq!(
        (error.code(), error.executed()),
        (ErrorCode::NoLeader, Executed::No)
    );
    assert_eq!((first.seen().len(), second.seen().len()), (1, 0));
}

#[tokio::test]
async fn an_answer_that_closes_the_connection_costs_nothing() {
    let node = Fake::start(|request| {
        let close = if request.connection == 0 {
            "Connection: close\r\n"
        } else {
            ""
        };
        Act::Answer(204, "text/plain", close.to_owned(), Vec::new())
    });
    let client = client(&[&node.addr]);
    for _ in 0..3 {
        assert_eq!(client.set(b"k", "v").await, Ok(None));
    }
    let connections: Vec<_> = node
        .seen()
        .iter()
        .map(|request| request.connection)
        .collect();
    assert_eq!(connections, [0, 1, 1]);
}

#[tokio::test]
async fn refusals_are_final() {
    for (code, exit) in [
        (ErrorCode::ValueTooLarge, exit::USAGE),
        (ErrorCode::PreconditionFailed, exit::NOT_FOUND),
        (ErrorCode::DiskFull, exit::UNAVAILABLE),
    ] {
        let (first, second) = (answers(code), works());
        let error = client(&[&first.addr, &second.addr])
            .set(b"k", "v")
            .await
            .unwrap_err();
        assert_eq!((error.code(), error.exit_code()), (code, exit), "{error:?}");
        assert_eq!((first.seen().len(), second.seen().len()), (1, 0));
    }
}

#[tokio::test]
async fn what_exceeds_every_limit_is_never_sent() {
    let node = works();
    let client = client(&[&node.addr]);
    let error = client.get(&vec![b'k'; 65_537]).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::KeyTooLarge);
    let error = client.set(b"k", vec![0; (64 << 20) + 1]).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ValueTooLarge);
    assert!(node.seen().is_empty());
}

#[tokio::test]
async fn an_endpoint_over_tls_gets_nothing_in_the_clear() {
    let node = works();
    let endpoints = Endpoints::parse(&format!("https://{}", node.addr)).unwrap();
    let client = Client::new(endpoints.clone()).with_timeout(SHORT);
    let error = client.get(b"k").await.unwrap_err();
    assert!(format!("{error:?}").contains("with_tls"), "{error:?}");
    assert!(Client::connect(endpoints).await.is_err());
    assert_eq!(node.seen().len(), 0);
}
