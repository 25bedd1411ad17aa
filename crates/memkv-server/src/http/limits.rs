//! The limits of a request: bytes and time that a client may cost before it has been answered. The
//! error that rejects a request names the limit. Never read from a file: the settings that an
//! operator may change are in the configuration.

use std::sync::Arc;
use std::time::Duration;

use memkv_proto::limits::{MAX_HTTP_HEADER_BYTES, MAX_KEY_BYTES};

use crate::drain::Drain;
use crate::ledger::Ledger;
use crate::pace::{BYTES_PER_SECOND, GRACE};

/// Longest request line in bytes: the longest key with every byte percent-encoded, and 4 KiB for
/// method, prefix and query.
pub(super) const MAX_REQUEST_LINE_BYTES: usize = 3 * MAX_KEY_BYTES + 4096;

/// Most header fields of a request; a browser sends about twenty.
pub(super) const MAX_HEADER_FIELDS: usize = 64;

/// Body of a request that needs none, such as a GET with a JSON body for the wrong path.
pub(super) const MAX_IGNORED_BODY_BYTES: usize = 64 * 1024;

/// Times and sizes that tests shorten.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Header fields of a request, together, in bytes; the request line is bounded by
    /// `MAX_REQUEST_LINE_BYTES`.
    pub header_bytes: usize,
    /// From a request's first byte to the end of its head.
    pub header_time: Duration,
    /// A connection without a request is closed after this.
    pub idle_time: Duration,
    /// A body may take this long, and one second more for each [`Limits::body_bytes_per_second`].
    pub body_grace: Duration,
    /// Slowest body, after the grace.
    pub body_bytes_per_second: u64,
    /// A client that takes less than 1 KiB/s of its response for this long is taken to have gone.
    pub write_stall: Duration,
    /// The same for a body that comes in pieces, of which a slow client holds one and a file.
    pub stream_stall: Duration,
    /// The memory that clients take.
    pub(crate) ledger: Ledger,
    /// How far the end of the service has come.
    pub(crate) drain: Arc<Drain>,
    /// After a rejection, further input is discarded for at most this long, so that the client
    /// reads the refusal and not a connection reset.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: MAX_HTTP_HEADER_BYTES,
            header_time: Duration::from_secs(5),
            // Longer than common clients' pools keep a connection, so that a client, not the
            // server, is the one to close.
            idle_time: Duration::from_secs(300),
            body_grace: GRACE,
            body_bytes_per_second: BYTES_PER_SECOND,
            write_stall: Duration::from_secs(10),
            // A reader at 1 KiB/s may leave its socket's buffers, some mebibytes, full for long.
            stream_stall: Duration::from_secs(900),
            ledger: Ledger::default(),
            drain: Arc::default(),
            linger: Duration::from_secs(2),
        }
    }
}
