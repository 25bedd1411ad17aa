//! What must hold of any text that is taken for a configuration file, a setting or a secret.

use memkv_proto::config::KEYS;
use memkv_proto::secret;
use memkv_proto::{ClusterConfig, RaftConfig};

/// A file is refused with its name, or read; what is written of it is read as the same again.
pub(crate) fn check_file(text: &str) {
    match RaftConfig::from_json(text, "the-file") {
        Ok(config) => {
            // A value also knows the line that it came from, which is another one.
            let written = config.to_json();
            let again = RaftConfig::from_json(&written, "again").map(|again| again.to_json());
            assert_eq!(again, Ok(written));
            // It may still contradict itself, which is said in words.
            assert!(
                config
                    .validate()
                    .err()
                    .is_none_or(|error| !error.to_string().is_empty())
            );
        }
        Err(error) => assert!(error.to_string().contains("the-file"), "{error}"),
    }
    if let Err(error) = ClusterConfig::from_json(text, "the-file") {
        assert!(error.to_string().contains("the-file"), "{error}");
    }
}

/// A value is refused with its source and changes nothing, or is taken.
pub(crate) fn check_values(text: &str) {
    // One setting for each text: all of them would take most of the time.
    let key = KEYS[text.len() % KEYS.len()];
    let mut config = RaftConfig::default();
    if let Err(error) = config.apply_override(key.name, text, "--the-flag") {
        assert!(error.to_string().contains("--the-flag"), "{error}");
        assert_eq!(config, RaftConfig::default());
    }
}

/// A secret is part of its file.
pub(crate) fn check_secrets(file: &[u8]) {
    for read in [secret::password(file), secret::cluster_secret(file)] {
        let is_inside = |text: &str| {
            file.windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        assert!(read.is_err() || read.is_ok_and(is_inside));
    }
}
