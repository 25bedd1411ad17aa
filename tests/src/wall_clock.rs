//! A wall clock that a test sets while processes run under it, by libfaketime. The clocks that count
//! from the boot stay the machine's, as they do when an operator or NTP sets a machine's time.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::cluster::Node;
use crate::http::Http;
use crate::wait::eventually;

/// Where Debian's package `libfaketime` puts it; the loader fills in `$LIB`.
const LIBRARY: &str = "/usr/$LIB/faketime/libfaketimeMT.so.1";

/// Where the library keeps two files for each process, which a killed process leaves there.
const SHARED_MEMORY: &str = "/dev/shm";

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Between what a node says of its clock and when it is compared, with room for a busy machine.
const CLOSE_SECONDS: i64 = 60;

/// A clock is seen at once; the node only has to answer.
const SEEN_LIMIT: Duration = Duration::from_secs(20);

/// A wall clock for the nodes of a test.
pub struct WallClock {
    dir: TempDir,
    offset_seconds: i64,
    started: RefCell<Vec<u32>>,
}

impl Default for WallClock {
    /// One that shows the machine's time.
    fn default() -> WallClock {
        let mut clock = WallClock {
            dir: tempfile::tempdir().unwrap(),
            offset_seconds: 0,
            started: RefCell::default(),
        };
        clock.set(0);
        clock
    }
}

impl WallClock {
    /// From now on it shows the machine's time and so many seconds more, in running processes too.
    pub fn set(&mut self, offset_seconds: i64) {
        self.offset_seconds = offset_seconds;
        // Replaced in one step: every reading of the clock reads it.
        let new = self.dir.path().join("new");
        fs::write(&new, format!("{offset_seconds:+}\n")).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("offset")
    }

    /// Starts a node under this clock.
    pub fn start(&self, node: &mut Node) {
        let mut command = node.command();
        self.rule(&mut command);
        node.start_with(command);
        self.started.borrow_mut().push(node.process().id());
    }

    fn rule(&self, command: &mut Command) {
        command.env("LD_PRELOAD", LIBRARY);
        command.env("FAKETIME_TIMESTAMP_FILE", self.file());
        command.env("FAKETIME_NO_CACHE", "1");
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }

    /// Waits until a node says by its HTTP `Date` that it sees this clock. Without that a test under
    /// this clock shows nothing.
    #[track_caller]
    pub fn wait_seen(&self, node: &Node) {
        let what = format!("node {} is {} s ahead", node.id, self.offset_seconds);
        eventually(&what, SEEN_LIMIT, || {
            let response = Http::once(&node.addr, "GET", "/v1/status", b"").ok()?;
            let second = second_of_day(response.header("date")?);
            let machine = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let ahead = second - i64::try_from(machine.as_secs()).unwrap();
            let error = (ahead - self.offset_seconds).rem_euclid(DAY_SECONDS);
            (error.min(DAY_SECONDS - error) <= CLOSE_SECONDS).then_some(())
        });
    }
}

impl Drop for WallClock {
    fn drop(&mut self) {
        for id in self.started.borrow().iter() {
            for name in [
                format!("faketime_shm_{id}"),
                format!("sem.faketime_sem_{id}"),
            ] {
                // A process that ended by itself has removed them.
                drop(fs::remove_file(Path::new(SHARED_MEMORY).join(name)));
            }
        }
    }
}

/// Of `Tue, 24 Nov 2026 14:07:37 GMT`.
fn second_of_day(date: &str) -> i64 {
    let time = date.split(' ').nth(4).unwrap();
    let number = |part: &str| part.parse::<i64>().unwrap();
    time.split(':')
        .fold(0, |seconds, part| seconds * 60 + number(part))
}
