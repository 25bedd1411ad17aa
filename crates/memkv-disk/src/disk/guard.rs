//! Which threads may wait for a disk. The consensus thread must not: while it waits, no heartbeat is sent
//! and no follower's entry is committed.
//!
//! A thread forbids waiting once, and hands work that waits to another thread. In a simulation all of a
//! node runs on one thread, and such work is wrapped in [`allow`]. In builds with assertions the real disk
//! refuses to work on a thread that forbids waiting, and the simulated disk counts such calls. Files that
//! are dropped on such a thread are closed on another one (`closing`).

use std::cell::Cell;

thread_local! {
    static MAY_WAIT: Cell<bool> = const { Cell::new(true) };
}

/// Forbids this thread to wait for a disk, until it ends or the guard is dropped.
#[must_use = "the thread may wait again when the guard is dropped"]
pub fn forbid() -> Scope {
    Scope(MAY_WAIT.replace(false))
}

/// Runs work that may wait for a disk, even on a thread that forbids waiting.
pub fn allow<T>(work: impl FnOnce() -> T) -> T {
    let _scope = Scope(MAY_WAIT.replace(true));
    work()
}

/// Restores the earlier permission when it is dropped.
pub struct Scope(bool);

impl Drop for Scope {
    fn drop(&mut self) {
        MAY_WAIT.set(self.0);
    }
}

pub(crate) fn may_wait() -> bool {
    MAY_WAIT.get()
}

/// Ends the thread if it must not wait, in builds with assertions.
pub(super) fn check() {
    debug_assert!(
        may_wait(),
        "a disk was used on a thread that must not wait for one"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::disk::real::RealDisk;

    #[test]
    fn scopes_nest_and_end() {
        let scope = forbid();
        assert!(!may_wait());
        assert!(allow(|| may_wait() && allow(may_wait)));
        assert!(!may_wait());
        assert!(std::thread::spawn(may_wait).join().unwrap(), "one thread's");
        drop(scope);
        assert!(may_wait());
    }

    #[test]
    #[cfg(debug_assertions)]
    fn the_real_disk_does_not_work_where_it_is_forbidden() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = RealDisk.create(&path).unwrap();
        let calls: [(&str, &dyn Fn()); 16] = [
            ("create", &|| drop(RealDisk.create(&path))),
            ("open", &|| drop(RealDisk.open(&path))),
            ("create_dir_all", &|| {
                drop(RealDisk.create_dir_all(dir.path()))
            }),
            ("read_dir", &|| drop(RealDisk.read_dir(dir.path()))),
            ("rename", &|| drop(RealDisk.rename(&path, &path))),
            ("remove_file", &|| drop(RealDisk.remove_file(&path))),
            ("sync_dir", &|| drop(RealDisk.sync_dir(dir.path()))),
            ("lock", &|| drop(RealDisk.lock(dir.path()))),
            ("free_space", &|| drop(RealDisk.free_space(dir.path()))),
            ("read_at", &|| drop(file.read_at(0, &mut [0]))),
            ("write_at", &|| drop(file.write_at(0, &[]))),
            ("allocate", &|| drop(file.allocate(0))),
            ("sync_data", &|| drop(file.sync_data())),
            ("direct", &|| drop(file.direct())),
            ("len", &|| drop(file.len())),
            ("set_len", &|| drop(file.set_len(0))),
        ];
        for (name, call) in calls {
            let _scope = forbid();
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
            assert!(outcome.is_err(), "{name} has worked");
        }
    }
}
