//! How the modules of a crate lie in its folders: one style everywhere, few files at the root of the
//! node's crate, and no crate under another one's name.

use std::collections::HashSet;

use super::Source;
use super::tokens::tokens;

/// The folder whose files a reader sees first.
const NODE: &str = "crates/memkv-node/src/";

/// More files at its root than this hide what the folders show.
const MAX_AT_ROOT: usize = 10;

/// All faults of the modules' layout.
pub(crate) fn check(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    let rest = sources
        .iter()
        .filter_map(|source| source.name.strip_prefix(NODE));
    let at_root = rest.filter(|rest| !rest.contains('/')).count();
    if at_root > MAX_AT_ROOT {
        faults.push(format!(
            "{NODE}: {at_root} files at the root, at most {MAX_AT_ROOT} are allowed; move one into a folder"
        ));
    }
    let folders: HashSet<&str> = sources
        .iter()
        .flat_map(|source| folders(&source.name))
        .collect();
    for Source { name, text } in sources {
        let stem = name.trim_end_matches(".rs");
        let in_source = name.contains("/src/");
        if in_source && folders.contains(stem) {
            faults.push(format!(
                "{name}: beside its folder; move it to {stem}/mod.rs"
            ));
        }
        faults.extend(reexports(name, text));
    }
    faults
}

/// Every folder above a file.
fn folders(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at])
}

/// `pub use memkv_...`: a path must tell a reader from which crate a thing comes.
fn reexports(name: &str, text: &str) -> Vec<String> {
    let code = tokens(text);
    let mut faults = Vec::new();
    for (at, token) in code.iter().enumerate() {
        let ours = code
            .get(at + 1)
            .is_some_and(|next| next.text.starts_with("memkv_"));
        let before = at.checked_sub(1).and_then(|before| code.get(before));
        let public = before.is_some_and(|before| before.text == "pub");
        if token.text == "use" && ours && public {
            faults.push(format!(
                "{name}:{}: re-exports a crate of the workspace; name that crate where it is used",
                token.line
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::check;

    fn faults(names: &[&str], text: &str) -> usize {
        let sources: Vec<Source> = names.iter().map(|name| Source::new(name, text)).collect();
        check(&sources).len()
    }

    #[test]
    fn a_file_beside_its_folder_is_refused() {
        assert_eq!(faults(&["crates/x/src/a.rs", "crates/x/src/a/b.rs"], ""), 1);
        assert_eq!(
            faults(&["crates/x/src/a.rs", "crates/x/src/a/b/c.rs"], ""),
            1
        );
        assert_eq!(
            faults(&["crates/x/src/a/mod.rs", "crates/x/src/a/b.rs"], ""),
            0
        );
    }

    #[test]
    fn an_eleventh_file_at_the_root_of_the_node_is_refused() {
        let names: Vec<String> = (0..11)
            .map(|n| format!("crates/memkv-node/src/f{n}.rs"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(faults(&names, ""), 1);
        assert_eq!(faults(&names[1..], ""), 0);
    }

    #[test]
    fn a_crate_is_not_re_exported() {
        let name = &["crates/x/src/lib.rs"];
        assert_eq!(faults(name, "pub use memkv_y::Z;"), 1);
        assert_eq!(faults(name, "pub(crate) use memkv_y::Z;"), 0);
        assert_eq!(
            faults(
                name,
                "use memkv_y::Z; // pub use memkv_y\npub use other::Z;"
            ),
            0
        );
    }
}
