//! The description of a command: the columns of the table. Never executes
//! anything; parsing, arity errors, `COMMAND *` and the documentation are all read from here.

use std::sync::LazyLock;

use memkv_resp::Request;

use super::error_reply::ErrorReply;
use super::table::TABLE;
use super::{Account, Data, Local, Publish, TransactionControl, Wait};

/// One command, or one subcommand such as `client|id`.
pub(crate) struct Spec {
    /// In lower case; a subcommand behind its container's name and `|`.
    pub(crate) name: &'static str,
    /// Number of arguments, the name included (and the subcommand's); negative: at least so many.
    pub(crate) arity: i32,
    /// See [`flag`].
    pub(crate) flags: u32,
    /// Where the keys are.
    pub(crate) keys: Keys,
    /// The group of commands that it belongs to.
    pub(crate) group: Group,
    /// Version of Redis that had it first; for a command of ours, memkv's version.
    pub(crate) since: &'static str,
    /// Cost, as documented.
    pub(crate) complexity: &'static str,
    /// By what it is judged whether a user may have it executed, besides its name.
    pub(crate) judged: Judged,
    /// How it is executed.
    pub(crate) handler: Handler,
    /// One sentence.
    pub(crate) summary: &'static str,
}

/// Positions of keys among the arguments, the name being at 0; all 0: no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keys {
    /// First key.
    pub(crate) first: i32,
    /// Last key; negative: counted from the end.
    pub(crate) last: i32,
    /// From one key to the next.
    pub(crate) step: i32,
}

/// By what a call is judged. Each line of the table has one, or does not compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// By the keys that it names, as Redis does, and by what the store says that it touches.
    Touches,
    /// By its name alone: it touches neither keys nor channels, or a whole database, where patterns of keys do
    /// not count in Redis either.
    Nothing,
    /// By the keys that it names, whose values it does not read.
    Keys,
    /// By the channels that it names.
    Channels,
    /// By the patterns of channels that it names.
    Patterns,
    /// By the channel that is its first argument.
    Channel,
    /// By the keys that it names, and the commands that the script calls.
    Script,
}

/// Who executes a command.
#[derive(Clone, Copy)]
pub(crate) enum Handler {
    /// The store: the arguments become a command or a query.
    Data(Data),
    /// The connection's node, at once.
    Local(Local),
    /// The connection itself.
    TransactionControl(TransactionControl),
    /// The listeners of all nodes, and the connection counts them.
    Publish(Publish),
    /// The cluster's leader says when, and the connection waits.
    Wait(Wait),
    /// The connection, which may wait until a password has been checked or users have been changed.
    Account(Account),
    /// Nobody, ever: it is refused before anything else is looked at.
    Forbidden(&'static str),
    /// Nobody: a subcommand must be named.
    Container,
    /// A subcommand, or the node itself where none is named.
    ContainerOr(Local),
}

/// Groups of commands, as in Redis's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    String,
    Generic,
    Transactions,
    Scripting,
    Pubsub,
    Connection,
    Server,
    Cluster,
    Memkv,
}

impl Group {
    /// Every group, in the order of the documentation.
    pub(crate) const ALL: [Self; 9] = [
        Self::String,
        Self::Generic,
        Self::Transactions,
        Self::Scripting,
        Self::Pubsub,
        Self::Connection,
        Self::Server,
        Self::Cluster,
        Self::Memkv,
    ];

    /// Its name in `COMMAND DOCS`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Generic => "generic",
            Self::Transactions => "transactions",
            Self::Scripting => "scripting",
            Self::Pubsub => "pubsub",
            Self::Connection => "connection",
            Self::Server => "server",
            Self::Cluster => "cluster",
            Self::Memkv => "memkv",
        }
    }
}

/// Flags of a command, in the order in which Redis lists them.
pub(crate) mod flag {
    /// Changes keys.
    pub(crate) const WRITE: u32 = 1;
    /// Reads keys.
    pub(crate) const READONLY: u32 = 1 << 1;
    /// May make the data larger.
    pub(crate) const DENYOOM: u32 = 1 << 2;
    /// For operators.
    pub(crate) const ADMIN: u32 = 1 << 3;
    /// Publish and subscribe.
    pub(crate) const PUBSUB: u32 = 1 << 4;
    /// Not for scripts.
    pub(crate) const NOSCRIPT: u32 = 1 << 5;
    /// Answered while the node loads its data.
    pub(crate) const LOADING: u32 = 1 << 6;
    /// Answered without a leader.
    pub(crate) const STALE: u32 = 1 << 7;
    /// Left out of `MONITOR`, which memkv does not have.
    pub(crate) const SKIP_MONITOR: u32 = 1 << 8;
    /// Left out of the slow log in Redis; memkv's has all commands.
    pub(crate) const SKIP_SLOWLOG: u32 = 1 << 9;
    /// Short and of constant cost.
    pub(crate) const FAST: u32 = 1 << 10;
    /// Allowed before authentication.
    pub(crate) const NO_AUTH: u32 = 1 << 11;
    /// Not within MULTI.
    pub(crate) const NO_MULTI: u32 = 1 << 12;
    /// Allowed while a script runs; none ever runs for long.
    pub(crate) const ALLOW_BUSY: u32 = 1 << 13;
    /// Keys may be absent.
    pub(crate) const NO_MANDATORY_KEYS: u32 = 1 << 14;
    /// Where the keys are depends on the arguments.
    pub(crate) const MOVABLEKEYS: u32 = 1 << 15;

    /// The flags' names, by bit.
    pub(super) const NAMES: [&str; 16] = [
        "write",
        "readonly",
        "denyoom",
        "admin",
        "pubsub",
        "noscript",
        "loading",
        "stale",
        "skip_monitor",
        "skip_slowlog",
        "fast",
        "no_auth",
        "no_multi",
        "allow_busy",
        "no_mandatory_keys",
        "movablekeys",
    ];
}

/// Longest name in the table, so that looking one up needs no allocation.
const NAME_BYTES: usize = 32;

/// The table by the lengths of names, and by names within one length: a few comparisons find a line,
/// for less than the cost of a hash whose collisions no client can provoke.
struct Index {
    specs: Vec<&'static Spec>,
    /// Where the names of each length begin, and where the last ones end.
    begins: [usize; NAME_BYTES + 2],
}

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let mut specs: Vec<&Spec> = TABLE.iter().collect();
    specs.sort_by_key(|spec| (spec.name.len(), spec.name));
    let begins = std::array::from_fn(|len| specs.partition_point(|spec| spec.name.len() < len));
    Index { specs, begins }
});

/// The line of a command by its full name (`client|id`), whatever its case.
pub(crate) fn find(name: &[u8]) -> Option<&'static Spec> {
    let mut lower = [0; NAME_BYTES];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let Index { specs, begins } = &*INDEX;
    let specs = &specs[begins[name.len()]..begins[name.len() + 1]];
    let at = specs.binary_search_by(|spec| spec.name.as_bytes().cmp(lower));
    at.ok().map(|at| specs[at])
}

/// The line of the command that a request names, its arity checked.
///
/// # Errors
/// Redis's texts for a name, a subcommand or a number of arguments that there is not.
pub(crate) fn resolve(request: &Request) -> Result<&'static Spec, ErrorReply> {
    let spec = named(request)?;
    if spec.fits(request.arg_count()) {
        Ok(spec)
    } else {
        Err(ErrorReply::arity(spec.name))
    }
}

/// The same, whatever the number of its arguments.
pub(crate) fn named(request: &Request) -> Result<&'static Spec, ErrorReply> {
    let name = request.arg(0).unwrap_or_default();
    let spec = find(name).filter(|spec| !spec.is_subcommand());
    let spec = spec.ok_or_else(|| ErrorReply::unknown_command(request))?;
    match (spec.handler, request.arg(1)) {
        (Handler::Container | Handler::ContainerOr(_), Some(sub)) => {
            let full = [spec.name.as_bytes(), b"|", sub].concat();
            find(&full).ok_or_else(|| ErrorReply::unknown_subcommand(name, sub))
        }
        _ => Ok(spec),
    }
}

impl Spec {
    /// Whether a flag is set.
    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether the command's name is its container's and its own.
    pub(crate) fn is_subcommand(&self) -> bool {
        self.name.contains('|')
    }

    /// Whether a call may have so many arguments.
    pub(crate) fn fits(&self, arg_count: usize) -> bool {
        let needed = self.arity.unsigned_abs() as usize;
        if self.arity < 0 {
            arg_count >= needed
        } else {
            arg_count == needed
        }
    }

    /// Names of the flags.
    pub(crate) fn flag_names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let flags = self.flags;
        let names = flag::NAMES.into_iter().enumerate();
        names
            .filter(move |(bit, _)| flags & (1 << bit) != 0)
            .map(|(_, name)| name)
    }

    /// Categories for access lists, which follow from flags and group, with Redis's exceptions.
    pub(crate) fn categories(&self) -> Vec<&'static str> {
        let with = |is: bool, name| is.then_some(name);
        let of = |group, name| {
            let is_container = matches!(self.handler, Handler::Container);
            with(self.group == group && !is_container, name)
        };
        let is_data = matches!(self.handler, Handler::Data(_));
        let touches_keys = is_data
            && matches!(self.group, Group::Generic | Group::Server)
            && !self.has(flag::ADMIN);
        let of_script = self.group == Group::Scripting;
        let is_admin = self.has(flag::ADMIN) || matches!(self.name, "role" | "lastsave");
        let is_dangerous = matches!(self.name, "keys" | "flushdb" | "flushall" | "info");
        let is_connection = matches!(self.name, "wait" | "waitaof" | "readonly" | "readwrite")
            || self.name.starts_with("command");
        // The order is Redis's.
        [
            with(touches_keys && self.name != "memory|usage", "@keyspace"),
            with(self.name == "object|help", "@keyspace"),
            with(self.has(flag::READONLY) && !of_script, "@read"),
            with(self.has(flag::WRITE), "@write"),
            of(Group::String, "@string"),
            with(self.has(flag::PUBSUB), "@pubsub"),
            with(is_admin, "@admin"),
            Some(if self.has(flag::FAST) {
                "@fast"
            } else {
                "@slow"
            }),
            with(is_admin || is_dangerous, "@dangerous"),
            of(Group::Connection, "@connection"),
            with(is_connection, "@connection"),
            of(Group::Transactions, "@transaction"),
            of(Group::Scripting, "@scripting"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Its place in the table, which every line is part of.
    pub(crate) fn index(&self) -> usize {
        let begin = TABLE.as_ptr().addr();
        (std::ptr::from_ref(self).addr() - begin) / size_of::<Self>()
    }

    /// Whether it is in a category, named without its `@`.
    pub(crate) fn is_in(&self, category: &str) -> bool {
        let is = |known: &str| known.strip_prefix('@') == Some(category);
        self.categories().into_iter().any(is)
    }

    /// The subcommands of a container.
    pub(crate) fn subcommands(&self) -> impl Iterator<Item = &'static Spec> + use<> {
        let container = self.name;
        TABLE.iter().filter(move |spec| {
            let rest = spec.name.strip_prefix(container);
            rest.is_some_and(|rest| rest.starts_with('|'))
        })
    }

    /// The positions of the keys in a call with `arg_count` arguments. Nothing if the call cannot
    /// have keys there.
    pub(crate) fn key_positions(&self, arg_count: usize) -> Vec<usize> {
        let Keys { first, last, step } = self.keys;
        let count = i32::try_from(arg_count).unwrap_or(i32::MAX);
        let last = if last < 0 { count + last } else { last };
        if first == 0 || step == 0 || last >= count {
            return Vec::new();
        }
        let positions = (first..=last).step_by(step.unsigned_abs() as usize);
        positions
            .filter_map(|at| usize::try_from(at).ok())
            .collect()
    }
}

/// Commands that clients see: without subcommands.
pub(crate) fn commands() -> impl Iterator<Item = &'static Spec> {
    TABLE.iter().filter(|spec| !spec.is_subcommand())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_found_by_its_name_in_any_case() {
        for spec in TABLE {
            assert!(spec.name.len() <= NAME_BYTES, "{}", spec.name);
            for name in [spec.name.to_owned(), spec.name.to_uppercase()] {
                let found = find(name.as_bytes()).expect("in the table");
                assert!(std::ptr::eq(found, spec), "{name} is there twice");
            }
        }
        assert!(find(b"nosuch").is_none() && find(&[b'x'; 100]).is_none());
    }

    #[test]
    fn lines_are_complete_and_consistent() {
        for spec in TABLE {
            assert!(spec.arity != 0, "{}", spec.name);
            assert!(spec.summary.ends_with('.'), "{}", spec.name);
            assert!(
                !(spec.has(flag::WRITE) && spec.has(flag::READONLY)),
                "{}",
                spec.name
            );
            let has_subcommands = spec.subcommands().next().is_some();
            let is_container = matches!(spec.handler, Handler::Container | Handler::ContainerOr(_));
            assert_eq!(has_subcommands, is_container, "{}", spec.name);
            if let Some((container, _)) = spec.name.split_once('|') {
                assert!(find(container.as_bytes()).is_some(), "{}", spec.name);
            }
        }
    }

    #[test]
    fn keys_of_a_call() {
        let keys = |name: &str, count| find(name.as_bytes()).unwrap().key_positions(count);
        assert_eq!(keys("get", 2), [1]);
        assert_eq!(keys("mset", 5), [1, 3]);
        assert_eq!(keys("del", 4), [1, 2, 3]);
        assert_eq!(keys("ping", 1), [0; 0]);
    }
}
