//! The books for people.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use iso_currency::Currency;

use super::Books;

/// More rows than this are counted, not shown.
const ROWS_MAX: usize = 12;
/// Of violations, more: each is a finding.
const VIOLATIONS_MAX: usize = 40;

impl Display for Books {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let of = |state| self.orders(state);
        write!(
            f,
            "orders        {} approved, {} cancelled",
            of("approved"),
            of("cancelled")
        )?;
        if !self.cancelled.is_empty() {
            write!(f, " ({})", listed(&self.cancelled))?;
        }
        writeln!(f, ", {} pending", of("pending"))?;
        for (row, account) in self.customers.iter().take(ROWS_MAX).enumerate() {
            let money = |minor| money(minor, &account.currency);
            writeln!(
                f,
                "{:14}{} reserved of {} {}, {} ({})",
                if row == 0 { "credit" } else { "" },
                money(account.reserved),
                money(account.limit),
                account.currency,
                account.name,
                account.customer_id,
            )?;
        }
        more(f, self.customers.len(), ROWS_MAX)?;
        for (row, (name, ledger)) in self.streams.iter().enumerate() {
            writeln!(
                f,
                "{:14}{name}: {} events for {} outbox rows ({})",
                if row == 0 { "streams" } else { "" },
                ledger.messages(),
                ledger.outbox,
                listed(&ledger.events),
            )?;
        }
        writeln!(f, "dead letters  {}", self.dead_letters)?;
        write!(f, "violations    {}", self.violations.len())?;
        for violation in self.violations.iter().take(VIOLATIONS_MAX) {
            write!(f, "\n  - {violation}")?;
        }
        if self.violations.len() > VIOLATIONS_MAX {
            write!(
                f,
                "\n  … and {} more",
                self.violations.len() - VIOLATIONS_MAX
            )?;
        }
        Ok(())
    }
}

fn more(f: &mut Formatter<'_>, rows: usize, shown: usize) -> fmt::Result {
    if rows > shown {
        writeln!(f, "{:14}… and {} more", "", rows - shown)?;
    }
    Ok(())
}

/// `3 CreditReserved, 1 CustomerCreated`: event types without their package.
fn listed(counts: &BTreeMap<String, usize>) -> String {
    let entries: Vec<String> = counts
        .iter()
        .map(|(name, count)| {
            let short = name.rsplit('.').next().unwrap_or(name);
            format!("{count} {}", short.replace('_', " "))
        })
        .collect();
    entries.join(", ")
}

/// Minor units as people write them: 1050 of EUR is `10.50`, of JPY `1050`.
fn money(minor: i64, currency: &str) -> String {
    let exponent = Currency::from_code(currency)
        .and_then(Currency::exponent)
        .unwrap_or(0);
    if exponent == 0 {
        return minor.to_string();
    }
    let unit = 10_u64.pow(u32::from(exponent));
    let sign = if minor < 0 { "-" } else { "" };
    let (whole, part) = (minor.unsigned_abs() / unit, minor.unsigned_abs() % unit);
    format!(
        "{sign}{whole}.{part:0width$}",
        width = usize::from(exponent)
    )
}

#[cfg(test)]
mod tests {
    use super::money;

    #[test]
    fn money_has_the_decimals_of_its_currency() {
        assert_eq!(money(1050, "EUR"), "10.50");
        assert_eq!(money(-5, "EUR"), "-0.05");
        assert_eq!(money(1050, "JPY"), "1050");
        assert_eq!(money(1_234, "KWD"), "1.234");
    }
}
