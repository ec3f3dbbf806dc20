//! Each thing that can be wrong is found, and nothing is found where nothing is wrong.

use super::*;
use crate::books::Account;

const ORDER: Uuid = Uuid::from_u128(1);
const CUSTOMER: Uuid = Uuid::from_u128(2);
const CREATED: Uuid = Uuid::from_u128(3);
const APPROVED: Uuid = Uuid::from_u128(4);

fn message(sequence: u64, id: Uuid, event_type: &str, lsn: u64, index: u32) -> Message {
    Message {
        sequence,
        id: id.to_string(),
        event_type: event_type.to_owned(),
        aggregate_id: ORDER.to_string(),
        position: format!("7/1/{lsn:016X}/{index}"),
    }
}

/// One approved order, with all that belongs to it.
fn facts() -> Facts {
    let mut facts = Facts::default();
    facts.customers.push(Account {
        customer_id: CUSTOMER.to_string(),
        name: "Ada".into(),
        currency: "EUR".into(),
        limit: 10,
        reserved: 10,
        active: 10,
    });
    let order = Order {
        customer_id: CUSTOMER,
        total: 10,
        currency: "EUR".into(),
        state: "approved".into(),
        reason: None,
    };
    facts.orders.insert(ORDER, order);
    let reservation = Reservation {
        customer_id: CUSTOMER,
        amount: 10,
        currency: "EUR".into(),
        state: "active".into(),
        reason: None,
    };
    facts.reservations.insert(ORDER, reservation);
    let source = Source {
        outbox: HashSet::from([CREATED, APPROVED]),
        messages: vec![
            message(1, CREATED, "orders.v1.OrderCreated", 0x9, 0),
            message(2, APPROVED, "orders.v1.OrderApproved", 0x10, 0),
        ],
    };
    facts.sources.insert("ORDERS", source);
    facts
}

/// Exactly these violations, by a part of each, are what `spoil` brings about.
#[track_caller]
fn finds(expected: &[&str], spoil: impl FnOnce(&mut Facts)) {
    let mut facts = facts();
    spoil(&mut facts);
    let violations = check(&facts).violations;
    assert_eq!(violations.len(), expected.len(), "{violations:?}");
    for part in expected {
        let found = violations.iter().any(|violation| violation.contains(part));
        assert!(found, "{part:?} is not in {violations:?}");
    }
}

fn order(facts: &mut Facts) -> &mut Order {
    facts.orders.get_mut(&ORDER).expect("the order")
}

fn reservation(facts: &mut Facts) -> &mut Reservation {
    facts.reservations.get_mut(&ORDER).expect("the reservation")
}

fn source(facts: &mut Facts) -> &mut Source {
    facts.sources.get_mut("ORDERS").expect("the stream")
}

#[test]
fn books_that_add_up_have_no_violations() {
    let books = check(&facts());
    assert_eq!(books.violations, Vec::<String>::new());
    assert_eq!(books.orders("approved"), 1);
    assert_eq!(books.streams["ORDERS"].messages(), 2);
}

#[test]
fn credit_that_does_not_add_up_is_found() {
    finds(&["8 reserved, but active reservations of 10"], |facts| {
        facts.customers[0].reserved = 8;
    });
    let over = [
        "10 reserved of a limit of 9",
        "active reservations of 10 within a limit of 9",
    ];
    finds(&over, |facts| facts.customers[0].limit = 9);
    finds(&["unknown customer"], |facts| facts.customers.clear());
    finds(&["reserved in EUR from a customer's USD"], |facts| {
        facts.customers[0].currency = "USD".into();
    });
}

#[test]
fn an_approval_without_its_reservation_is_found() {
    finds(&["approved without an active reservation"], |facts| {
        facts.reservations.clear();
    });
    finds(&["approved without an active reservation"], |facts| {
        reservation(facts).state = "released".into();
    });
    finds(&["pending, and its reservation is released"], |facts| {
        reservation(facts).state = "released".into();
        order(facts).state = "pending".into();
        facts.customers[0].reserved = 0;
        facts.customers[0].active = 0;
    });
    finds(&["approved for 10 EUR"], |facts| {
        reservation(facts).amount = 9
    });
    finds(&["no such order"], |facts| facts.orders.clear());
    finds(&["cancelled, and its reservation is active"], |facts| {
        order(facts).state = "cancelled".into();
        order(facts).reason = Some("by_customer".into());
    });
}

#[test]
fn a_cancellation_for_another_reason_than_the_refusal_is_found() {
    let refuse = |facts: &mut Facts, refused: &str, cancelled: &str| {
        reservation(facts).state = "refused".into();
        reservation(facts).reason = Some(refused.into());
        order(facts).state = "cancelled".into();
        order(facts).reason = Some(cancelled.into());
    };
    finds(&[], |facts| {
        refuse(facts, "customer_not_found", "unknown_customer")
    });
    finds(&["refused for currency_mismatch"], |facts| {
        refuse(facts, "currency_mismatch", "unknown_customer");
    });
}

#[test]
fn an_event_that_is_missing_repeated_or_foreign_is_found() {
    finds(&["of the outbox is missing"], |facts| {
        source(facts).messages.pop();
    });
    finds(&["stands twice", "is not behind"], |facts| {
        let again = source(facts).messages[1].clone();
        source(facts).messages.push(again);
    });
    finds(&["is in no outbox row"], |facts| {
        source(facts).outbox.remove(&APPROVED);
    });
    finds(&["no event id", "is missing"], |facts| {
        source(facts).messages[1].id.clear();
    });
}

#[test]
fn an_inversion_is_found() {
    finds(&["is not behind"], |facts| {
        source(facts).messages[1].position = format!("7/1/{:016X}/5", 0x8);
    });
    // Of one commit, one after the other.
    finds(&[], |facts| {
        source(facts).messages[1].position = format!("7/1/{:016X}/1", 0x9);
    });
    finds(&["no position"], |facts| {
        source(facts).messages[1].position.clear();
    });
    // Also when the positions lie.
    let inverted = ["comes before its creation", "comes after other events"];
    finds(&inverted, |facts| {
        let messages = &mut source(facts).messages;
        let (id, event_type) = (messages[0].id.clone(), messages[0].event_type.clone());
        messages[0].id = messages[1].id.clone();
        messages[0].event_type = messages[1].event_type.clone();
        messages[1].id = id;
        messages[1].event_type = event_type;
    });
}
