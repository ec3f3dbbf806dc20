//! Money as people write it, `12.50 EUR`, and as the contract has it: minor units and a currency.
//!
//! No rounding: what does not fit the currency's minor units is refused. Whether a service takes a
//! currency, or an amount of zero, is its own to say.

use iso_currency::Currency;
use proto::money::v1::Money;

/// Reads `12.50 EUR`, `12.5 EUR`, `12EUR` or `1200 JPY`.
pub(crate) fn parse(text: &str) -> Result<Money, String> {
    const EXAMPLE: &str = "write it as 12.50 EUR";
    let text = text.trim();
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (number, code) = text.split_at(end.unwrap_or(text.len()));
    let code = code.trim_start();
    if number.is_empty() {
        let why = match text.chars().next() {
            Some('-' | '+') => "an amount has no sign",
            _ => "it begins with no digit",
        };
        return Err(format!("{why}; {EXAMPLE}"));
    }
    if code.is_empty() {
        return Err(format!("its currency is missing; {EXAMPLE}"));
    }
    let currency = Currency::from_code(code);
    let digits = currency.and_then(Currency::exponent);
    let (Some(currency), Some(digits)) = (currency, digits) else {
        let code = code.escape_debug();
        return Err(format!(
            "{code} is not the ISO 4217 code of a currency; {EXAMPLE}"
        ));
    };
    let minor_units = minor_units(number, usize::from(digits))
        .map_err(|why| format!("{why} {}", currency.code()))?;
    Ok(Money {
        minor_units,
        currency: currency.code().to_owned(),
    })
}

fn minor_units(number: &str, digits: usize) -> Result<i64, String> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let is_number = !whole.is_empty() && !part.contains('.') && !number.ends_with('.');
    if !is_number {
        return Err(format!("{number} is not a number of"));
    }
    if part.len() > digits {
        return Err(match digits {
            0 => {
                format!("{number} has digits behind the point, and there is nothing smaller than 1")
            }
            _ => format!("{number} has more than {digits} digits behind the point, the least of"),
        });
    }
    let all = format!("{whole}{part:0<digits$}");
    all.parse()
        .map_err(|_| format!("{number} is more than can be counted in"))
}

/// `12.50 EUR`. A currency that is not known here is of minor units.
pub(crate) fn shown(money: Option<&Money>) -> String {
    let Some(money) = money else {
        return "–".to_owned();
    };
    let (minor, code) = (money.minor_units, &money.currency);
    let digits = Currency::from_code(code).and_then(Currency::exponent);
    let Some(digits) = digits.map(usize::from) else {
        return format!("{minor} minor units of {code}");
    };
    let sign = if minor < 0 { "-" } else { "" };
    let all = format!("{:0>width$}", minor.unsigned_abs(), width = digits + 1);
    let (whole, part) = all.split_at(all.len() - digits);
    let point = if part.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{part} {code}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(minor_units: i64, currency: &str) -> Money {
        let currency = currency.to_owned();
        Money {
            minor_units,
            currency,
        }
    }

    #[test]
    fn amounts_are_read_in_the_minor_units_of_their_currency() {
        let read = |text: &str| parse(text).unwrap();
        assert_eq!(read("12.50 EUR"), money(1_250, "EUR"));
        assert_eq!(read("12.5 EUR"), money(1_250, "EUR"));
        assert_eq!(read("12EUR"), money(1_200, "EUR"));
        assert_eq!(read(" 0.05  USD "), money(5, "USD"));
        assert_eq!(read("1200 JPY"), money(1_200, "JPY"));
        assert_eq!(read("1.234 KWD"), money(1_234, "KWD"));
        assert_eq!(read("92233720368547758.07 EUR"), money(i64::MAX, "EUR"));
    }

    #[test]
    fn what_is_no_amount_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "no digit"),
            ("EUR 12", "no digit"),
            ("-1 EUR", "no sign"),
            ("12.50", "currency is missing"),
            ("12.50 eur", "eur is not the ISO 4217 code"),
            ("1,000.00 EUR", ",000.00 EUR is not the ISO 4217 code"),
            ("12.505 EUR", "more than 2 digits"),
            ("1.5 JPY", "nothing smaller than 1 JPY"),
            ("12. EUR", "12. is not a number"),
            (".5 EUR", ".5 is not a number"),
            ("1.2.3 EUR", "1.2.3 is not a number"),
            ("1 XAU", "XAU is not the ISO 4217 code"),
            (
                "92233720368547758.08 EUR",
                "more than can be counted in EUR",
            ),
        ] {
            let said = parse(text).expect_err(text);
            assert!(said.contains(why), "{text:?}: {said}");
        }
    }

    #[test]
    fn amounts_are_shown_as_they_are_written() {
        let show = |minor, code| shown(Some(&money(minor, code)));
        assert_eq!(show(1_250, "EUR"), "12.50 EUR");
        assert_eq!(show(5, "EUR"), "0.05 EUR");
        assert_eq!(show(-5, "EUR"), "-0.05 EUR");
        assert_eq!(show(1_200, "JPY"), "1200 JPY");
        assert_eq!(show(0, "KWD"), "0.000 KWD");
        assert_eq!(show(7, "ZZZ"), "7 minor units of ZZZ");
        assert_eq!(show(i64::MIN, "EUR"), "-92233720368547758.08 EUR");
    }
}
