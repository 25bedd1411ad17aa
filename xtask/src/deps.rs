//! The layers, as an allow-list of dependencies between the crates of the workspace.
//!
//! Computed from `cargo metadata`, not from `cargo tree -i NAME`, which also passes when the name is
//! misspelt. Replacements of external crates are looked up in `Cargo.lock`.

use std::fs;

use serde_json::Value;

use crate::cargo::{cargo, root};

/// Crate, and the crates of ours that it may name. A crate that is not here may not exist.
const LAYERS: &[(&str, &[&str])] = &[
    ("base2histogram", &[]),
    ("memkv-backup", &[]),
    ("memkv-proto", &[]),
    ("memkv-resp", &[]),
    ("memkv-store", &[]),
    ("memkv-metrics", &[]),
    ("memkv-disk", &["memkv-metrics"]),
    ("memkv-check", &[]),
    ("memkv-manual", &[]),
    (
        "memkv-node",
        &["memkv-store", "memkv-disk", "memkv-metrics"],
    ),
    (
        "memkv-server",
        &[
            "memkv-backup",
            "memkv-proto",
            "memkv-resp",
            "memkv-node",
            "memkv-store",
            "memkv-disk",
            "memkv-metrics",
        ],
    ),
    (
        "memkv-client",
        &["memkv-backup", "memkv-proto", "memkv-resp"],
    ),
    (
        "memkv-sim",
        &[
            "memkv-node",
            "memkv-store",
            "memkv-disk",
            "memkv-check",
            "memkv-backup",
        ],
    ),
    (
        "memkv-bench",
        &["memkv-client", "memkv-resp", "memkv-black-box"],
    ),
    (
        "memkv-hot-path",
        &[
            "memkv-resp",
            "memkv-disk",
            "memkv-store",
            "memkv-node",
            "memkv-server",
        ],
    ),
    ("memkv-black-box", &["memkv-check"]),
    (
        "memkv-fuzz",
        &[
            "memkv-proto",
            "memkv-node",
            "memkv-resp",
            "memkv-server",
            "memkv-disk",
            "memkv-store",
        ],
    ),
    ("xtask", &[]),
];

/// Crate, and a crate of ours that its tests and examples alone may name.
const TEST_LAYERS: &[(&str, &str)] = &[
    ("memkv-server", "memkv-black-box"),
    ("memkv-server", "memkv-manual"),
    ("memkv-client", "memkv-manual"),
];

/// The only crate that may name the consensus engine, so that changing it touches one crate.
const ENGINE_USER: &str = "memkv-node";

/// Every way in which the workspace breaks its layers.
pub(crate) fn check() -> Result<(), String> {
    let output = cargo(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata: {error}"))?;
    let mut faults = faults(&metadata);
    let lock = root().join("Cargo.lock");
    let lock = fs::read_to_string(lock).map_err(|error| format!("Cargo.lock: {error}"))?;
    faults.extend(bypassed(&lock));
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n  "))
    }
}

fn faults(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let mut faults = Vec::new();
    if packages.is_empty() {
        faults.push("cargo metadata lists no package".to_owned());
    }
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
            faults.push(format!(
                "{name} is not in the list of layers; add it where it belongs"
            ));
            continue;
        };
        for dependency in package["dependencies"]
            .as_array()
            .map_or(&[][..], Vec::as_slice)
        {
            let target = dependency["name"].as_str().unwrap_or_default();
            let ours = LAYERS.iter().any(|(layer, _)| *layer == target);
            let for_tests = dependency["kind"] == "dev" && TEST_LAYERS.contains(&(name, target));
            if ours && !allowed.contains(&target) && !for_tests {
                faults.push(format!("{name} must not depend on {target}"));
            }
            if target.starts_with("openraft") && name != ENGINE_USER {
                faults.push(format!(
                    "{name} must not name {target}: only {ENGINE_USER} does"
                ));
            }
        }
    }
    faults
}

/// A replacement of an external crate must be in use: where its version does not fit, cargo silently
/// takes the external one.
fn bypassed(lock: &str) -> Option<String> {
    let is_ours = |name: &str| LAYERS.iter().any(|(layer, _)| *layer == name);
    let mut packages = lock.split("[[package]]").skip(1);
    packages.find_map(|package| {
        let field = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key));
            line.map(|value| value.trim_matches('"'))
        };
        let name = field("name = ").filter(|name| is_ours(name))?;
        let source = field("source = ")?;
        Some(format!("Cargo.lock has {name} from {source}, not ours"))
    })
}

#[cfg(test)]
mod tests {
    use super::{bypassed, faults};
    use serde_json::json;

    #[test]
    fn allowed_dependencies_pass() {
        let metadata = json!({"packages": [
            {"name": "memkv-node", "dependencies": [{"name": "memkv-store"}, {"name": "openraft"}]},
            {"name": "memkv-store", "dependencies": [{"name": "bytes"}]},
        ]});
        assert_eq!(faults(&metadata), Vec::<String>::new());
    }

    #[test]
    fn a_dependency_of_tests_is_not_one_of_the_product() {
        let metadata = |kind| {
            json!({"packages": [
                {"name": "memkv-server", "dependencies": [{"name": "memkv-black-box", "kind": kind}]},
            ]})
        };
        assert_eq!(faults(&metadata(json!("dev"))), Vec::<String>::new());
        assert_eq!(faults(&metadata(json!(null))).len(), 1);
    }

    #[test]
    fn upward_dependencies_the_engine_and_unknown_crates_are_faults() {
        let metadata = json!({"packages": [
            {"name": "memkv-store", "dependencies": [{"name": "memkv-node"}]},
            {"name": "memkv-server", "dependencies": [{"name": "openraft-rt"}]},
            {"name": "memkv-extra", "dependencies": []},
        ]});
        assert_eq!(faults(&metadata).len(), 3);
    }

    #[test]
    fn a_crate_of_ours_from_elsewhere_is_a_fault() {
        let other = "[[package]]\nname = \"bytes\"\nsource = \"registry\"\n";
        let ours = "[[package]]\nname = \"memkv-store\"\nversion = \"1\"\n";
        assert_eq!(bypassed(&[other, ours, other].concat()), None);
        let fault = bypassed(&[other, ours, "source = \"registry\"\n"].concat());
        assert!(fault.is_some_and(|fault| fault.contains("memkv-store from registry")));
    }

    #[test]
    fn an_empty_workspace_is_a_fault() {
        assert_eq!(faults(&json!({"packages": []})).len(), 1);
    }
}
