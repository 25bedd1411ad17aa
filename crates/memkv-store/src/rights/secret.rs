//! A secret by which a user proves itself, as the table keeps it: never the secret, always a hash of it.
//!
//! Nothing here hashes or compares a secret: the edge does. Invariant: what `Debug` prints of a secret
//! is its kind and its id.

use std::fmt;

use bytes::{BufMut, Bytes};
use xxhash_rust::xxh3::xxh3_64;

use super::principal::BY_CERTIFICATE;
use crate::encoding::{DecodeError, Reader, put_prefixed, put_varint};

/// The longest text of a hashed password, in bytes: a PHC string of argon2id has about 100.
pub const MAX_PASSWORD_BYTES: usize = 256;

const PASSWORD: u8 = 0;
const SHA256: u8 = 1;
const TOKEN: u8 = 2;

/// A hashed secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    kind: SecretKind,
    /// Of the kind; asked for with each command.
    id: u64,
}

/// The kinds of secrets.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretKind {
    /// A password: the PHC string of argon2id, with salt and parameters, at most
    /// [`MAX_PASSWORD_BYTES`].
    Password(Bytes),
    /// A secret that was given as its SHA-256, as Redis's `#<hash>`.
    Sha256([u8; 32]),
    /// A token of enough random bits that a fast hash protects it.
    Token {
        /// Its SHA-256.
        sha256: [u8; 32],
        /// The log time from which the edge takes it no more, in milliseconds since the epoch.
        expires_at_ms: u64,
    },
}

impl Secret {
    /// A secret of this kind.
    pub fn new(kind: SecretKind) -> Secret {
        let mut out = Vec::with_capacity(MAX_PASSWORD_BYTES);
        kind.write(&mut out);
        let id = xxh3_64(&out).max(BY_CERTIFICATE + 1);
        Secret { kind, id }
    }

    /// Its kind, with the hash.
    pub fn kind(&self) -> &SecretKind {
        &self.kind
    }

    /// A number derived from the kind and the hash: the same on every node, and never one that stands for
    /// no secret.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn is_within_limits(&self) -> bool {
        match &self.kind {
            SecretKind::Password(text) => text.len() <= MAX_PASSWORD_BYTES,
            SecretKind::Sha256(_) | SecretKind::Token { .. } => true,
        }
    }

    pub(super) fn write(&self, out: &mut impl BufMut) {
        self.kind.write(out);
    }
}

impl SecretKind {
    fn write(&self, out: &mut impl BufMut) {
        match self {
            SecretKind::Password(text) => {
                out.put_u8(PASSWORD);
                put_prefixed(out, text);
            }
            SecretKind::Sha256(hash) => {
                out.put_u8(SHA256);
                out.put_slice(hash);
            }
            SecretKind::Token {
                sha256,
                expires_at_ms,
            } => {
                out.put_u8(TOKEN);
                out.put_slice(sha256);
                put_varint(out, *expires_at_ms);
            }
        }
    }
}

impl Secret {
    /// Reads one; `own` makes the kept form of its text.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        own: &dyn Fn(&[u8]) -> Bytes,
    ) -> Result<Secret, DecodeError> {
        let what = "secret";
        let kind = match reader.u8(what)? {
            PASSWORD => {
                let text = reader.prefixed(what)?;
                if text.len() > MAX_PASSWORD_BYTES {
                    return Err(DecodeError::TooLong {
                        what,
                        bytes: text.len(),
                        limit: MAX_PASSWORD_BYTES,
                    });
                }
                SecretKind::Password(own(text))
            }
            SHA256 => SecretKind::Sha256(reader.array(what)?),
            TOKEN => SecretKind::Token {
                sha256: reader.array(what)?,
                expires_at_ms: reader.varint(what)?,
            },
            tag => return Err(DecodeError::UnknownTag { what, tag }),
        };
        Ok(Secret::new(kind))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}#{:016x}", self.kind, self.id())
    }
}

impl fmt::Debug for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SecretKind::Password(_) => "Password",
            SecretKind::Sha256(_) => "Sha256",
            SecretKind::Token { .. } => "Token",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_nothing_of_a_secret() {
        let password = Secret::new(SecretKind::Password(Bytes::from_static(
            b"$argon2id$canary",
        )));
        let hash = Secret::new(SecretKind::Sha256([0xab; 32]));
        let token = Secret::new(SecretKind::Token {
            sha256: [0xcd; 32],
            expires_at_ms: 5,
        });
        for (secret, kind) in [(password, "Password"), (hash, "Sha256"), (token, "Token")] {
            let text = format!("{secret:?}");
            assert_eq!(text, format!("{kind}#{:016x}", secret.id()));
            assert_eq!(format!("{:?}", secret.kind()), kind);
        }
    }

    #[test]
    fn secrets_of_other_kinds_or_times_have_other_ids() {
        let token = |expires_at_ms| SecretKind::Token {
            sha256: [7; 32],
            expires_at_ms,
        };
        let kinds = [SecretKind::Sha256([7; 32]), token(1), token(2)];
        let ids = kinds.map(|kind| Secret::new(kind).id());
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
    }
}
