//! Files that are made, refused and described.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::tls::Certificate;

fn node(dir: &Path, name: &str, hosts: &[&str]) -> Result<String, CertError> {
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let cluster = "prod".to_owned();
    make::issue(dir, 365, name, &hosts, &CertRole::Node { cluster })
}

fn read(path: &Path) -> Certificate {
    show::certificates(path, &fs::read(path).unwrap())
        .unwrap()
        .remove(0)
}

#[test]
fn a_ca_and_a_certificate_are_made_once_and_keys_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let missing = node(dir, "n1", &["h"]).unwrap_err().to_string();
    assert!(missing.contains("cert init"), "{missing}");
    make::init(dir, 3650).unwrap();
    let again = make::init(dir, 3650).unwrap_err().to_string();
    assert!(
        again.contains("ca.crt") && again.contains("already"),
        "{again}"
    );
    node(dir, "n1", &["kv.example", "10.0.0.1", "::1"]).unwrap();
    assert!(node(dir, "n1", &["h"]).is_err());
    for key in ["ca.key", "n1.key"] {
        let mode = fs::metadata(dir.join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    let (ca, n1) = (read(&dir.join("ca.crt")), read(&dir.join("n1.crt")));
    assert!(ca.is_ca && !n1.is_ca);
    assert_eq!(n1.issuer, ca.subject);
    assert_eq!(n1.dns, ["kv.example"]);
    assert_eq!(n1.ips.len(), 2);
    assert_eq!(n1.node("prod").as_deref(), Ok("n1"));
    assert!(n1.not_after <= ca.not_after);
    let client = CertRole::Client {
        user: "alice".to_owned(),
    };
    make::issue(dir, 9000, "laptop", &[], &client).unwrap();
    let laptop = read(&dir.join("laptop.crt"));
    assert_eq!(laptop.subject, "CN=alice");
    assert!(laptop.node("prod").is_err(), "a client's is no node's");
    assert_eq!(laptop.not_after, ca.not_after, "none outlives its CA");
}

#[test]
fn what_cannot_be_a_certificate_is_refused_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    make::init(dir, 3650).unwrap();
    for (name, hosts) in [
        ("n1", &[][..]),
        ("n1", &["h:1"]),
        ("n1", &["a b"]),
        ("n1", &[""]),
        ("", &["h"]),
    ] {
        assert!(node(dir, name, hosts).is_err(), "{name} {hosts:?}");
    }
    fs::set_permissions(dir.join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let open = node(dir, "n1", &["h"]).unwrap_err().to_string();
    assert!(open.contains("chmod 600"), "{open}");
    let names = fs::read_dir(dir).unwrap().count();
    assert_eq!(names, 2, "the CA alone");
}

#[test]
fn a_certificate_is_described_in_80_columns() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    make::init(dir, 3650).unwrap();
    node(dir, "n1", &["kv.example", "10.0.0.1"]).unwrap();
    let text = show::files(&[dir.join("n1.crt")]).unwrap();
    for part in [
        "CN=n1",
        "kv.example",
        "10.0.0.1",
        "memkv://prod/n1",
        "days left",
        "SHA-256",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let described = text.lines().skip(1);
    assert!(described.clone().count() > 8, "{text}");
    assert!(
        described.clone().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    assert!(show::files(&[dir.join("n1.key")]).is_err());
}
