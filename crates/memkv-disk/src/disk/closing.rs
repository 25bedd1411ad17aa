//! Closes files on threads that may wait: closing the last handle of a removed file frees its blocks,
//! which takes long for a large file. Handles are dropped anywhere, also on the consensus thread, which
//! hands them to a thread for that purpose. Invariant: no file is closed on a thread that forbids
//! waiting (`guard`); builds with assertions check it.

use std::fs::File;
use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::guard;

/// An open file of the operating system.
pub(super) struct Handle(Option<File>);

impl From<File> for Handle {
    fn from(file: File) -> Self {
        Self(Some(file))
    }
}

impl Deref for Handle {
    type Target = File;

    fn deref(&self) -> &File {
        self.0
            .as_ref()
            .expect("a handle has its file until it is dropped")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        match self.0.take() {
            Some(file) if guard::may_wait() => close(file),
            Some(file) => close_elsewhere(file),
            None => {}
        }
    }
}

/// Closes a file. May wait for a disk.
pub(super) fn close(file: File) {
    guard::check();
    drop(file);
}

/// Hands a file to another thread, which closes files in order. Its queue is bounded by the number of
/// open files.
fn close_elsewhere(file: File) {
    static CLOSER: OnceLock<Option<Sender<File>>> = OnceLock::new();
    let closer = CLOSER.get_or_init(|| {
        let (sender, files) = channel();
        let work = move || files.into_iter().for_each(close);
        let thread = thread::Builder::new().name("close".to_owned()).spawn(work);
        thread.is_ok().then_some(sender)
    });
    match closer {
        // The thread ends with the process.
        Some(closer) => drop(closer.send(file)),
        // No thread could be started: waiting is better than keeping the file open.
        None => guard::allow(|| close(file)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::disk::Disk;
    use crate::disk::real::RealDisk;

    /// Whether this process has a handle of a file, by its name.
    fn is_open(path: &Path) -> bool {
        let handles = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let mut files = handles.filter_map(|handle| std::fs::read_link(handle.path()).ok());
        files.any(|file| file == path)
    }

    fn wait_closed(path: &Path) {
        let started = Instant::now();
        while is_open(path) {
            assert!(started.elapsed() < Duration::from_secs(60), "it stays open");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_file_dropped_on_any_thread_is_closed_on_one_that_may_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("file");
        let file = RealDisk.create(&path).unwrap();
        let direct = file.direct();
        assert!(is_open(&path));
        drop(direct);
        drop(file);
        assert!(!is_open(&path), "this thread may wait");
        // All kinds of handles; closing them here would end this thread.
        let file = RealDisk.create(&path).unwrap();
        let direct = file.direct();
        {
            let _scope = guard::forbid();
            drop(file);
            drop(direct);
        }
        wait_closed(&path);
        let lock = RealDisk.lock(dir.path()).unwrap();
        {
            let _scope = guard::forbid();
            drop(lock);
        }
        wait_closed(&path.with_file_name(crate::layout::LOCK_FILE));
    }

    #[test]
    #[cfg(debug_assertions)]
    fn closing_on_a_thread_that_must_not_wait_is_detected() {
        let file = tempfile::tempfile().unwrap();
        let _scope = guard::forbid();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| close(file)));
        assert!(outcome.is_err());
    }
}
