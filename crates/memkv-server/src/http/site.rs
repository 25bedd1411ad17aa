//! Detects requests that a page of another site made its user's browser send. A node on loopback has
//! no password and trusts all programs of its machine; a browser is one of them, and runs code that
//! strangers wrote.
//!
//! - A request that a page of another origin made a browser send says so in `Origin` or
//!   `Sec-Fetch-Site`. It is rejected on every path, with or without a password.
//! - A page may have its own host name lead here (DNS rebinding), and then is of the same origin. So
//!   without a password the host of the URL must be one that a stranger cannot have: an address,
//!   `localhost`, or a name of the configuration.
//!
//! Never stops a program that is no browser: it may send any header fields, or none.

use std::net::{Ipv4Addr, Ipv6Addr};

use memkv_proto::ErrorCode;

use super::head::{Head, Refusal};

/// Rejects the requests of pages of other sites. A page that this node has served is of its own site.
pub(super) fn check_page(head: &Head) -> Result<(), Refusal> {
    let is_foreign = |origin: &str| !authority(head).is_some_and(|own| is_same(origin, own));
    let from = match &head.origin {
        _ if head.is_cross_site => "another site",
        Some(origin) if is_foreign(origin) => origin,
        _ => return Ok(()),
    };
    let detail = format!(
        "a browser sent this for a page of {from:?}, and pages may not use this node; nothing was \
         executed; programs must send neither Origin nor Sec-Fetch-Site"
    );
    Err(Refusal::new(ErrorCode::ForeignSite, detail))
}

/// Refuses a host name that is not among `names`, which have no dot at their end.
pub(super) fn check_host(head: &Head, names: &[String]) -> Result<(), Refusal> {
    let authorities = [&head.authority, &head.host];
    let strange = |authority: &&String| !is_known(authority, names);
    match authorities.into_iter().flatten().find(strange) {
        None => Ok(()),
        Some(authority) => {
            let detail = format!(
                "{authority:?} is no name of this node, and without a password any web page could \
                 come under it; nothing was executed; use an IP address or localhost, add the name \
                 to allowed_hosts, or set password_file"
            );
            Err(Refusal::new(ErrorCode::UnknownHost, detail))
        }
    }
}

/// Whom the client means to ask: the target's word goes over the field's (RFC 9112, section 3.2.2).
fn authority(head: &Head) -> Option<&str> {
    head.authority.as_deref().or(head.host.as_deref())
}

/// Whether an `Origin` is a page of `authority`. A proxy in front may have served it over TLS.
fn is_same(origin: &str, authority: &str) -> bool {
    let Some((scheme, host)) = origin.split_once("://") else {
        return false;
    };
    let own_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let without_port = |text| str::strip_suffix(text, own_port).unwrap_or(text).to_owned();
    host_of(host).is_some() && without_port(host).eq_ignore_ascii_case(&without_port(authority))
}

fn is_known(authority: &str, names: &[String]) -> bool {
    let Some(host) = host_of(authority) else {
        return false;
    };
    if let Some(literal) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        // The part behind the percent sign names an interface of the client.
        let address = literal.split('%').next().unwrap_or_default();
        return address.parse::<Ipv6Addr>().is_ok();
    }
    if host.parse::<Ipv4Addr>().is_ok() {
        return true;
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    is("localhost") || names.iter().any(|known| is(known))
}

/// The host of `host` or `host:port`, with the brackets of an IPv6 address; `None` if it is neither.
fn host_of(authority: &str) -> Option<&str> {
    let end = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(end);
    let digits = port.strip_prefix(':').unwrap_or(port);
    let is_port = port.is_empty() || port.starts_with(':');
    (is_port && !host.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_configured_names_are_known() {
        let names = ["kv.example.com".to_owned(), "n1".to_owned()];
        for authority in [
            "127.0.0.1",
            "127.0.0.1:11081",
            "192.168.1.7:",
            "[::1]",
            "[::1]:11081",
            "[fe80::1%25eth0]:11081",
            "[::ffff:127.0.0.1]",
            "localhost",
            "LocalHost.:11081",
            "kv.example.com",
            "KV.example.com.:443",
            "n1:11081",
            "n1.",
        ] {
            assert!(is_known(authority, &names), "{authority}");
        }
        for authority in [
            "",
            ":11081",
            ".",
            "evil.example",
            "evil.example:11081",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evil.localhost",
            "xn1",
            "n1..",
            "kv.example.com.evil",
            "127.0.0.1.",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:x",
            "[]",
            "[127.0.0.1]",
            "[evil.example]",
            "127.0.0.1:80:evil",
            "127.0.0.1:x",
            "evil@127.0.0.1",
            "127.0.0.1@evil.example",
            "127.0.0.1, evil.example",
            "127.0.0.1 evil.example",
            "127.0.0.1/evil",
            "localhost\u{a0}",
            "löcalhost",
        ] {
            assert!(!is_known(authority, &names), "{authority}");
        }
    }

    #[test]
    fn a_page_is_of_the_host_that_it_was_loaded_from() {
        for (origin, authority) in [
            ("http://127.0.0.1:11081", "127.0.0.1:11081"),
            ("http://localhost:11081", "LOCALHOST:11081"),
            ("http://[::1]:11081", "[::1]:11081"),
            ("http://kv.example.com", "kv.example.com"),
            ("http://kv.example.com", "kv.example.com:80"),
            ("https://kv.example.com", "kv.example.com:443"),
            ("https://kv.example.com", "kv.example.com"),
        ] {
            assert!(is_same(origin, authority), "{origin} {authority}");
        }
        for (origin, authority) in [
            ("null", "127.0.0.1:11081"),
            ("null", "null"),
            ("", ""),
            ("", "127.0.0.1:11081"),
            ("http://", ""),
            ("127.0.0.1:11081", "127.0.0.1:11081"),
            ("http://localhost:3000", "localhost:11081"),
            ("http://localhost:11081", "127.0.0.1:11081"),
            ("http://evil.example", "127.0.0.1:11081"),
            ("http://127.0.0.1:11081.evil.example", "127.0.0.1:11081"),
            ("http://127.0.0.1:11081/", "127.0.0.1:11081"),
            (
                "http://127.0.0.1:11081 http://evil.example",
                "127.0.0.1:11081",
            ),
            ("chrome-extension://127.0.0.1:11081", "127.0.0.1:11081"),
            ("file://127.0.0.1:11081", "127.0.0.1:11081"),
            ("https://kv.example.com", "kv.example.com:80"),
        ] {
            assert!(!is_same(origin, authority), "{origin} {authority}");
        }
    }
}
