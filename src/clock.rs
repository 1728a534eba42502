//! Wall-clock time, ids derived from it, and random pauses. No other module reads the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970-01-01T00:00:00Z, the unit of every stored time.
pub type Micros = i64;

/// Returns the current time in microseconds since the epoch, or 0 if the clock is before 1970.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now_micros() -> Micros {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Micros::try_from(since_epoch.as_micros()).unwrap_or(Micros::MAX)
}

/// Returns a duration in the unit of stored times.
pub fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}

/// Creates a UUID v7 of the current time. Such ids are ordered by time.
pub fn new_id() -> uuid::Uuid {
    let now = u64::try_from(now_micros()).unwrap_or(0);
    let nanos = u32::try_from(now % 1_000_000).unwrap_or(0) * 1_000;
    uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, now / 1_000_000, nanos))
}

/// Formats a time as RFC 3339 in UTC with milliseconds, for example `2026-06-11T10:00:00.000Z`.
pub fn rfc3339(micros: Micros) -> String {
    let Civil { year, month, day, hour, minute, second, milli, .. } = Civil::of(micros);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Parses an RFC 3339 time, for example `2026-06-11T10:00:00Z` or `2026-06-11T12:00:00.5+02:00`. Returns `None`
/// for anything else. Digits beyond microseconds are ignored, and a leap second is the second after it.
pub fn parse_rfc3339(text: &str) -> Option<Micros> {
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?
    };
    let is_at = |at: usize, any: &[u8]| text.as_bytes().get(at).is_some_and(|byte| any.contains(byte));
    let separated =
        is_at(4, b"-") && is_at(7, b"-") && is_at(10, b"Tt ") && is_at(13, b":") && is_at(16, b":");
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let in_range = (1..=12).contains(&month) && hour < 24 && minute < 60 && second <= 60;
    if !separated || !in_range || day < 1 || day > days_of_month(year, month) {
        return None;
    }
    let (fraction, zone) = fraction_and_zone(text.get(19..)?)?;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some((seconds - offset_seconds(zone)?) * 1_000_000 + fraction)
}

/// Splits what follows the seconds into microseconds and the zone.
fn fraction_and_zone(rest: &str) -> Option<(Micros, &str)> {
    let Some(rest) = rest.strip_prefix('.') else { return Some((0, rest)) };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let micros = rest.bytes().take(digits.min(6)).fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let missing = u32::try_from(6_usize.saturating_sub(digits)).ok()?;
    (digits > 0).then(|| (micros * 10_i64.pow(missing), &rest[digits..]))
}

/// Returns how far a zone (`Z`, `+02:00`) is ahead of UTC.
fn offset_seconds(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes() {
        [b'Z' | b'z'] => return Some(0),
        [b'+', _, _, b':', _, _] => 1,
        [b'-', _, _, b':', _, _] => -1,
        _ => return None,
    };
    let digits =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i64>().ok())?;
    let (hours, minutes) = (digits(zone.get(1..3)?)?, digits(zone.get(4..6)?)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn days_of_month(year: i64, month: i64) -> i64 {
    let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    days_from_civil(next.0, next.1, 1) - days_from_civil(year, month, 1)
}

/// Returns the days from 1970-01-01 to a date: the inverse of [`Civil::of`], of the same source.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Formats a time like JavaScript's `Date.prototype.toString` in UTC, for example
/// `Thu Jun 11 2026 10:00:00 GMT+0000 (Coordinated Universal Time)`.
pub fn javascript_date(micros: Micros) -> String {
    let Civil { year, month, day, weekday, hour, minute, second, .. } = Civil::of(micros);
    let (weekday, month) = (WEEKDAYS[weekday], MONTHS[month - 1]);
    format!(
        "{weekday} {month} {day:02} {year:04} {hour:02}:{minute:02}:{second:02} \
         GMT+0000 (Coordinated Universal Time)"
    )
}

/// Returns `duration` times a random factor from 0.75 to 1.25, so that waits of the same length do not end
/// together.
pub fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.75) + random_up_to(duration / 2)
}

/// Returns a random duration up to `max`, or half of `max` if the system provides no random numbers.
pub fn random_up_to(max: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    max.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// A time that serialises as [`rfc3339`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub Micros);

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

/// A time in the proleptic Gregorian calendar, in UTC.
struct Civil {
    year: i64,
    /// The month, from 1.
    month: usize,
    day: i64,
    /// The number of days since Thursday.
    weekday: usize,
    hour: i64,
    minute: i64,
    second: i64,
    milli: i64,
}

impl Civil {
    /// Splits a time into its fields. The date is computed with Howard Hinnant's `civil_from_days`
    /// ("chrono-Compatible Low-Level Date Algorithms"), in which years begin in March.
    fn of(micros: Micros) -> Self {
        let days = micros.div_euclid(MICROS_PER_DAY);
        let milli = micros.rem_euclid(MICROS_PER_DAY) / 1_000;
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let months_since_march = (5 * day_of_year + 2) / 153;
        let month = (months_since_march + 2) % 12 + 1;
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: month as usize,
            day: day_of_year - (153 * months_since_march + 2) / 5 + 1,
            weekday: days.rem_euclid(7) as usize,
            hour: milli / 3_600_000,
            minute: milli / 60_000 % 60,
            second: milli / 1_000 % 60,
            milli: milli % 1_000,
        }
    }
}

/// The names of the weekdays, from Thursday, because 1970 began on one.
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
    fn a_time_is_read_back_from_what_was_written_and_nothing_else_is_a_time() {
        for millis in [0, -1, 951_827_696_789, 1_795_143_600_000, 253_402_300_799_999] {
            assert_eq!(parse_rfc3339(&rfc3339(millis * 1_000)), Some(millis * 1_000));
        }
        let noon = parse_rfc3339("2026-06-11T10:00:00Z");
        for same in ["2026-06-11T12:00:00+02:00", "2026-06-11t04:30:00.000-05:30", "2026-06-11 10:00:00.0z"] {
            assert_eq!(parse_rfc3339(same), noon, "{same}");
        }
        assert_eq!(parse_rfc3339("1970-01-01T00:00:00.1234567Z"), Some(123_456));
        for wrong in [
            "",
            "2026-06-11",
            "2026-06-11T10:00:00",
            "2026-02-29T10:00:00Z",
            "2026-13-01T10:00:00Z",
            "2026-06-11T24:00:00Z",
            "2026-06-11T10:00:00.Z",
            "2026-06-11T10:00:00+2:00",
            "+026-06-11T10:00:00Z",
            "2026-06-11T10:00:00Zx",
            "２026-06-11T10:00:00Z",
            "2026-06-11T10:00:00+24:00",
        ] {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_read_as_javascript_writes_them() {
        let text = javascript_date(1_795_143_600_000_000);
        assert_eq!(text, "Fri Nov 20 2026 03:00:00 GMT+0000 (Coordinated Universal Time)");
        assert_eq!(javascript_date(-1), "Wed Dec 31 1969 23:59:59 GMT+0000 (Coordinated Universal Time)");
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut before = Civil::of(-MICROS_PER_DAY);
        for day in 0..146_097 {
            let today = Civil::of(day * MICROS_PER_DAY);
            let next_day =
                (today.year, today.month, today.day) == (before.year, before.month, before.day + 1);
            let next_month = today.day == 1
                && before.day >= 28
                && (today.year, today.month)
                    == (before.year + i64::from(before.month == 12), before.month % 12 + 1);
            assert!(next_day || next_month, "{day}");
            assert_eq!(today.weekday, (before.weekday + 1) % 7);
            before = today;
        }
        assert_eq!((before.year, before.month, before.day), (2369, 12, 31));
    }

    #[test]
    fn jitter_is_a_quarter_up_or_down() {
        let second = Duration::from_secs(1);
        let times: Vec<Duration> = (0..100).map(|_| jittered(second)).collect();
        assert!(times.iter().all(|time| (0.75..=1.25).contains(&time.as_secs_f64())), "{times:?}");
        assert!(times.windows(2).any(|pair| pair[0] != pair[1]));
        assert!((0..100).all(|_| random_up_to(second) <= second));
    }
}
