//! A client's certificate stands for the user that `tls_user_map` names, and for no other: as in its table
//! of rights, at every listener, until the user, the line or the certificate goes.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use memkv_black_box::{
    Ca, Cluster, Http, Node, Resp, Signal, Tunnel, eventually, free_port, tls_config, write_secret,
};
use serde_json::json;

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// One node that serves clients with a certificate alone, and asks `default` for a password.
fn node() -> (Cluster, Ca) {
    let mut cluster = Cluster::configured(1);
    let ca = Ca::new(cluster.root(), "ca");
    ca.issue_node("own");
    for name in ["ann", "bob", "eve"] {
        ca.issue_client(name);
    }
    let password = cluster.root().join("password");
    write_secret(&password, "hunter2-hunter2");
    fs::write(ca.file("users"), "subject:CN=ann ann\nsubject:CN=bob ops\n").unwrap();
    let redis_addr = format!("127.0.0.1:{}", free_port());
    let node = &mut cluster.nodes[0];
    let mut config = node.read_config();
    let settings = json!({
        "redis_addr": redis_addr, "password_file": password,
        "tls": "require", "tls_cert_file": ca.file("own.crt"), "tls_key_file": ca.file("own.key"),
        "tls_ca_file": ca.file("ca.crt"), "tls_client_auth": "require",
        "tls_user_map": ca.file("users"), "raise_feature_level_after_s": 0,
    });
    for (key, value) in settings.as_object().unwrap() {
        config[key] = value.clone();
    }
    node.write_config(&config);
    node.redis_addr = Some(redis_addr);
    node.start();
    node.process().wait_output("ready in", LIMIT);
    (cluster, ca)
}

/// A way in at each listener for one who shows this certificate.
fn ways(node: &Node, ca: &Ca, name: &str) -> [String; 2] {
    let config = tls_config(ca, Some((ca, name)), None);
    let addrs = [&node.addr, node.redis_addr.as_ref().unwrap()];
    addrs.map(|addr| Tunnel::new(addr, Arc::clone(&config)).addr)
}

fn said(client: &mut Resp, arguments: &[&str]) -> String {
    let reply = client.call(arguments).unwrap();
    String::from_utf8_lossy(reply.text()).into_owned()
}

/// What a new connection is told first.
fn first(addr: &str, arguments: &[&str]) -> String {
    said(&mut Resp::connect(addr).unwrap(), arguments)
}

fn admin(node: &Node, ca: &Ca) -> Resp {
    let [addr, _] = ways(node, ca, "eve");
    let mut client = Resp::connect(&addr).unwrap();
    assert_eq!(said(&mut client, &["AUTH", "hunter2-hunter2"]), "OK");
    client
}

#[test]
fn a_certificate_is_the_user_of_its_line_and_of_no_other() {
    let (cluster, ca) = node();
    let node = &cluster.nodes[0];
    let mut admin = admin(node, &ca);
    // Before there are such users, the certificates stand for none.
    let [ann, ann_redis] = ways(node, &ca, "ann");
    let [bob, _] = ways(node, &ca, "bob");
    let [eve, _] = ways(node, &ca, "eve");
    assert!(first(&ann, &["PING"]).starts_with("WRONGPASS"));
    for user in [["ann", "~a:*"], ["ops", "~*"], ["eve", "~*"]] {
        let rules = [
            "ACL",
            "SETUSER",
            user[0],
            "on",
            user[1],
            "+@all",
            ">secret-of-the-user",
        ];
        assert_eq!(said(&mut admin, &rules), "OK");
    }
    for addr in [&ann, &ann_redis] {
        let mut client = Resp::connect(addr).unwrap();
        assert_eq!(said(&mut client, &["ACL", "WHOAMI"]), "ann");
        assert_eq!(said(&mut client, &["SET", "a:1", "v"]), "OK");
        assert!(said(&mut client, &["SET", "b:1", "v"]).starts_with("NOPERM"));
        assert_eq!(
            said(&mut client, &["AUTH", "ops", "secret-of-the-user"]),
            "OK"
        );
        assert_eq!(said(&mut client, &["ACL", "WHOAMI"]), "ops");
        assert_eq!(said(&mut client, &["RESET"]), "RESET");
        assert_eq!(said(&mut client, &["ACL", "WHOAMI"]), "ann");
    }
    assert_eq!(first(&bob, &["ACL", "WHOAMI"]), "ops");
    // Its name is a user's, and no line says so.
    assert!(first(&eve, &["ACL", "WHOAMI"]).starts_with("NOAUTH"));
    let status = |addr: &str, path: &str| Http::once(addr, "GET", path, b"").unwrap().status;
    assert_eq!(status(&ann, "/v1/kv/a:1"), 200);
    assert_eq!(status(&ann, "/v1/kv/b:1"), 403);
    assert_eq!(status(&eve, "/v1/kv/a:1"), 401);
}

#[test]
fn a_user_that_is_off_or_deleted_and_a_line_that_goes_end_what_the_certificate_could() {
    let (mut cluster, ca) = node();
    let node = &mut cluster.nodes[0];
    let mut admin = admin(node, &ca);
    for user in ["ann", "ops"] {
        assert_eq!(
            said(&mut admin, &["ACL", "SETUSER", user, "on", "~*", "+@all"]),
            "OK"
        );
    }
    let [ann, ann_redis] = ways(node, &ca, "ann");
    let [bob, _] = ways(node, &ca, "bob");
    for gone in [
        &["ACL", "SETUSER", "ann", "off"][..],
        &["ACL", "DELUSER", "ann"],
    ] {
        let mut open = [&ann, &ann_redis].map(|addr| Resp::connect(addr).unwrap());
        for client in &mut open {
            assert_eq!(said(client, &["PING"]), "PONG");
        }
        said(&mut admin, gone);
        for mut client in open {
            assert!(
                client
                    .call(&["GET", "k"])
                    .map_or(true, |reply| reply.is_error())
            );
        }
        for addr in [&ann, &ann_redis] {
            let refused = first(addr, &["PING"]);
            assert!(
                refused.starts_with("WRONGPASS") && refused.contains("tls_user_map"),
                "{refused}"
            );
        }
        assert_eq!(
            Http::once(&ann, "GET", "/v1/kv/k", b"").unwrap().status,
            401
        );
        said(&mut admin, &["ACL", "SETUSER", "ann", "on", "~*", "+@all"]);
    }
    let mut kept = Resp::connect(&bob).unwrap();
    let mut open = Resp::connect(&ann).unwrap();
    assert_eq!(said(&mut open, &["ACL", "WHOAMI"]), "ann");
    assert_eq!(said(&mut kept, &["ACL", "WHOAMI"]), "ops");
    fs::write(ca.file("users"), "subject:CN=bob ops\n").unwrap();
    node.process().signal(Signal::HUP);
    node.process()
        .wait_output("new files of TLS are in force", LIMIT);
    eventually("the connection has ended", LIMIT, || {
        open.call(&["PING"]).is_err().then_some(())
    });
    assert!(first(&ann, &["PING"]).starts_with("NOAUTH"));
    assert_eq!(said(&mut kept, &["PING"]), "PONG");
}
