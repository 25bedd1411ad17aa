//! The sockets of clients: where they arrive, and the options of a connection before its protocol is known. Never
//! fails for want of an option that only makes it better.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that the system holds until they are accepted: as many as Linux allows by default (`somaxconn`). Where
/// thousands of clients connect at once, each one beyond it waits for the system's next attempt, which comes after a
/// second, then after two, then after four.
pub(crate) const BACKLOG: u32 = 4096;

/// Listens at the first of these addresses where that is possible.
pub(crate) fn listen(addrs: &[SocketAddr]) -> io::Result<TcpListener> {
    let listen_at = |addr: &SocketAddr| {
        let socket = match addr {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Connections of the process before this one may not have ended yet.
        socket.set_reuseaddr(true)?;
        socket.bind(*addr)?;
        socket.listen(BACKLOG)
    };
    let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "it is no address");
    for addr in addrs {
        match listen_at(addr) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// An idle connection is probed after this long, as Redis's `tcp-keepalive` says: a client that has
/// vanished without a word is missed.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(60);

/// Time between probes, and probes without an answer that end a connection: as in Redis.
const PROBE_INTERVAL: Duration = Duration::from_secs(20);
const PROBES: u32 = 3;

/// Bytes that the system takes beyond those that are on their way (128 KiB). So a client that does not
/// read holds little of the system's memory, and the pace of a slow one is seen; packets on their way are
/// not limited.
const UNSENT_BYTES: u32 = 128 * 1024;

/// Sets the options.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(PROBE_INTERVAL)
        .with_retries(PROBES);
    let all = socket
        .set_tcp_keepalive(&keepalive)
        .and_then(|()| socket.set_tcp_notsent_lowat(UNSENT_BYTES));
    if let Err(error) = all {
        tracing::debug!(%error, "cannot set the options of a connection");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_probed_and_holds_little_that_is_not_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
        let (_client, (stream, _)) = (client.unwrap(), accepted.unwrap());
        tune(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
    }
}
