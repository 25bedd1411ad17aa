//! What a setting is: its name, the form of its value, its default and its effect.
//! Never a value in force.

/// The form of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory: a non-empty string. Relative ones are relative to the working directory.
    Path,
    /// A file that is read; empty for none.
    File,
    /// A whole number within these bounds, both included.
    Integer {
        /// The smallest value.
        min: u64,
        /// The largest value.
        max: u64,
    },
    /// `true` or `false`.
    Bool,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any of these letters; empty for none.
    Letters(&'static str),
    /// A short name of letters, digits, `.`, `-` and `_`; empty for none.
    Name,
    /// `host:port`, or empty for none.
    Addr,
    /// `{"addr": "host:port", "id": "n1"}`; as text `n1@host:port`.
    Node,
    /// A list of nodes; as text separated by commas, and empty for none.
    Nodes,
    /// A list of host names; as text separated by commas, and empty for none.
    Hosts,
    /// A list of addresses, `host:port`; as text separated by commas, and empty for none.
    Addrs,
}

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its key in `raft_config.json`.
    pub name: &'static str,
    /// The form of its value.
    pub kind: Kind,
    /// Its default, as text.
    pub default: &'static str,
    /// The unit of a number; empty if it has none.
    pub unit: &'static str,
    /// Its effect, in one sentence.
    pub doc: &'static str,
}
