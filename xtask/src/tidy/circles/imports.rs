//! Which file of a crate names items of which other one. Paths are resolved as the compiler does:
//! from `crate`, `self`, `super`, a module that the file declares, or a name that it imports, and
//! through re-exports to the file that has the item.
//!
//! Not resolved: macros that build paths, names that a glob brings in, and modules within a file.

use std::collections::{BTreeMap, BTreeSet};

use super::Graph;
use crate::tidy::production::child;
use crate::tidy::tokens::Token;

/// Imports of imports that are followed; more are a circle of re-exports.
const MAX_STEPS: usize = 16;

type Path = Vec<String>;

/// A file as a module.
#[derive(Default)]
struct Module {
    file: String,
    /// Whether it stands for its folder, whose items it re-exports.
    is_folder: bool,
    parent: Option<String>,
    children: BTreeMap<String, String>,
    /// Names that it imports or re-exports.
    names: BTreeMap<String, Path>,
    /// All that it imports, and paths in its code.
    used: BTreeSet<Path>,
}

/// The graph of the files of one crate, by their names below its `src`.
pub(super) fn graph(files: Vec<(String, Vec<Token<'_>>)>) -> Graph {
    let stems: BTreeMap<String, String> = files
        .iter()
        .map(|(file, _)| {
            let stem = file.trim_end_matches(".rs");
            let module = stem.strip_suffix("/mod").unwrap_or(stem);
            (module.to_owned(), file.clone())
        })
        .collect();
    let mut modules: BTreeMap<String, Module> = BTreeMap::new();
    for (file, code) in &files {
        let mut module = read(file, code);
        // Keys are files; a declared module without a file is one that was left out.
        module.children.retain(|_, stem| stems.contains_key(stem));
        for stem in module.children.values_mut() {
            stem.clone_from(&stems[stem]);
        }
        modules.insert(file.clone(), module);
    }
    let children: Vec<(String, String)> = modules
        .values()
        .flat_map(|parent| {
            parent
                .children
                .values()
                .map(|child| (child.clone(), parent.file.clone()))
        })
        .collect();
    for (child, parent) in children {
        if let Some(module) = modules.get_mut(&child) {
            module.parent = Some(parent);
        }
    }
    let edges = modules.values().map(|module| {
        let named = module
            .used
            .iter()
            .filter_map(|path| resolve(&modules, &module.file, path, 0));
        let others = named.filter(|other| *other != module.file);
        (module.file.clone(), others.collect())
    });
    edges.collect()
}

/// The file that has the item; `None` for items of other crates, and for a module by itself.
fn resolve(
    modules: &BTreeMap<String, Module>,
    from: &str,
    path: &[String],
    steps: usize,
) -> Option<String> {
    if steps > MAX_STEPS {
        return None;
    }
    let (first, rest) = path.split_first()?;
    let own = modules.get(from)?;
    let (mut at, mut rest) = match first.as_str() {
        "crate" => ("lib.rs", rest),
        "self" => (from, rest),
        "super" => (own.parent.as_deref()?, rest),
        _ if own.children.contains_key(first) || own.names.contains_key(first) => (from, path),
        _ => return None,
    };
    while let Some((name, left)) = rest.split_first() {
        let module = modules.get(at)?;
        if name == "super" {
            at = module.parent.as_deref()?;
        } else if let Some(child) = module.children.get(name) {
            at = child;
        } else if let Some(target) = module.names.get(name) {
            let path: Path = target.iter().chain(left).cloned().collect();
            // A name of another crate that is used through this file is no item of this file.
            return resolve(modules, at, &path, steps + 1);
        } else {
            return Some(at.to_owned());
        }
        rest = left;
    }
    None
}

fn read(file: &str, code: &[Token<'_>]) -> Module {
    let is_folder = file == "lib.rs" || file.ends_with("/mod.rs");
    let mut module = Module {
        file: file.to_owned(),
        is_folder,
        ..Module::default()
    };
    let text = |at: usize| code.get(at).map_or("", |token| token.text);
    let mut at = 0;
    while at < code.len() {
        if text(at) == "mod" && text(at + 2) == ";" {
            let name = text(at + 1);
            let stem = child(file, name).trim_start_matches('/').to_owned();
            module.children.insert(name.to_owned(), stem);
            at += 3;
        } else if text(at) == "use" {
            let public = at
                .checked_sub(1)
                .is_some_and(|at| ["pub", ")"].contains(&text(at)));
            let end = (at..code.len())
                .find(|at| text(*at) == ";")
                .unwrap_or(code.len());
            imported(&code[at + 1..end], &[], &mut |name, path| {
                if !(public && module.is_folder) {
                    module.used.insert(path.clone());
                }
                module.names.insert(name, path);
            });
            at = end;
        } else if code.get(at).is_some_and(Token::is_word) {
            let mut path = vec![text(at).to_owned()];
            while text(at + 1) == ":"
                && text(at + 2) == ":"
                && code.get(at + 3).is_some_and(Token::is_word)
            {
                path.push(text(at + 3).to_owned());
                at += 3;
            }
            if path.len() > 1 {
                module.used.insert(path);
            }
            at += 1;
        } else {
            at += 1;
        }
    }
    module
}

/// Every name that a `use` binds, with its path.
fn imported(tree: &[Token<'_>], before: &[String], found: &mut dyn FnMut(String, Path)) {
    let mut path = before.to_vec();
    let mut alias = None;
    let mut at = 0;
    while let Some(token) = tree.get(at) {
        match token.text {
            "{" => {
                let end = closing(tree, at);
                imported(&tree[at + 1..end], &path, found);
                path.clear();
                at = end;
            }
            "," => {
                bind(
                    std::mem::replace(&mut path, before.to_vec()),
                    alias.take(),
                    found,
                );
            }
            "as" => {
                alias = tree.get(at + 1).map(|name| name.text.to_owned());
                at += 1;
            }
            word if token.is_word() || word == "*" => path.push(word.to_owned()),
            _ => {}
        }
        at += 1;
    }
    if path.len() > before.len() {
        bind(path, alias, found);
    }
}

fn bind(mut path: Path, alias: Option<String>, found: &mut dyn FnMut(String, Path)) {
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if let Some(last) = path.last() {
        found(alias.unwrap_or_else(|| last.clone()), path);
    }
}

/// The brace that closes the one at `from`.
fn closing(tree: &[Token<'_>], from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tree.iter().enumerate().skip(from) {
        match token.text {
            "{" => depth += 1,
            "}" if depth == 1 => return at,
            "}" => depth -= 1,
            _ => {}
        }
    }
    tree.len()
}

#[cfg(test)]
mod tests {
    use super::graph;
    use crate::tidy::tokens::tokens;

    /// What `a/x.rs` names, in a crate with re-exports.
    fn named(text: &str) -> Vec<String> {
        let files = [
            ("lib.rs", "mod a; mod b; pub use b::Item as Renamed;"),
            (
                "a/mod.rs",
                "mod x; mod y; pub(crate) use y::Yes; fn own() {}",
            ),
            ("a/x.rs", text),
            ("a/x/inner.rs", ""),
            ("a/y.rs", ""),
            ("b.rs", ""),
        ];
        let files = files.map(|(name, text)| (name.to_owned(), tokens(text)));
        let mut graph = graph(files.into());
        graph.remove("a/x.rs").unwrap().into_iter().collect()
    }

    #[test]
    fn paths_are_resolved_to_files() {
        for (text, expected) in [
            ("use crate::b::Item;", &["b.rs"][..]),
            ("use super::y::Other;", &["a/y.rs"]),
            ("use super::super::b::Item;", &["b.rs"]),
            (
                "use super::{own, y::{Other, More as No}};",
                &["a/mod.rs", "a/y.rs"],
            ),
            ("fn f() { crate::b::call(); }", &["b.rs"]),
            ("use crate::a::y; fn f() { y::call(); }", &["a/y.rs"]),
            ("use crate::b::{self, Item};", &["b.rs"]),
            ("mod inner; use inner::Item;", &["a/x/inner.rs"]),
            ("use super::*;", &["a/mod.rs"]),
        ] {
            assert_eq!(named(text), expected, "{text}");
        }
    }

    #[test]
    fn re_exports_lead_to_the_item() {
        assert_eq!(named("use crate::Renamed;"), ["b.rs"]);
        assert_eq!(named("use crate::a::Yes;"), ["a/y.rs"]);
        assert_eq!(named("use super::Yes;"), ["a/y.rs"]);
    }

    #[test]
    fn other_crates_and_modules_by_themselves_are_no_edges() {
        assert!(named("use std::fmt; fn f() { fmt::write(); memkv_store::x(); }").is_empty());
        assert!(named("use crate::b; use super::y;").is_empty());
        assert!(named("mod inner;").is_empty());
    }
}
