//! Each event as it stands in streams and outboxes that were written before. They are kept for long, and
//! consumers of other versions read them: bytes once here never change. A new field gets a new line
//! beside the old one, which must still be read.

#![allow(clippy::unwrap_used)]

use std::fmt::Debug;

use prost::{Message, Name};
use proto::money::v1::Money;
use proto::{Timestamp, customers::v1 as customers, orders::v1 as orders};

const ORDER: &str = "0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f17";
const CUSTOMER: &str = "0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f18";

fn eur(minor_units: i64) -> Option<Money> {
    Some(Money {
        minor_units,
        currency: "EUR".to_owned(),
    })
}

fn time() -> Option<Timestamp> {
    Some(Timestamp {
        seconds: 1_700_000_000,
        nanos: 123_456_000,
    })
}

/// What is written is `golden`, byte by byte, and what is read from it is `event`; of fields that a newer
/// version adds it reads the rest.
#[track_caller]
fn is_golden<M: Message + Name + Default + PartialEq + Debug>(event: &M, golden: &str) {
    let written = event.encode_to_vec();
    let hex: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    // The ids are the same everywhere, and long: they stand by name.
    let hex = hex.replace(&text(ORDER), "<order>");
    let hex = hex.replace(&text(CUSTOMER), "<customer>");
    assert_eq!(hex, golden, "{}", M::full_name());
    let newer = [written.as_slice(), &[0x9a, 0x06, 0x01, 0x78]].concat(); // field 99
    assert_eq!(&M::decode(newer.as_slice()).unwrap(), event);
}

fn text(id: &str) -> String {
    let bytes: String = id.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{:02x}{bytes}", id.len())
}

#[test]
fn the_orders_events_are_written_as_ever() {
    let (order_id, customer_id) = (ORDER.to_owned(), CUSTOMER.to_owned());
    is_golden(
        &orders::OrderCreated {
            order_id: order_id.clone(),
            customer_id: customer_id.clone(),
            total: eur(1_999),
            create_time: time(),
        },
        "0a<order>12<customer>1a0808cf0f1203455552220b0880e2cfaa06108094ef3a",
    );
    is_golden(
        &orders::OrderApproved {
            order_id: order_id.clone(),
            customer_id: customer_id.clone(),
            total: eur(1_999),
        },
        "0a<order>12<customer>1a0808cf0f1203455552",
    );
    let cancelled = |reason: i32| orders::OrderCancelled {
        order_id: order_id.clone(),
        customer_id: customer_id.clone(),
        total: eur(1_999),
        reason,
    };
    for reason in 1..=5 {
        let golden = format!("0a<order>12<customer>1a0808cf0f120345555220{reason:02x}");
        is_golden(&cancelled(reason), &golden);
    }
    use orders::CancellationReason as Reason;
    let reasons = [
        Reason::CreditLimitExceeded,
        Reason::UnknownCustomer,
        Reason::CurrencyMismatch,
        Reason::ByCustomer,
        Reason::TimedOut,
    ];
    assert_eq!(reasons.map(i32::from), [1, 2, 3, 4, 5]);
}

#[test]
fn the_customers_events_are_written_as_ever() {
    let (order_id, customer_id) = (ORDER.to_owned(), CUSTOMER.to_owned());
    is_golden(
        &customers::CustomerCreated {
            customer_id: customer_id.clone(),
            name: "Ada".to_owned(),
            credit_limit: eur(10_000),
            create_time: time(),
        },
        "0a<customer>12034164611a0808904e1203455552220b0880e2cfaa06108094ef3a",
    );
    is_golden(
        &customers::CreditLimitChanged {
            customer_id: customer_id.clone(),
            credit_limit: eur(20_000),
            previous_credit_limit: eur(10_000),
        },
        "0a<customer>120908a09c0112034555521a0808904e1203455552",
    );
    is_golden(
        &customers::CreditReserved {
            order_id: order_id.clone(),
            customer_id: customer_id.clone(),
            amount: eur(1_999),
        },
        "0a<order>12<customer>1a0808cf0f1203455552",
    );
    is_golden(
        &customers::CreditReleased {
            order_id: order_id.clone(),
            customer_id: customer_id.clone(),
            amount: eur(1_999),
        },
        "0a<order>12<customer>1a0808cf0f1203455552",
    );
    is_golden(
        &customers::CreditLimitExceeded {
            order_id: order_id.clone(),
            customer_id: customer_id.clone(),
            amount: eur(1_999),
            available: eur(0),
        },
        "0a<order>12<customer>1a0808cf0f120345555222051203455552",
    );
    is_golden(
        &customers::CustomerNotFound {
            order_id: order_id.clone(),
            customer_id: customer_id.clone(),
        },
        "0a<order>12<customer>",
    );
    is_golden(
        &customers::CurrencyMismatch {
            order_id,
            customer_id,
            amount: eur(1_999),
            customer_currency: "USD".to_owned(),
        },
        "0a<order>12<customer>1a0808cf0f12034555522203555344",
    );
}
