//! What nodes tell a supervisor, in systemd's protocol: a socket of this test stands for systemd's.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use memkv_black_box::{Cluster, Signal};

/// Longer than a formation takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The lines of the next message, which must come within the limit.
fn message(socket: &UnixDatagram) -> Vec<String> {
    let mut bytes = [0; 4096];
    let length = socket.recv(&mut bytes).expect("a message comes");
    let text = std::str::from_utf8(&bytes[..length]).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The first message with this line, and how many came before it.
fn message_with(socket: &UnixDatagram, line: &str) -> (Vec<String>, usize) {
    let until = Instant::now() + LIMIT;
    for before in 0.. {
        let lines = message(socket);
        if lines.iter().any(|one| one == line) {
            return (lines, before);
        }
        assert!(Instant::now() < until, "not within {LIMIT:?}: {line}");
    }
    unreachable!("a test does not count so far")
}

fn has(lines: &[String], begin: &str) -> bool {
    lines.iter().any(|line| line.starts_with(begin))
}

#[test]
fn a_supervisor_hears_of_a_start_that_waits_of_a_node_that_serves_and_of_its_stop() {
    let mut cluster = Cluster::configured(3);
    let path = cluster.root().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut command = cluster.nodes[0].command();
    // A beat every 50 ms.
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "100000");
    cluster.nodes[0].start_with(command);
    // It waits for the others, says for which, and its start is no failure meanwhile.
    loop {
        let lines = message(&socket);
        assert!(!has(&lines, "READY=1"), "{lines:?}");
        assert!(has(&lines, "WATCHDOG=1") && has(&lines, "EXTEND_TIMEOUT_USEC=30000000"));
        let other = format!("{} ", cluster.nodes[1].id);
        if lines
            .iter()
            .any(|line| line.starts_with("STATUS=") && line.contains(other.trim()))
        {
            break;
        }
    }
    // One that is told of no supervisor, and one whose supervisor is not there, serve all the same.
    let mut command = cluster.nodes[1].command();
    command.env_remove("NOTIFY_SOCKET");
    cluster.nodes[1].start_with(command);
    let mut command = cluster.nodes[2].command();
    command.env("NOTIFY_SOCKET", cluster.root().join("absent"));
    cluster.nodes[2].start_with(command);
    message_with(&socket, "READY=1");
    cluster.wait_serving();
    let third = cluster.nodes[2].process().output();
    assert_eq!(third.matches("NOTIFY_SOCKET").count(), 1, "{third}");
    // Beats go on, and nothing puts off a start any more.
    for _ in 0..3 {
        let (lines, before) = message_with(&socket, "WATCHDOG=1");
        assert_eq!(before, 0, "every message is a beat");
        assert!(
            !has(&lines, "EXTEND") && has(&lines, "STATUS=serves"),
            "{lines:?}"
        );
    }
    cluster.nodes[0].process().signal(Signal::TERM);
    let (lines, _) = message_with(&socket, "STOPPING=1");
    assert!(has(&lines, "STATUS=stopping: signal SIGTERM"), "{lines:?}");
    assert!(cluster.nodes[0].process().wait_end(LIMIT).success());
}

#[test]
fn a_node_whose_threads_stand_still_sends_no_beat() {
    let mut cluster = Cluster::configured(1);
    let path = cluster.root().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut command = cluster.nodes[0].command();
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "100000");
    cluster.nodes[0].start_with(command);
    message_with(&socket, "READY=1");
    cluster.nodes[0].process().signal(Signal::STOP);
    socket.set_nonblocking(true).unwrap();
    while socket.recv(&mut [0; 4096]).is_ok() {}
    socket.set_nonblocking(false).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    assert!(socket.recv(&mut [0; 4096]).is_err(), "ten beats late");
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    cluster.nodes[0].process().signal(Signal::CONT);
    message_with(&socket, "WATCHDOG=1");
}
