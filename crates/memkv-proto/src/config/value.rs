//! One setting's value, from JSON or from text, checked against the values that its key accepts.
//! Never looks at any other setting.

use super::address::{NodeAddr, check_addr, is_host};
use super::failure::ConfigError;
use super::key::{Key, Kind};
use super::nodes::{self, BLANKS};
use crate::json::{Source, kind_of};

/// A value that passed the check of its key.
pub(super) enum Value {
    Text(String),
    Number(u64),
    Bool(bool),
    Node(NodeAddr),
    Nodes(Vec<NodeAddr>),
    Hosts(Vec<String>),
}

/// A value as a file has it.
pub(super) fn value_from_json(
    source: Source<'_>,
    key: &Key,
    raw: &str,
) -> Result<Value, ConfigError> {
    let origin = source.location(raw);
    let quoted = raw.starts_with('"');
    match key.kind {
        Kind::Node => nodes::node(source, key, raw).map(Value::Node),
        Kind::Nodes => nodes::nodes(source, key, raw).map(Value::Nodes),
        Kind::Addrs => {
            let addrs: Vec<String> = serde_json::from_str(raw)
                .map_err(|_| ConfigError::bad_value(key, &origin, kind_of(raw)))?;
            self::addrs(key, addrs, &origin)
        }
        Kind::Hosts => {
            let hosts: Vec<String> = serde_json::from_str(raw)
                .map_err(|_| ConfigError::bad_value(key, &origin, kind_of(raw)))?;
            self::hosts(key, hosts, &origin)
        }
        Kind::Path | Kind::File | Kind::Word(_) | Kind::Letters(_) | Kind::Name | Kind::Addr => {
            let text: String = serde_json::from_str(raw)
                .map_err(|_| ConfigError::bad_value(key, &origin, kind_of(raw)))?;
            value_from_text(key, &text, &origin)
        }
        Kind::Integer { .. } | Kind::Bool if quoted => Err(ConfigError::bad_value(
            key,
            &origin,
            format!("the string {raw}"),
        )),
        Kind::Integer { .. } | Kind::Bool => value_from_text(key, raw, &origin),
    }
}

/// A value as variables and flags have it; `origin` is for the error.
pub(super) fn value_from_text(key: &Key, text: &str, origin: &str) -> Result<Value, ConfigError> {
    let bad = || ConfigError::bad_value(key, origin, format!("{text:?}"));
    match key.kind {
        Kind::Path if text.is_empty() || text.contains(char::is_control) => Err(bad()),
        Kind::File if text.contains(char::is_control) => Err(bad()),
        Kind::Path | Kind::File => Ok(Value::Text(text.to_owned())),
        Kind::Word(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
        Kind::Word(_) => Err(bad()),
        Kind::Letters(letters) if text.chars().all(|letter| letters.contains(letter)) => {
            Ok(Value::Text(text.to_owned()))
        }
        Kind::Letters(_) => Err(bad()),
        Kind::Name if is_name(text) => Ok(Value::Text(text.to_owned())),
        Kind::Name => Err(bad()),
        Kind::Addr if !text.is_empty() && check_addr(text).is_err() => Err(bad()),
        Kind::Addr => Ok(Value::Text(text.to_owned())),
        Kind::Bool => text.parse().map(Value::Bool).map_err(|_| bad()),
        Kind::Integer { min, max } => {
            let number = text
                .parse()
                .ok()
                .filter(|number| (min..=max).contains(number));
            number.map(Value::Number).ok_or_else(bad)
        }
        Kind::Node => nodes::node_from_text(key, text, origin).map(Value::Node),
        Kind::Nodes => nodes::nodes_from_text(key, text, origin).map(Value::Nodes),
        Kind::Hosts | Kind::Addrs if text.is_empty() => Ok(Value::Hosts(Vec::new())),
        Kind::Addrs => {
            let names = text.split(',').map(|name| name.trim_matches(BLANKS));
            addrs(key, names.map(str::to_owned).collect(), origin)
        }
        Kind::Hosts => {
            let names = text.split(',').map(|name| name.trim_matches(BLANKS));
            hosts(key, names.map(str::to_owned).collect(), origin)
        }
    }
}

/// As long as a label of a host name may be, and in a URI as it is.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    text.len() <= 63 && text.bytes().all(plain)
}

/// Host names, each checked.
fn hosts(key: &Key, names: Vec<String>, origin: &str) -> Result<Value, ConfigError> {
    match names.iter().find(|name| !is_host(name)) {
        Some(name) => Err(ConfigError::bad_value(key, origin, format!("{name:?}"))),
        None => Ok(Value::Hosts(names)),
    }
}

/// Addresses, each checked.
fn addrs(key: &Key, addrs: Vec<String>, origin: &str) -> Result<Value, ConfigError> {
    match addrs.iter().find(|addr| check_addr(addr).is_err()) {
        Some(addr) => Err(ConfigError::bad_value(key, origin, format!("{addr:?}"))),
        None => Ok(Value::Hosts(addrs)),
    }
}
