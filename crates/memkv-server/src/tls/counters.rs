//! What TLS counts, and what an operator must hear of it. One process has one node, so all is in statics.
//! Never takes a lock.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::date;
use super::reload::EXPIRES_SOON;

/// Why a handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Timeout,
    Closed,
    Off,
    NoCertificate,
    Expired,
    Revoked,
    UnknownCa,
    BadCertificate,
    Alert,
    Protocol,
}

impl Failure {
    const ALL: [Self; 10] = [
        Self::Timeout,
        Self::Closed,
        Self::Off,
        Self::NoCertificate,
        Self::Expired,
        Self::Revoked,
        Self::UnknownCa,
        Self::BadCertificate,
        Self::Alert,
        Self::Protocol,
    ];

    /// Its label.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Off => "not_served",
            Self::NoCertificate => "no_certificate",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::UnknownCa => "unknown_ca",
            Self::BadCertificate => "bad_certificate",
            Self::Alert => "refused_by_other_side",
            Self::Protocol => "protocol",
        }
    }
}

static DONE: AtomicU64 = AtomicU64::new(0);
static FAILED: [AtomicU64; Failure::ALL.len()] = [const { AtomicU64::new(0) }; Failure::ALL.len()];
/// 0: there is no TLS.
static NOT_AFTER: AtomicI64 = AtomicI64::new(0);
static BROKEN: AtomicBool = AtomicBool::new(false);

pub(super) fn shook_hands() {
    DONE.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn failed(failure: Failure) {
    if let Some(counter) = FAILED.get(failure as usize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) fn took(not_after: i64) {
    NOT_AFTER.store(not_after, Ordering::Relaxed);
    is_whole();
}

pub(super) fn is_whole() {
    BROKEN.store(false, Ordering::Relaxed);
}

pub(super) fn is_broken() {
    BROKEN.store(true, Ordering::Relaxed);
}

/// For the metrics.
pub(crate) struct Counts {
    pub(crate) done: u64,
    pub(crate) failed: Vec<(&'static str, u64)>,
    /// Seconds since the Unix epoch; none without TLS.
    pub(crate) not_after: Option<i64>,
    pub(crate) is_broken: bool,
}

/// The numbers now.
pub(crate) fn counts() -> Counts {
    let not_after = NOT_AFTER.load(Ordering::Relaxed);
    let all = Failure::ALL.iter().zip(&FAILED);
    Counts {
        done: DONE.load(Ordering::Relaxed),
        failed: all
            .map(|(why, count)| (why.name(), count.load(Ordering::Relaxed)))
            .collect(),
        not_after: (not_after != 0).then_some(not_after),
        is_broken: BROKEN.load(Ordering::Relaxed),
    }
}

/// What an operator must do something about.
pub(crate) fn alarms() -> Vec<String> {
    let counts = counts();
    let mut alarms = Vec::new();
    if counts.is_broken {
        alarms.push(
            "the files of TLS cannot be used, and those before stay in force; the log says why"
                .to_owned(),
        );
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if let Some(end) = counts.not_after.filter(|end| end - now < EXPIRES_SOON) {
        let word = if end > now { "ends" } else { "ended" };
        alarms.push(format!("this node's certificate {word} at {}", date(end)));
    }
    alarms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_a_place_and_a_label_of_its_own() {
        for (at, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, at);
            let same = Failure::ALL
                .iter()
                .filter(|other| other.name() == failure.name());
            assert_eq!(same.count(), 1, "{failure:?}");
        }
    }
}
