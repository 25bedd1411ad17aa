//! A system that is thrown away: this machine's files with a layer above them that takes all changes, in
//! namespaces of its own for mounts, processes and the network. Nothing that happens inside reaches this machine,
//! and all of it ends with the value.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use memkv_black_box::{Process, children_of, eventually};
use tempfile::TempDir;

/// Longer than a few mounts take.
const LIMIT: Duration = Duration::from_secs(30);

/// Mounts the layers and waits. The files of this test's directory are in `/mnt`.
const SET_UP: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs memkv "$1/layers"
mkdir "$1/layers/upper" "$1/layers/work" "$1/layers/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/layers/upper,workdir=$1/layers/work" memkv "$1/layers/root"
mount -t proc proc "$1/layers/root/proc"
mount --bind /dev "$1/layers/root/dev"
mount --bind "$1/files" "$1/layers/root/mnt"
ip link set lo up
# The index of manual pages takes seconds, and is not the package's.
rm -f "$1/layers/root/var/lib/man-db/auto-update"
echo set up
exec sleep infinity
"#;

/// The system.
pub(crate) struct Root {
    dir: TempDir,
    /// `unshare`, with whose end everything inside ends.
    holder: Process,
    /// The first process inside.
    first: u32,
}

impl Root {
    /// Makes it; the reason where this process may not.
    pub(crate) fn new() -> Result<Root, String> {
        let dir = tempfile::tempdir().unwrap();
        for name in ["layers", "files"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--net", "--fork", "--kill-child=KILL"]);
        unshare.args(["sh", "-c", SET_UP, "sh"]).arg(dir.path());
        let mut holder = Process::start(&mut unshare, &dir.path().join("holder.log"));
        let is_set_up = eventually("a root of layers", LIMIT, || {
            let is_there = holder.output().contains("set up\n");
            (is_there || holder.ended().is_some()).then_some(is_there)
        });
        if !is_set_up {
            return Err(format!(
                "no layered file system: {}",
                holder.output().trim()
            ));
        }
        let first = children_of(holder.id())[0];
        Ok(Root { dir, holder, first })
    }

    /// The directory that is `/mnt` inside.
    pub(crate) fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    /// A command inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = self.outside("chroot");
        command
            .arg(self.dir.path().join("layers/root"))
            .arg(program);
        command
    }

    /// A command that sees the layers themselves.
    fn outside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first.to_string()]);
        command.args(["--mount", "--pid", "--net", program]);
        command.env("LC_ALL", "C.UTF-8");
        command
    }

    /// Runs a line of a shell's inside: its exit code and all that it printed.
    pub(crate) fn try_sh(&self, line: &str) -> (i32, String) {
        let output = self.command("sh").args(["-c", line]).output().unwrap();
        (output.status.code().unwrap_or(-1), text(&output))
    }

    /// The same; it must succeed.
    #[track_caller]
    pub(crate) fn sh(&self, line: &str) -> String {
        let (code, text) = self.try_sh(line);
        assert_eq!(code, 0, "{line}:\n{text}");
        text
    }

    /// A process inside, with its output.
    pub(crate) fn start(&self, program: &str, arguments: &[&str]) -> Process {
        let log = self.dir.path().join("process.log");
        Process::start(self.command(program).args(arguments), &log)
    }

    /// The paths of all that is new or changed inside, with a slash at its end if it is a directory.
    pub(crate) fn changed(&self) -> Vec<String> {
        let upper = self.dir.path().join("layers/upper");
        let mut find = self.outside("find");
        // A character device stands for what was removed.
        find.arg(&upper)
            .args(["-mindepth", "1", "-not", "-type", "c"]);
        find.args([
            "-type", "d", "-printf", "/%P/\\n", "-o", "-not", "-type", "c", "-printf", "/%P\\n",
        ]);
        let output = find.output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output).lines().map(str::to_owned).collect()
    }

    /// Whether a file has the same content inside as on this machine.
    pub(crate) fn is_as_outside(&self, path: &str) -> bool {
        let inside = self.command("cat").arg(path).output().unwrap().stdout;
        fs::read(Path::new(path)).is_ok_and(|outside| outside == inside)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        self.holder.kill();
        // Until then its mounts hold the directory.
        eventually("the end of all inside", LIMIT, || {
            (!memkv_black_box::exists(self.first)).then_some(())
        });
    }
}

/// All that a program has printed.
fn text(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&all).into_owned()
}
