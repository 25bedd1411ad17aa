//! Other people's programs over TLS, as they are: libraries of Python and Node, Redis's own tools, a balancer
//! and an exporter of metrics. Each believes a CA and is refused without it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use memkv_black_box::{
    Ca, Cluster, Listener, Process, Resp, eventually, free_port, node_script_with,
    python_script_with,
};
use serde_json::json;

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// One node that serves clients over TLS alone, and both of its listeners.
fn node() -> (Cluster, Ca, [Listener; 2]) {
    let mut cluster = Cluster::configured(1);
    let ca = Ca::new(cluster.root(), "ca");
    ca.issue_node("own");
    let redis_addr = format!("127.0.0.1:{}", free_port());
    let node = &mut cluster.nodes[0];
    let mut config = node.read_config();
    let settings = json!({
        "redis_addr": redis_addr, "tls": "require",
        "tls_cert_file": ca.file("own.crt"), "tls_key_file": ca.file("own.key"),
    });
    for (key, value) in settings.as_object().unwrap() {
        config[key] = value.clone();
    }
    node.write_config(&config);
    node.start();
    node.process().wait_output("ready in", LIMIT);
    let listeners = [
        Listener::new(&node.addr, false),
        Listener::new(&redis_addr, true),
    ];
    (cluster, ca, listeners)
}

#[test]
fn redis_py() {
    let (_cluster, ca, listeners) = node();
    for listener in &listeners {
        python_script_with("tls_redis_py.py", listener, &[&ca.file("ca.crt")]);
    }
}

#[test]
fn node_redis_and_ioredis() {
    let (_cluster, ca, listeners) = node();
    for listener in &listeners {
        node_script_with("tls_node.mjs", listener, &[&ca.file("ca.crt")]);
    }
}

#[test]
fn redis_benchmark() {
    let (_cluster, ca, listeners) = node();
    for listener in &listeners {
        let output = listener
            .command("redis-benchmark")
            .args(["--tls", "--cacert", &ca.file("ca.crt"), "--csv"])
            .args(["-n", "2000", "-c", "20", "-P", "16", "-t", "set,get"])
            .output()
            .unwrap();
        let csv = String::from_utf8_lossy(&output.stdout).into_owned();
        let rates = csv.lines().filter(|line| line.starts_with('"')).skip(1);
        assert_eq!(rates.count(), 2, "{csv}");
    }
}

/// It checks the node's health over TLS, and its own clients need none.
#[test]
fn haproxy_before_the_node() {
    let (cluster, ca, listeners) = node();
    let front = format!("127.0.0.1:{}", free_port());
    let text = format!(
        "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 20s\n  timeout client 60s\n  \
         timeout server 60s\nlisten memkv\n  bind {front}\n  option tcp-check\n  \
         tcp-check send PING\\r\\n\n  tcp-check expect string +PONG\n  \
         server n1 {} ssl verify required ca-file {} check check-ssl inter 200ms\n",
        listeners[1].addr(),
        ca.file("ca.crt"),
    );
    let config = cluster.root().join("haproxy.cfg");
    fs::write(&config, text).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&config);
    let _haproxy = Process::start(&mut command, &cluster.root().join("haproxy.log"));
    let mut client = eventually("haproxy listens", LIMIT, || Resp::connect(&front).ok());
    assert_eq!(client.call(&["SET", "k", "v"]).unwrap().text(), b"OK");
    assert_eq!(client.call(&["GET", "k"]).unwrap().text(), b"v");
}

#[test]
fn prometheus_redis_exporter() {
    let (cluster, ca, listeners) = node();
    for listener in &listeners {
        let web = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new("prometheus-redis-exporter");
        command
            .args(["-redis.addr", &format!("rediss://{}", listener.addr())])
            .args(["-tls-ca-cert-file", &ca.file("ca.crt")])
            .args(["-web.listen-address", &web]);
        let log = cluster.root().join("exporter.log");
        let _exporter = Process::start(&mut command, &log);
        eventually("the exporter shows the node", LIMIT, || {
            let metrics = Command::new("curl")
                .args(["-sS", "--max-time", "30", &format!("http://{web}/metrics")])
                .output()
                .unwrap();
            let metrics = String::from_utf8_lossy(&metrics.stdout).into_owned();
            metrics.contains("redis_up 1\n").then_some(())
        });
    }
}
