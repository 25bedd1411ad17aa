//! The supply chain: which foreign crates the shipped programs contain. Each comes from the one registry of
//! `Cargo.lock`, with its checksum, and under a licence that asks for no more than a notice; and they stay
//! few. Never asks the network: advisories change without a commit, so they are looked up at a release.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::cargo::cargo;

/// The crates whose binaries are shipped.
const SHIPPED: [&str; 2] = ["memkv-server", "memkv-client"];

/// Foreign crates that ours name, at most.
const MOST_DIRECT: usize = 40;

/// Foreign crates in the shipped programs, at most. A fifth of those that there are came for backups in buckets; hosts'
/// names in other scripts, which would add twenty more, are left out by the version of `idna_adapter`.
const MOST_IN_ALL: usize = 210;

/// Licences without conditions on the programs that contain the crate, besides naming it.
pub(crate) const PERMISSIVE: [&str; 10] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// What the shipped programs contain.
pub(crate) struct Shipped {
    /// Foreign crates, as `cargo metadata` has them, in the order of their ids.
    pub(crate) foreign: Vec<Value>,
    /// The ids of those that ours name.
    pub(crate) direct: BTreeSet<String>,
    /// Each foreign crate's id, and those of the crates that it names.
    pub(crate) names: BTreeMap<String, BTreeSet<String>>,
}

/// Checks the crates that are shipped.
pub(crate) fn check() -> Result<(), String> {
    let faults = faults(&metadata()?);
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n  "))
    }
}

/// What the programs contain that are built on this platform.
pub(crate) fn contents() -> Result<Shipped, String> {
    shipped(&metadata()?).ok_or_else(|| UNLISTED.to_owned())
}

/// What is said where `cargo metadata` is not what it should be.
const UNLISTED: &str = "cargo metadata does not list the shipped crates";

fn metadata() -> Result<Value, String> {
    // The platform that CI tests: crates for others are in no program that it builds.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = cargo(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", &platform])
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo metadata: {said}"));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))
}

/// Follows the dependencies of the shipped crates, other than those of tests.
fn shipped(metadata: &Value) -> Option<Shipped> {
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let nodes: BTreeMap<String, Value> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (text(&node["id"]), node))
        .collect();
    let is_ours = |id: &str| {
        packages
            .get(id)
            .is_some_and(|package| package["source"].is_null())
    };
    let mut left: Vec<String> = packages
        .iter()
        .filter(|(_, package)| SHIPPED.contains(&text(&package["name"]).as_str()))
        .map(|(id, _)| id.clone())
        .collect();
    if left.len() != SHIPPED.len() {
        return None;
    }
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    while let Some(id) = left.pop() {
        if names.contains_key(&id) {
            continue;
        }
        let dependencies = nodes.get(&id).map(|node| list(&node["deps"]));
        let mut targets = BTreeSet::new();
        for dependency in dependencies.unwrap_or_default() {
            let mut kinds = list(&dependency["dep_kinds"]).into_iter();
            if kinds.any(|kind| kind["kind"] != "dev") {
                targets.insert(text(&dependency["pkg"]));
            }
        }
        left.extend(targets.iter().cloned());
        names.insert(id, targets);
    }
    let (ours, foreign): (Vec<_>, Vec<_>) = names.into_iter().partition(|(id, _)| is_ours(id));
    let direct = ours.into_iter().flat_map(|(_, targets)| targets);
    let packages_of = |id: &String| packages.get(id).cloned();
    Some(Shipped {
        direct: direct.filter(|id| !is_ours(id)).collect(),
        foreign: foreign
            .iter()
            .filter_map(|(id, _)| packages_of(id))
            .collect(),
        names: foreign.into_iter().collect(),
    })
}

/// An array's values; none where it is absent.
pub(crate) fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// A string; an empty one where it is absent.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn faults(metadata: &Value) -> Vec<String> {
    let Some(Shipped {
        foreign, direct, ..
    }) = shipped(metadata)
    else {
        return vec![UNLISTED.to_owned()];
    };
    let mut faults = Vec::new();
    for (what, count, most) in [
        ("named by ours", direct.len(), MOST_DIRECT),
        ("in the programs", foreign.len(), MOST_IN_ALL),
    ] {
        if count > most {
            faults.push(format!(
                "{count} foreign crates are {what}, and {most} are the most"
            ));
        }
    }
    let sources: BTreeSet<String> = foreign
        .iter()
        .map(|package| text(&package["source"]))
        .collect();
    if sources.len() > 1
        || sources
            .iter()
            .any(|source| !source.starts_with("registry+"))
    {
        faults.push(format!(
            "crates come from other places than one registry: {sources:?}"
        ));
    }
    for package in foreign {
        let licence = text(&package["license"]);
        if !is_permissive(&licence) {
            let name = text(&package["name"]);
            faults.push(format!(
                "{name} has the licence {licence:?}, which is not on the list"
            ));
        }
    }
    faults
}

/// Whether one of an expression's alternatives consists of permissive licences alone. Of parentheses only
/// those around alternatives occur.
fn is_permissive(expression: &str) -> bool {
    let plain = expression.replace(" / ", " OR ").replace('/', " OR ");
    let all = |part: &str| {
        let part = part.trim().trim_start_matches('(').trim_end_matches(')');
        part.split(" OR ")
            .any(|one| PERMISSIVE.contains(&one.trim()))
    };
    !plain.is_empty() && plain.split(" AND ").all(all)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use super::{MOST_DIRECT, PERMISSIVE, faults, is_permissive};
    use crate::cargo::root;

    #[test]
    fn an_expression_needs_a_permissive_way() {
        for good in [
            "MIT",
            "MIT OR Apache-2.0",
            "Unlicense/MIT",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
        ] {
            assert!(is_permissive(good), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0",
            "AGPL-3.0 OR GPL-3.0",
            "MIT AND GPL-3.0",
            "MPL-2.0",
        ] {
            assert!(!is_permissive(bad), "{bad}");
        }
    }

    /// Both shipped crates, of which the server names so many foreign ones, and tests another.
    fn metadata(count: usize, source: &str, licence: &str) -> Value {
        let ours = |name| json!({ "id": name, "name": name, "source": null });
        let foreign = |at: usize| json!({ "id": at.to_string(), "name": at.to_string(), "source": source, "license": licence });
        let mut packages = vec![ours("memkv-server"), ours("memkv-client"), foreign(999)];
        packages.extend((0..count).map(foreign));
        packages[2]["license"] = "GPL-3.0".into();
        let dependency = |at: usize, kind: Value| json!({ "pkg": at.to_string(), "dep_kinds": [{ "kind": kind }] });
        let mut deps: Vec<Value> = (0..count).map(|at| dependency(at, Value::Null)).collect();
        deps.push(dependency(999, "dev".into()));
        json!({ "packages": packages, "resolve": { "nodes": [{ "id": "memkv-server", "deps": deps }] } })
    }

    /// `deny.toml` is for a tool that asks the network; both lists must refuse the same.
    #[test]
    fn deny_toml_has_the_same_licences() {
        let file = fs::read_to_string(root().join("deny.toml")).unwrap();
        let (_, licences) = file.split_once("[licenses]").unwrap();
        let (_, list) = licences.split_once("allow = [").unwrap();
        let (list, _) = list.split_once(']').unwrap();
        let listed: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
        assert_eq!(listed, PERMISSIVE);
    }

    #[test]
    fn the_project_keeps_to_it() {
        assert_eq!(super::check(), Ok(()));
    }

    #[test]
    fn many_crates_other_sources_and_other_licences_are_found() {
        let registry = "registry+somewhere";
        assert_eq!(faults(&metadata(MOST_DIRECT, registry, "MIT")), [""; 0]);
        for (metadata, words) in [
            (metadata(MOST_DIRECT + 1, registry, "MIT"), "41 foreign"),
            (metadata(1, "git+elsewhere", "MIT"), "other places"),
            (metadata(1, registry, "SSPL-1.0"), "SSPL"),
            (json!({}), "does not list"),
        ] {
            let found = faults(&metadata);
            assert!(found.len() == 1 && found[0].contains(words), "{found:?}");
        }
    }
}
