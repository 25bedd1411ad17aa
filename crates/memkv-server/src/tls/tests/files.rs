//! When files that change are believed, and which are warned of. The clock is stopped, so that a file changes
//! between two readings for certain.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::time::{Instant, sleep};

use super::super::TlsSettings;
use super::super::files::{TlsError, open_files};
use super::super::reload::{MAX_READINGS, SETTLES_IN, changed, first};
use super::{ca, config, issue_node};

/// The settings of a node whose map of users is in the file `users`.
fn settings(dir: &Path) -> TlsSettings {
    ca(dir);
    issue_node(dir, "n1", "prod");
    fs::write(dir.join("users"), "").unwrap();
    let map = dir.join("users");
    let authorities = dir.join("ca.crt");
    TlsSettings::of(&config(
        dir,
        "n1",
        "n1",
        &[
            ("tls", "accept"),
            ("tls_ca_file", authorities.to_str().unwrap()),
            ("tls_client_auth", "optional"),
            ("tls_user_map", map.to_str().unwrap()),
        ],
    ))
}

#[tokio::test(start_paused = true)]
async fn files_are_believed_once_two_readings_are_equal() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let users = dir.path().join("users");
    let (files, _) = first(&settings).unwrap();
    let begun = Instant::now();
    assert!(changed(&settings, &files).await.unwrap().is_none());
    assert!(begun.elapsed().is_zero(), "nothing has changed");
    // Half of a line means something else than the whole, or nothing.
    fs::write(&users, "CN=ann").unwrap();
    let write = async {
        sleep(SETTLES_IN / 2).await;
        fs::write(&users, "# no user yet\n").unwrap();
    };
    let (taken, ()) = tokio::join!(changed(&settings, &files), write);
    let (taken, _) = taken.unwrap().expect("they have changed");
    assert_eq!(begun.elapsed(), SETTLES_IN * 2);
    assert!(changed(&settings, &taken).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn files_that_change_with_each_reading_are_left_for_later() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let users = dir.path().join("users");
    let (files, _) = first(&settings).unwrap();
    let write = async {
        for at in 0.. {
            fs::write(&users, format!("# {at}\n")).unwrap();
            sleep(SETTLES_IN / 2).await;
        }
    };
    let begun = Instant::now();
    tokio::select! {
        biased;
        () = write => unreachable!("it does not end"),
        taken = changed(&settings, &files) => assert!(matches!(taken, Err(TlsError::Changing))),
    }
    assert_eq!(begun.elapsed(), SETTLES_IN * MAX_READINGS as u32);
}

#[test]
fn a_file_that_says_who_clients_are_and_that_all_can_write_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let open = || {
        open_files(&settings)
            .map(|(key, _)| key)
            .collect::<Vec<_>>()
    };
    assert!(open().is_empty());
    let allow = |name: &str, mode| {
        fs::set_permissions(dir.path().join(name), Permissions::from_mode(mode)).unwrap();
    };
    allow("users", 0o646);
    assert_eq!(open(), ["tls_user_map"]);
    // One file is named by two settings.
    allow("ca.crt", 0o666);
    assert_eq!(open(), ["tls_user_map", "tls_ca_file", "tls_peer_ca_file"]);
    // The operator has chosen the members of a group.
    allow("users", 0o664);
    allow("ca.crt", 0o644);
    assert!(open().is_empty());
}
