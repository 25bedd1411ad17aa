//! Resources that the machine may deny a test: root's rights, a small file system, many open files.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Reports that the running test cannot run on this machine. The test then returns; `cargo xtask test`
/// counts it as skipped, not as passed.
pub fn skip(test: &str, reason: &str) {
    eprintln!("skipped {test}: {reason}");
    if let Some(path) = std::env::var_os("MEMKV_SKIP_FILE") {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        writeln!(file, "skipped {test}: {reason}").unwrap();
    }
}

/// A file system of a fixed size in memory, unmounted on drop.
pub struct Tmpfs {
    dir: PathBuf,
}

impl Tmpfs {
    /// Mounts `megabytes` at `dir`; `None` where this process may not mount.
    pub fn mount(dir: &Path, megabytes: u32) -> Option<Tmpfs> {
        fs::create_dir_all(dir).unwrap();
        let size = format!("size={megabytes}m");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "memkv"])
            .arg(dir)
            .output();
        mount
            .is_ok_and(|done| done.status.success())
            .then(|| Tmpfs {
                dir: dir.to_path_buf(),
            })
    }
}

impl Tmpfs {
    /// Makes it this large.
    pub fn resize(&self, megabytes: u32) {
        let size = format!("remount,size={megabytes}m");
        let mut mount = Command::new("mount");
        let done = mount.args(["-o", &size]).arg(&self.dir).status().unwrap();
        assert!(done.success(), "{done}");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazy, because a node that is still running keeps files open.
        drop(Command::new("umount").arg("--lazy").arg(&self.dir).status());
    }
}

/// Lets this process have so many files open; whether it may.
pub fn allow_files(count: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= count) {
        return true;
    }
    let raised = Rlimit {
        current: Some(count),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).is_ok()
}
