//! `memkv_server cert`: a CA, certificates of nodes and clients, and what a certificate says, for clusters
//! without a CA of their own.
//!
//! Never overwrites a file, and never writes a key that others can read.

mod arguments;
mod make;
mod show;

use std::io;
use std::path::PathBuf;

use memkv_proto::secret::SecretError;

pub(crate) use arguments::{args, command};

use crate::console;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertArgs {
    /// Make a CA: `ca.crt` and `ca.key`.
    Init {
        /// Where the files are.
        dir: PathBuf,
        /// How long the certificate holds.
        days: u32,
    },
    /// Make a certificate: `NAME.crt` and `NAME.key`.
    Issue {
        /// Where the files are.
        dir: PathBuf,
        /// How long the certificate holds.
        days: u32,
        /// The node's name, or that of a client's files.
        name: String,
        /// Names and addresses under which it is reached.
        hosts: Vec<String>,
        /// What it is for.
        role: CertRole,
    },
    /// Print what certificates say.
    Show {
        /// Files in PEM.
        files: Vec<PathBuf>,
    },
}

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertRole {
    /// A node of this cluster.
    Node {
        /// The cluster's name.
        cluster: String,
    },
    /// A client, as this user.
    Client {
        /// The user's name.
        user: String,
    },
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum CertError {
    #[error("{} is there already: move it away, or use another --dir", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {}: {source}; {next}", path.display())]
    Read {
        path: PathBuf,
        source: io::Error,
        next: &'static str,
    },
    #[error("{}: {source}", path.display())]
    Open { path: PathBuf, source: SecretError },
    #[error("{}: {why}", path.display())]
    Content { path: PathBuf, why: String },
    #[error("{0}")]
    Request(String),
}

/// Does it; returns the exit code.
pub fn run(args: &CertArgs) -> u8 {
    let done = match args {
        CertArgs::Init { dir, days } => make::init(dir, *days),
        CertArgs::Issue {
            dir,
            days,
            name,
            hosts,
            role,
        } => make::issue(dir, *days, name, hosts, role),
        CertArgs::Show { files } => show::files(files),
    };
    match done {
        Ok(text) => {
            console::out(text);
            0
        }
        Err(error) => {
            console::error(error);
            1
        }
    }
}

#[cfg(test)]
mod tests;
