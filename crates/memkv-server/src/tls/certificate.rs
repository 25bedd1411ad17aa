//! The names, validity and fingerprint of a certificate, and the node that it names.
//! Never decides whether a certificate is genuine: `verifier` does.

use std::net::IpAddr;

use memkv_proto::{Utc, decode_key_path, encode_key_path};
use sha2::{Digest, Sha256};
use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate, X509Name};

use super::lists::Named;

/// The scheme of a node's URI.
const SCHEME: &str = "memkv://";

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) subject: String,
    pub(crate) issuer: String,
    pub(crate) dns: Vec<String>,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) uris: Vec<String>,
    pub(crate) serial: String,
    pub(crate) is_ca: bool,
    /// Seconds since the Unix epoch, as the next one.
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    /// SHA-256 of the whole, in pairs of hexadecimal digits.
    pub(crate) fingerprint: String,
    /// How lists name it.
    pub(crate) named: Named,
}

/// Why a certificate is no node's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotANode {
    #[error("it is no certificate that can be read")]
    Unreadable,
    #[error("it names no node of the cluster {cluster:?}: it lacks a URI {SCHEME}{cluster}/NODE")]
    Unnamed { cluster: String },
    #[error("it names more than one node of the cluster {cluster:?}")]
    Several { cluster: String },
}

/// The URI by which a node's certificate names it.
pub(crate) fn node_uri(cluster: &str, node: &str) -> String {
    format!("{SCHEME}{cluster}/{}", encode_key_path(node.as_bytes()))
}

impl Certificate {
    /// Reads one in DER; nothing if it is none.
    pub(crate) fn read(der: &[u8]) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let mut certificate = Self {
            subject: text_of(parsed.subject()),
            issuer: text_of(parsed.issuer()),
            dns: Vec::new(),
            ips: Vec::new(),
            uris: Vec::new(),
            serial: parsed.raw_serial_as_string(),
            is_ca: parsed.is_ca(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            fingerprint: pairs(&Sha256::digest(der)),
            named: Named {
                issuer: parsed.issuer().as_raw().to_vec(),
                serial: parsed.raw_serial().to_vec(),
            },
        };
        for extension in parsed.extensions() {
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension()
            else {
                continue;
            };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(name) => certificate.dns.push(escaped(name, "")),
                    GeneralName::URI(uri) => certificate.uris.push(escaped(uri, "")),
                    GeneralName::IPAddress(bytes) => certificate.ips.extend(ip(bytes)),
                    _ => {}
                }
            }
        }
        Some(certificate)
    }

    /// The node of this cluster that it names.
    pub(crate) fn node(&self, cluster: &str) -> Result<String, NotANode> {
        let of_cluster = |uri: &String| {
            let (at, node) = uri.strip_prefix(SCHEME)?.split_once('/')?;
            (at == cluster).then(|| node.to_owned())
        };
        let mut nodes = self.uris.iter().filter_map(of_cluster);
        let cluster = || cluster.to_owned();
        let node = nodes
            .next()
            .ok_or_else(|| NotANode::Unnamed { cluster: cluster() })?;
        if nodes.next().is_some() {
            return Err(NotANode::Several { cluster: cluster() });
        }
        let decoded = decode_key_path(&node).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        // One spelling only, so that nothing is a name that looks like another.
        text.filter(|text| encode_key_path(text.as_bytes()) == node)
            .ok_or(NotANode::Unreadable)
    }
}

/// The node of this cluster that a certificate in DER names.
pub(super) fn node_of(der: &[u8], cluster: &str) -> Result<String, NotANode> {
    Certificate::read(der)
        .ok_or(NotANode::Unreadable)?
        .node(cluster)
}

/// A distinguished name as text: `CN=billing, O=Example`. Its maker chooses the values, so what could pass for
/// another part of the name, or for another letter, is escaped as RFC 4514 (section 2.4) allows: two names are
/// never the same text.
pub(super) fn text_of(name: &X509Name<'_>) -> String {
    let parts = name.iter_rdn().map(|part| {
        let attributes = part.iter().map(|attribute| {
            let kind = attribute.attr_type();
            let kind =
                oid2abbrev(kind, oid_registry()).map_or_else(|_| kind.to_string(), str::to_owned);
            format!("{kind}={}", value_of(attribute.attr_value()))
        });
        attributes.collect::<Vec<_>>().join(" + ")
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// The value of an attribute; one that is no text, or in another alphabet's encoding, by its bytes.
fn value_of(value: &Any<'_>) -> String {
    let is_text = matches!(
        value.tag(),
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString
    );
    match std::str::from_utf8(value.data) {
        Ok(text) if is_text => escaped(text, SPECIAL),
        _ => {
            let digits = value.data.iter().map(|byte| format!("{byte:02X}"));
            format!("#{:02X}:{}", value.tag().0, digits.collect::<String>())
        }
    }
}

/// What separates the parts of a name (RFC 4514, section 2.4), and `#` in front of a value.
const SPECIAL: &str = ",+\"<>;=#";

/// The text with a backslash and two hexadecimal digits in place of each byte of a letter that is special, that
/// is not visible, or that is not of ASCII, since it may look like another. A blank stands between others alone.
fn escaped(text: &str, special: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let bytes = text.as_bytes();
    let is_letter = |at: Option<usize>| {
        let found = at.and_then(|at| bytes.get(at));
        found.is_some_and(|found| *found != b' ')
    };
    for (at, byte) in bytes.iter().enumerate() {
        let is_plain = match byte {
            b' ' => {
                !special.is_empty() && is_letter(at.checked_sub(1)) && is_letter(at.checked_add(1))
            }
            b'\\' => false,
            _ => byte.is_ascii_graphic() && !special.as_bytes().contains(byte),
        };
        match is_plain {
            true => shown.push(char::from(*byte)),
            false => shown.push_str(&format!("\\{byte:02X}")),
        }
    }
    shown
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn pairs(bytes: &[u8]) -> String {
    let pairs: Vec<_> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

/// A time as people write it: `2026-11-30 01:02:03 UTC`.
pub(crate) fn date(seconds: i64) -> String {
    let at = Utc::at(seconds);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
        at.year, at.month, at.day, at.hour, at.minute, at.second
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(date(1_735_689_599), "2024-12-31 23:59:59 UTC");
        assert_eq!(date(4_107_542_399), "2100-02-28 23:59:59 UTC");
    }

    fn named(uris: &[&str]) -> Certificate {
        Certificate {
            subject: String::new(),
            issuer: String::new(),
            dns: Vec::new(),
            ips: Vec::new(),
            uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
            serial: String::new(),
            is_ca: false,
            not_before: 0,
            not_after: 0,
            fingerprint: String::new(),
            named: Named::default(),
        }
    }

    #[test]
    fn a_certificate_names_one_node_of_the_cluster_in_one_spelling() {
        let node = |uris: &[&str]| named(uris).node("prod").ok();
        let of = |node: &str| node_uri("prod", node);
        assert_eq!(node(&[&of("n1")]).as_deref(), Some("n1"));
        assert_eq!(node(&[&of("a/b c")]).as_deref(), Some("a/b c"));
        assert_eq!(
            node(&["memkv://other/n1", &of("n2")]).as_deref(),
            Some("n2")
        );
        assert_eq!(node(&[]), None);
        assert_eq!(node(&["memkv://other/n1"]), None);
        assert_eq!(node(&["memkv://prod/n%31"]), None, "n1 in another spelling");
        assert_eq!(node(&[&of("n1"), &of("n2")]), None);
        assert_eq!(node(&["spiffe://prod/n1"]), None);
        assert_eq!(Certificate::read(b"no certificate"), None);
    }
}
