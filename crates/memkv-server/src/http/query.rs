//! The query string of a request: names and percent-decoded values (RFC 3986, section 3.4).
//! Never guesses: a name that the path does not know is refused, so that no misspelt condition is
//! ignored.

use bytes::Bytes;
use memkv_proto::{ErrorCode, decode_key_path};

use super::head::Refusal;

/// The parameters of one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct QueryString(Vec<(String, Bytes)>);

impl QueryString {
    /// Parses the part after the `?`; `known` are the names that the path has. `+` is a plus sign, as
    /// in paths.
    pub(super) fn parse(query: &str, known: &[&str]) -> Result<Self, Refusal> {
        let refuse = |detail: String| Err(Refusal::new(ErrorCode::BadRequest, detail));
        let mut parameters = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if !known.contains(&name) {
                return refuse(match known {
                    [] => "this path has no query parameters".to_owned(),
                    _ => format!("no parameter {name:?} here; there are {}", known.join(", ")),
                });
            }
            if parameters.iter().any(|(seen, _)| seen == name) {
                return refuse(format!("the parameter {name} occurs twice"));
            }
            match decode_key_path(value) {
                Ok(value) => parameters.push((name.to_owned(), Bytes::from(value))),
                Err(error) => return refuse(format!("the parameter {name}: {error}")),
            }
        }
        Ok(Self(parameters))
    }

    /// A parameter's bytes.
    pub(super) fn bytes(&self, name: &str) -> Option<&Bytes> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value)
    }

    /// A parameter, parsed; `wanted` describes it in the error.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.bytes(name) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(value).unwrap_or_default();
        parse(text).map(Some).ok_or_else(|| {
            let got = String::from_utf8_lossy(value);
            let detail = format!("{name} is {got:?}, it must be {wanted}");
            Refusal::new(ErrorCode::BadRequest, detail)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_once_and_a_plus_is_a_plus() {
        let query = QueryString::parse("prefix=a%2Fb%2520+&keys&", &["prefix", "keys"]).unwrap();
        assert_eq!(query.bytes("prefix"), Some(&Bytes::from_static(b"a/b%20+")));
        assert_eq!(query.bytes("keys"), Some(&Bytes::new()));
        assert_eq!(query.bytes("limit"), None);
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        let refusal = QueryString::parse("tll=1", &["ttl", "incr"]).unwrap_err();
        assert!(refusal.detail.contains("tll") && refusal.detail.contains("ttl, incr"));
        assert!(QueryString::parse("a=1&a=2", &["a"]).is_err());
        assert!(QueryString::parse("a=%zz", &["a"]).is_err());
    }
}
