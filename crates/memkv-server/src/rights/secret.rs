//! Secrets of users: how they are hashed, compared and made. Everything here that hashes a password takes
//! some hundredths of a second, and is called on the threads of the pool only.
//!
//! Never keeps a secret. Invariants: all hashed passwords of a user share one salt, so that an attempt costs
//! one run however many there are; an attempt that fails costs one run whoever the user is.

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use memkv_store::{Secret, SecretKind};
use sha2::{Digest, Sha256};

use super::user::User;
use crate::password::same;

/// Memory, passes and lanes of argon2id: what OWASP recommends at the least (19 MiB, 2, 1).
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Bytes of salt, as RFC 9106 recommends.
const SALT_BYTES: usize = 16;

/// Random bytes of a token: 256 bits.
const TOKEN_BYTES: usize = 32;

/// The beginning of each token, by which scanners of source code find one that was committed.
pub(crate) const TOKEN_PREFIX: &str = "memkv_";

/// The hash of a password by argon2id.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hashed {
    salt: [u8; SALT_BYTES],
    hash: [u8; 32],
}

impl Hashed {
    fn new(password: &[u8], salt: [u8; SALT_BYTES]) -> Option<Self> {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).ok()?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut hash = [0; 32];
        argon.hash_password_into(password, &salt, &mut hash).ok()?;
        Some(Self { salt, hash })
    }

    /// The head of the text: other parameters are not accepted, so that nobody can make an attempt
    /// expensive.
    fn head() -> String {
        format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}$")
    }

    /// The PHC string.
    fn text(&self) -> String {
        let encode = |bytes: &[u8]| STANDARD_NO_PAD.encode(bytes);
        format!(
            "{}{}${}",
            Self::head(),
            encode(&self.salt),
            encode(&self.hash)
        )
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (salt, hash) = text.strip_prefix(&Self::head()[..])?.split_once('$')?;
        Some(Self {
            salt: STANDARD_NO_PAD.decode(salt).ok()?.try_into().ok()?,
            hash: STANDARD_NO_PAD.decode(hash).ok()?.try_into().ok()?,
        })
    }
}

/// The SHA-256 of a secret.
pub(super) fn sha256(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// The salt of a user's hashed passwords.
fn salt_of(secrets: &[Secret]) -> Option<[u8; SALT_BYTES]> {
    secrets.iter().find_map(|secret| match secret.kind() {
        SecretKind::Password(text) => Some(Hashed::parse(text)?.salt),
        _ => None,
    })
}

/// A password as it is kept, with the salt of those that are there.
pub(super) fn hash(password: &[u8], secrets: &[Secret]) -> Option<Secret> {
    let salt = salt_of(secrets).unwrap_or_else(rand::random);
    let hashed = Hashed::new(password, salt)?;
    let text = Bytes::from(hashed.text());
    Some(Secret::new(SecretKind::Password(text)))
}

/// A hash as `ACL LIST` shows it, without the `#`: of SHA-256 in hexadecimal digits, or of argon2id with the
/// salt of those that are there.
pub(super) fn parse(text: &[u8], secrets: &[Secret]) -> Option<Secret> {
    if let Some(hashed) = Hashed::parse(text) {
        let fits = salt_of(secrets).is_none_or(|salt| salt == hashed.salt);
        let text = Bytes::from(hashed.text());
        return fits.then(|| Secret::new(SecretKind::Password(text)));
    }
    let is_digit = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 64 || !text.iter().all(is_digit) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(text.chunks(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(Secret::new(SecretKind::Sha256(hash)))
}

/// A secret's hash as `ACL LIST` shows it, without the `#`; nothing of a token.
pub(crate) fn shown(secret: &Secret) -> Option<String> {
    match secret.kind() {
        SecretKind::Password(text) => String::from_utf8(text.to_vec()).ok(),
        SecretKind::Sha256(hash) => Some(hash.iter().map(|byte| format!("{byte:02x}")).collect()),
        SecretKind::Token { .. } => None,
    }
}

/// Which of the user's secrets this is, without a slow hash; `now_ms` is log time.
pub(super) fn find_fast(user: &User, secret: &[u8], now_ms: u64) -> Option<u64> {
    let given = sha256(secret);
    let is_it = |known: &&Secret| match known.kind() {
        SecretKind::Sha256(hash) => same(hash, &given),
        SecretKind::Token {
            sha256,
            expires_at_ms,
        } => now_ms < *expires_at_ms && same(sha256, &given),
        SecretKind::Password(_) => false,
    };
    user.secrets.iter().find(is_it).map(Secret::id)
}

/// Which of the user's hashed passwords this is. One run, also if there is no such user.
pub(super) fn find_slow(user: Option<&User>, password: &[u8]) -> Option<u64> {
    let secrets = user.map_or(&[][..], |user| &user.secrets);
    let given = Hashed::new(password, salt_of(secrets).unwrap_or_default())?;
    let is_it = |known: &&Secret| match known.kind() {
        SecretKind::Password(text) => Hashed::parse(text)
            .is_some_and(|hashed| hashed.salt == given.salt && same(&hashed.hash, &given.hash)),
        _ => false,
    };
    secrets.iter().find(is_it).map(Secret::id)
}

/// A new token and its kept form.
pub(crate) fn new_token(expires_at_ms: u64) -> (String, Secret) {
    let bytes: [u8; TOKEN_BYTES] = rand::random();
    let token = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let kind = SecretKind::Token {
        sha256: sha256(token.as_bytes()),
        expires_at_ms,
    };
    (token, Secret::new(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hashed_password_is_found_again_with_one_run_for_all() {
        let first = hash(b"one", &[]).unwrap();
        let second = hash(b"two", std::slice::from_ref(&first)).unwrap();
        let again = hash(b"one", std::slice::from_ref(&first)).unwrap();
        assert_eq!(first.id(), again.id(), "it counts once");
        let secrets = [first.clone(), second.clone()];
        assert_eq!(salt_of(&secrets), salt_of(&secrets[1..]));
        for secret in &secrets {
            let text = shown(secret).unwrap();
            assert!(
                text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
                "{text}"
            );
            assert_eq!(parse(text.as_bytes(), &secrets).as_ref(), Some(secret));
        }
        let other = shown(&hash(b"one", &[]).unwrap()).unwrap();
        assert_eq!(parse(other.as_bytes(), &secrets), None, "another salt");
        assert!(parse(other.as_bytes(), &[]).is_some());
    }

    #[test]
    fn hashes_are_taken_in_one_form_only() {
        let hash = "0123456789abcdef".repeat(4);
        let secret = parse(hash.as_bytes(), &[]).unwrap();
        assert_eq!(shown(&secret), Some(hash.clone()));
        for wrong in [
            "",
            &hash[1..],
            &hash.to_uppercase(),
            &format!("{hash}0"),
            "$argon2id$v=19$m=1048576,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA",
            "$argon2id$v=19$m=19456,t=2,p=1$AAAA$AAAA",
        ] {
            assert_eq!(parse(wrong.as_bytes(), &[]), None, "{wrong}");
        }
    }

    #[test]
    fn tokens_are_long_random_and_never_shown_again() {
        let (token, secret) = new_token(7);
        let (other, _) = new_token(7);
        assert_ne!(token, other);
        assert_eq!(token.len(), TOKEN_PREFIX.len() + 43);
        assert_eq!(shown(&secret), None);
    }
}
