//! Power cuts at a certain step, which a random one would hardly ever hit.
//! Never cuts anything itself; the parent module does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Op;

/// The kinds of steps that change the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A file gets a name and no contents.
    Create,
    /// Contents or the length of a file.
    Write,
    /// Contents or a directory become durable.
    Sync,
    /// A name becomes another one; the path is the old one.
    Rename,
    /// A name is removed.
    Remove,
}

impl Step {
    pub(super) fn fails_as(self) -> Option<Op> {
        match self {
            Self::Create | Self::Write => Some(Op::Write),
            Self::Sync => Some(Op::Sync),
            Self::Rename | Self::Remove => None,
        }
    }
}

/// Decides for each step whether the power is cut during it, from the path and the names of all files.
pub type Strike = Arc<dyn Fn(Step, &Path, &BTreeMap<PathBuf, u64>) -> bool + Send + Sync>;

/// The target of a step, a file by its number.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    File(u64),
    Path(&'a Path),
}
