//! Principals: for whom a command is executed, and whether that one may still have it executed.
//!
//! The edge judges a command by rights; here is decided only whether that judgement still stands. The answer
//! depends on the table and the principal alone, so every node refuses the same commands. Invariant: once a
//! principal of some revision does not stand, it never stands again, whatever is added back.

use bytes::BufMut;

use super::UserTable;
use crate::encoding::{DecodeError, Reader};

/// The credential of a user that needs none: it stands for as long as the user is `nopass`.
pub const NO_CREDENTIAL: u64 = 0;

/// The credential of a connection whose certificate names the user: it stands for as long as the user does.
pub const BY_CERTIFICATE: u64 = 1;

/// The most principals that a group lists: more distinct ones need several groups. Checking that many takes
/// some ten microseconds.
pub const MAX_GROUP_PRINCIPALS: usize = 256;

const PAIR_BYTES: usize = 2 * size_of::<u64>();

/// The user of a command that was judged while its node knew no table. No user of a table has this id, and no
/// group lists it.
pub const NO_TABLE: u64 = 0;

/// For whom a command is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Principal {
    /// The id of the user, which is never that of another user, also of one that got the name later; or
    /// [`NO_TABLE`].
    pub user: u64,
    /// The id of the secret that proved it, or [`NO_CREDENTIAL`], or [`BY_CERTIFICATE`].
    pub credential: u64,
    /// The revision of the table under which the command was judged.
    pub revision: u64,
}

impl Principal {
    /// The operator of a node's directory, who is no user: what this one asks for stands in every table. No user
    /// ever has this id, because ids are revisions.
    pub const OPERATOR: Principal = Principal {
        user: u64::MAX,
        credential: NO_CREDENTIAL,
        revision: u64::MAX,
    };
}

/// Whether what was allowed to a principal is still allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No right was taken from it since.
    Stands,
    /// A right was taken from the user since, or its credential was removed and is back: it must be judged
    /// anew.
    Narrowed,
    /// The user is gone or disabled, or the credential is gone.
    Gone,
}

impl UserTable {
    /// Whether a judgement under the principal's revision still stands.
    pub fn standing(&self, principal: Principal) -> Standing {
        if principal.user == Principal::OPERATOR.user {
            return Standing::Stands;
        }
        let Some(user) = self.by_id(principal.user).filter(|user| user.enabled) else {
            return Standing::Gone;
        };
        let since = match principal.credential {
            NO_CREDENTIAL if !user.nopass => return Standing::Gone,
            NO_CREDENTIAL | BY_CERTIFICATE => user.id,
            credential => match user.secret_since(credential) {
                Some(since) => since,
                None => return Standing::Gone,
            },
        };
        match user.narrowed_at.max(since) <= principal.revision {
            true => Standing::Stands,
            false => Standing::Narrowed,
        }
    }
}

/// For whom the commands of a group are executed: what the group carries of their principals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRights {
    revision: u64,
    pairs: Vec<(u64, u64)>,
}

impl Default for GroupRights {
    fn default() -> GroupRights {
        GroupRights {
            revision: u64::MAX,
            pairs: Vec::new(),
        }
    }
}

impl GroupRights {
    /// Adds the principal of a command, which was judged by a table. Returns `false`, and adds nothing, if there is no room: the group must end before
    /// that command.
    #[must_use]
    pub fn add(&mut self, principal: Principal) -> bool {
        let pair = (principal.user, principal.credential);
        // The commands of one connection follow each other.
        if self.pairs.last() != Some(&pair) && !self.pairs.contains(&pair) {
            if self.pairs.len() == MAX_GROUP_PRINCIPALS {
                return false;
            }
            self.pairs.push(pair);
        }
        self.revision = self.revision.min(principal.revision);
        true
    }

    /// Whether no command has a principal.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The bytes of its encoding.
    pub(crate) fn encoded_len(&self) -> usize {
        size_of::<u64>() + size_of::<u16>() + self.pairs.len() * PAIR_BYTES
    }

    pub(crate) fn write(&self, out: &mut impl BufMut) {
        out.put_u64_le(self.revision);
        // At most `MAX_GROUP_PRINCIPALS`.
        out.put_u16_le(self.pairs.len() as u16);
        for (user, credential) in &self.pairs {
            out.put_u64_le(*user);
            out.put_u64_le(*credential);
        }
    }
}

/// The same as it lies in an encoded group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Principals<'a> {
    revision: u64,
    pairs: &'a [u8],
}

impl<'a> Principals<'a> {
    /// Of a group without any.
    pub(crate) const NONE: Principals<'static> = Principals {
        revision: u64::MAX,
        pairs: &[],
    };

    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Principals<'a>, DecodeError> {
        let what = "principals of a group";
        let revision = reader.u64(what)?;
        let count = usize::from(u16::from_le_bytes(reader.array(what)?));
        if count == 0 || count > MAX_GROUP_PRINCIPALS {
            return Err(DecodeError::Invalid { what });
        }
        let pairs = reader.take(count * PAIR_BYTES, what)?;
        Ok(Principals { revision, pairs })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = Principal> + use<'a> {
        let revision = self.revision;
        let mut pairs = Reader::new(self.pairs);
        std::iter::from_fn(move || {
            Some(Principal {
                user: pairs.u64("user").ok()?,
                credential: pairs.u64("credential").ok()?,
                revision,
            })
        })
    }

    /// Whether each of them stands. Where there is no table, no user exists.
    pub(crate) fn stand(&self, users: Option<&UserTable>) -> bool {
        self.iter().all(|principal| {
            let principal = ignoring_credential(principal);
            users.is_some_and(|users| users.standing(principal) == Standing::Stands)
        })
    }
}

#[cfg(not(memkv_bugs))]
const fn ignoring_credential(principal: Principal) -> Principal {
    principal
}

#[cfg(memkv_bugs)]
fn ignoring_credential(principal: Principal) -> Principal {
    match crate::bugs::active(crate::bugs::Bug::IgnoreCredential) {
        true => Principal {
            credential: BY_CERTIFICATE,
            ..principal
        },
        false => principal,
    }
}
