//! Checks of values that several groups share; each says why it refuses.

pub(super) fn name(given: &str) -> Result<String, String> {
    if given.is_empty() || given.contains(char::is_whitespace) {
        return Err("must not be empty or hold blanks".to_owned());
    }
    Ok(given.to_owned())
}

pub(super) fn number(given: &str, least: u64, most: u64) -> Result<u64, String> {
    match given.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("must be a number from {least} to {most}")),
    }
}

/// Postgres cuts longer names off.
const IDENTIFIER_BYTES_MAX: usize = 63;

pub(super) fn identifier(given: &str) -> Result<String, String> {
    if given.is_empty() || given.len() > IDENTIFIER_BYTES_MAX || given.contains(['\0', '{', '}']) {
        return Err(format!(
            "must be the name of a column, of 1 to {IDENTIFIER_BYTES_MAX} bytes, as it is spelt in Postgres"
        ));
    }
    Ok(given.to_owned())
}
