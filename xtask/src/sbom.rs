//! The bill of materials of the shipped programs, in CycloneDX 1.5: each foreign crate with its licence, its
//! checksum and what it depends on. The list is that of [`crate::supply`], which refuses what may not be in it.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::cargo::root;
use crate::supply::{self, Shipped, text};

/// The name by which the bill calls the whole.
const WHOLE: &str = "memkv";

/// `cargo xtask sbom`: prints it.
pub(crate) fn print(time: &str) -> Result<(), String> {
    println!("{}", bill(time)?);
    Ok(())
}

/// The bill of the programs as they are built from this tree, for `time` in the form of RFC 3339.
pub(crate) fn bill(time: &str) -> Result<String, String> {
    let lock = root().join("Cargo.lock");
    let lock = fs::read_to_string(lock).map_err(|error| format!("Cargo.lock: {error}"))?;
    let bill = document(&supply::contents()?, &checksums(&lock), time)?;
    serde_json::to_string_pretty(&bill).map_err(|error| format!("the bill of materials: {error}"))
}

fn document(
    shipped: &Shipped,
    checksums: &BTreeMap<(String, String), String>,
    time: &str,
) -> Result<Value, String> {
    let mut urls = BTreeMap::new();
    let mut components = Vec::new();
    for package in &shipped.foreign {
        let (name, version) = (text(&package["name"]), text(&package["version"]));
        let checksum = checksums
            .get(&(name.clone(), version.clone()))
            .ok_or_else(|| format!("Cargo.lock has no checksum of {name} {version}"))?;
        let url = format!("pkg:cargo/{name}@{version}");
        // Older crates write a slash for "or".
        let licence = text(&package["license"])
            .replace(" / ", "/")
            .replace('/', " OR ");
        components.push(json!({
            "type": "library",
            "bom-ref": url,
            "name": name,
            "version": version,
            "purl": url,
            "licenses": [{ "expression": licence }],
            "hashes": [{ "alg": "SHA-256", "content": checksum }],
        }));
        urls.insert(text(&package["id"]), url);
    }
    let of = |ids: &std::collections::BTreeSet<String>| -> Vec<&String> {
        ids.iter().filter_map(|id| urls.get(id)).collect()
    };
    let mut dependencies = vec![json!({ "ref": WHOLE, "dependsOn": of(&shipped.direct) })];
    for (id, names) in &shipped.names {
        dependencies.push(json!({ "ref": urls.get(id), "dependsOn": of(names) }));
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time,
            "component": {
                "type": "application",
                "bom-ref": WHOLE,
                "name": WHOLE,
                "version": env!("CARGO_PKG_VERSION"),
                "licenses": [{ "expression": "Apache-2.0" }],
            },
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// The checksums of `Cargo.lock`, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |block: &str, key: &str| {
        let mut lines = block.lines();
        let line = lines.find_map(|line| line.strip_prefix(&format!("{key} = \"")));
        Some(line?.trim_end_matches('"').to_owned())
    };
    let blocks = lock.split("[[package]]").skip(1);
    let packages = blocks.filter_map(|block| {
        let key = (value(block, "name")?, value(block, "version")?);
        Some((key, value(block, "checksum")?))
    });
    packages.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::{bill, checksums};
    use crate::supply::{self, list, text};

    #[test]
    fn the_bill_has_what_the_programs_contain_and_no_more() {
        let written = bill("2026-01-02T03:04:05Z").unwrap();
        let bill: Value = serde_json::from_str(&written).unwrap();
        assert_eq!(
            (&bill["bomFormat"], &bill["specVersion"]),
            (&"CycloneDX".into(), &"1.5".into())
        );
        let shipped = supply::contents().unwrap();
        let key = |one: &Value| (text(&one["name"]), text(&one["version"]));
        let listed: BTreeSet<_> = list(&bill["components"]).iter().map(key).collect();
        let expected: BTreeSet<_> = shipped.foreign.iter().map(key).collect();
        assert_eq!(listed, expected);
        assert!(listed.iter().any(|(name, _)| name == "tokio"));
        assert!(
            listed
                .iter()
                .all(|(name, _)| !name.starts_with("memkv") && name != "proptest")
        );
        let mut references = BTreeSet::from(["memkv".to_owned()]);
        for one in list(&bill["components"]) {
            let url = format!("pkg:cargo/{}@{}", text(&one["name"]), text(&one["version"]));
            assert_eq!(
                (text(&one["purl"]), text(&one["bom-ref"])),
                (url.clone(), url.clone())
            );
            assert!(references.insert(url), "{one} is there twice");
            let checksum = text(&one["hashes"][0]["content"]);
            assert!(checksum.len() == 64 && checksum.bytes().all(|byte| byte.is_ascii_hexdigit()));
            let licence = text(&one["licenses"][0]["expression"]);
            assert!(!licence.is_empty() && !licence.contains('/'), "{one}");
        }
        let edges = list(&bill["dependencies"]);
        let from: BTreeSet<_> = edges.iter().map(|edge| text(&edge["ref"])).collect();
        assert_eq!(from, references);
        let to = edges.iter().flat_map(|edge| list(&edge["dependsOn"]));
        let to: BTreeSet<_> = to.map(|one| text(&one)).collect();
        references.remove("memkv");
        assert_eq!(to, references, "each is needed by something");
    }

    #[test]
    fn checksums_are_those_of_the_version() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"c1\"\n\n\
                    [[package]]\nname = \"a\"\nversion = \"2.0.0\"\nchecksum = \"c2\"\n\n\
                    [[package]]\nname = \"ours\"\nversion = \"0.1.0\"\n";
        let found = checksums(lock);
        assert_eq!(found[&("a".to_owned(), "2.0.0".to_owned())], "c2");
        assert_eq!(found.len(), 2);
    }
}
