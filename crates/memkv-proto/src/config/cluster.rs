//! `cluster_config.json`: the addresses at which a client finds the cluster. It is no list of members: the
//! cluster has that.

use super::address::NodeAddr;
use super::failure::ConfigError;
use super::key::{Key, Kind};
use super::{nodes, parse_document};
use crate::json::Source;

/// The original's client configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The nodes to try, in this order; at least one.
    pub addrs: Vec<NodeAddr>,
}

const ADDRS: Key = Key {
    name: "addrs",
    kind: Kind::Nodes,
    default: "",
    unit: "",
    doc: "The nodes of the cluster.",
};

impl ClusterConfig {
    /// Parses the text of the file called `file`.
    ///
    /// # Errors
    /// [`ConfigError`] with the place; also if there is no node at all.
    pub fn from_json(text: &str, file: &str) -> Result<Self, ConfigError> {
        let source = Source { file, text };
        let mut addrs = None;
        for (key, value) in parse_document(source)? {
            if key.0 != ADDRS.name {
                let origin = source.location_of_key(&key, value);
                return Err(nodes::unknown_key(&key.0, origin, &[ADDRS.name]));
            }
            addrs = Some(nodes::nodes(source, &ADDRS, value.get())?);
        }
        match addrs {
            Some(addrs) if !addrs.is_empty() => Ok(Self { addrs }),
            Some(_) => Err(ConfigError::bad_value(&ADDRS, file, "empty")),
            None => Err(ConfigError::MissingKey {
                key: ADDRS.name.to_owned(),
                origin: file.to_owned(),
                expected: ADDRS.expects(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_file_loads() {
        let text = r#"{
    "addrs":[
        {"addr":"127.0.0.1:11081","id":"11081"},
        {"addr":"127.0.0.1:11082","id":"11082"}
    ]
}"#;
        let config = ClusterConfig::from_json(text, "cluster_config.json").unwrap();
        let addrs: Vec<_> = config.addrs.iter().map(|node| node.addr.as_str()).collect();
        assert_eq!(addrs, ["127.0.0.1:11081", "127.0.0.1:11082"]);
    }

    #[test]
    fn errors_name_their_location() {
        let fails = |text: &str| {
            ClusterConfig::from_json(text, "c.json")
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            fails(r#"{"adrs":[]}"#),
            r#"config: unknown key "adrs" at c.json:1:2 — did you mean "addrs"?"#
        );
        assert!(fails("{}").contains(r#""addrs" is missing in the object at c.json"#));
        assert!(fails(r#"{"addrs":[]}"#).contains("c.json is empty; it must be a list of nodes"));
        assert!(
            fails("{\"addrs\":[\n {\"addr\":\"h\",\"id\":\"1\"}]}")
                .contains("c.json:2:2: \"h\" is not")
        );
    }
}
