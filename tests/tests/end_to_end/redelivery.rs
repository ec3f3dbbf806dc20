//! Delivering any event again changes nothing (I6): the inbox sees to it, and where the inbox has
//! forgotten, the domain does.
//!
//! To deliver all again, a consumer's durable is deleted while its service is down: the service makes
//! it anew, and reads its stream from the beginning.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{Side, System, books, eventually};
use proto::orders::v1::OrderState;
use uuid::Uuid;

use crate::client::{Client, Transport, euros, money};

const DEADLINE: Duration = Duration::from_secs(60);

/// What each service consumes, and from which stream.
const CONSUMED: [(Side, Side, &[&str]); 2] = [
    (
        Side::Customers,
        Side::Orders,
        &["orders.v1.OrderCreated", "orders.v1.OrderCancelled"],
    ),
    (
        Side::Orders,
        Side::Customers,
        &[
            "customers.v1.CreditReserved",
            "customers.v1.CreditLimitExceeded",
            "customers.v1.CustomerNotFound",
            "customers.v1.CurrencyMismatch",
        ],
    ),
];

/// All that must not change.
const TABLES: [(Side, &str); 5] = [
    (Side::Orders, "orders"),
    (Side::Orders, "outbox"),
    (Side::Customers, "customers"),
    (Side::Customers, "reservations"),
    (Side::Customers, "outbox"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_event_delivered_again_changes_nothing_with_the_inbox_and_without() {
    let system = System::start().await.unwrap();
    order_of_every_outcome(&system).await;
    let books = books::settled(&system, DEADLINE).await.unwrap();
    books.assert_clean();
    let before = state(&system).await.unwrap();

    for inbox_is_empty in [false, true] {
        for (service, stream, types) in CONSUMED {
            let ledger = &books.streams[stream.stream()];
            for event_type in types {
                assert!(ledger.events[*event_type] > 0, "no {event_type}");
            }
            let events = types.iter().map(|name| ledger.events[*name]).sum();
            deliver_all_again(&system, service, stream, inbox_is_empty).await;
            all_came_again(&system, service, events, inbox_is_empty).await;
            for (table, rows) in state(&system).await.unwrap() {
                assert_eq!(rows, before[&table], "{table}, inbox {inbox_is_empty}");
            }
        }
    }

    // Nothing was published either, and nothing was set aside as unreadable.
    let after = books::settled(&system, DEADLINE).await.unwrap();
    after.assert_clean();
    assert_eq!(after.streams, books.streams);
    assert_eq!(after.dead_letters, 0);
}

/// Several of each outcome, so that a batch holds them all.
async fn order_of_every_outcome(system: &System) {
    let client = Client::new(system, Transport::Grpc)
        .await
        .expect("a client");
    for _ in 0..3 {
        let customer = client.create_customer("Ada", euros(1_000)).await;
        let customer_id = customer.expect("a customer").customer_id;
        let nobody = Uuid::now_v7().to_string();
        for (customer_id, total, expected) in [
            (&customer_id, euros(600), OrderState::Approved),
            (&customer_id, euros(500), OrderState::Cancelled),
            (&customer_id, money(1, "USD"), OrderState::Cancelled),
            (&nobody, euros(1), OrderState::Cancelled),
            (&customer_id, euros(400), OrderState::Approved),
        ] {
            let order = client.create_order(customer_id, total).await;
            let order_id = order.expect("an order").order_id;
            let settled = client.settled_order(&order_id).await.expect("settled");
            assert_eq!(settled.state(), expected);
        }
    }
}

async fn deliver_all_again(system: &System, service: Side, stream: Side, empty_inbox: bool) {
    let process = system.process(service.service());
    let status = process.terminate().await.expect("the service ends");
    assert!(status.success(), "{status}");
    let nats = system.nats().client().await.expect("a NATS client");
    let jetstream = async_nats::jetstream::new(nats);
    jetstream
        .delete_consumer_from_stream(service.service(), stream.stream())
        .await
        .expect("the durable is deleted");
    if empty_inbox {
        let database = system.database(service).await.expect("a database");
        let emptied = database.batch_execute("TRUNCATE inbox").await;
        emptied.expect("the inbox is emptied");
    }
    process.start_again().expect("the service starts");
    process.wait_ready().await.expect("the service is ready");
}

/// Awaits that the new process has been through them all: each counted as a repeat, or, where the
/// inbox was empty, as applied.
async fn all_came_again(system: &System, service: Side, events: usize, inbox_was_empty: bool) {
    let process = system.process(service.service());
    let metrics = [
        "mailbox_events_applied_total",
        "mailbox_events_duplicate_total",
    ];
    let expected = if inbox_was_empty {
        [events, 0]
    } else {
        [0, events]
    };
    let what = format!("{expected:?} events applied, repeated");
    let counted = eventually(&what, DEADLINE, async || {
        let mut counts = [0; 2];
        for (count, metric) in counts.iter_mut().zip(metrics) {
            // Whole numbers of events.
            *count = process.metric(metric).await?.unwrap_or_default() as usize;
        }
        ensure!(counts.iter().sum::<usize>() >= events, "so far {counts:?}");
        Ok(Some(counts))
    });
    assert_eq!(counted.await.expect("all come again"), expected);
}

/// Every row of every table that must not change, as text, in order.
async fn state(system: &System) -> Result<BTreeMap<String, Vec<String>>> {
    let mut state = BTreeMap::new();
    for (side, table) in TABLES {
        let database = system.database(side).await?;
        let statement = format!("SELECT t::text FROM {table} t ORDER BY 1");
        let rows = database.query(&statement, &[]).await?;
        ensure!(!rows.is_empty(), "{table} is empty");
        let rows = rows.iter().map(|row| row.get(0)).collect();
        state.insert(format!("{} {table}", side.database()), rows);
    }
    Ok(state)
}
