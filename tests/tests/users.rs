//! Users and what they may do, in a cluster of three: held against redis-server's access lists, which are the
//! independent expectation.
//!
//! `MEMKV_USERS_SEED` sets what is random; a failure prints the seed that repeats it.

#![allow(clippy::unwrap_used, reason = "tests")]

use memkv_black_box::{Cluster, Http, Random, Redis, Resp, seed};

/// Random users, each with so many calls that are asked about: ten thousand decisions.
const USERS: usize = 400;
const CALLS_OF_USER: usize = 25;

/// A call of each command that Redis has too, with keys `a1` and `b1` and the channel `news`.
const CALLS: &str = "get a1|get b1|set a1 v|set b1 v GET|setnx a1 v|setex a1 9 v|getset a1 v|getdel b1|getex a1|\
    mget a1 a2|mget a1 b1|mset a1 v b1 v|msetnx a1 v|append a1 v|strlen a1|strlen b1|getrange a1 0 1|substr a1 0 1|\
    setrange a1 0 v|incr a1|decr b1|incrby a1 1|decrby a1 1|incrbyfloat a1 1|del a1|del a1 b1|unlink a1|exists a1|\
    exists a1 b1|touch a1|expire a1 9|pexpire a1 9|expireat a1 9|pexpireat a1 9|ttl a1|pttl b1|expiretime a1|\
    pexpiretime a1|persist a1|type a1|rename a1 a2|rename a1 b1|renamenx a1 a2|copy a1 a2|copy b1 a1|scan 0|keys *|\
    randomkey|object encoding a1|object freq b1|object help|wait 0 1|multi|exec|discard|watch a1|watch b1|unwatch|\
    eval return 1 a1|evalsha 0 1 a1|eval_ro return 1 b1|script exists x|script flush|script help|function list|\
    subscribe news|subscribe other|psubscribe news|psubscribe news*|ssubscribe news|unsubscribe|punsubscribe|\
    publish news m|publish other m|spublish news m|pubsub channels|pubsub numpat|hello|ping|echo x|quit|reset|select 0|\
    client id|client info|client list|client getname|client setname x|client no-evict on|client help|dbsize|flushdb|\
    flushall|time|lolwut|info|role|command|command count|command docs get|command list|config get port|config set x y|\
    config resetstat|config help|memory usage a1|memory doctor|slowlog get|slowlog len|latency latest|latency doctor|\
    module list|acl whoami|acl cat|acl list|acl users|acl getuser default|acl setuser x|acl deluser x|acl log|\
    acl dryrun x get a|acl genpass|acl load|acl save|lastsave|shutdown|readonly|readwrite";

/// Modifiers of which random users are made, also ones that are refused.
const MODIFIERS: &str = "on|off|nopass|resetpass|>pw|<pw|#zz|~a*|~b1|~*|%R~a*|%R~b*|%W~a*|%RW~b?|%R|%X~a|allkeys|\
    resetkeys|&news|&new*|&*|allchannels|resetchannels|+@all|-@all|allcommands|nocommands|+@read|-@read|+@write|\
    -@write|+@string|+@keyspace|+@fast|-@fast|+@slow|+@dangerous|-@dangerous|+@admin|-@admin|+@pubsub|+@connection|\
    +@transaction|+@scripting|+@nosuch|+get|-get|+set|-set|+mget|+del|-del|+copy|+rename|+client|-client|+client|id|\
    -client|id|+config|get|-config|get|+config|nosuch|+select|0|+select|1|+lpush|+xgroup|create|+nosuch|-nosuch|\
    +acl|whoami|-acl|(~b* +get)|(%R~a* %W~b* +@all)|(+publish &other)|(+nosuch)|clearselectors|reset|sanitize-payload";

/// The words of a list between `|`; a subcommand's `|` joins two of them.
fn modifiers() -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for word in MODIFIERS.split('|') {
        let joins = matches!(
            word,
            "id" | "get" | "nosuch" | "0" | "1" | "create" | "whoami"
        );
        match all.last_mut().filter(|_| joins) {
            Some(last) => last.push_str(&format!("|{word}")),
            None => all.push(word.to_owned()),
        }
    }
    all
}

fn calls() -> Vec<Vec<&'static str>> {
    let calls = CALLS.split('|').map(str::trim);
    calls
        .map(|call| match call.split_once(" return ") {
            // The text of a script is one word.
            Some((name, rest)) => {
                let words = rest.split(' ').collect::<Vec<_>>();
                vec![name, "return 1", words[0], words[1]]
            }
            None => call.split(' ').collect(),
        })
        .collect()
}

#[test]
fn random_users_may_do_what_redis_lets_them() {
    let cluster = Cluster::start(3);
    let redis = Redis::start(cluster.root());
    let mut ours: Vec<Resp> = (0..3)
        .map(|at| Resp::connect(&cluster.nodes[at].addr).unwrap())
        .collect();
    let mut theirs = Resp::connect(&redis.addr).unwrap();
    let seed = seed("MEMKV_USERS_SEED");
    let mut random = Random::new(seed);
    let (modifiers, calls) = (modifiers(), calls());
    let (mut asked, mut allowed) = (0, 0);
    for user in 0..USERS {
        let name = format!("u{user}");
        let setter = user % ours.len();
        for _ in 0..1 + random.below(3) {
            let mut line = vec!["ACL", "SETUSER", &name];
            let words: Vec<&String> = (0..1 + random.below(8))
                .map(|_| &modifiers[random.below(modifiers.len())])
                .collect();
            line.extend(words.iter().map(|word| word.as_str()));
            let [our, their] =
                [&mut ours[setter], &mut theirs].map(|node| node.call(&line).unwrap());
            let hidden = line
                .iter()
                .any(|word| word.starts_with(['<', '>', '#', '!']));
            assert!(
                our == their || (hidden && our.is_error() && their.is_error()),
                "seed {seed}: {line:?}:\n  memkv: {our}\n  redis: {their}"
            );
        }
        for _ in 0..CALLS_OF_USER {
            let call = &calls[random.below(calls.len())];
            let line = [&["ACL", "DRYRUN", &name][..], call].concat();
            let [our, their] =
                [&mut ours[setter], &mut theirs].map(|node| node.call(&line).unwrap());
            assert_eq!(our, their, "seed {seed}: {line:?}");
            asked += 1;
            allowed += usize::from(our.text() == b"OK");
        }
        // What LIST shows is what SETUSER takes, also Redis's.
        let list = ours[setter].call(&["ACL", "LIST"]).unwrap();
        let begin = format!("user {name} ");
        let mut shown = list
            .items
            .iter()
            .map(|item| String::from_utf8_lossy(item.text()));
        // A user whose every change was refused is not there.
        let Some(shown) = shown
            .rfind(|line| line.starts_with(&begin))
            .map(std::borrow::Cow::into_owned)
        else {
            continue;
        };
        let words = shown[begin.len()..]
            .split(' ')
            .filter(|word| !word.starts_with("#$argon2id$"));
        let copy = format!("c{user}");
        let line: Vec<&str> = ["ACL", "SETUSER", &copy].into_iter().chain(words).collect();
        assert_eq!(
            theirs.call(&line).unwrap().text(),
            b"OK",
            "seed {seed}: {line:?}"
        );
        let call = &calls[random.below(calls.len())];
        let ask = |node: &mut Resp, user: &str| {
            let line = [&["ACL", "DRYRUN", user][..], call].concat();
            node.call(&line).unwrap()
        };
        assert_eq!(
            ask(&mut ours[setter], &name),
            ask(&mut theirs, &copy),
            "seed {seed}: {call:?}: {shown}"
        );
    }
    eprintln!("{asked} decisions of {USERS} users, {allowed} of them allowed");
    assert!(asked >= 10_000 && allowed > asked / 20 && allowed < asked - asked / 20);
}

/// What is executed is what Redis's access list says, in each location where a command can stand.
#[test]
fn every_command_is_refused_where_redis_refuses_it() {
    let cluster = Cluster::start(1);
    let redis = Redis::start(cluster.root());
    let addr = &cluster.nodes[0].addr;
    let mut admin = Resp::connect(addr).unwrap();
    let mut theirs = Resp::connect(&redis.addr).unwrap();
    let users: [(&str, &[&str]); 7] = [
        (
            "readonly",
            &[
                "~*",
                "&*",
                "+@read",
                "+@connection",
                "+@transaction",
                "+info",
            ],
        ),
        (
            "readwrite",
            &["~*", "&*", "+@all", "-@admin", "-@dangerous", "+info"],
        ),
        ("admin", &["~*", "&*", "+@all"]),
        ("fits", &["~a*", "&news", "+@all"]),
        ("misses", &["~c*", "+@all"]),
        ("reads", &["%R~a*", "%R~b*", "&other", "+@all"]),
        ("channels", &["&news*", "+@pubsub"]),
    ];
    let mut checked = 0;
    for (user, rules) in users {
        let line = [&["ACL", "SETUSER", user, "on", "nopass"][..], rules].concat();
        assert_eq!(admin.call(&line).unwrap().text(), b"OK");
        assert_eq!(theirs.call(&line).unwrap().text(), b"OK");
        for call in calls() {
            let asked = [&["ACL", "DRYRUN", user][..], &call].concat();
            let is_allowed = theirs.call(&asked).unwrap().text() == b"OK";
            if is_allowed && matches!(call[0], "shutdown") {
                continue;
            }
            for location in ["2", "3", "multi"] {
                let mut client = Resp::connect(addr).unwrap();
                let protocol = if location == "3" { "3" } else { "2" };
                client
                    .call(&["HELLO", protocol, "AUTH", user, "any"])
                    .unwrap();
                let is_queued =
                    location == "multi" && client.call(&["MULTI"]).unwrap().text() == b"OK";
                if location == "multi" && !is_queued {
                    continue;
                }
                let reply = client.call(&call).unwrap();
                let is_refused = reply.text().windows(7).any(|part| part == b"NOPERM ");
                assert_eq!(
                    is_refused, !is_allowed,
                    "{user} {location}: {call:?}: {reply}"
                );
                checked += 1;
            }
        }
    }
    eprintln!("{checked} calls");
    assert!(checked > 1500, "{checked}");
}

#[test]
fn http_asks_for_a_user_and_for_its_rights() {
    let cluster = Cluster::start(1);
    let addr = &cluster.nodes[0].addr;
    let mut admin = Resp::connect(addr).unwrap();
    for line in [
        &[
            "ACL",
            "SETUSER",
            "ann",
            "on",
            ">pw",
            "~a*",
            "+get",
            "+set",
            "+memkv.range",
            "+exec",
        ][..],
        &["ACL", "SETUSER", "ops", "on", ">pw", "+info"],
        &["SET", "a1", "v"],
        &["SET", "b1", "v"],
    ] {
        assert_eq!(admin.call(line).unwrap().text(), b"OK", "{line:?}");
    }
    let token = admin.call(&["MEMKV.USERS", "TOKEN", "ann", "60"]).unwrap();
    let token = String::from_utf8(token.text().to_vec()).unwrap();
    assert_eq!(
        admin
            .call(&["ACL", "SETUSER", "default", ">top"])
            .unwrap()
            .text(),
        b"OK"
    );
    let ask = |authorization: &str, method: &str, path: &str, body: &str| {
        let mut http = Http::connect(addr).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}Content-Length: {length}\r\n\r\n{body}"
        );
        http.send(head.as_bytes()).unwrap();
        let response = http.receive(true).unwrap();
        let text = String::from_utf8_lossy(&response.body).into_owned();
        assert!(
            response.status < 400 || text.contains("MK-04"),
            "{path}: {text}"
        );
        response.status
    };
    // ann:pw, ops:pw and default:top in base64.
    let ann = "Authorization: Basic YW5uOnB3\r\n";
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let ops = "Authorization: Basic b3BzOnB3\r\n";
    let default = "Authorization: Basic ZGVmYXVsdDp0b3A=\r\n";
    let wrong = "Authorization: Basic YW5uOnh4\r\n";
    let set = r#"{"then": [{"set": {"key": "a1", "value": "v"}}]}"#;
    let get_b = r#"{"then": [{"get": {"key": "b1"}}]}"#;
    for (method, path, body, of_ann, of_ops) in [
        ("GET", "/v1/kv/a1", "", 200, 403),
        ("GET", "/v1/kv/b1", "", 403, 403),
        ("PUT", "/v1/kv/a1", "v", 200, 403),
        ("PUT", "/v1/kv/b1", "v", 403, 403),
        ("DELETE", "/v1/kv/a1", "", 403, 403),
        ("GET", "/v1/kv?prefix=a", "", 200, 403),
        ("GET", "/v1/kv", "", 403, 403),
        ("POST", "/v1/txn", set, 200, 403),
        ("POST", "/v1/txn", get_b, 403, 403),
        ("GET", "/v1/status", "", 403, 200),
        ("GET", "/metrics", "", 403, 200),
        ("GET", "/livez", "", 200, 200),
        ("GET", "/readyz", "", 200, 200),
    ] {
        let open = matches!(path, "/livez" | "/readyz");
        assert_eq!(
            ask("", method, path, body),
            if open { 200 } else { 401 },
            "{path}"
        );
        assert_eq!(ask(ann, method, path, body), of_ann, "ann {method} {path}");
        assert_eq!(
            ask(&bearer, method, path, body),
            of_ann,
            "token {method} {path}"
        );
        assert_eq!(ask(ops, method, path, body), of_ops, "ops {method} {path}");
        assert_eq!(
            ask(default, method, path, body),
            200,
            "default {method} {path}"
        );
    }
    assert_eq!(ask(wrong, "GET", "/v1/kv/a1", ""), 401);
}
