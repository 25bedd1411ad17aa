//! The table of users.
//!
//! It knows nothing of passwords' hashing and of rules' meaning. Invariants: the revision rises with each
//! change; a user's id is the revision that made it, so no other user ever has it; there is a user
//! `default`; numbers and sizes are within the limits below; `narrowed_at` rises whenever the user is
//! disabled, loses `nopass`, or is changed by a command that says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::Secret;
use crate::ReplyError;

/// The most users of a table.
pub const MAX_USERS: usize = 1_000;

/// The longest name of a user, in bytes.
pub const MAX_USER_NAME_BYTES: usize = 128;

/// The longest rules of one user, in bytes.
pub const MAX_RULES_BYTES: usize = 16 * 1024;

/// The most secrets of one user.
pub const MAX_SECRETS: usize = 16;

/// The most bytes of a whole table: it is encoded in one piece into snapshots, in some milliseconds.
pub const MAX_USER_TABLE_BYTES: usize = 4 * 1024 * 1024;

/// The name of the user of connections that have not authenticated, which cannot be removed.
pub const DEFAULT_USER: &[u8] = b"default";

/// The assumed bytes of a user or a secret besides its text. Fixed rather than measured, because every node
/// must refuse the same users.
const OVERHEAD_BYTES: usize = 64;

/// A user as a command describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserSpec {
    /// Whether it may authenticate and have commands executed.
    pub enabled: bool,
    /// Whether it needs no secret.
    pub nopass: bool,
    /// Its secrets, at most [`MAX_SECRETS`]; one that is named twice counts once.
    pub secrets: Vec<Secret>,
    /// Its rights in the grammar of the edge, at most [`MAX_RULES_BYTES`]. They never hold a secret.
    pub rules: Bytes,
}

/// A user in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: Bytes,
    /// The revision of the table that made it; never reused.
    pub id: u64,
    /// The revision that last changed it.
    pub changed_at: u64,
    /// The revision that last took a right from it.
    pub narrowed_at: u64,
    /// See [`UserSpec::enabled`].
    pub enabled: bool,
    /// See [`UserSpec::nopass`].
    pub nopass: bool,
    /// Its secrets, each with the revision that added it.
    pub secrets: Vec<(Secret, u64)>,
    /// See [`UserSpec::rules`].
    pub rules: Bytes,
}

impl User {
    /// The revision that added the secret with this id; nothing if the user does not have it.
    pub fn secret_since(&self, id: u64) -> Option<u64> {
        let found = self.secrets.iter().find(|(secret, _)| secret.id() == id);
        found.map(|(_, since)| *since)
    }

    /// The description of the user as it is.
    pub fn spec(&self) -> UserSpec {
        UserSpec {
            enabled: self.enabled,
            nopass: self.nopass,
            secrets: self
                .secrets
                .iter()
                .map(|(secret, _)| secret.clone())
                .collect(),
            rules: self.rules.clone(),
        }
    }

    fn cost(&self) -> usize {
        cost(&self.name, &self.rules, self.secrets.len())
    }
}

/// The assumed bytes of a user in the table.
fn cost(name: &[u8], rules: &[u8], secrets: usize) -> usize {
    let secret = OVERHEAD_BYTES + super::MAX_PASSWORD_BYTES;
    OVERHEAD_BYTES + name.len() + rules.len() + secrets * secret
}

impl UserSpec {
    /// Whether it is within the limits.
    pub(crate) fn is_within_limits(&self) -> bool {
        self.secrets.len() <= MAX_SECRETS
            && self.rules.len() <= MAX_RULES_BYTES
            && self.secrets.iter().all(Secret::is_within_limits)
    }

    fn cost(&self, name: &[u8]) -> usize {
        cost(name, &self.rules, self.secrets.len())
    }
}

pub(crate) fn check_name(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= MAX_USER_NAME_BYTES
}

/// Whether so many of these names may be removed by one command.
pub(crate) fn check_names(names: &[Bytes]) -> bool {
    names.len() <= MAX_USERS && names.iter().all(|name| check_name(name))
}

/// Whether these may be the users of a first table: within every limit, each once, `default` among them.
pub(crate) fn check_users(users: &[(Bytes, UserSpec)]) -> bool {
    let names: std::collections::BTreeSet<&[u8]> =
        users.iter().map(|(name, _)| &name[..]).collect();
    let fits = |(name, user): &(Bytes, UserSpec)| check_name(name) && user.is_within_limits();
    let cost: usize = users.iter().map(|(name, user)| user.cost(name)).sum();
    users.len() <= MAX_USERS
        && users.iter().all(fits)
        && names.len() == users.len()
        && names.contains(DEFAULT_USER)
        && cost <= MAX_USER_TABLE_BYTES
}

/// The users of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserTable {
    revision: u64,
    by_name: BTreeMap<Bytes, Arc<User>>,
    by_id: BTreeMap<u64, Arc<User>>,
}

/// Reading.
impl UserTable {
    /// The revision of the last change; never 0.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The user of this name.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<User>> {
        self.by_name.get(name)
    }

    /// The user with this id.
    pub fn by_id(&self, id: u64) -> Option<&Arc<User>> {
        self.by_id.get(&id)
    }

    /// All users, by name.
    pub fn users(&self) -> impl ExactSizeIterator<Item = &Arc<User>> {
        self.by_name.values()
    }
}

/// Changing.
impl UserTable {
    /// The first table; nothing if the users are not ones that a table can begin with.
    pub fn first(users: &[(Bytes, UserSpec)]) -> Option<UserTable> {
        if !check_users(users) {
            return None;
        }
        let mut table = UserTable {
            revision: 0,
            by_name: BTreeMap::new(),
            by_id: BTreeMap::new(),
        };
        for (name, user) in users {
            table.replace(name, user, false);
        }
        Some(table)
    }

    /// A table of a snapshot; nothing if the users could not have come about.
    pub(super) fn restore(revision: u64, users: Vec<User>) -> Option<UserTable> {
        let mut table = UserTable {
            revision,
            by_name: BTreeMap::new(),
            by_id: BTreeMap::new(),
        };
        for user in users {
            let since = user.secrets.iter().map(|(_, since)| *since);
            let first = since
                .clone()
                .chain([user.changed_at, user.narrowed_at])
                .min();
            let last = since.chain([user.changed_at, user.narrowed_at]).max();
            let fits = user.id > 0 && first >= Some(user.id) && last <= Some(revision);
            let user = Arc::new(user);
            let is_new = table
                .by_name
                .insert(user.name.clone(), Arc::clone(&user))
                .is_none()
                && table.by_id.insert(user.id, user).is_none();
            if !fits || !is_new {
                return None;
            }
        }
        let users: Vec<_> = table
            .users()
            .map(|user| (user.name.clone(), user.spec()))
            .collect();
        check_users(&users).then_some(table)
    }

    /// Makes a user, or replaces the one that was last changed at `expected`. Nothing if another one
    /// is there, or none.
    ///
    /// # Errors
    ///
    /// `TooManyUsers` if the table would exceed a limit.
    pub(super) fn set(
        &mut self,
        name: &Bytes,
        expected: u64,
        user: &UserSpec,
        narrows: bool,
    ) -> Result<Option<Arc<User>>, ReplyError> {
        let old = self.get(name);
        if old.map_or(0, |old| old.changed_at) != expected {
            return Ok(None);
        }
        let others = self.users().map(|user| user.cost()).sum::<usize>();
        let others = others - old.map_or(0, |old| old.cost());
        let is_full = old.is_none() && self.by_name.len() >= MAX_USERS;
        if is_full || others + user.cost(name) > MAX_USER_TABLE_BYTES {
            return Err(ReplyError::TooManyUsers);
        }
        Ok(Some(self.replace(name, user, narrows)))
    }

    /// Puts a user in place of the one of its name, if there is one.
    fn replace(&mut self, name: &Bytes, spec: &UserSpec, narrows: bool) -> Arc<User> {
        self.revision += 1;
        let revision = self.revision;
        let old = self.by_name.get(name);
        let mut secrets: Vec<(Secret, u64)> = Vec::with_capacity(spec.secrets.len());
        for secret in &spec.secrets {
            if secrets.iter().all(|(known, _)| known != secret) {
                let since = old.and_then(|old| old.secret_since(secret.id()));
                secrets.push((secret.clone(), since.unwrap_or(revision)));
            }
        }
        let lost = |old: &Arc<User>| {
            narrows || (old.enabled && !spec.enabled) || (old.nopass && !spec.nopass)
        };
        let narrowed_at = match old {
            Some(old) if !lost(old) => old.narrowed_at,
            _ => revision,
        };
        let user = Arc::new(User {
            name: name.clone(),
            id: old.map_or(revision, |old| old.id),
            changed_at: revision,
            narrowed_at,
            enabled: spec.enabled,
            nopass: spec.nopass,
            secrets,
            rules: spec.rules.clone(),
        });
        self.by_id.insert(user.id, Arc::clone(&user));
        self.by_name.insert(name.clone(), Arc::clone(&user));
        user
    }

    /// Removes users, but not `default`; returns their number. The revision rises if it is not 0.
    pub(super) fn remove(&mut self, names: &[Bytes]) -> usize {
        let before = self.by_name.len();
        for name in names.iter().filter(|name| name[..] != *DEFAULT_USER) {
            if let Some(user) = self.by_name.remove(name) {
                self.by_id.remove(&user.id);
            }
        }
        let removed = before - self.by_name.len();
        self.revision += u64::from(removed > 0);
        removed
    }
}
