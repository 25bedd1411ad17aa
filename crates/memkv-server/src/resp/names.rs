//! The subscriptions of one connection, of one kind, and their limits. Never changes the registry of
//! all connections (`subscriptions`).

use std::collections::{BTreeSet, btree_set};

use bytes::Bytes;

use super::subscriptions::Kind;

/// Most patterns of one connection, and most bytes of them (64 KiB).
const PATTERNS: Most = Most {
    names: 1024,
    bytes: 64 * 1024,
    what: "patterns",
};

/// Most channels of one connection, and most bytes of their names (16 MiB).
const CHANNELS: Most = Most {
    names: 128 * 1024,
    bytes: 16 * 1024 * 1024,
    what: "channels",
};

struct Most {
    names: usize,
    bytes: usize,
    what: &'static str,
}

/// A connection may not listen to so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a connection listens to at most {names} {what} with {bytes} bytes together")]
pub(crate) struct TooMany {
    names: usize,
    bytes: usize,
    what: &'static str,
}

/// Names, and how many bytes they have.
#[derive(Debug, Default)]
pub(crate) struct Names {
    names: BTreeSet<Bytes>,
    bytes: usize,
}

impl Names {
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(crate) fn iter(&self) -> btree_set::Iter<'_, Bytes> {
        self.names.iter()
    }

    /// Those of `names` that are not here yet, each once, if there is room for all of them.
    pub(crate) fn new_of(&self, kind: Kind, names: &[Bytes]) -> Result<Vec<Bytes>, TooMany> {
        let new: BTreeSet<&Bytes> = names
            .iter()
            .filter(|name| !self.names.contains(*name))
            .collect();
        let bytes: usize = new.iter().map(|name| name.len()).sum();
        let most = match kind {
            Kind::Pattern => PATTERNS,
            Kind::Channel | Kind::Shard => CHANNELS,
        };
        if self.names.len() + new.len() > most.names || self.bytes + bytes > most.bytes {
            return Err(TooMany {
                names: most.names,
                bytes: most.bytes,
                what: most.what,
            });
        }
        Ok(new.into_iter().cloned().collect())
    }

    pub(crate) fn insert(&mut self, name: Bytes) {
        let bytes = name.len();
        if self.names.insert(name) {
            self.bytes += bytes;
        }
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, name: &Bytes) -> bool {
        let was_there = self.names.remove(name);
        if was_there {
            self.bytes -= name.len();
        }
        was_there
    }

    /// All of them; then there are none.
    pub(crate) fn take(&mut self) -> BTreeSet<Bytes> {
        self.bytes = 0;
        std::mem::take(&mut self.names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_bytes_are_bounded_and_room_is_given_back() {
        let name = |at: usize| Bytes::from(format!("{at:0>1024}"));
        let mut names = Names::default();
        let all: Vec<_> = (0..64).map(name).collect();
        let new = names.new_of(Kind::Pattern, &[&all[..], &all[..]].concat());
        assert_eq!(new.as_ref().map(Vec::len), Ok(64));
        new.unwrap().into_iter().for_each(|name| names.insert(name));
        assert_eq!(names.new_of(Kind::Pattern, &all), Ok(Vec::new()));
        let one = [Bytes::from_static(b"x")];
        assert!(names.new_of(Kind::Pattern, &one).is_err());
        assert!(names.new_of(Kind::Channel, &one).is_ok());
        assert!(names.remove(&all[3]) && !names.remove(&all[3]));
        assert!(names.new_of(Kind::Pattern, &one).is_ok());
        names.take();
        let most: Vec<_> = (0..1024).map(|at| Bytes::from(at.to_string())).collect();
        assert!(names.new_of(Kind::Pattern, &most).is_ok());
        let more = [&most[..], &one[..]].concat();
        assert!(names.new_of(Kind::Pattern, &more).is_err());
    }
}
