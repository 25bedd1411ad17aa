//! The program without a command and without a terminal: lines in, replies out, and what it makes
//! of lost connections.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use tempfile::TempDir;

use crate::cli::{program, told};
use crate::fake::nobody;
use crate::fake_redis::{Act, FakeRedis};

/// The program, with lines on their way.
struct Batch {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    _dir: TempDir,
}

impl Batch {
    fn start(addrs: &[&str], args: &[&str]) -> Self {
        Self::start_with(addrs, args, None)
    }

    fn start_with_password(addrs: &[&str], password: &str) -> Self {
        Self::start_with(addrs, &[], Some(password))
    }

    fn start_with(addrs: &[&str], args: &[&str], password: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = program(dir.path())
            .args(["--endpoints", &addrs.join(",")])
            .args(args)
            .envs(password.map(|password| ("MEMKV_PASSWORD", password)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
            _dir: dir,
        }
    }

    fn write(&mut self, text: &str) {
        // A program that has ended already is judged by how it ended.
        let _ = self.input.as_mut().unwrap().write_all(text.as_bytes());
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    /// Exit code, what was not read of standard output, standard error.
    fn end(mut self) -> (i32, String, String) {
        drop(self.input.take());
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut rest).unwrap();
        let (code, _, talk) = told(&self.child.wait_with_output().unwrap());
        (code, rest, talk)
    }
}

fn run(addrs: &[&str], args: &[&str], lines: &str) -> (i32, String, String) {
    let mut batch = Batch::start(addrs, args);
    batch.write(lines);
    batch.end()
}

#[test]
fn replies_are_printed_line_by_line_until_the_end() {
    let node = FakeRedis::start(|command| match command {
        "get k" => Act::Answer("$2\r\nv\n\r\n"),
        "set a  b" => Act::Answer("+OK\r\n"),
        _ => Act::Answer("-ERR no\r\n"),
    });
    let lines = "get k\n\n  set a ' b'\nget \"\nfly\nquit\nget k\n";
    let (code, data, talk) = run(&[&node.addr], &[], lines);
    assert_eq!((code, data.as_str()), (2, "\"v\\n\"\nOK\n(error) ERR no\n"));
    assert_eq!(talk, "error: the quotes in this line do not match\n");
    assert_eq!(node.seen(), ["get k", "set a  b", "fly"]);
    let (code, data, _) = run(&[&node.addr], &["-o", "json"], "get k");
    assert_eq!((code, data.as_str()), (0, "\"v\\n\"\n"));
    let (code, data, _) = run(&[&node.addr], &["-o", "raw"], "get k\r\n");
    assert_eq!((code, data.as_str()), (0, "v\n\n"));
}

#[test]
fn help_comes_from_the_nodes_own_table() {
    let node = FakeRedis::start(|_| Act::Close);
    let (code, data, _) = run(&[&node.addr], &[], "help get\n");
    assert_eq!(
        (code, data.as_str()),
        (0, "  GET key\n  summary: Reads k.\n")
    );
    let (code, _, talk) = run(&[&node.addr], &[], "help fly\n");
    assert_eq!(
        (code, talk.as_str()),
        (2, "error: this node has no such command\n")
    );
    assert!(node.seen().is_empty());
}

#[test]
fn a_write_whose_answer_is_lost_ends_the_batch_with_4() {
    let (first, second) = (
        FakeRedis::start(|_| Act::Close),
        FakeRedis::start(|_| Act::Answer("+OK\r\n")),
    );
    let addrs = [&*first.addr, &*second.addr];
    for command in ["set k v", "fly"] {
        let (code, data, talk) = run(&addrs, &[], &format!("{command}\nset k w\n"));
        assert_eq!((code, data.as_str()), (4, ""), "{command}: {talk}");
        assert!(talk.starts_with("error: outcome unknown"), "{talk}");
    }
    assert_eq!(first.seen(), ["set k v", "fly"]);
    assert!(second.seen().is_empty());
}

#[test]
fn a_read_whose_answer_is_lost_ends_the_batch_with_3() {
    let node = FakeRedis::start(|_| Act::Close);
    let (code, data, talk) = run(&[&node.addr], &[], "get k\nset k w\n");
    assert_eq!((code, data.as_str()), (3, ""));
    assert!(talk.contains("the command changes nothing"), "{talk}");
    assert_eq!(node.seen(), ["get k"]);
}

#[test]
fn no_node_at_all_is_said_at_the_deadline() {
    let dead = nobody();
    let (code, data, talk) = run(&[&dead], &["--timeout", "300ms"], "set k v\n");
    assert_eq!((code, data.as_str()), (3, ""));
    assert!(talk.contains("the command was not sent"), "{talk}");
    assert!(
        talk.contains(&format!("{dead}: connection refused")),
        "{talk}"
    );
}

#[test]
fn a_connection_that_was_closed_between_two_commands_costs_nothing() {
    let (first, second) = (
        FakeRedis::start(|_| Act::Last("+OK\r\n")),
        FakeRedis::start(|_| Act::Answer("+OK\r\n")),
    );
    let mut batch = Batch::start(&[&first.addr, &second.addr], &[]);
    batch.write("select 2\n");
    assert_eq!(batch.line(), "OK\n");
    first.wait_closed();
    batch.write("set k v\n");
    let (code, data, talk) = batch.end();
    assert_eq!((code, data.as_str()), (0, "OK\n"));
    assert_eq!(talk, format!("connected to {}\n", second.addr));
    assert_eq!(first.seen(), ["select 2"]);
    assert_eq!(second.seen(), ["SELECT 2", "set k v"]);
}

#[test]
fn nothing_of_a_transaction_is_sent_outside_it() {
    let (first, second) = (
        FakeRedis::start(|command| match command {
            "multi" => Act::Answer("+OK\r\n"),
            _ => Act::Last("+QUEUED\r\n"),
        }),
        FakeRedis::start(|_| Act::Answer("+OK\r\n")),
    );
    let mut batch = Batch::start(&[&first.addr, &second.addr], &[]);
    batch.write("multi\nset a 1\n");
    assert_eq!(
        (batch.line(), batch.line()),
        ("OK\n".into(), "QUEUED\n".into())
    );
    first.wait_closed();
    batch.write("set b 2\nexec\n");
    let (code, data, talk) = batch.end();
    assert_eq!((code, data.as_str()), (3, ""));
    assert!(talk.contains("begin the transaction again"), "{talk}");
    assert!(second.seen().is_empty());
}

#[test]
fn the_answer_to_exec_may_be_lost_and_a_queued_command_not() {
    for (lost, code) in [("exec", 4), ("set a 1", 3)] {
        let node = FakeRedis::start(move |command| match command {
            "multi" => Act::Answer("+OK\r\n"),
            command if command == lost => Act::Close,
            _ => Act::Answer("+QUEUED\r\n"),
        });
        let (got, _, talk) = run(&[&node.addr], &[], "multi\nset a 1\nexec\n");
        assert_eq!(got, code, "{lost}: {talk}");
    }
}

#[test]
fn the_password_comes_before_everything_else() {
    let node = FakeRedis::start(|_| Act::Answer("+OK\r\n"));
    let mut batch = Batch::start_with_password(&[&node.addr], "secret");
    batch.write("get k\n");
    assert_eq!(batch.end().0, 0);
    assert_eq!(node.seen(), ["AUTH secret", "get k"]);
}

#[test]
fn a_node_that_accepts_and_says_nothing_does_not_hide_the_others() {
    let (first, second) = (
        FakeRedis::start(|_| Act::Close),
        FakeRedis::start(|_| Act::Answer("+OK\r\n")),
    );
    let mut batch = Batch::start_with_password(&[&first.addr, &second.addr], "secret");
    batch.write("set k v\n");
    let (code, data, talk) = batch.end();
    assert_eq!((code, data.as_str()), (0, "OK\n"), "{talk}");
    assert_eq!(first.seen(), ["AUTH secret"]);
    assert_eq!(second.seen(), ["AUTH secret", "set k v"]);
}

#[test]
fn messages_are_printed_until_the_connection_ends() {
    const MESSAGES: &str = "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n*2\r\n$1\r\nc\r\n$1\r\nm\r\n";
    let node = FakeRedis::start(|_| Act::Last(MESSAGES));
    let (code, data, talk) = run(&[&node.addr], &["-o", "json"], "subscribe c\nget k\n");
    assert_eq!(data, "[\"subscribe\",\"c\",1]\n[\"c\",\"m\"]\n");
    assert_eq!(code, 3);
    assert!(talk.contains("messages may have been missed"), "{talk}");
    assert_eq!(node.seen(), ["subscribe c"]);
}
