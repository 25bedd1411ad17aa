//! Arguments about members and leadership, and the commands of Redis's protocol that they become.
//! Never decides whether a change is safe: the cluster does.

use std::ffi::OsString;
use std::time::Duration;

use clap::Subcommand;

/// What to do with members. A node joins by itself: start it with `memkv_server --join`.
#[derive(Debug, Subcommand)]
pub(crate) enum Member {
    /// Prints a line for each member, as the leader sees it, and how many may fail
    List {
        #[command(flatten)]
        waiting: Waiting,
    },
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
        /// Only says what would be done
        #[arg(long)]
        dry_run: bool,
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
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    waiting: Waiting,
}

/// How long to wait for the cluster.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Waiting {
    /// Ends only once nothing that was asked for is left to do; exits 1 if there is after TIME
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "60s",
        value_parser = super::ttl
    )]
    wait: Option<Duration>,
}

/// The command that a node gets, and how long to wait afterwards until nothing is left to do.
pub(crate) struct Request {
    pub(crate) words: Vec<OsString>,
    pub(crate) wait: Option<Duration>,
}

fn request(verb: &str, names: Vec<OsString>, dry_run: bool, wait: Option<Duration>) -> Request {
    let mut words = vec!["MEMKV.CLUSTER".into(), verb.into()];
    words.extend(names);
    if dry_run {
        words.push("DRYRUN".into());
    }
    Request { words, wait }
}

impl Member {
    /// Shows the members at once.
    pub(crate) const LIST: Member = Member::List {
        waiting: Waiting { wait: None },
    };

    /// What a node is asked.
    pub(crate) fn request(self) -> Request {
        let about = |verb: &str, names: Vec<OsString>, how: How| {
            request(verb, names, how.dry_run, how.waiting.wait)
        };
        match self {
            Member::List { waiting } => request("MEMBERS", Vec::new(), false, waiting.wait),
            Member::CheckStop { name } => {
                request("CHECKSTOP", name.into_iter().collect(), false, None)
            }
            Member::Add {
                name,
                replica,
                dry_run,
            } => {
                let role = if replica { "REPLICA" } else { "VOTER" };
                request("ADD", vec![name, role.into()], dry_run, None)
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
    pub(crate) fn request(self) -> Request {
        let Leader::Transfer { name, how } = self;
        let names = name.into_iter().collect();
        request("TRANSFER", names, how.dry_run, how.waiting.wait)
    }
}
