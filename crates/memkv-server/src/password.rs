//! The password of the configuration, kept as hashes only, and what clients show of themselves.
//!
//! Never printed, and never compared byte by byte with an early end: how long a wrong guess takes
//! says nothing about the right one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memkv_store::{Secret, SecretKind};
use sha2::{Digest, Sha256};

use crate::http::trimmed;

/// The name of the user that the password is of.
pub const USER: &str = "default";

/// The hashes of the password: SHA-256, by which it is compared while the cluster has no users, and one of
/// argon2id, with which a new cluster's user `default` begins.
#[derive(Clone)]
pub struct Password {
    sha256: [u8; 32],
    slow: Option<Secret>,
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        self.sha256 == other.sha256
    }
}

impl Eq for Password {}

impl Password {
    /// Of this text.
    pub fn new(text: &str) -> Self {
        Self {
            sha256: Sha256::digest(text).into(),
            slow: None,
        }
    }

    /// The same, with the hash for a new cluster's table, which takes some hundredths of a second.
    pub(crate) fn with_slow_hash(text: &str) -> Self {
        Self {
            slow: crate::rights::hash(text.as_bytes()),
            ..Self::new(text)
        }
    }

    /// As the table of users keeps it.
    pub(crate) fn secret(&self) -> Secret {
        let fast = || Secret::new(SecretKind::Sha256(self.sha256));
        self.slow.clone().unwrap_or_else(fast)
    }

    /// Its SHA-256.
    pub(crate) fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

/// What a client shows of itself.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'a> {
    /// Its name; without one, the secret is a token or the password of `default`.
    pub(crate) user: Option<&'a [u8]>,
    pub(crate) secret: &'a [u8],
}

/// An `Authorization` header field: `Bearer TOKEN` (RFC 6750), or `Basic` with a user, or none for `default`
/// (RFC 7617).
pub(crate) struct Authorization {
    user: Option<Vec<u8>>,
    secret: Vec<u8>,
}

impl Authorization {
    /// Of a field; nothing if it is of another kind.
    pub(crate) fn parse(field: &str) -> Option<Self> {
        let (scheme, token) = field.split_once(' ')?;
        let token = trimmed(token);
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self {
                user: None,
                secret: token.as_bytes().to_vec(),
            });
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let pair = STANDARD.decode(token).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        let (user, secret) = pair.split_at(colon);
        let user = if user.is_empty() {
            USER.as_bytes()
        } else {
            user
        };
        Some(Self {
            user: Some(user.to_vec()),
            secret: secret.get(1..).unwrap_or_default().to_vec(),
        })
    }

    /// What it shows.
    pub(crate) fn shown(&self) -> Shown<'_> {
        Shown {
            user: self.user.as_deref(),
            secret: &self.secret,
        }
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Whether two hashes are equal, in a time that does not depend on where they differ.
pub(crate) fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let differences = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_compared_by_its_hash_and_never_printed() {
        assert_eq!(
            Password::new("correct"),
            Password::with_slow_hash("correct")
        );
        assert_ne!(Password::new("correct"), Password::new("Correct"));
        for password in [
            Password::new("correct"),
            Password::with_slow_hash("correct"),
        ] {
            assert_eq!(format!("{password:?}"), "Password(..)");
        }
        let slow = Password::with_slow_hash("correct").secret();
        assert!(matches!(slow.kind(), SecretKind::Password(_)));
    }

    #[test]
    fn http_carries_it_as_bearer_or_basic() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for (field, user) in [
            ("Bearer secret:1".to_owned(), None),
            ("bearer  secret:1".to_owned(), None),
            (basic("default:secret:1"), Some("default")),
            (basic(":secret:1"), Some("default")),
            (basic("ann:secret:1"), Some("ann")),
        ] {
            let read = Authorization::parse(&field).expect("it is one");
            assert_eq!(read.shown().user, user.map(str::as_bytes), "{field}");
            assert_eq!(read.shown().secret, b"secret:1", "{field}");
        }
        for field in [
            "Bearer".to_owned(),
            "Digest secret:1".to_owned(),
            basic("secret"),
            "Basic ?".to_owned(),
        ] {
            assert!(Authorization::parse(&field).is_none(), "{field}");
        }
    }
}
