//! The same matrix over HTTP: every route with each of its methods, times users. Each row names the commands that
//! stand for the request, and what they do with which keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// Method, path, body, and the calls that it is judged by; one after the other must be allowed.
const REQUESTS: &[(&str, &str, &str, &[&str])] = &[
    ("GET", "/v1/kv/a1", "", &["get a1:r"]),
    ("HEAD", "/v1/kv/a1", "", &["get a1:r"]),
    ("GET", "/v1/kv/b1", "", &["get b1:r"]),
    ("PUT", "/v1/kv/a1", "v", &["set a1:w v"]),
    ("PUT", "/v1/kv/b1?ttl=900s", "v", &["set b1:w v"]),
    ("POST", "/v1/kv/a3?incr=1", "", &["incrby a3:rw 1"]),
    ("DELETE", "/v1/kv/a2", "", &["del a2:w"]),
    ("GET", "/v1/kv?prefix=a", "", &["memkv.range a:r"]),
    ("HEAD", "/v1/kv?prefix=b", "", &["memkv.range b:r"]),
    ("GET", "/v1/kv", "", &["memkv.range :r"]),
    (
        "POST",
        "/v1/txn",
        r#"{"then": [{"set": {"key": "a1", "value": "v"}}]}"#,
        &["exec", "set a1:w v"],
    ),
    (
        "POST",
        "/v1/txn",
        r#"{"if": [{"key": "a1", "exists": true}], "then": [{"get": {"key": "b1"}}]}"#,
        &["exec", "watch a1:-", "get b1:r"],
    ),
    (
        "POST",
        "/v1/txn",
        r#"{"if": [{"key": "b1", "value": "v"}], "else": [{"delete": {"key": "a2"}}]}"#,
        &["exec", "watch b1:r", "del a2:w"],
    ),
    (
        "POST",
        "/v1/txn",
        r#"{"then": [{"incr": {"key": "a3"}}]}"#,
        &["exec", "incrby a3:rw 1"],
    ),
    ("GET", "/v1/status", "", &["info server"]),
    ("HEAD", "/v1/status", "", &["info server"]),
    ("GET", "/metrics", "", &["info server"]),
    ("HEAD", "/metrics", "", &["info server"]),
    ("GET", "/v1/events", "", &["memkv.events"]),
    ("HEAD", "/v1/events?since=1", "", &["memkv.events"]),
    ("GET", "/v1/backup", "", &["memkv.backup"]),
    ("GET", "/v1/cluster", "", &["memkv.cluster members"]),
    ("HEAD", "/v1/cluster", "", &["memkv.cluster members"]),
    (
        "POST",
        "/v1/cluster",
        r#"{"add": {"name": "n9", "role": "replica"}}"#,
        &["memkv.cluster add n9"],
    ),
    (
        "POST",
        "/v1/cluster?dry_run=true",
        r#"{"remove": {"name": "n9"}}"#,
        &["memkv.cluster remove n9"],
    ),
    (
        "POST",
        "/v1/cluster?wait=1",
        r#"{"replace": {"old": "n8", "new": "n9"}}"#,
        &["memkv.cluster replace n8 n9"],
    ),
    (
        "POST",
        "/v1/cluster",
        r#"{"promote": {"name": "n9"}}"#,
        &["memkv.cluster promote n9"],
    ),
    (
        "POST",
        "/v1/cluster",
        r#"{"demote": {"name": "n9"}}"#,
        &["memkv.cluster demote n9"],
    ),
    (
        "POST",
        "/v1/cluster",
        r#"{"transfer": {}}"#,
        &["memkv.cluster transfer"],
    ),
    ("GET", "/livez", "", &[]),
    ("HEAD", "/livez", "", &[]),
    ("GET", "/readyz", "", &[]),
    ("HEAD", "/readyz", "", &[]),
    (
        "POST",
        "/memkvn1/store/get",
        r#"{"key": "a1"}"#,
        &["get a1:r"],
    ),
    (
        "GET",
        "/memkvn1/store/get",
        r#"{"key": "b1"}"#,
        &["get b1:r"],
    ),
    (
        "POST",
        "/memkvn1/store/set",
        r#"{"key": "a1", "value": "v"}"#,
        &["set a1:w v"],
    ),
    (
        "GET",
        "/memkvn1/store/set",
        r#"{"key": "b1", "value": "v"}"#,
        &["set b1:w v"],
    ),
    (
        "POST",
        "/memkvn1/store/del",
        r#"{"key": "a2"}"#,
        &["del a2:w"],
    ),
    (
        "GET",
        "/memkvn1/store/del",
        r#"{"key": "b2"}"#,
        &["del b2:w"],
    ),
    (
        "POST",
        "/memkvn1/store/exist",
        r#"{"key": "a1"}"#,
        &["exists a1:-"],
    ),
    (
        "GET",
        "/memkvn1/store/exist",
        r#"{"key": "b1"}"#,
        &["exists b1:-"],
    ),
];

/// The address of a listener of all protocols in front of the server.
async fn listen(server: &TestServer) -> String {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    tokio::spawn(server.listener.clone().accept(socket));
    addr
}

/// The whole answer to a request that ends its connection.
async fn ask(addr: &str, user: Option<&str>, method: &str, path: &str, body: &str) -> String {
    let shown = user.map(|user| STANDARD.encode(format!("{user}:any")));
    let shown = shown.map_or_else(String::new, |shown| {
        format!("Authorization: Basic {shown}\r\n")
    });
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{shown}Content-Length: {length}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn verdict(answer: &str) -> Verdict {
    match answer.split(' ').nth(1) {
        Some("401") => Verdict::Stranger,
        Some("403") => Verdict::Denied,
        // Without metrics, the node says that it is loading, and without a cluster it refuses to change one.
        Some("200" | "204" | "404" | "409" | "503") => Verdict::Allowed,
        _ => panic!("{answer}"),
    }
}

/// The categories of what stands for a request are those of its statement.
fn calls_of(texts: &[&str]) -> Vec<Call> {
    let of = |text: &&str| {
        let asked = Call::of((*text).to_owned(), "");
        let name = asked
            .name()
            .split('|')
            .next()
            .unwrap_or_default()
            .to_owned();
        let named = |call: &&Call| call.name() == asked.name() || call.name() == name;
        let stated = CALLS.iter().find(named).expect("it has a statement");
        Call::of((*text).to_owned(), stated.letters())
    };
    texts.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_is_allowed_to_whom_the_statement_allows_it() {
    let servers = [
        server("SELECT 0").await,
        server("ACL SETUSER default resetpass >pw").await,
    ];
    let [open, closed] = [listen(&servers[0]).await, listen(&servers[1]).await];
    let mut findings = Findings::default();
    for (method, path, body, texts) in REQUESTS {
        let calls = calls_of(texts);
        let asked = |who: &str| format!("{who}: {method} {path} {body}");
        for user in USERS {
            let expected = match calls.iter().all(|call| user.may(call)) {
                true => Verdict::Allowed,
                false => Verdict::Denied,
            };
            let before = servers[0].index();
            let found = verdict(&ask(&open, Some(user.name), method, path, body).await);
            findings.note(|| asked(user.name), found, expected);
            if found == Verdict::Denied {
                assert_eq!(servers[0].index(), before, "{}", asked(user.name));
            }
        }
        let found = verdict(&ask(&open, None, method, path, body).await);
        findings.note(|| asked("(default)"), found, Verdict::Allowed);
        let expected = match texts.is_empty() {
            true => Verdict::Allowed,
            false => Verdict::Stranger,
        };
        let found = verdict(&ask(&closed, None, method, path, body).await);
        findings.note(|| asked("(nobody)"), found, expected);
    }
    findings.check("requests", REQUESTS.len() * (USERS.len() + 2));
}

#[tokio::test]
async fn every_route_has_a_statement_for_each_of_its_methods() {
    let server = server("SELECT 0").await;
    let addr = listen(&server).await;
    let answer = ask(&addr, None, "GET", "/nosuch", "").await;
    let listed = answer
        .split("there are ")
        .nth(1)
        .expect("it lists the paths");
    let listed = listed
        .split('"')
        .next()
        .unwrap_or_default()
        .replace(" and ", ", ");
    let (mut paths, mut methods) = (0, 0);
    // `{get,set,del,exist}` stands for four paths, and `{key}` for any key.
    for path in listed.replace(",", "|").split("| ") {
        let (begin, rest) = path.split_once('{').unwrap_or((path, ""));
        let rest = rest.trim_end_matches('}');
        let ends = rest
            .split('|')
            .map(|end| if end == "key" { "a1" } else { end });
        for end in ends {
            let path = format!("{begin}{end}");
            let answer = ask(&addr, None, "PATCH", &path, "").await;
            let allow = answer.lines().find_map(|line| line.strip_prefix("Allow: "));
            let allow = allow.unwrap_or_else(|| panic!("{path}: {answer}"));
            for method in allow.split(", ") {
                let is_it = |(stated, of, _, _): &&(&str, &str, &str, &[&str])| {
                    let same_kind =
                        of.strip_prefix("/v1/kv/").is_some() == path.starts_with("/v1/kv/");
                    let of = of.split('?').next().unwrap_or_default();
                    *stated == method && same_kind && (of == path || path.starts_with("/v1/kv/"))
                };
                assert!(
                    REQUESTS.iter().any(|row| is_it(&row)),
                    "{method} {path} has no statement"
                );
                methods += 1;
            }
            paths += 1;
        }
    }
    eprintln!("{methods} methods of {paths} paths");
    assert!(
        paths >= 12 && methods >= 25,
        "{methods} methods of {paths} paths: {listed}"
    );
}
