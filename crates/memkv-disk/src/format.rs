//! Version and Raft group of segments, records, metadata and snapshot names, and why one of them cannot be
//! read. Never touches a file.
//!
//! Every magic number holds the version, as a digit. Its place, and that of the checksum, are the
//! same in all versions, so that another version can be told from damage: the checksum is compared
//! first, then the version, then the group.

/// The Raft group of everything that this build writes. A node has one group; the field is reserved
/// for several, so that data of another group is refused instead of misread.
pub(crate) const GROUP: u32 = 0;

/// Why bytes or a name cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// They are incomplete, damaged, or of another kind.
    Damaged,
    /// They are intact, and of another format version.
    Version {
        /// The version that was found, as its digit.
        found: u8,
        /// The version that this build reads, as its digit.
        known: u8,
    },
    /// They are intact, and of a Raft group that this build does not know.
    Group(u32),
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Damaged => write!(f, "it is damaged"),
            Self::Version { found, known } => write!(
                f,
                "its format version is {}, and this build reads version {} only",
                char::from(found),
                char::from(known)
            ),
            Self::Group(group) => write!(
                f,
                "it belongs to Raft group {group}, and this build knows group {GROUP} only"
            ),
        }
    }
}

/// Compares the start of intact bytes with a magic number whose digit at `at` is the version.
pub(crate) fn check_magic(bytes: &[u8], magic: &[u8], at: usize) -> Result<(), Unreadable> {
    let Some(start) = bytes.get(..magic.len()) else {
        return Err(Unreadable::Damaged);
    };
    let differs = |index: &usize| start[*index] != magic[*index];
    let mut others = (0..magic.len()).filter(differs);
    match (others.next(), others.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only == at && start[at].is_ascii_digit() => {
            let (found, known) = (start[at], magic[at]);
            Err(Unreadable::Version { found, known })
        }
        _ => Err(Unreadable::Damaged),
    }
}

/// Refuses a group that this build does not know.
pub(crate) fn check_group(group: u32) -> Result<(), Unreadable> {
    match group {
        GROUP => Ok(()),
        other => Err(Unreadable::Group(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_digit_is_another_version_and_any_other_difference_is_damage() {
        let check = |bytes: &[u8]| check_magic(bytes, b"MKR2", 3);
        assert_eq!(check(b"MKR2 and more"), Ok(()));
        for found in [b'0', b'1', b'3', b'9'] {
            let other = Unreadable::Version { found, known: b'2' };
            assert_eq!(check(&[b'M', b'K', b'R', found]), Err(other));
        }
        for damaged in [&b"MKR"[..], b"MKS2", b"MKRx", b"MKS3"] {
            assert_eq!(check(damaged), Err(Unreadable::Damaged));
        }
    }
}
