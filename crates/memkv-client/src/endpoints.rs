//! Where a cluster is found: a list of addresses, in the order in which they are tried.
//! Never resolves or contacts one. Invariant: at least one, each `host:port`.

use memkv_proto::ClusterConfig;
use memkv_proto::config::check_addr;

use crate::Error;

/// The address of a node that was started without a configuration, as in the original.
pub const DEFAULT_ENDPOINT: &str = "127.0.0.1:11081";

/// The addresses of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    addrs: Vec<String>,
    /// They are said to be reached over TLS.
    is_tls: bool,
}

impl Endpoints {
    /// Parses `host:port,host:port`; each may have `http://` in front, or all `https://`, which asks for
    /// TLS.
    ///
    /// # Errors
    /// [`Error::Endpoint`] that quotes the bad one.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut addrs: Vec<String> = Vec::new();
        let mut over_tls = 0;
        let parts = text.split(',').count();
        for part in text.split(',') {
            let part = part.trim_matches([' ', '\t']);
            let secure = part.strip_prefix("https://");
            over_tls += usize::from(secure.is_some());
            let addr = secure
                .or_else(|| part.strip_prefix("http://"))
                .unwrap_or(part)
                .trim_end_matches('/');
            check_addr(addr).map_err(|err| Error::Endpoint(err.to_string()))?;
            if !addrs.iter().any(|known| known == addr) {
                addrs.push(addr.to_owned());
            }
        }
        if over_tls != 0 && over_tls != parts {
            let detail = "some begin with https:// and some do not: TLS is for all or for none";
            return Err(Error::Endpoint(detail.to_owned()));
        }
        Ok(Self {
            addrs,
            is_tls: over_tls > 0,
        })
    }

    /// Whether `https://` was in front.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The addresses, in order.
    pub fn addrs(&self) -> &[String] {
        &self.addrs
    }
}

impl Default for Endpoints {
    /// [`DEFAULT_ENDPOINT`] alone.
    fn default() -> Self {
        Self {
            addrs: vec![DEFAULT_ENDPOINT.to_owned()],
            is_tls: false,
        }
    }
}

impl From<ClusterConfig> for Endpoints {
    /// The original's `cluster_config.json`, which holds at least one node.
    fn from(config: ClusterConfig) -> Self {
        Self {
            addrs: config.addrs.into_iter().map(|node| node.addr).collect(),
            is_tls: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let endpoints = Endpoints::parse("a:1, http://b:2/ ,[::1]:3,a:1").unwrap();
        assert_eq!(endpoints.addrs(), ["a:1", "b:2", "[::1]:3"]);
        assert!(!endpoints.is_tls());
        let endpoints = Endpoints::parse("https://a:1/,https://b:2").unwrap();
        assert_eq!(endpoints.addrs(), ["a:1", "b:2"]);
        assert!(endpoints.is_tls());
        for bad in [
            "",
            "a",
            "a:1,",
            "a:1;b:2",
            "https://a:1,b:1",
            "http://a:1,https://b:1",
            "redis://a:1",
            "a:0",
        ] {
            assert!(
                matches!(Endpoints::parse(bad), Err(Error::Endpoint(_))),
                "{bad}"
            );
        }
    }
}
