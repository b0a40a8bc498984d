//! Dates for records and pages.

use std::time::SystemTime;

use jiff::Timestamp;

/// A moment as RFC 3339 in UTC with seconds, for example `2026-11-05T09:30:00Z`.
pub fn utc_timestamp(time: SystemTime) -> String {
    // The calendar ends on the next to last day of 9999, in UTC; later clocks do not work.
    let moment = Timestamp::try_from(time).unwrap_or(Timestamp::MAX);
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn timestamps_are_calendar_dates() {
        // `date -u -d @N +%FT%TZ`
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_793_872_200, "2026-11-05T09:50:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_207_199, "9999-12-30T21:59:59Z"),
            (253_402_300_799, "9999-12-30T22:00:00Z"),
        ] {
            assert_eq!(utc_timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
