//! Where a cluster is found: a list of addresses, in the order in which they are tried.
//! Never resolves or contacts one. Invariant: at least one, each `host:port`.

use memkv_proto::ClusterConfig;
use memkv_proto::config::check_addr;

use crate::Error;

/// The address of a node that was started without a configuration, as in the original.
pub const DEFAULT_ENDPOINT: &str = "127.0.0.1:11081";

/// The addresses of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints(Vec<String>);

impl Endpoints {
    /// Parses `host:port,host:port`; each may have `http://` in front.
    ///
    /// # Errors
    /// [`Error::Endpoint`] that quotes the bad one.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut addrs: Vec<String> = Vec::new();
        for part in text.split(',') {
            let part = part.trim_matches([' ', '\t']);
            let addr = part
                .strip_prefix("http://")
                .unwrap_or(part)
                .trim_end_matches('/');
            if part.starts_with("https://") {
                let detail = format!("{part:?} asks for TLS, which this client does not speak");
                return Err(Error::Endpoint(detail));
            }
            check_addr(addr).map_err(|err| Error::Endpoint(err.to_string()))?;
            if !addrs.iter().any(|known| known == addr) {
                addrs.push(addr.to_owned());
            }
        }
        Ok(Self(addrs))
    }

    /// The addresses, in order.
    pub fn addrs(&self) -> &[String] {
        &self.0
    }
}

impl Default for Endpoints {
    /// [`DEFAULT_ENDPOINT`] alone.
    fn default() -> Self {
        Self(vec![DEFAULT_ENDPOINT.to_owned()])
    }
}

impl From<ClusterConfig> for Endpoints {
    /// The original's `cluster_config.json`, which holds at least one node.
    fn from(config: ClusterConfig) -> Self {
        Self(config.addrs.into_iter().map(|node| node.addr).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let endpoints = Endpoints::parse("a:1, http://b:2/ ,[::1]:3,a:1").unwrap();
        assert_eq!(endpoints.addrs(), ["a:1", "b:2", "[::1]:3"]);
        for bad in [
            "",
            "a",
            "a:1,",
            "a:1;b:2",
            "https://a:1",
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
