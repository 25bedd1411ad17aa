//! Who may make a request be sent here: any program, and a browser for a page of this node alone.

use super::*;

/// Requests that write without a Content-Type, as a form or a script of any page can send them, and
/// some that read.
const REQUESTS: [(&str, &str, &str); 8] = [
    (
        "POST",
        "/v1/txn",
        r#"{"then":[{"set":{"key":"k","value":"evil"}}]}"#,
    ),
    ("POST", "/v1/kv/k?incr=1", ""),
    ("PUT", "/v1/kv/k", "evil"),
    ("DELETE", "/v1/kv/old", ""),
    (
        "POST",
        "/memkvn1/store/set",
        r#"{"key":"k","value":"evil"}"#,
    ),
    ("POST", "/store/del", r#"{"key":"old"}"#),
    ("GET", "/v1/kv/old", ""),
    ("GET", "/livez", ""),
];

fn request(method: &str, target: &str, version: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {target} {version}\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
}

/// The answer to one request on a connection of its own.
async fn ask(api: &Arc<Api<Fake>>, request: &str) -> Answer {
    let mut client = connect_to(api.clone());
    client.send(request).await;
    let answer = client.answer(!request.starts_with("HEAD")).await;
    if matches!(answer.status, 400 | 403 | 421) {
        assert!(
            client.is_closed().await,
            "a refused sender is not listened to"
        );
    }
    answer
}

async fn guarded() -> Arc<Api<Fake>> {
    let api = api_for(Some(Fake::working()), MAX_VALUE_BYTES, None);
    connect_to(api.clone()).ask("PUT", "/v1/kv/old", b"1").await;
    api
}

/// Nothing but the one key of the beginning was ever written.
async fn assert_untouched(api: &Arc<Api<Fake>>) {
    let listed = connect_to(api.clone()).ask("GET", "/v1/kv", b"").await;
    let text = listed.text();
    assert!(
        text.contains(r#""key":"old""#) && !text.contains(r#""key":"k""#),
        "{text}"
    );
}

#[tokio::test]
async fn a_page_of_another_site_can_do_nothing() {
    let api = guarded().await;
    for page in [
        "Host: 127.0.0.1:11081\r\nOrigin: http://evil.example\r\n",
        "Host: 127.0.0.1:11081\r\nOrigin: null\r\n",
        "Host: 127.0.0.1:11081\r\nOrigin:\r\n",
        "Host: 127.0.0.1:11081\r\nOrigin: http://127.0.0.1:3000\r\n",
        "Host: localhost:11081\r\nOrigin: http://localhost\r\n",
        "Host: 127.0.0.1:11081\r\nSec-Fetch-Site: cross-site\r\n",
        "Host: 127.0.0.1:11081\r\nsec-fetch-site: Cross-Site\r\nSec-Fetch-Site: none\r\n",
        // Of the right host, but its own word is another one.
        "Host: localhost:1\r\nOrigin: http://localhost:1\r\nSec-Fetch-Site: cross-site\r\n",
    ] {
        for (method, path, body) in REQUESTS {
            let answer = ask(&api, &request(method, path, "HTTP/1.1", page, body)).await;
            assert_eq!(answer.status, 403, "{method} {path} {page}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
            let text = answer.text();
            assert!(text.contains("page"), "{text}");
        }
        let preflight = request("OPTIONS", "/v1/kv/k", "HTTP/1.1", page, "");
        assert_eq!(ask(&api, &preflight).await.status, 403);
    }
    // Without a Host there is nothing that an Origin could be the same as.
    let page = "Origin: http://evil.example\r\n";
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let set = request(
            "POST",
            "/store/set",
            version,
            page,
            r#"{"key":"k","value":"evil"}"#,
        );
        assert_eq!(ask(&api, &set).await.status, 403, "{version}");
    }
    assert_untouched(&api).await;
}

#[tokio::test]
async fn a_page_of_another_site_can_do_nothing_with_a_password_either() {
    let api = api_for(Some(Fake::working()), MAX_VALUE_BYTES, Some("secret"));
    let fields = "Host: kv\r\nAuthorization: Bearer secret\r\nOrigin: http://evil.example\r\n";
    let put = request("PUT", "/v1/kv/k", "HTTP/1.1", fields, "evil");
    assert_eq!(ask(&api, &put).await.status, 403);
    let own = fields.replace("evil.example", "kv");
    let get = request("GET", "/v1/kv/k", "HTTP/1.1", &own, "");
    assert_eq!(ask(&api, &get).await.status, 404, "nothing was written");
}

#[tokio::test]
async fn a_page_of_the_node_and_the_address_bar_are_served() {
    let api = guarded().await;
    for page in [
        "Host: 127.0.0.1:11081\r\nOrigin: http://127.0.0.1:11081\r\nSec-Fetch-Site: same-origin\r\n",
        "Host: [::1]:11081\r\nOrigin: http://[::1]:11081\r\n",
        "Host: KV.example.com\r\nOrigin: https://kv.example.com\r\n",
        "Host: localhost:11081\r\nSec-Fetch-Site: none\r\n",
        "Host: localhost:11081\r\nSec-Fetch-Site: same-site\r\n",
    ] {
        let put = request("PUT", "/v1/kv/k", "HTTP/1.1", page, "v");
        assert_eq!(ask(&api, &put).await.status, 200, "{page}");
    }
}

#[tokio::test]
async fn a_name_that_leads_here_is_not_this_nodes() {
    let api = guarded().await;
    for host in [
        "evil.example:11081",
        "evil.example.",
        "127.0.0.1.evil.example",
        "evil@127.0.0.1",
        "",
        "kv",
    ] {
        let field = format!("Host: {host}\r\n");
        for (method, path, body) in REQUESTS {
            for version in ["HTTP/1.1", "HTTP/1.0"] {
                let answer = ask(&api, &request(method, path, version, &field, body)).await;
                assert_eq!(answer.status, 421, "{method} {path} {host}");
                let text = answer.text();
                assert!(
                    text.contains("allowed_hosts") && text.contains("password_file"),
                    "{text}"
                );
            }
            // Also where the page is of the same origin as the name that it had lead here.
            let rebound =
                format!("{field}Origin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n");
            let answer = ask(&api, &request(method, path, "HTTP/1.1", &rebound, body)).await;
            assert!(matches!(answer.status, 421 | 403), "{method} {path} {host}");
        }
    }
    // The target's word goes over the field's, and neither may be strange.
    for (target, host) in [
        ("http://evil.example/v1/kv/k", "localhost"),
        ("http://localhost/v1/kv/k", "evil.example"),
        ("http://evil@localhost/v1/kv/k", "localhost"),
    ] {
        let field = format!("Host: {host}\r\n");
        let put = request("PUT", target, "HTTP/1.1", &field, "evil");
        assert_eq!(ask(&api, &put).await.status, 421, "{target}");
    }
    assert_untouched(&api).await;
    for (target, field) in [
        ("/v1/kv/k", "Host: 10.0.0.7:11081\r\n"),
        ("/v1/kv/k", "Host: [fe80::1]:11081\r\n"),
        ("/v1/kv/k", "Host: localhost.\r\n"),
        ("/v1/kv/k", "Host: KV.example.com:443\r\n"),
        ("/v1/kv/k", "Host: kv.example.com.\r\n"),
        (
            "http://localhost:11081/v1/kv/k",
            "Host: localhost:11081\r\n",
        ),
    ] {
        let put = request("PUT", target, "HTTP/1.1", field, "v");
        assert_eq!(ask(&api, &put).await.status, 200, "{target} {field}");
    }
}

#[tokio::test]
async fn a_password_tells_strangers_apart_so_that_any_name_will_do() {
    let api = api_for(Some(Fake::working()), MAX_VALUE_BYTES, Some("secret"));
    let fields = "Host: node-7.memkv.svc.cluster.local:11081\r\n";
    let put = |fields: &str| request("PUT", "/v1/kv/k", "HTTP/1.1", fields, "v");
    let with = format!("{fields}Authorization: Bearer secret\r\n");
    assert_eq!(ask(&api, &put(&with)).await.status, 200);
    let mut client = connect_to(api);
    client.send(put(fields)).await;
    assert_eq!(client.answer(true).await.status, 401);
}

#[tokio::test]
async fn peers_come_under_any_name_and_never_from_a_page() {
    let upgrade = format!(
        "Connection: Upgrade\r\nUpgrade: {}\r\nX-Memkv-From: n2\r\n",
        crate::peer::PROTOCOL
    );
    for (fields, status) in [
        ("Host: n1.internal:11081\r\n", 101),
        ("Host: n1.internal\r\nOrigin: http://n1.internal\r\n", 101),
        ("Host: n1.internal\r\nOrigin: http://evil.example\r\n", 403),
        ("Host: n1.internal\r\nSec-Fetch-Site: cross-site\r\n", 403),
        ("", 400),
    ] {
        let mut client = connect();
        let head = "GET /memkvn1/raft/control HTTP/1.1\r\n";
        client.send(format!("{head}{fields}{upgrade}\r\n")).await;
        assert_eq!(client.answer(true).await.status, status, "{fields}");
    }
    // A peer of another version is told so; what a page can upgrade to is no peer.
    for (protocol, status) in [("memkv-peer/999", 426), ("websocket", 421)] {
        let upgrade = upgrade.replace(crate::peer::PROTOCOL, protocol);
        let mut client = connect();
        let head = "GET /memkvn1/raft/control HTTP/1.1\r\nHost: n1.internal\r\n";
        client.send(format!("{head}{upgrade}\r\n")).await;
        assert_eq!(client.answer(true).await.status, status, "{protocol}");
    }
}

#[tokio::test]
async fn the_originals_own_client_is_served_without_a_host() {
    let settings = ApiSettings {
        name: "27081".to_owned(),
        names: vec!["27081".to_owned()],
        max_value_bytes: MAX_VALUE_BYTES,
        trust: Trust::Everybody,
        metrics_public: false,
        peers_need_tls: false,
        allowed_hosts: Vec::new(),
    };
    let api = Api::new(service(Some(Fake::working()), None), settings);
    let mut client = connect_to(Arc::new(api));
    // What the client sends that was built with acl of June 2017, byte for byte.
    let get = "POST /memkv27081/store/get HTTP/1.1\r\nAccept-Encoding: gzip\r\n\
               Content-Type: application/json\r\nContent-Length: 12\r\n\
               Connection: Keep-Alive\r\n\r\n{\"key\":\"k1\"}";
    let set = get
        .replace("/get", "/set")
        .replace("Length: 12", "Length: 24")
        .replace("\"k1\"", "\"k1\",\"value\":\"v\"");
    for (request, body) in [
        (get, r#"{"status":"not found","value":""}"#),
        (&*set, r#"{"status":"ok"}"#),
        (get, r#"{"status":"ok","value":"v"}"#),
        (
            &*get.replace("/memkv27081", "/"),
            r#"{"status":"ok","value":"v"}"#,
        ),
    ] {
        client.send(request).await;
        let answer = client.answer(true).await;
        assert_eq!((answer.status, answer.text()), (200, body), "{request}");
        assert_eq!(answer.header("connection"), Some("Keep-Alive"));
    }
}

#[tokio::test]
async fn everywhere_else_http_1_1_needs_a_host() {
    let api = guarded().await;
    for path in [
        "/v1/kv/k",
        "/v1/txn",
        "/livez",
        "/memkvn1/store/",
        "/nowhere",
    ] {
        let answer = ask(&api, &request("PUT", path, "HTTP/1.1", "", "v")).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.text().contains("Host"), "{}", answer.text());
    }
    let get = request("GET", "/v1/kv/old", "HTTP/1.0", "", "");
    assert_eq!(ask(&api, &get).await.status, 200);
}
