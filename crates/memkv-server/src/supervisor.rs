//! What a node tells the supervisor that started it, in systemd's protocol (`sd_notify`): that it serves, that
//! it stops, what it waits for, and that its threads still run.
//!
//! Never waits for the supervisor, and never fails a node: without `NOTIFY_SOCKET` there is nothing to tell,
//! and with a broken one the log says so once. Invariant: `READY=1` is said only of a node that serves.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use memkv_node::{Node, NodeStatus};
use tokio::runtime::Handle;

/// The variable that names the socket: a path, or `@` and a name without a file.
const SOCKET: &str = "NOTIFY_SOCKET";

/// The variable with the longest silence in microseconds after which the supervisor ends the process.
const WATCHDOG: &str = "WATCHDOG_USEC";

/// The time between two beats, unless the watchdog asks for more: an operator who looks at the status sees
/// what was so a moment ago.
const BEAT: Duration = Duration::from_secs(5);

/// By so much a beat puts off the time at which a start counts as failed. A node may load for minutes, or wait
/// for its peers, as long as its threads run.
const PATIENCE: Duration = Duration::from_secs(30);

/// The supervisor, if there is one.
pub(crate) struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// The node, once its data is loaded.
    node: OnceLock<Node>,
    is_ready: AtomicBool,
    /// `READY=1` has been taken.
    knows_ready: AtomicBool,
    is_stopping: AtomicBool,
    has_failed: AtomicBool,
}

impl Supervisor {
    /// Finds the supervisor by the variables, and tells it from now on that the threads of clients, and the one
    /// behind `consensus`, run.
    pub(crate) fn start(consensus: Handle) -> Arc<Self> {
        let name = env::var_os(SOCKET).filter(|name| !name.is_empty());
        let supervisor = Arc::new(Self::at(name.as_deref()));
        if supervisor.socket.is_some() {
            let silence = env::var(WATCHDOG).ok().and_then(|text| text.parse().ok());
            tokio::spawn(beats(supervisor.clone(), consensus, beat(silence)));
        }
        supervisor
    }

    fn at(name: Option<&OsStr>) -> Self {
        let socket = name.and_then(|name| match connect(name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(?name, %error, "NOTIFY_SOCKET cannot be used; the supervisor is told nothing");
                None
            }
        });
        Self {
            socket,
            node: OnceLock::new(),
            is_ready: AtomicBool::new(false),
            knows_ready: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
        }
    }

    /// From now on the status is this node's.
    pub(crate) fn follow(&self, node: &Node) {
        // The first node stays; there is no second.
        let _ = self.node.set(node.clone());
    }

    /// The node serves.
    pub(crate) fn ready(&self) {
        self.is_ready.store(true, Ordering::Relaxed);
        self.tell_ready(&format!("READY=1\nSTATUS={}", self.status()));
    }

    /// Sends lines that say that the node is ready. Until they are taken each beat says it again: a supervisor that
    /// never hears of it ends the node.
    fn tell_ready(&self, lines: &str) {
        if self.tell(lines) {
            self.knows_ready.store(true, Ordering::Relaxed);
        }
    }

    /// The node stops, for this reason.
    pub(crate) fn stopping(&self, why: &str) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.tell(&format!("STOPPING=1\nSTATUS=stopping: {}", line(why)));
    }

    /// What a beat says.
    fn beat(&self) -> String {
        let status = self.status();
        let is_ready = self.is_ready.load(Ordering::Relaxed);
        match (is_ready, self.knows_ready.load(Ordering::Relaxed)) {
            (true, true) => format!("WATCHDOG=1\nSTATUS={status}"),
            (true, false) => format!("READY=1\nWATCHDOG=1\nSTATUS={status}"),
            // Of a process that took the place of another, the supervisor expects beats from the first moment.
            (false, _) => format!(
                "WATCHDOG=1\nEXTEND_TIMEOUT_USEC={}\nSTATUS={status}",
                PATIENCE.as_micros()
            ),
        }
    }

    fn status(&self) -> String {
        let node = self.node.get();
        node.map_or("loading its data".to_owned(), |node| text(&node.status()))
    }

    /// Sends, or passes over what the supervisor does not take: the next beat is seconds away. Whether it was taken.
    fn tell(&self, lines: &str) -> bool {
        let Some((socket, addr)) = &self.socket else {
            return false;
        };
        let sent = socket.send_to_addr(lines.as_bytes(), addr);
        if let Err(error) = &sent
            && !self.has_failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "the supervisor behind NOTIFY_SOCKET takes no message; the node goes on");
        }
        sent.is_ok()
    }
}

/// A socket that never waits, and the supervisor's address.
fn connect(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let addr = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => nameless(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, addr))
}

/// An address without a file.
#[cfg(target_os = "linux")]
fn nameless(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn nameless(_name: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The time between two beats, where the supervisor accepts this silence in microseconds: half of it, as its
/// documentation asks for.
fn beat(silence: Option<u64>) -> Duration {
    let silence = silence.filter(|micros| *micros > 0);
    silence.map_or(BEAT, |micros| {
        BEAT.min(Duration::from_micros(micros.div_ceil(2)))
    })
}

/// Beats as long as this thread and that of consensus run: a beat has passed both. A disk that hangs stops
/// neither, and another process would find the same disk.
async fn beats(supervisor: Arc<Supervisor>, consensus: Handle, every: Duration) {
    while !supervisor.is_stopping.load(Ordering::Relaxed) {
        // It fails only when the process ends.
        if consensus.spawn(async {}).await.is_err() {
            return;
        }
        let beat = supervisor.beat();
        match beat.starts_with("READY=1") {
            true => supervisor.tell_ready(&beat),
            false => drop(supervisor.tell(&beat)),
        }
        tokio::time::sleep(every).await;
    }
}

/// A node's status in a line.
fn text(status: &NodeStatus) -> String {
    let leader = status.leader.as_deref();
    match (leader, status.message.is_empty()) {
        (Some(leader), true) if leader == status.name => "serves and leads".to_owned(),
        (Some(leader), true) => line(&format!("serves; {leader} leads")),
        (None, true) => "an election is under way".to_owned(),
        (_, false) => line(&status.message),
    }
}

/// A text without line ends, which would begin another message.
fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;
    use crate::testing::Fake;

    /// A supervisor's socket in a directory of its own.
    fn socket() -> (tempfile::TempDir, UnixDatagram) {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        (dir, socket)
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_supervisor_hears_of_each_step() {
        let (dir, socket) = socket();
        let supervisor = Supervisor::at(Some(dir.path().join("notify").as_os_str()));
        let starting = "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=30000000\nSTATUS=loading its data";
        assert_eq!(supervisor.beat(), starting);
        supervisor.ready();
        assert_eq!(received(&socket), "READY=1\nSTATUS=loading its data");
        assert!(!supervisor.beat().contains("EXTEND"));
        supervisor.stopping("signal\nREADY=1");
        let stopping = "STOPPING=1\nSTATUS=stopping: signal READY=1";
        assert_eq!(received(&socket), stopping);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_may_have_no_file() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("memkv-supervisor-test-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&addr).unwrap();
        Supervisor::at(Some(OsStr::new(&format!("@{name}")))).ready();
        assert!(received(&socket).starts_with("READY=1\n"));
    }

    #[test]
    fn a_supervisor_that_is_absent_full_or_gone_holds_nothing_up() {
        for name in [None, Some("/nowhere/notify"), Some("@"), Some("no\0path")] {
            Supervisor::at(name.map(OsStr::new)).ready();
        }
        let (dir, socket) = socket();
        let supervisor = Supervisor::at(Some(dir.path().join("notify").as_os_str()));
        // More than any queue holds.
        for _ in 0..10_000 {
            supervisor.tell("WATCHDOG=1");
        }
        assert!(supervisor.has_failed.load(Ordering::Relaxed));
        // What it must know is in each beat until it was taken.
        supervisor.ready();
        assert!(supervisor.beat().starts_with("READY=1\nWATCHDOG=1\n"));
        while socket.recv(&mut [0; 64]).is_ok() {}
        supervisor.tell_ready(&supervisor.beat());
        assert!(supervisor.beat().starts_with("WATCHDOG=1\n"));
        drop(socket);
        supervisor.stopping("the end");
    }

    #[test]
    fn beats_come_twice_in_the_accepted_silence() {
        assert_eq!(beat(None), BEAT);
        assert_eq!(beat(Some(0)), BEAT);
        assert_eq!(beat(Some(3_000_000)), Duration::from_millis(1500));
        assert_eq!(beat(Some(u64::MAX)), BEAT);
        assert_eq!(beat(Some(1)), Duration::from_micros(1));
    }

    #[test]
    fn the_status_says_who_leads_or_what_is_missing() {
        let mut status = Fake::working().status();
        status.name = "n1".to_owned();
        status.message.clear();
        for (leader, expected) in [
            (Some("n1"), "serves and leads"),
            (Some("n2"), "serves; n2 leads"),
            (None, "an election is under way"),
        ] {
            status.leader = leader.map(str::to_owned);
            assert_eq!(text(&status), expected);
        }
        status.message = "waits for n2\nand n3".to_owned();
        assert_eq!(text(&status), "waits for n2 and n3");
    }
}
