//! The programs of the peers: `cargo xtask bench` installs some below `target/peers`, the others are on
//! the path.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use memkv_black_box::{Process, free_port};

/// A peer's program of this name.
///
/// # Errors
///
/// If it is not installed; the text says how to install it.
pub(crate) fn program(name: &str) -> Result<PathBuf, String> {
    let said = std::env::var_os("MEMKV_PEERS_DIR").map(PathBuf::from);
    let beside = || {
        let own = std::env::current_exe().ok()?;
        Some(own.parent()?.parent()?.join("peers/bin"))
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = said
        .or_else(beside)
        .into_iter()
        .chain(std::env::split_paths(&path));
    let found = dirs.find(|dir| dir.join(name).is_file());
    match found {
        Some(dir) => Ok(dir.join(name)),
        None => Err(format!(
            "there is no `{name}`: `cargo xtask bench compare` installs what it measures"
        )),
    }
}

/// The version that a program prints.
pub(crate) fn version(name: &str) -> Result<String, String> {
    let output = Command::new(program(name)?).arg("--version").output();
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// A process of a peer, its directory and its address.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) dir: PathBuf,
    process: Option<Process>,
}

impl Server {
    /// A server on a free port, with a directory below `root`; it does not run yet.
    pub(crate) fn new(root: &Path) -> Result<Server, String> {
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let dir = root.join(addr.port().to_string());
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Server {
            addr,
            dir,
            process: None,
        })
    }

    /// Starts it.
    pub(crate) fn start(&mut self, command: &mut Command) {
        let log = self.dir.with_extension("log");
        command.current_dir(&self.dir);
        self.process = Some(Process::start(command, &log));
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Its process, while it runs.
    pub(crate) fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }
}
