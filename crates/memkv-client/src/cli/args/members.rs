//! Arguments about members and leadership, and the commands of Redis's protocol that they become.
//! Never decides whether a change is safe: the cluster does.

use std::ffi::OsString;

use clap::Subcommand;

/// What to do with members. A node joins by itself: start it with `memkv_server --join`.
#[derive(Debug, Subcommand)]
pub(crate) enum Member {
    /// Prints a line for each member, as the leader sees it, and how many may fail
    List,
    /// Says whether the cluster can spare a node now, and why; exits 1 if it cannot
    CheckStop {
        /// The node [default: each one]
        name: Option<OsString>,
    },
    /// Expects a node of this NAME, or lets a removed one come back
    Add {
        /// The name: the id of its node_addr
        name: OsString,
        /// It is to have the data and no vote
        #[arg(long)]
        replica: bool,
        #[command(flatten)]
        how: How,
    },
    /// Lets the node leave; refused if the others could not go on without it
    Remove {
        /// The node
        name: OsString,
        #[command(flatten)]
        how: How,
    },
    /// Gives the place of OLD to NEW, which has joined already; OLD leaves
    Replace {
        /// The node that leaves
        old: OsString,
        /// The node that gets its place
        new: OsString,
        #[command(flatten)]
        how: How,
    },
    /// Lets a replica vote, as soon as the number of voters stays odd with it
    Promote {
        /// The node
        name: OsString,
        #[command(flatten)]
        how: How,
    },
    /// Takes the vote of a node, which stays as a replica
    Demote {
        /// The node
        name: OsString,
        #[command(flatten)]
        how: How,
    },
}

/// What to do with leadership.
#[derive(Debug, Subcommand)]
pub(crate) enum Leader {
    /// Hands leadership over
    Transfer {
        /// To this node [default: any that has the whole log]
        name: Option<OsString>,
        #[command(flatten)]
        how: How,
    },
}

/// How a change is made.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct How {
    /// Only says what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl How {
    fn put(self, mut words: Vec<OsString>) -> Vec<OsString> {
        if self.dry_run {
            words.push("DRYRUN".into());
        }
        words
    }
}

impl Member {
    /// The command that a node gets.
    pub(crate) fn words(self) -> Vec<OsString> {
        let about = |verb: &str, names: Vec<OsString>, how: How| {
            let words = vec!["MEMKV.CLUSTER".into(), verb.into()];
            how.put([words, names].concat())
        };
        match self {
            Member::List => vec!["MEMKV.CLUSTER".into(), "MEMBERS".into()],
            Member::CheckStop { name } => {
                let words = vec!["MEMKV.CLUSTER".into(), "CHECKSTOP".into()];
                words.into_iter().chain(name).collect()
            }
            Member::Add { name, replica, how } => {
                let role = if replica { "REPLICA" } else { "VOTER" };
                about("ADD", vec![name, role.into()], how)
            }
            Member::Remove { name, how } => about("REMOVE", vec![name], how),
            Member::Replace { old, new, how } => about("REPLACE", vec![old, new], how),
            Member::Promote { name, how } => about("PROMOTE", vec![name], how),
            Member::Demote { name, how } => about("DEMOTE", vec![name], how),
        }
    }
}

impl Leader {
    /// The same.
    pub(crate) fn words(self) -> Vec<OsString> {
        let Leader::Transfer { name, how } = self;
        let words = vec!["MEMKV.CLUSTER".into(), "TRANSFER".into()];
        how.put([words, name.into_iter().collect()].concat())
    }
}
