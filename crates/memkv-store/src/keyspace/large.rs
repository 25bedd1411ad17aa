//! A large entry: memory of its own, which a snapshot, a reader and other entries may share.
//!
//! Most are in one piece, written once. An entry whose value was there before (COPY, RENAME, another
//! deadline) shares that value with its other owners, and only the rest is its own: so such a command costs
//! the same for any value. The assumed cost of an entry does not depend on sharing.
//! Invariant: a value that is shared is never written to.

use std::sync::Arc;

use bytes::Bytes;

use super::entry::{Entry, Kept};

/// Values from this size on are handed out by reference; below it a copy costs less than the
/// allocation that sharing needs.
pub(crate) const SHARE_FROM_BYTES: usize = 4096;

/// Values from this size on are shared for keys of any length: the memory that stays with a shared value is
/// its first entry's key and some numbers.
pub(crate) const SHARED_BYTES: usize = crate::MAX_KEY_BYTES + 64;

/// Memory from this size on goes back to the system when it is freed, which takes as long as some
/// hundred commands.
const LONG_TO_FREE_BYTES: usize = 1024 * 1024;

#[derive(Debug, Clone)]
pub(super) enum Large {
    /// The whole entry.
    Whole(Arc<[u8]>),
    /// The value lies elsewhere.
    Split(Arc<Split>),
}

#[derive(Debug)]
pub(super) struct Split {
    /// The entry without its value.
    rest: Box<[u8]>,
    value: Bytes,
}

impl Large {
    pub(super) fn whole(len: usize, write: impl FnOnce(&mut [u8])) -> Large {
        // One allocation of known size, which nothing else can hold yet.
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
        if let Some(bytes) = Arc::get_mut(&mut bytes) {
            write(bytes);
        }
        Large::Whole(bytes)
    }

    pub(super) fn split(rest: Box<[u8]>, value: Bytes) -> Large {
        Large::Split(Arc::new(Split { rest, value }))
    }

    /// The entry, or all of it but the value.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Large::Whole(bytes) => bytes,
            Large::Split(split) => &split.rest,
        }
    }

    /// The value, if it lies elsewhere.
    pub(super) fn value(&self) -> Option<&Bytes> {
        match self {
            Large::Whole(_) => None,
            Large::Split(split) => Some(&split.value),
        }
    }

    /// All of its bytes to be written anew, if there are so many and nothing else holds them.
    pub(super) fn rewrite(&mut self, len: usize) -> Option<&mut [u8]> {
        match self {
            Large::Whole(bytes) => Arc::get_mut(bytes).filter(|bytes| bytes.len() == len),
            Large::Split(_) => None,
        }
    }

    /// Its value, which is `value`: a copy if it is not large.
    pub(super) fn value_bytes(&self, value: &[u8]) -> Bytes {
        match self {
            Large::Split(split) => split.value.clone(),
            Large::Whole(bytes) if value.len() >= SHARE_FROM_BYTES => reference(bytes),
            Large::Whole(_) => Bytes::copy_from_slice(value),
        }
    }

    /// Its value for another entry, which then also keeps the bytes beside it: no more than the value
    /// itself. Nothing if a copy is better.
    pub(super) fn share(&self, value: &[u8]) -> Option<Bytes> {
        self.is_shareable(value.len())
            .then(|| self.value_bytes(value))
    }

    pub(super) fn is_shareable(&self, value_len: usize) -> bool {
        match self {
            Large::Split(_) => true,
            Large::Whole(bytes) => {
                value_len >= SHARE_FROM_BYTES && bytes.len() - value_len <= value_len
            }
        }
    }

    /// Whether freeing it may take long.
    pub(super) fn is_long_to_free(&self) -> bool {
        let value = self.value().map_or(0, Bytes::len);
        self.bytes().len() + value >= LONG_TO_FREE_BYTES
    }
}

/// The value of an entry that is in one piece.
fn reference(bytes: &Arc<[u8]>) -> Bytes {
    struct Shared(Large);
    impl AsRef<[u8]> for Shared {
        fn as_ref(&self) -> &[u8] {
            Entry::read(Kept::Large(&self.0)).value()
        }
    }
    Bytes::from_owner(Shared(Large::Whole(Arc::clone(bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_entry_takes_sixteen_bytes_in_the_table() {
        assert_eq!(size_of::<Large>(), 16);
    }
}
