//! The cluster as a table that fits a terminal of 80 columns.
//! Never wraps a line: what is too long loses its middle.

use memkv_client::{ClusterView, NodeView};
use memkv_proto::Phase;

/// Columns of a terminal.
pub(crate) const WIDTH: usize = 80;

/// Columns are this far apart.
const GAP: usize = 2;

/// What is not known.
const NONE: &str = "-";

/// Columns that may be shortened keep at least this much.
const MIN_COLUMN: usize = 8;

const HEADING: [&str; 8] = [
    "NODE", "ADDR", "ROLE", "STATE", "TERM", "APPLIED", "LAG", "LEVEL",
];

/// A heading and one line per node; the leader is marked with `*`.
pub(crate) fn table(view: &ClusterView) -> String {
    let mut rows = vec![HEADING.map(|word| word.to_owned())];
    rows[0][0] = format!("  {}", HEADING[0]);
    for node in &view.nodes {
        // How far a node knows the log to be committed says little beside what it lacks.
        let [
            name,
            addr,
            role,
            state,
            term,
            _,
            applied,
            used,
            highest,
            lag,
        ] = cells(node);
        let level = level(&used, &highest);
        let mut row = [name, addr, role, state, term, applied, lag, level];
        row[0] = format!("{} {}", if view.leads(node) { '*' } else { ' ' }, row[0]);
        rows.push(row);
    }
    columns(&rows)
}

/// Rows in columns of their width, within a terminal's if the first two can be shortened so far.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let widths = fit(rows);
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{:<width$}", shorten(cell, width)))
            .collect();
        text.push_str(line.join(&" ".repeat(GAP)).trim_end());
        text.push('\n');
    }
    text
}

/// The same for programs: no heading, one tab between columns, nothing shortened.
pub(crate) fn tabs(view: &ClusterView) -> String {
    view.nodes
        .iter()
        .map(|node| cells(node).join("\t") + "\n")
        .collect()
}

/// The feature level that a node uses, and the highest that it announces if that is another one.
fn level(used: &str, highest: &str) -> String {
    if used == highest || highest == NONE {
        used.to_owned()
    } else {
        format!("{used}/{highest}")
    }
}

fn cells(node: &NodeView) -> [String; 10] {
    let number = |number: u32| match number {
        0 => NONE.to_owned(),
        number => number.to_string(),
    };
    let (used, highest) = (
        number(node.level().unwrap_or(0)),
        number(node.highest_level),
    );
    let name = if node.name.is_empty() {
        NONE
    } else {
        &node.name
    };
    let (name, addr) = (printable(name), printable(&node.addr));
    let lag = node.lag.map_or(NONE.to_owned(), |lag| lag.to_string());
    match &node.status {
        Err(_) => {
            let none = || NONE.to_owned();
            [
                name,
                addr,
                none(),
                "unreachable".to_owned(),
                none(),
                none(),
                none(),
                used,
                highest,
                lag,
            ]
        }
        Ok(status) => {
            let state = match (status.phase, &*node.state) {
                (Phase::Serving, state @ ("joining" | "leaving")) => state,
                (Phase::Serving, _) => "ok",
                (phase, _) => phase.as_str(),
            };
            let numbers = [status.term, status.commit_index, status.applied_index];
            let [term, commit, applied] = numbers.map(|number| number.to_string());
            [
                name,
                addr,
                status.role.to_string(),
                state.to_owned(),
                term,
                commit,
                applied,
                used,
                highest,
                lag,
            ]
        }
    }
}

/// What came from the network, or from a file, must not control a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Column widths: what the cells need, and less for the second, then the first, if that is too much: names and
/// addresses, or files.
fn fit<const N: usize>(rows: &[[String; N]]) -> [usize; N] {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for column in [1, 0] {
        let total: usize = widths.iter().sum::<usize>() + GAP * (widths.len() - 1);
        let less = total
            .saturating_sub(WIDTH)
            .min(widths[column].saturating_sub(MIN_COLUMN));
        widths[column] -= less;
    }
    widths
}

/// At most `width` characters: the beginning and the end, which tell addresses apart.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let tail = (width - 1) / 2;
    let head = width - 1 - tail;
    text.chars()
        .take(head)
        .chain(['~'])
        .chain(text.chars().skip(length - tail))
        .collect()
}

#[cfg(test)]
mod tests {
    use memkv_proto::Status;

    use super::*;

    fn view(addr: &str) -> ClusterView {
        let status: Status = serde_json::from_str(
            r#"{"name":"n2","role":"leader","leader":"n2","term":7,"commit_index":88412,
            "applied_index":88412,"members":[],"durability":"sync","version":"0",
            "feature_level":1}"#,
        )
        .unwrap();
        let node = |name: &str, status| NodeView {
            name: name.to_owned(),
            addr: addr.to_owned(),
            status,
            votes: true,
            highest_level: 2,
            state: "member".to_owned(),
            lag: Some(0),
            answers: None,
        };
        ClusterView {
            nodes: vec![
                node("n2", Ok(status)),
                node(
                    "n3",
                    Err(memkv_client::Silence::NoAnswer("refused".to_owned())),
                ),
            ],
            leader: Some("n2".to_owned()),
        }
    }

    #[test]
    fn columns_line_up_and_the_leader_is_marked() {
        let expected = concat!(
            "  NODE  ADDR            ROLE    STATE        TERM  APPLIED  LAG  LEVEL\n",
            "* n2    10.0.0.2:11081  leader  ok           7     88412    0    1/2\n",
            "  n3    10.0.0.2:11081  -       unreachable  -     -        0    -/2\n",
        );
        assert_eq!(table(&view("10.0.0.2:11081")), expected);
        assert_eq!(
            tabs(&view("h:1")),
            "n2\th:1\tleader\tok\t7\t88412\t88412\t1\t2\t0\nn3\th:1\t-\tunreachable\t-\t-\t-\t-\t2\t0\n"
        );
    }

    #[test]
    fn a_node_that_serves_and_leaves_is_shown_as_leaving() {
        let mut view = view("h:1");
        view.nodes[0].state = "leaving".to_owned();
        assert!(table(&view).contains("leader  leaving"), "{}", table(&view));
    }

    #[test]
    fn a_level_is_one_number_unless_the_node_could_use_another() {
        assert_eq!(level("2", "2"), "2");
        assert_eq!(level("1", "2"), "1/2");
        assert_eq!(level("1", NONE), "1", "it has announced none yet");
        assert_eq!(level(NONE, NONE), "-", "a node that says nothing of levels");
    }

    #[test]
    fn a_table_of_usual_names_and_large_numbers_fits_and_shortens_nothing() {
        let mut view = view("127.0.0.1:11081");
        for (node, name) in view.nodes.iter_mut().zip(["11081", "11082"]) {
            node.name = name.to_owned();
        }
        if let Ok(status) = &mut view.nodes[0].status {
            (status.role, status.term) = (memkv_proto::Role::Follower, 12);
            (status.commit_index, status.applied_index) = (99_999_999, 99_999_999);
        }
        let text = table(&view);
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert!(!text.contains('~'), "{text}");
    }

    #[test]
    fn long_addresses_lose_their_middle() {
        let long = format!("{}.example.org:11081", "x".repeat(100));
        let text = table(&view(&long));
        assert!(
            text.lines().all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
        assert!(text.contains("xx~") && text.contains(":11081"), "{text}");
        assert_eq!(shorten("abcdefgh", 5), "ab~gh");
        assert_eq!(printable("a\x1b[2J"), "a?[2J");
    }
}
