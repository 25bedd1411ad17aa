//! The files of TLS as the operator wrote them, and their meaning: certificates, a key, lists, users.
//! Never writes one, and never prints a key.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use memkv_proto::secret::{self, Access, SecretError};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::TlsSettings;
use super::user_map::UserMap;

/// Longest file of certificates or of a key: a hundred CAs are a tenth of this.
const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// Longest file of lists of revoked certificates: some hundred thousand serial numbers.
const MAX_CRL_BYTES: u64 = 16 * 1024 * 1024;

/// Why TLS cannot be what the configuration says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file cannot be read.
    #[error("{key}: cannot read {path}: {source}; this user must be able to")]
    Read {
        /// The setting that names it.
        key: &'static str,
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file is longer than any that is meant.
    #[error("{key}: {path} is longer than {most} bytes, the limit")]
    TooLong {
        /// The setting that names it.
        key: &'static str,
        /// Which file.
        path: String,
        /// The limit.
        most: u64,
    },
    /// The key is not private.
    #[error("{key}: {path}: {source}")]
    Open {
        /// The setting that names it.
        key: &'static str,
        /// Which file.
        path: String,
        /// Why it must not be used.
        source: SecretError,
    },
    /// Two readings were never equal.
    #[error(
        "they change with each reading, so something still writes them; they are looked at again"
    )]
    Changing,
    /// A file does not hold what it should.
    #[error("{key}: {path}: {why}")]
    Content {
        /// The setting that names it.
        key: &'static str,
        /// Which file.
        path: String,
        /// Why.
        why: String,
    },
}

/// The bytes of all files that the configuration names; empty where it names none.
#[derive(PartialEq, Eq)]
pub(super) struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
    crl: Vec<u8>,
    users: Vec<u8>,
    peer_ca: Vec<u8>,
}

impl Files {
    /// The bytes of `tls_ca_file`.
    pub(super) fn ca(&self) -> &[u8] {
        &self.ca
    }

    /// The bytes of `tls_peer_ca_file`.
    pub(super) fn peer_ca(&self) -> &[u8] {
        &self.peer_ca
    }

    pub(super) fn read(settings: &TlsSettings) -> Result<Self, TlsError> {
        let pem = |key, path: &str| read(key, path, MAX_PEM_BYTES, false);
        Ok(Self {
            cert: pem("tls_cert_file", &settings.cert_file)?,
            key: read("tls_key_file", &settings.key_file, MAX_PEM_BYTES, true)?,
            ca: pem("tls_ca_file", &settings.ca_file)?,
            crl: read("tls_crl_file", &settings.crl_file, MAX_CRL_BYTES, false)?,
            users: pem("tls_user_map", &settings.user_map)?,
            peer_ca: pem("tls_peer_ca_file", &settings.peer_ca_file)?,
        })
    }
}

/// Warns of files that give clients their names, where every user of the machine can write them.
pub(super) fn warn_of_writers(settings: &TlsSettings) {
    for (key, path) in open_files(settings) {
        tracing::warn!(
            key,
            path,
            "every user of this machine can write this file, and so say who clients are: chmod o-w it"
        );
    }
}

/// Those files: the settings, and the paths.
pub(super) fn open_files(settings: &TlsSettings) -> impl Iterator<Item = (&'static str, &str)> {
    let named = [
        ("tls_user_map", &settings.user_map),
        ("tls_ca_file", &settings.ca_file),
        ("tls_peer_ca_file", &settings.peer_ca_file),
        ("tls_crl_file", &settings.crl_file),
    ];
    let named = named.into_iter().map(|(key, path)| (key, path.as_str()));
    named.filter(|(_, path)| is_open(path))
}

/// Whether every user of the machine can write a file.
fn is_open(path: &str) -> bool {
    const OTHERS_WRITE: u32 = 0o002;
    !path.is_empty() && std::fs::metadata(path).is_ok_and(|told| told.mode() & OTHERS_WRITE != 0)
}

fn read(key: &'static str, path: &str, most: u64, private: bool) -> Result<Vec<u8>, TlsError> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |source| TlsError::Read {
        key,
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    if private {
        let told = file.metadata().map_err(failed)?;
        let access = Access {
            mode: told.mode(),
            owner: told.uid(),
            user: rustix::process::geteuid().as_raw(),
        };
        secret::check_access(access).map_err(|source| TlsError::Open {
            key,
            path: path.to_owned(),
            source,
        })?;
    }
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(TlsError::TooLong {
            key,
            path: path.to_owned(),
            most,
        });
    }
    Ok(bytes)
}

/// What the files hold.
pub(super) struct Material {
    /// This node's certificate first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) clients_ca: Option<RootCertStore>,
    pub(super) peers_ca: Option<RootCertStore>,
    /// All certificates of both files of CAs.
    pub(super) cas: Vec<CertificateDer<'static>>,
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    pub(super) users: UserMap,
}

impl Material {
    pub(super) fn parse(settings: &TlsSettings, files: &Files) -> Result<Self, TlsError> {
        let wrong = |key, path: &str, why: String| TlsError::Content {
            key,
            path: path.to_owned(),
            why,
        };
        let chain = certificates("tls_cert_file", &settings.cert_file, &files.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|error| {
            let why = format!("it holds no private key in PEM ({error})");
            wrong("tls_key_file", &settings.key_file, why)
        })?;
        let lists: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(&files.crl).collect();
        let lists = lists
            .ok()
            .filter(|lists| !lists.is_empty() || settings.crl_file.is_empty());
        let lists = lists.ok_or_else(|| {
            let why = "it holds no list of revoked certificates in PEM".to_owned();
            wrong("tls_crl_file", &settings.crl_file, why)
        })?;
        let users = UserMap::parse(&files.users)
            .map_err(|why| wrong("tls_user_map", &settings.user_map, why))?;
        let mut cas = Vec::new();
        let clients_ca = roots("tls_ca_file", &settings.ca_file, &files.ca, &mut cas)?;
        let path = &settings.peer_ca_file;
        let peers_ca = roots("tls_peer_ca_file", path, &files.peer_ca, &mut cas)?;
        Ok(Self {
            chain,
            key,
            clients_ca,
            peers_ca,
            cas,
            lists,
            users,
        })
    }
}

fn certificates(
    key: &'static str,
    path: &str,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let why = match all {
        Ok(all) if !all.is_empty() => return Ok(all),
        Ok(_) => "it holds no certificate in PEM".to_owned(),
        Err(error) => format!("it is not PEM ({error})"),
    };
    let path = path.to_owned();
    Err(TlsError::Content { key, path, why })
}

/// The CAs of a file, which are added to `all` too.
fn roots(
    key: &'static str,
    path: &str,
    bytes: &[u8],
    all: &mut Vec<CertificateDer<'static>>,
) -> Result<Option<RootCertStore>, TlsError> {
    if path.is_empty() {
        return Ok(None);
    }
    let mut store = RootCertStore::empty();
    for certificate in certificates(key, path, bytes)? {
        all.push(certificate.clone());
        store.add(certificate).map_err(|error| TlsError::Content {
            key,
            path: path.to_owned(),
            why: format!("one of its certificates is no CA's that can be used ({error})"),
        })?;
    }
    Ok(Some(store))
}
