//! The clients' password: kept and compared as a hash only.
//!
//! Never printed, and never compared byte by byte with an early end: how long a wrong guess takes
//! says nothing about the right one. One user, named `default` as in Redis (AUTH).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::http::trimmed;

/// The name of the one user.
pub const USER: &str = "default";

/// SHA-256 of the password. The password is chosen by an operator for a machine, long and random;
/// a slow hash would only make every request slow (Redis's ACL does the same).
#[derive(Clone, PartialEq, Eq)]
pub struct Password([u8; 32]);

impl Password {
    /// Of this text.
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// Whether `guess` is the password.
    pub fn is(&self, guess: &[u8]) -> bool {
        let guess: [u8; 32] = Sha256::digest(guess).into();
        same(&self.0, &guess)
    }

    /// Whether an `Authorization` header field holds the password: `Bearer PASSWORD` (RFC 6750), or
    /// `Basic` with the user `default` or none (RFC 7617).
    pub fn authorizes(&self, field: &str) -> bool {
        let Some((scheme, token)) = field.split_once(' ') else {
            return false;
        };
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.is(trimmed(token).as_bytes());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return false;
        }
        let Ok(pair) = STANDARD.decode(trimmed(token)) else {
            return false;
        };
        let Some(colon) = pair.iter().position(|byte| *byte == b':') else {
            return false;
        };
        let (user, password) = (&pair[..colon], &pair[colon + 1..]);
        self.is(password) & (user.is_empty() || user == USER.as_bytes())
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
    fn only_the_password_is_the_password() {
        let password = Password::new("correct horse");
        assert!(password.is(b"correct horse"));
        for guess in ["", "correct", "correct horse ", "Correct horse"] {
            assert!(!password.is(guess.as_bytes()), "{guess}");
        }
        assert!(!format!("{password:?}").contains("correct"));
    }

    #[test]
    fn http_carries_it_as_bearer_or_basic() {
        let password = Password::new("secret:1");
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for field in [
            "Bearer secret:1".to_owned(),
            "bearer  secret:1".to_owned(),
            basic("default:secret:1"),
            basic(":secret:1"),
        ] {
            assert!(password.authorizes(&field), "{field}");
        }
        for field in [
            "Bearer secret".to_owned(),
            "Bearer".to_owned(),
            "Digest secret:1".to_owned(),
            basic("root:secret:1"),
            basic("secret:1"),
            "Basic ?".to_owned(),
        ] {
            assert!(!password.authorizes(&field), "{field}");
        }
    }
}
