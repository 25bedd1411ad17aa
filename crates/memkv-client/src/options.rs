//! What a write may ask for besides its key and value. Never a default that surprises: nothing set
//! is the plain write.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};

/// What must hold for the key at the moment of the write; otherwise nothing is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    Always,
    /// The key is absent.
    Absent,
    /// The key is there.
    Present,
    /// The key is there, and this is the revision of its last write, as [`Entry`](crate::Entry)
    /// tells it.
    Revision(u64),
}

impl Condition {
    /// As a header field (RFC 9110, section 13.1).
    pub(crate) fn headers(self) -> HeaderMap {
        let any = || HeaderValue::from_static("*");
        let field: Option<(HeaderName, HeaderValue)> = match self {
            Self::Always => None,
            Self::Absent => Some((IF_NONE_MATCH, any())),
            Self::Present => Some((IF_MATCH, any())),
            Self::Revision(revision) => HeaderValue::from_str(&format!("\"{revision}\""))
                .ok()
                .map(|tag| (IF_MATCH, tag)),
        };
        field.into_iter().collect()
    }
}

/// What [`Client::set_with`](crate::Client::set_with) does besides setting the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetOptions {
    /// How long the key lives, in whole milliseconds, at least one; None: until it is removed.
    pub ttl: Option<Duration>,
    /// When the value is set at all.
    pub condition: Condition,
}

/// What [`Client::list`](crate::Client::list) returns of the keys with a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListOptions<'a> {
    /// Only keys after this one: the `next` of the page before.
    pub after: Option<&'a [u8]>,
    /// At most so many keys, 1 to 10,000; None: 100.
    pub limit: Option<u64>,
    /// Whether to leave the values out.
    pub keys_only: bool,
}
