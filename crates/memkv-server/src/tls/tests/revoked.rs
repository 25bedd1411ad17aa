//! Lists of revoked certificates, the leases of connections that are open when new ones come, and names that
//! their makers choose.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, DnValue, Issuer,
    KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use super::super::certificate::{Certificate, NotANode};
use super::super::lease::{Lease, during};
use super::super::lists::{Listed, Lists, Named};
use super::super::{Tls, TlsSettings, reload};
use super::{Handle, ca, config, issue_node};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn issuer(dir: &Path) -> Issuer<'static, KeyPair> {
    let read = |name| std::fs::read_to_string(dir.join(name)).unwrap();
    let key = KeyPair::from_pem(&read("ca.key")).unwrap();
    Issuer::from_ca_cert_pem(&read("ca.crt"), key).unwrap()
}

/// A list of this CA that revokes the certificate in `revoked`, if one is named.
fn list(dir: &Path, number: u64, revoked: Option<&Path>) -> CertificateRevocationListDer<'static> {
    let now = SystemTime::now();
    let revoked = revoked.map(|path| RevokedCertParams {
        serial_number: SerialNumber::from(named(path).serial),
        revocation_time: (now - DAY).into(),
        reason_code: None,
        invalidity_date: None,
    });
    let list = CertificateRevocationListParams {
        this_update: (now - DAY).into(),
        next_update: (now + DAY).into(),
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: revoked.into_iter().collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&issuer(dir)).unwrap();
    CertificateRevocationListDer::from_pem_slice(list.pem().unwrap().as_bytes()).unwrap()
}

fn der(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

fn named(path: &Path) -> Named {
    Certificate::read(&der(path)).unwrap().named
}

fn read(lists: &[CertificateRevocationListDer<'static>], ca: &Path) -> Result<Lists, String> {
    let provider = rustls::crypto::ring::default_provider();
    Lists::read(lists, &[der(&ca.join("ca.crt"))], &provider)
}

#[test]
fn of_several_lists_of_a_ca_the_newest_counts_and_is_signed_by_it() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, other) = (dir.path(), other.path());
    ca(dir);
    ca(other);
    issue_node(dir, "n1", "prod");
    issue_node(other, "n2", "prod");
    let (n1, n2) = (dir.join("n1.crt"), other.join("n2.crt"));
    let chain = [named(&n1)];
    let judged = |lists: &[_]| read(lists, dir).map(|lists| lists.judge(&chain));
    // 300 needs a byte more than 2.
    let (old, new) = (list(dir, 2, None), list(dir, 300, Some(&n1)));
    assert_eq!(judged(&[]), Ok(Listed::Good));
    assert_eq!(judged(std::slice::from_ref(&old)), Ok(Listed::Good));
    for both in [[old.clone(), new.clone()], [new.clone(), old.clone()]] {
        assert_eq!(judged(&both), Ok(Listed::Revoked));
        assert_eq!(read(&both, dir).unwrap().newest().count(), 1);
    }
    assert_eq!(judged(&[new.clone(), new.clone()]), Ok(Listed::Revoked));
    let same_number = list(dir, 300, None);
    let why = judged(&[new, same_number]).unwrap_err();
    assert!(
        why.contains("two lists of CN=memkv CA") && why.contains("differ"),
        "{why}"
    );
    // A list of a CA that this node does not know says nothing of certificates of others.
    let foreign = list(other, 1, Some(&n2));
    assert_eq!(judged(std::slice::from_ref(&foreign)), Ok(Listed::Unsure));
    assert_eq!(judged(&[old.clone(), foreign]), Ok(Listed::Good));
    // The key of another CA under this one's name.
    std::fs::rename(other.join("ca.key"), dir.join("ca.key")).unwrap();
    let forged = list(dir, 301, None);
    let why = judged(&[old, forged]).unwrap_err();
    assert!(why.contains("is not signed by the CA"), "{why}");
}

/// The lease of a connection with the chain of these files.
fn lease(tls: &Tls, chain: &[&Path]) -> Result<Lease, NotANode> {
    let chain: Vec<_> = chain.iter().map(|path| der(path)).collect();
    let ca = tls.current().ca(true);
    Lease::new(
        &chain,
        true,
        None,
        ca,
        tls.set.subscribe(),
        Handle::current(),
    )
}

/// Puts the files of a configuration in force.
fn replace(tls: &Tls, config: &memkv_proto::RaftConfig) {
    let (_, set) = reload::first(&TlsSettings::of(config)).unwrap();
    tls.set.send_replace(Arc::new(set));
}

/// Whether a connection with this lease does any work.
async fn works(lease: Lease) -> bool {
    let began = AtomicBool::new(false);
    let serving = || async { began.store(true, Ordering::Relaxed) };
    let served = during(Some(Box::new(lease)), serving).await;
    assert_eq!(served.is_some(), began.load(Ordering::Relaxed));
    served.is_some()
}

#[tokio::test]
async fn a_connection_works_only_if_its_chain_is_good_at_that_moment() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, other) = (dir.path(), other.path());
    ca(dir);
    ca(other);
    issue_node(dir, "n1", "prod");
    issue_node(dir, "n2", "prod");
    issue_node(other, "n2", "prod");
    let (n2, foreign) = (dir.join("n2.crt"), other.join("n2.crt"));
    let plain = config(dir, "n1", "n1", &[]);
    let tls = Tls::started(&plain);
    assert!(works(lease(&tls, &[&n2]).unwrap()).await);
    // While the CAs are the same, lists are looked up and nothing is verified: not even this.
    assert!(works(lease(&tls, &[&foreign]).unwrap()).await);
    let early = lease(&tls, &[&n2]).unwrap();
    let strange = lease(&tls, &[&foreign]).unwrap();
    let crl = dir.join("crl.pem");
    let pem = |list: &CertificateRevocationListDer<'_>| {
        let text =
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, list.as_ref());
        format!("-----BEGIN X509 CRL-----\n{text}\n-----END X509 CRL-----\n")
    };
    std::fs::write(&crl, pem(&list(dir, 1, Some(&n2)))).unwrap();
    let with_list = config(dir, "n1", "n1", &[("tls_crl_file", crl.to_str().unwrap())]);
    replace(&tls, &with_list);
    // It was revoked between its handshake and its first work.
    assert!(!works(early).await);
    // No list of its CA: it is verified.
    assert!(!works(strange).await);
    std::fs::write(&crl, pem(&list(dir, 2, None))).unwrap();
    replace(&tls, &with_list);
    assert!(works(lease(&tls, &[&n2]).unwrap()).await);
    // Other CAs: it is verified.
    let late = lease(&tls, &[&n2]).unwrap();
    issue_node(other, "n3", "prod");
    replace(&tls, &config(other, "n3", "n3", &[]));
    assert!(!works(late).await);
}

#[tokio::test]
async fn every_certificate_of_a_chain_must_be_readable_and_not_have_ended() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    ca(dir);
    issue_node(dir, "n1", "prod");
    issue_node(dir, "n2", "prod");
    let mut ended = CertificateParams::default();
    ended.not_after = (SystemTime::now() - DAY).into();
    let key = KeyPair::generate().unwrap();
    let ended = ended.signed_by(&key, &issuer(dir)).unwrap();
    std::fs::write(dir.join("ended.crt"), ended.pem()).unwrap();
    let tls = Tls::started(&config(dir, "n1", "n1", &[]));
    let (n2, between) = (dir.join("n2.crt"), dir.join("ended.crt"));
    assert!(works(lease(&tls, &[&n2]).unwrap()).await);
    assert!(!works(lease(&tls, &[&n2, &between]).unwrap()).await);
    let unreadable = [der(&n2), CertificateDer::from(b"no certificate".to_vec())];
    let (ca, set) = (tls.current().ca(true), tls.set.subscribe());
    let refused = Lease::new(&unreadable, true, None, ca, set, Handle::current());
    assert_eq!(refused.err(), Some(NotANode::Unreadable));
}

/// The subject of a certificate with these attributes.
fn subject(attributes: &[(DnType, DnValue)]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in attributes {
        params.distinguished_name.push(kind.clone(), value.clone());
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Certificate::read(certificate.der()).unwrap().subject
}

#[test]
fn no_two_names_read_alike() {
    let cn = |value: &str| subject(&[(DnType::CommonName, value.into())]);
    let both = [
        (DnType::CommonName, "billing".into()),
        (DnType::OrganizationName, "Example".into()),
    ];
    assert_eq!(subject(&both), "CN=billing, O=Example");
    for (value, shown) in [
        ("billing, O=Example", "CN=billing\\2C O\\3DExample"),
        ("a + OU=b", "CN=a \\2B OU\\3Db"),
        ("a\\2Cb", "CN=a\\5C2Cb"),
        ("a b", "CN=a b"),
        ("a  b", "CN=a\\20\\20b"),
        (" a ", "CN=\\20a\\20"),
        ("b\u{456}lling", "CN=b\\D1\\96lling"),
        ("a\u{202e}b\n", "CN=a\\E2\\80\\AEb\\0A"),
        ("#41\"<>;", "CN=\\2341\\22\\3C\\3E\\3B"),
    ] {
        assert_eq!(cn(value), shown);
    }
}
