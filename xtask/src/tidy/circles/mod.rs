//! Import circles of the node's crate: files that need each other, directly or through others. A file
//! in a circle cannot be understood, tested or moved without the rest of it.
//!
//! An edge goes from a file to each file of the crate that it names an item of (`imports`). A circle
//! is a strongly connected component of that graph (`components`). Code for tests and for the
//! deliberate bugs is left out, and so are re-exports of a `mod.rs`, which are followed to their item.

mod components;
mod imports;

use std::collections::{BTreeMap, BTreeSet};

use super::Source;
use super::production::production;

/// The crate whose circles are counted.
const SRC: &str = "crates/memkv-node/src/";

/// The adapter to the engine, whose types name each other.
const ENGINE: &str = "engine/";

/// Most files of a circle that has a file outside the engine's folder. Lower it when it can be.
const MAX_OUTSIDE: usize = 6;

/// Most files of a circle that edges within the engine's folder make. Lower it when it can be.
const MAX_IN_ENGINE: usize = 5;

/// A file of the crate, and the files that it names.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Circles that are larger than allowed.
pub(crate) fn check(sources: &[Source]) -> Vec<String> {
    let graph = graph(sources);
    let (outside, in_engine) = both(&graph);
    let mut faults = limit("MAX_OUTSIDE", MAX_OUTSIDE, &outside);
    faults.extend(limit("MAX_IN_ENGINE", MAX_IN_ENGINE, &in_engine));
    faults
}

/// Prints every circle, the largest first, with what each file names in it.
pub(crate) fn print(sources: &[Source]) {
    let graph = graph(sources);
    let (outside, in_engine) = both(&graph);
    for (circles, what) in [
        (outside, "files"),
        (in_engine, "files of the engine's folder"),
    ] {
        if circles.is_empty() {
            println!("no circle of {what}");
        }
        for circle in circles {
            println!("circle of {} {what}:", circle.len());
            for file in &circle {
                let named = graph.get(file).into_iter().flatten();
                let named = named.filter(|other| circle.contains(*other));
                let named: Vec<&str> = named.map(String::as_str).collect();
                println!("  {file} -> {}", named.join(", "));
            }
        }
    }
}

/// The circles that have a file outside the engine's folder, and those of that folder by itself.
fn both(graph: &Graph) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let is_engine = |file: &String| file.starts_with(ENGINE);
    let mut outside = components::circles(graph);
    outside.retain(|circle| !circle.iter().all(is_engine));
    let engine = graph
        .iter()
        .filter(|(file, _)| is_engine(file))
        .map(|(file, named)| {
            let named = named.iter().filter(|other| is_engine(other)).cloned();
            (file.clone(), named.collect())
        });
    (outside, components::circles(&engine.collect()))
}

fn graph(sources: &[Source]) -> Graph {
    let files = production(sources);
    let own = files.into_iter().filter_map(|(source, code)| {
        let name = source.name.strip_prefix(SRC)?;
        Some((name.to_owned(), code))
    });
    imports::graph(own.collect())
}

fn limit(constant: &str, most: usize, circles: &[Vec<String>]) -> Vec<String> {
    let largest = circles.iter().max_by_key(|circle| circle.len());
    let size = largest.map_or(0, |circle| circle.len());
    let members = largest.map_or_else(String::new, |circle| circle.join(" "));
    if size > most {
        vec![format!(
            "{SRC}: an import circle of {size} files, at most {most} are allowed ({constant}; \
             `cargo xtask tidy --circles` shows the edges): {members}"
        )]
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::{both, graph, limit};

    #[test]
    fn a_limit_is_not_exceeded() {
        let circles = [vec!["a.rs".to_owned(), "b.rs".to_owned()]];
        assert!(limit("MAX", 2, &circles).is_empty());
        assert!(limit("MAX", 1, &circles)[0].contains("a.rs b.rs"));
        assert!(limit("MAX", 0, &[]).is_empty());
    }

    #[test]
    fn only_the_code_of_the_crate_is_looked_at() {
        let graph = graph(&[
            Source::new(
                "crates/memkv-node/src/lib.rs",
                "mod a; mod b; #[cfg(test)] mod c;",
            ),
            Source::new(
                "crates/memkv-node/src/a.rs",
                "#[cfg(test)] mod tests { use crate::b::X; } #[cfg(memkv_bugs)] use crate::b::Y;",
            ),
            Source::new("crates/memkv-node/src/b.rs", "use crate::a::X;"),
            Source::new("crates/memkv-node/src/c.rs", "use crate::a::X;"),
            Source::new("crates/memkv-disk/src/lib.rs", ""),
        ]);
        let files: Vec<&String> = graph.keys().collect();
        assert_eq!(files, ["a.rs", "b.rs", "lib.rs"]);
        assert!(graph["a.rs"].is_empty());
        assert!(graph["b.rs"].contains("a.rs"));
    }
    #[test]
    fn circles_of_the_engine_are_counted_apart() {
        let graph = graph(&[
            Source::new("crates/memkv-node/src/lib.rs", "mod a; mod engine;"),
            Source::new("crates/memkv-node/src/a.rs", "use crate::engine::x::X;"),
            Source::new(
                "crates/memkv-node/src/engine/mod.rs",
                "mod x; mod y; mod z;",
            ),
            Source::new("crates/memkv-node/src/engine/x.rs", "use super::y::Y;"),
            Source::new(
                "crates/memkv-node/src/engine/y.rs",
                "use super::x::X; use super::z::Z;",
            ),
            Source::new("crates/memkv-node/src/engine/z.rs", "use crate::a::A;"),
        ]);
        let (outside, in_engine) = both(&graph);
        assert_eq!(
            outside,
            [["a.rs", "engine/x.rs", "engine/y.rs", "engine/z.rs"]]
        );
        assert_eq!(in_engine, [["engine/x.rs", "engine/y.rs"]]);
    }
}
