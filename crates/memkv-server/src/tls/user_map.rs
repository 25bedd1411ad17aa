//! Which user a client's certificate stands for: the file `tls_user_map`, a line for each name.
//!
//! ```text
//! # name in the certificate        user
//! subject:CN=billing, O=Example    billing
//! dns:reports.example.org          reports
//! uri:spiffe://example.org/web     web
//! ```
//!
//! A name is the whole name, letter by letter, as `memkv_server cert show` prints it: letters that could be
//! taken for others, or for the end of a part, stand there as `\2C`. There are no patterns. Of the lines that
//! fit, the first counts. Never guesses: a certificate that no line names stands for no user.

use std::collections::HashMap;

use bytes::Bytes;

use super::certificate::Certificate;

/// The kinds of names.
const KINDS: [&str; 3] = ["subject:", "dns:", "uri:"];

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct UserMap {
    /// By the name with its kind: the number of the line, and the user.
    lines: HashMap<String, (usize, Bytes)>,
}

impl UserMap {
    /// Reads the file's text.
    ///
    /// # Errors
    /// What is wrong in which line.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
        if !text.is_empty() && !text.ends_with('\n') {
            // Half a line could name another user.
            return Err("its last line has no end: the file may be half written".to_owned());
        }
        let mut lines = HashMap::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: &str| format!("line {}: {why}", at + 1);
            let (name, user) = line
                .rsplit_once(char::is_whitespace)
                .ok_or_else(|| wrong("it must hold a name of a certificate, then a user"))?;
            let name = name.trim_end();
            let is_known = |kind: &&str| {
                name.strip_prefix(*kind)
                    .is_some_and(|rest| !rest.is_empty())
            };
            if !KINDS.iter().any(is_known) {
                return Err(wrong(
                    "the name must begin with subject:, dns: or uri:, as `memkv_server cert show` \
                     prints it behind that",
                ));
            }
            let user = Bytes::copy_from_slice(user.as_bytes());
            if lines.insert(name.to_owned(), (at, user)).is_some() {
                return Err(wrong("a line before it has the same name"));
            }
        }
        Ok(Self { lines })
    }

    /// The user that a certificate in DER stands for.
    pub(super) fn user(&self, der: &[u8]) -> Option<Bytes> {
        if self.lines.is_empty() {
            return None;
        }
        self.user_of(&Certificate::read(der)?)
    }

    fn user_of(&self, certificate: &Certificate) -> Option<Bytes> {
        let [subject, dns, uri] = KINDS;
        let of = |kind: &'static str, names: &[String]| {
            let named = names.iter().map(move |name| format!("{kind}{name}"));
            named
                .filter_map(|name| self.lines.get(&name))
                .min_by_key(|line| line.0)
        };
        let found = [
            of(subject, std::slice::from_ref(&certificate.subject)),
            of(dns, &certificate.dns),
            of(uri, &certificate.uris),
        ];
        let first = found.into_iter().flatten().min_by_key(|line| line.0);
        first.map(|(_, user)| user.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(subject: &str, dns: &[&str], uris: &[&str]) -> Certificate {
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Certificate {
            subject: subject.to_owned(),
            issuer: "CN=ca".to_owned(),
            dns: all(dns),
            ips: Vec::new(),
            uris: all(uris),
            serial: String::new(),
            is_ca: false,
            not_before: 0,
            not_after: 0,
            fingerprint: String::new(),
            named: Default::default(),
        }
    }

    #[test]
    fn a_certificate_stands_for_the_user_of_the_first_line_that_names_it_whole() {
        let map = UserMap::parse(
            b"# names\n\n uri:spiffe://x/web   web \nsubject:CN=a b, O=x\tann\ndns:app.x app\n",
        )
        .unwrap();
        let user = |subject: &str, dns: &[&str], uris: &[&str]| {
            let user = map.user_of(&certificate(subject, dns, uris));
            user.map(|user| String::from_utf8(user.to_vec()).unwrap())
        };
        assert_eq!(user("CN=a b, O=x", &[], &[]).as_deref(), Some("ann"));
        assert_eq!(
            user("CN=z", &["other.x", "app.x"], &[]).as_deref(),
            Some("app")
        );
        let both = user("CN=a b, O=x", &["app.x"], &["spiffe://x/web"]);
        assert_eq!(both.as_deref(), Some("web"), "the first line");
        for none in ["CN=a b", "CN=A B, O=x", "app.x", "CN=app", ""] {
            assert_eq!(
                user(none, &["a.app.x", "app.x.org"], &["app.x"]),
                None,
                "{none}"
            );
        }
        assert_eq!(UserMap::default().user(b"no certificate"), None);
    }

    #[test]
    fn a_line_that_says_nothing_certain_is_an_error() {
        for (text, why) in [
            (&b"dns:app.x\n"[..], "line 1: it must hold"),
            (b"\n#\napp.x app\n", "line 3: the name must begin"),
            (b"dns: app\n", "line 1: the name must begin"),
            (b"dns:a ann\ndns:a bob\n", "line 2: a line before"),
            (b"dns:\xff a\n", "not UTF-8"),
            (b"dns:a ann\ndns:b b", "its last line has no end"),
        ] {
            let wrong = UserMap::parse(text).unwrap_err();
            assert!(wrong.contains(why), "{wrong}");
        }
    }
}
