//! Rules about the text of one source file: what opens it, what may not stay open in it, and which
//! modules its layer may not name.

/// A directory, and what no file below it may name: the bans that the layers exist to enforce.
const BANS: &[(&str, &[&str])] = &[
    (
        "crates/memkv-store/src",
        &[
            "std::fs",
            "std::net",
            "std::time",
            "std::thread",
            "tokio::",
            "rand::",
            "SystemTime",
        ],
    ),
    (
        "crates/memkv-proto/src",
        &[
            "std::fs",
            "TcpStream",
            "std::time",
            "std::thread",
            "tokio::",
        ],
    ),
    (
        "crates/memkv-node/src",
        &["std::fs", "std::net", "parking_lot::", "openraft"],
    ),
    // Shared state is behind the locks that the panic hook knows.
    ("crates/memkv-server/src", &["parking_lot::"]),
];

/// A file or directory, and the banned name that it alone may use.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("crates/memkv-node/src/sync/lock.rs", "parking_lot::"),
    ("crates/memkv-node/src/engine/", "openraft"),
];

/// All faults of the file `name`.
pub(crate) fn source_faults(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//!") {
        faults.push(format!(
            "{name}: does not open with `//!`: say what it is and what it never does"
        ));
    }
    let bans = BANS
        .iter()
        .filter(|(dir, _)| name.starts_with(dir))
        .flat_map(|(_, words)| *words)
        .filter(|word| {
            let mut exceptions = EXCEPTIONS.iter();
            !exceptions.any(|(path, excepted)| name.starts_with(path) && excepted == *word)
        });
    let bans: Vec<&&str> = bans.collect();
    for (number, line) in (1..).zip(text.lines()) {
        let open = [concat!("TO", "DO"), concat!("FIX", "ME")]
            .iter()
            .any(|word| line.contains(word));
        if open && !mentions_issue(line) {
            faults.push(format!(
                "{name}:{number}: left open without the number of an issue"
            ));
        }
        if line.trim_start().starts_with(concat!("#[", "ignore")) {
            faults.push(format!("{name}:{number}: an ignored test shows nothing"));
        }
        let code = line.split("//").next().unwrap_or_default();
        for word in bans.iter().filter(|word| code.contains(***word)) {
            faults.push(format!("{name}:{number}: this layer must not use `{word}`"));
        }
    }
    faults
}

fn mentions_issue(line: &str) -> bool {
    line.split('#')
        .skip(1)
        .any(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::source_faults;

    #[test]
    fn a_file_without_head_is_a_fault() {
        assert_eq!(source_faults("a.rs", "use std::fmt;\n").len(), 1);
        assert!(source_faults("a.rs", "//! What it is.\n").is_empty());
    }

    #[test]
    fn open_ends_need_an_issue() {
        let open = concat!("//! a\n// TO", "DO: later\n");
        assert_eq!(source_faults("a.rs", open).len(), 1);
        let issue = concat!("//! a\n// TO", "DO(#12): later\n");
        assert!(source_faults("a.rs", issue).is_empty());
    }

    #[test]
    fn bans_hold_in_code_and_not_in_comments() {
        let name = "crates/memkv-store/src/apply.rs";
        assert_eq!(
            source_faults(name, "//! a\nuse std::time::Instant;\n").len(),
            1
        );
        assert!(source_faults(name, "//! a\n// never std::time\n").is_empty());
        assert!(
            source_faults("crates/memkv-server/src/a.rs", "//! a\nuse std::time;\n").is_empty()
        );
        let engine = "//! a\nuse openraft::Raft;\n";
        assert_eq!(
            source_faults("crates/memkv-node/src/batch.rs", engine).len(),
            1
        );
        assert!(source_faults("crates/memkv-node/src/engine/handle.rs", engine).is_empty());
        let lock = "//! a\nuse parking_lot::Mutex;\n";
        assert_eq!(
            source_faults("crates/memkv-node/src/engine/handle.rs", lock).len(),
            1
        );
    }
}
