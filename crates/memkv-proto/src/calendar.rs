//! A time as a date and a time of day in UTC, for what programs print.
//!
//! Never reads a clock and knows no leap seconds, as Unix time does not.

const SECONDS_A_DAY: i64 = 86_400;

/// A date of the Gregorian calendar and a time of day, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Utc {
    /// The year.
    pub year: i64,
    /// The month, 1 to 12.
    pub month: usize,
    /// The day of the month, from 1.
    pub day: i64,
    /// The hour, 0 to 23.
    pub hour: i64,
    /// The minute, 0 to 59.
    pub minute: i64,
    /// The second, 0 to 59.
    pub second: i64,
}

impl Utc {
    /// The time that is so many seconds after the Unix epoch, or before it where negative.
    #[must_use]
    pub fn at(seconds: i64) -> Self {
        let of_day = seconds.rem_euclid(SECONDS_A_DAY);
        let (year, month, day) = civil(seconds.div_euclid(SECONDS_A_DAY));
        Self {
            year,
            month,
            day,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }
}

/// Year, month and day of a day number since 1970, counted from March so that a leap day is the last of its year.
fn civil(days: i64) -> (i64, usize, i64) {
    const DAYS_TO_1970_FROM_0000_MARCH: i64 = 719_468;
    const DAYS_PER_400_YEARS: i64 = 146_097;
    let days = days + DAYS_TO_1970_FROM_0000_MARCH;
    let era = days.div_euclid(DAYS_PER_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_PER_400_YEARS);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, usize::try_from(month).unwrap_or(1), day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_times_of_day() {
        for (seconds, expected) in [
            (0, (1970, 1, 1, 0, 0, 0)),
            (-1, (1969, 12, 31, 23, 59, 59)),
            (951_782_400, (2000, 2, 29, 0, 0, 0)),
            (951_868_799, (2000, 2, 29, 23, 59, 59)),
            (4_107_542_400, (2100, 3, 1, 0, 0, 0)),
        ] {
            let at = Utc::at(seconds);
            let found = (at.year, at.month, at.day, at.hour, at.minute, at.second);
            assert_eq!(found, expected, "{seconds}");
        }
    }
}
