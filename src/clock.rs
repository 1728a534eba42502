//! Calendar time, and identifiers made from it. The only place that reads the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970-01-01T00:00:00Z, the unit of every stored time.
pub type Micros = i64;

/// Now, in microseconds since the epoch. Before 1970 reads as 0.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now_micros() -> Micros {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Micros::try_from(since_epoch.as_micros()).unwrap_or(Micros::MAX)
}

/// A new id, ordered by time: UUID v7 of now.
pub fn new_id() -> uuid::Uuid {
    let now = u64::try_from(now_micros()).unwrap_or(0);
    let nanos = u32::try_from(now % 1_000_000).unwrap_or(0) * 1_000;
    uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, now / 1_000_000, nanos))
}

/// RFC 3339 in UTC with milliseconds, for example `2026-06-11T10:00:00.000Z`.
pub fn rfc3339(micros: Micros) -> String {
    let (days, micros_of_day) = (micros.div_euclid(MICROS_PER_DAY), micros.rem_euclid(MICROS_PER_DAY));
    let (year, month, day) = civil_from_days(days);
    let millis = micros_of_day / 1_000;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        millis / 3_600_000,
        millis / 60_000 % 60,
        millis / 1_000 % 60,
        millis % 1_000
    )
}

/// As `Date.prototype.toString` of JavaScript writes it, in UTC:
/// `Thu Jun 11 2026 10:00:00 GMT+0000 (Coordinated Universal Time)`.
pub fn javascript_date(micros: Micros) -> String {
    let (days, second) = (micros.div_euclid(MICROS_PER_DAY), micros.rem_euclid(MICROS_PER_DAY) / 1_000_000);
    let (year, month, day) = civil_from_days(days);
    let weekday = WEEKDAYS[days.rem_euclid(7) as usize];
    let month = MONTHS[(month - 1).rem_euclid(12) as usize];
    format!(
        "{weekday} {month} {day:02} {year:04} {:02}:{:02}:{:02} GMT+0000 (Coordinated Universal Time)",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

/// A time that serialises as [`rfc3339`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub Micros);

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

/// Days since the epoch to (year, month, day) in the proleptic Gregorian calendar
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// 1970 began on a Thursday.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const MICROS_PER_DAY: i64 = 86_400_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_rfc3339_with_milliseconds() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_827_696_789_123), "2000-02-29T12:34:56.789Z");
        assert_eq!(rfc3339(1_795_143_600_000_000), "2026-11-20T03:00:00.000Z");
        assert_eq!(rfc3339(-1_000), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn times_read_as_javascript_writes_them() {
        let text = javascript_date(1_795_143_600_000_000);
        assert_eq!(text, "Fri Nov 20 2026 03:00:00 GMT+0000 (Coordinated Universal Time)");
        assert_eq!(javascript_date(-1), "Wed Dec 31 1969 23:59:59 GMT+0000 (Coordinated Universal Time)");
    }
}
