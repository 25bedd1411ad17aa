//! Options of a peer connection: small frames leave at once, and a host that vanished without a
//! word is noticed. Never fails: a kernel that refuses an option still has a working connection.

use std::time::Duration;

use crate::tls::Stream;
use rustix::net::sockopt;

/// Unacknowledged data older than this ends the connection. TCP alone would go on for 15 minutes
/// and, after a healed partition, wait up to two minutes for its next attempt. A paused process
/// does not count: its kernel still acknowledges.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);

/// An idle connection is probed after this long, so that the accepting side, which has nothing of
/// its own to send, forgets a vanished peer.
const PROBE_AFTER: Duration = Duration::from_secs(10);

/// Time between probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(3);

/// Probes without an answer that end a connection.
const PROBES: u32 = 3;

/// Sets the options.
pub(super) fn tune(stream: &Stream) {
    let Some(stream) = stream.tcp() else { return };
    let all = sockopt::set_tcp_nodelay(stream, true)
        .and_then(|()| sockopt::set_socket_keepalive(stream, true))
        .and_then(|()| sockopt::set_tcp_keepidle(stream, PROBE_AFTER))
        .and_then(|()| sockopt::set_tcp_keepintvl(stream, PROBE_INTERVAL))
        .and_then(|()| sockopt::set_tcp_keepcnt(stream, PROBES))
        .and_then(|()| {
            let milliseconds = u32::try_from(UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX);
            sockopt::set_tcp_user_timeout(stream, milliseconds)
        });
    if let Err(error) = all {
        tracing::debug!(%error, "cannot set the options of a peer connection");
    }
}
