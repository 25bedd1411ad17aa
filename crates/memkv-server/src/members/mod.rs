//! What all interfaces have in common about the cluster's members: who is silent, how many may fail, names,
//! the wait until nothing is left to be done, and the audit log's lines.
//!
//! Never decides: the leader does.

mod settle;

use std::net::SocketAddr;

use memkv_node::MemberView;
use memkv_store::MAX_NAME_BYTES;

use crate::audit::{self, Event};

pub(crate) use settle::{MAX_WAIT, settle};

/// A node that has not answered for so long does not count: the default election timeout.
const SILENT_MS: u64 = 1_000;

/// What a name of a node is not.
pub(crate) const BAD_NAME: &str = "that is no name of a node: it is the id of its node_addr";

/// Whether the leader has not heard of a node lately.
pub(crate) fn is_silent(view: &MemberView) -> bool {
    view.heard_ms.is_none_or(|heard| heard >= SILENT_MS)
}

/// Voters, and how many of them are silent.
pub(crate) fn voters(views: &[MemberView]) -> (usize, usize) {
    let voters = || views.iter().filter(|view| view.votes);
    let silent = voters().filter(|view| is_silent(view));
    (voters().count(), silent.count())
}

/// How many voters may still fail, as a sentence.
pub(crate) fn may_fail((voters, silent): (usize, usize)) -> String {
    let spare = voters.saturating_sub(1) / 2;
    let answer = voters - silent;
    match spare.checked_sub(silent) {
        Some(0) => format!("{answer} of {voters} voters answer; no other may fail"),
        Some(left) => format!("{answer} of {voters} voters answer; {left} may fail"),
        None => format!("{answer} of {voters} voters answer, less than a majority"),
    }
}

/// The name of a node, if that is one.
pub(crate) fn node_name(bytes: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(bytes).ok()?;
    let fits = memkv_proto::config::check_id(name).is_ok() && name.len() <= MAX_NAME_BYTES;
    fits.then(|| name.to_owned())
}

/// Takes note of a verb, whether it was carried out or refused.
pub(crate) fn record(allowed: bool, user: &[u8], origin: Option<SocketAddr>, command: &str) {
    audit::record(&Event {
        kind: audit::Kind::Members,
        allowed,
        user: &String::from_utf8_lossy(user),
        origin,
        detail: command,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_counts_voters_that_answer() {
        assert_eq!(may_fail((5, 0)), "5 of 5 voters answer; 2 may fail");
        assert_eq!(may_fail((3, 1)), "2 of 3 voters answer; no other may fail");
        assert_eq!(
            may_fail((3, 2)),
            "1 of 3 voters answer, less than a majority"
        );
    }

    #[test]
    fn names_are_those_of_node_addr() {
        assert_eq!(node_name(b"n1"), Some("n1".to_owned()));
        let long = "n".repeat(MAX_NAME_BYTES + 1);
        for bad in [&b""[..], b"a b", b"\xff", long.as_bytes()] {
            assert_eq!(node_name(bad), None);
        }
    }
}
