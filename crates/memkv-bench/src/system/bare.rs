//! The bare HTTP server of this program, as a process of its own.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use memkv_black_box::eventually;
use tempfile::TempDir;

use super::peers::Server;
use super::{System, To};

const START_LIMIT: Duration = Duration::from_secs(10);

/// The server.
pub(crate) struct Bare {
    server: Server,
    _root: TempDir,
}

impl Bare {
    /// Starts it.
    pub(crate) fn start() -> Result<Bare, String> {
        let root = tempfile::tempdir().map_err(|error| format!("no directory: {error}"))?;
        let mut server = Server::new(root.path())?;
        let own = std::env::current_exe().map_err(|error| format!("own program: {error}"))?;
        let addr = server.addr.to_string();
        server.start(Command::new(own).args(["bare", "--listen", &addr]));
        eventually("the bare server listens", START_LIMIT, || {
            TcpStream::connect(server.addr).ok()
        });
        Ok(Bare {
            server,
            _root: root,
        })
    }
}

impl System for Bare {
    fn name(&self) -> &str {
        "bare"
    }

    fn addrs(&self, _to: To) -> Vec<SocketAddr> {
        vec![self.server.addr]
    }

    fn processes(&self) -> Vec<u32> {
        self.server.process_id().into_iter().collect()
    }
}
