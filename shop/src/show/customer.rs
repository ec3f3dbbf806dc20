//! Customers, and what was answered to their orders, as they are printed.

use proto::customers::v1::{Customer, RefusalReason, Reservation, ReservationState};

use super::{Shown, time, words};
use crate::amount;

impl Shown for Customer {
    const COLUMNS: &'static [(&'static str, bool)] = &[
        ("CUSTOMER", false),
        ("LIMIT", true),
        ("RESERVED", true),
        ("AVAILABLE", true),
        ("NAME", false),
    ];

    fn id(&self) -> String {
        self.customer_id.clone()
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.customer_id.clone(),
            amount::shown(self.credit_limit.as_ref()),
            amount::shown(self.reserved.as_ref()),
            amount::shown(self.available.as_ref()),
            self.name.clone(),
        ]
    }

    fn record(&self) -> Vec<(&'static str, String)> {
        vec![
            ("customer", self.customer_id.clone()),
            ("name", self.name.clone()),
            ("limit", amount::shown(self.credit_limit.as_ref())),
            ("reserved", amount::shown(self.reserved.as_ref())),
            ("available", amount::shown(self.available.as_ref())),
            ("created", time(self.create_time.as_ref())),
        ]
    }
}

impl Shown for Reservation {
    const COLUMNS: &'static [(&'static str, bool)] = &[
        ("ORDER", false),
        ("AMOUNT", true),
        ("STATE", false),
        ("ANSWERED", false),
        ("RELEASED", false),
    ];

    fn id(&self) -> String {
        self.order_id.clone()
    }

    fn row(&self) -> Vec<String> {
        self.record().into_iter().map(|(_, value)| value).collect()
    }

    fn record(&self) -> Vec<(&'static str, String)> {
        vec![
            ("order", self.order_id.clone()),
            ("amount", amount::shown(self.amount.as_ref())),
            ("state", state(self)),
            ("answered", time(self.create_time.as_ref())),
            ("released", time(self.release_time.as_ref())),
        ]
    }
}

/// `active`, or `refused: credit limit exceeded`.
fn state(reservation: &Reservation) -> String {
    let Ok(state) = ReservationState::try_from(reservation.state) else {
        return format!("state {}, which a newer shop knows", reservation.state);
    };
    let state = words(state.as_str_name(), "RESERVATION_STATE_");
    match RefusalReason::try_from(reservation.refusal_reason) {
        Ok(RefusalReason::Unspecified) => state,
        Ok(reason) => {
            let reason = words(reason.as_str_name(), "REFUSAL_REASON_");
            format!("{state}: {reason}")
        }
        Err(_) => format!("{state}: reason {}", reservation.refusal_reason),
    }
}
