//! What must hold of one customer's books (I7, I8, I9), and that no order was lost or came from nowhere.

use std::collections::{HashMap, HashSet};

use proto::customers::v1::{Reservation, ReservationState};
use proto::money::v1::Money;
use proto::orders::v1::{Order, OrderState};
use uuid::Uuid;

use super::Account;
use crate::shop::Known;

/// What one customer's books hold, and what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) orders: u64,
    pub(super) approved: u64,
    pub(super) cancelled: u64,
    pub(super) pending: u64,
    pub(super) unacknowledged: u64,
    pub(super) findings: Vec<String>,
}

pub(super) fn check(account: &Account, known: &Known, amount: i64) -> Found {
    let mut found = Found::default();
    let customer_id = &account.customer.customer_id;
    let reservations: HashMap<&str, &Reservation> = account
        .reservations
        .iter()
        .map(|one| (one.order_id.as_str(), one))
        .collect();
    let mut approved = 0;
    let mut there = HashSet::new();
    for order in &account.orders {
        let total = minor_units(order.total.as_ref());
        if let Ok(id) = Uuid::try_parse(&order.order_id) {
            there.insert(id);
            found.unacknowledged += u64::from(!known.acknowledged.contains(&id));
        }
        found.orders += 1;
        match order.state() {
            OrderState::Approved => {
                found.approved += 1;
                approved += total;
            }
            OrderState::Cancelled => found.cancelled += 1,
            _ => found.pending += 1,
        }
        let reservation = reservations.get(order.order_id.as_str()).copied();
        let mut wrong = of_order(order, reservation);
        if total != amount {
            wrong.push(format!("is for {total}, and was placed for {amount}"));
        }
        let named = |what| format!("order {} of customer {customer_id} {what}", order.order_id);
        found.findings.extend(wrong.into_iter().map(named));
    }
    for lost in known.acknowledged.difference(&there) {
        found.findings.push(format!(
            "order {lost} of customer {customer_id} was acknowledged, and is not there"
        ));
    }
    if found.unacknowledged > known.in_doubt {
        found.findings.push(format!(
            "customer {customer_id} has {} orders that were not acknowledged, and {} creates had no answer",
            found.unacknowledged, known.in_doubt
        ));
    }
    for reservation in account.reservations.iter().filter(|one| is_active(one)) {
        let known = Uuid::try_parse(&reservation.order_id).is_ok_and(|id| there.contains(&id));
        if !known {
            found.findings.push(format!(
                "customer {customer_id} has {} reserved for order {}, which is not there",
                minor_units(reservation.amount.as_ref()),
                reservation.order_id
            ));
        }
    }
    found.findings.extend(of_credit(account, approved));
    found
}

/// An order is approved if and only if an active reservation of its amount exists (I9).
fn of_order(order: &Order, reservation: Option<&Reservation>) -> Vec<String> {
    let reserved = reservation.filter(|one| is_active(one));
    let total = minor_units(order.total.as_ref());
    let mut wrong = Vec::new();
    match (order.state(), reserved) {
        (OrderState::Approved, None) => wrong.push("is approved, and nothing is reserved".into()),
        (OrderState::Approved, Some(one)) => {
            let amount = minor_units(one.amount.as_ref());
            if amount != total {
                wrong.push(format!(
                    "is approved for {total}, and {amount} are reserved"
                ));
            }
        }
        (OrderState::Cancelled, Some(one)) => wrong.push(format!(
            "is cancelled, and {} are still reserved",
            minor_units(one.amount.as_ref())
        )),
        (OrderState::Cancelled, None) => {}
        _ => wrong.push("is not settled".into()),
    }
    wrong
}

/// What is reserved is the sum of what was approved, and within the limit (I7).
fn of_credit(account: &Account, approved: i64) -> Vec<String> {
    let customer = &account.customer;
    let id = &customer.customer_id;
    let reserved = minor_units(customer.reserved.as_ref());
    let limit = minor_units(customer.credit_limit.as_ref());
    let available = minor_units(customer.available.as_ref());
    let mut wrong = Vec::new();
    if reserved != approved {
        wrong.push(format!(
            "customer {id} has {reserved} reserved, and approved orders of {approved}"
        ));
    }
    if reserved > limit {
        wrong.push(format!(
            "customer {id} has {reserved} reserved, more than the limit of {limit}"
        ));
    }
    if available != limit - reserved {
        wrong.push(format!(
            "customer {id} has {available} left of {limit} with {reserved} reserved"
        ));
    }
    wrong
}

fn is_active(reservation: &Reservation) -> bool {
    reservation.state() == ReservationState::Active
}

fn minor_units(money: Option<&Money>) -> i64 {
    money.map_or(0, |money| money.minor_units)
}
