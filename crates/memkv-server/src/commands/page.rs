//! The page of the documentation about commands, `docs/commands.md`: printed from the table.

use super::spec::{Group, Spec, commands, flag};

/// The page.
pub(crate) fn page() -> String {
    let mut page = String::from(
        "# Commands\n\n\
         Every command that memkv understands over RESP2 and RESP3, on any node. Replies and error \
         texts are those of Redis 7.0\nwhere Redis has the command. Writes are answered when a \
         majority has them on disk and this node has applied them.\n**linearizable** reads see every \
         write that was acknowledged anywhere before; after `READONLY` they answer from this\nnode, \
         however old. **local** commands are about this node or this connection.\n",
    );
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
            "\n## {title}\n\n| Command | Arity | Consistency | Complexity | Meaning |\n|---|---|---|---|---|\n"
        ));
        for spec in of_group {
            let lines = std::iter::once(spec).chain(spec.subcommands());
            lines.for_each(|spec| page.push_str(&line(spec)));
        }
    }
    page.push_str(
        "\nThis page is printed by `cargo run -p memkv-server --example commands`, and a test \
         compares the two.\n",
    );
    page
}

fn line(spec: &Spec) -> String {
    // What an operator sets is set through the log.
    let is_setting = spec.name == "config|set";
    let consistency = if spec.has(flag::WRITE) || is_setting {
        "log"
    } else if matches!(spec.handler, super::Handler::Data(_)) {
        "linearizable"
    } else {
        "local"
    };
    let name = spec.name.replace('|', " ").to_uppercase();
    format!(
        "| `{name}` | {} | {consistency} | {} | {} |\n",
        spec.arity, spec.complexity, spec.summary
    )
}

#[cfg(test)]
mod tests {
    use super::page;

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
