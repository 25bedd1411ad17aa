//! The table of users as connections use it: the rules compiled, the secrets at hand. Compiled once for each
//! revision of the replicated table, and shared.
//!
//! A cluster without a table has the one user `default`, who may do everything, with the password of the
//! configuration or without one. Never changes the replicated table.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use memkv_node::seldom::Seldom;
use memkv_store::{
    DEFAULT_USER, NO_CREDENTIAL, NO_TABLE, Principal, Secret, SecretKind, UserTable,
};

use super::grammar::Rules;
use crate::password::Password;

/// Rules of a newer build are seen again with each revision.
static UNKNOWN_RULES: Seldom = Seldom::new();

/// A user.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) name: Bytes,
    /// Never that of another user, also not of one that gets the name later; [`NO_TABLE`] without a table.
    pub(crate) id: u64,
    /// The revision of the table that changed it last.
    pub(crate) changed_at: u64,
    pub(crate) enabled: bool,
    pub(crate) nopass: bool,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) rules: Rules,
    /// This version understands its rules; if not, it may do nothing, and this node does not change it.
    pub(crate) is_understood: bool,
    /// It may do everything.
    pub(crate) is_all: bool,
}

impl User {
    /// Whether one who has shown this credential is still this user.
    pub(crate) fn accepts(&self, id: u64, credential: u64) -> bool {
        let shown = match credential {
            NO_CREDENTIAL => self.nopass,
            memkv_store::BY_CERTIFICATE => true,
            credential => self.secrets.iter().any(|secret| secret.id() == credential),
        };
        self.id == id && self.enabled && shown
    }

    /// Of a user of the replicated table.
    pub(super) fn of(user: &memkv_store::User) -> Self {
        let parsed = Rules::parse(&user.rules);
        let is_understood = parsed.is_ok();
        let rules = parsed.unwrap_or_else(|why| {
            if let Some(left_out) = UNKNOWN_RULES.say() {
                tracing::warn!(
                    user = %user.name.escape_ascii(), %why, left_out,
                    "this version does not understand the user's rules, and allows it nothing"
                );
            }
            Rules::default()
        });
        Self {
            name: user.name.clone(),
            id: user.id,
            changed_at: user.changed_at,
            enabled: user.enabled,
            nopass: user.nopass,
            secrets: user
                .secrets
                .iter()
                .map(|(secret, _)| secret.clone())
                .collect(),
            is_understood,
            is_all: rules.is_all(),
            rules,
        }
    }

    /// The user of a cluster without a table.
    fn alone(password: Option<&Password>) -> Self {
        let secrets = |password: &Password| {
            let fast = Secret::new(SecretKind::Sha256(*password.sha256()));
            [password.secret(), fast]
        };
        Self {
            name: Bytes::from_static(DEFAULT_USER),
            id: NO_TABLE,
            changed_at: 0,
            enabled: true,
            nopass: password.is_none(),
            secrets: password.into_iter().flat_map(secrets).collect(),
            rules: Rules::everything(),
            is_understood: true,
            is_all: true,
        }
    }
}

/// All users at one revision.
#[derive(Debug)]
pub(crate) struct Table {
    /// Of the replicated table; 0 without one.
    pub(crate) revision: u64,
    users: BTreeMap<Bytes, Arc<User>>,
    default: Arc<User>,
    /// Whose token has this SHA-256.
    tokens: HashMap<[u8; 32], Bytes>,
}

impl Table {
    /// Of a cluster without a table.
    pub(super) fn alone(password: Option<&Password>) -> Self {
        let default = Arc::new(User::alone(password));
        Self {
            revision: 0,
            users: BTreeMap::from([(default.name.clone(), default.clone())]),
            default,
            tokens: HashMap::new(),
        }
    }

    /// Of a replicated table; users that have not changed are taken over from the last one.
    pub(super) fn of(table: &UserTable, last: &Self) -> Self {
        let mut users = BTreeMap::new();
        let mut tokens = HashMap::new();
        for user in table.users() {
            let same =
                |known: &&Arc<User>| known.id == user.id && known.changed_at == user.changed_at;
            let known = last.users.get(&user.name).filter(same).cloned();
            let known = known.unwrap_or_else(|| Arc::new(User::of(user)));
            for secret in &known.secrets {
                if let SecretKind::Token { sha256, .. } = secret.kind() {
                    tokens.insert(*sha256, known.name.clone());
                }
            }
            users.insert(known.name.clone(), known);
        }
        // There is always one.
        let default = users.get(DEFAULT_USER).unwrap_or(&last.default).clone();
        Self {
            revision: table.revision(),
            users,
            default,
            tokens,
        }
    }

    /// Whether the cluster has a table.
    pub(crate) fn is_replicated(&self) -> bool {
        self.revision > 0
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&Arc<User>> {
        self.users.get(name)
    }

    /// The user of connections that have shown nothing.
    pub(crate) fn default_user(&self) -> &Arc<User> {
        &self.default
    }

    /// The user whose token has this SHA-256.
    pub(super) fn token_of(&self, sha256: &[u8; 32]) -> Option<&Arc<User>> {
        self.get(self.tokens.get(sha256)?)
    }

    /// When the next token expires after this log time.
    pub(crate) fn next_expiry(&self, now_ms: u64) -> Option<u64> {
        let secrets = self.users.values().flat_map(|user| &user.secrets);
        let expiries = secrets.filter_map(expiry);
        expiries.filter(|at| *at > now_ms).min()
    }

    /// All users, by name.
    pub(crate) fn users(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.values()
    }
}

/// When a secret expires, if ever.
fn expiry(secret: &Secret) -> Option<u64> {
    match secret.kind() {
        SecretKind::Token { expires_at_ms, .. } => Some(*expires_at_ms),
        SecretKind::Password(_) | SecretKind::Sha256(_) => None,
    }
}

/// Who is on the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) user: Arc<User>,
    /// The secret that was shown; see [`Principal::credential`].
    pub(crate) credential: u64,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        (self.user.id, self.credential) == (other.user.id, other.credential)
    }
}

impl Eq for Identity {}

impl Identity {
    /// As the user is in a newer table; nothing if it is gone, disabled, or without the credential. The
    /// user of a cluster without a table becomes the `default` of its first one.
    pub(crate) fn renewed(&self, table: &Table) -> Option<Self> {
        let user = table.get(&self.user.name)?;
        let id = match self.user.id {
            NO_TABLE => user.id,
            id => id,
        };
        user.accepts(id, self.credential).then(|| Self {
            user: user.clone(),
            credential: self.credential,
        })
    }

    /// Whether it has shown a token that has expired at this log time.
    pub(crate) fn has_expired(&self, now_ms: u64) -> bool {
        let mut secrets = self.user.secrets.iter();
        let shown = secrets.find(|secret| secret.id() == self.credential);
        shown.and_then(expiry).is_some_and(|at| at <= now_ms)
    }

    /// For whom its commands are executed.
    pub(crate) fn principal(&self, revision: u64) -> Principal {
        Principal {
            user: self.user.id,
            credential: self.credential,
            revision,
        }
    }
}
