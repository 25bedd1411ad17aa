//! Lists of revoked certificates, as one reading of `tls_crl_file` has them. Their signatures are checked once,
//! here, and not again for every connection that is open when new files come into force.
//! Never decides whether a certificate is genuine: `verifier` does.
//!
//! Invariants: of several lists of one CA the newest counts; a list of a CA that this node knows is signed by it.

use std::collections::{HashMap, HashSet};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::certificate::text_of;

/// A certificate by what a list names it by: its issuer's name in DER, and its serial number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Named {
    pub(super) issuer: Vec<u8>,
    pub(super) serial: Vec<u8>,
}

/// What the lists say of certificates that were good under the same CAs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listed {
    /// None of them is revoked.
    Good,
    Revoked,
    /// They must be verified: a list is missing, or covers a part of its CA's certificates only.
    Unsure,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Lists {
    /// The newest list of each CA.
    newest: Vec<CertificateRevocationListDer<'static>>,
    /// The serial numbers that are revoked, by the issuer's name.
    revoked: HashMap<Vec<u8>, HashSet<Vec<u8>>>,
    /// A list covers only a part of what its CA has issued.
    has_parts: bool,
}

/// One list.
struct Read<'a> {
    parsed: CertificateRevocationList<'a>,
    der: &'a CertificateRevocationListDer<'static>,
}

impl Read<'_> {
    /// Which certificates it is about: the issuer, and which part of its certificates.
    fn scope(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let mut extensions = self.parsed.extensions().iter();
        let part = extensions.find(|found| found.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
        let part = part.map(|found| found.value.to_vec());
        (self.parsed.issuer().as_raw().to_vec(), part)
    }

    /// What tells the newer one of two.
    fn age(&self) -> (Vec<u8>, i64) {
        // Numbers of different lengths compare by length, since they have no zeros in front.
        let number = self.parsed.crl_number().map(|number| number.to_bytes_be());
        let number = number.unwrap_or_default();
        let length = u8::try_from(number.len()).unwrap_or(u8::MAX);
        let comparable = [&[length], &number[..]].concat();
        (comparable, self.parsed.last_update().timestamp())
    }

    fn issuer(&self) -> String {
        text_of(self.parsed.issuer())
    }
}

impl Lists {
    /// Reads lists; `cas` are the CAs that this node believes.
    ///
    /// # Errors
    /// What is wrong, with the CA.
    pub(super) fn read(
        all: &[CertificateRevocationListDer<'static>],
        cas: &[CertificateDer<'static>],
        provider: &CryptoProvider,
    ) -> Result<Self, String> {
        let mut newest: HashMap<_, Read<'_>> = HashMap::new();
        for der in all {
            let parsed = CertificateRevocationList::from_der(der).ok();
            let parsed = parsed
                .filter(|(rest, _)| rest.is_empty())
                .map(|found| found.1);
            let parsed = parsed.ok_or("one of its lists cannot be read")?;
            let read = Read { parsed, der };
            let scope = read.scope();
            match newest.get(&scope) {
                Some(known) if known.age() > read.age() || known.der == read.der => {}
                Some(known) if known.age() == read.age() => {
                    return Err(format!(
                        "it holds two lists of {} that differ, and neither is the newer one by its number \
                         and its date: leave one of them",
                        read.issuer()
                    ));
                }
                _ => {
                    newest.insert(scope, read);
                }
            }
        }
        let mut lists = Self::default();
        for ((issuer, part), read) in newest {
            check_signature(&read, cas, provider)?;
            lists.has_parts |= part.is_some();
            let serials = read.parsed.iter_revoked_certificates();
            let serials = serials.map(|revoked| revoked.raw_serial().to_vec());
            lists.revoked.entry(issuer).or_default().extend(serials);
            lists.newest.push(read.der.clone());
        }
        Ok(lists)
    }

    /// The newest list of each CA.
    pub(super) fn newest(&self) -> impl Iterator<Item = CertificateRevocationListDer<'static>> {
        self.newest.iter().cloned()
    }

    /// What they say of the certificates of a chain.
    pub(super) fn judge(&self, chain: &[Named]) -> Listed {
        if self.newest.is_empty() {
            return Listed::Good;
        }
        let is_revoked = |named: &Named| {
            let serials = self.revoked.get(&named.issuer);
            serials.is_some_and(|serials| serials.contains(&named.serial))
        };
        let is_listed = |named: &Named| self.revoked.contains_key(&named.issuer);
        if chain.iter().any(is_revoked) {
            Listed::Revoked
        } else if self.has_parts || !chain.iter().all(is_listed) {
            Listed::Unsure
        } else {
            Listed::Good
        }
    }
}

/// Checks that a list is signed by the CA that it names, if that is among `cas`. Others are checked with each
/// certificate that they are about.
fn check_signature(
    read: &Read<'_>,
    cas: &[CertificateDer<'static>],
    provider: &CryptoProvider,
) -> Result<(), String> {
    let known = cas
        .iter()
        .filter_map(|ca| X509Certificate::from_der(ca).ok());
    let issuer = read.parsed.issuer().as_raw();
    let mut known = known
        .map(|(_, ca)| ca)
        .filter(|ca| ca.subject().as_raw() == issuer)
        .peekable();
    if known.peek().is_none() {
        return Ok(());
    }
    let signed = Signed::read(read.der).ok_or("one of its lists cannot be read")?;
    match known.any(|ca| signed.is_by(ca.public_key().raw, provider)) {
        true => Ok(()),
        false => Err(format!(
            "the list of {} is not signed by the CA of that name in tls_ca_file or tls_peer_ca_file",
            read.issuer()
        )),
    }
}

/// The parts of something signed, in DER (RFC 5280, section 5.1).
struct Signed<'a> {
    message: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        let (_, all, _) = element(der)?;
        let (_, _, rest) = element(all)?;
        let message = all.get(..all.len() - rest.len())?;
        let (_, algorithm, rest) = element(rest)?;
        let (_, signature, _) = element(rest)?;
        Some(Self {
            message,
            algorithm,
            signature: bits(signature)?,
        })
    }

    fn is_by(&self, public_key: &[u8], provider: &CryptoProvider) -> bool {
        let key = || {
            let (_, all, _) = element(public_key)?;
            let (_, algorithm, rest) = element(all)?;
            let (_, key, _) = element(rest)?;
            Some((algorithm, bits(key)?))
        };
        let Some((algorithm, key)) = key() else {
            return false;
        };
        let known = provider.signature_verification_algorithms.all.iter();
        let fit = known.filter(|known| {
            known.public_key_alg_id().as_ref() == algorithm
                && known.signature_alg_id().as_ref() == self.algorithm
        });
        fit.into_iter().any(|known| {
            known
                .verify_signature(key, self.message, self.signature)
                .is_ok()
        })
    }
}

/// The first element of DER: its tag, its content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(first) {
        short @ 0..=0x7f => (short, rest),
        // Nothing that was read is longer than four bytes of length can say.
        long @ 0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(long - 0x80)?;
            let fold = |sum: usize, byte: &u8| (sum << 8) | usize::from(*byte);
            (length.iter().fold(0, fold), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// A bit string of whole bytes.
fn bits(content: &[u8]) -> Option<&[u8]> {
    content.strip_prefix(&[0])
}
