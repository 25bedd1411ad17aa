//! What certificates say, in lines of at most 80 columns where names allow it.
//! Never says whether one is genuine.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::CertError;
use crate::tls::{Certificate, date};

const DAY: i64 = 24 * 3600;

/// Columns of the widest line.
const COLUMNS: usize = 80;

/// Describes all certificates of these files.
pub(super) fn files(files: &[PathBuf]) -> Result<String, CertError> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let mut blocks = Vec::new();
    for path in files {
        let bytes = fs::read(path).map_err(|source| CertError::Read {
            path: path.clone(),
            source,
            next: "name a file with a certificate in PEM",
        })?;
        for certificate in certificates(path, &bytes)? {
            blocks.push(format!(
                "{}\n{}",
                path.display(),
                describe(&certificate, now)
            ));
        }
    }
    Ok(blocks.join("\n\n"))
}

/// The certificates of a file: at least one.
pub(super) fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<Certificate>, CertError> {
    let content = |why: &str| CertError::Content {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let all = all.map_err(|error| content(&format!("it is not PEM ({error})")))?;
    if all.is_empty() {
        return Err(content("it holds no certificate in PEM"));
    }
    let read = all.iter().map(|der| Certificate::read(der));
    let read: Option<Vec<_>> = read.collect();
    read.ok_or_else(|| content("one of its certificates cannot be read"))
}

fn describe(certificate: &Certificate, now: i64) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        // The maker of a certificate chooses its names.
        let value: String = value
            .chars()
            .filter(|letter| !letter.is_control())
            .collect();
        // Writing to memory cannot fail.
        let _ = write!(
            text,
            "{}  {label:<12}{value}",
            if label == "subject" { "" } else { "\n" }
        );
    };
    line("subject", &certificate.subject);
    line("issuer", &certificate.issuer);
    if certificate.is_ca {
        line("kind", "CA: it issues certificates");
    }
    for name in &certificate.dns {
        line("host", name);
    }
    for ip in &certificate.ips {
        line("host", &ip.to_string());
    }
    for uri in &certificate.uris {
        line("uri", uri);
    }
    line("valid from", &date(certificate.not_before));
    let end = date(certificate.not_after);
    line(
        "valid until",
        &format!("{end} ({})", state(certificate, now)),
    );
    line("serial", &certificate.serial);
    // Two lines: 32 pairs are wider than a terminal.
    let (first, second) = certificate
        .fingerprint
        .split_at_checked((COLUMNS - 14) / 3 * 3)
        .unwrap_or((&certificate.fingerprint, ""));
    line("SHA-256", first);
    line("", second);
    text
}

fn state(certificate: &Certificate, now: i64) -> String {
    if now < certificate.not_before {
        return "not valid yet".to_owned();
    }
    match certificate.not_after - now {
        ..=0 => "expired".to_owned(),
        1..DAY => "less than a day left".to_owned(),
        left => format!("{} days left", left / DAY),
    }
}
