//! The clients' password and the cluster's secret, from their files and the variable. Which files may
//! be used, and which of their bytes count, says `memkv_proto::secret`, for the client too.
//! Never prints a secret, and never chooses between two of them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use memkv_proto::RaftConfig;
use memkv_proto::secret::{self, Access, MAX_SECRET_BYTES, SecretError};

use crate::password::Password;
use crate::peer::ClusterSecret;

/// Holds the clients' password, where it must not lie in a file.
pub(crate) const PASSWORD_VARIABLE: &str = "MEMKV_PASSWORD";

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadSecret {
    /// Its file cannot be read.
    #[error("{key}: cannot read {}: {source}; this user must be able to", path.display())]
    Read {
        /// The setting that names it.
        key: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its file must not be used, or holds none.
    #[error("{key}: {}: {source}", path.display())]
    File {
        /// The setting that names it.
        key: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: SecretError,
    },
    /// The variable is no password.
    #[error("{PASSWORD_VARIABLE}: {0}")]
    Variable(SecretError),
    /// Two places, two passwords.
    #[error(
        "{PASSWORD_VARIABLE} and the password_file {} hold different passwords: leave one of them out",
        path.display()
    )]
    Two {
        /// Which file.
        path: PathBuf,
    },
}

/// The clients' password. An empty variable is none; the variable and the file must agree.
pub(crate) fn password(
    config: &RaftConfig,
    variable: Option<String>,
) -> Result<Option<Password>, BadSecret> {
    let text = variable.filter(|text| !text.is_empty());
    if text
        .as_ref()
        .is_some_and(|text| text.len() > MAX_SECRET_BYTES)
    {
        return Err(BadSecret::Variable(SecretError::TooLong));
    }
    let said = text.map(|text| Password::with_slow_hash(&text));
    let Some((path, file)) = read("password_file", &config.password_file)? else {
        return Ok(said);
    };
    match secret::password(&file) {
        Ok(text) => match (Password::with_slow_hash(text), said) {
            (written, Some(said)) if written != said => Err(BadSecret::Two { path }),
            (written, _) => Ok(Some(written)),
        },
        Err(source) => Err(BadSecret::File {
            key: "password_file",
            path,
            source,
        }),
    }
}

/// The cluster's secret.
pub(crate) fn cluster_secret(config: &RaftConfig) -> Result<Option<ClusterSecret>, BadSecret> {
    let key = "cluster_secret_file";
    let Some((path, file)) = read(key, &config.cluster_secret_file)? else {
        return Ok(None);
    };
    match secret::cluster_secret(&file) {
        Ok(text) => Ok(ClusterSecret::new(text)),
        Err(source) => Err(BadSecret::File { key, path, source }),
    }
}

/// A secret's file and its bytes, one more than the limit at most; none without a name.
fn read(key: &'static str, name: &str) -> Result<Option<(PathBuf, Vec<u8>)>, BadSecret> {
    if name.is_empty() {
        return Ok(None);
    }
    let path = PathBuf::from(name);
    match read_private(&path) {
        Ok(Ok(bytes)) => Ok(Some((path, bytes))),
        Ok(Err(source)) => Err(BadSecret::File { key, path, source }),
        Err(source) => Err(BadSecret::Read { key, path, source }),
    }
}

fn read_private(path: &Path) -> io::Result<Result<Vec<u8>, SecretError>> {
    let file = File::open(path)?;
    let told = file.metadata()?;
    let access = Access {
        mode: told.mode(),
        owner: told.uid(),
        user: rustix::process::geteuid().as_raw(),
    };
    if let Err(error) = secret::check_access(access) {
        return Ok(Err(error));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SECRET_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(Ok(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A configuration whose setting `key` names a file with this content and these permissions.
    fn config(key: &str, text: &str, mode: u32) -> (tempfile::TempDir, RaftConfig) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let mut config = RaftConfig::default();
        let name = file.to_str().unwrap();
        config.apply_override(key, name, "test").unwrap();
        (dir, config)
    }

    fn refused<T>(result: Result<T, BadSecret>) -> String {
        result.err().expect("it is refused").to_string()
    }

    #[test]
    fn a_variable_and_a_file_must_hold_the_same_password() {
        let (_dir, config) = config("password_file", "one\n", 0o600);
        let with = |variable: Option<&str>| password(&config, variable.map(str::to_owned));
        let one = Some(Password::new("one"));
        assert_eq!(with(None).unwrap(), one);
        assert_eq!(with(Some("")).unwrap(), one);
        assert_eq!(with(Some("one")).unwrap(), one);
        let two = refused(with(Some("two")));
        assert!(two.contains("different passwords"), "{two}");
        assert!(!two.contains("two,") && !two.contains("one,"), "{two}");
        let alone = RaftConfig::default();
        let two = password(&alone, Some("two".to_owned())).unwrap();
        assert_eq!(two, Some(Password::new("two")));
        let long = "a".repeat(MAX_SECRET_BYTES + 1);
        let long = refused(password(&alone, Some(long)));
        assert!(long.contains("longer than 4096"), "{long}");
    }

    #[test]
    fn a_secret_that_others_can_read_or_that_is_cut_is_refused() {
        for key in ["password_file", "cluster_secret_file"] {
            let load = |text: &str, mode| {
                let (_dir, config) = config(key, text, mode);
                let password = password(&config, None).map(|_| ());
                password.and(cluster_secret(&config).map(|_| ()))
            };
            let long = "0123456789".repeat(4);
            load(&long, 0o600).unwrap();
            load(&long, 0o400).unwrap();
            for mode in [0o640, 0o604, 0o660, 0o644] {
                let open = refused(load(&long, mode));
                assert!(open.contains(key) && open.contains("chmod 600"), "{open}");
            }
            let cut = refused(load(&"a".repeat(2 << 20), 0o600));
            assert!(cut.contains("longer than 4096"), "{cut}");
        }
        let (_dir, short) = config(
            "cluster_secret_file",
            "0123456789abcdef0123456789abcde",
            0o600,
        );
        let short = refused(cluster_secret(&short));
        assert!(short.contains("memkv_server secret"), "{short}");
        let absent = "/nonexistent/secret";
        let mut config = RaftConfig::default();
        config
            .apply_override("cluster_secret_file", absent, "test")
            .unwrap();
        let absent = refused(cluster_secret(&config));
        assert!(absent.contains("/nonexistent/secret"), "{absent}");
    }
}
