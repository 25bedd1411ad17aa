//! The other nodes of the configuration: whether they answer, which version they run, and what they say of
//! themselves. All are asked at the same time. Never shows a password: it goes over a plain connection, to whatever
//! answers at an address that may be wrong.

use std::net::{TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use memkv_proto::config::TlsClients;

use super::Finding;
use crate::settings::Settings;
use crate::upgrade::{self, CheckError};

/// A node of the same network accepts within milliseconds.
const WITHIN: Duration = Duration::from_secs(2);

const NEXT: &str = "start it, or correct its address here; see that no firewall is between them";

/// Asks them.
pub(super) fn look(settings: &Settings) -> Vec<Finding> {
    let is_tls = settings.config.tls != TlsClients::Off;
    let addrs = settings
        .config
        .peer_addrs
        .iter()
        .map(|peer| (&peer.id, &peer.addr));
    let asked: Vec<_> = addrs
        .map(|(name, addr)| {
            let (name, addr) = (name.clone(), addr.clone());
            thread::spawn(move || ask(&name, &addr, is_tls))
        })
        .collect();
    // A thread that panics has reported it.
    asked
        .into_iter()
        .filter_map(|asked| asked.join().ok())
        .collect()
}

fn ask(name: &str, addr: &str, is_tls: bool) -> Finding {
    if let Err(why) = connect(addr) {
        let found = format!("{name} at {addr} does not answer: {why}");
        return Finding::warn("peer", found, NEXT);
    }
    match upgrade::ask(addr, None, false) {
        Ok(status) if status.name != name => Finding::bad(
            "peer",
            format!(
                "{addr} is that of {}, and the configuration says {name}",
                status.name
            ),
            "correct peer_addrs",
        ),
        Ok(status) if !status.message.is_empty() => {
            let found = format!("{name} at {addr}: {}", status.message);
            Finding::warn(
                "peer",
                found,
                "look at its log, and at GET /v1/events there",
            )
        }
        Ok(status) if status.version != env!("CARGO_PKG_VERSION") => {
            let found = format!(
                "{name} at {addr} runs {}, and this binary is {}",
                status.version,
                env!("CARGO_PKG_VERSION")
            );
            Finding::warn(
                "peer",
                found,
                "finish the upgrade: one node after the other",
            )
        }
        Ok(status) => Finding::ok(
            "peer",
            format!("{name} at {addr} runs {} and is well", status.version),
        ),
        Err(CheckError::Status { status, .. }) if status.contains(" 401") => Finding::ok(
            "peer",
            format!("{name} at {addr} answers, and tells more to users only"),
        ),
        Err(_) if is_tls => Finding::ok(
            "peer",
            format!("{name} at {addr} accepts connections; what it says over TLS was not asked"),
        ),
        Err(why) => Finding::warn(
            "peer",
            format!("{name} at {addr} accepts connections and does not answer as a node: {why}"),
            "see that it runs and is not stopped, and that the address is that of a node",
        ),
    }
}

fn connect(addr: &str) -> Result<(), String> {
    let sockets = addr.to_socket_addrs().map_err(|error| error.to_string())?;
    let mut why = "the name has no address".to_owned();
    for socket in sockets {
        match TcpStream::connect_timeout(&socket, WITHIN) {
            Ok(_) => return Ok(()),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}
