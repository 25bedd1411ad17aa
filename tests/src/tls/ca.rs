//! Certificates: those that `memkv_server cert` makes, and those that it would not make, such as one
//! that has expired.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, Issuer,
    KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber,
};

use crate::process::binary;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The cluster that nodes' certificates name.
const CLUSTER: &str = "prod";

/// A CA in a directory, made by `memkv_server cert init`.
pub struct Ca {
    dir: PathBuf,
}

impl Ca {
    /// A new one in a new directory below `root`.
    pub fn new(root: &Path, name: &str) -> Ca {
        let dir = root.join(name);
        fs::create_dir(&dir).unwrap();
        let ca = Ca { dir };
        ca.cert(&["init"]);
        ca
    }

    /// The path of one of its files.
    pub fn file(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    /// `memkv_server cert` with these arguments; its output.
    #[track_caller]
    pub fn cert(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(binary("memkv_server"));
        command.arg("cert").args(arguments).current_dir(&self.dir);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "cert {arguments:?}: {text}");
        text
    }

    /// A certificate of a node of the cluster `prod` on loopback.
    pub fn issue_node(&self, name: &str) {
        let hosts = ["--host", "localhost", "--host", "127.0.0.1"];
        let issue = [&["issue", name, "--cluster", CLUSTER], &hosts[..]].concat();
        self.cert(&issue);
    }

    /// A certificate of a client, in the files of that name.
    pub fn issue_client(&self, name: &str) {
        self.cert(&["issue", name, "--client", name]);
    }

    fn issuer(&self) -> Issuer<'static, KeyPair> {
        let read = |name| fs::read_to_string(self.file(name)).unwrap();
        let key = KeyPair::from_pem(&read("ca.key")).unwrap();
        Issuer::from_ca_cert_pem(&read("ca.crt"), key).unwrap()
    }

    /// A client's certificate with this serial number, whose last day was yesterday or is tomorrow.
    pub fn issue_odd_client(&self, name: &str, serial: u64, is_expired: bool) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.write(name, params, serial, is_expired);
    }

    /// The same for a node, in the files `FILE.crt` and `FILE.key`.
    pub fn issue_odd_node(&self, file: &str, node: &str, serial: u64, is_expired: bool) {
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(hosts).unwrap();
        let uri = format!("memkv://{CLUSTER}/{node}");
        let uri = SanType::URI(uri.try_into().unwrap());
        params.subject_alt_names.push(uri);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.write(file, params, serial, is_expired);
    }

    fn write(&self, file: &str, mut params: CertificateParams, serial: u64, is_expired: bool) {
        let now = SystemTime::now();
        params.not_before = (now - 2 * DAY).into();
        params.not_after = if is_expired { now - DAY } else { now + DAY }.into();
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        fs::write(self.file(&format!("{file}.crt")), certificate.pem()).unwrap();
        crate::write_secret(
            self.file(&format!("{file}.key")).as_ref(),
            &key.serialize_pem(),
        );
    }

    /// Writes `crl.pem`, which revokes the certificates with these serial numbers.
    pub fn revoke(&self, serials: &[u64]) {
        let now = SystemTime::now();
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: (now - DAY).into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: (now - DAY).into(),
            next_update: (now + DAY).into(),
            crl_number: SerialNumber::from(u64::try_from(serials.len()).unwrap() + 1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer()).unwrap();
        // In one step, as a node may look at any moment.
        let part = self.file("crl.part");
        fs::write(&part, list.pem().unwrap()).unwrap();
        fs::rename(part, self.file("crl.pem")).unwrap();
    }
}
