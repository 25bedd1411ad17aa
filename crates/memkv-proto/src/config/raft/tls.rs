//! The settings of TLS against each other. A file that is named and would not be used is an error: its
//! operator believes that it protects something.
//! Never opens a file.

use super::RaftConfig;
use crate::config::ConfigError;
use crate::config::words::{TlsClientAuth, TlsClients, TlsPeers};

impl RaftConfig {
    /// Whether any connection is served or made over TLS.
    pub fn uses_tls(&self) -> bool {
        self.tls != TlsClients::Off || self.tls_peers != TlsPeers::Off
    }

    pub(super) fn validate_tls(&self) -> Result<(), ConfigError> {
        self.validate_own_certificate()?;
        self.validate_clients_ca()?;
        self.validate_peers_ca()?;
        if !self.tls_crl_file.is_empty()
            && self.tls_ca_file.is_empty()
            && self.tls_peer_ca_file.is_empty()
        {
            return Err(self.conflict(
                &["tls_crl_file"],
                "tls_crl_file is set, and no certificate of others is checked".to_owned(),
                "set tls_ca_file and tls_client_auth, or tls_peer_ca_file and tls_peers",
            ));
        }
        Ok(())
    }

    fn validate_own_certificate(&self) -> Result<(), ConfigError> {
        let both = [
            ("tls_cert_file", &self.tls_cert_file),
            ("tls_key_file", &self.tls_key_file),
        ];
        for (key, file) in both {
            if self.uses_tls() && file.is_empty() {
                return Err(self.conflict(
                    &["tls", "tls_peers", key],
                    format!("there is to be TLS, and {key} is not set"),
                    "set tls_cert_file and tls_key_file; `memkv_server cert` makes both files",
                ));
            }
            if !self.uses_tls() && !file.is_empty() && self.is_unsaid("tls") {
                return Err(self.conflict(
                    &[key, "tls"],
                    format!("{key} is set, and tls is not"),
                    "say tls: \"accept\" or \"require\", or \"off\" to leave it out for now",
                ));
            }
        }
        Ok(())
    }

    fn validate_clients_ca(&self) -> Result<(), ConfigError> {
        let keys = ["tls_ca_file", "tls_client_auth", "tls"];
        if !self.tls_user_map.is_empty()
            && (self.tls_client_auth == TlsClientAuth::No || self.tls == TlsClients::Off)
        {
            return Err(self.conflict(
                &["tls_user_map", "tls_client_auth", "tls"],
                "tls_user_map is set, and no client is asked for a certificate".to_owned(),
                "say tls_client_auth: \"require\" or \"optional\", and tls",
            ));
        }
        match (self.tls_client_auth, self.tls_ca_file.is_empty()) {
            (TlsClientAuth::No, false) if self.is_unsaid("tls_client_auth") => Err(self.conflict(
                &keys,
                "tls_ca_file is set, and no client is asked for a certificate".to_owned(),
                "say tls_client_auth: \"require\", \"optional\" or \"no\"",
            )),
            (TlsClientAuth::Optional | TlsClientAuth::Require, true) => Err(self.conflict(
                &keys,
                format!(
                    "tls_client_auth is {}, and tls_ca_file is not set",
                    self.tls_client_auth
                ),
                "set tls_ca_file to the certificates of the CAs that issue clients' certificates",
            )),
            (TlsClientAuth::Require, false) if self.tls != TlsClients::Require => {
                Err(self.conflict(
                    &keys,
                    format!(
                        "tls_client_auth is require, and tls is {}: a client without TLS would need no \
                         certificate",
                        self.tls
                    ),
                    "say tls: \"require\", or tls_client_auth: \"optional\" until it is",
                ))
            }
            _ => Ok(()),
        }
    }

    fn validate_peers_ca(&self) -> Result<(), ConfigError> {
        for (key, value) in [
            ("tls_peer_ca_file", &self.tls_peer_ca_file),
            ("cluster_name", &self.cluster_name),
        ] {
            if self.tls_peers != TlsPeers::Off && value.is_empty() {
                return Err(self.conflict(
                    &["tls_peers", key],
                    format!("tls_peers is {}, and {key} is not set", self.tls_peers),
                    "set tls_peer_ca_file, and cluster_name as nodes' certificates have it",
                ));
            }
        }
        if !self.tls_peer_ca_file.is_empty() && self.is_unsaid("tls_peers") {
            return Err(self.conflict(
                &["tls_peer_ca_file", "tls_peers"],
                "tls_peer_ca_file is set, and tls_peers is not".to_owned(),
                "say tls_peers: \"accept\", or \"off\" to leave it out for now",
            ));
        }
        Ok(())
    }

    /// Whether the operator has said nothing about a setting.
    fn is_unsaid(&self, key: &str) -> bool {
        self.origin(key) == "default"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with these settings, or nothing.
    fn wrong(settings: &[(&str, &str)]) -> String {
        let mut config = RaftConfig::default();
        for (key, value) in settings {
            config.apply_override(key, value, "test").unwrap();
        }
        config
            .validate()
            .err()
            .map_or_else(String::new, |error| error.to_string())
    }

    const CERT: [(&str, &str); 2] = [("tls_cert_file", "c.crt"), ("tls_key_file", "c.key")];

    #[test]
    fn a_file_of_tls_that_would_not_be_used_or_is_missing_is_an_error() {
        let with = |more: &[(&'static str, &'static str)]| wrong(&[&CERT[..], more].concat());
        assert!(wrong(&CERT).contains("tls is not"));
        assert_eq!(with(&[("tls", "off")]), "");
        assert_eq!(with(&[("tls", "accept")]), "");
        assert!(wrong(&[("tls", "accept")]).contains("tls_cert_file is not set"));
        assert!(wrong(&[("tls", "require"), CERT[0]]).contains("tls_key_file is not set"));
        let required = ("tls", "require");
        assert!(with(&[required, ("tls_ca_file", "a")]).contains("no client is asked"));
        assert!(with(&[required, ("tls_client_auth", "require")]).contains("tls_ca_file is not"));
        let asked = [("tls_ca_file", "a"), ("tls_client_auth", "require")];
        assert_eq!(with(&[&[required], &asked[..]].concat()), "");
        let skipped = with(&[&[("tls", "accept")], &asked[..]].concat());
        assert!(skipped.contains("would need no certificate"), "{skipped}");
        assert!(with(&[required, ("tls_crl_file", "l")]).contains("no certificate of others"));
        let mapped = ("tls_user_map", "m");
        assert!(with(&[required, mapped]).contains("no client is asked for a certificate"));
        assert_eq!(with(&[&[required, mapped], &asked[..]].concat()), "");
    }

    #[test]
    fn tls_of_peers_needs_a_ca_and_the_clusters_name() {
        let with = |more: &[(&'static str, &'static str)]| wrong(&[&CERT[..], more].concat());
        let (ca, name) = (("tls_peer_ca_file", "a"), ("cluster_name", "prod"));
        for word in ["accept", "dial", "require"] {
            let peers = ("tls_peers", word);
            assert!(with(&[peers, name]).contains("tls_peer_ca_file is not"));
            assert!(with(&[peers, ca]).contains("cluster_name is not"));
            assert_eq!(with(&[peers, ca, name]), "");
        }
        assert!(with(&[("tls", "accept"), ca, name]).contains("tls_peers is not"));
        let mut config = RaftConfig::default();
        for bad in ["a b", "a/b", &"x".repeat(64)] {
            assert!(
                config.apply_override("cluster_name", bad, "test").is_err(),
                "{bad}"
            );
        }
    }
}
