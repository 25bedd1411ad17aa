//! The cluster's secret, and the proofs that a node knows it: HMAC-SHA-256 (RFC 2104) over the side that
//! proves, both nodes' names, the lane, and a nonce of each side. So a proof that was overheard is of
//! no use later, and none can be handed back to the side that made it.
//! Never prints the secret.

use std::sync::Arc;

use hmac::{Hmac, Mac};
use memkv_proto::secret::MIN_CLUSTER_SECRET_BYTES;
use sha2::Sha256;

/// Bytes of a proof.
pub const PROOF_BYTES: usize = 32;

/// Random bytes of a nonce and of a new secret.
const RANDOM_BYTES: usize = 32;

/// The subject of one connection's proofs.
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
    /// Inside TLS, the value that only this connection has, so that no proof is good on another one;
    /// else empty.
    pub channel: &'a str,
}

/// The shared secret. A clone shares its memory.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret(Arc<[u8]>);

impl ClusterSecret {
    /// From a file's text; `None` if it is too short.
    pub fn new(text: &str) -> Option<Self> {
        (text.len() >= MIN_CLUSTER_SECRET_BYTES).then(|| Self(text.as_bytes().into()))
    }

    /// What the dialling side sends first.
    pub fn dialler_proof(&self, meeting: Meeting<'_>) -> [u8; PROOF_BYTES] {
        self.proof("dialler", meeting, "")
    }

    /// What the answering side sends with its verdict, once the dialling side has proved itself.
    pub fn answer_proof(&self, meeting: Meeting<'_>, verdict: &str) -> [u8; PROOF_BYTES] {
        self.proof("answer", meeting, verdict)
    }

    fn proof(&self, side: &str, meeting: Meeting<'_>, said: &str) -> [u8; PROOF_BYTES] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        let Meeting {
            from,
            to,
            lane,
            asked,
            answered,
            channel,
        } = meeting;
        let fields = [super::PROTOCOL, side, from, to, lane, asked, answered, said];
        // One field more or less is another proof: inside TLS none is good that was made outside.
        let channel = Some(channel).filter(|channel| !channel.is_empty());
        for field in fields.into_iter().chain(channel) {
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

/// 32 random bytes as 64 hexadecimal digits: a nonce, or a new secret.
pub fn random_hex() -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * RANDOM_BYTES);
    for byte in rand::random::<[u8; RANDOM_BYTES]>() {
        // Writing to memory cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Whether this can be what [`random_hex`] has given: a nonce of any other form is refused.
pub(super) fn is_nonce(text: &str) -> bool {
    text.len() == 2 * RANDOM_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_proof_is_good_for_its_own_meeting_side_and_secret_only() {
        let secret = ClusterSecret::new(SECRET).unwrap();
        let meeting = Meeting {
            from: "n1",
            to: "n2",
            lane: "append",
            asked: "a",
            answered: "b",
            channel: "",
        };
        let proof = secret.dialler_proof(meeting);
        assert_eq!(proof, secret.dialler_proof(meeting));
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
            Meeting {
                channel: "x",
                ..meeting
            },
            // The two ends, and the two nonces, the other way round.
            Meeting {
                from: "n2",
                to: "n1",
                ..meeting
            },
            Meeting {
                asked: "b",
                answered: "a",
                ..meeting
            },
        ];
        for other in others {
            assert_ne!(proof, secret.dialler_proof(other), "{other:?}");
            assert_ne!(proof, secret.answer_proof(other, ""), "{other:?}");
        }
        let answer = secret.answer_proof(meeting, "");
        assert_ne!(proof, answer, "one side's proof is not the other's");
        assert_ne!(answer, secret.answer_proof(meeting, "no"));
        let another = ClusterSecret::new("0123456789abcdef0123456789abcdeF").unwrap();
        assert_ne!(proof, another.dialler_proof(meeting));
    }

    #[test]
    fn a_short_secret_is_none_and_a_new_one_is_long_enough_and_new() {
        assert_eq!(ClusterSecret::new(&SECRET[1..]), None);
        let (one, two) = (random_hex(), random_hex());
        assert!(ClusterSecret::new(&one).is_some());
        assert_ne!(one, two);
        assert!(is_nonce(&one));
        for bad in [
            "",
            &one[1..],
            &format!("{one}0"),
            &one.replace(&one[..1], "g"),
        ] {
            assert!(!is_nonce(bad), "{bad}");
        }
    }
}
