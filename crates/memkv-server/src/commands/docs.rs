//! The page of the documentation about commands, `docs/commands.md`: printed from the table, and
//! from `docs/differences.md` where a command does not answer as Redis does.

use std::collections::BTreeSet;

use super::spec::{Group, Spec, commands, flag};

/// The page.
pub(crate) fn page() -> String {
    let mut page = String::from(
        "# Commands\n\n\
         Every command that memkv understands over RESP2 and RESP3, on any node. Replies and error \
         texts are those of Redis 7.0\nwhere Redis has the command. Writes are answered when a \
         majority has them on disk and this node has applied them.\n**linearizable** reads see every \
         write that was acknowledged anywhere before; after `READONLY` they answer from this\nnode, \
         however old. **local** commands are about this node or this connection;\n**leader**: the leader is asked, and nothing is read or written.\nWhere replies \
         may differ from those of **Redis 7.0**, [differences](differences.md) says how and why.\n",
    );
    let differing = differing(DIFFERENCES);
    for group in Group::ALL {
        let mut of_group = commands().filter(|spec| spec.group == group).peekable();
        if of_group.peek().is_none() {
            continue;
        }
        let title = if group == Group::Memkv {
            "memkv's own"
        } else {
            group.name()
        };
        page.push_str(&format!(
            "\n## {title}\n\n| Command | Arity | Consistency | Complexity | Redis 7.0 | Meaning |\n|---|---|---|---|---|---|\n"
        ));
        for spec in of_group {
            let lines = std::iter::once(spec).chain(spec.subcommands());
            lines.for_each(|spec| page.push_str(&line(spec, &differing)));
        }
    }
    page.push_str(
        "\nThis page is printed by `cargo run -p memkv-server --example commands`, and a test \
         compares the two.\n",
    );
    page
}

/// The page that the comparison with redis-server reads too.
const DIFFERENCES: &str = include_str!("../../../../docs/differences.md");

/// Commands that its table names: in backquotes, in the second column of its rows.
fn differing(page: &str) -> BTreeSet<&str> {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let commands = rows.filter_map(|row| row.split('|').nth(2));
    commands
        .flat_map(|names| names.split('`').skip(1).step_by(2))
        .collect()
}

/// How a command's replies compare with those of Redis 7.0; empty where no difference is known.
fn compared(spec: &Spec, name: &str, differing: &BTreeSet<&str>) -> &'static str {
    // Versions of ours begin with 0, and none of Redis's that matter do.
    if spec.since.starts_with('0') {
        "not there"
    } else if differing.contains(name) {
        "differs"
    } else {
        ""
    }
}

fn line(spec: &Spec, differing: &BTreeSet<&str>) -> String {
    // What an operator sets is set through the log.
    let is_setting = spec.name == "config|set";
    // A transaction is one entry of the log, and a script is one too.
    let is_whole =
        spec.name == "exec" || spec.has(flag::MOVABLEKEYS) && spec.group == Group::Scripting;
    // What WATCH sees of a key is read as any read is; WAIT asks the leader.
    let is_watch = matches!(
        spec.handler,
        super::Handler::TransactionControl(super::TransactionControl::Watch)
    );
    let consistency = if spec.has(flag::WRITE) || is_setting || is_whole {
        "log"
    } else if matches!(spec.handler, super::Handler::Data(_)) || is_watch {
        "linearizable"
    } else if matches!(spec.handler, super::Handler::Wait(_)) {
        "leader"
    } else {
        "local"
    };
    let name = spec.name.replace('|', " ").to_uppercase();
    format!(
        "| `{name}` | {} | {consistency} | {} | {} | {} |\n",
        spec.arity,
        spec.complexity,
        compared(spec, &name, differing),
        spec.summary
    )
}

#[cfg(test)]
mod tests {
    use super::super::spec::find;
    use super::{DIFFERENCES, compared, differing, page};

    #[test]
    fn the_table_of_differences_names_commands() {
        let differing = differing(DIFFERENCES);
        let of = |name: &str, upper| compared(find(name.as_bytes()).unwrap(), upper, &differing);
        assert_eq!(of("keys", "KEYS"), "differs");
        assert_eq!(of("get", "GET"), "");
        assert_eq!(of("memkv.cas", "MEMKV.CAS"), "not there");
    }

    #[test]
    fn the_documentation_describes_these_commands() {
        let written = include_str!("../../../../docs/commands.md");
        assert!(
            written == page(),
            "docs/commands.md is out of date; write it again with \
             `cargo run -p memkv-server --example commands > docs/commands.md`"
        );
    }
}
