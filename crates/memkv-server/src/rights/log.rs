//! What `ACL LOG` shows: the last refusals of this node. Never holds a secret. Invariant: what is kept is
//! bounded.

use std::collections::VecDeque;

use memkv_node::lock::Mutex;
use tokio::time::{Duration, Instant};

/// Entries that are kept, as Redis's `acllog-max-len`.
const MAX_ENTRIES: usize = 128;

/// Bytes of a key, a channel or a name that are kept.
const MAX_SHOWN_BYTES: usize = 256;

/// A refusal that was seen before within this time is counted in its entry, as in Redis.
const SAME_WITHIN: Duration = Duration::from_secs(60);

/// One entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) count: u64,
    /// `command`, `key`, `channel` or `auth`.
    pub(crate) reason: &'static str,
    /// `toplevel`, `multi`, `script` or `http`.
    pub(crate) context: &'static str,
    pub(crate) object: Vec<u8>,
    pub(crate) user: Vec<u8>,
    /// When it was seen first.
    pub(crate) since: Instant,
    /// When it was seen last.
    pub(crate) last: Instant,
    /// The line of `CLIENT LIST`.
    pub(crate) client: Vec<u8>,
}

/// The entries, the last one first.
#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: Mutex<VecDeque<Entry>>,
}

impl Log {
    /// Notes a refusal; `client` is called if there is a new line to write.
    pub(crate) fn add(
        &self,
        reason: &'static str,
        context: &'static str,
        object: &[u8],
        user: &[u8],
        client: impl FnOnce() -> Vec<u8>,
    ) {
        let now = Instant::now();
        let (object, user) = (shown(object), shown(user));
        let mut entries = self.entries.lock();
        let is_same = |entry: &Entry| {
            entry.reason == reason
                && entry.context == context
                && entry.object == object
                && entry.user == user
                && now - entry.last < SAME_WITHIN
        };
        if let Some(at) = entries.iter().position(is_same)
            && let Some(mut entry) = entries.remove(at)
        {
            entry.count += 1;
            entry.last = now;
            entries.push_front(entry);
            return;
        }
        entries.truncate(MAX_ENTRIES - 1);
        entries.push_front(Entry {
            count: 1,
            reason,
            context,
            object: object.to_vec(),
            user: user.to_vec(),
            since: now,
            last: now,
            client: client(),
        });
    }

    /// The last entries, at most so many.
    pub(crate) fn last(&self, count: usize) -> Vec<Entry> {
        self.entries.lock().iter().take(count).cloned().collect()
    }

    pub(crate) fn clear(&self) {
        self.entries.lock().clear();
    }
}

fn shown(bytes: &[u8]) -> &[u8] {
    bytes.get(..MAX_SHOWN_BYTES).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_refusal_is_counted_for_a_minute_and_entries_are_bounded() {
        let log = Log::default();
        let add = |object: &[u8]| log.add("key", "toplevel", object, b"ann", || b"id=1".to_vec());
        add(b"a");
        add(b"b");
        add(b"a");
        let counts = |log: &Log| -> Vec<(Vec<u8>, u64)> {
            let entries = log.last(10).into_iter();
            entries.map(|entry| (entry.object, entry.count)).collect()
        };
        assert_eq!(counts(&log), [(b"a".to_vec(), 2), (b"b".to_vec(), 1)]);
        tokio::time::advance(SAME_WITHIN).await;
        add(b"a");
        assert_eq!(log.last(1)[0].count, 1);
        for at in 0..2 * MAX_ENTRIES {
            add(at.to_string().as_bytes());
        }
        add(&[b'x'; 2 * MAX_SHOWN_BYTES]);
        assert_eq!(log.last(usize::MAX).len(), MAX_ENTRIES);
        assert_eq!(log.last(1)[0].object.len(), MAX_SHOWN_BYTES);
        log.clear();
        assert_eq!(log.last(usize::MAX).len(), 0);
    }
}
