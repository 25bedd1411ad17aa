//! Users as replicated state, and which parts of the data a command touches.
//!
//! The table says who exists, by which credentials, and when a right was taken away. Rights themselves
//! are text that the edge writes, compiles and judges by: the store never reads it. What the store decides is
//! whether a command that the edge has judged may still be executed: a [`Principal`] names the revision of
//! the table under which it was judged, and `apply` refuses what was narrowed since ([`UserTable::standing`]).
//!
//! There is no table in a cluster below [`EDGE_LEVEL`](crate::EDGE_LEVEL), and none in one that was raised
//! until a command initialises it: every command is then executed. Once there is one, a command without a
//! principal is refused: a node sent it that did not know of the table. Invariant: a command that was refused
//! for a principal is refused for that principal and revision for ever.

mod codec;
mod execute;
#[cfg(test)]
#[path = "../../tests/store/generators.rs"]
mod generators;
mod principal;
#[cfg(test)]
pub(crate) mod recording;
mod secret;
mod table;
mod touch;

pub(crate) use self::codec::{put_names, put_set_user, read_names, read_set_user};
pub(crate) use self::codec::{put_table, put_users, read_table, read_users};
pub(crate) use self::execute::{delete, init, set};
pub(crate) use self::principal::Principals;
pub use self::principal::{
    BY_CERTIFICATE, GroupRights, MAX_GROUP_PRINCIPALS, NO_CREDENTIAL, NO_TABLE, Principal, Standing,
};
pub use self::secret::{MAX_PASSWORD_BYTES, Secret, SecretKind};
pub use self::table::{
    DEFAULT_USER, MAX_RULES_BYTES, MAX_SECRETS, MAX_USER_NAME_BYTES, MAX_USER_TABLE_BYTES,
    MAX_USERS, User, UserSpec, UserTable,
};
pub(crate) use self::table::{check_name, check_names, check_users};
pub use self::touch::{Access, Touch, Touched};
