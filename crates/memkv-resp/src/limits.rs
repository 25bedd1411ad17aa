//! The limits of one request. The server changes them when a connection authenticates;
//! nothing here is a configuration by itself.

/// Most arguments of one request, the command's name included: an `MSET` of 131,072 keys. Redis allows
/// 1,048,576 of them, which is a second of work in one piece.
pub const MAX_ARGS: usize = 1 + 2 * 131_072;

/// The largest argument that any configuration may allow (512 MiB): the default of Redis's
/// `proto-max-bulk-len`.
pub const MAX_BULK_BYTES: usize = 512 * 1024 * 1024;

/// Longest inline request, and longest line with a count, once authenticated (1 MiB): Redis has 64
/// KiB, and an operator's pasted `SET` with a long value should not be refused for it.
const MAX_INLINE_BYTES: usize = 1024 * 1024;

/// The same before authentication (16 KiB): no more than an argument may have.
const UNAUTHENTICATED_INLINE_BYTES: usize = UNAUTHENTICATED_BULK_BYTES;

/// Most arguments before authentication, as in Redis: `HELLO 3 AUTH u p SETNAME n` has 7.
const UNAUTHENTICATED_ARGS: usize = 10;

/// Longest argument before authentication (16 KiB), as in Redis.
const UNAUTHENTICATED_BULK_BYTES: usize = 16 * 1024;

/// Bytes of a request beside its largest argument (64 MiB): the most arguments, of 256 bytes each with
/// their own header.
const BESIDE_LARGEST_BYTES: usize = MAX_ARGS * 256;

/// The longest header and line end of an argument: `$`, 20 digits, and twice CR LF.
const ARG_OVERHEAD_BYTES: usize = 25;

/// The limits of one connection. A field above its ceiling ([`MAX_ARGS`], [`MAX_BULK_BYTES`])
/// counts as the ceiling.
///
/// As in Redis, only `max_inline` holds for inline requests: an argument of one may be longer than
/// `max_bulk` where that is smaller; the code that stores it checks its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest inline request in bytes, without its line end. A line that declares a count or a
    /// length may be as long.
    pub max_inline: usize,
    /// Longest argument of a multibulk request in bytes.
    pub max_bulk: usize,
    /// Most arguments of a multibulk request, the command's name included.
    pub max_args: usize,
    /// Most bytes of one multibulk request as it is on the wire.
    pub max_request: usize,
    /// Whether the connection may do anything but authenticate. It only chooses the text of the
    /// error that refuses too many or too long arguments.
    pub authenticated: bool,
}

impl Limits {
    /// The limits of an authenticated connection whose arguments may have `max_bulk` bytes.
    #[must_use]
    pub const fn new(max_bulk: usize) -> Self {
        Self {
            max_inline: MAX_INLINE_BYTES,
            max_bulk,
            max_args: MAX_ARGS,
            max_request: max_bulk.saturating_add(BESIDE_LARGEST_BYTES),
            authenticated: true,
        }
    }

    /// The limits of a connection that must authenticate first: 10 arguments, together of 16 KiB.
    #[must_use]
    pub const fn unauthenticated() -> Self {
        Self {
            max_inline: UNAUTHENTICATED_INLINE_BYTES,
            max_bulk: UNAUTHENTICATED_BULK_BYTES,
            max_args: UNAUTHENTICATED_ARGS,
            max_request: UNAUTHENTICATED_BULK_BYTES
                + (UNAUTHENTICATED_ARGS + 1) * ARG_OVERHEAD_BYTES,
            authenticated: false,
        }
    }
}
