//! Nodes of the build with the deliberate bugs, which `cargo xtask test` makes and names in
//! `MEMKV_BUGS_BIN_DIR`. Never falls back on the build that people run: it takes no orders.

use std::path::PathBuf;
use std::process::Command;

use crate::cluster::Node;
use crate::http::Http;

/// The server with the deliberate bugs, for a node's directory.
#[track_caller]
pub fn command_with_bugs(node: &Node) -> Command {
    let dir = std::env::var_os("MEMKV_BUGS_BIN_DIR").map(PathBuf::from);
    let server = dir.unwrap_or_default().join("memkv_server");
    assert!(
        server.is_file(),
        "MEMKV_BUGS_BIN_DIR names no server with the deliberate bugs: use `cargo xtask test`"
    );
    let mut command = Command::new(server);
    command.args(["alone", &node.addr]).current_dir(&node.dir);
    command
}

/// Orders such a node to go wrong once, by the path of the order.
#[track_caller]
pub fn order(addr: &str, path: &str) {
    let ordered = Http::once(addr, "GET", path, b"").unwrap();
    assert_eq!(ordered.status, 200, "{path}");
}
