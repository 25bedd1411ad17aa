//! What a person is told about a directory that was salvaged.
//! Never decides anything.

use std::path::Path;

use memkv_backup::Head;
use memkv_node::Salvaged;

/// The lines.
pub(super) fn text(data: &Path, file: &Path, head: &Head, salvaged: &Salvaged) -> String {
    let mut lines = rows(data, file, head, salvaged);
    lines.push(format!(
        "Nothing in the directory was changed. Salvage every other directory that is left, then compare:\n\
         memkv_client recover {} ...",
        file.display()
    ));
    lines.join("\n")
}

/// What is in the backup, and what is not.
pub(crate) fn rows(data: &Path, file: &Path, head: &Head, salvaged: &Salvaged) -> Vec<String> {
    let mut lines = vec![format!(
        "salvaged {} into {}",
        data.display(),
        file.display()
    )];
    let mut row = |name: &str, what: String| lines.push(format!("  {name:<11} {what}"));
    row("cluster", head.cluster.clone());
    row("node", head.node.escape_debug().to_string());
    row(
        "keys",
        format!("{}, at revision {}", head.keys, head.revision),
    );
    row(
        "last entry",
        format!("term {}, index {}", head.term, head.index),
    );
    let (committed, index) = (head.committed, head.index);
    row(
        "committed",
        format!(
            "up to index {}, as far as this directory knows",
            committed.min(index)
        ),
    );
    if index > committed {
        row(
            "uncertain",
            format!("{}: {}", range(committed + 1, index), UNCERTAIN),
        );
    }
    if committed > index {
        row(
            "lost here",
            format!(
                "{}: committed, and not to be read here",
                range(index + 1, committed)
            ),
        );
    }
    match &salvaged.stopped {
        None => row("ends", "where the log ends".to_owned()),
        Some(flaw) => row("ends", format!("before the log does, because of {flaw}")),
    }
    for flaw in &salvaged.passed_over {
        row("passed over", flaw.to_string());
    }
    if let Some(why) = &salvaged.condemned {
        row("condemned", format!("the node marked the directory: {why}"));
    }
    if !salvaged.locked {
        let what = "the directory has no lock file, so start no node there meanwhile";
        row("not locked", what.to_owned());
    }
    lines
}

/// What may be in entries that are not known to be committed.
const UNCERTAIN: &str = "may hold writes whose clients were told\n              \"not executed\", or were \
                         told nothing";

/// Entries, in words.
fn range(first: u64, last: u64) -> String {
    match last.saturating_sub(first) {
        0 => format!("1 entry, index {first}"),
        more => format!(
            "{} entries, index {first} to {last}",
            more.saturating_add(1)
        ),
    }
}
