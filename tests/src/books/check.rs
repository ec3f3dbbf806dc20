//! Compares the facts with each other.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::read::{Facts, Message, Order, Reservation, Source};
use super::{Books, Ledger};

/// Orders are cancelled for what the Customer Service refused: its word, the Order Service's word.
const REASONS: [(&str, &str); 3] = [
    ("credit_limit_exceeded", "credit_limit_exceeded"),
    ("customer_not_found", "unknown_customer"),
    ("currency_mismatch", "currency_mismatch"),
];

pub(super) fn check(facts: &Facts) -> Books {
    let mut books = Books {
        customers: facts.customers.clone(),
        dead_letters: facts.dead_letters,
        ..Default::default()
    };
    for order in facts.orders.values() {
        *books.orders.entry(order.state.clone()).or_default() += 1;
        if let Some(reason) = &order.reason {
            *books.cancelled.entry(reason.clone()).or_default() += 1;
        }
    }
    let violations = &mut books.violations;
    credit(facts, violations);
    approvals(facts, violations);
    for (name, source) in &facts.sources {
        published(name, source, violations);
        ordered(name, &source.messages, violations);
        created_first(name, &source.messages, violations);
        let mut ledger = Ledger {
            outbox: source.outbox.len(),
            ..Default::default()
        };
        for message in &source.messages {
            *ledger.events.entry(message.event_type.clone()).or_default() += 1;
        }
        books.streams.insert((*name).to_owned(), ledger);
    }
    books
}

/// I7: what a customer's row says is reserved is the sum of its active reservations, within the limit.
fn credit(facts: &Facts, violations: &mut Vec<String>) {
    for account in &facts.customers {
        let (id, limit) = (&account.customer_id, account.limit);
        if account.reserved > limit {
            violations.push(format!(
                "customer {id}: {} reserved of a limit of {limit}",
                account.reserved
            ));
        }
        if account.active > limit {
            violations.push(format!(
                "customer {id}: active reservations of {} within a limit of {limit}",
                account.active
            ));
        }
        if account.reserved != account.active {
            violations.push(format!(
                "customer {id}: {} reserved, but active reservations of {}",
                account.reserved, account.active
            ));
        }
    }
    let known: HashMap<&str, &str> = facts
        .customers
        .iter()
        .map(|account| (account.customer_id.as_str(), account.currency.as_str()))
        .collect();
    for (order_id, reservation) in &facts.reservations {
        if reservation.state != "active" {
            continue;
        }
        match known.get(reservation.customer_id.to_string().as_str()) {
            None => violations.push(format!(
                "order {order_id}: an active reservation of the unknown customer {}",
                reservation.customer_id
            )),
            Some(currency) if *currency != reservation.currency => violations.push(format!(
                "order {order_id}: reserved in {} from a customer's {currency}",
                reservation.currency
            )),
            Some(_) => {}
        }
    }
}

/// I9: approved if and only if an active reservation of its amount exists.
fn approvals(facts: &Facts, violations: &mut Vec<String>) {
    for (id, order) in &facts.orders {
        let reservation = facts.reservations.get(id);
        let active = reservation.filter(|found| found.state == "active");
        match (order.state.as_str(), active) {
            ("approved", None) => {
                violations.push(format!(
                    "order {id}: approved without an active reservation"
                ));
            }
            ("approved", Some(found)) if !fits(order, found) => violations.push(format!(
                "order {id}: approved for {} {} of {}, reserved {} {} of {}",
                order.total,
                order.currency,
                order.customer_id,
                found.amount,
                found.currency,
                found.customer_id
            )),
            ("cancelled", Some(_)) => {
                violations.push(format!(
                    "order {id}: cancelled, and its reservation is active"
                ));
            }
            ("pending", None) if reservation.is_some_and(|found| found.state == "released") => {
                violations.push(format!(
                    "order {id}: pending, and its reservation is released"
                ));
            }
            _ => {}
        }
        if order.state == "cancelled" {
            reasons(*id, order, reservation, violations);
        }
    }
    for (id, reservation) in &facts.reservations {
        if reservation.state == "active" && !facts.orders.contains_key(id) {
            violations.push(format!(
                "order {id}: an active reservation, but no such order"
            ));
        }
    }
}

fn fits(order: &Order, reservation: &Reservation) -> bool {
    order.total == reservation.amount
        && order.currency == reservation.currency
        && order.customer_id == reservation.customer_id
}

/// A refusal and the cancellation that followed it give the same reason.
fn reasons(id: Uuid, order: &Order, refusal: Option<&Reservation>, violations: &mut Vec<String>) {
    let refused = refusal.and_then(|refusal| refusal.reason.as_deref());
    let cancelled = order.reason.as_deref().unwrap_or("no reason");
    // A reason that is not the Customer Service's (a customer's own cancel, a deadline) needs none.
    let expected = REASONS.iter().find(|(_, word)| *word == cancelled);
    if let Some((word, _)) = expected
        && refused != Some(word)
    {
        violations.push(format!(
            "order {id}: cancelled for {cancelled}, but refused for {}",
            refused.unwrap_or("nothing")
        ));
    }
}

/// I1, I5: every event of the outbox is in the stream once, and nothing else is.
fn published(name: &str, source: &Source, violations: &mut Vec<String>) {
    let mut seen = HashSet::with_capacity(source.messages.len());
    for message in &source.messages {
        let sequence = message.sequence;
        let Ok(id) = message.id.parse::<Uuid>() else {
            violations.push(format!("{name} {sequence}: no event id: {:?}", message.id));
            continue;
        };
        if !seen.insert(id) {
            violations.push(format!("{name} {sequence}: event {id} stands twice"));
        }
        if !source.outbox.contains(&id) {
            violations.push(format!("{name} {sequence}: event {id} is in no outbox row"));
        }
    }
    for id in source.outbox.difference(&seen) {
        violations.push(format!("{name}: event {id} of the outbox is missing"));
    }
}

/// I5: the positions in the WAL ascend.
fn ordered(name: &str, messages: &[Message], violations: &mut Vec<String>) {
    let mut last: Option<(u64, Place)> = None;
    for message in messages {
        let sequence = message.sequence;
        let Some((system, place)) = place(&message.position) else {
            violations.push(format!(
                "{name} {sequence}: no position: {:?}",
                message.position
            ));
            continue;
        };
        // Positions of different clusters cannot be compared.
        if let Some((before, previous)) = last
            && before == system
            && place <= previous
        {
            violations.push(format!(
                "{name} {sequence}: position {} is not behind the one before it",
                message.position
            ));
        }
        last = Some((system, place));
    }
}

/// Commit LSN, index in the transaction, timeline.
type Place = (u64, u32, u32);

fn place(position: &str) -> Option<(u64, Place)> {
    let parts: Vec<&str> = position.split('/').collect();
    let [system, timeline, lsn, index] = parts[..] else {
        return None;
    };
    let lsn = u64::from_str_radix(lsn, 16).ok()?;
    Some((
        system.parse().ok()?,
        (lsn, index.parse().ok()?, timeline.parse().ok()?),
    ))
}

/// I5, without believing the relay's own header: a thing's first event is that of its creation. The
/// Customer Service also answers about customers that were never created.
fn created_first(name: &str, messages: &[Message], violations: &mut Vec<String>) {
    let mut met: HashSet<&str> = HashSet::new();
    for message in messages {
        let created = matches!(
            message.event_type.as_str(),
            "orders.v1.OrderCreated" | "customers.v1.CustomerCreated"
        );
        let first = met.insert(&message.aggregate_id);
        if created && !first {
            violations.push(format!(
                "{name} {}: {} of {} comes after other events of it",
                message.sequence, message.event_type, message.aggregate_id
            ));
        }
        if !created && first && message.event_type.starts_with("orders.v1.") {
            violations.push(format!(
                "{name} {}: {} of {} comes before its creation",
                message.sequence, message.event_type, message.aggregate_id
            ));
        }
    }
}

#[cfg(test)]
mod tests;
