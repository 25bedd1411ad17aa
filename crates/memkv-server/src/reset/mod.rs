//! `memkv_server acl reset-admin`: a way back for an operator who has lost the passwords of a cluster. It leaves
//! a request in the directory of a stopped node; the node takes it into the cluster when it runs again
//! ([`apply`]). Access to a node's directory is as much as root, so nothing is given away.
//!
//! Never keeps a password, and never changes a directory on which a node works.

mod apply;

use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Arg, ArgMatches, Command, value_parser};
use memkv_disk::disk::real::RealDisk;
use memkv_disk::{OpenError, ResetAdmin, Stopped};
use memkv_proto::secret::{self, Access, MAX_SECRET_BYTES, SecretError};
use memkv_store::{MAX_USER_NAME_BYTES, SecretKind};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};

pub(crate) use apply::apply;

use crate::{console, rights};

/// The user, if none is named: not `default`, so that clients without a password go on.
const USER: &str = "admin";

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetArgs {
    /// The node's directory.
    pub data: PathBuf,
    /// The user.
    pub user: String,
    /// The file with its new password; the standard input without one.
    pub password_file: Option<PathBuf>,
}

/// Why nothing was left.
#[derive(Debug, thiserror::Error)]
enum ResetError {
    #[error(
        "{} holds no metadata of a node, neither itself nor in metadata/: name the directory that metadata_path \
         of the node's configuration is, or the one above it",
        .0.display()
    )]
    NoNode(PathBuf),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{}: {why}", path.display())]
    Identity { path: PathBuf, why: String },
    #[error("the name of a user has 1 to {MAX_USER_NAME_BYTES} bytes, and no white space")]
    Name,
    #[error("cannot read the password from {from}: {source}")]
    Read { from: String, source: io::Error },
    #[error("{from}: {source}")]
    Password { from: String, source: SecretError },
    #[error("the two passwords differ")]
    Differ,
    #[error("the password cannot be hashed: the system gives no 19 MiB of memory")]
    Hash,
}

/// The command `acl`.
pub(crate) fn command() -> Command {
    let data = Arg::new("data")
        .long("data")
        .value_name("DIR")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("The node's directory: metadata_path of its configuration, or the one above it");
    let user = Arg::new("user")
        .long("user")
        .value_name("NAME")
        .default_value(USER)
        .help("The user, who is made if there is none");
    let file = Arg::new("password-from")
        .long("password-from")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("File with the new password, which no other user can read [default: the standard input]");
    Command::new("acl")
        .about("Get back into a cluster whose passwords are lost")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("reset-admin")
                .about("Give a user all rights and a new password, at the next start of a node that is stopped")
                .arg(data)
                .arg(user)
                .arg(file),
        )
}

/// What was asked for.
pub(crate) fn args(matches: &ArgMatches) -> ResetArgs {
    let (_, inner) = matches.subcommand().unwrap_or(("", matches));
    let path = |name: &str| inner.get_one::<PathBuf>(name).cloned();
    ResetArgs {
        data: path("data").unwrap_or_default(),
        user: inner.get_one("user").cloned().unwrap_or_default(),
        password_file: path("password-from"),
    }
}

/// Does it; returns the exit code.
pub fn run(args: &ResetArgs) -> u8 {
    match request(args) {
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

fn request(args: &ResetArgs) -> Result<String, ResetError> {
    let name = args.user.as_bytes();
    let splits = |letter: char| letter.is_whitespace() || letter.is_control();
    if name.is_empty() || name.len() > MAX_USER_NAME_BYTES || args.user.contains(splits) {
        return Err(ResetError::Name);
    }
    let disk = RealDisk;
    let metadata = metadata_of(&args.data)?;
    let stopped = Stopped::open(&disk, &metadata)?;
    let cluster = memkv_node::cluster_of(stopped.identity.clone());
    let cluster = cluster.map_err(|why| ResetError::Identity {
        path: metadata.clone(),
        why,
    })?;
    let password = password(args.password_file.as_deref())?;
    let hashed = rights::hash(&password).ok_or(ResetError::Hash)?;
    let SecretKind::Password(hash) = hashed.kind() else {
        return Err(ResetError::Hash);
    };
    let request = ResetAdmin {
        cluster,
        user: Bytes::copy_from_slice(name),
        hash: hash.clone(),
        expected: None,
    };
    stopped.request(&disk, &request)?;
    Ok(format!(
        "Start the node. Once it is part of its cluster, the user {:?} has all rights there and this password\n\
         alone; the node's log and its audit log say so.",
        args.user
    ))
}

/// The directory with the metadata of a node.
fn metadata_of(data: &Path) -> Result<PathBuf, ResetError> {
    let candidates = [data.join("metadata"), data.to_path_buf()];
    let is_it = |candidate: &PathBuf| {
        ["metadata-a", "metadata-b"]
            .iter()
            .any(|file| candidate.join(file).exists())
    };
    let found = candidates.into_iter().find(is_it);
    found.ok_or_else(|| ResetError::NoNode(data.to_path_buf()))
}

/// The new password, from a file, from a person, or from a program.
fn password(file: Option<&Path>) -> Result<Vec<u8>, ResetError> {
    let from = file.map_or("the standard input".to_owned(), |path| {
        path.display().to_string()
    });
    let failed = |source| ResetError::Read {
        from: from.clone(),
        source,
    };
    let bytes = match file {
        Some(path) => {
            let file = File::open(path).map_err(failed)?;
            let told = file.metadata().map_err(failed)?;
            let access = Access {
                mode: told.mode(),
                owner: told.uid(),
                user: rustix::process::geteuid().as_raw(),
            };
            secret::check_access(access).map_err(|source| ResetError::Password {
                from: from.clone(),
                source,
            })?;
            all_of(file).map_err(failed)?
        }
        None if io::stdin().is_terminal() => {
            let first = ask("New password: ").map_err(failed)?;
            let second = ask("The same again: ").map_err(failed)?;
            if first != second {
                return Err(ResetError::Differ);
            }
            first
        }
        None => all_of(io::stdin()).map_err(failed)?,
    };
    let text = secret::password(&bytes);
    let text = text.map_err(|source| ResetError::Password { from, source })?;
    Ok(text.as_bytes().to_vec())
}

/// All bytes, one more than the limit at most.
fn all_of(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_SECRET_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A line from the terminal, which does not show it. Keys that would end the process end the line instead: the
/// terminal shows again what is typed, whatever the person does.
fn ask(prompt: &str) -> io::Result<Vec<u8>> {
    let before = tcgetattr(io::stdin())?;
    let interrupt = before.special_codes[SpecialCodeIndex::VINTR];
    let mut silent = before.clone();
    silent
        .local_modes
        .remove(LocalModes::ECHO | LocalModes::ISIG);
    silent.special_codes[SpecialCodeIndex::VEOL] = interrupt;
    tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
    console::prompt(prompt);
    let read = line_of(io::stdin().lock(), interrupt);
    tcsetattr(io::stdin(), OptionalActions::Flush, &before)?;
    console::prompt("\n");
    read
}

/// The bytes before the end of a line, or one more than the limit at most.
fn line_of(from: impl BufRead, interrupt: u8) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    for byte in from.bytes().take(MAX_SECRET_BYTES + 1) {
        match byte? {
            b'\n' => break,
            byte if byte == interrupt => return Err(io::Error::other("interrupted")),
            byte => line.push(byte),
        }
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_node_and_a_bad_name_are_refused_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let ask = |user: &str| {
            let args = ResetArgs {
                data: dir.path().to_owned(),
                user: user.to_owned(),
                password_file: None,
            };
            request(&args).unwrap_err().to_string()
        };
        assert!(ask("admin").contains("holds no metadata of a node"));
        for name in ["", "a b", "a\n", &"a".repeat(MAX_USER_NAME_BYTES + 1)] {
            assert!(ask(name).contains("the name of a user"), "{name:?}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
