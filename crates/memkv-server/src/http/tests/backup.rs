//! `GET /v1/backup`: a whole backup in chunks, one at a time, for administrators alone.

use memkv_backup::BackupReader;
use memkv_node::RequestError;
use memkv_store::Loader;

use super::*;

/// The body of a chunked answer.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").unwrap();
        let len = std::str::from_utf8(&rest[..end]).unwrap();
        let len = usize::from_str_radix(len, 16).unwrap();
        rest = &rest[end + 2..];
        if len == 0 {
            assert_eq!(rest, b"\r\n");
            return body;
        }
        body.extend_from_slice(&rest[..len]);
        assert_eq!(&rest[len..len + 2], b"\r\n");
        rest = &rest[len + 2..];
    }
}

/// Sends a request on a connection that ends behind it, and returns head and body as they came.
async fn get(api: Arc<Api<Fake>>, version: &str) -> (String, Vec<u8>) {
    let mut client = connect_to(api);
    let request =
        format!("GET /v1/backup HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    client.send(request).await;
    let mut bytes = Vec::new();
    client.stream.read_to_end(&mut bytes).await.unwrap();
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    (head, bytes[end + 4..].to_vec())
}

/// A node with a few keys, one larger than a piece.
async fn filled() -> Arc<Api<Fake>> {
    let api = api_with(Some(Fake::at_edge_level()), 1 << 20);
    let mut client = connect_to(api.clone());
    let large: Vec<u8> = (0..900_000u32)
        .map(|at| (at.wrapping_mul(at) >> 7) as u8)
        .collect();
    for (key, value) in [("a", &b"1"[..]), ("b", b"2"), ("large", &large)] {
        let path = format!("/v1/kv/{key}");
        assert_eq!(client.ask("PUT", &path, value).await.status, 200);
    }
    api
}

#[tokio::test]
async fn a_backup_comes_whole_and_holds_the_state() {
    let api = filled().await;
    for version in ["1.1", "1.0"] {
        let (head, body) = get(api.clone(), version).await;
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        let is_chunked = head.contains("Transfer-Encoding: chunked");
        assert_eq!(is_chunked, version == "1.1", "{head}");
        let body = if is_chunked { unchunked(&body) } else { body };
        let mut reader = BackupReader::open(&body[..]).unwrap();
        assert_eq!((reader.head().keys, &reader.head().node[..]), (3, "n1"));
        let mut loader = Loader::new();
        while let Some(record) = reader.next_record().unwrap() {
            loader.block(&record).unwrap();
        }
        let store = loader.finish().unwrap();
        assert_eq!(store.get(b"a").unwrap().value, b"1");
        assert_eq!(store.get(b"large").unwrap().value.len(), 900_000);
    }
}

#[tokio::test]
async fn the_next_backup_comes_on_the_same_connection_and_two_at_once_do_not() {
    let api = filled().await;
    let turn = api.backup_turn().unwrap();
    let mut client = connect_to(api);
    let refused = client.ask("GET", "/v1/backup", b"").await;
    assert_eq!(refused.status, 503);
    assert!(
        refused.text().contains("another backup"),
        "{}",
        refused.text()
    );
    drop(turn);
    let text = "GET /v1/backup HTTP/1.1\r\nHost: localhost\r\n\r\n\
                GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    client.send(text).await;
    let mut bytes = Vec::new();
    client.stream.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes.ends_with(b"\r\n\r\nalive\n"));
}

#[tokio::test]
async fn other_methods_are_refused_and_a_node_without_a_leader_gives_none() {
    let mut client = connect();
    for method in ["HEAD", "PUT", "DELETE"] {
        let answer = client.ask(method, "/v1/backup", b"").await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("Allow"), Some("GET"));
    }
    let detail = "n2 is not reachable".to_owned();
    let mut client = connect_failing(RequestError::NoLeader { detail });
    let answer = client.ask("GET", "/v1/backup", b"").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("n2 is not reachable"));
}
