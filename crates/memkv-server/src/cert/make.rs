//! Makes a CA and certificates of it: ECDSA on P-256, which every client knows.
//! Never keeps a key but in its file.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use memkv_proto::config::check_id;
use memkv_proto::encode_key_path;
use memkv_proto::secret::{self, Access};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use super::{CertError, CertRole};
use crate::tls::{Certificate, date, node_uri};

const CA: &str = "ca";

/// Clocks differ; a certificate that is used at once must hold on all of them.
const BEFORE: Duration = Duration::from_secs(3600);

const DAY: Duration = Duration::from_secs(24 * 3600);

fn failed(error: &rcgen::Error) -> CertError {
    CertError::Request(format!("no certificate can be made of this: {error}"))
}

/// Makes `ca.crt` and `ca.key`.
pub(super) fn init(dir: &Path, days: u32) -> Result<String, CertError> {
    let files = Files::new(dir, CA)?;
    let mut params = CertificateParams::default();
    hold_for(&mut params, days);
    // Those of two CAs differ, so that files may hold both while one takes the other's place.
    params.distinguished_name = subject(&format!("memkv CA {:08x}", rand::random::<u32>()));
    // It issues certificates of nodes and clients, and no further CAs.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let certificate = params.self_signed(&key).map_err(|error| failed(&error))?;
    files.write(&certificate.pem(), &key.serialize_pem())?;
    Ok(format!(
        "{}  give it to nodes (tls_ca_file, tls_peer_ca_file) and clients\n\
         {}  keep it secret: who has it can be any node and any client\n\
         Next: memkv_server cert issue NODE --cluster NAME --host HOST",
        files.cert.display(),
        files.key.display(),
    ))
}

/// Makes `NAME.crt` and `NAME.key`.
pub(super) fn issue(
    dir: &Path,
    days: u32,
    name: &str,
    hosts: &[String],
    role: &CertRole,
) -> Result<String, CertError> {
    check_id(name).map_err(|error| CertError::Request(error.to_string()))?;
    let files = Files::new(dir, &encode_key_path(name.as_bytes()))?;
    let (issuer, ca) = issuer(dir)?;
    let mut params = CertificateParams::default();
    hold_for(&mut params, days);
    // One that outlives its CA only seems to hold.
    let end =
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(ca.not_after).unwrap_or(0));
    params.not_after = params.not_after.min(end.into());
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names = hosts
        .iter()
        .map(|host| san(host))
        .collect::<Result<_, _>>()?;
    let next = match role {
        CertRole::Node { cluster } => {
            if hosts.is_empty() {
                let why = "a node's certificate needs at least one --host: the name or the address \
                           that clients connect to";
                return Err(CertError::Request(why.to_owned()));
            }
            params.distinguished_name = subject(name);
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let uri = node_uri(cluster, name).try_into();
            params
                .subject_alt_names
                .push(SanType::URI(uri.map_err(|error| failed(&error))?));
            "tls_cert_file, tls_key_file of the node"
        }
        CertRole::Client { user } => {
            check_id(user).map_err(|error| CertError::Request(error.to_string()))?;
            params.distinguished_name = subject(user);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            "--cert, --key of memkv_client, redis-cli or curl"
        }
    };
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let certificate = params
        .signed_by(&key, &issuer)
        .map_err(|error| failed(&error))?;
    files.write(&certificate.pem(), &key.serialize_pem())?;
    let until = date(params.not_after.unix_timestamp());
    let (cert, key) = (files.cert.display(), files.key.display());
    Ok(format!("{cert}  until {until}\n{key}\nUse them as {next}."))
}

/// The CA of a directory.
fn issuer(dir: &Path) -> Result<(Issuer<'static, KeyPair>, Certificate), CertError> {
    let (cert, key) = (dir.join("ca.crt"), dir.join("ca.key"));
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|source| CertError::Read {
            path: path.to_owned(),
            source,
            next: "make a CA with `memkv_server cert init`, or name its directory with --dir",
        })
    };
    let (cert_text, key_text) = (read(&cert)?, read(&key)?);
    if let Ok(told) = fs::metadata(&key) {
        let access = Access {
            mode: told.mode(),
            owner: told.uid(),
            user: rustix::process::geteuid().as_raw(),
        };
        let path = key.clone();
        secret::check_access(access).map_err(|source| CertError::Open { path, source })?;
    }
    let content = |path: &Path, why: String| CertError::Content {
        path: path.to_owned(),
        why,
    };
    let pair = KeyPair::from_pem(&key_text).map_err(|error| {
        content(
            &key,
            format!("it is no private key that can be used ({error})"),
        )
    })?;
    let parsed = super::show::certificates(&cert, cert_text.as_bytes())?;
    let Some(parsed) = parsed.into_iter().next().filter(|first| first.is_ca) else {
        return Err(content(&cert, "its certificate is no CA's".to_owned()));
    };
    let issuer = Issuer::from_ca_cert_pem(&cert_text, pair)
        .map_err(|error| content(&cert, format!("it cannot issue certificates ({error})")))?;
    Ok((issuer, parsed))
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn hold_for(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    params.not_before = (now - BEFORE).into();
    params.not_after = (now + DAY * days).into();
}

fn san(host: &str) -> Result<SanType, CertError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    let is_name = !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.*_".contains(&byte));
    match host.to_owned().try_into() {
        Ok(name) if is_name => Ok(SanType::DnsName(name)),
        _ => Err(CertError::Request(format!(
            "--host {host:?} is neither an address nor a host name; leave out the port"
        ))),
    }
}

/// A certificate's two files, neither of which is there.
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(dir: &Path, stem: &str) -> Result<Self, CertError> {
        let files = Self {
            cert: dir.join(format!("{stem}.crt")),
            key: dir.join(format!("{stem}.key")),
        };
        for path in [&files.cert, &files.key] {
            if fs::symlink_metadata(path).is_ok() {
                return Err(CertError::Exists(path.clone()));
            }
        }
        Ok(files)
    }

    /// Writes both or none.
    fn write(&self, cert: &str, key: &str) -> Result<(), CertError> {
        write_new(&self.key, key, 0o600)?;
        write_new(&self.cert, cert, 0o644).inspect_err(|_| {
            // The failure is told; a key without its certificate is of no use.
            let _ = fs::remove_file(&self.key);
        })
    }
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CertError> {
    let failed = |source| CertError::Write {
        path: path.to_owned(),
        source,
    };
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| {
            let _ = fs::remove_file(path);
            failed(error)
        })
}
