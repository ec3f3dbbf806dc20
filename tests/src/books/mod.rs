//! The auditor: reads both databases and both streams from outside and tells what does not add up.
//!
//! It takes nothing from the code that it audits: it has its own SQL and reads headers itself.
//! Credit (I7) must add up at any instant. That approvals match reservations (I9) and that the streams
//! match the outboxes (I1, I5) can be told once nothing is in flight: [`settled`] awaits that.

mod check;
mod read;
mod show;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio_postgres::Client;

use crate::eventually::eventually;
use crate::roles::Role;
use crate::system::{Side, System};

/// What both databases and the streams say, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// Orders by state: `pending`, `approved`, `cancelled`.
    pub orders: BTreeMap<String, usize>,
    /// Cancelled orders by reason.
    pub cancelled: BTreeMap<String, usize>,
    /// Customers, the oldest first.
    pub customers: Vec<Account>,
    /// Streams by name.
    pub streams: BTreeMap<String, Ledger>,
    /// Messages in the dead-letter stream.
    pub dead_letters: u64,
    /// What does not add up, in words. Empty when all is well.
    pub violations: Vec<String>,
}

/// A customer's credit, in minor units.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    /// UUID.
    pub customer_id: String,
    /// As given.
    pub name: String,
    /// ISO 4217.
    pub currency: String,
    /// The most that may be reserved.
    pub limit: i64,
    /// What the customer's row says is reserved.
    pub reserved: i64,
    /// The sum of the customer's active reservations.
    pub active: i64,
}

/// A stream against the outbox that it comes from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ledger {
    /// Rows in the outbox.
    pub outbox: usize,
    /// Messages in the stream, by event type.
    pub events: BTreeMap<String, usize>,
}

impl Ledger {
    /// Messages in the stream.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.events.values().sum()
    }
}

impl Books {
    /// Orders in a state.
    #[must_use]
    pub fn orders(&self, state: &str) -> usize {
        self.orders.get(state).copied().unwrap_or(0)
    }

    /// Orders cancelled for a reason, as the order database names it.
    #[must_use]
    pub fn cancelled(&self, reason: &str) -> usize {
        self.cancelled.get(reason).copied().unwrap_or(0)
    }

    /// For tests.
    ///
    /// # Panics
    /// When there are violations; shows the books.
    pub fn assert_clean(&self) {
        assert!(
            self.violations.is_empty(),
            "the books do not add up:\n{self}"
        );
    }
}

/// Audits the system as it stands now. Orders and events in flight show as violations: await
/// [`settled`] first, unless that is what is looked for.
///
/// # Errors
/// When a database or NATS cannot be read.
pub async fn audit(system: &System) -> Result<Books> {
    let orders = system.database_as(Side::Orders, Role::Auditor).await?;
    let customers = system.database_as(Side::Customers, Role::Auditor).await?;
    let jetstream = async_nats::jetstream::new(system.nats().client().await?);
    let mut facts = read::Facts {
        // Before the reservations: an approval that is seen has its reservation to be seen.
        orders: read::orders(&orders).await?,
        ..Default::default()
    };
    (facts.customers, facts.reservations) = read::credit(&customers).await?;
    for (side, client) in [(Side::Orders, &orders), (Side::Customers, &customers)] {
        let source = read::Source {
            outbox: read::outbox(client).await?,
            messages: read::stream(&jetstream, side.stream()).await?,
        };
        facts.sources.insert(side.stream(), source);
    }
    facts.dead_letters = read::dead_letters(&jetstream).await?;
    Ok(check::check(&facts))
}

/// Awaits that no order is pending, and that every event is in its stream and has been applied; then
/// audits.
///
/// # Errors
/// After `deadline`: tells what was still open.
pub async fn settled(system: &System, deadline: Duration) -> Result<Books> {
    eventually("all orders to be settled", deadline, async || {
        let orders = system.database_as(Side::Orders, Role::Auditor).await?;
        let pending = read::pending(&orders).await?;
        if pending > 0 {
            bail!("{pending} orders are pending");
        }
        let customers = system.database_as(Side::Customers, Role::Auditor).await?;
        let jetstream = async_nats::jetstream::new(system.nats().client().await?);
        let before = [
            published(Side::Orders, &orders, &jetstream).await?,
            published(Side::Customers, &customers, &jetstream).await?,
        ];
        consumed(Side::Orders, Side::Customers, &jetstream).await?;
        consumed(Side::Customers, Side::Orders, &jetstream).await?;
        // What was applied may have led to further events, before it was acknowledged.
        let after = [
            read::outbox_count(&orders).await?,
            read::outbox_count(&customers).await?,
        ];
        if before != after {
            bail!("events are still being made: {before:?}, then {after:?}");
        }
        Ok(Some(()))
    })
    .await?;
    audit(system).await
}

async fn published(
    side: Side,
    client: &Client,
    jetstream: &async_nats::jetstream::Context,
) -> Result<u64> {
    let rows = read::outbox_count(client).await?;
    let messages = read::message_count(jetstream, side.stream()).await?;
    if messages < rows {
        bail!("{messages} of {rows} events are in {}", side.stream());
    }
    Ok(rows)
}

async fn consumed(
    service: Side,
    source: Side,
    jetstream: &async_nats::jetstream::Context,
) -> Result<()> {
    let (waiting, in_hand) = read::backlog(jetstream, source.stream(), service.service()).await?;
    if waiting > 0 || in_hand > 0 {
        let stream = source.stream();
        bail!(
            "{} has {waiting} events of {stream} before it, and {in_hand} in hand",
            service.service()
        );
    }
    Ok(())
}
