//! An instant as people and protocols write it, in UTC: what signatures and events call a date.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

/// A date and a time of day in UTC, to the millisecond. `Display` is RFC 3339: `2026-11-23T00:00:00.123Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc {
    pub(crate) year: u64,
    pub(crate) month: u64,
    pub(crate) day: u64,
    /// Seconds since midnight.
    pub(crate) second: u64,
    milli: u64,
}

impl Utc {
    /// `2026-11-23T00:00:00Z`, without fractions, as Alibaba's `x-acs-date` has it.
    pub fn to_seconds(self) -> String {
        let (hour, minute, second) = self.clock();
        let Self {
            year, month, day, ..
        } = self;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    /// So many seconds and milliseconds after the beginning of 1970.
    pub(crate) fn at(seconds: u64, milli: u64) -> Self {
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // The days of the Gregorian calendar, counted from 1 March of the year 0, where leap days come last ("civil_from_days", H. Hinnant).
        let days = days + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        Self {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day,
            second,
            milli,
        }
    }

    /// Hour, minute and second of the day.
    fn clock(self) -> (u64, u64, u64) {
        (self.second / 3600, self.second / 60 % 60, self.second % 60)
    }
}

impl From<SystemTime> for Utc {
    /// What lies before 1970 becomes the first instant of it.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::at(since.as_secs(), u64::from(since.subsec_millis()))
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hour, minute, second) = self.clock();
        let Self {
            year,
            month,
            day,
            milli,
            ..
        } = self;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64, milli: u64) -> Utc {
        let since = Duration::from_secs(seconds) + Duration::from_millis(milli);
        Utc::from(UNIX_EPOCH + since)
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_795_392_000, "2026-11-23T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(at(seconds, 0).to_seconds(), text);
        }
    }

    #[test]
    fn events_have_milliseconds() {
        assert_eq!(at(1_795_392_000, 7).to_string(), "2026-11-23T00:00:00.007Z");
    }

    #[test]
    fn there_is_nothing_before_1970() {
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(Utc::from(before), at(0, 0));
    }
}
