//! Error replies: Redis's texts, byte for byte, where Redis has the case, and the
//! error table's prefixes where the cluster could not do it. Never logs, never decides whether
//! something was executed.

use std::borrow::Cow;

use memkv_node::RequestError;
use memkv_proto::ErrorCode;
use memkv_resp::Request;

use crate::drain::STOPPING;
use crate::failure;
use crate::rights::{AuthError, Denied};
use crate::service::{OLD_RIGHTS, ServiceError};

/// How much of a name and of its arguments an error repeats, as in Redis.
const ECHO_BYTES: usize = 128;

/// The text of an error reply, its code first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ErrorReply(Cow<'static, [u8]>);

impl ErrorReply {
    pub(crate) const SYNTAX: Self = Self::new("ERR syntax error");
    pub(crate) const NOT_AN_INTEGER: Self =
        Self::new("ERR value is not an integer or out of range");
    pub(crate) const NOT_A_FLOAT: Self = Self::new("ERR value is not a valid float");
    pub(crate) const DB_INDEX: Self = Self::new("ERR DB index is out of range");
    pub(crate) const EXEC_ABORT: Self =
        Self::new("EXECABORT Transaction discarded because of previous errors.");
    pub(crate) const OUT_OF_MEMORY: Self =
        Self::new("OOM command not allowed when used memory > 'maxmemory'.");
    pub(crate) const NO_AUTH: Self = Self::new("NOAUTH Authentication required.");
    pub(crate) const WRONG_PASS: Self =
        Self::new("WRONGPASS invalid username-password pair or user is disabled.");

    /// Another machine asks for a user without a password.
    pub(crate) const EXPOSED: Self = Self::new(
        "DENIED this user has no password, so only clients of the node's own machine may be this user; \
         give it one, or say --nopass-from everywhere if the network is trusted",
    );

    pub(crate) const fn new(text: &'static str) -> Self {
        Self(Cow::Borrowed(text.as_bytes()))
    }

    /// A text with something of the request in it.
    pub(crate) fn with(text: impl Into<Vec<u8>>) -> Self {
        Self(Cow::Owned(text.into()))
    }

    /// The text, as a reply takes it.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether a call that is answered so was not executed, as Redis counts it: for lack of a right, of memory, or
    /// of data.
    pub(crate) fn is_rejection(&self) -> bool {
        let codes = [&b"NOPERM "[..], b"NOAUTH ", b"OOM ", b"LOADING "];
        codes.iter().any(|code| self.0.starts_with(code))
    }

    /// The same error, for an EXEC that was refused: the transaction is over.
    pub(crate) fn of_exec(&self) -> Self {
        let why = self.0.strip_prefix(b"ERR ").unwrap_or(&self.0);
        Self::with([b"EXECABORT Transaction discarded because of: ", why].concat())
    }

    /// A user may not do this.
    pub(crate) fn denied(denied: &Denied) -> Self {
        Self::with(match denied {
            Denied::Command(name) => {
                format!("NOPERM this user has no permissions to run the '{name}' command")
            }
            Denied::Key(_) => {
                "NOPERM this user has no permissions to access one of the keys used as arguments"
                    .to_owned()
            }
            Denied::Channel(_) => {
                "NOPERM this user has no permissions to access one of the channels used as arguments"
                    .to_owned()
            }
        })
    }

    /// A command of a transaction that was allowed when it was queued.
    pub(crate) fn denied_in_exec(denied: &Denied) -> Self {
        let why = match denied {
            Denied::Command(_) => "no permission to execute the command or subcommand",
            Denied::Key(_) => "no permission to touch the specified keys",
            Denied::Channel(_) => "no permission to access one of the channels used as arguments",
        };
        Self::with(format!(
            "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC \
             call. This command is no longer allowed for the following reason: {why}"
        ))
    }

    /// Why a client was not authenticated.
    pub(crate) fn not_authenticated(error: AuthError) -> Self {
        match error {
            AuthError::Wrong => Self::WRONG_PASS,
            AuthError::Exposed => Self::EXPOSED,
            AuthError::Busy => Self::of(
                ErrorCode::Overloaded,
                "too many clients authenticate at once; try again",
            ),
        }
    }

    pub(crate) fn arity(name: &str) -> Self {
        Self::with(format!(
            "ERR wrong number of arguments for '{name}' command"
        ))
    }

    pub(crate) fn unknown_command(request: &Request) -> Self {
        let mut args = Vec::new();
        for arg in request.args().skip(1) {
            if args.len() >= ECHO_BYTES {
                break;
            }
            let left = ECHO_BYTES - args.len();
            args.push(b'\'');
            args.extend_from_slice(shown(arg, left));
            args.extend_from_slice(b"' ");
        }
        let name = shown(request.arg(0).unwrap_or_default(), ECHO_BYTES);
        Self::with(
            [
                b"ERR unknown command '",
                name,
                b"', with args beginning with: ",
                &args,
            ]
            .concat(),
        )
    }

    pub(crate) fn unknown_subcommand(name: &[u8], sub: &[u8]) -> Self {
        let sub = shown(sub, ECHO_BYTES);
        let name = name.to_ascii_uppercase();
        Self::with(
            [
                b"ERR unknown subcommand '",
                sub,
                b"'. Try ",
                &name,
                b" HELP.",
            ]
            .concat(),
        )
    }

    /// A subcommand that is there, with more arguments than it takes.
    pub(crate) fn subcommand_syntax(name: &str, sub: &[u8]) -> Self {
        let sub = &sub[..sub.len().min(ECHO_BYTES)];
        let container = name.split('|').next().unwrap_or_default().to_uppercase();
        let text = b"ERR unknown subcommand or wrong number of arguments for '";
        Self::with([text, sub, b"'. Try ", container.as_bytes(), b" HELP."].concat())
    }

    /// A line of the error table and what happened here.
    pub(crate) fn of(code: ErrorCode, detail: &str) -> Self {
        Self::with(format!("{} {detail}", code.info().resp))
    }

    /// While the node may not act by the rights that it knows.
    pub(crate) fn old_rights() -> Self {
        Self::of(ErrorCode::NoLeader, OLD_RIGHTS)
    }

    /// While the node is stopping.
    pub(crate) fn stopping() -> Self {
        Self::of(ErrorCode::Loading, STOPPING)
    }

    /// While the node has no data yet.
    pub(crate) fn loading() -> Self {
        Self::of(
            ErrorCode::Loading,
            "memkv is loading the dataset in memory; nothing was executed",
        )
    }
}

impl From<&RequestError> for ErrorReply {
    fn from(error: &RequestError) -> Self {
        Self::of(failure::code(error), &failure::detail(error))
    }
}

impl From<&ServiceError> for ErrorReply {
    fn from(error: &ServiceError) -> Self {
        match error {
            ServiceError::Loading => Self::loading(),
            ServiceError::Memory => Self::of(ErrorCode::Overloaded, &error.to_string()),
            ServiceError::Request(error) => Self::from(error),
        }
    }
}

/// The part of an argument that an error repeats: at most `limit` bytes of it, and nothing from a zero
/// byte on, as in Redis.
fn shown(arg: &[u8], limit: usize) -> &[u8] {
    let end = arg.iter().position(|byte| *byte == 0);
    &arg[..end.unwrap_or(arg.len()).min(limit)]
}
