//! Copies of the whole state: how a running node takes one, and how a stopped directory is made from one.
//! Never knows the format of backup files: blocks of snapshots come in and go out.

pub(crate) mod restore;
pub(crate) mod salvage;
pub(crate) mod take;
