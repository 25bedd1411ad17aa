//! A node's name and address, as in the original's files and, for variables and flags, `id@host:port`.
//! Never resolves a host name.
//!
//! Invariant: an id that was accepted is one segment of a URL path and a part of a file name.

use std::fmt;

use serde::Serialize;

use crate::limits::MAX_NODE_ID_BYTES;

/// A node's id (its name) and where it listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct NodeAddr {
    /// `host:port`; an IPv6 host stands in brackets.
    pub addr: String,
    /// The node's unique name: `[A-Za-z0-9._-]{1,64}`, not `.` or `..`.
    pub id: String,
}

/// Why a text is not a node's id or address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The id is empty, too long or has other characters.
    #[error(
        "{0:?} is not a node id: use 1 to {MAX_NODE_ID_BYTES} of A-Z a-z 0-9 . _ - \
         (but not \".\" or \"..\")"
    )]
    Id(String),
    /// Not `host:port`.
    #[error(
        "{0:?} is not an address: write host:port with a port from 1 to 65535, \
         such as 127.0.0.1:11081 or [::1]:11081"
    )]
    Addr(String),
    /// Not `id@host:port`.
    #[error("{0:?} is not a node: write id@host:port, such as n1@127.0.0.1:11081")]
    Node(String),
}

impl NodeAddr {
    /// Checks both parts.
    ///
    /// # Errors
    /// [`AddressError`] that quotes the bad part.
    pub fn new(id: &str, addr: &str) -> Result<Self, AddressError> {
        check_id(id)?;
        check_addr(addr)?;
        Ok(Self {
            addr: addr.to_owned(),
            id: id.to_owned(),
        })
    }

    /// Parses `id@host:port`.
    ///
    /// # Errors
    /// [`AddressError`] that quotes the bad part.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (id, addr) = text
            .split_once('@')
            .ok_or_else(|| AddressError::Node(text.to_owned()))?;
        Self::new(id, addr)
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        split_addr(&self.addr).map_or("", |(host, _)| host)
    }

    /// The port; 0 if the address was never checked.
    pub fn port(&self) -> u16 {
        split_addr(&self.addr).map_or(0, |(_, port)| port)
    }
}

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.addr)
    }
}

/// Checks that `id` is safe in a URL path and in a file name.
///
/// # Errors
/// [`AddressError::Id`].
pub fn check_id(id: &str) -> Result<(), AddressError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let ok = (1..=MAX_NODE_ID_BYTES).contains(&id.len())
        && id.bytes().all(plain)
        && !matches!(id, "." | "..");
    if ok {
        Ok(())
    } else {
        Err(AddressError::Id(id.to_owned()))
    }
}

/// Checks that `addr` is `host:port`.
///
/// # Errors
/// [`AddressError::Addr`].
pub fn check_addr(addr: &str) -> Result<(), AddressError> {
    split_addr(addr)
        .map(|_| ())
        .ok_or_else(|| AddressError::Addr(addr.to_owned()))
}

/// Splits `host:port` at its last colon; the host comes without brackets. None if it is not an
/// address: a host is a name, an IPv4 address or an IPv6 address in brackets.
pub fn split_addr(addr: &str) -> Option<(&str, u16)> {
    let (host, port) = addr.rsplit_once(':')?;
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let port: u16 = port.parse().ok().filter(|&port| port != 0)?;
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']')?;
        return inner
            .parse::<core::net::Ipv6Addr>()
            .is_ok()
            .then_some((inner, port));
    }
    is_host(host).then_some((host, port))
}

/// Whether this is a host name or an IPv4 address.
pub(super) fn is_host(host: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    // RFC 1035, section 2.3.4: at most 255 bytes.
    let named = (1..=255).contains(&host.len()) && host.bytes().all(plain);
    // Digits and dots alone must be an IPv4 address: 127.0.0.256 is a slip, not a name.
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    named && (!numeric || host.parse::<core::net::Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (addr, host, port) in [
            ("127.0.0.1:11081", "127.0.0.1", 11081),
            ("[::1]:1", "::1", 1),
            ("n1.example.org:65535", "n1.example.org", 65535),
            ("memkv_1:80", "memkv_1", 80),
        ] {
            assert_eq!(split_addr(addr), Some((host, port)), "{addr}");
        }
        for addr in [
            "",
            ":",
            "host",
            "host:",
            ":80",
            "host:0",
            "host:65536",
            "host:-1",
            "host:+1",
            "::1:80",
            "[::1]",
            "[::1:80",
            "[x]:80",
            "a b:80",
            "127.0.0.256:80",
            "1.2.3:80",
            "http://h:80",
            "h:80/",
            "é:80",
        ] {
            assert_eq!(split_addr(addr), None, "{addr}");
            assert!(check_addr(addr).is_err());
        }
    }

    #[test]
    fn ids_are_safe_in_paths_and_file_names() {
        for id in ["11081", "n1", "a.b_c-D", "...", &"x".repeat(64)] {
            assert_eq!(check_id(id), Ok(()), "{id}");
        }
        for id in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "é",
            "a%",
            "a@b",
            "a\0",
            &"x".repeat(65),
        ] {
            assert_eq!(check_id(id), Err(AddressError::Id(id.to_owned())), "{id}");
        }
    }

    #[test]
    fn nodes_as_text() {
        let node = NodeAddr::parse("n1@[::1]:80").unwrap();
        assert_eq!(
            (node.id.as_str(), node.host(), node.port()),
            ("n1", "::1", 80)
        );
        assert_eq!(NodeAddr::parse(&node.to_string()), Ok(node));
        assert_eq!(
            NodeAddr::parse("h:80"),
            Err(AddressError::Node("h:80".into()))
        );
        assert_eq!(
            NodeAddr::parse("n/1@h:80"),
            Err(AddressError::Id("n/1".into()))
        );
        assert_eq!(NodeAddr::parse("n1@h"), Err(AddressError::Addr("h".into())));
    }
}
