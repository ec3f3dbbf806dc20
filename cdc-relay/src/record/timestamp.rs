//! Timestamps as RFC 3339 writes them, in UTC.

/// From the Unix epoch to Postgres' own, 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;

/// Microseconds since 2000-01-01 as text; `None` for infinity, and beyond the years 1 to 9999.
pub(super) fn rfc3339(micros: i64) -> Option<String> {
    let (days, micros) = (micros.div_euclid(DAY_MICROS), micros.rem_euclid(DAY_MICROS));
    let (year, month, day) = date(days + EPOCH_DAYS);
    if !(1..=9999).contains(&year) {
        return None;
    }
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    Some(format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z"
    ))
}

/// The civil date of a day since 1970-01-01: counted in eras of 400 years that begin in March, so that
/// the leap day is a year's last.
fn date(days: i64) -> (i64, i64, i64) {
    let from_era = days + 719_468;
    let era = from_era.div_euclid(146_097);
    let day_of_era = from_era.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_since_2000_become_rfc_3339() {
        for (micros, text) in [
            (0, "2000-01-01T00:00:00.000000Z"),
            (-1, "1999-12-31T23:59:59.999999Z"),
            (59 * DAY_MICROS, "2000-02-29T00:00:00.000000Z"),
            (848_998_984_123_456, "2026-11-26T09:03:04.123456Z"),
        ] {
            assert_eq!(rfc3339(micros).unwrap(), text);
        }
        assert_eq!(rfc3339(i64::MAX), None);
        assert_eq!(rfc3339(i64::MIN), None);
    }
}
