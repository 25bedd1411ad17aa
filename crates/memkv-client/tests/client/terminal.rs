//! The prompt on a terminal of its own: what is shown, and what is remembered.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::cli::program;
use crate::fake_redis::{Act, FakeRedis};

/// A program that has shown nothing new for so long is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// The program and the other side of its terminal.
struct Terminal {
    child: Child,
    input: File,
    output: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn start(home: &Path, addrs: &[&str]) -> Self {
        Self::start_with(home, addrs, &[])
    }

    fn start_with(home: &Path, addrs: &[&str], args: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let ours = openpt(flags).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs: OwnedFd = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap()
            .into();
        let child = program(home)
            .args(["--endpoints", &addrs.join(",")])
            .args(args)
            .env("HOME", home)
            .env("TERM", "xterm")
            .env_remove("XDG_STATE_HOME")
            .env_remove("NO_COLOR")
            .stdin(theirs.try_clone().unwrap())
            .stdout(theirs.try_clone().unwrap())
            .stderr(theirs)
            .spawn()
            .unwrap();
        let input = File::from(ours);
        let mut reader = input.try_clone().unwrap();
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            // Ends with an error when the program has closed its side.
            while let Ok(read) = reader.read(&mut chunk) {
                if sender.send(chunk[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            input,
            output,
            shown: String::new(),
        }
    }

    fn type_in(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until this is shown, after what was waited for before.
    fn see(&mut self, text: &str) {
        loop {
            if let Some(at) = self.shown.find(text) {
                self.shown.drain(..at + text.len());
                return;
            }
            match self.output.recv_timeout(STUCK) {
                Ok(chunk) => self.shown.push_str(&String::from_utf8_lossy(&chunk)),
                Err(err) => panic!("{text:?} is not shown ({err}), but {:?}", self.shown),
            }
        }
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Without effect if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_prompt_hints_completes_answers_and_remembers() {
    let node = FakeRedis::start(|command| match command {
        "get k" => Act::Answer("$1\r\nv\r\n"),
        _ => Act::Answer("+OK\r\n"),
    });
    let home = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start(home.path(), &[&node.addr]);
    let prompt = format!("{}> ", node.addr);
    terminal.see(&prompt);
    terminal.type_in("g");
    terminal.see("g");
    terminal.type_in("\t");
    terminal.see("get");
    terminal.see("key  Reads k.");
    terminal.type_in(" k\r");
    terminal.see("\"v\"");
    terminal.see(&prompt);
    terminal.type_in("auth secret\r");
    terminal.see("OK");
    terminal.see(&prompt);
    terminal.type_in("given up\x03");
    terminal.see(&prompt);
    terminal.type_in("\x04");
    assert_eq!(terminal.exit_code(), Some(0));
    assert_eq!(node.seen(), ["get k", "auth secret"]);

    let file = home.path().join(".local/state/memkv/history");
    let history = fs::read_to_string(&file).unwrap();
    assert!(history.contains("get k\n"), "{history}");
    assert!(!history.contains("secret"), "{history}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o77, 0);

    let mut terminal = Terminal::start(home.path(), &[&node.addr]);
    terminal.see(&prompt);
    // The line before, by the key with the arrow.
    terminal.type_in("\x1b[A");
    terminal.see("get k");
    terminal.type_in("\r");
    terminal.see("\"v\"");
    terminal.see(&prompt);
    terminal.type_in("quit\r");
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn a_lost_connection_is_said_and_the_next_node_asked() {
    let (first, second) = (
        FakeRedis::start(|_| Act::Close),
        FakeRedis::start(|_| Act::Answer("+OK\r\n")),
    );
    let home = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start(home.path(), &[&first.addr, &second.addr]);
    terminal.see(&format!("{}> ", first.addr));
    terminal.type_in("set k v\r");
    terminal.see("outcome unknown");
    terminal.see(&format!("connected to {}", second.addr));
    terminal.see(&format!("{}> ", second.addr));
    terminal.type_in("set k v\r");
    terminal.see("OK");
    terminal.see("> ");
    terminal.type_in("\x04");
    assert_eq!(terminal.exit_code(), Some(0));
    assert_eq!((first.seen().len(), second.seen().len()), (1, 1));
}

#[test]
fn a_value_does_not_command_the_terminal() {
    let node = crate::fake::Fake::start(|_| crate::fake::Act::ok(b"\x1b[2J\x07gone\n".to_vec()));
    let home = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start_with(home.path(), &[&node.addr], &["get", "k"]);
    terminal.see("\\u{1b}[2J\\u{7}gone\\n");
    assert_eq!(terminal.exit_code(), Some(0));
}
