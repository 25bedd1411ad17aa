//! Reads `{"addr": ..., "id": ...}` and lists of it, which both configuration files contain.
//! Never drops anything: an unknown, missing or repeated key and a repeated node are errors.

use serde_json::value::RawValue;

use super::address::NodeAddr;
use super::failure::ConfigError;
use super::key::Key;
use super::nearest::nearest;
use crate::json::{Members, Source, Text, kind_of};

/// The characters allowed around an item of a list: any other is a part of it.
pub(super) const BLANKS: [char; 2] = [' ', '\t'];

/// The members of the object `raw`, without duplicates, or the error.
pub(super) fn object<'a>(
    source: Source<'a>,
    raw: &'a str,
) -> Result<Vec<(Text<'a>, &'a RawValue)>, ConfigError> {
    // The whole text was parsed before, so that only an object's type can be wrong here.
    let Members(members) = serde_json::from_str(raw).map_err(|err| ConfigError::Syntax {
        origin: source.location(raw),
        detail: err.to_string(),
    })?;
    for (at, (key, value)) in members.iter().enumerate() {
        if let Some((first, of)) = members[..at].iter().find(|(earlier, _)| earlier == key) {
            return Err(ConfigError::DuplicateKey {
                key: key.0.to_string(),
                origin: source.location_of_key(key, value),
                first: source.location_of_key(first, of),
            });
        }
    }
    Ok(members)
}

/// The error for a key that is none of `known`.
pub(super) fn unknown_key(key: &str, origin: String, known: &[&str]) -> ConfigError {
    ConfigError::UnknownKey {
        key: key.to_owned(),
        origin,
        nearest: nearest(key, known.iter().copied()).map(str::to_owned),
        known: known.join(", "),
    }
}

/// One node from JSON.
pub(super) fn node(source: Source<'_>, key: &Key, raw: &str) -> Result<NodeAddr, ConfigError> {
    if !raw.starts_with('{') {
        return Err(ConfigError::bad_value(
            key,
            &source.location(raw),
            kind_of(raw),
        ));
    }
    let (mut id, mut addr) = (None, None);
    for (name, value) in object(source, raw)? {
        let slot = match name.0.as_ref() {
            "id" => &mut id,
            "addr" => &mut addr,
            other => {
                let origin = source.location_of_key(&name, value);
                return Err(unknown_key(other, origin, &["addr", "id"]));
            }
        };
        let origin = source.location(value.get());
        let text: String =
            serde_json::from_str(value.get()).map_err(|_| ConfigError::BadValue {
                key: name.0.to_string(),
                origin: origin.clone(),
                found: kind_of(value.get()).to_owned(),
                expected: "a string".to_owned(),
            })?;
        *slot = Some(text);
    }
    let origin = source.location(raw);
    let missing = |name: &str| ConfigError::MissingKey {
        key: name.to_owned(),
        origin: origin.clone(),
        expected: "a string".to_owned(),
    };
    let (id, addr) = (
        id.ok_or_else(|| missing("id"))?,
        addr.ok_or_else(|| missing("addr"))?,
    );
    NodeAddr::new(&id, &addr).map_err(|err| ConfigError::BadAddress {
        key: key.name.to_owned(),
        origin,
        detail: err.to_string(),
    })
}

/// A list of nodes from JSON.
pub(super) fn nodes(
    source: Source<'_>,
    key: &Key,
    raw: &str,
) -> Result<Vec<NodeAddr>, ConfigError> {
    let items: Vec<&RawValue> = serde_json::from_str(raw)
        .map_err(|_| ConfigError::bad_value(key, &source.location(raw), kind_of(raw)))?;
    let mut nodes = Vec::new();
    for item in items {
        let node = node(source, key, item.get())?;
        refuse_repeated(&nodes, &node, key, &source.location(item.get()))?;
        nodes.push(node);
    }
    Ok(nodes)
}

/// A list of nodes from text: `id@host:port,...`.
pub(super) fn nodes_from_text(
    key: &Key,
    text: &str,
    origin: &str,
) -> Result<Vec<NodeAddr>, ConfigError> {
    let mut nodes = Vec::new();
    if text.trim_matches(BLANKS).is_empty() {
        return Ok(nodes);
    }
    for item in text.split(',') {
        let node = node_from_text(key, item, origin)?;
        refuse_repeated(&nodes, &node, key, origin)?;
        nodes.push(node);
    }
    Ok(nodes)
}

/// One node from text: `id@host:port`.
pub(super) fn node_from_text(key: &Key, text: &str, origin: &str) -> Result<NodeAddr, ConfigError> {
    NodeAddr::parse(text.trim_matches(BLANKS)).map_err(|err| ConfigError::BadAddress {
        key: key.name.to_owned(),
        origin: origin.to_owned(),
        detail: err.to_string(),
    })
}

fn refuse_repeated(
    nodes: &[NodeAddr],
    node: &NodeAddr,
    key: &Key,
    origin: &str,
) -> Result<(), ConfigError> {
    let what = if nodes.iter().any(|other| other.id == node.id) {
        format!("id {:?} occurs twice in {:?}", node.id, key.name)
    } else if nodes.iter().any(|other| other.addr == node.addr) {
        format!("address {:?} occurs twice in {:?}", node.addr, key.name)
    } else {
        return Ok(());
    };
    Err(ConfigError::Conflict {
        what,
        origin: origin.to_owned(),
        next: "give every node an id and an address of its own".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_spaces_and_tabs_may_stand_around_a_node() {
        let key = Key::find("peer_addrs").unwrap();
        let nodes = |text: &str| nodes_from_text(key, text, "test");
        assert_eq!(nodes(" \tn1@h:1 ,\tn2@h:2 ").unwrap().len(), 2);
        assert_eq!(nodes(" \t ").unwrap(), []);
        for text in [
            "\u{a0}",
            "\u{a0}n1@h:1",
            "n1@h:1\u{2003}",
            "n1@h:1,\nn2@h:2",
        ] {
            assert!(nodes(text).is_err(), "{text:?}");
        }
    }
}
