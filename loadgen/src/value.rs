//! Values as people type them: times, rates and shares.

use std::time::Duration;

/// Nobody waits for longer, and a slip of the finger should not (I12).
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// `10s`, `500ms`, `2m`, `1h`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time such as 10s, 500ms, 2m or 1h");
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let time = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
    match time <= TIME_MAX {
        true => Ok(time),
        false => Err("must be a day at most".to_owned()),
    }
}

/// A number that is not negative.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        _ => Err(format!(
            "{text:?} is not a number such as 100 or 0.5, zero or more"
        )),
    }
}

/// `0.1%`, or a number from 0 to 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let (number, of) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    match number.parse::<f64>() {
        Ok(number) if (0.0..=of).contains(&number) => Ok(number / of),
        _ => Err(format!(
            "{text:?} is not a share such as 0.1%, at most 100%"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_their_units() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["", "5", "s", "1d", "25h", "-1s", "1e3s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert_eq!(share("0.1%"), Ok(0.001));
        assert_eq!(share("0.25"), Ok(0.25));
        assert!(share("101%").is_err() && share("x").is_err());
        assert!(rate("-1").is_err() && rate("inf").is_err() && rate("NaN").is_err());
    }
}
