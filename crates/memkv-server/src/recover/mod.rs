//! `memkv_server recover`: makes a stopped node's directory that of a new cluster of one node, with all that it still
//! holds. Salvage and restore in one command, for the node that is to go on.
//!
//! Never deletes a file of the old directory: they move aside, and the backup lies with them. Where it is cut short the
//! node does not start and says so; a second run goes on (`Recovery` in memkv-disk).

use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use memkv_disk::disk::real::RealDisk;
use memkv_disk::{Layout, OpenError, Recovery};
use memkv_store::HIGHEST_LEVEL;

use crate::console;
use crate::restore::{self, RestoreArgs};
use crate::salvage;
use crate::settings::{Settings, SettingsError};

/// What to recover, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoverArgs {
    /// How to restore; its file is not used.
    pub restore: RestoreArgs,
    /// Whether a directory is taken that its node has marked as one that must not be used.
    pub condemned: bool,
}

/// Why the directory is not that of a new cluster.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Salvage(#[from] salvage::Failure),
    #[error(transparent)]
    Directory(#[from] OpenError),
    #[error(
        "this node is the only one of its cluster that votes, and its directory is whole: it needs no recovery, so \
         start it"
    )]
    NotNeeded,
    #[error(
        "{why}; what was there is set aside, and its backup is {backup}. Mend this and run the same command again"
    )]
    Restore { why: String, backup: String },
}

/// The command.
pub(crate) fn command() -> Command {
    Command::new("recover")
        .about(
            "Where a majority of a cluster is lost for good: make this stopped node's directory that of a new cluster \
             of one node, with all that it holds; the old files move aside",
        )
        .arg(
            Arg::new("data")
                .long("data")
                .value_name("DIR")
                .required(true)
                .value_parser(value_parser!(std::path::PathBuf))
                .help("Where the node runs: relative paths of its configuration are below it"),
        )
        .args(restore::how())
        .arg(
            Arg::new("condemned")
                .long("condemned")
                .action(ArgAction::SetTrue)
                .help("Take a directory that its node has marked as one that must not be used"),
        )
}

/// What was asked for.
pub(crate) fn args(matches: &ArgMatches) -> RecoverArgs {
    RecoverArgs {
        restore: restore::args_of(matches, Default::default()),
        condemned: matches.get_flag("condemned"),
    }
}

/// Does it; returns the exit code.
pub fn run(
    args: &RecoverArgs,
    config: Option<&Path>,
    overrides: &[(&'static str, String, String)],
    variable: impl Fn(&str) -> Option<String>,
) -> u8 {
    let outcome = recover(args, config, overrides, variable);
    console::end(outcome, |failure| matches!(failure, Failure::Settings(_)))
}

fn recover(
    args: &RecoverArgs,
    config: Option<&Path>,
    overrides: &[(&'static str, String, String)],
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, Failure> {
    // Before the working directory changes.
    let config = config.map(salvage::absolute).transpose()?;
    let data = salvage::absolute(&args.restore.data)?;
    std::env::set_current_dir(&data).map_err(salvage::io_at("use", &data))?;
    // All that the node needs to run is checked before anything is moved.
    let settings = Settings::load(config.as_deref(), None, overrides, variable)?;
    let layout = settings.node_config().layout;
    let disk = RealDisk;
    let (recovery, boot, mut lines) = match Recovery::find(&disk, &layout)? {
        Some(recovery) => (recovery, None, Vec::new()),
        None => begin(args, &layout, &data)?,
    };
    recovery.set_aside(&disk, &layout, boot)?;
    let backup = salvage::absolute(&recovery.backup(&layout))?;
    let how = RestoreArgs {
        file: backup.clone(),
        ..args.restore.clone()
    };
    let restored = restore::from_file(&how, &settings, &data);
    let restored = restored.map_err(|why| Failure::Restore {
        why,
        backup: backup.display().to_string(),
    })?;
    lines.push(restored);
    lines.push(format!(
        "What was there before is in quarantine-{} of its directories. Start no other node of the old cluster.",
        recovery.number
    ));
    Ok(lines.join("\n"))
}

/// Salvages the directory beside itself.
fn begin(
    args: &RecoverArgs,
    layout: &Layout,
    data: &Path,
) -> Result<(Recovery, Option<u64>, Vec<String>), Failure> {
    let disk = RealDisk;
    let salvaged = memkv_node::salvage(&disk, layout, HIGHEST_LEVEL, args.condemned);
    let mut salvaged = salvaged.map_err(salvage::Failure::from)?;
    let is_whole = salvaged.stopped.is_none() && salvaged.condemned.is_none();
    if salvaged.votes_alone && is_whole {
        return Err(Failure::NotNeeded);
    }
    let recovery = Recovery::begin(&disk, layout)?;
    let file = salvage::absolute(&recovery.backup(layout))?;
    let head = salvage::store(&mut salvaged, &file)?;
    let lines = salvage::rows(data, &file, &head, &salvaged);
    Ok((recovery, salvaged.boot, lines))
}
