//! Looks for new files of TLS every 10 s and at SIGHUP, and puts all of them in force together. Files that
//! cannot be used change nothing: the set before them stays, the log says why, and a metric is raised.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memkv_node::seldom::Seldom;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::files::{self, Files, TlsError};
use super::set::Set;
use super::{Tls, TlsSettings, counters, date};

/// A few small reads; so long at most is a revoked certificate accepted.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Between two readings of files that have changed: a file is believed once two readings are equal, since one may
/// catch it half written.
pub(super) const SETTLES_IN: Duration = Duration::from_millis(200);

/// Readings until a file that changes each time is left for the next look.
pub(super) const MAX_READINGS: usize = 10;

/// A certificate that ends within this is told.
pub(super) const EXPIRES_SOON: i64 = 14 * 24 * 3600;

static BROKEN: Seldom = Seldom::new();
/// Once a day, as long as it has not been replaced.
static ENDING: Seldom = Seldom::at_most(1, Duration::from_secs(24 * 3600));

/// The set at the start.
pub(super) fn first(settings: &TlsSettings) -> Result<(Files, Set), TlsError> {
    let files = Files::read(settings)?;
    let set = Set::new(settings, &files)?;
    counters::took(set.not_after);
    warn_of_end(set.not_after);
    files::warn_of_writers(settings);
    Ok((files, set))
}

/// Runs as long as the process. `files` are those in force.
pub(super) async fn run(tls: Arc<Tls>, mut files: Files) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => Some(hangups),
        Err(error) => {
            tracing::warn!(%error, "SIGHUP is not listened to; files of TLS are looked at every 10 s");
            None
        }
    };
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        let hangup = async {
            match &mut hangups {
                Some(hangups) => hangups.recv().await,
                None => std::future::pending().await,
            }
        };
        let asked = tokio::select! {
            _ = ticks.tick() => false,
            _ = hangup => true,
        };
        look(&tls, &mut files, asked).await;
    }
}

async fn look(tls: &Tls, files: &mut Files, asked: bool) {
    match changed(&tls.settings, files).await {
        Ok(None) => {
            counters::is_whole();
            if asked {
                tracing::info!("SIGHUP: the files of TLS are those in force");
            }
        }
        Ok(Some((new, set))) => {
            counters::took(set.not_after);
            tracing::info!(until = date(set.not_after), "new files of TLS are in force");
            files::warn_of_writers(&tls.settings);
            *files = new;
            tls.set.send_replace(Arc::new(set));
        }
        Err(error) => {
            counters::is_broken();
            if asked {
                tracing::error!(%error, "the files of TLS cannot be used; those before stay in force");
            } else if let Some(left_out) = BROKEN.say() {
                tracing::error!(
                    %error, left_out,
                    "the files of TLS cannot be used; those before stay in force"
                );
            }
        }
    }
    warn_of_end(tls.current().not_after);
}

/// The files once they are others than these and two readings of them were equal.
pub(super) async fn changed(
    settings: &TlsSettings,
    files: &Files,
) -> Result<Option<(Files, Set)>, TlsError> {
    let mut new = Files::read(settings)?;
    if new == *files {
        return Ok(None);
    }
    for _ in 0..MAX_READINGS {
        tokio::time::sleep(SETTLES_IN).await;
        let again = Files::read(settings)?;
        if again == new {
            let set = Set::new(settings, &new)?;
            return Ok(Some((new, set)));
        }
        new = again;
    }
    Err(TlsError::Changing)
}

fn warn_of_end(not_after: i64) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let left = not_after - i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if left >= EXPIRES_SOON || ENDING.say().is_none() {
        return;
    }
    let until = date(not_after);
    if left > 0 {
        tracing::warn!(
            until,
            "this node's certificate ends soon: put a new one in its place"
        );
    } else {
        tracing::error!(
            until,
            "this node's certificate has ended: put a new one in its place"
        );
    }
}
