//! The books at the end: what both databases and both streams hold, and whether it adds up.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::books::{self, Books};

use super::chaos::{GRACE_LIMIT, ORDERS, ORDERS_FIT};
use super::show::{Show, euros, words};
use super::stage::Stage;
use super::story::{ADA_LIMIT, ADA_RESERVED};

const SETTLE_DEADLINE: Duration = Duration::from_secs(30);
/// Violations beyond these are counted, not shown.
const VIOLATIONS_MAX: usize = 20;

pub(super) async fn tell(stage: &Stage) -> Result<()> {
    let books = books::settled(&stage.system, SETTLE_DEADLINE).await?;
    stage
        .show
        .step("", "The books, read from both databases and both streams");
    write(stage.show, &books);
    ensure!(books.violations.is_empty(), "the books do not add up");
    as_told(&books)
}

/// Fails when the books are in order, and yet not those of this story.
fn as_told(books: &Books) -> Result<()> {
    let expected = [
        ("approved orders", books.orders("approved"), 1 + ORDERS_FIT),
        (
            "orders cancelled by clients",
            books.cancelled("by_customer"),
            1,
        ),
        ("orders that timed out", books.cancelled("timed_out"), 1),
        (
            "orders refused for the limit",
            books.cancelled("credit_limit_exceeded"),
            1 + ORDERS - ORDERS_FIT,
        ),
        (
            "orders of unknown customers",
            books.cancelled("unknown_customer"),
            1,
        ),
        ("pending orders", books.orders("pending"), 0),
        ("customers", books.customers.len(), 2),
    ];
    for (what, found, told) in expected {
        ensure!(
            found == told,
            "the story made {told} {what}, and the books have {found}"
        );
    }
    ensure!(
        books.dead_letters == 0,
        "{} messages could not be applied; they are in DEAD_LETTERS",
        books.dead_letters
    );
    let told = [(ADA_RESERVED, ADA_LIMIT), (GRACE_LIMIT, GRACE_LIMIT)];
    for (account, (reserved, limit)) in books.customers.iter().zip(told) {
        ensure!(
            (account.reserved, account.limit) == (reserved, limit),
            "{} was to have reserved {} of {}, and has {} of {}",
            account.name,
            euros(reserved),
            euros(limit),
            euros(account.reserved),
            euros(account.limit)
        );
    }
    Ok(())
}

fn write(show: Show, books: &Books) {
    let of = |state| books.orders(state);
    show.row(
        "orders",
        &format!(
            "{} approved, {} cancelled ({}), {} pending",
            of("approved"),
            of("cancelled"),
            counts(&books.cancelled),
            of("pending")
        ),
    );
    for (row, account) in books.customers.iter().enumerate() {
        let label = if row == 0 { "credit" } else { "" };
        show.row(
            label,
            &format!(
                "{:<6} {:>12} reserved of {:>12}   customer {}",
                account.name,
                euros(account.reserved),
                euros(account.limit),
                account.customer_id
            ),
        );
    }
    for (row, (name, ledger)) in books.streams.iter().enumerate() {
        let label = if row == 0 { "streams" } else { "" };
        show.row(
            label,
            &format!(
                "{name:<10} {} events of {} in the outbox: {}",
                ledger.messages(),
                ledger.outbox,
                counts(&ledger.events)
            ),
        );
    }
    let letters = format!("dead letters: {}", books.dead_letters);
    let violations = format!("violations: {}", books.violations.len());
    show.row("audit", &letters);
    if books.violations.is_empty() {
        show.good("", &violations);
    } else {
        show.bad("", &violations);
    }
    for violation in books.violations.iter().take(VIOLATIONS_MAX) {
        show.bad("", violation);
    }
}

/// `2 OrderApproved, 1 OrderCancelled`: event types without their package.
fn counts(counts: &BTreeMap<String, usize>) -> String {
    let entry = |(name, count): (&String, &usize)| match name.rsplit_once('.') {
        Some((_, event)) => format!("{count} {event}"),
        None => format!("{count} {}", words(name)),
    };
    counts.iter().map(entry).collect::<Vec<_>>().join(", ")
}
