//! The audit log: JSON lines about who authenticated, who was refused, and who changed the cluster, with
//! the user and the address.
//!
//! An event costs its caller a few microseconds and never waits: a thread of its own writes the lines. The
//! number of lines in a second and their length are bounded, so that a client that fails on purpose fills
//! no disk; a line says how many like it were left out. Refusals and changes also go to the node's log.
//! Never holds a secret, a value, or the arguments of a command.

mod line;
mod writer;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memkv_node::seldom::{PERIOD, Seldom};

pub use self::writer::AuditError;
use self::writer::Writer;

/// Lines of one kind and outcome in a second. A line has at most a kilobyte, so a flood of refusals that
/// goes on for a day writes 2 GB.
const LINES_A_SECOND: u32 = 20;

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A client has shown a credential.
    Authentication,
    /// A user was to have something executed that it may not do. Only refusals are events.
    Denial,
    /// Users were to be changed.
    Users,
    /// A peer has tried to connect. Only refusals are events.
    Peer,
    /// A setting of the cluster or of this node was to be changed.
    Settings,
    /// Connections of other clients were to be closed.
    Connections,
    /// The node was told to stop.
    Shutdown,
    /// All keys were to be copied, or were put back.
    Backup,
    /// Members of the cluster were to be changed, or its leader.
    Members,
}

const KINDS: usize = 9;

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Denial => "denial",
            Self::Users => "users",
            Self::Peer => "peer",
            Self::Settings => "settings",
            Self::Connections => "connections",
            Self::Shutdown => "shutdown",
            Self::Backup => "backup",
            Self::Members => "members",
        }
    }

    /// Whether the node's log tells of it if it was allowed: thousands of clients authenticate.
    fn is_told_when_allowed(self) -> bool {
        !matches!(self, Self::Authentication)
    }
}

/// One event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event<'a> {
    pub(crate) kind: Kind,
    /// Whether it was allowed.
    pub(crate) allowed: bool,
    /// The user, or the peer's name; empty where there is none.
    pub(crate) user: &'a str,
    /// The client's or the peer's address.
    pub(crate) origin: Option<SocketAddr>,
    /// What was done or why not, in a few words.
    pub(crate) detail: &'a str,
}

static WRITER: OnceLock<Writer> = OnceLock::new();
static LINES: [[Seldom; 2]; KINDS] =
    [const { [const { Seldom::at_most(LINES_A_SECOND, Duration::from_secs(1)) }; 2] }; KINDS];
static TOLD: [[Seldom; 2]; KINDS] = [const { [const { Seldom::at_most(10, PERIOD) }; 2] }; KINDS];
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Writes lines to this file from now on. A second call has no effect.
///
/// # Errors
///
/// [`AuditError`] if the file cannot be written, or other users may read or write it.
pub fn start(file: &Path) -> Result<(), AuditError> {
    let writer = Writer::start(file)?;
    let _ = WRITER.set(writer);
    Ok(())
}

/// Waits until the lines so far are on disk, for a second at most: the process is about to end.
pub fn finish() {
    if let Some(writer) = WRITER.get() {
        writer.finish();
    }
}

/// Events that were refused since the process began.
pub(crate) fn refused() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}

/// Lines that were lost because the file could not be written fast enough, or at all.
pub(crate) fn lost() -> u64 {
    WRITER.get().map_or(0, Writer::lost)
}

/// Takes note of an event.
pub(crate) fn record(event: &Event<'_>) {
    let (kind, outcome) = (event.kind as usize, usize::from(event.allowed));
    if !event.allowed {
        REFUSED.fetch_add(1, Ordering::Relaxed);
    }
    if let Some(writer) = WRITER.get()
        && let Some(left_out) = LINES[kind][outcome].say()
    {
        writer.send(line::of(event, left_out));
    }
    let is_told = !event.allowed || event.kind.is_told_when_allowed();
    if is_told && let Some(left_out) = TOLD[kind][outcome].say() {
        let origin = event
            .origin
            .map(|addr| addr.to_string())
            .unwrap_or_default();
        let (event_name, user) = (event.kind.name(), line::shortened(event.user));
        let detail = line::shortened(event.detail);
        match event.allowed {
            true => tracing::info!(
                event = event_name,
                user,
                origin,
                left_out,
                "audit: {detail}"
            ),
            false => {
                tracing::warn!(
                    event = event_name,
                    user,
                    origin,
                    left_out,
                    "audit: refused: {detail}"
                );
            }
        }
    }
}
