//! The wall clock as text: the `Date` header field (RFC 9110, section 6.6.1), formatted once a second per
//! thread, and RFC 3339 for logs. Never used for anything that the cluster decides.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memkv_proto::Utc;

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

thread_local! {
    static LAST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// Calls `use_it` with the present time.
pub(super) fn with_now(use_it: impl FnOnce(&str)) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(second, text)| {
        if *second != now {
            (*second, *text) = (now, format(now));
        }
        use_it(text);
    });
}

fn format(seconds: u64) -> String {
    let at = utc(seconds);
    format!(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
        DAYS[(seconds / 86_400 % 7) as usize],
        at.day,
        MONTHS[at.month - 1],
        at.year,
        at.hour,
        at.minute,
        at.second,
    )
}

fn utc(seconds: u64) -> Utc {
    Utc::at(i64::try_from(seconds).unwrap_or(i64::MAX / 2))
}

/// A time since 1970 as RFC 3339 has it, in UTC and to the millisecond.
pub(crate) fn rfc3339(since_1970: Duration) -> String {
    let at = utc(since_1970.as_secs());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year,
        at.month,
        at.day,
        at.hour,
        at.minute,
        at.second,
        since_1970.subsec_millis(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        assert_eq!(format(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        // The example of RFC 9110, section 5.6.7.
        assert_eq!(format(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(format(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(format(1_798_761_599), "Thu, 31 Dec 2026 23:59:59 GMT");
        assert_eq!(format(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 GMT");
        let leap_day = Duration::from_millis(951_782_400_007);
        assert_eq!(rfc3339(leap_day), "2000-02-29T00:00:00.007Z");
    }
}
