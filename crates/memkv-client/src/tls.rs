//! TLS to the nodes: the certificates that the client believes, those that it shows, and words for every way in which it fails.
//! Never goes on without TLS where that was asked for, and never without checking the node's certificate.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memkv_proto::config::split_addr;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use crate::Error;

/// Where systems keep the CAs that they trust; the first that is there counts.
const SYSTEM_CAS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// The files of [`Tls`], in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CAs that issue nodes' certificates; None for those of the system.
    pub ca: Option<PathBuf>,
    /// The certificate that the client shows, and its private key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// How a client speaks TLS 1.3 or 1.2. A clone shares its memory.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Error::Tls`] that names the file.
    pub fn new(files: &TlsFiles) -> Result<Self, Error> {
        let ca = match &files.ca {
            Some(file) => file.clone(),
            None => system_ca()?,
        };
        let mut roots = RootCertStore::empty();
        let (_, ignored) = roots.add_parsable_certificates(certificates(&ca)?);
        // Collections of systems have some that rustls rejects; a file of one's own must be good.
        if roots.is_empty() || (files.ca.is_some() && ignored > 0) {
            return Err(wrong(&ca, "it holds a certificate that is no CA's"));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| Error::Tls(error.to_string()))?
            .with_root_certificates(roots);
        let config = match &files.own {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| wrong(key, format!("it holds no private key ({error})")))?;
                builder
                    .with_client_auth_cert(certificates(cert)?, private)
                    .map_err(|error| {
                        wrong(
                            key,
                            format!("it is not the key of {} ({error})", cert.display()),
                        )
                    })?
            }
        };
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// For connections of one's own.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }
}

/// The name or address that a node's certificate must have.
///
/// # Errors
/// The host can be in no certificate.
pub fn server_name(addr: &str) -> io::Result<ServerName<'static>> {
    let host = split_addr(addr).map_or(addr, |(host, _port)| host);
    ServerName::try_from(host.to_owned())
        .map_err(|_| io::Error::other(format!("{host:?} can be the name in no certificate")))
}

fn system_ca() -> Result<PathBuf, Error> {
    let found = SYSTEM_CAS.iter().map(Path::new).find(|path| path.exists());
    found.map(Path::to_owned).ok_or_else(|| {
        Error::Tls(
            "this system has no list of CAs: name a file with the CA's certificate".to_owned(),
        )
    })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(file)
        .and_then(|all| all.collect::<Result<Vec<_>, _>>())
        .map_err(|error| wrong(file, format!("cannot be read ({error})")))?;
    match read.is_empty() {
        true => Err(wrong(file, "it holds no certificate in PEM")),
        false => Ok(read),
    }
}

fn wrong(file: &Path, why: impl std::fmt::Display) -> Error {
    Error::Tls(format!("{}: {why}", file.display()))
}

/// Why TLS failed, if it did, as a sentence for an operator.
pub fn tls_failure(error: &io::Error) -> Option<String> {
    Some(match inner(error)? {
        rustls::Error::InvalidCertificate(bad) => match bad {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the node's certificate has expired: the operator must put a new one in its place"
                    .to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the node's certificate is not valid yet: one of the clocks is wrong".to_owned()
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the node's certificate is of a CA that is not trusted here: name the CA's file with \
                 --cacert"
                    .to_owned()
            }
            CertificateError::NotValidForNameContext { expected, presented } => format!(
                "the node's certificate is for {}, and not for {}: use one of its names",
                presented.join(", "),
                expected.to_str()
            ),
            CertificateError::NotValidForName => {
                "the node's certificate is for another name: use one of its names".to_owned()
            }
            CertificateError::Revoked => "the node's certificate is revoked".to_owned(),
            other => format!("the node's certificate cannot be used: {other}"),
        },
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the node wants a certificate: name its files with --cert and --key".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "the node refuses this client's certificate, which has expired".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRevoked) => {
            "the node refuses this client's certificate, which is revoked".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::UnknownCA) => {
            "the node refuses this client's certificate, whose CA it does not know".to_owned()
        }
        rustls::Error::AlertReceived(alert) => format!("the node refuses TLS ({alert:?})"),
        rustls::Error::InvalidMessage(_) => "the node does not speak TLS here".to_owned(),
        other => format!("TLS failed: {other}"),
    })
}

/// Whether the node has refused the client in the handshake. In TLS 1.3 the client hears of it with its first
/// answer; the node has read nothing of what was sent before.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    let of_certificate = |alert: &AlertDescription| {
        matches!(
            alert,
            AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied
        )
    };
    matches!(inner(error), Some(rustls::Error::AlertReceived(alert)) if of_certificate(alert))
}

fn inner(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(error: rustls::Error) -> String {
        tls_failure(&io::Error::other(error)).unwrap()
    }

    #[test]
    fn each_failure_has_a_sentence_of_its_own() {
        let invalid = |bad| words(rustls::Error::InvalidCertificate(bad));
        let alert = |alert| words(rustls::Error::AlertReceived(alert));
        let expected = ServerName::try_from("kv.example").unwrap();
        let presented = vec!["DnsName(\"other\")".to_owned()];
        let sentences = [
            invalid(CertificateError::Expired),
            invalid(CertificateError::UnknownIssuer),
            invalid(CertificateError::NotValidForNameContext {
                expected,
                presented,
            }),
            alert(AlertDescription::CertificateRequired),
            alert(AlertDescription::CertificateExpired),
            alert(AlertDescription::CertificateRevoked),
            alert(AlertDescription::UnknownCA),
        ];
        for (at, sentence) in sentences.iter().enumerate() {
            assert!(!sentences[..at].contains(sentence), "{sentence}");
        }
        assert!(sentences[2].contains("kv.example") && sentences[2].contains("other"));
        assert_eq!(tls_failure(&io::ErrorKind::ConnectionReset.into()), None);
    }

    #[test]
    fn a_refused_certificate_means_that_nothing_was_read() {
        let alert = |alert| io::Error::other(rustls::Error::AlertReceived(alert));
        assert!(is_refusal(&alert(AlertDescription::CertificateRequired)));
        assert!(!is_refusal(&alert(AlertDescription::InternalError)));
        assert!(!is_refusal(&io::ErrorKind::ConnectionReset.into()));
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.crt");
        let new = |own| {
            let ca = Some(file.clone());
            Tls::new(&TlsFiles { ca, own })
                .map(|_| ())
                .unwrap_err()
                .to_string()
        };
        assert!(new(None).contains("ca.crt"));
        std::fs::write(&file, "no certificate").unwrap();
        assert!(new(None).contains("no certificate in PEM"));
    }
}
