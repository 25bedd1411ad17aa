//! Refuses addresses that would let anyone who reaches them use the node. Clients prove themselves by
//! the password, unless `insecure` or `nopass_from` says that the network is trusted; peers by the cluster
//! secret, unless only this machine reaches the node and clients need no password either. What both send is
//! encrypted, unless `insecure` says so here too.
//!
//! Invariant: where the node has a password, `insecure` is about encryption alone.

use std::net::SocketAddr;

use memkv_proto::{NopassFrom, TlsClientAuth, TlsClients, TlsPeers};

use crate::peer::Trust;
use crate::settings::Settings;

/// Why a node must not listen at its address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Exposed {
    #[error(
        "{addr} is not a loopback address: anyone who reaches it could read and write; set \
         password_file, listen on 127.0.0.1 or ::1, or say --insecure if the network is trusted and needs \
         no encryption either, or else --nopass-from everywhere"
    )]
    Clients { addr: SocketAddr },
    #[error(
        "{why}, so anyone who reaches this node could pass for one of its peers: write a secret \
         into a file with `umask 077; memkv_server secret > FILE`, and give every node that file as \
         its cluster_secret_file"
    )]
    Peers { why: String },
    #[error(
        "{addr} is not a loopback address, and the password and the data of clients would cross the \
         network in the clear (tls is off): set tls, tls_cert_file and tls_key_file, for which \
         `memkv_server cert` makes the files, or say --insecure if the network is trusted"
    )]
    PlainClients { addr: SocketAddr },
    #[error(
        "{addr} is not a loopback address, and what the nodes say to each other would cross the network in \
         the clear (tls_peers is off): set tls_peers, tls_peer_ca_file and cluster_name, for which \
         `memkv_server cert` makes the files, or say --insecure if the network is trusted"
    )]
    PlainPeers { addr: SocketAddr },
}

/// Checks the addresses that clients will reach.
pub(crate) fn check_clients(settings: &Settings, addrs: &[SocketAddr]) -> Result<(), Exposed> {
    let Some(addr) = addrs.iter().find(|addr| !addr.ip().is_loopback()) else {
        return Ok(());
    };
    let config = &settings.config;
    if config.nopass_from != NopassFrom::Everywhere
        && (settings.password.is_some() || by_certificate(settings))
    {
        return Ok(());
    }
    if nopass_from_everywhere(settings) {
        tracing::warn!(
            %addr,
            "users without a password are admitted from every machine that reaches this address"
        );
        return Ok(());
    }
    // Then `default` is admitted from loopback alone.
    match config.nopass_from == NopassFrom::Loopback && config.insecure {
        true => Ok(()),
        false => Err(Exposed::Clients { addr: *addr }),
    }
}

/// Whether a user without a password may come from another machine.
pub(crate) fn nopass_from_everywhere(settings: &Settings) -> bool {
    match settings.config.nopass_from {
        NopassFrom::Everywhere => true,
        NopassFrom::Loopback => false,
        NopassFrom::Auto => {
            (settings.config.insecure && settings.password.is_none()) || by_certificate(settings)
        }
    }
}

/// Whether no client is served without a certificate, from any address. Where certificates stand for users,
/// that proves one user and not those without a password.
fn by_certificate(settings: &Settings) -> bool {
    let config = &settings.config;
    config.tls == TlsClients::Require
        && config.tls_client_auth == TlsClientAuth::Require
        && config.tls_user_map.is_empty()
}

/// Checks that clients from outside are served over TLS, or at least may be. A cluster that is changed over
/// says `accept` meanwhile.
pub(crate) fn check_clients_encryption(
    settings: &Settings,
    addrs: &[SocketAddr],
) -> Result<(), Exposed> {
    let Some(addr) = addrs.iter().find(|addr| !addr.ip().is_loopback()) else {
        return Ok(());
    };
    match settings.config.tls {
        TlsClients::Require => {}
        TlsClients::Accept => {
            tracing::warn!(%addr, "tls is accept: clients may still send passwords in the clear");
        }
        TlsClients::Off if settings.config.insecure => {
            tracing::warn!(%addr, "insecure: what clients send crosses the network in the clear");
        }
        TlsClients::Off => return Err(Exposed::PlainClients { addr: *addr }),
    }
    Ok(())
}

/// The same for peers.
pub(crate) fn check_peers_encryption(
    settings: &Settings,
    addrs: &[SocketAddr],
) -> Result<(), Exposed> {
    let config = &settings.config;
    let Some(addr) = addrs.iter().find(|addr| !addr.ip().is_loopback()) else {
        return Ok(());
    };
    match config.tls_peers {
        TlsPeers::Require => {}
        TlsPeers::Accept | TlsPeers::Dial => {
            tracing::warn!(%addr, "tls_peers is {}: peers may still speak in the clear", config.tls_peers);
        }
        TlsPeers::Off if config.is_single() => {}
        TlsPeers::Off if config.insecure => {
            tracing::warn!(%addr, "insecure: what nodes say to each other crosses the network in the clear");
        }
        TlsPeers::Off => return Err(Exposed::PlainPeers { addr: *addr }),
    }
    Ok(())
}

/// Checks the addresses that peers will reach. A node without peers starts, and admits none.
pub(crate) fn check_peers(settings: &Settings, addrs: &[SocketAddr]) -> Result<(), Exposed> {
    let has_peers = !settings.config.is_single();
    // Both ends of every connection that it makes then show a certificate.
    let by_certificate = matches!(
        settings.config.tls_peers,
        TlsPeers::Dial | TlsPeers::Require
    );
    match trust(settings, addrs) {
        Trust::Nobody if has_peers && !by_certificate => Err(Exposed::Peers {
            why: match addrs.iter().find(|addr| !addr.ip().is_loopback()) {
                Some(addr) => format!("{addr} is not a loopback address"),
                None => "there is a password, and every user of this machine reaches its loopback \
                         addresses"
                    .to_owned(),
            },
        }),
        _ => Ok(()),
    }
}

/// With which peers a node speaks that listens on these addresses.
pub(crate) fn trust(settings: &Settings, addrs: &[SocketAddr]) -> Trust {
    let is_local = addrs.iter().all(|addr| addr.ip().is_loopback());
    match &settings.cluster_secret {
        Some(secret) => Trust::Secret(secret.clone()),
        None if is_local && settings.password.is_none() => Trust::Everybody,
        None => Trust::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::Password;
    use crate::peer::ClusterSecret;

    fn settings(password: bool, secret: bool, peers: &str, insecure: bool) -> Settings {
        let flag = |key, value: &str| (key, value.to_owned(), "test".to_owned());
        let insecure = flag("insecure", if insecure { "true" } else { "false" });
        let flags = [insecure, flag("peer_addrs", peers)];
        let mut settings = Settings::load(None, None, &flags, |_| None).unwrap();
        settings.password = password.then(|| Password::new("p"));
        settings.cluster_secret = secret
            .then(|| ClusterSecret::new(&"s".repeat(32)))
            .flatten();
        settings
    }

    #[test]
    fn peers_are_believed_on_loopback_without_a_password_only() {
        let local = ["127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap()];
        let outside: [SocketAddr; 2] = [local[0], "0.0.0.0:1".parse().unwrap()];
        for peers in ["", "n2@127.0.0.1:2"] {
            for insecure in [false, true] {
                let trust = |password, secret, addrs: &[SocketAddr]| {
                    let settings = settings(password, secret, peers, insecure);
                    let trust = trust(&settings, addrs);
                    let refuses = check_peers(&settings, addrs).is_err();
                    assert_eq!(refuses, trust == Trust::Nobody && !peers.is_empty());
                    trust
                };
                assert_eq!(trust(false, false, &local), Trust::Everybody);
                assert_eq!(trust(true, false, &local), Trust::Nobody);
                assert_eq!(trust(false, false, &outside), Trust::Nobody);
                assert_eq!(trust(true, false, &outside), Trust::Nobody);
                for (password, addrs) in [(false, &local), (true, &local), (true, &outside)] {
                    let is_proof = matches!(trust(password, true, addrs), Trust::Secret(_));
                    assert!(is_proof, "{password} {addrs:?}");
                }
            }
        }
    }

    #[test]
    fn an_address_that_others_reach_needs_tls_or_the_word_insecure() {
        let outside = ["0.0.0.0:1".parse().unwrap()];
        let local = ["127.0.0.1:1".parse().unwrap()];
        for peers in ["", "n2@10.0.0.2:2"] {
            let mut settings = settings(true, true, peers, false);
            let both = |settings: &Settings, addrs: &[SocketAddr]| {
                let clients =
                    check_clients_encryption(settings, addrs).map_err(|why| why.to_string());
                let peers = check_peers_encryption(settings, addrs).map_err(|why| why.to_string());
                (
                    clients.err().unwrap_or_default(),
                    peers.err().unwrap_or_default(),
                )
            };
            assert_eq!(both(&settings, &local), Default::default());
            let (clients, of_peers) = both(&settings, &outside);
            assert!(
                clients.contains("tls_cert_file") && clients.contains("--insecure"),
                "{clients}"
            );
            assert_eq!(
                of_peers.contains("tls_peer_ca_file"),
                !peers.is_empty(),
                "{of_peers}"
            );
            for (tls, tls_peers) in [
                (TlsClients::Accept, TlsPeers::Accept),
                (TlsClients::Require, TlsPeers::Require),
            ] {
                (settings.config.tls, settings.config.tls_peers) = (tls, tls_peers);
                assert_eq!(both(&settings, &outside), Default::default());
            }
            (settings.config.tls, settings.config.tls_peers) = (TlsClients::Off, TlsPeers::Off);
            settings.config.insecure = true;
            assert_eq!(both(&settings, &outside), Default::default());
        }
    }

    #[test]
    fn certificates_are_enough_for_peers_that_are_called_over_tls() {
        let outside = ["0.0.0.0:1".parse().unwrap()];
        let mut settings = settings(true, false, "n2@10.0.0.2:2", false);
        for (word, is_enough) in [
            (TlsPeers::Off, false),
            (TlsPeers::Accept, false),
            (TlsPeers::Dial, true),
            (TlsPeers::Require, true),
        ] {
            settings.config.tls_peers = word;
            assert_eq!(
                check_peers(&settings, &outside).is_ok(),
                is_enough,
                "{word}"
            );
        }
    }

    #[test]
    fn clients_from_outside_need_a_password_unless_it_is_said_to_be_wrong() {
        let outside = ["10.0.0.1:1".parse().unwrap()];
        let check = |password, insecure| {
            let settings = settings(password, false, "", insecure);
            check_clients(&settings, &outside).is_ok()
        };
        assert!(!check(false, false));
        assert!(check(true, false) && check(false, true));
        for (word, admitted) in [
            (NopassFrom::Auto, [false, true, false, false]),
            (NopassFrom::Loopback, [false; 4]),
            (NopassFrom::Everywhere, [true; 4]),
        ] {
            let of = |password, insecure| {
                let mut settings = settings(password, false, "", insecure);
                settings.config.nopass_from = word;
                // Without a password, clients from outside are admitted or the node does not listen.
                let is_refused = check_clients(&settings, &outside).is_err();
                let is_silent = password || insecure || word == NopassFrom::Everywhere;
                assert_eq!(is_refused, !is_silent, "{word} {password} {insecure}");
                nopass_from_everywhere(&settings)
            };
            // With a password, `insecure` is about encryption alone.
            let found = [
                of(false, false),
                of(false, true),
                of(true, false),
                of(true, true),
            ];
            assert_eq!(found, admitted, "{word}");
        }
        let local = ["127.0.0.1:1".parse().unwrap()];
        check_clients(&settings(false, false, "", false), &local).unwrap();
    }

    #[test]
    fn certificates_are_enough_for_clients_unless_they_stand_for_users() {
        let outside = ["0.0.0.0:1".parse().unwrap()];
        let mut settings = settings(false, true, "", false);
        settings.config.tls = TlsClients::Require;
        settings.config.tls_client_auth = TlsClientAuth::Require;
        assert!(check_clients(&settings, &outside).is_ok());
        settings.config.tls_user_map = "users".to_owned();
        assert!(check_clients(&settings, &outside).is_err());
    }
}
