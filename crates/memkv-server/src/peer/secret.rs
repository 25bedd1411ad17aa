//! The cluster's secret: both ends of a new peer connection prove that they know it.
//!
//! The dialling side sends a nonce with its upgrade; the answering side sends its own and a proof
//! over both, and gets one back before the first frame: HMAC-SHA-256 (RFC 2104) over who speaks to
//! whom, on which lane, and both nonces. So a proof that was overheard is of no use later. What
//! follows is neither encrypted nor signed: whoever can change packets on the way needs TLS against.

use std::sync::Arc;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Shorter secrets can be guessed by who has overheard one proof.
const MIN_BYTES: usize = 16;

/// Bytes of a proof.
pub const PROOF_BYTES: usize = 32;

/// What one connection's proofs are about.
#[derive(Debug, Clone, Copy)]
pub struct Meeting<'a> {
    /// Name of the dialling node.
    pub from: &'a str,
    /// Name of the answering node.
    pub to: &'a str,
    /// The lane's name.
    pub lane: &'a str,
    /// The dialling node's nonce.
    pub asked: &'a str,
    /// The answering node's nonce.
    pub answered: &'a str,
}

/// The shared secret. A clone shares its memory.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret(Arc<[u8]>);

impl ClusterSecret {
    /// From a file's text, without white space around it; `None` if it is too short.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (text.len() >= MIN_BYTES).then(|| Self(text.as_bytes().into()))
    }

    /// What the answering side sends.
    pub fn answer(&self, meeting: Meeting<'_>) -> [u8; PROOF_BYTES] {
        self.proof("answer", meeting)
    }

    /// What the dialling side sends when it has seen the answer.
    pub fn confirmation(&self, meeting: Meeting<'_>) -> [u8; PROOF_BYTES] {
        self.proof("confirmation", meeting)
    }

    fn proof(&self, side: &str, meeting: Meeting<'_>) -> [u8; PROOF_BYTES] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        let Meeting {
            from,
            to,
            lane,
            asked,
            answered,
        } = meeting;
        for field in [super::PROTOCOL, side, from, to, lane, asked, answered] {
            mac.update(&(field.len() as u64).to_le_bytes());
            mac.update(field.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterSecret(..)")
    }
}

/// A number that is used once, as text.
pub fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// A proof as text.
pub fn hex(proof: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * proof.len());
    for byte in proof {
        // Writing to memory cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_good_for_its_own_meeting_side_and_secret_only() {
        let secret = ClusterSecret::new("0123456789abcdef\n").unwrap();
        let meeting = Meeting {
            from: "n1",
            to: "n2",
            lane: "append",
            asked: "a",
            answered: "b",
        };
        let proof = secret.answer(meeting);
        assert_eq!(proof, secret.answer(meeting));
        let others = [
            Meeting {
                from: "n3",
                ..meeting
            },
            Meeting {
                to: "n3",
                ..meeting
            },
            Meeting {
                lane: "control",
                ..meeting
            },
            Meeting {
                asked: "x",
                ..meeting
            },
            Meeting {
                answered: "x",
                ..meeting
            },
            Meeting {
                asked: "ab",
                answered: "",
                ..meeting
            },
        ];
        for other in others {
            assert_ne!(proof, secret.answer(other), "{other:?}");
        }
        assert_ne!(proof, secret.confirmation(meeting));
        let another = ClusterSecret::new("0123456789abcdeF").unwrap();
        assert_ne!(proof, another.answer(meeting));
    }

    #[test]
    fn a_short_secret_is_none() {
        assert_eq!(ClusterSecret::new("0123456789abcde \n"), None);
    }
}
